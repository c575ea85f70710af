"""Records that the client cannot decompress, as records without content.

The broker only looks whether a batch decompresses; it does not look into how much. librdkafka gives
up at ``receive.message.max.bytes`` (100 MB), reports the error and fetches the same batch again, for
ever. What is read of such a batch is its position: so each of its records is passed as one without
key and value, which becomes a dead letter, and reading goes on behind it.
"""

from typing import Final

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from streamflow.errors import ErrorCode
from streamflow.flow import Partition
from streamflow.kafka.clients import kafka_errors
from streamflow.records import Headers, Record, Rejection

_CODES: Final = (KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG)


class UnreadableRecord:
    """A record of which nothing but its position can be read.

    Args:
        partition: where it is.
        offset: its own.
        reason: the client's name of the error.
    """

    def __init__(self, partition: Partition, offset: int, reason: str) -> None:
        self._partition = partition
        self._offset = offset
        self.rejection = Rejection(
            ErrorCode.UNREADABLE, "KafkaError", f"the client cannot read it: {reason}"
        )

    def topic(self) -> str:
        """The topic it is in."""
        return self._partition[0]

    def partition(self) -> int:
        """The partition it is in."""
        return self._partition[1]

    def offset(self) -> int:
        """Its offset there."""
        return self._offset

    def key(self) -> None:
        """Unknown."""

    def value(self) -> None:
        """Unknown."""

    def headers(self) -> Headers | None:
        """Unknown."""
        return None

    def timestamp(self) -> tuple[int, int]:
        """Unknown: ``TIMESTAMP_NOT_AVAILABLE``."""
        return (0, 0)


def is_unreadable(error: KafkaError) -> bool:
    """Whether a consumer's error is about a record, and would be the same again."""
    return error.code() in _CODES


def pass_over(consumer: Consumer, message: Message, error: KafkaError, reached: int) -> Record:
    """The record that an error is about; the consumer goes on behind it.

    Args:
        consumer: that has reported the error.
        message: its event. It has the offset of the first record of the batch.
        error: of the event.
        reached: offset behind the last record that was read, or passed over, of its partition.

    Raises:
        Unavailable: the consumer cannot be moved now.
    """
    partition = (message.topic() or "", message.partition() or 0)
    offset = max(message.offset() or 0, reached)
    with kafka_errors():
        consumer.seek(TopicPartition(*partition, offset + 1))
    return UnreadableRecord(partition, offset, error.name())


def rejection_of(record: Record, otherwise: Rejection) -> Rejection:
    """Why a record is refused: because it could not be read, or as its contract says."""
    return record.rejection if isinstance(record, UnreadableRecord) else otherwise
