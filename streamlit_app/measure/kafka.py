"""What the broker says: where topics end, how far groups are, who is in them.

One admin client for the whole server. Ends and positions every second, members and the list of
topics every few seconds.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streamflow.errors import StreamFlowError, Unavailable
from streamflow.flow import Partition
from streamflow.kafka import offsets
from streamflow.kafka.clients import admin, kafka_errors
from streamflow.settings import Settings

_TIMEOUT: Final = 5.0  # seconds
_SELDOM: Final = 5.0  # seconds between two looks at what changes seldom


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group.

    Attributes:
        state: as Kafka calls it.
        members: how many there are.
        owned: the partitions that a member has.
        positions: what it would read next, by partition.
    """

    name: str
    state: str = "unknown"
    members: int = 0
    owned: frozenset[Partition] = frozenset()
    positions: Mapping[Partition, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KafkaSample:
    """The broker at one moment.

    Attributes:
        bounds: first offset and last stable offset of each partition.
        groups: by name.
        brokers: how many there are.
        missing: declared topics that the broker has not.
    """

    bounds: Mapping[Partition, tuple[int, int]]
    groups: Mapping[str, Group]
    brokers: int
    missing: tuple[str, ...]

    def end_sum(self, topic: str) -> int:
        """The sum of a topic's ends."""
        return sum(end for (name, _), (_, end) in self.bounds.items() if name == topic)


class KafkaSource:
    """Asks the broker.

    Args:
        settings: where it is.
        topics: to look at.
        groups: the topics that each group reads, by group.
    """

    name = "Kafka"

    def __init__(
        self, settings: Settings, topics: Sequence[str], groups: Mapping[str, Sequence[str]]
    ) -> None:
        self._settings = settings
        self._topics = tuple(topics)
        self._groups = {name: frozenset(read) for name, read in groups.items()}
        self._client: AdminClient | None = None
        self._readers: dict[str, offsets.GroupOffsets] = {}
        self._partitions: list[Partition] = []
        self._brokers = 0
        self._members: dict[str, Group] = {}
        self._asked_at = float("-inf")

    def __call__(self) -> KafkaSample:
        """Measures.

        Raises:
            Unavailable: the broker does not answer.
        """
        try:
            return self._measure()
        except StreamFlowError:
            # New clients find a broker that is back sooner than old ones that back off.
            self.close()
            raise

    def _measure(self) -> KafkaSample:
        if self._client is None:
            self._client = admin(self._settings)
        if time.monotonic() - self._asked_at > _SELDOM:
            self._look_around(self._client)
            self._asked_at = time.monotonic()
        bounds = offsets.bounds(self._client, self._partitions)
        groups = {}
        for name, topics in self._groups.items():
            if name not in self._readers:
                self._readers[name] = offsets.GroupOffsets(self._settings, name)
            wanted = [partition for partition in bounds if partition[0] in topics]
            positions = {
                partition: offsets.read_position(position)
                for partition, position in self._readers[name].read(wanted).items()
            }
            known = self._members.get(name, Group(name))
            groups[name] = Group(name, known.state, known.members, known.owned, positions)
        present = {topic for topic, _ in self._partitions}
        missing = tuple(topic for topic in self._topics if topic not in present)
        return KafkaSample(bounds, groups, self._brokers, missing)

    def close(self) -> None:
        """Closes the connections."""
        for each in self._readers.values():
            each.close()
        self._readers.clear()
        self._client = None
        self._asked_at = float("-inf")

    def _look_around(self, client: AdminClient) -> None:
        with kafka_errors():
            metadata = client.list_topics(timeout=_TIMEOUT)
            futures = client.describe_consumer_groups(list(self._groups), request_timeout=_TIMEOUT)
            self._members = {name: _described(name, each) for name, each in futures.items()}
        if not metadata.brokers:
            raise Unavailable("Kafka: no broker is up")
        self._brokers = len(metadata.brokers)
        self._partitions = [
            (topic, partition)
            for topic in self._topics
            if topic in metadata.topics
            for partition in sorted(metadata.topics[topic].partitions)
        ]


def _described(name: str, future: "Future[Any]") -> Group:
    try:
        found = future.result(_TIMEOUT)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return Group(name, "absent")
        raise
    members = found.members or []
    owned = frozenset(
        (each.topic, each.partition)
        for member in members
        if member.assignment is not None
        for each in member.assignment.topic_partitions
    )
    state = "absent" if found.state.name == "DEAD" else found.state.name.lower().replace("_", " ")
    return Group(name, state, len(members), owned)
