"""The problems that an audit reports about gaps, topics and notifications, in words. Pure."""

from typing import Final

from streamflow.audit.completeness import OffsetGroup
from streamflow.audit.gap_ledger import AUDIT, KnownGap
from streamflow.audit.outcomes import Counts
from streamflow.audit.problems import Problem, ProblemKind
from streamflow.audit.report import PartitionAudit
from streamflow.errors import ConfigurationError
from streamflow.units import counted, either

_CAUSES: Final = {
    "retention": (ProblemKind.GAP_RETENTION, "retention had removed them"),
    "recreated": (ProblemKind.GAP_RECREATED, "the topic was recreated"),
    "truncated": (ProblemKind.GAP_TRUNCATED, "the broker has lost them"),
}
_UNPAIRED: Final = {
    ProblemKind.NO_NOTIFICATION: ("event", "without a notification"),
    ProblemKind.NO_EVENT: ("notification", "without an event"),
}


def not_auditable(topic: str, reason: str) -> Problem:
    return Problem(
        kind=ProblemKind.NOT_AUDITABLE,
        topic=topic,
        detail=f"cannot be audited: PostgreSQL refuses the query ({reason}). Compare the stream's "
        "declaration with its table, and run `streamflow db upgrade`",
    )


def of_other_mode(topic: str, error: ConfigurationError) -> Problem:
    return Problem(
        kind=ProblemKind.NOT_AUDITABLE, topic=topic, detail=f"cannot be audited: {error}"
    )


def missing(topic: str, *, managed: bool) -> Problem:
    what = "run `streamflow init`" if managed else "its owner has to create it"
    return Problem(kind=ProblemKind.TOPIC_MISSING, topic=topic, detail=f"does not exist: {what}")


def recreated(topic: str) -> Problem:
    return Problem(
        kind=ProblemKind.TOPIC_RECREATED,
        topic=topic,
        detail="was deleted and recreated: its offsets mean other records. If that was intended, run "
        f"`streamflow topics --accept-recreated {topic}`",
    )


def truncated(ledger: PartitionAudit, proved: int) -> Problem:
    """The log ends before an offset that was proved."""
    return ledger.problem(
        ProblemKind.TRUNCATED,
        ledger.end,
        proved,
        f"the log ends at offset {ledger.end}, but was proved up to {proved}: the broker has lost its "
        "end, or the topic was recreated",
    )


def beyond(ledger: PartitionAudit, loaded: int, end: int) -> Problem:
    """The loader's position is past the end of the log: the next records would be skipped."""
    return ledger.problem(
        ProblemKind.TRUNCATED,
        end,
        loaded,
        f"the log ends at offset {end}, but the loader's position is {loaded}: it was moved by hand, or "
        "the broker has lost its end. Restart the loader: it says what to do",
    )


def gap_problem(gap: KnownGap, *, loaded: bool, derived: bool = False) -> Problem:
    """A gap that is not acknowledged.

    Args:
        gap: to report.
        loaded: whether the loader had passed it.
        derived: its records are still there, but the records derived from them were lost.
    """
    kind, cause = _CAUSES[gap.cause]
    if gap.reader == AUDIT:
        detail = "removed by retention before an audit saw them"
        detail += "" if loaded else ", and before they were loaded"
    elif derived and gap.cause == "retention":
        detail = f"group {gap.reader}: what was derived from them was gone before it was loaded"
    else:
        detail = f"group {gap.reader} could not read them, {cause}"
    return Problem(
        kind=kind,
        topic=gap.topic,
        partition=gap.partition,
        offset=gap.first,
        end_offset=gap.end,
        count=gap.end - gap.first,
        detail=f"{detail}; once you know why, run `streamflow audit --acknowledge`",
    )


def unpaired(kind: ProblemKind, ledger: PartitionAudit, group: OffsetGroup) -> Problem:
    noun, lack = _UNPAIRED[kind]
    detail = f"{counted(group.number, noun)} {lack}, the first at offset {group.first}"
    return ledger.problem(kind, group.first, group.end, detail, group.number)


def changed_rows(
    ledger: PartitionAudit, through: int, stored_as: str, expected: Counts, present: Counts
) -> list[Problem]:
    """Rows of proved records that have vanished, or were added.

    Args:
        ledger: with the problems of proved records that Kafka still holds; these are not reported twice.
        through: how far the partition is proved.
        stored_as: what stored records of the topic are called.
        expected: number of rows that were proved, by outcome.
        present: number of rows in the database.
    """
    nouns = {
        "stored": stored_as.removesuffix("s"),
        "dead_lettered": "dead letter",
        "duplicate": "duplicate",
    }
    known = ledger.missing + ledger.pending + ledger.twice
    vanished = _without(expected - present, known)
    added = _without(present - expected, ledger.twice)
    gone = either(
        vanished.total(),
        "that was proved is gone: restore it from a backup",
        "that were proved are gone: restore them from a backup",
    )
    more = "more than were proved: find out what else writes to the table"
    problems = []
    for kind, rows, advice in (
        (ProblemKind.ROWS_VANISHED, vanished, gone),
        (ProblemKind.ROWS_ADDED, added, more),
    ):
        changed = [counted(rows[outcome], noun) for outcome, noun in nouns.items() if rows[outcome]]
        if changed:
            detail = f"{' and '.join(changed)} {advice}"
            problems.append(ledger.problem(kind, 0, through, detail, rows.total()))
    return problems


def _without(rows: Counts, known: int) -> Counts:
    """Subtracts so many rows, from the most frequent outcome first."""
    left = rows.copy()
    for outcome, number in rows.most_common():
        left[outcome] -= min(number, known)
        known -= min(number, known)
    return +left
