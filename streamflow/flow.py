"""What a worker makes of a batch, and the sink that keeps it.

A worker is a pure function, batch in, `Output` out. A sink makes an output durable together with the
positions it came from: in one Kafka or in one PostgreSQL transaction.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from typing import NamedTuple, Protocol

from streamflow.errors import ErrorCode
from streamflow.records import Gap, Log, Origin, OutRecord, Position, Record, Rejection

Partition = tuple[str, int]


class PartitionRun(NamedTuple):
    """Records of a partition that follow each other in a batch."""

    topic: str
    partition: int
    start: int  # index of the first
    end: int  # index after the last


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one poll, in the order of their offsets within each partition."""

    records: Sequence[Record]
    # The new position of each partition that moved; also past transaction markers alone.
    positions: list[Position]
    now: float = 0.0  # seconds on the worker's monotonic clock
    gaps: Sequence[Gap] = ()  # what the positions pass because it is gone
    # Ids (KIP-516) of the records' topics, and of those that derived records among them come from;
    # empty where the broker knows no ids.
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    runs: Sequence[PartitionRun] = ()  # of all the records, in their order

    def __post_init__(self) -> None:
        if not self.runs:
            object.__setattr__(self, "runs", runs_of(self.records))


def runs_of(records: Sequence[Record]) -> list[PartitionRun]:
    """The records in runs of one partition. Raises ValueError for a record that was never in a log."""
    runs, start = [], 0
    # Twice as fast as `methodcaller`.
    topics = [record.topic() for record in records]
    partitions = [record.partition() for record in records]
    for (topic, partition), run in groupby(zip(topics, partitions, strict=True)):
        if topic is None or partition is None:
            raise ValueError("a record that was not consumed has no position")
        end = start + sum(1 for _ in run)
        runs.append(PartitionRun(topic, partition, start, end))
        start = end
    return runs


class Replayed(NamedTuple):
    """What the replay records say of a record that a replay sent."""

    origin: Origin  # the event that it is
    attempt: int  # how often that event had been replayed by then


class ReplayClaim(NamedTuple):
    """A record that claims to be a replay, or to be derived from one. Headers are untrusted: only the
    replay records in the database prove the claim."""

    record: Record
    # Where a replay would have sent it: its own position, or that of what it was derived from.
    sent: Origin
    line: Callable[[Replayed], bytes | Rejection]  # COPY text or why there is none, if proved
    otherwise: bytes | Rejection


class Count(NamedTuple):
    """How many records of a partition a batch held, and how many of them were rejected."""

    records: int
    rejected: int


@dataclass(slots=True)
class TableRows:
    """What a batch has for one table: lines of COPY text, or rows in COPY's binary format."""

    rows: list[bytes] = field(default_factory=list)
    sources: list[Record] = field(default_factory=list)  # the record behind each row
    # Records that become rows once the database has settled whether they are replays.
    claims: list[ReplayClaim] = field(default_factory=list)
    holds_events: bool = False  # the table is that of a stream's own events
    days: set[date] = field(default_factory=set)  # in UTC, of what is in `rows` and `claims`
    # Makes a line of a binary row; None if `rows` are lines.
    to_line: Callable[[bytes], bytes] | None = None

    @property
    def is_binary(self) -> bool:
        return self.to_line is not None

    @property
    def lines(self) -> list[bytes]:
        """The rows as COPY text. Binary ones become text for good."""
        if self.to_line is not None:
            self.rows, self.to_line = [*map(self.to_line, self.rows)], None
        return self.rows

    def add(self, line: bytes, source: Record) -> None:
        """Adds a line of COPY text."""
        self.lines.append(line)
        self.sources.append(source)

    def add_binary(
        self, rows: Sequence[bytes], sources: Sequence[Record], to_line: Callable[[bytes], bytes]
    ) -> None:
        """Adds binary rows: as text, if there is text already."""
        if not self.rows:
            self.to_line = to_line
        self.rows += rows if self.is_binary else map(to_line, rows)
        self.sources += sources


@dataclass(slots=True, kw_only=True)
class Output:
    """What one batch became. The reader of the batch sets `gaps` and `logs`."""

    positions: list[Position]  # the next offset of each partition that the batch moved
    records: list[OutRecord] = field(default_factory=list)  # to be produced
    tables: defaultdict[str, TableRows] = field(default_factory=lambda: defaultdict(TableRows))
    # By topic, how many records are not ours; each is a row all the same.
    foreign: Counter[str] = field(default_factory=Counter)
    counts: dict[Partition, Count] = field(default_factory=dict)  # kept beside the positions
    # Index in the batch, and cause, of each rejected record.
    rejected: list[tuple[int, ErrorCode]] = field(default_factory=list)
    # Indexes of those among them that are no events but derived records: no producer's fault.
    derived: set[int] = field(default_factory=set)
    batch: Sequence[Record] = ()  # the records that it was made of
    runs: Sequence[PartitionRun] = ()  # of these
    gaps: Sequence[Gap] = ()  # what the positions pass because it was lost
    logs: Mapping[Partition, Log] = field(default_factory=dict)  # that the positions count in
    # What the sink does around the transaction that keeps it: a span, where traces are on.
    around: Callable[[], AbstractContextManager[object]] = nullcontext


class Limit(Protocol):
    """How many records may be refused. A sink asks before it commits a batch, and before it produces the
    dead letters of it."""

    def check(
        self,
        records: Sequence[Record],
        rejected: Sequence[int],
        refused: Sequence[int] = (),
        runs: Sequence[PartitionRun] = (),
    ) -> None:
        """Looks at a batch, of which these events were rejected by their contract, and these records
        cannot be kept for another reason; indexes are ascending. `runs` are those of its records, if the
        caller knows them. Raises CircuitOpen if they are too many: the batch must not be committed."""

    def kept(self) -> None:
        """The batch that was checked last was committed."""


class Sink(Protocol):
    """Keeps outputs, exactly once."""

    def resume(self, partitions: Sequence[Partition]) -> Mapping[Partition, Position | None]:
        """Where each partition is to be read from; None where nothing was kept yet."""

    def commit(self, output: Output) -> None:
        """Keeps an output and its positions, both or neither. May return before that is done: an error of
        an earlier commit is raised by the next call.

        Raises:
            Unavailable: the dependency does not answer; nothing, or all, was kept.
            CircuitOpen: too many records were refused; nothing was kept.
            Fenced: another worker owns a partition now; nothing was kept.
        """

    def flush(self) -> None:
        """Returns when everything committed is durable. Raises as `commit` does."""

    @property
    def in_flight(self) -> int:
        """How many committed outputs are not known to be durable yet."""

    def take_durable(self) -> list[Position]:
        """Positions that became durable elsewhere since the last call, to be committed for display."""

    def close(self) -> None:
        """Drops what is not durable, and closes all connections."""
