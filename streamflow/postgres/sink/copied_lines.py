"""Rows for COPY, read and emptied."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from streamflow.postgres.erasing import Erased
from streamflow.postgres.forgotten import USER
from streamflow.postgres.rows.binary import fields_of, format_of, pack, row_of
from streamflow.postgres.rows.events import text_of
from streamflow.postgres.tables import Table
from streamflow.records import Origin

_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPES: Final = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}


class Lines:
    """Lines of COPY text of one table, as values by column."""

    def __init__(self, table: Table, blanks: dict[str, Any]) -> None:
        self._at = {name: index for index, name in enumerate(table.columns)}
        self.names_users = USER in self._at
        self._identity = table.identity
        self._blanks = {
            self._at[name]: text_of(value).encode()
            for name, value in blanks.items()
            if name in self._at
        }

    def values(self, line: bytes) -> list[bytes]:
        return line[:-1].split(b"\t")

    def text(self, values: Sequence[bytes], column: str) -> bytes:
        """A column's text; of null, none."""
        raw = values[self._at[column]]
        if b"\\" not in raw:
            return raw
        return (
            b""
            if raw == rb"\N"
            else _ESCAPED.sub(lambda match: _ESCAPES.get(match[1], match[1]), raw)
        )

    def user(self, values: Sequence[bytes]) -> str:
        return self.text(values, USER).decode() if self.names_users else ""

    def position(self, values: Sequence[bytes], columns: Iterable[str]) -> Origin:
        topic, partition, offset = (self.text(values, column) for column in columns)
        return Origin(topic.decode(), int(partition), int(offset))

    def erased(
        self, number: int, values: Sequence[bytes], columns: Iterable[str] | None = None
    ) -> Erased:
        """Its position is that of the identity, unless `columns` say another one."""
        at = self.text(values, "appended_at").decode()
        return Erased(number, self.position(values, columns or self._identity), at or None)

    def put(self, values: list[bytes], column: str, text: bytes) -> None:
        """Sets a column to COPY text."""
        values[self._at[column]] = text

    def blank(self, values: Sequence[bytes]) -> bytes:
        return self.line([self._blanks.get(index, value) for index, value in enumerate(values)])

    @staticmethod
    def line(values: Sequence[bytes]) -> bytes:
        return b"\t".join(values) + b"\n"


class BinaryRows:
    """Binary rows of a table of events. What they hold is read without making text of all of it."""

    def __init__(self, table: Table, blanks: dict[str, Any]) -> None:
        self._at = {name: index for index, name in enumerate(table.columns)}
        self.names_users = USER in self._at
        self.holds_bytes = "bytea" in table.types  # which are digits in text
        self._identity = table.identity
        self._formats = [format_of(kind) for kind in table.types]
        self._blanks = {
            self._at[name]: pack(self._formats[self._at[name]], value)
            for name, value in blanks.items()
            if name in self._at
        }

    def values(self, row: bytes) -> list[bytes | None]:
        return fields_of(row)

    def user(self, values: Sequence[bytes | None]) -> str:
        return self._text(values, USER) if self.names_users else ""

    def erased(self, number: int, values: Sequence[bytes | None]) -> Erased:
        topic, partition, offset = (self._text(values, column) for column in self._identity)
        position = Origin(topic, int(partition), int(offset))
        return Erased(number, position, self._text(values, "appended_at") or None)

    def blank(self, values: Sequence[bytes | None]) -> bytes:
        return row_of([self._blanks.get(index, value) for index, value in enumerate(values)])

    def _text(self, values: Sequence[bytes | None], column: str) -> str:
        at = self._at[column]
        raw = values[at]
        if raw is None:
            return ""
        value = self._formats[at].unpack(raw)
        return value if isinstance(value, str) else text_of(value)
