"""What sensors and checks decide, from made-up measurements."""

from datetime import UTC, datetime, timedelta

import pytest

from lags import THRESHOLDS, sample
from streamflow.audit.problems import GAPS, Problem, ProblemKind
from streamflow.audit.report import AuditReport, PartitionAudit, Pending, PendingKind
from streamflow.audit.windows.reconciliation import Reconciliation
from streamflow.lag.history import WorkerHealth
from streamflow_dagster.decisions import (
    GIVING_UP,
    RequestedRun,
    WorkerWatch,
    load_positions,
    new_dead_letters,
    reason_to_wait,
    tables_to_drain,
)
from streamflow_dagster.defs.quality_sql import Rate
from streamflow_dagster.verdicts import (
    CheckResult,
    judge_duplicates,
    judge_event_age,
    judge_gaps,
    judge_ledger,
    judge_load_age,
    judge_rate,
    judge_volume,
    judge_windows,
)

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
UP, GONE, STALLED = WorkerHealth


def run(state: str, seconds_ago: float) -> RequestedRun:
    return RequestedRun(
        f"run-{state}", state != "running", state == "done", NOW - timedelta(seconds=seconds_ago)
    )


def wait(*asked: RequestedRun) -> str | None:
    return reason_to_wait(
        asked,
        NOW,
        attempts=3,
        pause=timedelta(seconds=30),
        lost=timedelta(minutes=20),
    )


@pytest.mark.parametrize(
    "asked",
    [
        [],
        [run("done", 0)],
        [run("done", 0), run("failed", 1)],
        [run("failed", 31)],
        [run("failed", 61), run("failed", 95)],
        [run("failed", GIVING_UP.total_seconds() + 1), *[run("failed", 5000)] * 9],
        # It never came to an end, and will not any more.
        [run("running", 1300), run("done", 2000)],
    ],
)
def test_a_run_may_be_asked_for(asked: list[RequestedRun]) -> None:
    assert wait(*asked) is None


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ([run("running", 5)], "run run-running is in progress"),
        ([run("failed", 5), run("running", 100)], "run run-running is in progress"),
        ([run("failed", 10)], "run run-failed failed; requested again in 20 s"),
        ([run("failed", 10), run("failed", 50)], "run run-failed failed; requested again in 50 s"),
        ([run("failed", 100)] * 3, "3 runs failed in a row, the last is run-failed: see why"),
    ],
)
def test_a_run_is_not_asked_for_twice(asked: list[RequestedRun], why: str) -> None:
    assert (wait(*asked) or "").startswith(why)


def states(
    *looks: tuple[int, int, int], every: float = 30.0
) -> tuple[list[WorkerHealth | None], list[str]]:
    """What a sensor knows after each look, and the alerts that it sends. A look is the members, the
    position and the lag of the loader."""
    cursor: str | None = None
    known, alerts = [], []
    for number, (members, position, lag) in enumerate(looks):
        watch = WorkerWatch(hold=15, window=90)
        watch.load(cursor)
        seen = sample(position, members=members, end=position + lag)
        changed = watch.update(seen, THRESHOLDS, NOW.timestamp() + number * every)
        alerts += [f"{alert.condition.rule} {alert.state}" for alert in changed]
        known.append(watch.health("loader"))
        cursor = watch.dump()
    return known, alerts


def test_a_worker_is_gone_after_two_looks_and_back_after_two() -> None:
    looks = [(1, 5, 0), (0, 5, 0), (0, 5, 0), (1, 5, 0), (1, 6, 0)]
    known, alerts = states(*looks)
    assert known == [UP, None, GONE, GONE, UP]
    assert alerts == ["part down firing", "part down resolved"]


def test_a_rebalance_is_no_end() -> None:
    looks = [(1, 5, 0), (0, 5, 9), (1, 9, 0), (0, 9, 0), (1, 9, 0)]
    known, alerts = states(*looks)
    assert GONE not in known
    assert (known[-1], alerts) == (UP, [])


def test_a_worker_that_never_was_there_is_gone() -> None:
    assert states((0, 0, 9), (0, 0, 9)) == ([None, GONE], ["part down firing"])


def test_a_worker_that_does_not_move_is_stalled_only_with_work_to_do() -> None:
    stuck = states((1, 5, 3), (1, 5, 3), (1, 5, 9), (1, 9, 9))
    assert stuck == ([UP, None, STALLED, STALLED], ["group firing"])
    assert states((1, 5, 0), (1, 5, 0), (1, 5, 0)) == ([UP] * 3, [])
    assert states((1, 5, 900), (1, 6, 900), (1, 7, 900)) == ([UP] * 3, [])


def test_a_position_that_went_back_alerts_but_is_no_stall() -> None:
    known, alerts = states((1, 50, 9), (1, 20, 39), (1, 30, 29))
    assert (known, alerts) == ([UP] * 3, ["group firing"])


def test_sensors_alert_at_the_same_thresholds_as_the_dashboard() -> None:
    limit = int(THRESHOLDS.lag_offsets)
    assert states((1, 5, limit), (1, 6, limit))[1] == []
    known, alerts = states((1, 5, limit + 1), (1, 6, limit + 1))
    assert (known, alerts) == ([UP, UP], ["lag records firing"])


@pytest.mark.parametrize(
    "cursor",
    [
        None,
        "",
        "null",
        "[]",
        "{",
        '{"loader": [1]}',
        '{"a": 1}',
        "7",
        '{"alerts": [], "samples": "[1]"}',
    ],
)
def test_a_foreign_cursor_is_a_fresh_start(cursor: str | None) -> None:
    watch = WorkerWatch(hold=15, window=90)
    watch.load(cursor)
    assert watch.dump() == WorkerWatch(hold=15, window=90).dump()
    assert load_positions(cursor) is None or cursor == '{"a": 1}'


@pytest.mark.parametrize(
    ("lags", "worker", "tables", "why"),
    [
        ({"events": 50}, UP, [], "50 offsets wait, the loader is up"),
        ({"events": 50}, None, [], "50 offsets wait, the loader is not judged yet"),
        ({"events": 101, "letters": 9}, UP, ["events"], "lag is above 100 (events: 101)"),
        ({"events": 1, "letters": 0}, GONE, ["events"], "the loader is gone and 1 offset waits"),
        ({"events": 1, "letters": 2}, STALLED, ["events", "letters"], "the loader is stalled"),
        ({"events": 0}, GONE, [], "0 offsets wait, the loader is gone"),
    ],
)
def test_what_is_drained(
    lags: dict[str, int], worker: WorkerHealth | None, tables: list[str], why: str
) -> None:
    found = tables_to_drain(lags, worker=worker, threshold=100)
    assert found[0] == tables
    assert found[1].startswith(why)


def test_dead_letters_are_new_once() -> None:
    first = {"dead/0": 5, "dead/1": 0}
    assert new_dead_letters(None, first) == {"dead/0": (0, 5)}
    assert new_dead_letters(first, first) == {}
    assert new_dead_letters(first, {"dead/0": 7, "dead/2": 1}) == {
        "dead/0": (5, 7),
        "dead/2": (0, 1),
    }


WRONG = Problem(
    kind=ProblemKind.MISSING, topic="t", partition=0, offset=3, detail="not accounted for"
)
LATE = Pending(kind=PendingKind.BEHIND, worker="loader", behind={("t", 0): 6})


def report(*problems: Problem, caught_up: bool = True) -> AuditReport:
    missing = sum(problem.kind is ProblemKind.MISSING for problem in problems)
    twice = sum(problem.kind is ProblemKind.TWICE for problem in problems)
    partition = PartitionAudit(
        topic="t", partition=0, first=0, end=9, records=9, missing=missing, twice=twice
    )
    windows = Reconciliation(cells=4)
    for problem in problems:
        if problem.kind is ProblemKind.WINDOW_DIFFERS:
            windows.note(problem)
        else:
            partition.note(problem)
    return AuditReport(
        partitions=[partition],
        windows={("t", 0, "window_counts"): windows},
        pending=[] if caught_up else [LATE],
    )


def verdicts(found: AuditReport) -> list[CheckResult]:
    return [
        judge_gaps(found, ["t"]),
        judge_duplicates(found, ["t"]),
        judge_ledger(found),
        judge_windows(found),
    ]


def test_what_is_wrong_is_severe_whoever_is_behind() -> None:
    for caught_up in (True, False):
        for judged in (
            judge_gaps(report(WRONG, caught_up=caught_up), ["t"]),
            judge_ledger(report(WRONG, caught_up=caught_up)),
        ):
            assert (judged.passed, judged.severe) == (False, True)
            assert "first t[0] offset 3: not accounted for" in judged.says
            assert ("not yet: loader is 6 offsets behind" in judged.says) is not caught_up
    assert judge_gaps(report(WRONG), ["other"]).passed


def test_not_yet_is_an_answer_of_its_own_and_no_green_one() -> None:
    for judged in verdicts(report(caught_up=False)):
        assert (judged.passed, judged.severe) == (False, False)
        assert judged.says == "not yet: loader is 6 offsets behind"


def test_closed_is_green() -> None:
    assert [each.passed for each in verdicts(report())] == [True] * 4


@pytest.mark.parametrize("kind", ProblemKind)
def test_no_problem_leaves_the_ledger_green(kind: ProblemKind) -> None:
    found = report(Problem(kind=kind, topic="t", partition=0, offset=3, detail="wrong"))
    assert not judge_ledger(found).passed
    assert judge_gaps(found, ["t"]).passed is not (kind in GAPS or kind is ProblemKind.MISSING)
    assert judge_duplicates(found, ["t"]).passed is (kind is not ProblemKind.TWICE)
    assert judge_windows(found).passed is (kind is not ProblemKind.WINDOW_DIFFERS)


@pytest.mark.parametrize(
    ("seconds", "lag", "passed"), [(10, 5, True), (500, 0, True), (500, 1, False)]
)
def test_loading_is_late_only_when_something_waits(seconds: int, lag: int, passed: bool) -> None:
    last, limit = NOW - timedelta(seconds=seconds), timedelta(seconds=300)
    assert judge_load_age(last, NOW, lag, limit).passed is passed
    assert judge_load_age(None, NOW, lag, limit).passed is (lag == 0)


def test_events_have_an_age() -> None:
    limit = timedelta(minutes=15)
    assert judge_event_age(NOW, NOW, limit).passed
    old = judge_event_age(NOW - timedelta(days=3), NOW, limit)
    assert (old.passed, old.severe) == (False, False)
    assert "3 days ago; at most 15 min is usual" in old.says
    assert judge_event_age(None, NOW, limit).says == "there is no event yet"


@pytest.mark.parametrize(
    ("rows", "letters", "passed"), [(0, 0, True), (2, 2, True), (95, 5, True), (90, 10, False)]
)
def test_a_rate_needs_records(rows: int, letters: int, passed: bool) -> None:
    rate = Rate(rows, letters, [("INVALID_JSON", letters)], ["t[0] offset 1: INVALID_JSON"])
    found = judge_rate(rate, THRESHOLDS)
    assert found.passed is passed
    assert ("sample" in found.metadata) is not passed
    assert ("fewer than 100 records are not judged" in found.says) is (rows == 2)


@pytest.mark.parametrize(
    ("counts", "passed"),
    [
        ([], False),
        ([5, 0], False),
        ([100] * 6 + [25], True),
        ([100] * 6 + [24], False),
        ([100] * 6 + [400], True),
        ([100] * 6 + [401], False),
        ([1] * 6 + [0] * 7 + [0], True),
        ([1] * 6 + [0] * 7 + [100], True),
    ],
)
def test_volume_is_compared_with_its_median(counts: list[int], passed: bool) -> None:
    hours = [(NOW + timedelta(hours=number), count) for number, count in enumerate(counts)]
    assert judge_volume(hours, 4.0, 6).passed is passed


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ([], "not yet: 0 hours of the day before have events, 6 are needed to know what is usual"),
        ([100] * 6, "not yet: 5 hours of the day before have events"),
        # Hours without events show nothing of what is usual.
        ([7] + [0] * 23 + [500], "not yet: 1 hour of the day before has events"),
        ([7] * 5 + [0] * 19 + [0], "not yet: 5 hours of the day before have events"),
    ],
)
def test_volume_says_that_it_cannot_know_yet(counts: list[int], says: str) -> None:
    hours = [(NOW + timedelta(hours=number), count) for number, count in enumerate(counts)]
    found = judge_volume(hours, 4.0, 6)
    assert (found.passed, found.severe) == (False, False)
    assert found.says.startswith(says)
