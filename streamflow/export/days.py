"""Writing exports: a file for each day, from one snapshot of the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, NamedTuple

from psycopg import IsolationLevel, sql

from streamflow.export.columns import Columns, Row
from streamflow.export.covered import Covered, Format
from streamflow.export.destination import Destination, encoding
from streamflow.postgres.connections import Connection
from streamflow.postgres.sink import positions
from streamflow.settings import Settings
from streamflow.stream import Stream

_CHUNK: Final = 10_000  # rows fetched at a time
_DAYS: Final = """
SELECT DISTINCT ({time} AT TIME ZONE 'UTC')::date FROM {table}
 WHERE {time} >= %s AND {time} < %s ORDER BY 1
"""


class Exported(NamedTuple):
    path: str
    covered: Covered


def days(
    connection: Connection, stream: Stream, first: date | None, last: date | None
) -> list[date]:
    """The days of event time, in UTC, that have rows; `last` is one of them."""
    start, _ = bounds(first or date.min)
    _, end = bounds(last or date.max - timedelta(days=1))
    query = sql.SQL(_DAYS).format(
        time=sql.Identifier(stream.event_time), table=sql.Identifier(stream.event_table)
    )
    return [day for (day,) in connection.execute(query, [start, end])]


def bounds(day: date) -> tuple[datetime, datetime]:
    """When a day begins, and when the next one does."""
    start = datetime.combine(day, time.min, UTC)
    return start, start + timedelta(days=1)


def export_day(
    connection: Connection,
    settings: Settings,
    stream: Stream,
    day: date,
    destination: Destination,
    kind: Format,
) -> Exported:
    """Writes the events of a day, in the place of what was exported of it before.

    Raises:
        UsageError: the destination cannot be written to, or an extra is missing.
        psycopg.Error: as the connection.
    """
    columns = Columns(stream)
    encoded, width = encoding(kind, columns), len(columns.all)
    with (
        snapshot(connection),
        destination.replacing(stream.event_table, day, kind) as new,
    ):
        covered = encoded.write(
            new.file,
            ([row[:width] for row in chunk] for chunk in rows(connection, columns, day)),
            _covered(connection, settings, stream, columns, day),
        )
        if kind != "parquet":
            new.beside = covered.model_dump_json().encode()
    return Exported(new.path, covered)


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """A transaction that sees the database as it is now, positions and rows alike."""
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    try:
        with connection.transaction():
            yield
    finally:
        connection.isolation_level = connection.read_only = None


def rows(connection: Connection, columns: Columns, day: date) -> Iterator[list[Row]]:
    """The rows of a day, some at a time, as `Columns.query` has them."""
    with connection.cursor("export", scrollable=False) as cursor:
        cursor.itersize = _CHUNK
        cursor.execute(columns.query, bounds(day), binary=True)
        while chunk := cursor.fetchmany(_CHUNK):
            yield chunk


def _covered(
    connection: Connection, settings: Settings, stream: Stream, columns: Columns, day: date
) -> Covered:
    [(now,)] = connection.execute("SELECT now()")
    loaded = positions.loaded(connection, settings.group("loader"))
    return Covered(
        stream=stream.name,
        table=stream.event_table,
        day=day,
        rows=0,
        exported_at=now,
        positions={
            f"{topic}/{number}": each.next_offset
            for (topic, number), each in loaded.items()
            if topic == stream.topic
        },
        columns={column.name: column.type for column in columns.all},
    )
