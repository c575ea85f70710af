"""Rows of forgotten subjects are emptied before they are stored (G16)."""

import json
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from streamflow.flow import TableRows
from streamflow.postgres import erasing
from streamflow.postgres.connections import Connection
from streamflow.postgres.erasing import Erased, Positions
from streamflow.postgres.forgotten import (
    DEAD_LETTER_BLANKS,
    NOTIFICATION_BLANKS,
    Forgotten,
    event_blanks,
    list_version,
    read_forgotten,
)
from streamflow.postgres.sink.claims import Resolved
from streamflow.postgres.sink.copied_lines import BinaryRows, Lines
from streamflow.postgres.sink.forgetting_windows import WindowLines
from streamflow.postgres.tables import (
    DEAD_LETTERS,
    NOTIFICATIONS,
    event_columns,
    event_table,
)
from streamflow.postgres.windows.tables import window_tables
from streamflow.privacy import Hasher
from streamflow.stream import Stream

# Held while an event is erased, so that no other loader stores what was derived from it.
_LOCK: Final = 0x5F10_F064


class Forgetting:
    """Empties the rows of forgotten subjects in a batch. Reads the list only when it has changed."""

    def __init__(self, streams: Sequence[Stream], hasher: Hasher) -> None:
        self._hasher = hasher
        self._version: Any = None
        self._known = Forgotten(hasher, ())
        self._events: dict[str, Lines] = {}
        self._binary_events: dict[str, BinaryRows] = {}
        for stream in streams:
            table, blanks = event_table(stream), event_blanks(stream, event_columns(stream))
            self._events[table.name] = Lines(table, blanks)
            self._binary_events[table.name] = BinaryRows(table, blanks)
        self._windows = {
            table.name: WindowLines(table) for stream in streams for table in window_tables(stream)
        }
        self._notifications = Lines(NOTIFICATIONS, NOTIFICATION_BLANKS)
        self._dead_letters = Lines(DEAD_LETTERS, DEAD_LETTER_BLANKS)

    def before(self, connection: Connection, resolved: Resolved) -> tuple[Resolved, list[Erased]]:
        """The same rows, those of forgotten subjects without what is theirs, and the positions of their
        events and dead letters. Call it in the transaction that stores the rows, once the positions are
        locked: whoever adds to the list waits for transactions that may not have seen it."""
        known = self._read(connection)
        if not known:
            return resolved, []
        erased: list[Erased] = []
        output = replace(resolved.output, tables=resolved.output.tables.copy())
        resolved = replace(resolved, output=output, replays=dict(resolved.replays))
        for name, rows in output.tables.items():
            if name in self._events:
                output.tables[name] = replace(rows, rows=self._emptied(known, name, rows, erased))
        for name, replays in resolved.replays.items():
            lines = _without_events(
                known, self._events[name], [row.line for row in replays], erased, known.of_hash
            )
            resolved.replays[name] = [
                row._replace(line=line) for row, line in zip(replays, lines, strict=True)
            ]
        derived = {
            name: output.tables[name]
            for name in (NOTIFICATIONS.name, DEAD_LETTERS.name)
            if name in output.tables and output.tables[name].rows
        }
        if erased or derived:
            # Another loader may be erasing the event of a notification here, or the reverse.
            lock = "pg_advisory_xact_lock" if erased else "pg_advisory_xact_lock_shared"
            connection.execute(f"SELECT {lock}(%s)".encode(), [_LOCK])
        if erased:
            erasing.note(connection, "events", erased)
        for name, rows in derived.items():
            lines = (
                self._without_notifications(connection, known, rows.lines, erased)
                if name == NOTIFICATIONS.name
                else self._without_dead_letters(connection, known, rows.lines, erased)
            )
            output.tables[name] = replace(rows, rows=lines)
        for name, windows in self._windows.items():
            if name in output.tables and output.tables[name].rows:
                lines = windows.without_subjects(connection, known, output.tables[name].lines)
                output.tables[name] = replace(output.tables[name], rows=lines)
        return resolved, erased

    def _read(self, connection: Connection) -> Forgotten:
        # The version first: if the list changes in between, the next batch reads it again.
        version = list_version(connection)
        if version != self._version:
            self._known = read_forgotten(connection, self._hasher)
            self._version = version
        return self._known

    def after(self, connection: Connection, erased: Sequence[Erased]) -> None:
        """Empties what is stored already of their events, and notes what was stored now."""
        erasing.erase_derived(connection, Positions.listed(erased))

    def _emptied(
        self, known: Forgotten, table: str, rows: TableRows, erased: list[Erased]
    ) -> list[bytes]:
        """The rows of a table of events, those of forgotten subjects emptied."""
        if rows.to_line is None:
            return _without_events(known, self._events[table], rows.rows, erased, known.of_hash)
        form, to_line = self._binary_events[table], rows.to_line

        def of_hash(row: bytes) -> int | None:
            # What looks like a hash in a binary row may be none, and bytes of a hash look like none.
            may_hold = form.holds_bytes or known.of_hash(row) is not None
            return known.of_hash(to_line(row)) if may_hold else None

        return _without_events(known, form, rows.rows, erased, of_hash)

    def _without_notifications(
        self, connection: Connection, known: Forgotten, lines: Sequence[bytes], erased: list[Erased]
    ) -> list[bytes]:
        form = self._notifications
        rows = [form.values(line) for line in lines]
        events = [form.position(values, NOTIFICATIONS.identity) for values in rows]
        of_event = erasing.erased_among(connection, events)
        kept = []
        for line, values, event in zip(lines, rows, events, strict=True):
            number = of_event.get(event, known.of_hash(line))
            if number is None:
                number = known.of_user(form.user(values))
            if number is not None:
                erased.append(Erased(number, event))
            kept.append(line if number is None else form.blank(values))
        return kept

    def _without_dead_letters(
        self, connection: Connection, known: Forgotten, lines: Sequence[bytes], erased: list[Erased]
    ) -> list[bytes]:
        form = self._dead_letters
        rows = [form.values(line) for line in lines]
        origin = ("origin_topic", "origin_partition", "origin_offset")
        places = [(form.position(v, DEAD_LETTERS.identity), form.position(v, origin)) for v in rows]
        of_event = erasing.erased_among(connection, {place for pair in places for place in pair})
        kept = []
        for line, values, (source, event) in zip(lines, rows, places, strict=True):
            number = of_event.get(source, of_event.get(event))
            if number is None:
                number = known.of_content(*self._pieces(values))
            if number is not None:
                erased.append(Erased(number, source))
            kept.append(line if number is None else form.blank(values))
        return kept

    def _pieces(self, values: Sequence[bytes]) -> list[bytes]:
        """Whatever of a dead letter may name a subject."""
        form = self._dead_letters
        texts = [
            form.text(values, name) for name in ("message", "stage", "exception", "group_name")
        ]
        data = [bytes.fromhex(form.text(values, name)[2:].decode()) for name in ("key", "value")]
        headers = json.loads(form.text(values, "headers"))
        named = [piece for name, content in headers for piece in (name.encode(), content)]
        contents = [b64decode(piece) if isinstance(piece, str) else piece for piece in named]
        return [piece for piece in (*texts, *data, *contents) if piece]


def _without_events(
    known: Forgotten,
    form: Lines | BinaryRows,
    rows: Sequence[bytes],
    erased: list[Erased],
    of_hash: Callable[[bytes], int | None],
) -> list[bytes]:
    """Rows of events, those of forgotten subjects emptied. `of_hash` says whose hash a row holds."""
    kept = []
    for row in rows:
        # What a form reads of a row is for itself only.
        values: Any = form.values(row)
        number = of_hash(row)
        if number is None and form.names_users:
            number = known.of_user(form.user(values))
        if number is not None:
            erased.append(form.erased(number, values))
        kept.append(row if number is None else form.blank(values))
    return kept
