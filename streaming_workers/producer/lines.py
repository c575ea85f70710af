"""Real input: events as NDJSON, one JSON object a line. Pure."""

from typing import NamedTuple

import orjson

from streamflow.contract import Event
from streamflow.errors import ErrorCode
from streamflow.privacy import Hasher, is_hashed
from streamflow.records import Rejection
from streamflow.stream import Stream

_OVERHEAD_BYTES = 1024  # of a record, beside its value


class Accepted(NamedTuple):
    """A valid line, as it is to be sent."""

    key: bytes
    value: bytes
    event: Event


class LineReader:
    """Turns lines into records of a stream: hashes what is private, then checks the contract."""

    def __init__(self, stream: Stream, hasher: Hasher) -> None:
        self._private_fields = stream.private_fields
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
        decode = self._decode
        # No hash holds an "@": finding out what is wrong with a clear-text address is slow.
        event = decode(self._hashed(line) if b"@" in line else line)
        if isinstance(event, Rejection):
            event = decode(self._hashed(line))
        if isinstance(event, Rejection):
            return event
        return Accepted(*self._encode(event), event)

    def redacted(self, line: bytes) -> bytes:
        """A line that breaks the contract, without clear-text addresses."""
        return self._hasher.redact(line)

    def _hashed(self, line: bytes) -> bytes:
        """The line with its private fields hashed; unchanged if it is not a JSON object."""
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:
            return line
        if not isinstance(document, dict):
            return line
        for name in self._private_fields:
            value = document.get(name)
            if isinstance(value, str) and value and not is_hashed(value):
                document[name] = self._hasher.hash(value)
        return orjson.dumps(document)
