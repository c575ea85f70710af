"""What a person says that they know of: it stays in the report, and is no problem any more (G5)."""

from collections.abc import Sequence
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
    cells = [cell for compared in report.windows.values() for cell in compared.differing_cells]
    proved = sum(not cell.acknowledgeable for cell in cells)
    gaps = sum(problem.kind in _GAPS for problem in report.problems)
    found = gaps + len(cells) - proved
    others = report.problem_count - found - proved
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
            f"{counted(proved, 'window')} cannot be acknowledged, since an audit has proved "
            f"{either(proved, 'its count', 'their counts')}: rows of windows or of events were changed "
            "or lost since; restore them from a backup"
        )
    if others:
        reasons.append(
            f"{counted(others, 'problem')} cannot be acknowledged ({', '.join(sorted(kinds))}): only gaps "
            "and differing windows can"
        )
    return reasons
