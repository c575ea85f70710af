"""What status and audit read."""

from collections.abc import Iterator

import pytest

from loads import (
    TOPIC,
    FakeRecord,
    Load,
    dead_letter,
    event,
    events,
    execute,
    replay,
    window_count,
)
from streamflow.postgres.accounting import Outcome, accounted_offsets
from streamflow.postgres.connections import session
from streamflow.postgres.queries import loaded, row_counts
from streamflow.postgres.reconciliation import Reconciliation, reconcile
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS
from streamflow.windows import Progress

pytestmark = pytest.mark.integration


@pytest.fixture
def database(database_url: str) -> Settings:
    return Settings(DATABASE_URL=database_url)


@pytest.fixture
def load(database: Settings) -> Iterator[Load]:
    made = Load(database)
    yield made
    made.sink.close()


def accounted(
    settings: Settings, topic: str, start: int = 0, stop: int = 100
) -> list[tuple[int, Outcome]]:
    table = USER_EVENTS.table if topic == TOPIC else None
    with session(settings, "test") as connection:
        return list(accounted_offsets(connection, topic, 0, start, stop, event_table=table))


def test_row_counts(load: Load, database: Settings) -> None:
    load.load([*events(range(5)), window_count(0, 0)])

    assert row_counts(database) == {
        "events": 5,
        "window_counts": 1,
        "notifications": 0,
        "dead_letters": 0,
    }


def test_loaded(load: Load, database: Settings) -> None:
    load.load([*events(range(5)), FakeRecord(7, b"{")])

    with session(database, "test") as connection:
        assert {key: tuple(each) for key, each in loaded(connection, "db-group").items()} == {
            (TOPIC, 0): (8, 6, 1)
        }


def test_every_record_of_a_stream_has_its_outcome(load: Load, database: Settings) -> None:
    load.load([*events([0, 1]), FakeRecord(2, b"{}"), dead_letter(0, "user-events/0/2", 2)])
    load.sent("user-events/0/2", "user-events/0/5", "user-events/0/6")
    load.load([*events([4]), replay(5, "user-events/0/2"), replay(6, "user-events/0/2")])

    assert accounted(database, TOPIC) == [
        (0, "stored"),
        (1, "stored"),
        (2, "dead_lettered"),
        (4, "stored"),
        (5, "stored"),
        (6, "duplicate"),
    ]
    assert accounted(database, TOPIC, 1, 5) == [
        (1, "stored"),
        (2, "dead_lettered"),
        (4, "stored"),
    ]


def test_a_record_with_two_outcomes_comes_twice(load: Load, database: Settings) -> None:
    load.load([*events([0, 1]), dead_letter(0, "user-events/0/1", 1)])

    assert sorted(accounted(database, TOPIC)) == [
        (0, "stored"),
        (1, "dead_lettered"),
        (1, "stored"),
    ]


def test_every_record_of_the_other_topics_has_its_outcome(load: Load, database: Settings) -> None:
    load.load([window_count(0, 10), window_count(3, 10), FakeRecord(4, b"{", topic="analytics")])
    own = load.delivered[0]
    foreign = FakeRecord(1, None, topic="dead-letter-topic")
    again = FakeRecord(2, own.value, topic="dead-letter-topic", headers=own.headers)
    load.load([FakeRecord(0, own.value, topic="dead-letter-topic", headers=own.headers)])
    load.load([foreign, again])

    assert accounted(database, "analytics") == [
        (0, "stored"),
        (3, "duplicate"),
        (4, "dead_lettered"),
    ]
    assert accounted(database, "dead-letter-topic") == [
        (0, "stored"),
        (1, "stored"),
        (2, "duplicate"),
    ]


def reconciled(settings: Settings, position: int, closed_through: int) -> Reconciliation:
    """As analytics had it that read up to `position` and closed windows up to that time."""
    progress = Progress(position, position, closed_through, 300_000)
    with session(settings, "test") as connection:
        return reconcile(connection, USER_EVENTS, 0, progress)


def test_windows_that_tell_what_the_events_tell(load: Load, database: Settings) -> None:
    load.load([*events([0, 3, 12]), FakeRecord(13, event(14, type="USER_LOGOUT"))])
    load.load(
        [
            window_count(0, 0, count=2, last_offset=3),
            window_count(
                1,
                12,
                window_start="2026-07-01T12:00:10.000Z",
                window_end="2026-07-01T12:00:20.000Z",
            ),
        ]
    )
    noon = 1_782_907_200_000

    found = reconciled(database, 14, noon + 20_000)
    assert found.events == {"USER_LOGIN": 3, "USER_LOGOUT": 1}
    assert found.counted == {"USER_LOGIN": 3, "USER_LOGOUT": 0}
    assert found.first_difference == (
        "user-events[0] window 2026-07-01T12:00:10Z USER_LOGOUT: 1 events, 0 counted"
    )
    # What is still open, or was not read yet, is not missed.
    assert reconciled(database, 13, noon + 20_000).first_difference is None
    assert reconciled(database, 14, noon + 10_000).first_difference is None


def test_a_duplicate_replay_is_counted_by_analytics_too(load: Load, database: Settings) -> None:
    load.load([FakeRecord(0, b"{}"), dead_letter(0, "user-events/0/0")])
    load.sent("user-events/0/0", "user-events/0/1", "user-events/0/2")
    load.load([replay(1, "user-events/0/0"), replay(2, "user-events/0/0")])
    load.load([window_count(0, 1, count=2, last_offset=2)])

    found = reconciled(database, 3, 1_782_907_210_000)
    assert found.events == found.counted == {"USER_LOGIN": 2}
    assert found.first_difference is None


def test_a_duplicate_far_ahead_of_the_broker_s_clock_is_counted_at_once(
    load: Load, database: Settings
) -> None:
    day = {"window_start": "2026-07-02T12:00:00Z", "window_end": "2026-07-02T12:00:10Z"}
    load.load([FakeRecord(0, b"{}"), dead_letter(0, "user-events/0/0")])
    load.sent("user-events/0/0", "user-events/0/1", "user-events/0/2")
    load.load([replay(each, "user-events/0/0", time="2026-07-02T12:00:01Z") for each in (1, 2)])
    load.load([window_count(0, 1, count=2, late=True, **day)])

    found = reconciled(database, 3, 1_782_907_210_000)
    assert found.events == found.counted == {"USER_LOGIN": 2}
    assert found.first_difference is None


def test_windows_before_the_epoch_align_to_it(load: Load, database: Settings) -> None:
    load.load([FakeRecord(0, event(1, time="0001-01-02T00:00:07Z"))])
    execute(
        database,
        "INSERT INTO window_counts VALUES ('0001-01-02 00:00:00+00', '0001-01-02 00:00:10+00',"
        " 'USER_LOGIN', 1, 0, false, 0, 0, 'user-events', 'analytics', 0, 0)",
    )

    assert reconciled(database, 1, 0).first_difference is None
