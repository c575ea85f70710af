"""Reading partitions outside any group's bookkeeping: for the bridge, a drain, the audit and people.

The workers' sessions read as members of a group, so rebalances decide what they hold and where it begins;
what the client's events mean (`interpret`) is the same for all. All that reads raises `OffsetsReused` if
a log was truncated, and `Unavailable` if the broker does not answer.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import Any, Final, NamedTuple, cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streamflow.calls import call
from streamflow.errors import StreamFlowError, Unavailable
from streamflow.flow import Partition
from streamflow.kafka import continuity, offsets
from streamflow.kafka.clients import admin, assigned_consumer, kafka_errors, translated
from streamflow.kafka.unreadable import UnreadableRecord
from streamflow.records import Origin, Record
from streamflow.settings import Settings

log = structlog.get_logger()

_BATCH: Final = 20_000
_CACHED: Final = 256
_TURN: Final = 0.05  # seconds
_SILENCE: Final = 10.0  # seconds without anything from the broker
_OPEN_TRANSACTION: Final = 90.0  # seconds that another producer's open transaction may hide records
_POLL: Final = 0.2  # seconds
# Of keys and values. A batch of ordinary records is smaller; what is made of it is several times as large.
_BATCH_BYTES: Final = 4_194_304
_FIRST_SLICE: Final = 4  # records; shows how large they are
_SLICE: Final = 64  # records; as many large ones may follow small ones
_KEY: Final = Message.key  # twice as fast as `methodcaller`
_ERROR: Final = Message.error
# librdkafka reports these for a batch, and would fetch the same batch again.
_UNREADABLE: Final = (KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG)


class Fetched(NamedTuple):
    """What one call of a consumer brought."""

    records: list[Record]  # in the order of their offsets within each partition
    # Where partitions ended that were read to their end: transaction markers before it are passed.
    ends: dict[Partition, int]


def consume_batch(
    consumer: Consumer, most: int, linger: float, *, idle: float = 0.0
) -> list[Message]:
    """The next messages, at most `most`, that come within `linger` seconds; fewer if they are large, so that
    memory is bounded whatever is produced. If nothing comes, it waits for a first one up to `idle` seconds;
    one that comes after `linger` is returned at once."""
    deadline = time.monotonic() + linger
    messages: list[Message] = consumer.consume(1, idle) if idle else []
    if idle and not messages:
        return messages
    size, wanted = 0, min(_FIRST_SLICE, most)
    while True:
        came = consumer.consume(wanted, max(0.0, deadline - time.monotonic()))
        messages += came
        size += sum(map(len, came)) + sum(map(len, filter(None, map(_KEY, came))))
        if len(came) < wanted or len(messages) >= most or size >= _BATCH_BYTES:
            return messages
        room = (_BATCH_BYTES - size) * len(messages) // (size + 1)
        wanted = max(1, min(_SLICE, len(messages), room, most - len(messages)))


def interpret(
    consumer: Consumer, messages: list[Message], read_to: Mapping[Partition, int]
) -> Fetched:
    """What a consumer's events mean. A record that the client cannot read is passed, as one without
    content. `read_to` is the offset behind the last record of each partition that the consumer holds.

    Raises Unavailable also if a position does not exist (any more).
    """
    if not any(map(_ERROR, messages)):
        return Fetched(cast("list[Record]", messages), {})
    records: list[Record] = []
    ends: dict[Partition, int] = {}
    reached = dict(read_to)
    passed: set[Partition] = set()
    for message in messages:
        partition, offset = _place(message)
        error = message.error()
        if error is None:
            records.append(cast("Record", message))
            reached[partition] = offset + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            if partition in read_to:
                ends[partition] = offset
        elif error.code() not in _UNREADABLE:
            raise _failure(error, partition, offset)
        elif partition in read_to and partition not in passed:
            # The client may report it again before the seek.
            passed.add(partition)
            at = max(offset, reached[partition])
            records.append(_pass_over(consumer, partition, at, error))
    return Fetched(records, ends)


def _pass_over(
    consumer: Consumer, partition: Partition, offset: int, error: KafkaError
) -> UnreadableRecord:
    with kafka_errors():
        consumer.seek(TopicPartition(*partition, offset + 1))
    topic, number = partition
    log.error(
        "record cannot be read", topic=topic, partition=number, offset=offset, why=error.str()
    )
    return UnreadableRecord(partition, offset, error.name())


def _failure(error: KafkaError, partition: Partition, offset: int) -> StreamFlowError:
    truncated = continuity.reused(error, *partition)
    if truncated is not None:
        return truncated
    if continuity.is_out_of_range(error):
        # No seek: librdkafka refuses it for a partition that it does not fetch (librdkafka#2961).
        return Unavailable(f"{partition[0]}[{partition[1]}] has no record at {offset} (any more)")
    return translated(KafkaException(error))


def _place(record: Message | Record) -> tuple[Partition, int]:
    return (record.topic() or "", record.partition() or 0), record.offset() or 0


class Reader:
    """Reads the partitions that it is given, and joins no group; close it.

    Attributes:
        consumer: the client; it has the name of `group`, so commit only if you mean it.
        read_to: the offset behind what was read, of each partition.
        silent_for: seconds that the last calls in a row have brought nothing.
    """

    def __init__(self, settings: Settings, group: str, **options: Any) -> None:
        self.consumer: Consumer = assigned_consumer(settings, group, **options)
        self.read_to: dict[Partition, int] = {}
        self.silent_for = 0.0

    def assign(self, starts: Sequence[TopicPartition]) -> None:
        """Reads these partitions, and no others, from the given offsets."""
        with kafka_errors():
            self.consumer.assign(list(starts))
        self.read_to = {(start.topic, start.partition): start.offset for start in starts}
        self.silent_for = 0.0

    def add(self, starts: Sequence[TopicPartition]) -> None:
        """Reads these partitions, too."""
        with kafka_errors():
            self.consumer.incremental_assign(list(starts))
        self.read_to |= {(start.topic, start.partition): start.offset for start in starts}

    def seek(self, partition: Partition, offset: int) -> None:
        """Continues a partition at another offset."""
        with kafka_errors():
            self.consumer.seek(TopicPartition(*partition, offset))
        self.read_to[partition] = offset

    def read(self, most: int, linger: float, *, idle: float = 0.0) -> Fetched:
        """The next records, at most `most`; waits `linger` seconds for as many, and before that `idle`
        seconds for the first."""
        began = time.monotonic()
        with kafka_errors(), call("consumer.consume"):
            messages = self.consumer.consume(1, idle) if idle else []
            if messages or not idle:
                messages += consume_batch(self.consumer, most, linger)
        self.silent_for = 0.0 if messages else self.silent_for + time.monotonic() - began
        records, ends = interpret(self.consumer, messages, self.read_to)
        for partition, offset in (*self._reached(records).items(), *ends.items()):
            if partition in self.read_to:
                self.read_to[partition] = max(self.read_to[partition], offset)
        return Fetched(records, ends)

    def _reached(self, records: Sequence[Record]) -> dict[Partition, int]:
        """The offset behind the last record of each partition that is read."""
        reached: dict[Partition, int] = {}
        for record in reversed(records):
            partition, offset = _place(record)
            if partition in self.read_to:
                reached.setdefault(partition, offset + 1)
            if len(reached) == len(self.read_to):
                break
        return reached

    def require_sound(self, seconds: float) -> None:
        """Raises Unavailable if the broker has been silent for longer."""
        if self.silent_for > seconds:
            silent = ", ".join(f"{topic}[{number}]" for topic, number in sorted(self.read_to))
            raise Unavailable(f"Kafka sent nothing of {silent} for {seconds:g} s")

    def close(self) -> None:
        with call("consumer.close", _SILENCE):
            self.consumer.close()


class Scanner(Reader):
    """Reads ranges of offsets to their end; close it."""

    def __init__(self, settings: Settings, name: str = "scan") -> None:
        # A group's name is required; nothing is committed to it.
        # It reads to the end of each range, which the client only sees when a fetch returns empty.
        super().__init__(
            settings, f"{settings.prefix}streamflow-{name}", **{"fetch.wait.max.ms": 50}
        )
        # The end of each range that a scan has not reached yet.
        self.unread: dict[Partition, int] = {}

    def scan(
        self, ranges: Mapping[Partition, tuple[int, int]], most: int = _BATCH
    ) -> Iterator[list[Record]]:
        """The records from the first offset of each range up to before the second, in batches of at most
        `most`; an empty one while nothing comes."""
        self.unread = {partition: end for partition, (first, end) in ranges.items() if first < end}
        self.assign([TopicPartition(*partition, ranges[partition][0]) for partition in self.unread])
        while self.unread:
            # A short wait, and no more records than can be there: `consume` waits until it has as
            # many as requested.
            left = sum(end - self.read_to[partition] for partition, end in self.unread.items())
            fetched = self.read(min(most, left), _TURN)
            self.require_sound(_SILENCE)
            batch = _within(fetched.records, ranges)
            for partition, end in list(self.unread.items()):
                if partition in fetched.ends or self.read_to[partition] >= end:
                    del self.unread[partition]
            yield batch

    def records(self, partition: Partition, start: int, end: int) -> Iterator[Record]:
        """The records from `start` up to before `end`."""
        return chain.from_iterable(self.batches(partition, start, end))

    def batches(self, partition: Partition, start: int, end: int) -> Iterator[list[Record]]:
        """The same in batches: small ones, of which the records are still in the processor's cache when they
        are looked at and when they are freed. That takes half the time."""
        return self.scan({partition: (start, end)}, _CACHED)

    def offsets(self, partition: Partition, start: int, end: int) -> Iterator[int]:
        return (record.offset() or 0 for record in self.records(partition, start, end))


def _within(records: list[Record], ranges: Mapping[Partition, tuple[int, int]]) -> list[Record]:
    if len(ranges) == 1 and records and all(_is_within(records[at], ranges) for at in (0, -1)):
        # Of one partition they come in the order of their offsets.
        return records
    return [record for record in records if _is_within(record, ranges)]


def _is_within(record: Record, ranges: Mapping[Partition, tuple[int, int]]) -> bool:
    partition, offset = _place(record)
    first, end = ranges.get(partition, (0, 0))
    return first <= offset < end


def committed_among(settings: Settings, positions: Collection[Origin]) -> set[Origin]:
    """The positions at which Kafka holds a committed record. Settle their transaction first, or the
    answer is true for this moment only. Raises Unavailable also if another producer's open transaction
    hides them."""
    by_partition: dict[Partition, set[int]] = {}
    for position in positions:
        by_partition.setdefault(position[:2], set()).add(position.offset)
    committed: set[Origin] = set()
    with closing(Scanner(settings)) as scanner:
        for partition, wanted in by_partition.items():
            start = max(first_once_visible(settings, partition, max(wanted)), min(wanted))
            present = scanner.offsets(partition, start, max(wanted) + 1)
            committed |= {Origin(*partition, offset) for offset in present if offset in wanted}
    return committed


def first_once_visible(settings: Settings, partition: Partition, offset: int) -> int:
    """Waits until readers of committed records get past an offset; returns the first offset. Raises
    Unavailable if another producer's open transaction hides it for too long."""
    client = admin(settings)
    deadline = time.monotonic() + _OPEN_TRANSACTION
    while True:
        first, end = offsets.bounds(client, [partition])[partition]
        if end > offset:
            return first
        if time.monotonic() > deadline:
            raise Unavailable(
                f"an open transaction hides {partition[0]}[{partition[1]}] from offset {end} on: try "
                "again when its producer has ended"
            )
        time.sleep(_POLL)
