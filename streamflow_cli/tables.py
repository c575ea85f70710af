"""Where commands print, and tables that can be read on a terminal of 80 columns."""

import os

from rich.console import Console
from rich.table import Table

from streamflow.audit.report import AuditReport, Verdict

_LOG_WIDTH = 160
_SHOWN = 10
_NUMBERS = frozenset(
    {"partition", "records", "stored", "dead", "duplicate", "problems", "events", "counted", "open"}
    | {"partitions", "retention (h)", "attempt", "selected", "pass", "fail", "failed", "at cap"}
)
# As wide as the other columns leave them.
_FOLDED = frozenset({"topic", "windows of", "reasons", "differs in", "message"})


def make_console() -> Console:
    """Where commands print."""
    found = Console(highlight=False)
    if not found.is_terminal and "COLUMNS" not in os.environ:
        # A log has no edge; what reads it should find a row in one line.
        found.width = _LOG_WIDTH
    return found


def plain_table(*titles: str) -> Table:
    """A table without lines: text to the left, numbers to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(
            title,
            no_wrap=title not in _FOLDED,
            overflow="fold",
            justify="right" if title in _NUMBERS else "left",
        )
    return table


def audit_table(report: AuditReport) -> None:
    """Prints an audit: the ledger per partition, window totals by type, then the verdict."""
    console = make_console()
    ledger = plain_table("topic", "partition", "records", "stored", "dead", "duplicate", "problems")
    for each in report.partitions:
        numbers = (
            each.partition,
            each.records,
            each.stored,
            each.dead_lettered,
            each.duplicate,
            each.problem_count,
        )
        ledger.add_row(each.topic, *(f"{number:,}" for number in numbers))
    console.print(ledger)
    windows = plain_table("windows of", "type", "events", "counted", "open")
    for name, found in report.windows.items():
        for kind in sorted(found.events | found.open):
            totals = (
                found.events.get(kind, 0),
                found.counted.get(kind, 0),
                found.open.get(kind, 0),
            )
            windows.add_row(name, kind, *(f"{total:,}" for total in totals))
    console.print()
    console.print(windows)
    console.print()
    _audit_verdict(console, report)


def _audit_verdict(console: Console, report: AuditReport) -> None:
    total = sum(each.records for each in report.partitions)
    if report.lost:
        console.print(f"lost: {report.lost:,} offsets in gaps that were acknowledged.")
    if report.verdict is Verdict.CLOSED:
        console.print(
            f"[green]The ledger closes[/]: {total:,} records, each accounted for exactly once"
            f"{_open_windows(report)} ({report.seconds:.1f} s)."
        )
    elif report.verdict is Verdict.NOT_YET:
        console.print(
            "[yellow]Not yet[/]: the workers are not done; nothing wrong was found so far."
        )
    else:
        console.print(f"[red]The ledger does not close[/]: {report.problem_count:,} problems.")
        for problem in report.problems[:_SHOWN]:
            console.print(f"  {problem}", highlight=False, markup=False)
    for pending in report.pending:
        console.print(f"  not yet: {pending}", highlight=False, markup=False)


def _open_windows(report: AuditReport) -> str:
    number = report.in_open_windows
    return f", {number:,} events in windows that are still open" if number else ""
