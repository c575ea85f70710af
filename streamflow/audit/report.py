"""The report of an audit, and its verdict: of all streams together, and of each one. Pure."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from streamflow.audit.outcomes import OUTCOMES, Counts
from streamflow.audit.problems import MOST_LISTED, Problem, ProblemKind
from streamflow.audit.states import StateAudit
from streamflow.audit.windows.reconciliation import Reconciliation, WindowsOf, words_of
from streamflow.flow import Partition
from streamflow.units import counted


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
    NOT_BEGUN = "not_begun"


_WAITS: Final = {
    PendingKind.BEHIND: "{worker} is {number} behind",
    PendingKind.NO_POSITION: "{worker} is {number} behind: its group has no committed position in "
    "{where}; start it",
    PendingKind.UNREADABLE_POSITION: "{worker} has committed an offset without its metadata in {where}, "
    "so windows cannot be compared: was its group reset? Start it",
    PendingKind.OPEN_WINDOWS: "{worker} has not emitted windows that are due, of {number} in {where}: is "
    "it running?",
    PendingKind.NOT_BEGUN: "{worker} has not begun to count the windows {windows} in {where}: is it running, "
    "and of this release?",
}


@dataclass(frozen=True, kw_only=True)
class Pending:
    """Work that a worker has to do before the audit can close.

    Attributes:
        behind: lag of each partition in offsets, transaction markers included, as Kafka's ``records-lag``;
            of `OPEN_WINDOWS` the events in these windows.
        windows: the tables of those that it is about.
    """

    kind: PendingKind
    worker: str
    behind: Mapping[Partition, int]
    windows: tuple[str, ...] = ()

    @property
    def partitions(self) -> tuple[Partition, ...]:
        return tuple(self.behind)

    @property
    def number(self) -> int:
        return sum(self.behind.values())

    def among(self, wanted: Callable[[Partition], bool]) -> "list[Pending]":
        """What is pending in these partitions: one, or none."""
        behind = {partition: lag for partition, lag in self.behind.items() if wanted(partition)}
        return [replace(self, behind=behind)] if behind else []

    def __str__(self) -> str:
        where = ", ".join(f"{topic}[{partition}]" for topic, partition in self.partitions)
        unit = "event" if self.kind is PendingKind.OPEN_WINDOWS else "offset"
        return _WAITS[self.kind].format(
            worker=self.worker,
            number=counted(self.number, unit),
            where=where,
            windows=", ".join(self.windows),
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "worker": self.worker,
            "records": self.number,
            "partitions": self.partitions,
            "message": str(self),
        }


@dataclass(kw_only=True)
class PartitionAudit:
    """The ledger of one partition: of the offsets from `first` up to but excluding `end`.

    Attributes:
        judged: records from this offset on may still be in progress; None if none are.
        missing: records without an outcome.
        missing_at: their offsets, as ranges without gaps.
        pending: records without an outcome that may still be in progress.
        twice: records with more than one outcome.
        unknown: outcomes without a record in Kafka.
        compacted: outcomes of records that the topic's compaction may have removed. They are counted as
            what they are.
        other: records whose row is of another record with the same offset.
        compared: whether its events were compared with their notifications, or have none.
        skipped: records that earlier audits had proved, and that this one has not compared.
        looked_at: each of these was compared at this time or later.
        full_at: when the last full audit began; it has compared all windows.
        lost: offsets in acknowledged gaps.
        problems: at most a thousand.
        problem_count: listed or not.
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
    compacted: int = 0
    other: int = 0
    compared: bool = True
    skipped: int = 0
    looked_at: datetime | None = None
    full_at: datetime | None = None
    lost: int = 0
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0

    @property
    def key(self) -> Partition:
        return self.topic, self.partition

    @property
    def counts(self) -> Counts:
        return Counter({outcome: getattr(self, outcome) for outcome in OUTCOMES})

    def problem(
        self, kind: ProblemKind, first: int, end: int, detail: str, count: int | None = None
    ) -> Problem:
        """A problem of the offsets from `first` up to but excluding `end`: of `count` of them, or all."""
        return Problem(
            kind=kind,
            topic=self.topic,
            partition=self.partition,
            offset=first,
            end_offset=end,
            count=end - first if count is None else count,
            detail=detail,
        )

    def note(self, problem: Problem) -> None:
        """Counts a problem, and lists it unless there are too many."""
        self.problem_count += 1
        if len(self.problems) < MOST_LISTED:
            self.problems.append(problem)

    def take_problems(self, other: "PartitionAudit") -> None:
        """Adds what was found in some of its offsets that are not counted here."""
        for problem in other.problems:
            self.note(problem)
        self.problem_count += other.problem_count - len(other.problems)
        self.pending += other.pending
        self.compared = self.compared and other.compared

    def unlisted(self) -> list[Problem]:
        """One that stands for the problems that are counted and not listed, if there are any."""
        more = self.problem_count - len(self.problems)
        if not more:
            return []
        detail = f"{counted(more, 'further problem', 'that is', 'that are')} not listed"
        return [self.problem(self.problems[-1].kind, self.first, self.end, detail, more)]

    @property
    def proved(self) -> bool:
        """Whether every record up to `end` has exactly one outcome."""
        reached = self.judged is None or self.judged >= self.end
        return reached and self.compared and not self.pending and not self.problem_count

    def as_dict(self) -> dict[str, Any]:
        ledger = vars(self) | {
            "problems": [problem.as_dict() for problem in self.problems],
            "looked_at": _text(self.looked_at),
            "full_at": _text(self.full_at),
        }
        del ledger["missing_at"]  # the problems say it
        return ledger


@dataclass(kw_only=True)
class AuditReport:
    """The report of an audit, or the part of it that is about one stream.

    Attributes:
        owners: the names of the streams that use a topic, by topic.
        partitions: the ledgers, by topic and partition.
        windows: windows compared with events, by source partition and the table that they are counted into.
        states: rows of upsert streams compared with their changes, by source partition.
        pending: what workers still have to do; the audit closes only if that is nothing.
        topics: problems of whole topics.
        lost_aside: offsets in acknowledged gaps of topics that were set aside.
        erased: rows of forgotten subjects, which are still there and hold nothing of theirs.
    """

    partitions: list[PartitionAudit]
    owners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    windows: dict[WindowsOf, Reconciliation] = field(default_factory=dict)
    states: dict[Partition, StateAudit] = field(default_factory=dict)
    pending: list[Pending] = field(default_factory=list)
    topics: list[Problem] = field(default_factory=list)
    lost_aside: int = 0
    erased: int = 0
    seconds: float = 0.0

    @property
    def problems(self) -> list[Problem]:
        """All problems, those of each partition by offset."""
        problems = list(self.topics)
        for ledger in self.partitions:
            problems += sorted(ledger.problems, key=lambda problem: problem.offset or 0)
        for compared in self.windows.values():
            problems += compared.differences
        for state in self.states.values():
            problems += state.problems
        return problems

    @property
    def problem_count(self) -> int:
        """Includes those that `problems` does not list."""
        return (
            len(self.topics)
            + sum(ledger.problem_count for ledger in self.partitions)
            + sum(compared.differing for compared in self.windows.values())
            + sum(state.differing for state in self.states.values())
        )

    @property
    def caught_up(self) -> bool:
        return not self.pending

    @property
    def verdict(self) -> Verdict:
        if self.problem_count:
            return Verdict.OPEN
        return Verdict.CLOSED if self.caught_up else Verdict.NOT_YET

    @property
    def closed(self) -> bool:
        return self.verdict is Verdict.CLOSED

    @property
    def waits_for(self) -> str:
        """What the audit waits for, in words; empty if for nothing."""
        return "; ".join(map(str, self.pending))

    @property
    def lost(self) -> int:
        """Offsets in acknowledged gaps."""
        return self.lost_aside + sum(ledger.lost for ledger in self.partitions)

    @property
    def skipped(self) -> int:
        """Records that earlier audits had proved, and that this one has not compared."""
        return sum(ledger.skipped for ledger in self.partitions)

    @property
    def looked_at(self) -> datetime | None:
        """Each of these was compared at this time or later. None if none were skipped."""
        return _earliest(ledger.looked_at for ledger in self.partitions if ledger.skipped)

    @property
    def full_at(self) -> datetime | None:
        """When the last full audit began; windows that nothing new is counted in, rows of upsert streams
        without new changes, and rows far behind the end of a log were compared then. None if this audit was
        one."""
        return _earliest(ledger.full_at for ledger in self.partitions)

    @property
    def too_late(self) -> int:
        """Events that came after the `late_after` of windows, in each of these."""
        return sum(compared.too_late for compared in self.windows.values())

    @property
    def window_differences(self) -> int:
        """Events in windows that differ for good, as was acknowledged: counted too few or too many."""
        return sum(compared.window_differences for compared in self.windows.values())

    @property
    def in_open_windows(self) -> int:
        """Events that were read and are in open windows: of several declarations, of those with most."""
        most: Counter[Partition] = Counter()
        for (topic, partition, _), compared in self.windows.items():
            most |= Counter({(topic, partition): compared.open.total()})
        return most.total()

    def of(self, topics: Collection[str]) -> list[PartitionAudit]:
        return [ledger for ledger in self.partitions if ledger.topic in topics]

    def streams_of(self, problem: Problem) -> tuple[str, ...]:
        """The streams that a problem is about. Where that is not known, these are all that use its topic:
        none of them may look sound."""
        return problem.streams or self._owners_of(problem.topic)

    def _owners_of(self, topic: str) -> tuple[str, ...]:
        return self.owners.get(topic.partition("@")[0], ())

    @property
    def streams(self) -> "dict[str, AuditReport]":
        """The part of each stream, by name."""
        names = dict.fromkeys(name for users in self.owners.values() for name in users)
        return {name: self.of_stream(name) for name in names}

    def of_stream(self, name: str) -> "AuditReport":
        """What is about one stream: ledgers of the topics that it alone uses, its problems, and what is
        pending in any of its topics."""
        used = [ledger for ledger in self.partitions if name in self._owners_of(ledger.topic)]
        own = [ledger for ledger in used if len(self._owners_of(ledger.topic)) == 1]
        shared = [ledger for ledger in used if len(self._owners_of(ledger.topic)) > 1]
        elsewhere = [*self.topics, *(problem for ledger in shared for problem in ledger.problems)]
        return AuditReport(
            partitions=own,
            owners={topic: (name,) for topic, users in self.owners.items() if name in users},
            windows={
                windows: compared
                for windows, compared in self.windows.items()
                if name in self._owners_of(windows[0])
            },
            states={
                partition: state
                for partition, state in self.states.items()
                if name in self._owners_of(partition[0])
            },
            pending=[
                part
                for pending in self.pending
                for part in pending.among(lambda partition: name in self._owners_of(partition[0]))
            ],
            topics=[
                *(problem for problem in elsewhere if name in self.streams_of(problem)),
                *(unlisted for ledger in shared for unlisted in ledger.unlisted()),
            ],
            seconds=self.seconds,
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.verdict_as_dict(),
            "closed": self.closed,
            "caught_up": self.caught_up,
            "streams": {name: part.verdict_as_dict() for name, part in self.streams.items()},
            "lost": self.lost,
            "not_compared": {
                "records": self.skipped,
                "since": _text(self.looked_at),
                "windows_since": _text(self.full_at),
                "states_since": _text(self.full_at) if self.states else None,
                "rows_far_behind_the_end_since": _text(self.full_at),
            },
            "erased": self.erased,
            "window_differences": self.window_differences,
            "too_late": self.too_late,
            "in_open_windows": self.in_open_windows,
            "partitions": [ledger.as_dict() for ledger in self.partitions],
            "windows": {
                words_of(windows): {
                    figure: getattr(compared, figure)
                    for figure in (
                        "events",
                        "counted",
                        "open",
                        "too_late",
                        "lost",
                        "window_differences",
                        "cells",
                    )
                }
                for windows, compared in self.windows.items()
            },
            "states": {
                "{}[{}]".format(*partition): state.as_dict()
                for partition, state in self.states.items()
            },
            "seconds": round(self.seconds, 3),
        }

    def verdict_as_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "pending": [pending.as_dict() for pending in self.pending],
            "problem_count": self.problem_count,
            "problems": [
                problem.as_dict() | {"streams": self.streams_of(problem)}
                for problem in self.problems
            ],
        }


def _earliest(times: Iterable[datetime | None]) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
