"""Reports as tables for the terminal."""

from rich.console import Console
from rich.table import Table

from streamflow.audit import AuditReport

_SHOWN = 10


def audit_table(report: AuditReport) -> None:
    """Prints an audit: the ledger per partition, window totals by type, then the verdict."""
    console = Console()
    # Narrow enough for 80 columns; a topic's name is never cut.
    ledger = _table("topic", "partition", "records", "stored", "dead", "duplicate", "problems")
    for each in report.partitions:
        numbers = (
            each.partition,
            each.records,
            each.stored,
            each.dead_lettered,
            each.duplicate,
            len(each.problems),
        )
        ledger.add_row(each.topic, *(f"{number:,}" for number in numbers))
    console.print(ledger)
    windows = _table("windows of", "type", "events", "counted")
    for name, found in report.windows.items():
        for kind in sorted(found.events):
            windows.add_row(name, kind, f"{found.events[kind]:,}", f"{found.counted[kind]:,}")
    console.print()
    console.print(windows)
    console.print()
    total = sum(each.records for each in report.partitions)
    if report.closed:
        console.print(
            f"[green]The ledger closes[/]: {total:,} records, each accounted for exactly once "
            f"({report.seconds:.1f} s)."
        )
        return
    console.print(f"[red]The ledger does not close[/]: {len(report.problems)} problems.")
    for problem in report.problems[:_SHOWN]:
        console.print(f"  {problem}", highlight=False)


def _table(*titles: str) -> Table:
    """A table without lines: text to the left, then numbers to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        is_text = title in ("topic", "windows of", "type")
        table.add_column(title, no_wrap=True, justify="left" if is_text else "right")
    return table
