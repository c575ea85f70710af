"""Records that the client cannot decompress, as records without content.

The broker only looks whether a batch decompresses; it does not look into how much. librdkafka gives
up at ``receive.message.max.bytes`` (100 MB), reports the error and fetches the same batch again, for
ever. All that can be read of such a batch is its position: so each of its records is passed as one
without key and value, which becomes a dead letter, and reading goes on behind it.
"""

from streamflow.errors import ErrorCode
from streamflow.flow import Partition
from streamflow.records import Headers, Record, Rejection


class UnreadableRecord:
    """A record of which only the position can be read.

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


def rejection_of(record: Record, otherwise: Rejection) -> Rejection:
    """Why a record is rejected: it could not be read, or what its contract says."""
    return record.rejection if isinstance(record, UnreadableRecord) else otherwise
