"""The problems that an audit reports about gaps, topics and notifications, in words. Pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from streamflow.audit.completeness import OffsetGroup
from streamflow.audit.gap_ledger import AUDIT, KnownGap
from streamflow.audit.problems import Problem, ProblemKind
from streamflow.audit.proofs import Counts
from streamflow.audit.report import PartitionAudit

_GAP_KINDS: Final = {
    "retention": ProblemKind.GAP_RETENTION,
    "recreated": ProblemKind.GAP_RECREATED,
    "truncated": ProblemKind.GAP_TRUNCATED,
}


def missing(topics: Sequence[str], present: Collection[str]) -> list[Problem]:
    """The topics that do not exist."""
    return [
        Problem(
            kind=ProblemKind.TOPIC_MISSING,
            topic=topic,
            detail="does not exist: run `streamflow topics --apply`",
        )
        for topic in topics
        if topic not in present
    ]


def recreated(
    topics: Sequence[str], ids: Mapping[str, str], known: Collection[tuple[str, str]]
) -> list[Problem]:
    """The topics whose id has changed."""
    others = {topic for topic, id_ in known if ids.get(topic, id_) != id_}
    return [
        Problem(
            kind=ProblemKind.TOPIC_RECREATED,
            topic=topic,
            detail="was deleted and recreated: its offsets mean other records. If that was intended, run "
            f"`streamflow topics --accept-recreated {topic}`",
        )
        for topic in topics
        if topic in others
    ]


def truncated(ledger: PartitionAudit, proved: int) -> Problem:
    """The log ends before an offset that was proved."""
    return Problem(
        kind=ProblemKind.TRUNCATED,
        topic=ledger.topic,
        partition=ledger.partition,
        offset=ledger.end,
        end_offset=proved,
        count=proved - ledger.end,
        detail=f"the log ends at offset {ledger.end}, but was proved up to {proved}: the broker has "
        "lost its end, or the topic was recreated",
    )


def beyond(ledger: PartitionAudit, loaded: int, end: int) -> Problem:
    """The loader's position is past the end of the log: the next records would be skipped."""
    return Problem(
        kind=ProblemKind.TRUNCATED,
        topic=ledger.topic,
        partition=ledger.partition,
        offset=end,
        end_offset=loaded,
        count=loaded - end,
        detail=f"the log ends at offset {end}, but the loader's position is {loaded}: it was moved by "
        "hand, or the broker has lost its end. Restart the loader: it says what to do",
    )


def gap_problem(gap: KnownGap, *, loaded: bool, derived: bool = False) -> Problem:
    """A gap that is not acknowledged.

    Args:
        gap: to report.
        loaded: whether the loader had passed it.
        derived: its records are still there, but the records derived from them were lost.
    """
    if gap.reader == AUDIT:
        detail = "removed by retention before an audit saw them"
        detail += "" if loaded else ", and before they were loaded"
    elif derived and gap.cause == "retention":
        detail = f"group {gap.reader}: what was derived from them was gone before it was loaded"
    else:
        cause = {
            "retention": "retention had removed them",
            "recreated": "the topic was recreated",
            "truncated": "the broker has lost them",
        }[gap.cause]
        detail = f"group {gap.reader} could not read them, {cause}"
    return Problem(
        kind=_GAP_KINDS[gap.cause],
        topic=gap.topic,
        partition=gap.partition,
        offset=gap.first,
        end_offset=gap.end,
        count=gap.end - gap.first,
        detail=f"{detail}; once you know why, run `streamflow audit --acknowledge`",
    )


def no_notification(ledger: PartitionAudit, group: OffsetGroup) -> Problem:
    """Events without their notification."""
    return _of_group(ProblemKind.NO_NOTIFICATION, ledger, group, "events without a notification")


def no_event(ledger: PartitionAudit, group: OffsetGroup) -> Problem:
    """Notifications without their event."""
    return _of_group(ProblemKind.NO_EVENT, ledger, group, "notifications without an event")


def _of_group(kind: ProblemKind, ledger: PartitionAudit, group: OffsetGroup, what: str) -> Problem:
    return Problem(
        kind=kind,
        topic=ledger.topic,
        partition=ledger.partition,
        offset=group.first,
        end_offset=group.end,
        count=group.number,
        detail=f"{group.number:,} {what}, the first at offset {group.first}",
    )


def changed_rows(
    ledger: PartitionAudit, through: int, stored_as: str, expected: Counts, found: Counts
) -> list[Problem]:
    """Rows of proved records that have vanished, or were added.

    Args:
        ledger: with the problems of proved records that Kafka still holds; these are not reported twice.
        through: how far the partition is proved.
        stored_as: what stored records of the topic are called.
        expected: number of rows that were proved, by outcome.
        found: number of rows in the database.
    """
    names = {"stored": stored_as, "dead_lettered": "dead letters", "duplicate": "duplicates"}
    known = ledger.missing + ledger.pending + ledger.twice
    vanished = _without(expected - found, known)
    added = _without(found - expected, ledger.twice)
    gone = "that were proved are gone: restore them from a backup"
    more = "more than were proved: find out what else writes to the table"
    return [
        Problem(
            kind=kind,
            topic=ledger.topic,
            partition=ledger.partition,
            offset=0,
            end_offset=through,
            count=rows.total(),
            detail=" and ".join(
                f"{rows[outcome]:,} {name}" for outcome, name in names.items() if rows[outcome]
            )
            + f" {advice}",
        )
        for kind, rows, advice in (
            (ProblemKind.ROWS_VANISHED, vanished, gone),
            (ProblemKind.ROWS_ADDED, added, more),
        )
        if rows
    ]


def _without(rows: Counts, known: int) -> Counts:
    """Subtracts so many rows, from the most frequent outcome first."""
    left = rows.copy()
    for outcome, number in rows.most_common():
        left[outcome] -= min(number, known)
        known -= min(number, known)
    return +left
