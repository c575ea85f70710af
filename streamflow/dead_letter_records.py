"""Building dead letters: the rejected record, redacted, with the cause in added headers."""

import re
from datetime import datetime
from typing import Final, NamedTuple

from streamflow import records
from streamflow.contract import format_time
from streamflow.privacy import Hasher
from streamflow.records import (
    OWN_HEADER_PREFIXES,
    Headers,
    Origin,
    OutRecord,
    Record,
    Rejection,
    attempt_of,
    claimed_origin,
    headers_of,
    last_header,
    position_of,
)
from streamflow.stream_topics import MAX_DEAD_LETTER_BYTES
from streamflow.trace_context import TRACEPARENT, is_traceparent

_LONGEST_MESSAGE = 1000
_LONGEST_NAME = 200  # of an exception
_MAX_KEY: Final = 1024 * 1024
_MAX_HEADERS: Final = 2 * 1024 * 1024
_HEADER_OVERHEAD: Final = 16  # bytes of lengths around a header
# The rest is for our own headers, and for what a record batch adds.
_MAX_VALUE: Final = MAX_DEAD_LETTER_BYTES - _MAX_KEY - _MAX_HEADERS - 64 * 1024
_TRUNCATED = re.compile(rb"(\d{1,18})/(\d{1,18})")


class Truncated(NamedTuple):
    """How many bytes of a record's key, value and headers its dead letter holds, and of how many."""

    kept: int
    size: int

    def __str__(self) -> str:
        return f"cut: holds {self.kept:,} of {self.size:,} bytes"


class Redacted(NamedTuple):
    """Key, value and headers of a record, redacted and cut to the size limit of dead letters."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    truncated: Truncated | None  # if something was cut
    redacted: bool  # whether a hash stands for anything


def redact(
    hasher: Hasher,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    *,
    own_are_ours: bool = False,
) -> Redacted:
    """What a dead letter keeps of a record, with private values replaced by their hashes (G7).

    Headers with our names hold positions, which can look like phone numbers: if we wrote them, they stay.

    A hash is longer than its address, and a compressed record may be larger than its topic's limit. So
    key and value are cut to the limit of the dead-letter topic, and headers that do not fit are left out.
    """
    new_key, new_value = key, value
    kept = size = 0
    if key is not None:
        new_key, taken = hasher.redact_within(key, _MAX_KEY)
        kept, size = kept + taken, size + len(key)
    if value is not None:
        new_value, taken = hasher.redact_within(value, _MAX_VALUE)
        kept, size = kept + taken, size + len(value)
    redacted = (new_key, new_value) != (key, value)
    new_headers: Headers = []
    room = _MAX_HEADERS
    for name, content in headers:
        original = len(name.encode()) + len(content or b"")
        size += original
        if original > room:
            continue
        if own_are_ours and name.startswith(OWN_HEADER_PREFIXES):
            new_headers.append((name, content))
            kept += original
            continue
        new_name, new = name, content
        # The random digits of a trace may look like a private number.
        if not (name == TRACEPARENT and is_traceparent(content)):
            new_name = hasher.redact(name.encode()).decode(errors="replace")
            new = None if content is None else hasher.redact(content)
        needed = len(new_name.encode()) + len(new or b"") + _HEADER_OVERHEAD
        if needed <= room:
            room, kept = room - needed, kept + original
            new_headers.append((new_name, new))
            redacted |= (new_name, new) != (name, content)
    truncated = Truncated(kept, size) if kept < size else None
    return Redacted(new_key, new_value, new_headers, truncated, redacted)


def truncation_of(headers: Headers) -> Truncated | None:
    """What was cut, according to a dead letter's headers; None if nothing was, or they are malformed."""
    match = _TRUNCATED.fullmatch(last_header(headers, records.TRUNCATED_HEADER) or b"")
    return Truncated(int(match[1]), int(match[2])) if match else None


def build(
    record: Record,
    rejection: Rejection,
    *,
    stage: str,
    group: str,
    topic: str,
    hasher: Hasher,
    now: datetime,
    origin: Origin | None = None,
    topic_ids: tuple[str, str] = ("", ""),
) -> OutRecord:
    """The dead letter of a rejected or refused record.

    Addresses in key, value and headers are replaced by their hashes (G7), and what is too large is cut.
    Headers with StreamFlow's own names are replaced, since incoming ones are untrusted. The origin and
    attempt that a source record claims are passed on as claims: readers of the dead letter trust them
    only if StreamFlow replayed the record.

    Args:
        record: the rejected one.
        rejection: why.
        stage: the worker that rejected it.
        group: the worker's consumer group.
        topic: the dead-letter topic.
        hasher: hashes the addresses.
        now: when it was rejected.
        origin: of a derived record, the event that it was derived from.
        topic_ids: of the record's topic, and of `origin`'s if that is another one; empty if unknown.
    """
    position = position_of(record)
    incoming = headers_of(record)
    key, value = record.key(), record.value()
    foreign = [header for header in incoming if not header[0].startswith(OWN_HEADER_PREFIXES)]
    kept = redact(hasher, key, value, foreign)
    own = {
        records.ERROR_TOPIC_HEADER: position.topic,
        records.ERROR_PARTITION_HEADER: str(position.partition),
        records.ERROR_OFFSET_HEADER: str(position.offset),
        records.ERROR_STAGE_HEADER: stage,
        records.ERROR_CLASS_HEADER: f"streaming_workers.{stage}",
        # Of the user's own code.
        records.ERROR_EXCEPTION_HEADER: _redacted(rejection.exception, hasher, _LONGEST_NAME),
        records.ERROR_MESSAGE_HEADER: _redacted(rejection.message, hasher, _LONGEST_MESSAGE),
        records.ERROR_CODE_HEADER: rejection.code.value,
        records.ATTEMPT_HEADER: str(attempt_of(incoming)),
        records.REDACTED_HEADER: str(kept.redacted).lower(),
        records.FAILED_AT_HEADER: format_time(now),
        records.GROUP_HEADER: group,
        records.ORIGIN_HEADER: str(origin or claimed_origin(record) or position),
    }
    names = records.TOPIC_ID_HEADER, records.ORIGIN_TOPIC_ID_HEADER
    own |= {name: topic_id for name, topic_id in zip(names, topic_ids, strict=True) if topic_id}
    if kept.truncated is not None:
        own[records.TRUNCATED_HEADER] = "{}/{}".format(*kept.truncated)
    headers = [*kept.headers, *((name, text.encode()) for name, text in own.items())]
    return OutRecord(topic, kept.key, kept.value, headers)


def _redacted(text: str, hasher: Hasher, longest: int) -> str:
    data, _ = hasher.redact_within(text.encode("utf-8", "replace"), longest)
    return data.decode("utf-8", "replace")
