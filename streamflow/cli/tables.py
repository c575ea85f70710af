"""Reports as tables for the terminal."""

from rich.console import Console
from rich.table import Table

from streamflow.audit import AuditReport

_SHOWN = 10


def audit_table(report: AuditReport) -> None:
    """Prints an audit: the ledger per partition, window totals by type, then the verdict."""
    console = Console()
    ledger = Table(
        "topic",
        "partition",
        "records",
        "stored",
        "dead-lettered",
        "duplicates",
        "problems",
        title="Ledger",
    )
    for each in report.partitions:
        ledger.add_row(
            each.topic,
            *(
                f"{number:,}"
                for number in (
                    each.partition,
                    each.records,
                    each.stored,
                    each.dead_lettered,
                    each.duplicate,
                    len(each.problems),
                )
            ),
        )
    console.print(ledger)
    windows = Table("source", "type", "events", "counted in windows", title="Windows")
    for name, found in report.windows.items():
        for kind in sorted(found.events):
            windows.add_row(name, kind, f"{found.events[kind]:,}", f"{found.counted[kind]:,}")
    console.print(windows)
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
