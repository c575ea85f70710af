"""Values in the binary format of COPY (https://www.postgresql.org/docs/current/sql-copy.html), and back.

A row is the number of its fields, and each field its length, -1 for null, and its bytes: those that the
``receive`` function of its type reads. Nothing is converted on the way, so a column must have the very type
that is declared here. What has no certain form here raises one of `UNPACKABLE`; COPY text says it then. Pure.
"""

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg import DataError
from psycopg.types.numeric import DecimalBinaryDumper, NumericBinaryLoader

from streamflow.core_schema import EARLIEST, LATEST
from streamflow.groups import decimal_text
from streamflow.utc_texts import micros_of

# What stands before the rows of a COPY, and after them.
SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
NULL_FIELD: Final = b"\xff\xff\xff\xff"

# Raised for a value that has no certain binary form, or another type than its column.
UNPACKABLE: Final = (
    struct.error, AttributeError, TypeError, ValueError, OverflowError, KeyError, DataError,
)  # fmt: skip

_ZERO: Final = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's
_ZERO_DAY: Final = _ZERO.toordinal()
SINCE_1970: Final = 946_684_800_000_000  # microseconds from 1970 to there
_DAY: Final = 86_400_000_000  # microseconds
_MOST_DIGITS: Final = 1_000  # of a number, on either side of its point, that is packed here

_LENGTH: Final = struct.Struct(">i")
_INT4: Final = struct.Struct(">i")
_INT8: Final = struct.Struct(">q")
_DOUBLE: Final = struct.Struct(">d")
_SPAN: Final = struct.Struct(">qii")
_COUNT: Final = struct.Struct(">h")


class Format(NamedTuple):
    """The binary form of a type's values: of which types they may be, how they are packed; `unpack` gives a
    value that has the same text as what was packed."""

    kinds: tuple[type, ...]
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]


def pack_moment(value: datetime) -> bytes:
    """Raises TypeError for a time without a zone."""
    return _INT8.pack(micros_of(value) - SINCE_1970)


def _pack_sound_moment(value: datetime) -> bytes:
    if not EARLIEST <= value <= LATEST:  # what may be no date in UTC
        raise ValueError
    return pack_moment(value)


def _pack_time(value: time) -> bytes:
    if value.tzinfo is not None:
        raise ValueError
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    return _INT8.pack(seconds * 1_000_000 + value.microsecond)


def _unpack_time(raw: bytes) -> time:
    return moment_of(_INT8.unpack(raw)[0]).time()


def _pack_span(value: timedelta) -> bytes:
    return _SPAN.pack(value.seconds * 1_000_000 + value.microseconds, value.days, 0)


def _unpack_span(raw: bytes) -> timedelta:
    microseconds, days, _ = _SPAN.unpack(raw)
    return timedelta(days, microseconds=microseconds)


def _pack_number(value: Decimal | int) -> bytes:
    value = Decimal(value)
    if not value.is_finite() or abs(value.adjusted()) > _MOST_DIGITS:
        raise ValueError
    # The same digits behind the point as in the text.
    return bytes(_NUMBERS.dump(Decimal(decimal_text(value))) or b"")


_BOOLS: Final = (b"\x00", b"\x01")
_NUMBERS: Final = DecimalBinaryDumper(Decimal)
_READ_NUMBER: Final = NumericBinaryLoader(0).load

FORMATS: Final[dict[str, Format]] = {
    "text": Format((str,), str.encode, bytes.decode),
    "bigint": Format((int,), _INT8.pack, lambda raw: _INT8.unpack(raw)[0]),
    "integer": Format((int,), _INT4.pack, lambda raw: _INT4.unpack(raw)[0]),
    "boolean": Format((bool,), _BOOLS.__getitem__, lambda raw: raw == _BOOLS[True]),
    "double precision": Format((float, int), _DOUBLE.pack, lambda raw: _DOUBLE.unpack(raw)[0]),
    "numeric": Format((Decimal, int), _pack_number, _READ_NUMBER),
    "bytea": Format((bytes,), bytes, bytes),
    "uuid": Format((UUID,), lambda value: value.bytes, lambda raw: UUID(bytes=raw)),
    # Of JSON text, behind the number of the format's version.
    "jsonb": Format((str,), lambda text: b"\x01" + text.encode(), lambda raw: raw[1:].decode()),
    "timestamp with time zone": Format(
        (datetime,), _pack_sound_moment, lambda raw: moment_of(_INT8.unpack(raw)[0])
    ),
    "date": Format(
        (date,),
        lambda value: _INT4.pack(value.toordinal() - _ZERO_DAY),
        lambda raw: date.fromordinal(_INT4.unpack(raw)[0] + _ZERO_DAY),
    ),
    "time without time zone": Format((time,), _pack_time, _unpack_time),
    "interval": Format((timedelta,), _pack_span, _unpack_span),
}
# Other types have texts of their own (`events.text_of`).
_KNOWN_KINDS: Final = (
    str, int, float, bytes, Decimal, datetime, date, time, timedelta, UUID, list, dict,
)  # fmt: skip


def format_of(column_type: str) -> Format:
    """Of a type as PostgreSQL's ``format_type`` spells it, with or without its precision."""
    return FORMATS[column_type.partition("(")[0]]


def pack(form: Format, value: Any) -> bytes | None:
    """The bytes of a field; None for null."""
    if type(value) not in form.kinds:
        if isinstance(value, Enum):
            value = value.value
        elif str in form.kinds and not isinstance(value, _KNOWN_KINDS) and value is not None:
            value = str(value)  # a URL, say
        if value is None:
            return None
        if type(value) not in form.kinds:
            raise TypeError
    return form.pack(value)


def row_of(fields: Sequence[bytes | None]) -> bytes:
    """A row with these fields."""
    parts = [_COUNT.pack(len(fields))]
    for field in fields:
        parts += [NULL_FIELD] if field is None else [_LENGTH.pack(len(field)), field]
    return b"".join(parts)


def fields_of(row: bytes) -> list[bytes | None]:
    """The fields of a row."""
    fields: list[bytes | None] = []
    at = _COUNT.size
    while at < len(row):
        [length] = _LENGTH.unpack_from(row, at)
        at += _LENGTH.size
        fields.append(None if length < 0 else row[at : at + length])
        at += max(length, 0)
    return fields


def moment_of(micros: int) -> datetime:
    """The time that PostgreSQL keeps as so many microseconds since 2000."""
    return _ZERO + timedelta(microseconds=micros)


def day_of(micros: int) -> date:
    """The day, in UTC, of a time in microseconds since 1970."""
    return date.fromordinal(_UNIX_DAY + micros // _DAY)


_UNIX_DAY: Final = date(1970, 1, 1).toordinal()
