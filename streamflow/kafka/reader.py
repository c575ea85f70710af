"""Reading what a partition holds, from one offset to another, outside any group's bookkeeping."""

import time
from collections.abc import Iterator
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streamflow.errors import Unavailable
from streamflow.flow import Partition
from streamflow.kafka.clients import assigned_consumer, kafka_errors, translated
from streamflow.kafka.unreadable import UnreadableRecord, is_unreadable, pass_over
from streamflow.records import Record
from streamflow.settings import Settings

_BATCH = 20_000
_TIMEOUT = 10.0  # seconds
_TURN = 0.05  # seconds


class Scanner:
    """Reads committed records; close it."""

    def __init__(self, settings: Settings) -> None:
        # A group's name is required and never used: nothing is committed.
        self._consumer: Consumer = assigned_consumer(settings, settings.prefix + "streamflow-scan")

    def offsets(self, partition: Partition, start: int, end: int) -> Iterator[int]:
        """The offsets of the records from `start` up to before `end`, ascending.

        Raises:
            Unavailable: the broker does not answer.
        """
        return (message.offset() or 0 for message in self.records(partition, start, end))

    def records(self, partition: Partition, start: int, end: int) -> Iterator[Record]:
        """The records from `start` up to before `end`, by their offsets.

        Raises:
            Unavailable: the broker does not answer.
        """
        if start >= end:
            return
        with kafka_errors():
            self._consumer.assign([TopicPartition(*partition, start)])
        deadline = time.monotonic() + _TIMEOUT
        position = start
        while True:
            # A short turn, and no more than can be there: `consume` waits until it has as many
            # messages as it was asked for, or the time is over.
            with kafka_errors():
                messages = self._consumer.consume(min(_BATCH, end - position), _TURN)
            if messages:
                deadline = time.monotonic() + _TIMEOUT
            elif time.monotonic() > deadline:
                raise Unavailable(
                    f"Kafka sent nothing of {partition[0]}[{partition[1]}] for {_TIMEOUT:g} s"
                )
            for message in messages:
                if message.topic() and (message.topic(), message.partition()) != partition:
                    continue
                record = self._record(message, position)
                offset = -1 if record is None else record.offset() or 0
                if record is None or offset >= end:
                    return
                yield record
                position = offset + 1
                if position >= end:
                    return
                if isinstance(record, UnreadableRecord):
                    break  # What follows is the same error once more.

    def _record(self, message: Message, position: int) -> Record | None:
        """The record behind an event of the client; None at the end of the partition."""
        error = message.error()
        if error is None:
            return cast("Record", message)
        if error.code() == KafkaError._PARTITION_EOF:
            return None
        if is_unreadable(error):
            return pass_over(self._consumer, message, error, position)
        raise translated(KafkaException(error))

    def close(self) -> None:
        """Closes the connection."""
        self._consumer.close()
