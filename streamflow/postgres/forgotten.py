"""Forgotten subjects (G16): which records are theirs, and what an erased row keeps.

The list, ``erasures``, knows a subject by hashes alone. An erased row keeps its position, its time and
what its windows count it by, so that the audit closes over it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import sql

from streamflow import addresses
from streamflow.aggregates.distinct import hash_of
from streamflow.aggregates.values import shortened
from streamflow.errors import ConfigurationError
from streamflow.pii_keys import HASH_LENGTH
from streamflow.postgres.connections import Connection
from streamflow.postgres.tables import DELETED, ORIGIN_COLUMNS, TIME_COLUMNS, Column
from streamflow.privacy import Hasher, is_hashed
from streamflow.stream import Stream

ERASED: Final = "erased"  # stands where a text may not be null
ERASED_HASH: Final = "0" * HASH_LENGTH  # where a hash may not
USER: Final = "user"  # the field that names a user

_DIGITS = re.compile(rb"[0-9a-f]{64,}+")  # a hash, perhaps among other digits
_NAMED = re.compile(rb'"user"\s*+:\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
_LONGEST_NAME: Final = 1024  # bytes of a text that may be a name
_NAMES_REMEMBERED: Final = 4096

# A row of an event table, called `event`, that is of no forgotten subject: theirs are emptied, and no events.
NOT_ERASED: Final[LiteralString] = """
NOT EXISTS (
    SELECT FROM erased_records AS erased WHERE erased.place = 'events'
       AND (erased.topic, erased.partition, erased."offset")
         = (event.origin_topic, event.origin_partition, event.origin_offset)
)
"""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# What stands in a column that may not be null, by type.
_NEUTRAL: Final[dict[str, Any]] = {
    **dict.fromkeys(("bigint", "integer", "smallint", "numeric"), 0),
    **dict.fromkeys(("double precision", "real"), 0.0),
    "boolean": False,
    "text": ERASED,
    "character varying": "",
    "jsonb": "null",
    "bytea": b"",
    "timestamp with time zone": _EPOCH,
    "date": _EPOCH.date(),
    "time without time zone": _EPOCH.time(),
    "interval": timedelta(0),
    "uuid": UUID(int=0),
}
NOTIFICATION_BLANKS: Final[dict[str, Any]] = {"message": ERASED, "event_id": 0, "user": ERASED}
# Headers of a foreign record may say anything, also where ours say what went wrong.
DEAD_LETTER_BLANKS: Final[dict[str, Any]] = {
    "key": None, "value": None, "headers": "[]",
    "message": ERASED, "stage": ERASED, "exception": "", "group_name": "",
}  # fmt: skip


# xmin and ctid of a row are others once it is changed.
_VERSION: Final = """
SELECT count(*), sum(hash_record_extended(ROW(id, xmin, ctid), 0)) FROM erasures
"""


class Kind(StrEnum):
    """What a subject is named by."""

    ADDRESS = "address"
    USER = "user"


def hashes_of(hasher: Hasher, kind: Kind, text: str) -> tuple[str, ...]:
    """All hashes that a subject may be stored under: the only place that makes them. An address is tried
    as it is written, in its plain form and in lower case; a hash is one already. Long names are known as
    windows shorten them, too."""
    if kind is Kind.USER:
        return tuple(
            hashed
            for name in dict.fromkeys((text, shortened(text)))
            for hashed in hasher.keys.exact(name)
        )
    if is_hashed(text):
        return with_lifted(hasher, [text])
    local, _, domain = text.rpartition("@")
    plain = addresses.plain(text.encode("utf-8", "surrogatepass"))
    forms = dict.fromkeys((text, plain, f"{local}@{domain.lower()}", text.lower(), plain.lower()))
    return tuple(dict.fromkeys(hashed for form in forms for hashed in hasher.hashes(form)))


def with_lifted(hasher: Hasher, hashes: Iterable[str]) -> tuple[str, ...]:
    """These hashes, and each as the newest key has it: a subject may have been forgotten before that key."""
    return tuple(dict.fromkeys(form for one in hashes for form in (one, hasher.lifted(one))))


class Forgotten:
    """Subjects: the erasure's id, what they are named by, and their hashes."""

    def __init__(self, hasher: Hasher, subjects: Iterable[tuple[int, str, Sequence[str]]]) -> None:
        self._hasher = hasher
        self._addresses: dict[bytes, int] = {}
        self._users: dict[str, int] = {}
        for number, kind, hashes in subjects:
            forms = with_lifted(hasher, hashes)
            if kind == Kind.USER:
                self._users.update(dict.fromkeys(forms, number))
            else:
                self._addresses.update(dict.fromkeys(map(str.encode, forms), number))
        # The same users come again and again, and each costs an HMAC for every key.
        self._of_user = lru_cache(_NAMES_REMEMBERED)(self._user_by_hash)

    def __bool__(self) -> bool:
        return bool(self._addresses or self._users)

    @cached_property
    def sketched(self) -> dict[bytes, int]:
        """The erasures by what a sketch of different values keeps of a hash of an address, in digits, and of
        the names that `of_user` was asked for: others are not known."""
        return {_sketched(hashed.decode()): number for hashed, number in self._addresses.items()}

    def of_user(self, name: str) -> int | None:
        """The erasure of the user with this name."""
        return self._of_user(name) if self._users else None

    def _user_by_hash(self, name: str) -> int | None:
        forms = hashes_of(self._hasher, Kind.USER, name)
        number = next((self._users[hashed] for hashed in forms if hashed in self._users), None)
        if number is not None:
            self.sketched[_sketched(name)] = number
        return number

    def of_hash(self, text: bytes) -> int | None:
        """The erasure of an address whose hash is somewhere in a text."""
        if self._addresses:
            for match in _DIGITS.finditer(text):
                digits = match[0]
                for begin in range(len(digits) - HASH_LENGTH + 1):
                    number = self._addresses.get(digits[begin : begin + HASH_LENGTH])
                    if number is not None:
                        return number
        return None

    def of_content(self, *pieces: bytes | None) -> int | None:
        """The erasure that one of these redacted pieces belongs to: keys, values, headers."""
        for piece in pieces:
            # Redacted text in UTF-16 or UTF-32 holds hashes in it, too.
            text = piece.replace(b"\0", b"") if piece and 0 in piece else piece
            number = self._of_text(text) if text else None
            if number is not None:
                return number
        return None

    def _of_text(self, text: bytes) -> int | None:
        number = self.of_hash(text)
        if number is None and self._users:
            names = [addresses.unescaped(raw) for raw in _NAMED.findall(text)]
            if len(text) <= _LONGEST_NAME:
                names.append(text.decode("utf-8", "replace"))
            number = next((known for name in names if (known := self.of_user(name))), None)
        return number


def _sketched(text: str) -> bytes:
    return str(hash_of(text)).encode()


def list_version(connection: Connection) -> Any:
    """What differs whenever the list does: of the versions of its rows, without what is in them. Two
    transactions that change it at once both change this, in whatever order they commit."""
    return connection.execute(_VERSION).fetchone()


def read_forgotten(connection: Connection, hasher: Hasher) -> Forgotten:
    return Forgotten(hasher, connection.execute("SELECT id, kind, hashes FROM erasures"))


def event_blanks(stream: Stream, columns: Iterable[Column]) -> dict[str, Any]:
    """What an erased event has in those columns that it does not keep. Raises ConfigurationError if one
    of them cannot be emptied."""
    kept = {stream.kind_field, stream.event_time, *ORIGIN_COLUMNS, *TIME_COLUMNS}
    if stream.mode == "upsert":
        # What identifies a row is kept, as a position is; but not if it is a name.
        kept |= {DELETED, *stream.primary_key} - {USER}
    blanks: dict[str, Any] = {}
    for name, kind, nullable in (
        (column.name, column.type.partition("(")[0], column.nullable) for column in columns
    ):
        if name in kept:
            continue
        if not nullable and kind not in _NEUTRAL:
            raise ConfigurationError(
                f"column {stream.event_table}.{name} ({kind}) cannot be emptied: allow it to be null (ALTER "
                f"TABLE {stream.event_table} ALTER COLUMN {name} DROP NOT NULL)"
            )
        if nullable:
            blanks[name] = None
        else:
            # Checks of the data's quality want hashes in private columns.
            is_private = name in stream.decoder.private_fields and kind == "text"
            blanks[name] = ERASED_HASH if is_private else _NEUTRAL[kind]
    return blanks


def assignments(blanks: Mapping[str, Any], types: Mapping[str, str]) -> sql.Composed:
    """The SET clause that empties columns; its parameters are those of `parameters`."""
    return sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), _blank(name, types)) for name in blanks
    )


def differences(blanks: Mapping[str, Any], types: Mapping[str, str]) -> sql.Composed:
    """The condition that a row of table `kept` is not emptied yet; parameters as for `assignments`."""
    columns = sql.SQL(", ").join(sql.Identifier("kept", name) for name in blanks)
    values = sql.SQL(", ").join(_blank(name, types) for name in blanks)
    return sql.SQL("({}) IS DISTINCT FROM ({})").format(columns, values)


def _blank(name: str, types: Mapping[str, str]) -> sql.Composed:
    return sql.SQL("{}::{}").format(sql.Placeholder(f"blank {name}"), sql.SQL(types[name]))


def parameters(blanks: Mapping[str, Any]) -> dict[str, Any]:
    return {f"blank {name}": value for name, value in blanks.items()}
