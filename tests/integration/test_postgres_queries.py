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
from streamflow.postgres.connections import session
from streamflow.postgres.queries import (
    Outcome,
    accounted_offsets,
    loaded,
    row_counts,
    window_reconciliation,
)
from streamflow.postgres.tables import tables_of_topics
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS

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
    table = tables_of_topics([USER_EVENTS])[topic]
    with session(settings, "test") as connection:
        return list(accounted_offsets(connection, table, (topic, 0), start, stop))


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

    with session(database, "test") as connection:
        found = window_reconciliation(connection, USER_EVENTS)

    assert [tuple(total) for total in found.totals] == [("USER_LOGIN", 3, 3), ("USER_LOGOUT", 0, 1)]
    assert found.differing == 1
    [cell] = found.first
    assert cell == ("2026-07-01 12:00:10+00", "USER_LOGOUT", 0, 1)


def test_a_duplicate_replay_is_counted_by_analytics_too(load: Load, database: Settings) -> None:
    load.load([FakeRecord(0, b"{}"), dead_letter(0, "user-events/0/0")])
    load.load([replay(1, "user-events/0/0"), replay(2, "user-events/0/0")])
    load.load([window_count(0, 1, count=2, last_offset=2)])

    with session(database, "test") as connection:
        found = window_reconciliation(connection, USER_EVENTS)

    assert [tuple(total) for total in found.totals] == [("USER_LOGIN", 2, 2)]
    assert found.differing == 0


def test_windows_before_the_epoch_align_to_it(load: Load, database: Settings) -> None:
    load.load([FakeRecord(0, event(1, time="0001-01-02T00:00:07Z"))])
    execute(
        database,
        "INSERT INTO window_counts VALUES ('0001-01-02 00:00:00+00', '0001-01-02 00:00:10+00',"
        " 'USER_LOGIN', 1, 0, false, 0, 0, 'user-events', 'analytics', 0, 0)",
    )

    with session(database, "test") as connection:
        assert window_reconciliation(connection, USER_EVENTS).differing == 0
