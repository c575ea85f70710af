"""How the rows of a batch get into their tables, inside a transaction that the sink holds.

There are three roads. Plain: one COPY per table, for the batch whose rows are all new and sound,
which is nearly every batch. Careful: COPY into a temporary table and from there what is not stored
yet, in halves and halves of halves where the database refuses rows. And one for replays, whose
identity is not that of their position.
"""

from collections.abc import Callable, Sequence
from typing import Final, LiteralString, NamedTuple, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.copy import LibpqWriter
from psycopg.generators import copy_to

from streamflow.errors import ErrorCode
from streamflow.flow import Output, Replay
from streamflow.postgres.connections import Connection, is_refusal, sqlstate
from streamflow.postgres.tables import Table
from streamflow.records import Origin, Record, Rejection, attempt_of, headers_of, position_of

_T = TypeVar("_T")

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
    for name, lines in output.rows.items():
        if lines:
            copy(connection, tables[name], sql.Identifier(name), lines)
            rows += len(lines)
    return Stored(rows, 0, [])


def store_carefully(connection: Connection, tables: dict[str, Table], output: Output) -> Stored:
    """Stores what is new and sound, whatever else there is: notes duplicates, and singles out what
    the database refuses.

    Raises:
        psycopg.Error: not because of a row.
    """
    rows = duplicates = 0
    refused: list[tuple[Record, Rejection]] = []
    for name, lines in output.rows.items():
        if not lines:
            continue
        table = tables[name]
        _create_incoming(connection, table)
        merger = _Merger(connection, table)
        items = list(map(Row, lines, output.sources[name]))
        refused += _in_halves(connection, items, merger)
        rows, duplicates = rows + merger.rows, duplicates + merger.duplicates
        connection.execute("DROP TABLE incoming")
    return Stored(rows, duplicates, refused)


def store_replays(connection: Connection, table: Table, replays: Sequence[Replay]) -> Stored:
    """Stores each replayed event unless its origin is stored already, under any time stamp."""
    storer = _ReplayStorer(connection, table)
    _create_incoming(connection, table, attempt=True)
    refused = _in_halves(connection, replays, storer)
    connection.execute("DROP TABLE incoming")
    return Stored(storer.rows, storer.duplicates, refused)


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
        names = sql.SQL(", ").join(map(sql.Identifier, table.columns))
        stored = connection.execute(
            sql.SQL(
                "INSERT INTO {table} ({names}) SELECT {names} FROM incoming ORDER BY {offset}"
                " ON CONFLICT DO NOTHING"
            ).format(
                table=sql.Identifier(table.name),
                names=names,
                offset=sql.Identifier(table.position[2]),
            )
        ).rowcount
        duplicates = _note_duplicates(connection, table)
        connection.execute("DELETE FROM incoming")
        self.rows += stored
        self.duplicates += duplicates


def _note_duplicates(connection: Connection, table: Table) -> int:
    """Notes the incoming rows that another record had told before. A row whose own record is the one
    that is stored is none: that record was read again, after someone set the positions back."""

    def same(columns: Sequence[str]) -> sql.Composed:
        return sql.SQL(" AND ").join(
            sql.SQL("kept.{0} = incoming.{0}").format(sql.Identifier(column)) for column in columns
        )

    return connection.execute(
        sql.SQL(
            'INSERT INTO duplicates (topic, partition, "offset", origin_topic, origin_partition,'
            " origin_offset, table_name, event_type, event_time)"
            " SELECT {position}, {identity}, {name}, {event_type}, {event_time} FROM incoming"
            " WHERE NOT EXISTS (SELECT FROM {table} AS kept WHERE {same})"
            " ON CONFLICT DO NOTHING"
        ).format(
            position=_names(table.position),
            identity=_names(table.identity),
            name=sql.Literal(table.name),
            event_type=_text_or_null(table.event_type),
            event_time=_name_or_null(table.event_time),
            table=sql.Identifier(table.name),
            same=same(
                (*table.identity, *(each for each in table.position if each not in table.identity))
            ),
        )
    ).rowcount


class _ReplayStorer:
    """Stores replayed events by way of ``incoming``, and counts what became of them."""

    def __init__(self, connection: Connection, table: Table) -> None:
        self.rows = 0
        self.duplicates = 0
        self._connection = connection
        self._table = table

    def __call__(self, replays: Sequence[Replay]) -> None:
        table, connection = self._table, self._connection
        copy(
            connection,
            table,
            sql.Identifier("incoming"),
            [_with_position(replay) for replay in replays],
            (*_POSITION, "attempt"),
        )
        # The identity first: the event is stored by whoever could write that down.
        stored = connection.execute(
            sql.SQL(
                "WITH fresh AS (INSERT INTO replayed_events (origin_topic, origin_partition,"
                ' origin_offset, topic, partition, "offset", attempt)'
                " SELECT origin_topic, origin_partition, origin_offset, record_topic,"
                " record_partition, record_offset, attempt FROM incoming WHERE NOT EXISTS"
                " (SELECT FROM {table} AS kept WHERE kept.origin_partition ="
                " incoming.origin_partition AND kept.origin_offset = incoming.origin_offset"
                " AND kept.origin_topic = incoming.origin_topic)"
                " ORDER BY record_offset ON CONFLICT DO NOTHING"
                ' RETURNING topic, partition, "offset")'
                " INSERT INTO {table} ({names}) SELECT {names} FROM incoming JOIN fresh"
                ' ON record_topic = topic AND record_partition = partition AND record_offset = "offset"'
            ).format(table=sql.Identifier(table.name), names=_names(table.columns))
        ).rowcount
        duplicates = connection.execute(
            sql.SQL(
                'INSERT INTO duplicates (topic, partition, "offset", origin_topic,'
                " origin_partition, origin_offset, table_name, event_type, event_time)"
                " SELECT record_topic, record_partition, record_offset, origin_topic,"
                " origin_partition, origin_offset, {name}, {event_type}, {event_time}"
                " FROM incoming WHERE NOT EXISTS (SELECT FROM replayed_events WHERE"
                ' topic = record_topic AND partition = record_partition AND "offset" = record_offset)'
                " ON CONFLICT DO NOTHING"
            ).format(
                name=sql.Literal(table.name),
                event_type=_text_or_null(table.event_type),
                event_time=_name_or_null(table.event_time),
            )
        ).rowcount
        connection.execute("DELETE FROM incoming")
        self.rows += stored
        self.duplicates += duplicates


_POSITION: Final = ("record_topic", "record_partition", "record_offset")


def _with_position(replay: Replay) -> bytes:
    topic, partition, offset = position_of(replay.record)
    attempt = attempt_of(headers_of(replay.record))
    return replay.line[:-1] + f"\t{topic}\t{partition}\t{offset}\t{attempt}\n".encode()


def _create_incoming(connection: Connection, table: Table, *, attempt: bool = False) -> None:
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


def _in_halves(
    connection: Connection, items: Sequence[_T], store: Callable[[Sequence[_T]], None]
) -> list[tuple[Record, Rejection]]:
    """Stores all but the items that the database refuses, which it returns."""
    try:
        with connection.transaction():
            store(items)
    except psycopg.Error as error:
        if not is_refusal(error):
            raise
        if len(items) == 1:
            record: Record = items[0].record  # type: ignore[attr-defined]
            return [(record, _rejection(error))]
        middle = len(items) // 2
        return [
            *_in_halves(connection, items[:middle], store),
            *_in_halves(connection, items[middle:], store),
        ]
    return []


def _rejection(error: psycopg.Error) -> Rejection:
    """Why the database refuses a row. Its message would quote the row."""
    diagnosis = error.diag
    names = [
        f"{what} {name}"
        for what, name in (
            ("column", diagnosis.column_name),
            ("constraint", diagnosis.constraint_name),
            ("type", diagnosis.datatype_name),
        )
        if name
    ]
    text = ", ".join((f"SQLSTATE {sqlstate(error)}", *names))
    return Rejection(
        ErrorCode.UNSTORABLE_VALUE, type(error).__name__, f"the database refuses it: {text}"
    )


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _name_or_null(column: str | None) -> sql.Composable:
    return sql.SQL("NULL") if column is None else sql.Identifier(column)


def _text_or_null(column: str | None) -> sql.Composable:
    return sql.SQL("{}::text").format(_name_or_null(column))


def known_origins(connection: Connection, origins: Sequence[Origin]) -> set[Origin]:
    """Those of them that dead letters have."""
    topics, partitions, offsets = (list(each) for each in zip(*origins, strict=True))
    rows = connection.execute(
        "SELECT DISTINCT origin_topic, origin_partition, origin_offset FROM dead_letters"
        " JOIN unnest(%s::text[], %s::int[], %s::bigint[]) AS claimed (topic, partition, start)"
        " ON origin_topic = claimed.topic AND origin_partition = claimed.partition"
        " AND origin_offset = start",
        [topics, partitions, offsets],
    )
    return {Origin(*row) for row in rows}


def replayed_origins(
    connection: Connection, ranges: Sequence[tuple[str, int, int, int]]
) -> set[Origin]:
    """The origins within these ranges (topic, partition, first, end) whose events were stored from a
    replay."""
    topics, partitions, firsts, ends = (list(each) for each in zip(*ranges, strict=True))
    found = connection.execute(
        "SELECT origin_topic, origin_partition, origin_offset"
        " FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[])"
        " AS batch (topic, partition, first, stop) JOIN replayed_events"
        " ON origin_topic = batch.topic AND origin_partition = batch.partition"
        " AND origin_offset >= first AND origin_offset < stop",
        [topics, partitions, firsts, ends],
    )
    return {Origin(*row) for row in found}
