"""What a decode function returns, and JSON between formats: no digit of a number is lost on the way.

A decode function gets a record and returns its document: JSON that the contract then judges, as bytes or as
a dict. Instead of a document it may return a `Rejection`, a `Tombstone`, or `IGNORED`.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Protocol

import orjson
from pydantic_core import to_json

from streamflow.decoder import too_large
from streamflow.errors import ErrorCode
from streamflow.records import Record, Rejection

_MOST_LEVELS: Final = 254  # of lists and dicts that orjson writes
_LONG_INT: Final = 18  # digits that 64 bits always hold
_LONGEST_INT: Final = 20  # characters of what 64 bits can hold


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The row of a key is to be deleted.

    Args:
        key: JSON object with the fields of the primary key; None if only the record's own key says which
            row it is.
    """

    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """An expected record that means nothing."""


IGNORED: Final = Ignored()

Decoded = bytes | Rejection | Tombstone | Ignored
Decode = Callable[[Record], Decoded | Mapping[str, Any]]


class FormatReader(Protocol):
    """A format within which another one is written."""

    def prepare(self) -> None:
        """Raises ConfigurationError if it cannot work here. Uses no network."""

    def read_value(self, record: Record) -> Any:
        """The value as objects of Python, or a `Rejection`."""

    def read_key(self, record: Record) -> Any:
        """As `read_value`, of the key."""


def read_document(decode: Decode | None, record: Record) -> Decoded:
    """What a record says. Without `decode` its value is the document, and a null value a tombstone.

    Raises TypeError if a function of the user returns anything else, and what the function itself raises.
    """
    if decode is None:
        value = record.value()
        return Tombstone() if value is None else value
    found = decode(record)
    if isinstance(found, bytes | Rejection | Tombstone | Ignored):
        return found
    if isinstance(found, Mapping):
        return to_json(found)
    raise TypeError(
        f"decode returned {type(found).__name__}: return bytes or a dict, a Rejection, a Tombstone or IGNORED"
    )


def broken(message: str, exception: str = "ValueError") -> Rejection:
    """The rejection of bytes that are not of the format that was declared."""
    return Rejection(ErrorCode.INVALID_FORMAT, exception, message)


def violation(message: str) -> Rejection:
    """The rejection of a well-formed record that breaks the rules of its format."""
    return Rejection(ErrorCode.SCHEMA_VIOLATION, "ValueError", message)


def parse(value: bytes) -> Any:
    """JSON as objects of Python, or a `Rejection`. Numbers that Python would change are kept as text
    (`orjson.Fragment`) for `write`."""
    if not value:
        return Rejection(ErrorCode.EMPTY_VALUE, "ValueError", "the record has no value")
    if (rejection := too_large(value)) is not None:
        return rejection
    try:
        return json.loads(
            value.decode(),
            parse_int=_integer,
            parse_float=orjson.Fragment,
            parse_constant=_refuse,
        )
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 from byte {error.start} on"
        return Rejection(ErrorCode.INVALID_UTF8, "UnicodeDecodeError", reason)
    except RecursionError:
        return Rejection(ErrorCode.INVALID_JSON, "RecursionError", "nested too deeply")
    except ValueError as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        return Rejection(ErrorCode.INVALID_JSON, "JSONDecodeError", f"not JSON{where}")


def write(document: object) -> bytes | Rejection:
    """The JSON of what `parse` or a decoder has returned: decimals as text, bytes in base64, times by
    RFC 3339."""
    try:
        return orjson.dumps(document, _foreign, orjson.OPT_UTC_Z)
    except orjson.JSONEncodeError:
        # What is left: too deep, or a lone surrogate.
        if _nested_too_deeply(document):
            return Rejection(ErrorCode.SCHEMA_VIOLATION, "RecursionError", "nested too deeply")
        return Rejection(ErrorCode.UNSTORABLE_VALUE, "ValueError", "holds a lone surrogate")


def _foreign(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError


def _integer(digits: str) -> Any:
    if len(digits) <= _LONG_INT:
        return int(digits)
    if len(digits) <= _LONGEST_INT and -(2**63) <= (number := int(digits)) < 2**63:
        return number
    return orjson.Fragment(digits)


def _refuse(_name: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


def _nested_too_deeply(document: object) -> bool:
    """Whether orjson refuses a document for its depth: looked at level by level."""
    level = [document]
    for _ in range(_MOST_LEVELS):
        level = [
            part
            for item in level
            if isinstance(item, dict | list)
            for part in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True
