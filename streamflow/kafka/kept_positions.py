"""Positions that StreamFlow keeps itself, in a compacted topic, beside the offsets that Kafka keeps.

Kafka forgets the offsets of a group that has had no members for a while (``offsets.retention.minutes``, a
week by default), and any administrator may delete or move them. Then a validator would derive everything
again, analytics count it twice, and a file be sent twice. So each position is also a record here, written
in the transaction that commits the offset. Where the two differ, the one that is further holds: a release
that kept none, or a user, has moved the offset on.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from typing import Final, NamedTuple

import orjson
import structlog
from confluent_kafka import TopicPartition

from streamflow.calls import call
from streamflow.flow import Partition
from streamflow.kafka import offsets
from streamflow.kafka.clients import admin
from streamflow.kafka.reader import Scanner, first_once_visible
from streamflow.names import POSITIONS_TOPIC
from streamflow.records import OutRecord, Position, Record
from streamflow.settings import Settings
from streamflow.stream_topics import TopicSpec

log = structlog.get_logger()

_LIMIT: Final = 120.0  # seconds; another worker's open transaction ends by its time-out
# Small segments are compacted soon, so that little is read when a worker starts.
_SEGMENT_BYTES: Final = 4_194_304
_MARKERS_KEPT_MS: Final = 60_000


class Reconciled(NamedTuple):
    """Where a group really is in a partition."""

    committed: TopicPartition  # as it is committed
    by_kafka: int | None  # Kafka's own offset
    agreed: bool  # whether both have kept this


def topic_of(settings: Settings) -> str:
    return f"{settings.prefix}{POSITIONS_TOPIC}"


def _home(settings: Settings) -> Partition:
    """The one partition in use: with more, a group's positions would be in several."""
    return topic_of(settings), 0


def topic_spec(settings: Settings) -> TopicSpec:
    config = {
        "cleanup.policy": "compact",
        "delete.retention.ms": str(_MARKERS_KEPT_MS),
        "min.cleanable.dirty.ratio": "0.1",
        "min.insync.replicas": str(settings.kafka_min_isr),
        "segment.bytes": str(_SEGMENT_BYTES),
    }
    return TopicSpec(topic_of(settings), 1, config)


def record_of(settings: Settings, group: str, committed: TopicPartition) -> OutRecord:
    """The record that keeps what a group commits."""
    kept = {
        "offset": committed.offset,
        "leader_epoch": committed.leader_epoch,
        "metadata": committed.metadata,
    }
    return _record(settings, group, offsets.partition_of(committed), orjson.dumps(kept))


def forgetting(settings: Settings, group: str, partition: Partition) -> OutRecord:
    """The record that drops what is kept: from then on, Kafka's offset holds."""
    return _record(settings, group, partition, None)


def _record(settings: Settings, group: str, partition: Partition, value: bytes | None) -> OutRecord:
    topic, home = _home(settings)
    return OutRecord(topic, _key(group, partition), value, [], home)


def _key(group: str, partition: Partition) -> bytes:
    return f"{group}/{partition[0]}/{partition[1]}".encode()


def reconcile(
    settings: Settings,
    group: str,
    wanted: Collection[Partition],
    committed: Mapping[Partition, TopicPartition],
    trusted: Callable[[Record], bool] = lambda _record: True,
) -> dict[Partition, Reconciled]:
    """Where a group really is, by Kafka's offsets and the positions kept here; nothing for a partition
    that neither knows.

    Raises:
        Unavailable: the broker does not answer, the topic does not exist, or while an offset is missing,
            an open transaction hides what is kept of it.
    """
    with call("reading kept positions", _LIMIT):
        kept = _read(settings, group, wanted, trusted, settled=len(committed) < len(wanted))
    return _reconciled_all(committed, kept)


def _read(
    settings: Settings,
    group: str,
    wanted: Collection[Partition],
    trusted: Callable[[Record], bool],
    *,
    settled: bool,
) -> dict[Partition, TopicPartition]:
    keys = {_key(group, partition): partition for partition in wanted}
    kept: dict[Partition, TopicPartition] = {}
    with closing(Scanner(settings, "positions")) as scanner:
        home = _home(settings)
        offsets.require_partitions(scanner.consumer, [home[0]])
        client = admin(settings)
        if settled and (end := offsets.high_watermarks(client, [home])[home]):
            first_once_visible(settings, home, end - 1)
        for record in scanner.records(home, *offsets.bounds(client, [home])[home]):
            partition = keys.get(record.key() or b"")
            if partition is None or not trusted(record):
                continue
            kept.pop(partition, None)
            if value := record.value():
                position = orjson.loads(value)
                epoch = position["leader_epoch"]
                kept[partition] = TopicPartition(
                    *partition,
                    position["offset"],
                    position["metadata"],
                    *(() if epoch is None else (epoch,)),
                )
    return kept


def _reconciled_all(
    committed: Mapping[Partition, TopicPartition], kept: Mapping[Partition, TopicPartition]
) -> dict[Partition, Reconciled]:
    of_this_log = {}
    for partition, position in kept.items():
        if partition in committed or offsets.committed_position(position).log.topic_id:
            of_this_log[partition] = position
        else:
            # Kafka deletes offsets with their topic, and without an id (a broker before 2.8) nothing
            # else tells an expired offset from a recreated topic, whose first records would be lost.
            log.error(
                "kept position dropped",
                topic=partition[0],
                partition=partition[1],
                offset=position.offset,
                why="Kafka has no offset here, and the position has no topic id",
                advice="the group reads this partition from its beginning",
            )
    return {
        partition: _reconciled(committed.get(partition), of_this_log.get(partition))
        for partition in committed.keys() | of_this_log.keys()
    }


def _reconciled(committed: TopicPartition | None, kept: TopicPartition | None) -> Reconciled:
    agreed = (
        committed is not None
        and kept is not None
        and (committed.offset, committed.metadata) == (kept.offset, kept.metadata)
    )
    by_kafka = None if committed is None else committed.offset
    return Reconciled(_further(committed, kept), by_kafka, agreed)


def _further(committed: TopicPartition | None, kept: TopicPartition | None) -> TopicPartition:
    if committed is None or kept is None:
        return committed or kept  # type: ignore[return-value]  # there is one of them
    known, ours = map(offsets.committed_position, (committed, kept))
    if known.log.topic_id and known.log.topic_id != ours.log.topic_id:
        # Kafka deletes the offsets with their topic, so this one is of a later topic.
        return committed
    return kept if _place(ours) >= _place(known) else committed


def _place(position: Position) -> tuple[int, bool, int]:
    # Of two positions with open windows the later one has emitted more. One without any text of ours
    # was moved by hand.
    return offsets.read_position(position), bool(position.log.topic_id), position.offset
