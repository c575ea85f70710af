"""The ledger's arithmetic."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.audit.acknowledging import not_acknowledged
from streamflow.audit.attribution import owners
from streamflow.audit.completeness import OffsetGroup, outside
from streamflow.audit.gap_ledger import AUDIT, KnownGap, ranges, uncovered
from streamflow.audit.merge import merge
from streamflow.audit.problems import Problem, ProblemKind
from streamflow.audit.report import (
    AuditReport,
    PartitionAudit,
    Pending,
    PendingKind,
    Verdict,
)
from streamflow.audit.window_ledger import CellDifference
from streamflow.audit.windows.reconciliation import Reconciliation
from streamflow.audit.wording import changed_rows
from streamflow.postgres.connections import faulty_statement
from streamflow.settings import GROUPS
from streamflow.stream import reads
from streamflow.stream_topics import Topics
from streamflow.streams.user_events import USER_EVENTS


def ledger(
    records: list[int], outcomes: list[tuple[int, str]], judged: int | None = None
) -> PartitionAudit:
    made = PartitionAudit(topic="t", partition=1, first=0, end=100, judged=judged)
    merge(
        made,
        ((offset, None) for offset in records),
        ((offset, outcome, None) for offset, outcome in outcomes),
    )
    return made


def messages(found: PartitionAudit) -> list[str]:
    return [str(problem) for problem in found.problems]


def test_each_record_with_one_outcome_closes() -> None:
    found = ledger(
        [0, 1, 5, 7], [(0, "stored"), (1, "dead_lettered"), (5, "duplicate"), (7, "stored")]
    )
    assert (found.records, found.stored, found.dead_lettered, found.duplicate) == (4, 2, 1, 1)
    assert found.problems == []


def test_what_is_missing_is_named_in_order() -> None:
    assert messages(ledger([3, 4, 9], [(4, "stored")])) == [
        "t[1] offset 3: not accounted for",
        "t[1] offset 9: not accounted for",
    ]


def test_what_is_missing_in_a_row_is_one_range() -> None:
    found = ledger([0, 1, 2, 3, 5, 6, 9], [(1, "stored"), (9, "stored")])
    assert found.missing_at == [(0, 1), (2, 4), (5, 7)]
    assert found.missing == 5
    assert "missing_at" not in found.as_dict()


def test_a_row_without_its_record_is_named() -> None:
    assert messages(ledger([4], [(2, "stored"), (4, "stored"), (6, "duplicate")])) == [
        "t[1] offset 2: accounted for, not in Kafka",
        "t[1] offset 6: accounted for, not in Kafka",
    ]


def test_two_outcomes_are_one_too_many() -> None:
    assert messages(ledger([4], [(4, "stored"), (4, "dead_lettered")])) == [
        "t[1] offset 4: accounted for twice, as dead_lettered and stored"
    ]


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_every_difference_is_one_problem(records: set[int], rows: set[int]) -> None:
    found = ledger(sorted(records), [(each, "stored") for each in sorted(rows)])
    assert len(found.problems) == len(records ^ rows)
    assert (found.records, found.stored) == (len(records), len(records & rows))


def test_what_may_still_be_on_its_way_is_not_missing() -> None:
    found = ledger([1, 2, 3, 4], [(3, "stored")], judged=2)
    assert (found.missing, found.pending, found.stored) == (1, 2, 1)
    assert messages(found) == ["t[1] offset 1: not accounted for"]


@pytest.mark.parametrize(
    ("in_kafka", "in_row", "same"),
    [(7, 7, True), (7, 8, False), (None, 8, True), (7, None, True), (None, None, True)],
)
def test_a_row_of_another_append_time_is_of_another_record(
    in_kafka: int | None, in_row: int | None, same: bool
) -> None:
    found = PartitionAudit(topic="t", partition=1, first=0, end=100)
    merge(found, iter([(4, in_kafka)]), iter([(4, "stored", in_row)]))
    assert (found.other, found.stored) == (0 if same else 1, 1)
    assert [problem.kind for problem in found.problems] == (
        [] if same else [ProblemKind.OTHER_RECORD]
    )


def test_what_compaction_has_removed_is_counted_as_what_it_was() -> None:
    found = PartitionAudit(topic="t", partition=1, first=0, end=100)
    outcomes = [(0, "stored", 5), (1, "dead_lettered", None), (2, "stored", 7), (9, "stored", 8)]
    merge(found, iter([(2, 7), (5, 7)]), iter(outcomes), compacts=True)
    assert (found.records, found.stored, found.dead_lettered, found.compacted) == (2, 3, 1, 3)
    # Neither a record that is there nor a row that stands twice is excused.
    assert messages(found) == ["t[1] offset 5: not accounted for"]
    twice = PartitionAudit(topic="t", partition=1, first=0, end=100)
    merge(twice, iter([]), iter([(0, "stored", 5), (0, "duplicate", None)]), compacts=True)
    assert (twice.twice, twice.stored, twice.problem_count) == (1, 1, 1)


WAITING = Pending(
    kind=PendingKind.BEHIND, worker="analytics", behind={("t", 0): 78_000, ("t", 1): 991}
)
WRONG = Problem(kind=ProblemKind.MISSING, topic="t", partition=1, offset=3, detail="not there")


@pytest.mark.parametrize(
    ("problem", "pending", "verdict"),
    [
        (None, [], Verdict.CLOSED),
        (None, [WAITING], Verdict.NOT_YET),
        (WRONG, [], Verdict.OPEN),
        (WRONG, [WAITING], Verdict.OPEN),
    ],
)
def test_there_are_three_answers(
    problem: Problem | None, pending: list[Pending], verdict: Verdict
) -> None:
    partition = PartitionAudit(topic="t", partition=1, first=0, end=9)
    if problem is not None:
        partition.note(problem)
    found = AuditReport(partitions=[partition], pending=pending)
    said = found.as_dict()
    assert (found.verdict, said["verdict"]) == (verdict, verdict)
    assert said["closed"] is (verdict is Verdict.CLOSED)
    assert said["caught_up"] is (not pending)
    assert [each["message"] for each in said["pending"]] == [
        "analytics is 78,991 offsets behind"
    ] * len(pending)
    assert json.loads(json.dumps(said))["problem_count"] == (problem is not None)


@pytest.mark.parametrize(
    ("changes", "proved"),
    [
        ({}, True),
        ({"judged": 9}, True),
        ({"judged": 8}, False),
        ({"pending": 1}, False),
        ({"compared": False}, False),
        ({"problem_count": 1}, False),
    ],
)
def test_only_what_is_known_is_proved(changes: dict[str, Any], proved: bool) -> None:
    assert PartitionAudit(topic="t", partition=0, first=0, end=9, **changes).proved is proved


def test_a_thousand_problems_are_named_and_all_are_counted() -> None:
    found = ledger(list(range(90)) * 40, [])
    assert (found.problem_count, len(found.problems)) == (3_600, 1_000)
    report = AuditReport(partitions=[found])
    assert (report.problem_count, len(report.problems)) == (3_600, 1_000)


def test_who_reads_what() -> None:
    quiet = replace(USER_EVENTS, name="quiet", windows=None, table="quiet")
    streams = [USER_EVENTS, quiet]
    everything = ["user-events", "analytics", "notifications", "dead-letter-topic", "quiet"]
    assert {worker: reads(worker, streams) for worker in GROUPS} == {
        "validator": ["user-events", "quiet"],
        "analytics": ["user-events"],
        "loader": everything,
        "bridge": everything,
    }
    assert reads("analytics", [quiet]) == []


# Two streams that share the derived topics, and one that has its own.
OWNERS = {
    "logins": ("logins",),
    "orders": ("orders",),
    "readings": ("readings",),
    "analytics": ("logins", "orders"),
    "readings-analytics": ("readings",),
}


def verdicts(report: AuditReport) -> dict[str, str]:
    said = json.loads(json.dumps(report.as_dict()))["streams"]
    for name, part in report.streams.items():
        assert said[name]["verdict"] == part.verdict
        assert said[name]["problem_count"] == len(said[name]["problems"]) == part.problem_count
    return {name: part.verdict.value for name, part in report.streams.items()}


def wrong_in(topic: str, streams: tuple[str, ...] = ()) -> PartitionAudit:
    made = PartitionAudit(topic=topic, partition=0, first=0, end=9)
    made.note(replace(made.problem(ProblemKind.MISSING, 3, 4, "not there"), streams=streams))
    return made


@pytest.mark.parametrize(
    ("topic", "streams", "red"),
    [
        ("orders", (), {"orders"}),
        ("readings-analytics", (), {"readings"}),
        ("analytics", ("orders",), {"orders"}),
        # Nobody knows whose record it was: neither may look sound.
        ("analytics", (), {"logins", "orders"}),
        ("analytics@former-id", (), {"logins", "orders"}),
    ],
)
def test_a_problem_turns_its_stream_red_and_no_other(
    topic: str, streams: tuple[str, ...], red: set[str]
) -> None:
    for report in (
        AuditReport(partitions=[wrong_in(topic, streams)], owners=OWNERS),
        AuditReport(partitions=[], owners=OWNERS, topics=wrong_in(topic, streams).problems),
    ):
        assert report.verdict is Verdict.OPEN
        assert verdicts(report) == {
            name: "open" if name in red else "closed" for name in ("logins", "orders", "readings")
        }
        [problem] = report.as_dict()["problems"]
        assert set(problem["streams"]) == red


def test_windows_that_differ_are_their_stream_s() -> None:
    differing = Reconciliation()
    differing.note(WRONG)
    report = AuditReport(
        partitions=[],
        owners=OWNERS | {"t": ("orders",)},
        windows={("t", 1, "window_counts"): differing},
    )
    assert report.as_dict()["windows"].keys() == {"t[1]"}
    assert verdicts(report) == {"logins": "closed", "orders": "open", "readings": "closed"}


def test_problems_that_are_not_listed_leave_no_stream_green() -> None:
    many = wrong_in("analytics", ("orders",))
    for _ in range(1_500):
        many.note(replace(many.problems[0]))
    report = AuditReport(partitions=[many], owners=OWNERS)
    assert report.of_stream("logins").verdict is Verdict.OPEN
    [problem] = report.of_stream("logins").problems
    assert "501 further problems that are not listed" in str(problem)
    assert report.of_stream("readings").closed


def test_a_stream_waits_for_its_own_topics_only() -> None:
    behind = {("orders", 0): 5, ("readings", 1): 7}
    report = AuditReport(
        partitions=[],
        owners=OWNERS,
        pending=[Pending(kind=PendingKind.BEHIND, worker="validator", behind=behind)],
    )
    assert report.waits_for == "validator is 12 offsets behind"
    assert verdicts(report) == {"logins": "closed", "orders": "not_yet", "readings": "not_yet"}
    assert report.of_stream("orders").waits_for == "validator is 5 offsets behind"
    shared = replace(report.pending[0], behind={("analytics", 0): 1})
    waiting = AuditReport(partitions=[], owners=OWNERS, pending=[shared])
    assert verdicts(waiting) == {"logins": "not_yet", "orders": "not_yet", "readings": "closed"}


def test_the_streams_that_use_a_topic_are_known_by_its_name() -> None:
    orders = replace(USER_EVENTS, name="orders", table="orders")
    own = Topics(analytics="a", notifications="n", dead_letters="d")
    readings = replace(USER_EVENTS, name="readings", table="readings", topics=own)
    found = owners([USER_EVENTS, orders, readings])
    assert found["orders"] == ("orders",)
    assert found["dead-letter-topic"] == ("user-events", "orders")
    assert (found["a"], found["d"]) == (("readings",), ("readings",))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (psycopg.errors.DatatypeMismatch("x"), "42804: "),
        (psycopg.errors.InvalidTextRepresentation('"ann"'), "22P02: InvalidTextRepresentation"),
        (psycopg.errors.AdminShutdown("x"), None),
        (psycopg.errors.QueryCanceled("x"), None),
        (psycopg.OperationalError("x"), None),
    ],
)
def test_only_a_faulty_statement_is_a_stream_s_fault(
    error: psycopg.Error, says: str | None
) -> None:
    found = faulty_statement(error)
    assert found == says if says is None else str(found).startswith(says)


def gap(first: int, end: int, reader: str = AUDIT) -> KnownGap:
    return KnownGap(reader, "t", 1, first, end, "retention")


def test_gaps_are_merged_by_reader() -> None:
    gaps = [gap(5, 9), gap(0, 3), gap(2, 6), gap(20, 30), gap(40, 50, "other")]
    assert ranges(gaps, ("t", 1), [AUDIT]) == [(0, 9), (20, 30)]
    assert ranges(gaps, ("t", 2), [AUDIT]) == []


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10))),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_what_no_gap_covers_is_what_is_left(
    pieces: list[tuple[int, int]], first: int, end: int
) -> None:
    gaps = [gap(start, start + length) for start, length in pieces]
    covered = {offset for each in gaps for offset in range(each.first, each.end)}
    left = uncovered(first, end, ranges(gaps, ("t", 1), [AUDIT]))
    found = [offset for low, high in left for offset in range(low, high)]
    assert found == [offset for offset in range(first, end) if offset not in covered]


def test_offsets_outside_of_ranges_are_told_in_short() -> None:
    assert outside([1, 5, 6, 9, 12], [(5, 7), (12, 20)]) == OffsetGroup(1, 10, 2, ((1, 2), (9, 10)))
    assert outside([5, 6], [(5, 7)]) is None


@pytest.mark.parametrize(
    ("missing", "found", "said"),
    [
        (0, {"stored": 10, "dead_lettered": 2}, []),
        (0, {"stored": 10}, [("rows_vanished", 2, "2 dead letters that were proved are gone")]),
        (2, {"stored": 10}, []),
        (3, {"stored": 5}, [("rows_vanished", 4, "2 notifications and 2 dead letters that")]),
        (
            0,
            {"stored": 11, "dead_lettered": 2},
            [("rows_added", 1, "1 notification more than were proved")],
        ),
        (
            0,
            {"stored": 9, "dead_lettered": 3},
            [
                ("rows_vanished", 1, "1 notification that was proved is gone"),
                ("rows_added", 1, "1 dead letter more"),
            ],
        ),
    ],
)
def test_rows_are_compared_with_what_was_proved_and_no_loss_is_named_twice(
    missing: int, found: dict[str, int], said: list[tuple[str, int, str]]
) -> None:
    partition = PartitionAudit(topic="t", partition=1, first=50, end=100, missing=missing)
    proved = Counter(stored=10, dead_lettered=2)
    problems = changed_rows(partition, 60, "notifications", proved, Counter(found))
    assert [(each.kind, each.count) for each in problems] == [
        (kind, number) for kind, number, _ in said
    ]
    assert all(
        f"t[1] offsets 0 to 59: {text}" in str(each)
        for each, (*_, text) in zip(problems, said, strict=True)
    )


def test_what_an_acknowledgement_leaves_is_explained() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    differs = Problem(
        kind=ProblemKind.WINDOW_DIFFERS, topic="t", partition=1, detail="3 events, 2 counted"
    )

    def compared(*acknowledgeable: bool) -> Reconciliation:
        made = Reconciliation()
        for each in acknowledgeable:
            made.note(differs)
            made.differing_cells.append(CellDifference((start, "a"), 1, (0, 3), each))
        return made

    assert not_acknowledged(AuditReport(partitions=[])) == []
    [proved] = not_acknowledged(
        AuditReport(partitions=[], windows={("t", 1, "orders_10s"): compared(False, False)})
    )
    assert proved == (
        "2 windows cannot be acknowledged, since an audit has proved their counts: rows of orders_10s or of "
        "events were changed or lost since; restore them from a backup"
    )
    [found] = not_acknowledged(
        AuditReport(partitions=[], windows={("t", 1, "orders_10s"): compared(True)})
    )
    assert found.startswith("1 problem was found only now, or has changed since")

    wrong = ledger([3, 4], [])
    wrong.note(wrong.problem(ProblemKind.GAP_RETENTION, 7, 9, "gone"))
    report = AuditReport(partitions=[wrong], windows={("t", 1, "orders_10s"): compared(False)})
    found, proved, others = not_acknowledged(report)
    assert found.startswith("1 problem was found only now")
    assert proved.startswith("1 window cannot be acknowledged")
    assert others == (
        "2 problems cannot be acknowledged (missing): only gaps and differing windows can"
    )

    wrong_value = compared(True)
    wrong_value.note(differs)
    [found, values] = not_acknowledged(
        AuditReport(partitions=[], windows={("t", 1, "orders_10s"): wrong_value})
    )
    assert found.startswith("1 problem was found only now")
    assert values == (
        "1 aggregate of windows cannot be acknowledged, since no count differs: rows of orders_10s or of "
        "events were changed; restore them from a backup"
    )
