"""What a person says that they know of: it stays in the report, and is no problem any more (G5)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from streamflow.audit.gap_ledger import KnownGap, acknowledge_gaps
from streamflow.audit.problems import ProblemKind
from streamflow.audit.report import AuditReport
from streamflow.audit.window_ledger import Acknowledged, acknowledge_differences
from streamflow.postgres.connections import session
from streamflow.settings import Settings
from streamflow.stream import Stream, reads
from streamflow.units import counted, either

_GAPS = frozenset({ProblemKind.GAP_RETENTION, ProblemKind.GAP_RECREATED, ProblemKind.GAP_TRUNCATED})


class Acknowledgement(NamedTuple):
    """What a person has acknowledged just now."""

    gaps: list[KnownGap]
    differences: list[Acknowledged]


def acknowledge(settings: Settings, streams: Sequence[Stream], who: str) -> Acknowledgement:
    """Acknowledges all gaps in the streams' topics, and windows that differ for good: the report still counts
    them, but not as problems. Returns those that were not acknowledged before.

    Raises:
        Unavailable: the database does not answer.
    """
    with session(settings, "audit") as connection:
        topics = reads("loader", streams)
        return Acknowledgement(
            acknowledge_gaps(connection, topics, who),
            acknowledge_differences(connection, topics, who),
        )


def not_acknowledged(report: AuditReport) -> list[str]:
    """Why problems are left after an acknowledgement: some were found only by the audit after it, the others
    cannot be acknowledged."""
    cells = [
        (table, cell.acknowledgeable)
        for (*_, table), compared in report.windows.items()
        for cell in compared.differing_cells
    ]
    proved = [table for table, acknowledgeable in cells if not acknowledgeable]
    # Of windows whose events are all counted.
    values = Counter(
        {
            windows: compared.differing - len(compared.differing_cells)
            for windows, compared in report.windows.items()
        }
    )
    gaps = sum(problem.kind in _GAPS for problem in report.problems)
    found = gaps + len(cells) - len(proved)
    others = report.problem_count - found - len(proved) - values.total()
    kinds = {problem.kind for problem in report.problems} - _GAPS - {ProblemKind.WINDOW_DIFFERS}
    reasons = []
    if found:
        reasons.append(
            f"{counted(found, 'problem')} {either(found, 'was', 'were')} found only now, or "
            f"{either(found, 'has', 'have')} changed since: once you know why, run "
            "`streamflow audit --acknowledge` again"
        )
    if proved:
        reasons.append(
            f"{counted(len(proved), 'window')} cannot be acknowledged, since an audit has proved "
            f"{either(len(proved), 'its count', 'their counts')}: {_changed(proved)} or lost since; restore "
            "them from a backup"
        )
    if number := values.total():
        changed = _changed(table for *_, table in +values)
        reasons.append(
            f"{counted(number, 'aggregate')} of windows cannot be acknowledged, since no count differs: "
            f"{changed}; restore them from a backup"
        )
    if others:
        reasons.append(
            f"{counted(others, 'problem')} cannot be acknowledged ({', '.join(sorted(kinds))}): only gaps "
            "and differing windows can"
        )
    return reasons


def _changed(tables: Iterable[str]) -> str:
    return f"rows of {', '.join(sorted({*tables}))} or of events were changed"
