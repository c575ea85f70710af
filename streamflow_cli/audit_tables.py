"""How an audit is shown on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamflow.audit.outcomes import NEAR
from streamflow.audit.report import AuditReport, Verdict
from streamflow.audit.states import StateAudit
from streamflow.audit.windows.reconciliation import words_of
from streamflow.export.proof import ExportProof
from streamflow.flow import Partition
from streamflow.units import counted, either
from streamflow_cli.tables import make_console, plain_table

_SHOWN = 10
_VERDICTS: Final = {
    Verdict.CLOSED: "[green]closed[/]",
    Verdict.NOT_YET: "[yellow]not yet[/]",
    Verdict.OPEN: "[red]not closed[/]",
}


def audit_table(report: AuditReport, failed: Sequence[str] = ()) -> None:
    """Prints an audit: the ledger per partition, window totals by type, states, then the verdict, and which
    streams it says nothing of."""
    console = make_console()
    ledger = plain_table("topic", "partition", "records", "stored", "dead", "duplicate", "problems")
    for own in report.partitions:
        numbers = (own.partition, own.records, own.stored, own.dead_lettered, own.duplicate)
        ledger.add_row(own.topic, *(f"{number:,}" for number in (*numbers, own.problem_count)))
    console.print(ledger)
    windows = plain_table("windows of", "type", "events", "counted", "open")
    for key, totals in report.windows.items():
        name = words_of(key)
        for kind in sorted(totals.events | totals.open):
            counts = (totals.events, totals.counted, totals.open)
            windows.add_row(name, kind, *(f"{count.get(kind, 0):,}" for count in counts))
    console.print()
    console.print(windows)
    console.print()
    if report.states:
        console.print(_states_table(report.states))
        console.print()
    parts = report.streams
    if len(parts) > 1:
        console.print(_streams_table(parts))
        console.print()
    _audit_verdict(console, report)
    if failed:
        console.print(f"[red]Not audited[/]: {', '.join(failed)}, which cannot start.")


def _states_table(states: Mapping[Partition, StateAudit]) -> Table:
    table = plain_table("state of", "living", "deleted", "differing")
    for (topic, partition), state in states.items():
        counts = (state.living, state.deleted, state.differing)
        table.add_row(f"{topic}[{partition}]", *(f"{count:,}" for count in counts))
    return table


def _streams_table(parts: Mapping[str, AuditReport]) -> Table:
    table = plain_table("stream", "verdict", "problems", "waits for")
    for name, part in parts.items():
        verdict = _VERDICTS[part.verdict]
        table.add_row(name, verdict, f"{part.problem_count:,}", part.waits_for or "-")
    return table


def _not_compared(console: Console, report: AuditReport) -> None:
    """What an audit since the last one has taken for granted."""
    if report.full_at is not None:
        since = f" since {report.looked_at:%Y-%m-%d %H:%M:%S %Z}" if report.looked_at else ""
        states = " rows of upsert streams without new changes," if report.states else ""
        console.print(
            f"not compared: {counted(report.skipped, 'record')} that earlier audits had proved, not looked at"
            f"{since}; windows without new events,{states} and rows {NEAR:,} or more offsets behind the end "
            f"of a log, not since {report.full_at:%Y-%m-%d %H:%M:%S %Z}. "
            "`streamflow audit` without --since-last compares all."
        )


def _audit_verdict(console: Console, report: AuditReport) -> None:
    if report.lost:
        console.print(f"lost: {counted(report.lost, 'offset')} in gaps that were acknowledged.")
    if report.window_differences:
        console.print(
            f"window differences: {counted(report.window_differences, 'event')} counted too few or too many, "
            "in windows that were acknowledged."
        )
    _too_late(console, report)
    if report.erased:
        console.print(
            f"erased: {counted(report.erased, 'row')} of forgotten subjects, emptied and still there."
        )
    if compacted := sum(own.compacted for own in report.partitions):
        console.print(
            f"compacted: {counted(compacted, 'record', 'that was', 'that were')} accounted for "
            f"{either(compacted, 'is no longer in its topic', 'are no longer in their topics')}."
        )
    _not_compared(console, report)
    if report.verdict is Verdict.CLOSED:
        total = sum(own.records for own in report.partitions)
        waiting = report.in_open_windows
        also = f", {counted(waiting, 'event')} in windows that are still open" if waiting else ""
        console.print(
            f"[green]The ledger closes[/]: {counted(total, 'record')}, each accounted for exactly once{also}"
            f" ({report.seconds:.1f} s)."
        )
    elif report.verdict is Verdict.NOT_YET:
        console.print(
            "[yellow]Not yet[/]: the workers are not done; nothing wrong was found so far."
        )
    else:
        console.print(
            f"[red]The ledger does not close[/]: {counted(report.problem_count, 'problem')}."
        )
        for problem in report.problems[:_SHOWN]:
            console.print(f"  {problem}", highlight=False, markup=False)
        if (more := report.problem_count - _SHOWN) > 0:
            console.print(f"  and {more:,} more: see `streamflow audit --json`")
    for pending in report.pending:
        console.print(f"  not yet: {pending}", highlight=False, markup=False)


def _too_late(console: Console, report: AuditReport) -> None:
    for key, compared in report.windows.items():
        if compared.too_late:
            console.print(
                f"too late: {counted(compared.too_late, 'event')} of {words_of(key)} came after late_after, "
                f"and {either(compared.too_late, 'is', 'are')} in no aggregate."
            )


def export_table(proof: ExportProof) -> None:
    """Prints how exported files compare with the tables."""
    console = make_console()
    table = plain_table("day", "file", "rows", "equal", "loaded later", "verdict")
    for file in proof.files:
        numbers = (f"{number:,}" for number in (file.rows, file.equal, file.later))
        table.add_row(str(file.day), file.path, *numbers, _VERDICTS[file.verdict])
    console.print(table)
    for file in proof.files:
        for problem in file.problems:
            console.print(f"[red]{escape(file.path)}[/]: {escape(problem)}")
    for found, where in ((proof.missing, "between them"), (proof.outside, "before or after them")):
        for name, days in found.items():
            listed = ", ".join(map(str, days[:_SHOWN])) + (" …" if len(days) > _SHOWN else "")
            console.print(
                f"{name} has rows of {counted(len(days), 'day')} {where} that no file has: {listed}",
                markup=False,
                soft_wrap=True,
            )
    later = sum(file.later for file in proof.files)
    if proof.verdict is Verdict.CLOSED:
        console.print("[green]closed[/]: files and tables agree, row by row.")
    elif proof.verdict is Verdict.NOT_YET:
        came = f"{counted(later, 'row')} came after the export" if later else "days are missing"
        console.print(f"[yellow]not yet[/]: {came}; export these days again.")
    else:
        console.print("[red]not closed[/]: files and tables differ.")
