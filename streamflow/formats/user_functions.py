"""Decode functions of users: what they return is checked, and the record is afterwards as it was."""

from collections.abc import Callable
from typing import Any, Final, cast

from streamflow.errors import ErrorCode
from streamflow.formats.documents import Decode, Tombstone
from streamflow.records import Record, Rejection, headers_of

_NO_REJECTION: Final = (
    "decode returned a Rejection that is none: its code must be one of ErrorCode, its exception and message "
    "texts"
)
_NO_TOMBSTONE: Final = "decode returned a Tombstone whose key is neither bytes nor None"
_QUOTES: Final = "decode returned a Rejection whose message holds a clear-text"


def is_format(decode: Decode) -> bool:
    """Whether it is one of ours, which are sound."""
    return type(decode).__module__.startswith("streamflow.formats.")


def guarded(decode: Decode, private_text: Callable[[bytes], str | None]) -> Decode:
    """The function with the guards that a user's own needs. A dead letter must hold the record that was
    consumed, so what the function has set in it is put back. `private_text` says what private values a
    text holds."""

    def decode_guarded(record: Record) -> Any:
        topic, key, value = record.topic(), record.key(), record.value()
        headers = [*headers_of(record)]
        try:
            found = decode(record)
        finally:
            same = record.key() is key and record.value() is value and record.topic() is topic
            if not same or headers_of(record) != headers:
                # Only a client's record has setters.
                message = cast("Any", record)
                message.set_topic(topic)
                message.set_key(key)
                message.set_value(value)
                message.set_headers(headers)
        if isinstance(found, Rejection):
            return _sound(found, private_text)
        if isinstance(found, Tombstone):
            deleted: Any = found.key
            return found if isinstance(deleted, bytes | None) else _failed(_NO_TOMBSTONE)
        return found

    return decode_guarded


def _sound(found: Rejection, private_text: Callable[[bytes], str | None]) -> Rejection:
    known = isinstance(found.code, str) and found.code in ErrorCode.__members__
    if not (known and isinstance(found.exception, str) and isinstance(found.message, str)):
        return _failed(_NO_REJECTION)
    code, exception, message = ErrorCode(found.code), found.exception, found.message
    if what := private_text(message.encode("utf-8", "replace")):
        message = f"{_QUOTES} {what}"
    return Rejection(code, exception, message)


def _failed(reason: str) -> Rejection:
    return Rejection(ErrorCode.PROCESSING_FAILED, "ValueError", reason)
