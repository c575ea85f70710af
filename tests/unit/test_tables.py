"""What commands print can be read on a terminal of 80 columns."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from streamflow.audit.problems import ProblemKind
from streamflow.audit.report import AuditReport, PartitionAudit, Pending, PendingKind
from streamflow.audit.states import StateAudit
from streamflow.audit.windows.reconciliation import Reconciliation
from streamflow.dead_letters.report import ReplayReport
from streamflow.dead_letters.select import MOST_COUNTED, DeadLetterSummary
from streamflow.dead_letters.store import Outcome
from streamflow.records import Origin
from streamflow_cli.audit_tables import audit_table
from streamflow_cli.dead_letter_views import dead_letters_table, report_view

Printed = Callable[[int, Callable[[], None]], list[str]]

TIME = "2026-03-01T12:00:00.123Z"
LONG = "orders-of-the-eastern-warehouses-since-the-beginning"


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    def run(columns: int, show: Callable[[], None]) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        show()
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= columns
        return [line.rstrip() for line in lines]

    return run


def letter(
    topic: str = "user-events", *, attempt: int = 0, message: str = "no zone"
) -> DeadLetterSummary:
    origin = Origin(topic, 2, 1_234_567)
    failed_at = datetime(2026, 3, 1, 12, 0, 0, 123_000, UTC)
    return DeadLetterSummary(
        origin,
        origin,
        "UNSTORABLE_VALUE",
        "quarantined",
        attempt,
        "validator",
        message,
        failed_at,
        9,
    )


def test_dead_letters_take_two_lines_where_one_is_too_short(printed: Printed) -> None:
    letters = [letter(message="not [bold] at all"), letter(attempt=3)]
    assert printed(80, lambda: dead_letters_table(letters, 2)) == [
        "id                     code              status       failed at",
        f"user-events/2/1234567  UNSTORABLE_VALUE  quarantined  {TIME}",
        "    validator: not [bold] at all",
        f"user-events/2/1234567  UNSTORABLE_VALUE  quarantined  {TIME}",
        "    validator: 3 attempts, no zone",
        "2 dead letters.",
    ]


def test_dead_letters_that_nobody_counts_to_the_end(printed: Printed) -> None:
    lines = printed(80, lambda: dead_letters_table([letter()], MOST_COUNTED + 1))
    assert lines[-1] == "1 of more than 100,000 dead letters; --limit shows more."


def test_dead_letters_take_one_line_on_a_wide_terminal(printed: Printed) -> None:
    titles, *rows = printed(140, lambda: dead_letters_table([letter(attempt=3), letter()], 9))
    assert titles.split() == [
        "id", "code", "status", "failed", "at", "attempt", "stage", "message",
    ]  # fmt: skip
    row = f"user-events/2/1234567 UNSTORABLE_VALUE quarantined {TIME} {{}} validator no zone"
    assert [" ".join(each.split()) for each in rows[:2]] == [row.format(3), row.format(0)]
    assert rows[2] == "2 of 9 dead letters; --limit shows more."


def test_nothing_of_a_long_dead_letter_is_cut(printed: Printed) -> None:
    message = "a word and " * 30
    text = "\n".join(printed(80, lambda: dead_letters_table([letter(LONG, message=message)], 1)))
    assert f"{LONG}/2/1234567" in text
    assert text.count("a word and") == 30
    assert TIME in text


def test_a_plan_names_codes_and_reasons_in_full(printed: Printed) -> None:
    report = ReplayReport(
        dry_run=True,
        tally=Counter(
            {
                ("UNSTORABLE_VALUE", Outcome.FAILS, "UNSTORABLE_VALUE"): 1_234_567,
                ("UNSTORABLE_VALUE", Outcome.FAILS, "SCHEMA_VIOLATION"): 2,
                ("UNSTORABLE_VALUE", Outcome.PASSES, ""): 5,
            }
        ),
    )
    text = " ".join(" ".join(printed(80, lambda: report_view(report))).split())
    assert "UNSTORABLE_VALUE 1,234,574 5 1,234,569 0 SCHEMA_VIOLATION 2," in text
    assert "UNSTORABLE_VALUE 1,234,567" in text


def test_numbers_of_a_plan_are_aligned_to_the_right(printed: Printed) -> None:
    tally = Counter({("INVALID_JSON", Outcome.PASSES, ""): 5})
    report = ReplayReport(dry_run=True, tally=tally)
    titles, line, *_ = printed(80, lambda: report_view(report))
    assert line.rindex("0") == titles.index("at limit") + len("at limit") - 1


def test_an_audit_names_topics_in_full(printed: Printed) -> None:
    def ledger(topic: str) -> PartitionAudit:
        return PartitionAudit(topic=topic, partition=0, first=0, end=9, records=1_234_567)

    windows = {
        (LONG, 0, "window_counts"): Reconciliation(
            events={"USER_LOGIN_FAILED": 9}, counted={"USER_LOGIN_FAILED": 9}, cells=1
        )
    }
    report = AuditReport(partitions=[ledger("user-events"), ledger(LONG)], windows=windows)
    lines = printed(80, lambda: audit_table(report))
    assert ["user-events", "0", "1,234,567", "0", "0", "0", "0"] in [each.split() for each in lines]
    folded = "".join(line.split(" ")[0] for line in lines)
    assert folded.count(LONG) == 2
    assert any("USER_LOGIN_FAILED" in line for line in lines)


@pytest.mark.parametrize(
    ("problems", "more"), [(10, []), (24, ["and 14 more: see `streamflow audit --json`"])]
)
def test_an_audit_says_how_many_problems_it_does_not_show(
    problems: int, more: list[str], printed: Printed
) -> None:
    wrong = PartitionAudit(topic="orders", partition=0, first=0, end=99, records=99)
    for offset in range(problems):
        wrong.note(wrong.problem(ProblemKind.MISSING, offset, offset + 1, "not accounted for"))
    report = AuditReport(partitions=[wrong])
    lines = [line.strip() for line in printed(100, lambda: audit_table(report))]
    assert sum("not accounted for" in line for line in lines) == 10
    assert [line for line in lines if line.startswith("and ")] == more


def test_an_audit_of_several_streams_has_a_verdict_for_each(printed: Printed) -> None:
    wrong = PartitionAudit(topic="orders", partition=0, first=0, end=9, records=9)
    wrong.note(wrong.problem(ProblemKind.MISSING, 3, 4, "not accounted for"))
    behind = Pending(kind=PendingKind.BEHIND, worker="validator", behind={("readings", 0): 7})
    report = AuditReport(
        partitions=[wrong],
        owners={each: (each,) for each in ("user-events", "orders", "readings")},
        pending=[behind],
    )
    lines = [line.split() for line in printed(100, lambda: audit_table(report))]
    assert ["user-events", "closed", "0", "-"] in lines
    assert ["orders", "not", "closed", "1", "-"] in lines
    assert ["readings", "not", "yet", "0", "validator", "is", "7", "offsets", "behind"] in lines


FULL = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("has_states", [True, False])
def test_an_audit_since_the_last_one_names_what_only_a_full_one_compares(
    has_states: bool, printed: Printed
) -> None:
    ledger = PartitionAudit(topic="t", partition=0, first=5, end=9, skipped=5, full_at=FULL)
    states = {("t", 0): StateAudit()} if has_states else {}
    report = AuditReport(partitions=[ledger], states=states)
    text = " ".join(printed(400, lambda: audit_table(report)))

    assert ("rows of upsert streams without new changes," in text) is has_states
    assert (
        "and rows 10,000 or more offsets behind the end of a log, not since 2026-03-01 12:00"
        in text
    )
    assert report.as_dict()["not_compared"] == {
        "records": 5,
        "since": None,
        "windows_since": FULL.isoformat(),
        "states_since": FULL.isoformat() if has_states else None,
        "rows_far_behind_the_end_since": FULL.isoformat(),
    }
