"""A worker's job, as the runtime sees it: a pure function of batches, and its partitions' state."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from confluent_kafka import OFFSET_BEGINNING, Consumer
from confluent_kafka.admin import AdminClient

from streamflow.flow import Batch, Limit, Output, Partition, Sink
from streamflow.records import Position


class LeftOut(NamedTuple):
    """Topics that a worker does not read for now, since a stream cannot run and stops no other (G14)."""

    missing: frozenset[str] = frozenset()  # those of streams that lack one of theirs
    unloadable: frozenset[str] = (
        frozenset()
    )  # of events without a table; what is derived from them has one
    reasons: tuple[tuple[str, str, str], ...] = ()  # to be logged: event, stream and why


class Job(Protocol):
    name: str
    group: str
    topics: list[str]  # without those that are left out
    assets: Mapping[str, str]  # what Dagster calls the topics or tables that it writes
    sources: Sequence[str]  # topics whose ids it must know, read by it or not
    batch_size: int
    linger: float  # seconds to fill a batch
    prefetch_kb: int  # what the client reads ahead, at most; more only costs memory

    def assign(self, positions: Mapping[Partition, Position | None]) -> dict[Partition, int]:
        """Takes partitions over; returns the offset to read each from."""
        ...

    def revoke(self, partitions: Sequence[Partition]) -> None: ...

    def process(self, batch: Batch) -> Output | None:
        """What the batch becomes; None for nothing to commit. Called with empty batches too."""
        ...

    def finish(self, batch: Batch) -> Output | None:
        """What is to be committed before a clean stop; `batch` is empty."""
        ...


# Takes the limit of refused records, too; None for none.
SinkFactory = Callable[[Consumer, Limit | None], Sink]
AskLeftOut = Callable[[AdminClient], LeftOut]


class PlainJob:
    """A job without state of its own: reads on from what was committed."""

    assets: Mapping[str, str] = {}
    sources: Sequence[str] = ()
    batch_size = 10_000
    linger = 0.05
    prefetch_kb = 8_192

    def assign(self, positions: Mapping[Partition, Position | None]) -> dict[Partition, int]:
        return {
            partition: OFFSET_BEGINNING if position is None else position.offset
            for partition, position in positions.items()
        }

    def revoke(self, partitions: Sequence[Partition]) -> None: ...

    def finish(self, _batch: Batch) -> Output | None:
        return None
