"""Real input: events as NDJSON, one JSON object a line. Pure."""

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from streamflow.contract import Event
from streamflow.errors import ErrorCode
from streamflow.fast_types import UntranslatableError
from streamflow.privacy import Hasher
from streamflow.producer.fast_lines import FastLines, Keyed
from streamflow.records import OutRecord, Rejection, processing_failed
from streamflow.stream import Stream

# Of files that were put together (BOM), and of JSON text sequences (RFC 7464).
_LEADING = re.compile(rb"(?:\xef\xbb\xbf|\x1e)++")
_OVERHEAD_BYTES = 1024  # of a record, beside its value
_FRAME_BYTES = 256  # of a batch with one record
_TOO_LONG = Rejection(
    ErrorCode.SCHEMA_VIOLATION, "ValueError", "longer than the topic's largest record"
)


class Accepted(NamedTuple):
    """A valid line, as it is to be sent."""

    key: bytes | None
    value: bytes
    event: Event


def too_long(stream: Stream, record: OutRecord) -> Rejection | None:
    """Why the stream's topic does not take a record; None if it does."""
    size = len(record.key or b"") + len(record.value or b"")
    size += sum(len(name) + len(value or b"") for name, value in record.headers)
    return _TOO_LONG if size > stream.topics.max_record_bytes - _FRAME_BYTES else None


class LineReader:
    """Turns lines into records of a stream: hashes what is private, then checks the contract."""

    def __init__(self, stream: Stream, hasher: Hasher) -> None:
        self._stream = stream
        self._hasher = hasher
        # Looked up once and not for every line.
        self._longest = stream.topics.max_record_bytes - _OVERHEAD_BYTES
        self._decode = stream.decoder.decode
        self._encode = stream.encode
        self._fast: FastLines | None = None
        with suppress(UntranslatableError):
            self._fast = FastLines(stream, hasher)

    def read_ordinary(self, lines: Sequence[bytes]) -> Sequence[Keyed | None]:
        """The records of those lines that are ordinary ones: the same that `read` makes of them, many times
        as fast. Lines may have their ends."""
        if self._fast is None or max(map(len, lines), default=0) > self._longest:
            return [None] * len(lines)
        return self._fast.read(lines)

    def read(self, line: bytes) -> Accepted | Rejection:
        if len(line) > self._longest:
            return _TOO_LONG
        event = self._event(line)
        if isinstance(event, Rejection) and (leading := _LEADING.match(line)):
            event = self._event(line[leading.end() :])
        if isinstance(event, Rejection):
            return event
        try:
            key, value = self._encode(event)
        except BaseException as error:  # noqa: BLE001 (`key` may be a user's function)
            return processing_failed("key", error)
        # Hashes are longer than what they stand for, and the key is there twice.
        record = OutRecord(self._stream.topic, key, value, [])
        return too_long(self._stream, record) or Accepted(key, value, event)

    def _event(self, line: bytes) -> Event | Rejection:
        decode, hashed = self._decode, self._hasher.hash_private
        # No hash holds an "@": finding out what is wrong with a clear-text address is slow.
        event = decode(hashed(line) if b"@" in line else line)
        return decode(hashed(line)) if isinstance(event, Rejection) else event

    def redacted(self, line: bytes) -> bytes:
        """A line that breaks the contract, without clear-text addresses."""
        return self._hasher.redact(line)
