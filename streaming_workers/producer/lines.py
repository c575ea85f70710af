"""Real input: events as NDJSON, one JSON object a line. Pure."""

from typing import NamedTuple

from streamflow.contract import Event
from streamflow.errors import ErrorCode
from streamflow.privacy import Hasher
from streamflow.records import Rejection
from streamflow.stream import Stream

_BOM = "\ufeff".encode()
_RECORD_SEPARATOR = b"\x1e"
_OVERHEAD_BYTES = 1024  # of a record, beside its value


class Accepted(NamedTuple):
    """A valid line, as it is to be sent."""

    key: bytes
    value: bytes
    event: Event


class LineReader:
    """Turns lines into records of a stream: hashes what is private, then checks the contract."""

    def __init__(self, stream: Stream, hasher: Hasher) -> None:
        self._hasher = hasher
        # Looked up once and not for every line.
        self._longest = stream.topics.max_record_bytes - _OVERHEAD_BYTES
        self._decode = stream.decoder.decode
        self._encode = stream.encode

    def read(self, line: bytes) -> Accepted | Rejection:
        if len(line) > self._longest:
            return Rejection(
                ErrorCode.SCHEMA_VIOLATION, "ValueError", "longer than the topic's largest record"
            )
        decode, hashed = self._decode, self._hasher.hash_private
        # No hash holds an "@": finding out what is wrong with a clear-text address is slow.
        event = decode(hashed(line) if b"@" in line else line)
        if isinstance(event, Rejection):
            event = decode(hashed(line))
        if isinstance(event, Rejection):
            # Of files that were put together (BOM), and of JSON text sequences (RFC 7464).
            bare = line.removeprefix(_BOM).removeprefix(_RECORD_SEPARATOR)
            return self.read(bare) if bare != line else event
        return Accepted(*self._encode(event), event)

    def redacted(self, line: bytes) -> bytes:
        """A line that breaks the contract, without clear-text addresses."""
        return self._hasher.redact(line)
