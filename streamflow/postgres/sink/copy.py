"""How the rows of a batch get into their tables, inside a transaction that the sink holds.

There are two roads. Plain: one COPY per table, for the batch whose rows are all new and sound, which
is nearly every batch. Careful: COPY into a temporary table and from there what is not stored yet; where
the database refuses rows, it is first asked which. (`replays` has a third.)
"""

from collections.abc import Callable, Sequence
from typing import Final, LiteralString, NamedTuple, Protocol, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.copy import LibpqWriter
from psycopg.generators import copy_to

from streamflow.flow import Output
from streamflow.postgres.connections import Connection, is_refusal
from streamflow.postgres.sink.refusals import find_refused, rejection
from streamflow.postgres.tables import Table
from streamflow.records import Record, Rejection, position_of


class HasRecord(Protocol):
    """Something to be stored, with the record behind it."""

    @property
    def line(self) -> bytes:
        """COPY text of its table."""

    @property
    def record(self) -> Record:
        """The record that told it."""


_T = TypeVar("_T", bound=HasRecord)

# Only the sink writes it, and only the audit reads it.
_REFUSED_EVENTS: Final = Table(
    name="refused_events",
    columns=("topic", "partition", "offset", "event_type", "event_time", "appended_at"),
    position=("topic", "partition", "offset"),
    identity=("topic", "partition", "offset"),
)

_PIECE: Final = 4 * 1024 * 1024  # bytes


class Stored(NamedTuple):
    """What became of a batch's rows."""

    rows: int
    duplicates: int
    refused: list[tuple[Record, Rejection]]


class Row(NamedTuple):
    """A line of COPY text and the record behind it."""

    line: bytes
    record: Record


def store_plainly(connection: Connection, tables: dict[str, Table], output: Output) -> Stored:
    """COPY, straight into the tables.

    Raises:
        psycopg.Error: a row is refused, or there already; the transaction is void.
    """
    rows = 0
    for name, batch in output.tables.items():
        if batch.lines:
            copy(connection, tables[name], sql.Identifier(name), batch.lines)
            rows += len(batch.lines)
    return Stored(rows, 0, [])


def store_carefully(connection: Connection, tables: dict[str, Table], output: Output) -> Stored:
    """Stores what is new and sound, whatever else there is: notes duplicates, and singles out what
    the database refuses.

    Raises:
        psycopg.Error: not because of a row.
    """
    rows = duplicates = 0
    refused: list[tuple[Record, Rejection]] = []
    for name, batch in output.tables.items():
        if not batch.lines:
            continue
        table = tables[name]
        create_incoming(connection, table)
        merger = _Merger(connection, table)
        items = list(map(Row, batch.lines, batch.sources))
        refused += store_sound(connection, table, items, merger)
        rows, duplicates = rows + merger.rows, duplicates + merger.duplicates
        connection.execute("DROP TABLE incoming")
    return Stored(rows, duplicates, refused)


def copy(
    connection: Connection,
    table: Table,
    target: sql.Composable,
    lines: Sequence[bytes],
    extra: Sequence[str] = (),
) -> None:
    """COPY lines into a table that has the columns of `table`, and `extra` ones."""
    columns = sql.SQL(", ").join(map(sql.Identifier, (*table.columns, *extra)))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(target, columns)
    with (
        connection.cursor() as cursor,
        cursor.copy(statement, writer=_WholeWriter(cursor)) as stream,
    ):
        stream.write(b"".join(lines))


class _WholeWriter(LibpqWriter):
    """Hands libpq large pieces. psycopg's own writer waits for the socket after each 128 KiB, and
    after each wait its thread must get the interpreter back from the one that makes the next batch.
    """

    def write(self, data: Buffer) -> None:
        whole = memoryview(data)
        for start in range(0, len(whole), _PIECE):
            self.connection.wait(copy_to(self._pgconn, whole[start : start + _PIECE]))


class _Merger:
    """Moves rows by way of the table ``incoming``, and counts what became of them."""

    def __init__(self, connection: Connection, table: Table) -> None:
        self.rows = 0
        self.duplicates = 0
        self._connection = connection
        self._table = table

    def __call__(self, items: Sequence[Row]) -> None:
        table, connection = self._table, self._connection
        copy(connection, table, sql.Identifier("incoming"), [row.line for row in items])
        stored = connection.execute(
            sql.SQL(
                "INSERT INTO {table} ({names}) SELECT {names} FROM incoming ORDER BY {offset}"
                " ON CONFLICT DO NOTHING"
            ).format(
                table=sql.Identifier(table.name),
                names=names(table.columns),
                offset=sql.Identifier(table.position[2]),
            )
        ).rowcount
        duplicates = _note_duplicates(connection, table)
        connection.execute("DELETE FROM incoming")
        self.rows += stored
        self.duplicates += duplicates


def _note_duplicates(connection: Connection, table: Table) -> int:
    """Notes the incoming rows that another record had told before. A row whose own record is the
    one that is stored is none: that record was read again, after someone set positions back."""
    same = sql.SQL(" AND ").join(
        sql.SQL("kept.{0} = incoming.{0}").format(sql.Identifier(column))
        for column in dict.fromkeys((*table.identity, *table.position))
    )
    return connection.execute(
        sql.SQL(
            'INSERT INTO duplicates (topic, partition, "offset", origin_topic, origin_partition,'
            " origin_offset, table_name, event_type, event_time, appended_at)"
            " SELECT {position}, {identity}, {name}, {event_type}, {event_time}, appended_at"
            " FROM incoming"
            " WHERE NOT EXISTS (SELECT FROM {table} AS kept WHERE {same})"
            " ON CONFLICT DO NOTHING"
        ).format(
            position=names(table.position),
            identity=names(table.identity),
            name=sql.Literal(table.name),
            event_type=text_or_null(table.event_type),
            event_time=name_or_null(table.event_time),
            table=sql.Identifier(table.name),
            same=same,
        )
    ).rowcount


def create_incoming(connection: Connection, table: Table, *, attempt: bool = False) -> None:
    """Creates the temporary table ``incoming``: rows on their way into `table`; with the position
    and attempt of a replay, if so wanted."""
    extra: LiteralString = (
        ", record_topic text, record_partition integer, record_offset bigint, attempt integer"
        if attempt
        else ""
    )
    connection.execute(
        sql.SQL(
            "CREATE TEMPORARY TABLE incoming (LIKE {} INCLUDING DEFAULTS{}) ON COMMIT DROP"
        ).format(sql.Identifier(table.name), sql.SQL(extra))
    )


def store_sound(
    connection: Connection,
    table: Table,
    items: Sequence[_T],
    store: Callable[[Sequence[_T]], None],
) -> list[tuple[Record, Rejection]]:
    """Stores all but the items that the database refuses, which it notes and returns."""
    refused: list[tuple[_T, Rejection]] = []
    try:
        with connection.transaction():
            store(items)
    except psycopg.Error as error:
        if not is_refusal(error):
            raise
        known = find_refused(connection, table, [item.line for item in items])
        sound = [item for index, item in enumerate(items) if index not in known]
        refused = [(items[index], rejection) for index, rejection in known.items()]
        # Nearly always that was all. Not what is only found out about rows together.
        refused += _refused_of(connection, sound, store)
    if refused and table.holds_events:
        _note_refused(connection, table, [item for item, _ in refused])
    return [(item.record, rejection) for item, rejection in refused]


def _refused_of(
    connection: Connection, items: Sequence[_T], store: Callable[[Sequence[_T]], None]
) -> list[tuple[_T, Rejection]]:
    """Stores all but what the database refuses, in halves and halves of halves."""
    if not items:
        return []
    try:
        with connection.transaction():
            store(items)
    except psycopg.Error as error:
        if not is_refusal(error):
            raise
        if len(items) == 1:
            return [(items[0], rejection(error.diag))]
        middle = len(items) // 2
        return [
            *_refused_of(connection, items[:middle], store),
            *_refused_of(connection, items[middle:], store),
        ]
    return []


def _note_refused(connection: Connection, table: Table, items: Sequence[HasRecord]) -> None:
    """Notes what the windows count of events that are in no table."""
    names_told = (table.event_type, table.event_time, "appended_at")
    told = [table.columns.index(name) for name in names_told if name is not None]
    lines = []
    for item in items:
        fields = item.line.rstrip(b"\n").split(b"\t")
        topic, partition, offset = position_of(item.record)
        position = f"{topic}\t{partition}\t{offset}".encode()
        lines.append(b"\t".join((position, *(fields[each] for each in told))) + b"\n")
    connection.execute(
        "CREATE TEMPORARY TABLE refused (LIKE refused_events INCLUDING DEFAULTS) ON COMMIT DROP"
    )
    copy(connection, _REFUSED_EVENTS, sql.Identifier("refused"), lines)
    # Some may be noted already: they were read again, after someone set positions back.
    connection.execute("INSERT INTO refused_events TABLE refused ON CONFLICT DO NOTHING")
    connection.execute("DROP TABLE refused")


def names(columns: Sequence[str]) -> sql.Composed:
    """Columns, separated by commas."""
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def name_or_null(column: str | None) -> sql.Composable:
    """A column, or NULL where a table has none for it."""
    return sql.SQL("NULL") if column is None else sql.Identifier(column)


def text_or_null(column: str | None) -> sql.Composable:
    """As `name_or_null`, as text."""
    return sql.SQL("{}::text").format(name_or_null(column))
