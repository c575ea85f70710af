"""What an audit found, and the verdict that follows from it. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from streamflow.audit.problems import Problem
from streamflow.audit.windows import Reconciliation
from streamflow.flow import Partition

_MOST_NAMED: Final = 1000  # problems of a partition that are named; all are counted


class Verdict(StrEnum):
    """The three answers of an audit."""

    CLOSED = "closed"
    NOT_YET = "not_yet"
    OPEN = "open"


class PendingKind(StrEnum):
    """Why something is not known yet."""

    BEHIND = "behind"
    NO_POSITION = "no_position"
    UNREADABLE_POSITION = "unreadable_position"
    OPEN_WINDOWS = "open_windows"


@dataclass(frozen=True, kw_only=True)
class Pending:
    """What a worker still has to do before the ledger can close.

    Attributes:
        records: how many wait, counted in offsets as Kafka's own ``records-lag`` is.
        partitions: where.
    """

    kind: PendingKind
    worker: str
    records: int
    partitions: tuple[Partition, ...]

    def __str__(self) -> str:
        where = _places(self.partitions)
        number = f"{self.records:,} record{'' if self.records == 1 else 's'}"
        match self.kind:
            case PendingKind.BEHIND:
                return f"{self.worker} is {number} behind"
            case PendingKind.NO_POSITION:
                return (
                    f"{self.worker} is {number} behind: its group has no committed position in "
                    f"{where}; start it"
                )
            case PendingKind.UNREADABLE_POSITION:
                return (
                    f"{self.worker} has committed a position without progress in {where}, so "
                    "windows cannot be compared: did somebody reset its group? Start it"
                )
            case PendingKind.OPEN_WINDOWS:
                return (
                    f"{self.worker} has not emitted the windows of {number} in {where}, which are "
                    "due: is it running?"
                )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "message": str(self)}


def _places(partitions: Sequence[Partition]) -> str:
    return ", ".join(f"{topic}[{partition}]" for topic, partition in partitions)


@dataclass(kw_only=True)
class PartitionAudit:
    """The ledger of one partition.

    Attributes:
        first: offset from which its records were looked at.
        end: offset behind the last record looked at.
        judged: a record from this offset on may still be on its way; None where none may be.
        missing: records that nothing accounts for.
        pending: as `missing`, of records that may still be on their way.
        twice: records that are accounted for more than once.
        unknown: outcomes of records that Kafka does not hold.
        other: records whose row tells of another record at the same offset.
        compared: its events were compared with their notifications, or have none.
        lost: offsets in gaps that a person has acknowledged.
        problems: what does not add up, at most a thousand.
        problem_count: how many problems there are, named or not.
    """

    topic: str
    partition: int
    first: int
    end: int
    judged: int | None = None
    records: int = 0
    stored: int = 0
    dead_lettered: int = 0
    duplicate: int = 0
    missing: int = 0
    pending: int = 0
    twice: int = 0
    unknown: int = 0
    other: int = 0
    compared: bool = True
    lost: int = 0
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0

    def note(self, problem: Problem) -> None:
        """Counts a problem, and names it unless there are enough to look at."""
        self.problem_count += 1
        if len(self.problems) < _MOST_NAMED:
            self.problems.append(problem)

    @property
    def proved(self) -> bool:
        """Whether every record up to `end` is accounted for."""
        reached = self.judged is None or self.judged >= self.end
        return reached and self.compared and not self.pending and not self.problem_count

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self) | {"problems": [each.as_dict() for each in self.problems]}


@dataclass(kw_only=True)
class AuditReport:
    """What an audit found.

    Attributes:
        partitions: the ledgers, by topic and partition.
        windows: window totals against events, by name of the source partition.
        pending: what workers still have to do; while there is anything, the ledger cannot close.
        topics: problems of whole topics.
        lost_aside: offsets in acknowledged gaps of topics that were set aside.
        seconds: that it took.
    """

    partitions: list[PartitionAudit]
    windows: dict[str, Reconciliation] = field(default_factory=dict)
    pending: list[Pending] = field(default_factory=list)
    topics: list[Problem] = field(default_factory=list)
    lost_aside: int = 0
    seconds: float = 0.0

    @property
    def problems(self) -> list[Problem]:
        """Everything that does not add up, of each partition the first record first."""
        return (
            self.topics
            + [
                problem
                for each in self.partitions
                for problem in sorted(each.problems, key=lambda problem: problem.offset or 0)
            ]
            + [problem for each in self.windows.values() for problem in each.differences]
        )

    @property
    def problem_count(self) -> int:
        """How many problems there are, those included that `problems` does not name."""
        return (
            len(self.topics)
            + sum(each.problem_count for each in self.partitions)
            + sum(each.differing for each in self.windows.values())
        )

    @property
    def caught_up(self) -> bool:
        """Whether every worker has done all that it has to do."""
        return not self.pending

    @property
    def verdict(self) -> Verdict:
        """Closed only when everything is known and right."""
        if self.problem_count:
            return Verdict.OPEN
        return Verdict.CLOSED if self.caught_up else Verdict.NOT_YET

    @property
    def closed(self) -> bool:
        """Whether the ledger closes."""
        return self.verdict is Verdict.CLOSED

    @property
    def waits_for(self) -> str:
        """What the ledger waits for, in words; empty where for nothing."""
        return "; ".join(map(str, self.pending))

    @property
    def lost(self) -> int:
        """Offsets in gaps that a person has acknowledged."""
        return self.lost_aside + sum(each.lost for each in self.partitions)

    @property
    def in_open_windows(self) -> int:
        """Events that were read and whose windows are still open."""
        return sum(sum(each.open.values()) for each in self.windows.values())

    def of(self, topics: Collection[str]) -> list[PartitionAudit]:
        """The ledgers of some topics."""
        return [each for each in self.partitions if each.topic in topics]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "verdict": self.verdict,
            "closed": self.closed,
            "caught_up": self.caught_up,
            "pending": [each.as_dict() for each in self.pending],
            "problem_count": self.problem_count,
            "problems": [each.as_dict() for each in self.problems],
            "lost": self.lost,
            "in_open_windows": self.in_open_windows,
            "partitions": [each.as_dict() for each in self.partitions],
            "windows": {
                name: {
                    "events": each.events,
                    "counted": each.counted,
                    "open": each.open,
                    "lost": each.lost,
                    "cells": each.cells,
                }
                for name, each in self.windows.items()
            },
            "seconds": round(self.seconds, 3),
        }
