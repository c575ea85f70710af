"""Windows with aggregates that an event may be counted in."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import sql

from streamflow.groups import group_text
from streamflow.postgres.connections import Connection
from streamflow.postgres.counted_by import group_sql
from streamflow.postgres.sessions.tables import SessionTable, session_tables
from streamflow.postgres.windows.fields import field_sql
from streamflow.postgres.windows.tables import window_tables
from streamflow.stream import Stream
from streamlit_app.records.window_choice import AggregateTable
from streamlit_app.records.window_results import refusal_of

# Of the event's group, and of windows that it falls into by time and offset.
_PARTS: Final = """
SELECT part.window_start, part.window_end, part.counted, part.too_late, part.late{by}
  FROM {table} AS part, {events} AS event
 WHERE event.origin_topic = %(topic)s AND event.origin_partition = %(partition)s
   AND event.origin_offset = %(offset)s
   AND part.window_start <= %(time)s::timestamptz
   AND part.window_start > %(time)s::timestamptz - {pane} * interval '1 ms'
   AND part.origin_topic = %(topic)s AND part.partition = %(partition)s
   AND part.first_offset <= %(offset)s AND part.last_offset >= %(offset)s {same}
 ORDER BY part.late, part.first_offset LIMIT 20
"""
_SESSIONS: Final = """
SELECT part.session_start, part.session_end, part.counted, 0, false{by}
  FROM {table} AS part, {events} AS event
 WHERE event.origin_topic = %(topic)s AND event.origin_partition = %(partition)s
   AND event.origin_offset = %(offset)s
   AND part.session_start <= %(time)s::timestamptz AND part.session_end > %(time)s::timestamptz {same}
 ORDER BY part.session_start LIMIT 20
"""


class TracedWindow(NamedTuple):
    """A part of a window, or a session, that may count an event."""

    start: datetime
    end: datetime
    counted: int
    too_late: int
    late: bool
    group: str


def traced_windows(
    connection: Connection, stream: Stream, values: dict[str, Any]
) -> dict[str, tuple[TracedWindow, ...]]:
    """By the names of all tables of the stream's windows that can be read.

    Args:
        values: `topic`, `partition` and `offset` of the event, and its `time`.
    """
    tables: list[AggregateTable] = [*window_tables(stream), *session_tables(stream)]
    return {
        table.name: tuple(_rows(connection, table, values))
        for table in tables
        if not refusal_of(connection, table)
    }


def _rows(
    connection: Connection, table: AggregateTable, values: dict[str, Any]
) -> Iterator[TracedWindow]:
    is_session = isinstance(table, SessionTable)
    query = sql.SQL(_SESSIONS if is_session else _PARTS).format(
        table=sql.Identifier(table.name),
        events=sql.Identifier(table.stream.event_table),
        pane=sql.Literal(0 if isinstance(table, SessionTable) else table.spec.pane_ms),
        by=sql.SQL("").join(
            sql.SQL(", {}").format(sql.Identifier("part", column.name)) for column in table.by
        ),
        same=sql.SQL("").join(_same(table)),
    )
    for start, end, counted, too_late, late, *by in connection.execute(query, values):
        group = " · ".join(map(group_text, by))
        yield TracedWindow(start, end, counted, too_late, late, group)


def _same(table: AggregateTable) -> list[sql.Composed]:
    """Conditions that an event is of a row's group."""
    pairs = zip(table.by, table.spec.by_fields, strict=True)
    return [
        sql.SQL(" AND {} IS NOT DISTINCT FROM {}").format(
            sql.Identifier("part", column.name), _value(table, column.type, path)
        )
        for column, path in pairs
    ]


def _value(table: AggregateTable, kind: str, path: str) -> sql.Composable:
    """What an event is grouped by; analytics shortens long texts."""
    value = field_sql(table.stream, path, "event")
    if kind != "text" or isinstance(table, SessionTable):
        return value
    return sql.SQL("CASE WHEN char_length({}) > 256 THEN {} ELSE {} END").format(
        value, group_sql(value), value
    )
