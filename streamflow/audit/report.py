"""The report of an audit, and its verdict. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from streamflow.audit.problems import Problem
from streamflow.audit.windows import Reconciliation
from streamflow.flow import Partition

_MOST_NAMED: Final = 1000  # problems of a partition that are named; all are counted


class Verdict(StrEnum):
    """The three possible results of an audit."""

    CLOSED = "closed"
    NOT_YET = "not_yet"
    OPEN = "open"


class PendingKind(StrEnum):
    """Why an audit cannot close yet."""

    BEHIND = "behind"
    NO_POSITION = "no_position"
    UNREADABLE_POSITION = "unreadable_position"
    OPEN_WINDOWS = "open_windows"


@dataclass(frozen=True, kw_only=True)
class Pending:
    """Work that a worker has to do before the audit can close.

    Attributes:
        records: lag in offsets, as Kafka's ``records-lag``.
        partitions: where the worker lags.
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
                    f"{self.worker} has committed an offset without its metadata in {where}, so "
                    "windows cannot be compared: was its group reset? Start it"
                )
            case PendingKind.OPEN_WINDOWS:
                return (
                    f"{self.worker} has not emitted windows that are due, of {number} in {where}: "
                    "is it running?"
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
        first: first offset that was checked.
        end: end of the offsets that were checked, exclusive.
        judged: records from this offset on may still be in progress; None if none are.
        missing: records without an outcome.
        missing_at: their offsets, as ranges without gaps.
        pending: records without an outcome that may still be in progress.
        twice: records with more than one outcome.
        unknown: outcomes without a record in Kafka.
        other: records whose row is of another record with the same offset.
        compared: whether its events were compared with their notifications, or have none.
        lost: offsets in acknowledged gaps.
        problems: at most a thousand.
        problem_count: the number of problems, listed or not.
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
    missing_at: list[tuple[int, int]] = field(default_factory=list, repr=False)
    pending: int = 0
    twice: int = 0
    unknown: int = 0
    other: int = 0
    compared: bool = True
    lost: int = 0
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0

    def note(self, problem: Problem) -> None:
        """Counts a problem, and lists it unless there are too many."""
        self.problem_count += 1
        if len(self.problems) < _MOST_NAMED:
            self.problems.append(problem)

    @property
    def proved(self) -> bool:
        """Whether every record up to `end` has exactly one outcome."""
        reached = self.judged is None or self.judged >= self.end
        return reached and self.compared and not self.pending and not self.problem_count

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = vars(self) | {"problems": [each.as_dict() for each in self.problems]}
        del found["missing_at"]  # the problems say it
        return found


@dataclass(kw_only=True)
class AuditReport:
    """The report of an audit.

    Attributes:
        partitions: the ledgers, by topic and partition.
        windows: window counts compared with events, by source partition.
        pending: what workers still have to do; the audit closes only if that is nothing.
        topics: problems of whole topics.
        lost_aside: offsets in acknowledged gaps of topics that were set aside.
        seconds: duration of the audit.
    """

    partitions: list[PartitionAudit]
    windows: dict[str, Reconciliation] = field(default_factory=dict)
    pending: list[Pending] = field(default_factory=list)
    topics: list[Problem] = field(default_factory=list)
    lost_aside: int = 0
    seconds: float = 0.0

    @property
    def problems(self) -> list[Problem]:
        """All problems, those of each partition by offset."""
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
        """The number of problems, including those that `problems` does not list."""
        return (
            len(self.topics)
            + sum(each.problem_count for each in self.partitions)
            + sum(each.differing for each in self.windows.values())
        )

    @property
    def caught_up(self) -> bool:
        """Whether no worker has anything left to do."""
        return not self.pending

    @property
    def verdict(self) -> Verdict:
        """The result: closed only if everything is known and right."""
        if self.problem_count:
            return Verdict.OPEN
        return Verdict.CLOSED if self.caught_up else Verdict.NOT_YET

    @property
    def closed(self) -> bool:
        """Whether the audit closes."""
        return self.verdict is Verdict.CLOSED

    @property
    def waits_for(self) -> str:
        """What the audit waits for, in words; empty if for nothing."""
        return "; ".join(map(str, self.pending))

    @property
    def lost(self) -> int:
        """Offsets in acknowledged gaps."""
        return self.lost_aside + sum(each.lost for each in self.partitions)

    @property
    def in_open_windows(self) -> int:
        """Events that were read but whose windows are still open."""
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
