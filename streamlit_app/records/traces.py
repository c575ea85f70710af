"""What became of one event, from all tables that tell of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from psycopg import sql

from streamflow.postgres.counted_by import kind_sql
from streamflow.postgres.tables import DELETED
from streamflow.records import Origin
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamlit_app.records.reader import reader
from streamlit_app.records.traced_windows import TracedWindow, traced_windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What became of an event; each part is None, or empty, where there is nothing (yet).

    Attributes:
        stream: in whose topic it entered the log.
        row: in the stream's table.
        notification: sent for it.
        dead_letters: of its record and its replays, by attempt.
        windows: of `window_counts`, that may count it: those of its type that cover its time and offset.
        parts: of windows with aggregates that may count it, and its sessions, by the names of their tables.
        duplicates: records of the same event that were not stored.
        replay: the replay by which it was stored.
        time: when the event happened, if it is stored.
    """

    origin: Origin
    stream: Stream | None
    row: dict[str, Any] | None
    notification: dict[str, Any] | None
    dead_letters: tuple[dict[str, Any], ...]
    windows: tuple[dict[str, Any], ...]
    parts: dict[str, tuple[TracedWindow, ...]]
    duplicates: tuple[dict[str, Any], ...]
    replay: dict[str, Any] | None
    time: Any = None


_KIND: Final = """
SELECT {kind} FROM {table} WHERE origin_topic = %(topic)s
   AND origin_partition = %(partition)s AND origin_offset = %(offset)s LIMIT 1
"""
_ROWS: Final = """
SELECT to_jsonb(kept.*) FROM {table} AS kept WHERE origin_topic = %(topic)s
   AND origin_partition = %(partition)s AND origin_offset = %(offset)s LIMIT 20
"""
_COUNTED: Final = """
SELECT to_jsonb(window_counts) FROM window_counts
 WHERE window_start <= %(time)s::timestamptz
   AND window_start > %(time)s::timestamptz - %(size)s * interval '1 ms'
   AND event_type = %(kind)s AND origin_topic = %(topic)s AND partition = %(partition)s
   AND first_offset <= %(offset)s AND last_offset >= %(offset)s
 ORDER BY late, first_offset LIMIT 20
"""
_REJECTED: Final = """
SELECT to_jsonb(dead_letters) - 'value' - 'key' - 'headers' FROM dead_letters
 WHERE origin_topic = %(topic)s AND origin_partition = %(partition)s
   AND origin_offset = %(offset)s ORDER BY attempt LIMIT 20
"""


def trace(settings: Settings, streams: Sequence[Stream], origin: Origin) -> Trace:
    """Follows an event by its identity."""
    values: dict[str, Any] = origin._asdict()
    stream = next((stream for stream in streams if stream.topic == origin.topic), None)
    with reader(settings) as connection:

        def ask(query: LiteralString | sql.Composed) -> tuple[Any, ...]:
            return tuple(row[0] for row in connection.execute(query, values))

        def rows_of(table: str) -> tuple[dict[str, Any], ...]:
            return ask(sql.SQL(_ROWS).format(table=sql.Identifier(table)))

        rows = () if stream is None else rows_of(stream.event_table)
        counted: tuple[dict[str, Any], ...] = ()
        parts: dict[str, tuple[TracedWindow, ...]] = {}
        time = rows[0][stream.event_time] if rows and stream is not None else None
        is_tombstone = stream is not None and stream.mode == "upsert" and rows and rows[0][DELETED]
        if rows and stream is not None and not is_tombstone:
            values["time"] = time
            parts = traced_windows(connection, stream, values)
            if stream.event_counts is not None:
                table = sql.Identifier(stream.event_table)
                kind = sql.SQL(_KIND).format(kind=kind_sql(stream), table=table)
                [values["kind"]] = ask(kind)
                values["size"] = stream.event_counts.size_ms
                counted = ask(_COUNTED)
        return Trace(
            origin=origin,
            stream=stream,
            row=next(iter(rows), None),
            notification=next(iter(rows_of("notifications")), None),
            dead_letters=ask(_REJECTED),
            windows=counted,
            parts=parts,
            duplicates=rows_of("duplicates"),
            replay=next(iter(rows_of("replayed_events")), None),
            time=time,
        )
