"""Drain: loads topics up to where they end now, with the loader's own code, instead of its worker or
beside it (G1).

It joins no group and takes no partition from a member. The sink keeps two loaders apart: a batch whose
partitions another one has moved is dropped (`Fenced`), and the positions are read again. While another
loader is visibly at work, the drain waits instead of racing it.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from typing import Final

import structlog
from confluent_kafka import KafkaException, TopicPartition

from streamflow.calls import call
from streamflow.errors import Fenced, StreamFlowError
from streamflow.flow import Batch, Output, Partition
from streamflow.kafka import clients, continuity, offsets
from streamflow.kafka.reader import Reader
from streamflow.kafka.topic_ids import TopicWatch
from streamflow.lag.measure import loader_lags
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.signing_key import SigningKey
from streamflow.postgres.sink.positions import loaded
from streamflow.records import Gap, Log, Position, Record, position_of
from streamflow.registry import hasher_for
from streamflow.settings import Settings
from streamflow.stream import Stream
from streaming_workers.launch import loader_sink, unfit_windows
from streaming_workers.loader import Loader
from streaming_workers.runtime.batch_metrics import report_gaps
from streaming_workers.runtime.breaker import Breaker

log = structlog.get_logger()

LIMIT: Final = 600.0  # seconds that a drain may take
PATIENCE: Final = 1.0  # seconds that positions must stand still before they are taken over
_TURN: Final = 0.2  # seconds to fill a batch
_POLL: Final = 0.1  # seconds between checks of another loader
_SILENCE: Final = 15.0  # seconds without anything from the broker


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    records: int  # read and kept by this drain
    rows: int
    duplicates: int  # records recognised as duplicates, so not stored again
    rejected: int  # records that are no events; the validator dead-letters them
    refused: int  # rows that the database refused, each a dead letter now
    by_others: int  # records that another loader handled meanwhile
    fenced: int  # batches dropped because another loader was faster
    seconds: float
    lag: int  # offsets that were not loaded at the end, of what had been appended by then

    @property
    def rate(self) -> float:
        return self.records / self.seconds if self.seconds else 0.0


def drain(
    settings: Settings,
    streams: Sequence[Stream],
    topics: Iterable[str],
    *,
    limit: float = LIMIT,
    patience: float = PATIENCE,
    ends: Mapping[Partition, int] | None = None,
    accepting: Mapping[str, str] | None = None,
) -> Drained:
    """Loads what the topics hold now into their tables. Safe beside any number of loaders.

    Args:
        settings: where broker and database are.
        streams: all streams, since a record of one topic can become a dead letter in another.
        topics: names as on the broker.
        limit: seconds after which it stops, however much is left (`Drained.lag`).
        patience: seconds that another loader's positions must stand still before it is overtaken.
        ends: offsets at which to stop before the end of a partition.
        accepting: the old ids of recreated topics whose rows are about to be set aside. What was
            derived from them is loaded beside those rows.

    Raises:
        Unavailable: broker or database does not answer. Nothing is lost; drain again.
        CircuitOpen: nearly everything is refused.
        OffsetsReused: a topic was recreated, or a log truncated.
        ConfigurationError: the database refuses.
    """
    with closing(_Drain(settings, streams, limit, patience, accepting or {})) as one:
        return one.run(sorted(topics), ends or {})


class _Drain:
    def __init__(
        self,
        settings: Settings,
        streams: Sequence[Stream],
        limit: float,
        patience: float,
        accepting: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._streams = streams
        self._accepting = accepting
        self._patience = patience
        self._began = time.monotonic()
        self._deadline = self._began + limit
        self._loader = Loader(
            settings, streams, hasher_for(settings, streams), SigningKey(settings).signer
        )
        self._loader.unfit_windows = unfit_windows(settings, streams)
        self._admin = clients.admin(settings)
        self._topics = TopicWatch(self._admin)
        self._gaps: dict[Partition, Gap] = {}
        self._logs: dict[Partition, Log] = {}
        self._reader = Reader(settings, self._loader.group)
        self._sink = loader_sink(
            settings, self._loader, clients.producer(settings), Breaker.of(settings)
        )
        self._pending: Output | None = None
        self._records = self._rejected = self._fenced = 0

    def run(self, topics: Sequence[str], ends: Mapping[Partition, int]) -> Drained:
        """Loads, however often it is fenced, until all is loaded or the time is over."""
        bounds = {
            partition: (first, min(end, ends.get(partition, end)))
            for partition, (first, end) in offsets.bounds(
                self._admin, offsets.partitions_of(self._admin, topics)
            ).items()
        }
        before = self._read_by_all(bounds)
        while behind := self._watch(bounds):
            if time.monotonic() > self._deadline:
                break
            try:
                self._load({partition: bounds[partition] for partition in behind})
            except Fenced as error:
                self._fenced += 1
                # A new consumer: one that is assigned again may keep records of the old assignment.
                self._reader.close()
                self._reader = Reader(self._settings, self._loader.group)
                log.info("another loader was faster", why=str(error))
            finally:
                self._pending = None
        self._commit_for_display()
        done = self._summary(bounds, before)
        log.info("drained", topics=topics, records=done.records, rows=done.rows, lag=done.lag)
        return done

    def _watch(self, bounds: Mapping[Partition, tuple[int, int]]) -> list[Partition]:
        """The partitions that are behind, once no other loader is moving them."""
        known: dict[Partition, int] = {}
        still_since = time.monotonic()
        with self._session() as connection:
            while True:
                now = time.monotonic()
                done = loaded(connection, self._loader.group)
                positions = {
                    partition: done[partition].next_offset if partition in done else 0
                    for partition in bounds
                }
                behind = [
                    partition
                    for partition, (first, end) in bounds.items()
                    if first < end and positions[partition] < end
                ]
                if not behind or now > self._deadline:
                    return behind
                if known and any(positions[one] != known[one] for one in behind):
                    still_since = now
                known = positions
                if now - still_since >= self._patience:
                    return behind
                time.sleep(min(_POLL, self._patience))

    def _session(self) -> AbstractContextManager[Connection]:
        return session(self._settings, "drain", statement_timeout=10)

    def _load(self, bounds: Mapping[Partition, tuple[int, int]]) -> None:
        """Loads partitions from their positions in the database up to their ends; `Fenced` if another
        loader moved one of them."""
        read_to = self._assign(bounds)
        self._pass_gaps()
        while any(read_to[partition] < end for partition, (_, end) in bounds.items()):
            records, _ = self._reader.read(self._loader.batch_size, _TURN)
            self._reader.require_sound(_SILENCE)
            batch = self._batch(records, read_to, bounds)
            if batch.positions:
                self._commit(batch)
            if time.monotonic() > self._deadline:
                break
            complete = [one for one, (_, end) in bounds.items() if read_to[one] >= end]
            with clients.kafka_errors():
                self._reader.consumer.pause([TopicPartition(*partition) for partition in complete])
        self._sink.flush()
        self._count()

    def _assign(self, bounds: Mapping[Partition, tuple[int, int]]) -> dict[Partition, int]:
        self._compare_sources({topic for topic, _ in bounds})
        positions, self._gaps, self._logs = continuity.take_over(
            self._settings,
            self._loader.group,
            self._reader.consumer,
            self._topics,
            self._sink.resume(list(bounds)),
        )
        starts = {
            partition: position or Position(*partition, bounds[partition][0])
            for partition, position in positions.items()
        }
        self._reader.assign([continuity.as_start(start) for start in starts.values()])
        return {partition: start.offset for partition, start in starts.items()}

    def _compare_sources(self, topics: Collection[str]) -> None:
        """Records the ids of the topics that records of these were derived from."""
        sources = {
            stream.topic
            for stream in self._streams
            if not set(stream.topic_names).isdisjoint(topics)
        }
        others = sorted(sources.difference(topics, self._accepting))
        if others:
            self._topics.take_over(self._sink.resume([(topic, 0) for topic in others]))

    def _pass_gaps(self) -> None:
        """Moves the positions past lost records, and reports these once that is durable."""
        gaps = list(self._gaps.values())
        if gaps:
            passed = [Position(gap.topic, gap.partition, gap.end) for gap in gaps]
            self._sink.commit(Output(positions=passed, gaps=gaps, logs=self._logs))
            self._sink.flush()
            report_gaps(gaps)

    def _batch(
        self,
        records: list[Record],
        read_to: dict[Partition, int],
        bounds: Mapping[Partition, tuple[int, int]],
    ) -> Batch:
        """The records before the ends, and the new positions: behind the last record,
        or behind the transaction markers that end it."""
        positions = []
        for partition, (_, end) in bounds.items():
            offset = min(self._reader.read_to[partition], end)
            if offset > read_to[partition]:
                read_to[partition] = offset
                positions.append(Position(*partition, offset))
        wanted = []
        for record in records:
            topic, number, offset = position_of(record)
            if offset < bounds[topic, number][1]:
                wanted.append(record)
        ids = {**self._topics.ids, **self._accepting}
        return Batch(wanted, positions, time.monotonic(), topic_ids=ids)

    def _commit(self, batch: Batch) -> None:
        self._topics.ask()
        output = self._loader.process(batch)
        with clients.kafka_errors():
            read = self._reader.consumer.position(
                [TopicPartition(moved.topic, moved.partition) for moved in batch.positions]
            )
        self._logs = output.logs = offsets.with_epochs(self._logs, read)
        self._topics.check()
        self._sink.commit(output)
        self._count()
        self._pending = output

    def _count(self) -> None:
        """Counts the batch before: it is durable."""
        kept, self._pending = self._pending, None
        if kept is not None:
            self._records += sum(count.records for count in kept.counts.values())
            self._rejected += sum(count.rejected for count in kept.counts.values())

    def _commit_for_display(self) -> None:
        """Commits the group's offsets, for lag displays. Kafka refuses while the group has members:
        then they do it."""
        durable = [
            offsets.as_committed(
                position, self._logs.get((position.topic, position.partition), Log())
            )
            for position in self._sink.take_durable()
        ]
        if durable:
            with suppress(KafkaException), call("consumer.commit", _SILENCE):
                self._reader.consumer.commit(offsets=durable, asynchronous=False)

    def _read_by_all(self, bounds: Mapping[Partition, tuple[int, int]]) -> int:
        with self._session() as connection:
            done = loaded(connection, self._loader.group)
        return sum(done[partition].records for partition in bounds if partition in done)

    def _summary(self, bounds: Mapping[Partition, tuple[int, int]], before: int) -> Drained:
        counters = self._sink.counters
        by_all = self._read_by_all(bounds) - before
        topics = sorted({topic for topic, _ in bounds})
        with self._session() as connection:
            lags = loader_lags(self._admin, connection, self._loader.group, topics)
        return Drained(
            records=self._records,
            rows=counters.rows,
            duplicates=counters.duplicates,
            rejected=self._rejected,
            refused=counters.refused,
            by_others=max(0, by_all - self._records),
            fenced=self._fenced,
            seconds=time.monotonic() - self._began,
            lag=sum(lags.values()),
        )

    def close(self) -> None:
        self._sink.close()
        with suppress(KafkaException, RuntimeError, StreamFlowError):
            self._reader.close()
