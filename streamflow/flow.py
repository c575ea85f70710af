"""What a worker makes of a batch, and the sink that keeps it.

A worker decides in a pure function, batch in, `Output` out. A sink makes an output durable together
with the positions it came from: in one Kafka transaction or in one PostgreSQL transaction.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple, Protocol

from streamflow.errors import ErrorCode
from streamflow.records import Gap, Log, Origin, OutRecord, Position, Record, Rejection

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one poll.

    Attributes:
        records: in the order of their offsets within each partition, partitions interleaved.
        positions: the new position of each partition that moved; without records, past markers.
        now: the worker's monotonic clock, in seconds.
        gaps: what the positions pass that cannot be read any more.
        topic_ids: of the topics of the records (KIP-516), and of those that derived records among
            them come from; empty texts where the broker knows no ids.
    """

    records: Sequence[Record]
    positions: list[Position]
    now: float = 0.0
    gaps: Sequence[Gap] = ()
    topic_ids: Mapping[str, str] = field(default_factory=dict)


class Replayed(NamedTuple):
    """What the replay records say of a record that a replay has sent.

    Attributes:
        origin: the event that it is.
        attempt: how often that was replayed by then.
    """

    origin: Origin
    attempt: int


class ReplayClaim(NamedTuple):
    """A record that claims to be a replay, or to be derived from one. Headers are untrusted: only the
    replay records in the database prove the claim.

    Attributes:
        record: makes the claim.
        sent: position of the record that a replay would have sent: its own, or that of the record
            that it was derived from.
        line: the COPY text of the row, or why there is none, if the claim is proved.
        otherwise: the COPY text, or why there is none, if it is not.
    """

    record: Record
    sent: Origin
    line: Callable[[Replayed], bytes | Rejection]
    otherwise: bytes | Rejection


class Count(NamedTuple):
    """How many records of a partition a batch held, and how many of them were rejected."""

    records: int
    rejected: int


@dataclass(slots=True)
class TableRows:
    """What a batch has for one table.

    Attributes:
        lines: the rows, as lines of COPY text.
        sources: the record behind each line, in the same order.
        claims: records that become rows once the database has settled whether they are replays.
        holds_events: the table is that of a stream's own events.
        days: the days (UTC) of the events in `lines` and `claims`.
    """

    lines: list[bytes] = field(default_factory=list)
    sources: list[Record] = field(default_factory=list)
    claims: list[ReplayClaim] = field(default_factory=list)
    holds_events: bool = False
    days: set[date] = field(default_factory=set)

    def add(self, line: bytes, source: Record) -> None:
        """Adds a row."""
        self.lines.append(line)
        self.sources.append(source)


@dataclass(slots=True, kw_only=True)
class Output:
    """What one batch became.

    Attributes:
        positions: the next offset of each partition that the batch moved.
        records: to be produced.
        tables: the rows to be loaded, by table.
        foreign: by topic, how many records are not ours; each is a row all the same.
        counts: of the records read, by partition; kept beside the positions.
        rejected: index in the batch, and cause, of each rejected record.
        batch: the records that it was made of.
        gaps: what the positions pass that was lost; set by the reader of the batch.
        logs: which log the positions count in; set by the reader of the batch.
    """

    positions: list[Position]
    records: list[OutRecord] = field(default_factory=list)
    tables: defaultdict[str, TableRows] = field(default_factory=lambda: defaultdict(TableRows))
    foreign: Counter[str] = field(default_factory=Counter)
    counts: dict[Partition, Count] = field(default_factory=dict)
    rejected: list[tuple[int, ErrorCode]] = field(default_factory=list)
    batch: Sequence[Record] = ()
    gaps: Sequence[Gap] = ()
    logs: Mapping[Partition, Log] = field(default_factory=dict)


class Limit(Protocol):
    """How many records may be refused. A sink asks before it commits a batch, and before it produces
    the dead letters of it."""

    def check(self, records: Sequence[Record], rejected: Sequence[int]) -> None:
        """Looks at a batch, of which these were refused; indexes are ascending.

        Raises:
            CircuitOpen: they are too many; the batch must not be committed.
        """

    def kept(self) -> None:
        """The batch that was last looked at was committed."""


class Sink(Protocol):
    """Keeps outputs, exactly once."""

    def resume(self, partitions: Sequence[Partition]) -> Mapping[Partition, Position | None]:
        """Where each partition is to be read from; None where nothing was kept yet."""
        ...

    def commit(self, output: Output) -> None:
        """Keeps an output and its positions, both or neither. May return before that is done: an
        error of an earlier commit is raised by the next call.

        Raises:
            Unavailable: the dependency does not answer; nothing, or all, was kept.
            CircuitOpen: too many records were refused; nothing was kept.
            Fenced: another worker owns a partition now; nothing was kept.
        """
        ...

    def flush(self) -> None:
        """Returns when everything committed is durable. Raises as `commit` does."""
        ...

    @property
    def in_flight(self) -> int:
        """How many outputs were committed that are not known to be durable yet."""
        ...

    def take_durable(self) -> list[Position]:
        """Positions that became durable elsewhere since the last call, to be committed for display."""
        ...

    def close(self) -> None:
        """Drops what is not durable, and closes all connections."""
        ...
