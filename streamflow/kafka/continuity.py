"""Whether a log still continues where a position says (KIP-320), and what is lost if not.

Records that retention removed are a gap: reported, kept and passed. Offsets that mean other records now,
because the log was truncated, are not passed: `OffsetsReused`. All raise `Unavailable` where the broker
does not answer.
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Final, NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaError, TopicPartition

from streamflow.calls import SLACK, call
from streamflow.errors import OffsetsReused, Unavailable
from streamflow.flow import Partition
from streamflow.kafka.clients import assigned_consumer, kafka_errors
from streamflow.kafka.offsets import read_position
from streamflow.kafka.topic_ids import TopicWatch
from streamflow.records import Gap, Log, Position
from streamflow.settings import Settings

log = structlog.get_logger()

_TIMEOUT: Final = 10.0  # seconds
_TURN: Final = 0.2  # seconds
_VALIDATION: Final = 5.0  # seconds
_CLOSING: Final = 5.0  # seconds
_END_OF_LOG: Final = re.compile(r"broker end offset is (\d+)")

# One record of each partition is enough. But the size of a fetch must not be small: a broker would
# answer with a large batch of the first partition only, again and again.
_LITTLE: Final = {"queued.max.messages.kbytes": 1}

Positions = Mapping[Partition, Position | None]


class TakenOver(NamedTuple):
    """Where to resume partitions."""

    # At the first record that is left; None where nothing was read or removed yet.
    positions: dict[Partition, Position | None]
    gaps: dict[Partition, Gap]  # between the kept positions and these
    logs: dict[Partition, Log]  # that the positions count in


def take_over(
    settings: Settings, group: str, consumer: Consumer, topics: TopicWatch, positions: Positions
) -> TakenOver:
    """Compares the kept positions of a group with the topics and logs that exist now.

    Raises:
        OffsetsReused: a topic was recreated, or a log truncated.
        Unavailable: the broker does not answer, or a topic does not exist.
    """
    topics.take_over(positions)
    starts, gaps = past_gaps(positions, log_bounds(consumer, list(positions)))
    require_whole_logs(settings, group, starts)
    logs = {
        partition: Log(
            topics.ids[partition[0]], None if position is None else position.log.leader_epoch
        )
        for partition, position in starts.items()
    }
    return TakenOver(starts, {(gap.topic, gap.partition): gap for gap in gaps}, logs)


def past_gaps(
    positions: Positions, bounds: Mapping[Partition, tuple[int, int]]
) -> tuple[dict[Partition, Position | None], list[Gap]]:
    """Moves positions whose records are gone to the first record that is left; also returns what is lost.
    A group without a position has read nothing: what was removed before is a gap as well.

    `bounds` are first offset and high watermark. Raises OffsetsReused if a log ends before the position.
    """
    moved: dict[Partition, Position | None] = {}
    gaps: list[Gap] = []
    for partition, position in positions.items():
        first, end = bounds[partition]
        offset = position.offset if position else 0
        moved[partition] = position
        if position is not None and read_position(position) > end:
            raise truncated(*partition, end)
        if offset < first:
            gaps.append(Gap(*partition, offset, first, "retention"))
            moved[partition] = known = (position or Position(*partition, 0))._replace(offset=first)
            if position is not None and read_position(position) < first:
                # The epoch of a record that is gone says nothing about the first that is left.
                moved[partition] = known._replace(log=Log(known.log.topic_id))
    return moved, gaps


def log_bounds(
    consumer: Consumer, partitions: Sequence[Partition]
) -> dict[Partition, tuple[int, int]]:
    """First offset and high watermark of partitions, from their leaders now.

    By a consumer: after a change of leaders an AdminClient sends the old leader's epoch until its cache
    is refreshed.
    """
    with kafka_errors(), call("get_watermark_offsets", len(partitions) * _TIMEOUT + SLACK):
        return {
            partition: consumer.get_watermark_offsets(TopicPartition(*partition), timeout=_TIMEOUT)
            for partition in partitions
        }


def require_whole_logs(settings: Settings, group: str, positions: Positions) -> None:
    """Lets the brokers compare positions with their logs, by leader epoch; raises OffsetsReused if a log
    was truncated before one of them.

    The client does so by itself when the leader changes under it, but not for the first offset of a
    partition whose leader it knows already, as a member of a group does.
    """
    ends, silent = _ends_by_epoch(settings, group, filter(None, positions.values()))
    for partition, end in ends.items():
        raise truncated(*partition, end)
    if silent:
        # Not reading on would be worse: the audit compares append times as well.
        log.warning(
            "leader epochs not validated",
            partitions=", ".join(f"{topic}[{number}]" for topic, number in sorted(silent)),
            seconds=_VALIDATION,
        )


def ends_of_truncated(
    settings: Settings, group: str, positions: Iterable[Position]
) -> dict[Partition, int]:
    """Where the logs ended that were truncated before these positions: offsets from there on mean other
    records now. Positions without a leader epoch are only compared with the ends."""
    wanted: dict[Partition, Position] = {position[:2]: position for position in positions}
    with closing(assigned_consumer(settings, group)) as consumer:
        bounds = log_bounds(consumer, list(wanted))
    cut_at = {
        partition: end
        for partition, (_, end) in bounds.items()
        if end < read_position(wanted[partition])
    }
    rest = (position for partition, position in wanted.items() if partition not in cut_at)
    ends, silent = _ends_by_epoch(settings, group, rest)
    if silent:
        raise Unavailable("Kafka did not answer in time whether logs were truncated")
    return cut_at | ends


def _ends_by_epoch(
    settings: Settings, group: str, positions: Iterable[Position]
) -> tuple[dict[Partition, int], set[Partition]]:
    """As `ends_of_truncated`, by leader epoch only; and the partitions without an answer in time.

    By a fresh consumer: librdkafka validates a position when it learns of another leader epoch than it
    knew, and at `assign` that is the first that it learns of any.
    """
    waiting: dict[Partition, Position] = {
        position[:2]: position._replace(offset=read_position(position))
        for position in positions
        if position.log.leader_epoch is not None
    }
    cut_at: dict[Partition, int] = {}
    if not waiting:
        return cut_at, set()
    deadline = time.monotonic() + _VALIDATION
    with (
        call("validating leader epochs", _VALIDATION + _CLOSING + SLACK),
        closing(assigned_consumer(settings, group, **_LITTLE)) as consumer,
        kafka_errors(),
    ):
        consumer.assign([as_start(position) for position in waiting.values()])
        while waiting and time.monotonic() < deadline:
            for message in consumer.consume(len(waiting), _TURN):
                partition = message.topic() or "", message.partition() or 0
                error = message.error()
                cut = None if error is None else _end_of_truncated(error)
                if cut is not None:
                    cut_at[partition] = cut
                # A record or the end: the position is sound. So is one that retention has passed.
                if waiting.pop(partition, None) is not None:
                    # A partition with much to read leaves no room for the others.
                    consumer.pause([TopicPartition(*partition)])
    return cut_at, set(waiting)


def as_start(position: Position) -> TopicPartition:
    """Where to read from, with the epoch that lets the client notice a truncated log."""
    topic, partition, offset, _, log = position
    if log.leader_epoch is None:
        return TopicPartition(topic, partition, offset)
    return TopicPartition(topic, partition, offset, leader_epoch=log.leader_epoch)


def is_out_of_range(error: KafkaError) -> bool:
    """Whether a consumer's error says that its position does not exist."""
    return error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)


def reused(error: KafkaError, topic: str, partition: int) -> OffsetsReused | None:
    """A consumer's error as one of ours, if it says that the log was truncated.

    Under ``auto.offset.reset=error`` only librdkafka's text says so: the code is that of every position
    that does not exist.
    """
    end = _end_of_truncated(error)
    return None if end is None else truncated(topic, partition, end)


def _end_of_truncated(error: KafkaError) -> int | None:
    match = _END_OF_LOG.search(error.str()) if is_out_of_range(error) else None
    return None if match is None else int(match[1])


def truncated(topic: str, partition: int, end: int) -> OffsetsReused:
    """The error for a log that has lost its end."""
    return OffsetsReused(
        f"the broker has lost records of {topic}[{partition}] from offset {end} on, so these offsets "
        "mean other records now: set aside what is stored of the old ones with `streamflow topics "
        f"--accept-recreated {topic}`",
        topic,
    )
