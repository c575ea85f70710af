"""What status and audit read."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from audited_blocks import summed_up
from loads import (
    TOPIC,
    TRUSTING,
    FakeRecord,
    Load,
    dead_letter,
    event,
    events,
    execute,
    replay,
    rows,
    window_count,
)
from streamflow.audit import outcomes, window_ledger
from streamflow.audit.blocks import draw_weights
from streamflow.audit.completeness import OffsetGroup, Unpaired, orphans, unpaired
from streamflow.audit.gap_ledger import (
    KnownGap,
    Range,
    acknowledge_gaps,
    known_gaps,
)
from streamflow.audit.outcomes import Outcome, accounted_offsets, outcome_blocks
from streamflow.audit.recreated import Reuse, keep_underived, set_aside
from streamflow.audit.windows.counts import reconcile
from streamflow.audit.windows.reconciliation import Reconciliation
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.gaps import keep
from streamflow.postgres.row_counts import row_counts
from streamflow.postgres.sink.positions import loaded
from streamflow.records import ORIGIN_HEADER, Gap, Headers
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS
from streamflow.windows.progress import Progress
from streamlit_app.records.window_counts import window_counts as counts_of

pytestmark = pytest.mark.integration


def accounted(
    settings: Settings, topic: str, start: int = 0, stop: int = 100
) -> list[tuple[int, Outcome]]:
    table = USER_EVENTS.table if topic == TOPIC else None
    with session(settings, "test") as connection:
        found = list(accounted_offsets(connection, (topic, 0), (start, stop), table))
        weights = draw_weights()
        blocks = list(outcome_blocks(connection, (topic, 0), (start, stop), table, weights))
    assert sorted(blocks) == summed_up(found, weights)
    return [(offset, outcome) for offset, outcome, _ in found]


def test_row_counts(load: Load, database: Settings) -> None:
    load.load([*events(range(5)), window_count(0, 0)])

    assert row_counts(database, [USER_EVENTS]).rows == {
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


@pytest.mark.parametrize("part", [64, 4_096, 1_048_576])
def test_outcomes_are_summed_up_by_block(
    load: Load, database: Settings, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """In parts of the offsets, and with every bit of a block: the highest is PostgreSQL's sign."""
    monkeypatch.setattr(outcomes, "_PART", part)
    load.load([*events(range(3, 200)), FakeRecord(200, b"{"), *events([255, 5_000])])
    load.load([dead_letter(0, f"{TOPIC}/0/200", 200)])

    assert len(accounted(database, TOPIC, 3, 6_000)) == 200
    assert len(accounted(database, TOPIC, 60, 5_000)) == 142


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


def reconciled(
    settings: Settings,
    position: int,
    closed_through: int,
    lost: Sequence[Range] = (),
    proved: int = 0,
    resume: int = 0,
) -> Reconciliation:
    """As analytics had it that read up to `position`, closed windows up to that time, and would read again
    from `resume`."""
    progress = Progress.of_counts(resume, position, closed_through, 300_000)
    with session(settings, "test") as connection:
        return reconcile(connection, USER_EVENTS, 0, progress, lost, proved=proved)


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
    [difference] = map(str, found.differences)
    assert difference == (
        "user-events[0] offset 13: window 2026-07-01T12:00:10Z USER_LOGOUT: 1 event, 0 counted; once you "
        'know why (docs/audit.md, "Differing windows"), run `streamflow audit --acknowledge`'
    )
    # Where it was proved, nothing explains it.
    [proved] = reconciled(database, 14, noon + 20_000, proved=14).differences
    assert proved.detail.endswith("1 event, 0 counted")
    assert (found.differing, found.lost, found.open) == (1, 0, {})
    # What is still open, or was not read yet, is not missed.
    assert reconciled(database, 13, noon + 20_000).differing == 0
    still_open = reconciled(database, 14, noon + 10_000)
    assert still_open.differing == 0
    assert still_open.open == {"USER_LOGIN": 1, "USER_LOGOUT": 1}
    # The latest event is of :14, so that the window of :00 was due at :15.
    assert not still_open.overdue
    assert not reconciled(database, 14, noon).overdue
    # The clock of a producer does not make a window due: the broker's has to come as far.
    load.load([FakeRecord(14, event(15))])
    assert not reconciled(database, 15, noon).overdue
    load.load([FakeRecord(15, event(15), appended=noon + 15_000)])
    assert reconciled(database, 16, noon).overdue
    assert not reconciled(database, 16, noon + 10_000).overdue


def test_an_event_that_is_not_read_again_is_in_no_open_window(
    load: Load, database: Settings
) -> None:
    """It was handed over, or never comes: as after analytics was killed and its next release rejects it."""
    load.load(events([0, 1, 2, 3]))
    noon = 1_782_907_200_000
    still_open = reconciled(database, 4, noon, resume=0)
    assert (still_open.open, still_open.differing) == ({"USER_LOGIN": 4}, 0)

    given_up = reconciled(database, 4, noon, resume=3, proved=2)
    assert given_up.open == {"USER_LOGIN": 1}
    window = "user-events[0] offsets 0 to 2: window 2026-07-01T12:00:00Z USER_LOGIN: 3 events"
    assert [str(one).split(";")[0] for one in given_up.differences] == [f"{window}, 0 counted"]
    # Without a row, nothing shows that these windows had counted when it was proved.
    assert [each.acknowledgeable for each in given_up.differing_cells] == [True]

    # A count that was handed over is compared though its window is not closed; one that came after the
    # progress was committed is not.
    load.load([window_count(0, 0, count=3, last_offset=2)])
    load.load([window_count(1, 3, count=1, last_offset=3)])
    handed_over = reconciled(database, 4, noon, resume=3)
    assert (handed_over.differing, handed_over.counted) == (0, {"USER_LOGIN": 3})
    assert handed_over.open == {"USER_LOGIN": 1}
    assert reconciled(database, 4, noon, resume=4).open == {}
    assert reconciled(database, 4, noon, resume=4).differing == 0
    # What was proved is never acknowledged.
    execute(database, "UPDATE window_counts SET count = 2 WHERE first_offset = 0")
    changed = reconciled(database, 4, noon, resume=3, proved=3)
    assert [str(one) for one in changed.differences] == [f"{window}, 2 counted"]
    assert [each.acknowledgeable for each in changed.differing_cells] == [False]


def test_a_window_s_difference_is_acknowledged_with_its_exact_number(
    load: Load, database: Settings
) -> None:
    load.load(events([0, 1, 2, 3]))
    load.load([window_count(0, 0, count=3, last_offset=3)])
    noon, partition = 1_782_907_200_000, ("user-events", 0)
    progress = Progress.of_counts(4, 4, noon + 10_000, 300_000)

    def audited(gaps: Sequence[Range] = ()) -> tuple[int, dict[Any, int]]:
        """As an audit does it: how many cells differ, and what was acknowledged of them."""
        with session(database, "test") as connection:
            known = window_ledger.acknowledged_differences(connection, partition)
            found = reconcile(connection, USER_EVENTS, 0, progress, (), known)
            cells = found.differing_cells
            window_ledger.keep_differences(connection, partition, cells, found.acknowledged, gaps)
            return found.differing, found.acknowledged

    def acknowledged() -> list[str]:
        with session(database, "test") as connection:
            topics = [USER_EVENTS.topic]
            return list(map(str, window_ledger.acknowledge_differences(connection, topics, "ann")))

    # Where a gap may explain it, that is acknowledged first.
    assert audited(gaps=[(2, 3)]) == (1, {})
    assert acknowledged() == []
    assert audited() == (1, {})
    assert acknowledged() == [
        "user-events[0] window 2026-07-01T12:00:00Z USER_LOGIN, 1 event not counted"
    ]
    assert acknowledged() == []
    [(differing, known)] = [audited()]
    assert (differing, list(known.values())) == (0, [1])
    # Another number is another problem, and the one before was not acknowledged for it.
    execute(database, "UPDATE window_counts SET count = 2")
    assert audited() == (1, {})
    execute(database, "UPDATE window_counts SET count = 3")
    assert audited() == (1, {})
    assert len(acknowledged()) == 1
    # Once it is settled, it excuses nothing any more.
    execute(database, "UPDATE window_counts SET count = 4")
    assert audited() == (0, {})
    execute(database, "UPDATE window_counts SET count = 3")
    assert audited() == (1, {})
    execute(database, "UPDATE window_counts SET count = 6")
    assert audited() == (1, {})
    assert acknowledged() == [
        "user-events[0] window 2026-07-01T12:00:00Z USER_LOGIN, 2 events counted too many"
    ]
    assert audited()[0] == 0
    # A topic that is made again has none of it, and what was acknowledged is no gap of the old one.
    reuse = Reuse(USER_EVENTS.topic, "user-events@old", "new", "recreated", {0: 0}, "old")
    with session(database, "test") as connection, connection.transaction():
        keep_underived(connection, USER_EVENTS, reuse, "validator", "analytics")
        set_aside(connection, [USER_EVENTS], reuse, "loader", {})
    assert rows(database, "SELECT topic FROM window_differences") == [("user-events@old",)]
    assert rows(database, "SELECT reader FROM gaps WHERE reader = 'analytics'") == []


def test_a_duplicate_replay_is_counted_by_analytics_too(load: Load, database: Settings) -> None:
    load.load([FakeRecord(0, b"{}"), dead_letter(0, "user-events/0/0")])
    load.sent("user-events/0/0", "user-events/0/1", "user-events/0/2")
    load.load([replay(1, "user-events/0/0"), replay(2, "user-events/0/0")])
    load.load([window_count(0, 1, count=2, last_offset=2)])

    found = reconciled(database, 3, 1_782_907_210_000)
    assert found.events == found.counted == {"USER_LOGIN": 2}
    assert found.differing == 0


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
    assert found.differing == 0


def test_the_windows_page_ends_at_now(database: Settings) -> None:
    """Neither events ahead of now nor another stream's windows decide what is shown."""

    def add(ago: str, topic: str = TOPIC) -> None:
        execute(
            database,
            "INSERT INTO window_counts SELECT start, start + interval '10 s', 'USER_LOGIN', 1, 0, false,"
            f" n, n, '{topic}', 'analytics', 0, n FROM (SELECT date_bin('10 s', now() - interval"
            f" '{ago}', 'epoch') AS start, nextval('window_test') AS n) AS one",
        )

    def shown() -> tuple[int, int]:
        found = counts_of(database, USER_EVENTS, 900.0, None)
        if found.end is not None:
            assert found.end <= datetime.now(UTC) + timedelta(seconds=11)
        return sum(cell.number for cell in found.cells), found.ahead

    execute(database, "CREATE SEQUENCE window_test")
    add("1 minute", "another-stream")
    assert counts_of(database, USER_EVENTS, 900.0, None).end is None
    add("-30 minutes")
    add("-400 days")
    assert shown() == (0, 2)
    add("20 minutes")
    add("10 minutes")
    add("-30 minutes", "another-stream")
    assert shown() == (2, 2)
    later = counts_of(database, USER_EVENTS, 900.0, datetime.now(UTC) + timedelta(minutes=31))
    assert sum(cell.number for cell in later.cells) == 1


def test_windows_before_the_epoch_align_to_it(load: Load, database: Settings) -> None:
    load.load([FakeRecord(0, event(1, time="0001-01-02T00:00:07Z"))])
    execute(
        database,
        "INSERT INTO window_counts VALUES ('0001-01-02 00:00:00+00', '0001-01-02 00:00:10+00',"
        " 'USER_LOGIN', 1, 0, false, 0, 0, 'user-events', 'analytics', 0, 0)",
    )

    assert reconciled(database, 1, 0).differing == 0


def test_uncounted_events_are_lost_as_far_as_a_gap_covers_them(
    load: Load, database: Settings
) -> None:
    load.load(events([0, 1, 2, 3]))
    load.load([window_count(0, 1, count=2, last_offset=3)])
    closed = 1_782_907_210_000

    assert reconciled(database, 4, closed).differing == 1
    covered = reconciled(database, 4, closed, [(0, 1), (2, 3)])
    assert (covered.differing, covered.lost) == (0, 2)
    assert reconciled(database, 4, closed, [(0, 1), (7, 9)]).differing == 1


def note(offset: int, origin: int, **changes: Any) -> FakeRecord:
    body = {"message": "m", "time": "2026-07-01T12:00:00Z", "event_id": origin, "user": "u"}
    headers: Headers = [(ORIGIN_HEADER, f"user-events/0/{origin}".encode())]
    value = json.dumps(body | changes).encode()
    return FakeRecord(offset, value, topic="notifications", headers=headers)


def alone(settings: Settings, first: int = 0, end: int = 100, notes: int = 100) -> list[Unpaired]:
    with session(settings, "test") as connection:
        return list(
            unpaired(connection, USER_EVENTS, 0, (first, end), {("notifications", 0): notes})
        )


def test_an_event_needs_a_notification_and_a_notification_an_event(
    load: Load, database: Settings
) -> None:
    load.load(events([0, 1, 2, 5]))
    load.load([note(0, 1), note(1, 5), note(2, 4)])

    assert alone(database) == [("event", 0), ("event", 2), ("note", 4)]
    assert alone(database, 1, 4) == [("event", 2)]
    # A notification that was written after the validator was asked may be ahead of its event.
    assert alone(database, notes=2) == [("event", 0), ("event", 2)]

    execute(database, "INSERT INTO dropped_days VALUES ('events', '2026-07-01', 1)")
    assert alone(database) == [("event", 0), ("event", 2)]


def test_the_notification_of_a_replay_is_due_where_the_replay_lies(
    load: Load, database: Settings
) -> None:
    load.load([FakeRecord(0, b"{}"), dead_letter(0, "user-events/0/0")])
    load.sent("user-events/0/0", "user-events/0/7", "user-events/0/8")
    load.load([replay(7, "user-events/0/0"), replay(8, "user-events/0/0")])

    assert alone(database) == [("event", 7)]
    assert alone(database, 0, 7) == []
    load.load([note(0, 0)])
    assert alone(database) == []


def delivered(load: Load, offset: int) -> FakeRecord:
    """The dead letter that the loader has just produced, as it reads it again."""
    topic, key, value, headers, _ = TRUSTING.sign(load.delivered.pop())
    return FakeRecord(offset, value, topic=topic, headers=headers, key=key)


def test_a_refused_event_has_a_notification_and_a_refused_notification_an_event(
    load: Load, database: Settings
) -> None:
    execute(database, "ALTER TABLE events ADD CONSTRAINT odd CHECK (id <> 1)")
    load.load(events([0, 1]))
    load.load([delivered(load, 0)])
    load.load([note(0, 1), note(1, 0, message="m" * 3_000)])
    assert alone(database) == [("event", 0)]

    load.load([delivered(load, 1)])
    assert alone(database) == []


def test_what_was_not_derived_from_a_recreated_topic_is_a_gap(
    load: Load, database: Settings
) -> None:
    """Only what is really missing: a notification may be a dead letter, a duplicate may be counted."""
    # 0 is replayed as 7 and again as 8, a duplicate; the notification of 2 is a dead letter.
    load.load([FakeRecord(0, b"{}"), *events([1, 2, 3]), dead_letter(0, "user-events/0/0")])
    load.sent("user-events/0/0", "user-events/0/7", "user-events/0/8")
    load.load([replay(7, "user-events/0/0"), replay(8, "user-events/0/0")])
    load.load([note(0, 1), note(1, 2, message="m" * 3_000), note(2, 0)])
    load.load([delivered(load, 1)])
    # Of the five that analytics read, it has counted three.
    load.load([window_count(0, 1, count=3, last_offset=8)])
    reuse = Reuse("user-events", "user-events@old", "new", "recreated", {0: 0})
    with session(database, "test") as connection:
        keep_underived(connection, USER_EVENTS, reuse, "validator", "analytics")
        kept = [tuple(gap[:5]) for gap in known_gaps(connection, ["user-events"])]
    assert kept == [
        ("analytics", "user-events@old", 0, 2, 4),
        ("validator", "user-events@old", 0, 3, 4),
    ]


def test_notifications_of_nothing_are_found(load: Load, database: Settings) -> None:
    body = {"message": "m", "time": "2026-07-01T12:00:00Z", "event_id": 1, "user": "u"}
    load.load(
        [FakeRecord(each, json.dumps(body).encode(), topic="notifications") for each in (3, 9)]
    )
    with session(database, "test") as connection:
        assert orphans(connection, "notifications", 0, (0, 10)) == OffsetGroup(3, 10, 2)
        assert orphans(connection, "notifications", 0, (4, 9)) is None
        assert orphans(connection, "notifications", 1, (0, 10)) is None


def noted(connection: Connection) -> list[KnownGap]:
    return [gap._replace(noticed_at=None) for gap in known_gaps(connection, ["t"])]


def test_a_gap_that_grows_is_to_be_acknowledged_again(database: Settings) -> None:
    with session(database, "test") as connection:
        gap = KnownGap("g", "t", 0, 5, 9, "retention")
        keep(connection, "g", [Gap("t", 0, 5, 9, "retention")])
        assert noted(connection) == [gap]
        assert acknowledge_gaps(connection, ["t"], "ann") == [gap._replace(acknowledged=True)]
        assert acknowledge_gaps(connection, ["t"], "ann") == []
        keep(connection, "g", [Gap("t", 0, 5, 7, "retention")])
        assert noted(connection) == [gap._replace(acknowledged=True)]
        keep(connection, "g", [Gap("t", 0, 5, 12, "retention")])
        assert noted(connection) == [gap._replace(end=12)]
        assert known_gaps(connection, ["other"]) == []
