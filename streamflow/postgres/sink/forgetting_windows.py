"""Rows of windows are emptied of what names a forgotten subject before they are stored (G16)."""

from collections.abc import Iterator, Sequence
from typing import Final

from streamflow.postgres import erasing
from streamflow.postgres.connections import Connection
from streamflow.postgres.forgotten import Forgotten
from streamflow.postgres.rows.events import text_of
from streamflow.postgres.sink.copied_lines import Lines
from streamflow.postgres.tables import RECORD_COLUMNS
from streamflow.postgres.windows.naming import (
    end_columns,
    erased_place,
    naming_columns,
    naming_sketches,
)
from streamflow.postgres.windows.tables import WindowTable
from streamflow.records import Origin

_NULL: Final = rb"\N"
_OF_EVENTS: Final = ("events", "replayed")


class WindowLines:
    """Lines of one table of windows."""

    def __init__(self, table: WindowTable) -> None:
        self._place = erased_place(table.name)
        self._lines = Lines(table.table, {})
        self._users = _encoded(naming_columns(table, of_user=True))
        self._addresses = _encoded(naming_columns(table, of_user=False))
        self._sketches = {
            *naming_sketches(table, of_user=False),
            *naming_sketches(table, of_user=True),
        }
        self._ends = end_columns(table)

    def without_subjects(
        self, connection: Connection, known: Forgotten, lines: Sequence[bytes]
    ) -> list[bytes]:
        """The same lines without what names the subjects, and without first and last values of erased
        events. Notes which are changed."""
        form = self._lines
        rows = [form.values(line) for line in lines]
        ends = [dict(self._positions(values)) for values in rows]
        of_events = erasing.erased_among(
            connection, {position for each in ends for position in each.values()}, _OF_EVENTS
        )
        kept, erased = [], []
        for line, values, positions in zip(lines, rows, ends, strict=True):
            changes = dict(self._of_subjects(known, line, values))
            changes |= {
                name: (of_events[position], _NULL)
                for name, position in positions.items()
                if position in of_events
            }
            if changes:
                number = next(iter(changes.values()))[0]
                erased.append(form.erased(number, values, RECORD_COLUMNS))
                for name, (_, blank) in changes.items():
                    form.put(values, name, blank)
            kept.append(form.line(values) if changes else line)
        if erased:
            erasing.note(connection, self._place, erased)
        return kept

    def _positions(self, values: Sequence[bytes]) -> Iterator[tuple[str, Origin]]:
        """Of the events whose values are the first or the last ones."""
        for name, offset in self._ends.items():
            at = self._lines.text(values, offset)
            if at and self._lines.text(values, name):
                yield name, self._lines.position(values, ("origin_topic", "partition", offset))

    def _of_subjects(
        self, known: Forgotten, line: bytes, values: Sequence[bytes]
    ) -> Iterator[tuple[str, tuple[int, bytes]]]:
        """Columns that name a forgotten subject: the erasure, and what is left in the column."""
        form = self._lines
        if known.of_hash(line) is not None:
            for name, blank in self._addresses.items():
                number = known.of_hash(form.text(values, name))
                if number is not None:
                    yield name, (number, blank)
        for name, blank in self._users.items():
            number = known.of_user(form.text(values, name).decode())
            if number is not None:
                yield name, (number, blank)
        for name in self._sketches:
            hashes = form.text(values, name)[1:-1].split(b",")
            theirs = known.sketched.keys() & hashes
            if theirs:
                left = b",".join(each for each in hashes if each not in theirs)
                yield name, (known.sketched[min(theirs)], b"{" + left + b"}")


def _encoded(blanks: dict[str, str | None]) -> dict[str, bytes]:
    return {name: text_of(blank).encode() for name, blank in blanks.items()}
