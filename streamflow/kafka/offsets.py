"""Where topics begin and end, how far a group has got, and the lag between the two."""

from collections.abc import Iterable, Sequence

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streamflow.errors import StreamFlowError
from streamflow.flow import Partition
from streamflow.kafka.clients import admin, kafka_errors
from streamflow.records import Position
from streamflow.settings import GROUPS, Settings
from streamflow.windows import Progress

_TIMEOUT = 10.0  # seconds


def partitions_of(client: AdminClient, topics: Iterable[str]) -> list[Partition]:
    """The partitions of topics; a topic that does not exist has none.

    Raises:
        Unavailable: the broker does not answer.
    """
    with kafka_errors():
        known = client.list_topics(timeout=_TIMEOUT).topics
    return [
        (topic, partition)
        for topic in topics
        if topic in known
        for partition in sorted(known[topic].partitions)
    ]


def bounds(
    client: AdminClient, partitions: Sequence[Partition]
) -> dict[Partition, tuple[int, int]]:
    """First offset, and last stable offset: where a reader of committed records ends.

    Raises:
        Unavailable: the broker does not answer.
    """
    if not partitions:
        return {}
    ends: list[dict[Partition, int]] = []
    for spec in (OffsetSpec.earliest(), OffsetSpec.latest()):  # type: ignore[no-untyped-call]
        with kafka_errors():
            futures = client.list_offsets(
                {TopicPartition(*partition): spec for partition in partitions},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=_TIMEOUT,
            )
            ends.append(
                {
                    (each.topic, each.partition): future.result(_TIMEOUT).offset
                    for each, future in futures.items()
                }
            )
    return {partition: (ends[0][partition], ends[1][partition]) for partition in partitions}


def committed(client: AdminClient, group: str) -> dict[Partition, Position]:
    """What a group has committed, as its workers wrote it; nothing for an unknown group.

    Raises:
        Unavailable: the broker does not answer.
    """
    with kafka_errors():
        request = ConsumerGroupTopicPartitions(group)
        future = client.list_consumer_group_offsets([request], request_timeout=_TIMEOUT)[group]
        found = future.result(_TIMEOUT).topic_partitions or []
    return {
        (each.topic, each.partition): Position(
            each.topic, each.partition, each.offset, each.metadata or ""
        )
        for each in found
        if each.offset >= 0
    }


def read_position(position: Position) -> int:
    """How far a committed position says its worker has read: analytics commits the offset of the
    oldest open window's first event, and keeps its real position beside it."""
    progress = Progress.parse(position.offset, position.metadata)
    return position.offset if progress is None else progress.position


def group_lags(settings: Settings) -> dict[str, int | None]:
    """Offsets between each group's read position and the end of its topics.

    None where unknown, or where nothing was ever committed. Counted in offsets, transaction markers
    included.
    """
    client = admin(settings)
    lags: dict[str, int | None] = {}
    for worker, name in GROUPS.items():
        try:
            positions = committed(client, settings.group(worker))
            ends = bounds(client, list(positions))
        except StreamFlowError:
            lags[name] = None
            continue
        if not positions:
            lags[name] = None
            continue
        lags[name] = sum(
            max(0, ends[partition][1] - read_position(position))
            for partition, position in positions.items()
        )
    return lags
