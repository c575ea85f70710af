"""How an audit words what it finds about gaps, topics and notifications. Pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from streamflow.audit.completeness import Group
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
    """Topics that are not there."""
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
    """Topics whose id is not the one that was known of them."""
    others = {topic for topic, id_ in known if ids.get(topic, id_) != id_}
    return [
        Problem(
            kind=ProblemKind.TOPIC_RECREATED,
            topic=topic,
            detail="was deleted and created again: its records are other ones. If that was meant, run "
            f"`streamflow topics --accept-recreated {topic}`",
        )
        for topic in topics
        if topic in others
    ]


def truncated(ledger: PartitionAudit, proved: int) -> Problem:
    """A log that ends before what was proved."""
    return Problem(
        kind=ProblemKind.TRUNCATED,
        topic=ledger.topic,
        partition=ledger.partition,
        offset=ledger.end,
        end_offset=proved,
        count=proved - ledger.end,
        detail=f"the log ends at offset {ledger.end}, but was proved through {proved}: the broker has "
        "lost its end, or the topic was created again",
    )


def beyond(ledger: PartitionAudit, loaded: int, end: int) -> Problem:
    """A loader's position behind the end of the log: what comes next would be skipped."""
    return Problem(
        kind=ProblemKind.TRUNCATED,
        topic=ledger.topic,
        partition=ledger.partition,
        offset=end,
        end_offset=loaded,
        count=loaded - end,
        detail=f"the log ends at offset {end}, but the loader's position is {loaded}: somebody has moved "
        "it, or the broker has lost its end. Restart the loader: it says what to do",
    )


def gap_problem(gap: KnownGap, *, loaded: bool, derived: bool = False) -> Problem:
    """A gap that nobody has acknowledged.

    Args:
        gap: it.
        loaded: the loader had passed it.
        derived: its records were read, but what the reader made of them was lost.
    """
    if gap.reader == AUDIT:
        detail = "removed by retention before an audit saw them"
        detail += "" if loaded else ", and before they were loaded"
    elif derived:
        detail = f"what group {gap.reader} made of them was gone before it was loaded"
    else:
        cause = {
            "retention": "retention had removed them",
            "recreated": "the topic was created again",
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
        detail=f"{detail}; once that is known, `streamflow audit --acknowledge`",
    )


def no_notification(ledger: PartitionAudit, group: Group) -> Problem:
    """Events that should have a notification."""
    return _of_group(ProblemKind.NO_NOTIFICATION, ledger, group, "events without a notification")


def no_event(ledger: PartitionAudit, group: Group) -> Problem:
    """Notifications of what is no event."""
    return _of_group(ProblemKind.NO_EVENT, ledger, group, "notifications without an event")


def _of_group(kind: ProblemKind, ledger: PartitionAudit, group: Group, what: str) -> Problem:
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
    """Whether the database still has what was proved.

    Args:
        ledger: with the problems of the records in Kafka that were proved before; these are not named
            twice.
        through: how far the partition was proved.
        stored_as: what the topic's records are when they are stored.
        expected: how many rows were proved, by outcome.
        found: how many rows there are.
    """
    names = {"stored": stored_as, "dead_lettered": "dead letters", "duplicate": "duplicates"}
    known = ledger.missing + ledger.pending + ledger.twice
    vanished = _without(expected - found, known)
    added = _without(found - expected, ledger.twice)
    gone = "that were proved are gone: restore them from a backup"
    more = "more than were proved: find out who else writes to the table"
    return [
        Problem(
            kind=kind,
            topic=ledger.topic,
            partition=ledger.partition,
            offset=0,
            end_offset=through,
            count=rows.total(),
            detail=" and ".join(f"{rows[each]:,} {names[each]}" for each in names if rows[each])
            + f" {advice}",
        )
        for kind, rows, advice in (
            (ProblemKind.ROWS_VANISHED, vanished, gone),
            (ProblemKind.ROWS_ADDED, added, more),
        )
        if rows
    ]


def _without(rows: Counts, known: int) -> Counts:
    """Takes so many rows out, of the most frequent outcome first."""
    left = rows.copy()
    for outcome, number in rows.most_common():
        left[outcome] -= min(number, known)
        known -= min(number, known)
    return +left
