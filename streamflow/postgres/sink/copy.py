"""How the rows of a batch get into their tables, inside a transaction that the sink holds.

Fast path: one COPY for each table, binary for events, for a batch whose rows are all new and accepted, as
in nearly every batch. Slow path: COPY of text into a temporary table and from there what is not stored yet;
where the database refuses rows, `refusals` finds out which. (Replayed events always take it: `replayed`.)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.copy import LibpqWriter
from psycopg.generators import copy_to

from streamflow.flow import Output
from streamflow.postgres.connections import Connection, is_refusal
from streamflow.postgres.rows.binary import SIGNATURE, TRAILER
from streamflow.postgres.sink.refusals import (
    find_refused,
    key_columns,
    rejection_of_error,
    types_of,
)
from streamflow.postgres.tables import DELETED, REFUSED_EVENTS, Table
from streamflow.records import Record, Rejection, position_of

_PIECE: Final = 4 * 1024 * 1024  # bytes

# A stream may have a field or a table of any name, but none with a space in it: so ours have one.
INCOMING: Final = "incoming rows"
_CREATE_INCOMING: Final = """
CREATE TEMPORARY TABLE "incoming rows" (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DROP
"""
_INSERT_NEW: Final = """
INSERT INTO {table} ({columns})
SELECT {columns} FROM "incoming rows" ORDER BY {offset}
ON CONFLICT DO NOTHING
"""
# Incoming rows of which another record is the stored one. A row whose own record is stored is none: that
# record was read again, after positions were reset.
_NOTE_DUPLICATES: Final = """
INSERT INTO duplicates (topic, partition, "offset", origin_topic, origin_partition, origin_offset,
                        table_name, event_type, event_time, appended_at)
SELECT {position}, {identity}, {name}, {event_type}::text, {event_time}, appended_at
  FROM "incoming rows"
 WHERE NOT EXISTS (SELECT FROM {stored_in} AS kept WHERE ({kept}) = ({own}))
ON CONFLICT DO NOTHING
"""
_CREATE_REFUSED: Final = """
CREATE TEMPORARY TABLE "refused rows" (LIKE refused_events INCLUDING DEFAULTS) ON COMMIT DROP
"""
# Some may be there already: they were read again, after positions were reset.
_INSERT_REFUSED: Final = """
INSERT INTO refused_events TABLE "refused rows" ON CONFLICT DO NOTHING
"""


class Stored(NamedTuple):
    """What became of a batch's rows."""

    rows: int
    duplicates: int
    refused: list[tuple[Record, Rejection]]

    def plus(self, other: "Stored") -> "Stored":
        refused = [*self.refused, *other.refused]
        return Stored(self.rows + other.rows, self.duplicates + other.duplicates, refused)


class Row(NamedTuple):
    """A line of COPY text and the record behind it."""

    line: bytes  # of a replayed event, with the origin as its identity
    record: Record
    attempt: int | None = None  # how often the event had been replayed by then; None for no replay

    @property
    def incoming(self) -> bytes:
        """COPY text of the temporary table: of a replay with its own position, and the attempt."""
        if self.attempt is None:
            return self.line
        topic, partition, offset = position_of(self.record)
        return self.line[:-1] + f"\t{topic}\t{partition}\t{offset}\t{self.attempt}\n".encode()


def copy_rows(connection: Connection, tables: Mapping[str, Table], output: Output) -> Stored:
    """The fast path: COPY, straight into the tables. Raises psycopg.Error if a row is refused, or there
    already, and OtherTypes if rows must be text; the transaction is void then."""
    stored = 0
    for name, rows in output.tables.items():
        if not rows.rows:
            continue
        if rows.is_binary:
            _copy_binary(connection, tables[name], rows.rows)
        else:
            copy(connection, sql.Identifier(name), tables[name].columns, rows.rows)
        stored += len(rows.rows)
    return Stored(stored, 0, [])


class OtherTypes(Exception):
    """A table's columns have other types than binary rows have."""


def _copy_binary(connection: Connection, table: Table, rows: Sequence[bytes]) -> None:
    """Raises OtherTypes; the transaction is void then."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        sql.Identifier(table.name), names(table.columns)
    )
    _copy(connection, statement, chain([SIGNATURE], _pieces(rows), [TRAILER]))
    # Not before: from now on the table is locked against changes of its types. PostgreSQL itself only
    # notices where the values have another length.
    if other_types(connection, table):
        raise OtherTypes


def other_types(connection: Connection, table: Table) -> list[str]:
    """The columns of a table that have another type than its rows have."""
    found = types_of(connection, table.name)
    return [
        name
        for name, kind in zip(table.columns, table.types, strict=True)
        if found.get(name) != kind
    ]


def merge_rows(connection: Connection, tables: Mapping[str, Table], output: Output) -> Stored:
    """The slow path: stores what is new and accepted, notes duplicates, and singles out what the database
    refuses."""
    stored = Stored(0, 0, [])
    for name, rows in output.tables.items():
        if rows.rows:
            table = tables[name]
            own = (*table.identity, *table.position)
            merge = Merge(
                create=sql.SQL(_CREATE_INCOMING).format(table=sql.Identifier(name)),
                columns=table.columns,
                insert=sql.SQL(_INSERT_NEW).format(
                    table=sql.Identifier(name),
                    columns=names(table.columns),
                    offset=sql.Identifier(table.position[2]),
                ),
                note_duplicates=note_duplicates(table, table.position, name, own, own),
            )
            items = list(map(Row, rows.lines, rows.sources))
            stored = stored.plus(merge_items(connection, table, items, merge))
    return stored


class Merge(NamedTuple):
    """How rows get into a table by way of the temporary table `INCOMING`."""

    create: sql.Composed  # creates it
    columns: Sequence[str]  # that are copied into it
    insert: sql.Composed  # moves what is not stored yet into the table
    note_duplicates: sql.Composed  # notes the others


def merge_items(connection: Connection, table: Table, items: Sequence[Row], merge: Merge) -> Stored:
    """Stores those of some rows that are new and accepted."""
    rows = duplicates = 0

    def store(part: Sequence[Row]) -> None:
        nonlocal rows, duplicates
        lines = [item.incoming for item in part]
        copy(connection, sql.Identifier(INCOMING), merge.columns, lines)
        stored = connection.execute(merge.insert).rowcount
        noted = connection.execute(merge.note_duplicates).rowcount
        connection.execute('DELETE FROM "incoming rows"')
        rows, duplicates = rows + stored, duplicates + noted

    connection.execute(merge.create)
    refused = _store_accepted(connection, table, items, store)
    connection.execute('DROP TABLE "incoming rows"')
    return Stored(rows, duplicates, refused)


def copy(
    connection: Connection, target: sql.Composable, columns: Sequence[str], lines: Sequence[bytes]
) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(target, names(columns))
    _copy(connection, statement, _pieces(lines))


def _copy(connection: Connection, statement: sql.Composed, pieces: Iterable[bytes]) -> None:
    with (
        connection.cursor() as cursor,
        cursor.copy(statement, writer=_WholeWriter(cursor)) as stream,
    ):
        for piece in pieces:
            stream.write(piece)


def _pieces(lines: Sequence[bytes]) -> Iterator[bytes]:
    """The lines, joined up to a size: of large ones there are not two copies at a time."""
    if sum(map(len, lines)) <= _PIECE:
        yield b"".join(lines)
        return
    size, start = 0, 0
    for end, line in enumerate(lines):
        if size + len(line) > _PIECE and size:
            yield b"".join(lines[start:end])
            size, start = 0, end
        size += len(line)
    yield b"".join(lines[start:])


class _WholeWriter(LibpqWriter):
    """Passes large pieces to libpq. psycopg's own writer waits for the socket after each 128 KiB, and
    after each wait its thread must get the interpreter back from the one that makes the next batch."""

    def write(self, data: Buffer) -> None:
        whole = memoryview(data)
        for start in range(0, len(whole), _PIECE):
            self.connection.wait(copy_to(self._pgconn, whole[start : start + _PIECE]))


def note_duplicates(
    table: Table, position: Sequence[str], stored_in: str, kept: Sequence[str], own: Sequence[str]
) -> sql.Composed:
    """Notes the rows of `INCOMING`, meant for `table`, that were not stored.

    Args:
        position: the columns of `INCOMING` with the position of a row's record.
        stored_in: the table that says which rows are stored,
        kept: in these columns,
        own: by the values of these columns of `INCOMING`.
    """
    return sql.SQL(_NOTE_DUPLICATES).format(
        position=names(position),
        identity=names(table.identity),
        name=sql.Literal(table.name),
        event_type=_name_or_null(table.event_type),
        event_time=_counted_time(table),
        stored_in=sql.Identifier(stored_in),
        kept=names(kept, of="kept"),
        own=names(own, of=INCOMING),
    )


def _store_accepted(
    connection: Connection,
    table: Table,
    items: Sequence[Row],
    store: Callable[[Sequence[Row]], None],
) -> list[tuple[Record, Rejection]]:
    """Stores all but the items that the database refuses, which it notes and returns."""
    refused: list[tuple[Row, Rejection]] = []
    if _refusal(connection, items, store) is not None:
        known = find_refused(connection, table, [item.line for item in items])
        accepted = [item for index, item in enumerate(items) if index not in known]
        refused = [(items[index], rejection) for index, rejection in known.items()]
        # Nearly always that was all, except for what only rows together violate.
        refused += _refused_of(connection, table, accepted, store)
    if refused and table.holds_events:
        events = [item for item, _ in refused if not _is_tombstone(table, item)]
        _note_refused(connection, table, events)
    return [(item.record, rejection) for item, rejection in refused]


def _refused_of(
    connection: Connection,
    table: Table,
    items: Sequence[Row],
    store: Callable[[Sequence[Row]], None],
) -> list[tuple[Row, Rejection]]:
    """Stores all but what the database refuses, in halves and halves of halves."""
    error = _refusal(connection, items, store) if items else None
    if error is None:
        return []
    if len(items) == 1:
        return [(items[0], rejection_of_error(error, key_columns(connection, table)))]
    halves = items[: len(items) // 2], items[len(items) // 2 :]
    return [refused for half in halves for refused in _refused_of(connection, table, half, store)]


def _refusal(
    connection: Connection, items: Sequence[Row], store: Callable[[Sequence[Row]], None]
) -> psycopg.Error | None:
    """Stores items; the error if the database refuses one of them, and none is stored."""
    try:
        with connection.transaction():
            store(items)
    except psycopg.Error as error:
        if is_refusal(error):
            return error
        raise
    return None


def _note_refused(connection: Connection, table: Table, items: Sequence[Row]) -> None:
    """Notes what the windows count of events that are in no table."""

    def store(part: Sequence[Row], *, with_kind: bool = True) -> None:
        lines = [_noted(table, item, with_kind=with_kind) for item in part]
        copy(connection, sql.Identifier("refused rows"), REFUSED_EVENTS.columns, lines)

    connection.execute(_CREATE_REFUSED)
    # What COPY cannot read may be the event's kind: it is in no table then.
    for item, _ in _refused_of(connection, table, items, store):
        store([item], with_kind=False)
    connection.execute(_INSERT_REFUSED)
    connection.execute('DROP TABLE "refused rows"')


def _noted(table: Table, item: Row, *, with_kind: bool) -> bytes:
    """The row of `refused_events`. Where COPY cannot read a line, times and position at its end are sound."""
    columns, fields = table.columns, item.line.rstrip(b"\n").split(b"\t")
    kind, with_kind = rb"\N", with_kind and len(fields) == len(columns)
    if with_kind and table.event_type is not None:
        kind = fields[columns.index(table.event_type)]
    times = [
        rb"\N" if name is None else fields[columns.index(name) - len(columns)]
        for name in (table.event_time, "appended_at")
    ]
    topic, partition, offset = position_of(item.record)
    position = f"{topic}\t{partition}\t{offset}".encode()
    return b"\t".join((position, kind, *times)) + b"\n"


def _is_tombstone(table: Table, item: Row) -> bool:
    return table.deletes and item.line.split(b"\t")[table.columns.index(DELETED)] == b"true"


def names(columns: Sequence[str], of: str | None = None) -> sql.Composed:
    """Columns, of a table if given, separated by commas."""
    table = () if of is None else (of,)
    return sql.SQL(", ").join(sql.Identifier(*table, column) for column in columns)


def _counted_time(table: Table) -> sql.Composable:
    """When an event is counted: a tombstone is not."""
    time = _name_or_null(table.event_time)
    return sql.SQL("CASE WHEN NOT deleted THEN {} END").format(time) if table.deletes else time


def _name_or_null(column: str | None) -> sql.Composable:
    return sql.SQL("NULL") if column is None else sql.Identifier(column)
