"""How far each consumer group is behind: positions, ends and members, read without joining a group.

Lag is counted in offsets, transaction markers included, as Kafka's own tools count it.
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streamflow.errors import StreamFlowError, Unavailable
from streamflow.flow import Partition
from streamflow.kafka import offsets
from streamflow.kafka.clients import admin, kafka_errors
from streamflow.postgres.connections import Connection
from streamflow.postgres.sink.positions import loaded
from streamflow.settings import GROUPS, Settings
from streamflow.stream import Stream, reads

Bounds = Mapping[Partition, tuple[int, int]]

_TIMEOUT: Final = 5.0  # seconds


def offsets_behind(position: int | None, bounds: tuple[int, int]) -> int:
    """Offsets between a group's position and a partition's end.

    Without a position the group starts at the first offset. A position before the first offset counts
    what retention removed, too: the group has yet to record that gap.
    """
    first, end = bounds
    return max(0, end - (first if position is None else position))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerGroup:
    """A worker's consumer group at one moment.

    Attributes:
        state: as Kafka calls it.
        owned: partitions assigned to a member.
        positions: what it would read next, by partition; empty where nothing was ever committed.
    """

    name: str
    worker: str
    topics: frozenset[str] = frozenset()
    state: str = "unknown"
    members: int = 0
    owned: frozenset[Partition] = frozenset()
    positions: Mapping[Partition, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LagSample:
    """Topics and groups at one moment.

    Attributes:
        bounds: first offset and last stable offset of each partition.
        missing: topics that do not exist.
    """

    bounds: Bounds
    groups: Mapping[str, ConsumerGroup]
    brokers: int
    missing: tuple[str, ...]

    def end_sum(self, topic: str) -> int:
        return sum(end for (name, _), (_, end) in self.bounds.items() if name == topic)

    def lags(self, group: str) -> dict[Partition, int]:
        positions = self.groups[group].positions
        return {
            partition: offsets_behind(position, self.bounds[partition])
            for partition, position in positions.items()
        }

    def lag(self, group: str) -> int | None:
        """None where the group never committed anything."""
        if self.groups[group].topics and not self.groups[group].positions:
            return None
        return sum(self.lags(group).values())


class LagReader:
    """Measures the lag of the workers' groups; keeps its clients between measurements. Thread-safe.
    Topics and members, which rarely change, are read again after `refresh` seconds."""

    name = "Kafka"

    def __init__(
        self,
        settings: Settings,
        streams: Sequence[Stream],
        workers: Iterable[str] = GROUPS,
        refresh: float = 0.0,
    ) -> None:
        self._settings = settings
        self._topics = reads("loader", streams)
        self._workers = {
            settings.group(worker): (worker, frozenset(reads(worker, streams)))
            for worker in workers
        }
        self._refresh = refresh
        self._guard = threading.RLock()
        self._client: AdminClient | None = None
        self._readers: dict[str, offsets.GroupOffsets] = {}
        self._partitions: list[Partition] = []
        self._brokers = 0
        self._described: dict[str, ConsumerGroup] = {}
        self._described_at = float("-inf")

    def __call__(self, loader_positions: Mapping[Partition, int] | None = None) -> LagSample:
        """Measures. Without the loader's positions from the database, by those that it commits to Kafka
        for display.

        Raises:
            Unavailable: the broker does not answer.
        """
        with self._guard:
            try:
                return self._measure(loader_positions)
            except StreamFlowError:
                # New clients find a broker that is back sooner than old ones that back off.
                self.close()
                raise

    def close(self) -> None:
        """Closes the connections; the next measurement opens them again."""
        with self._guard:
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()
            self._client = None
            self._described_at = float("-inf")

    def _measure(self, loader_positions: Mapping[Partition, int] | None) -> LagSample:
        if self._client is None:
            self._client = admin(self._settings)
        # All connect at the same time, while the rest is asked.
        for name, (worker, _) in self._workers.items():
            if name not in self._readers and (worker != "loader" or loader_positions is None):
                self._readers[name] = offsets.GroupOffsets(self._settings, name)
        if time.monotonic() - self._described_at >= self._refresh:
            self._describe(self._client)
            self._described_at = time.monotonic()
        bounds = offsets.bounds(self._client, self._partitions)
        groups = {}
        for name, (worker, topics) in self._workers.items():
            own = {partition: bounds[partition] for partition in bounds if partition[0] in topics}
            given = loader_positions if worker == "loader" else None
            positions = self._committed(name, own) if given is None else given
            # A group that has begun starts its other partitions at the first offset. The bridge does
            # not: it starts at the end.
            if given is not None or (positions and worker != "bridge"):
                positions = {
                    partition: positions.get(partition, first)
                    for partition, (first, _) in own.items()
                }
            groups[name] = replace(self._described[name], topics=topics, positions=positions)
        present = {topic for topic, _ in self._partitions}
        missing = tuple(topic for topic in self._topics if topic not in present)
        return LagSample(bounds, groups, self._brokers, missing)

    def _committed(self, group: str, bounds: Bounds) -> Mapping[Partition, int]:
        return {
            partition: offsets.read_position(position)
            for partition, position in self._readers[group].read(bounds).items()
        }

    def _describe(self, client: AdminClient) -> None:
        with kafka_errors():
            metadata = client.list_topics(timeout=_TIMEOUT)
            futures = client.describe_consumer_groups(list(self._workers), request_timeout=_TIMEOUT)
            self._described = {
                name: _group_of(name, self._workers[name][0], future)
                for name, future in futures.items()
            }
        if not metadata.brokers:
            raise Unavailable("Kafka: no broker is up")
        self._brokers = len(metadata.brokers)
        self._partitions = [
            (topic, partition)
            for topic in self._topics
            if topic in metadata.topics
            for partition in sorted(metadata.topics[topic].partitions)
        ]


def _group_of(name: str, worker: str, future: "Future[Any]") -> ConsumerGroup:
    try:
        description = future.result(_TIMEOUT)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return ConsumerGroup(name=name, worker=worker, state="absent")
        raise
    members = description.members or []
    state = description.state.name
    return ConsumerGroup(
        name=name,
        worker=worker,
        state="absent" if state == "DEAD" else state.lower().replace("_", " "),
        members=len(members),
        owned=frozenset(
            (assigned.topic, assigned.partition)
            for member in members
            if member.assignment is not None
            for assigned in member.assignment.topic_partitions
        ),
    )


def group_lags(settings: Settings, streams: Sequence[Stream]) -> dict[str, int | None]:
    """Lag of each group, by its name without prefix; None where it is unknown."""
    with closing(LagReader(settings, streams)) as reader, suppress(StreamFlowError):
        sample = reader()
        return {name: sample.lag(settings.group(worker)) for worker, name in GROUPS.items()}
    return dict.fromkeys(GROUPS.values())


def loader_positions(connection: Connection, group: str) -> dict[Partition, int]:
    """The loader's positions, as its rows were committed with them."""
    return {
        partition: progress.next_offset for partition, progress in loaded(connection, group).items()
    }


def loader_lags(
    client: AdminClient, connection: Connection, group: str, topics: Iterable[str]
) -> dict[Partition, int]:
    """Lag of the loader by partition, by its positions in the database.

    Raises:
        Unavailable: the broker does not answer.
    """
    positions = loader_positions(connection, group)
    bounds = offsets.bounds(client, offsets.partitions_of(client, topics))
    return {
        partition: offsets_behind(positions.get(partition), ends)
        for partition, ends in bounds.items()
    }
