"""Records that the client cannot decompress, as records without content.

The broker only checks that a batch can be decompressed, not how large it becomes. librdkafka gives up at
``receive.message.max.bytes`` (100 MB), reports the error and fetches the same batch again, for ever. Of
such a batch only the position can be read: so each of its records is passed as one without key and value,
which becomes a dead letter, and reading continues behind it.
"""

from streamflow.errors import ErrorCode
from streamflow.flow import Partition
from streamflow.records import Headers, Record, Rejection


class UnreadableRecord:
    """A record of which only the position is known; `reason` is the client's name of the error."""

    def __init__(self, partition: Partition, offset: int, reason: str) -> None:
        self._partition = partition
        self._offset = offset
        self.rejection = Rejection(
            ErrorCode.UNREADABLE, "KafkaError", f"the client cannot read it: {reason}"
        )

    def topic(self) -> str:
        return self._partition[0]

    def partition(self) -> int:
        return self._partition[1]

    def offset(self) -> int:
        return self._offset

    def key(self) -> None:
        return None

    def value(self) -> None:
        return None

    def headers(self) -> Headers | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 0, 0  # ``TIMESTAMP_NOT_AVAILABLE``


def rejection_of(record: Record, otherwise: Rejection) -> Rejection:
    """Why a record is rejected: it could not be read, or what its contract says."""
    return record.rejection if isinstance(record, UnreadableRecord) else otherwise
