"""Where topics begin and end, what a group has committed, and its members. All raise `Unavailable` where
the broker does not answer."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo, MemberDescription, OffsetSpec

from streamflow.calls import SLACK, call
from streamflow.errors import Unavailable
from streamflow.flow import Partition
from streamflow.kafka.clients import (
    assigned_consumer,
    kafka_errors,
    retry_while_unavailable,
    translated,
)
from streamflow.kafka.position_metadata import LostRange, PositionMetadata
from streamflow.records import Gap, Log, Position
from streamflow.settings import Settings
from streamflow.windows.progress import Progress

_TIMEOUT = 10.0  # seconds
_DESCRIBE_TIMEOUT = 5.0  # seconds


def partitions_of(client: AdminClient | Consumer, topics: Iterable[str]) -> list[Partition]:
    """The partitions of topics; a topic that does not exist has none."""
    with kafka_errors(), call("list_topics", _TIMEOUT + SLACK):
        known = client.list_topics(timeout=_TIMEOUT).topics
    return [
        (topic, partition)
        for topic in topics
        if topic in known
        for partition in sorted(known[topic].partitions)
    ]


def require_partitions(client: AdminClient | Consumer, topics: Sequence[str]) -> list[Partition]:
    """The partitions of topics; `Unavailable` where one does not exist."""
    partitions = partitions_of(client, topics)
    missing = sorted(set(topics).difference(topic for topic, _ in partitions))
    if missing:
        raise Unavailable(f"topic {', '.join(missing)} does not exist: run `streamflow init`")
    return partitions


@retry_while_unavailable
def bounds(
    client: AdminClient, partitions: Sequence[Partition]
) -> dict[Partition, tuple[int, int]]:
    """First offset, and last stable offset: where a reader of committed records ends."""
    first = _offsets(client, partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
    last = _offsets(client, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
    return {partition: (first[partition], last[partition]) for partition in partitions}


@retry_while_unavailable
def high_watermarks(client: AdminClient, partitions: Sequence[Partition]) -> dict[Partition, int]:
    """Where partitions end, records of open transactions included. The markers of a committed transaction
    reach its partitions one after the other: a last stable offset may lie before what a committed
    position says was produced, the high watermark does not."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    return _offsets(client, partitions, latest, IsolationLevel.READ_UNCOMMITTED)


@retry_while_unavailable
def last_appended(client: AdminClient, partitions: Sequence[Partition]) -> dict[Partition, int]:
    """The largest time stamp of a partition's records, in milliseconds since the epoch: that of the
    latest, where the broker stamps them. Nothing for a partition without records."""
    spec = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]
    listed = _listed(client, partitions, spec)
    return {partition: info.timestamp for partition, info in listed.items() if info.timestamp >= 0}


@retry_while_unavailable
def offsets_before(client: AdminClient, partitions: Sequence[Partition], moment: int) -> int:
    """How many offsets the partitions hold from before a moment, in milliseconds since the epoch."""
    since = OffsetSpec.for_timestamp(moment)
    listed = _listed(client, partitions, since)
    return sum(
        # Without a later record, there is no such offset.
        (listed[partition].offset if listed[partition].offset >= 0 else end) - first
        for partition, (first, end) in bounds(client, partitions).items()
    )


def _offsets(
    client: AdminClient,
    partitions: Sequence[Partition],
    spec: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
) -> dict[Partition, int]:
    listed = _listed(client, partitions, spec, isolation)
    for (topic, number), info in listed.items():
        # librdkafka's "invalid offset" comes without an error while a leader is being elected.
        if info.offset < 0:
            raise Unavailable(f"Kafka cannot say now where {topic}[{number}] begins and ends")
    return {partition: info.offset for partition, info in listed.items()}


def _listed(
    client: AdminClient,
    partitions: Sequence[Partition],
    spec: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
) -> dict[Partition, ListOffsetsResultInfo]:
    if not partitions:
        return {}
    with kafka_errors():
        futures = client.list_offsets(
            {TopicPartition(*partition): spec for partition in partitions},
            isolation_level=isolation,
            request_timeout=_TIMEOUT,
        )
        try:
            return {partition_of(key): future.result(_TIMEOUT) for key, future in futures.items()}
        except KafkaException as error:
            # librdkafka goes on asking with the leader epoch of its cached metadata (librdkafka#4620).
            if error.args[0].code() == KafkaError.FENCED_LEADER_EPOCH:
                client.list_topics(timeout=_TIMEOUT)
            raise


class GroupOffsets:
    """Reads what a group has committed, without joining it; close it.

    By a consumer, not by the admin client: librdkafka's ListConsumerGroupOffsets kills the process when
    it is called while the group's coordinator moves or is being created (librdkafka#5040).
    """

    def __init__(self, settings: Settings, group: str) -> None:
        # Without waiting for offsets in open transactions: they are not committed.
        self._consumer = assigned_consumer(
            settings, group, **{"isolation.level": "read_uncommitted"}
        )

    def read(self, partitions: Iterable[Partition]) -> dict[Partition, Position]:
        """The committed positions, as the group's workers wrote them; nothing for a partition, or a
        group, that never had one."""
        return {
            partition: committed_position(stored)
            for partition, stored in self.as_stored(partitions).items()
        }

    def as_stored(self, partitions: Iterable[Partition]) -> dict[Partition, TopicPartition]:
        """As `read`, with everything that is kept beside an offset."""
        return {partition_of(stored): stored for stored in self._committed(partitions)}

    def gaps(self, partitions: Iterable[Partition]) -> list[Gap]:
        """What the group's workers passed unread, as they kept it beside their positions."""
        return [
            Gap(stored.topic, stored.partition, *lost)
            for stored in self._committed(partitions)
            for lost in PositionMetadata.parse(stored.metadata).lost
        ]

    @retry_while_unavailable
    def _committed(self, partitions: Iterable[Partition]) -> list[TopicPartition]:
        wanted = [TopicPartition(*partition) for partition in partitions]
        with kafka_errors(), call("consumer.committed", _TIMEOUT + SLACK):
            committed = self._consumer.committed(wanted, timeout=_TIMEOUT) if wanted else []
        for stored in committed:
            if stored.error is not None:
                raise translated(KafkaException(stored.error))
        return [stored for stored in committed if stored.offset >= 0]

    def close(self) -> None:
        with call("consumer.close", _TIMEOUT):
            self._consumer.close()


def committed(
    settings: Settings, group: str, partitions: Iterable[Partition]
) -> dict[Partition, Position]:
    """As `GroupOffsets.read`, once."""
    with closing(GroupOffsets(settings, group)) as reader:
        return reader.read(partitions)


def committed_position(committed: TopicPartition) -> Position:
    """A committed offset as the job that wrote it knows it: with its own text only."""
    metadata = PositionMetadata.parse(committed.metadata)
    log = Log(metadata.topic_id, _known_epoch(committed))
    return Position(*partition_of(committed), committed.offset, metadata.text, log)


def as_committed(position: Position, log: Log, lost: tuple[LostRange, ...] = ()) -> TopicPartition:
    """A position as it is committed: with the log that it counts in, and what was lost."""
    topic, partition, offset, text, _ = position
    metadata = PositionMetadata(text, log.topic_id, lost).encode()
    if log.leader_epoch is None:
        return TopicPartition(topic, partition, offset, metadata)
    return TopicPartition(topic, partition, offset, metadata, log.leader_epoch)


def with_epochs(
    logs: Mapping[Partition, Log], read: Sequence[TopicPartition]
) -> dict[Partition, Log]:
    """Logs with the leader epoch of what was read last of them. It never goes back: what is read again
    lies before the position that the epoch is kept with.

    Args:
        logs: of all partitions that are read.
        read: a consumer's own positions. Their epoch may be that of a transaction marker behind the last
            record; with the record's epoch a broker may reject a position behind the marker as too far.
    """
    updated = dict(logs)
    for position in read:
        partition, epoch = partition_of(position), _known_epoch(position)
        if partition in logs and epoch is not None:
            log = logs[partition]
            updated[partition] = log._replace(leader_epoch=max(epoch, log.leader_epoch or 0))
    return updated


def partition_of(where: TopicPartition) -> Partition:
    return where.topic, where.partition


def _known_epoch(where: TopicPartition) -> int | None:
    epoch = where.leader_epoch
    return None if epoch is None or epoch < 0 else epoch


def read_position(position: Position) -> int:
    """How far a committed position says its worker has read: analytics commits the offset of the oldest
    open window's first event, and keeps its real position beside it."""
    progress = Progress.parse(position.offset, position.metadata)
    return position.offset if progress is None else progress.position


def member_counts(client: AdminClient, groups: Sequence[str]) -> dict[str, int]:
    """How many members each group has; none for a group that does not exist."""
    return {name: len(members) for name, members in _members(client, groups).items()}


def assignments(client: AdminClient, group: str) -> list[frozenset[Partition]]:
    """What each member of a group has, in no order. `Unavailable` where there is no such group."""
    [members] = _members(client, [group]).values()
    return [frozenset(map(partition_of, member.assignment.topic_partitions)) for member in members]


def _members(client: AdminClient, groups: Sequence[str]) -> dict[str, list[MemberDescription]]:
    with kafka_errors():
        futures = client.describe_consumer_groups(list(groups), request_timeout=_DESCRIBE_TIMEOUT)
        return {name: future.result(_DESCRIBE_TIMEOUT).members for name, future in futures.items()}
