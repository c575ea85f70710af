"""What a worker makes of a batch, and where it goes: the two interfaces between them.

A worker decides in a pure function, batch in, `Output` out. A sink makes an output durable together
with the positions it came from: in one Kafka transaction or in one PostgreSQL transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple, Protocol

from streamflow.errors import ErrorCode
from streamflow.records import Gap, Log, Origin, OutRecord, Position, Record

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one poll.

    Attributes:
        records: in the order of their offsets within each partition, partitions interleaved.
        positions: where each partition that moved now stands; without records, past markers.
        now: the worker's monotonic clock, in seconds.
        gaps: what the positions pass that cannot be read any more.
    """

    records: Sequence[Record]
    positions: list[Position]
    now: float = 0.0
    gaps: Sequence[Gap] = ()


class Replay(NamedTuple):
    """A row of a record that says it was replayed. Headers are untrusted, so whether it was is for
    the database to know: it has both forms of the row.

    Attributes:
        line: COPY text with the claimed origin as identity.
        own_line: COPY text with the record's own position as identity.
        origin: the claimed origin.
        record: the record behind it.
    """

    line: bytes
    own_line: bytes
    origin: Origin
    record: Record


class Count(NamedTuple):
    """How many records of a partition a batch held, and how many of them were rejected."""

    records: int
    rejected: int


@dataclass(slots=True, kw_only=True)
class Output:
    """What one batch became.

    Attributes:
        positions: where to go on from, per partition that the batch moved.
        records: to be produced.
        rows: to be loaded, by table; a line of COPY text each.
        sources: the record behind each row, by table, in the order of `rows`.
        replays: rows of records that claim to be replayed, by table.
        claims: rows about records that claim to be replayed, by table; where they were not, a row
            is about the record itself.
        days: the days (UTC) of the events in `rows` and `replays`, by table.
        counts: of the records read, per partition; kept beside the positions.
        rejected: index in the batch, and cause, of each refused record.
        gaps: what the positions pass that was lost; filled in by whoever read the batch.
        logs: which log the positions count in; filled in by whoever read the batch.
    """

    positions: list[Position]
    records: list[OutRecord] = field(default_factory=list)
    rows: dict[str, list[bytes]] = field(default_factory=dict)
    sources: dict[str, list[Record]] = field(default_factory=dict)
    replays: dict[str, list[Replay]] = field(default_factory=dict)
    claims: dict[str, list[Replay]] = field(default_factory=dict)
    days: dict[str, set[date]] = field(default_factory=dict)
    counts: dict[Partition, Count] = field(default_factory=dict)
    rejected: list[tuple[int, ErrorCode]] = field(default_factory=list)
    gaps: Sequence[Gap] = ()
    logs: Mapping[Partition, Log] = field(default_factory=dict)


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
        """Positions that became durable elsewhere since the last call, for Kafka to be told of."""
        ...

    def close(self) -> None:
        """Gives up what is not durable, and all connections."""
        ...
