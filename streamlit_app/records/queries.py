"""Database queries of single pages. Each has its own read-only connection, a limit of rows, and an
index. All raise Unavailable if the database does not answer, or not within five seconds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import sql

from streamflow.dead_letters.select import (
    DeadLetter,
    DeadLetterSummary,
    Selection,
    Status,
    conditions,
    counts,
    read,
    summaries,
)
from streamflow.dead_letters.selection_parser import source_of
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.counted_by import kind_sql
from streamflow.postgres.tables import DELETED
from streamflow.records import Origin
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamlit_app.measure.postgres import READ_ONLY, STATEMENT_TIMEOUT
from streamlit_app.measure.ring_buffers import MAX_POINTS

MOST_LETTERS: Final = 500
MOST_COUNTED: Final = 100_000
MOST_AHEAD: Final = 1_000
MOST_SHOWN: Final = 65_536  # bytes of a value


@contextmanager
def _reader(settings: Settings) -> Iterator[Connection]:
    with session(settings, "dashboard-page", statement_timeout=STATEMENT_TIMEOUT) as connection:
        connection.execute(READ_ONLY)
        yield connection


class WindowCell(NamedTuple):
    """Events of a type in one or more adjacent windows, and how many of them are corrections: late
    events."""

    start: datetime
    kind: str
    number: int
    late: int


class Windows(NamedTuple):
    """Windows of a span of time.

    Attributes:
        cells: by time, then type.
        step: seconds that a cell covers.
        end: of the span; None where there is no window at all.
        ahead: windows that have not begun yet, of events with future times; at most `MOST_AHEAD`.
    """

    cells: tuple[WindowCell, ...]
    step: float
    end: datetime | None
    ahead: int = 0


_NEWEST_WINDOW: Final = """
SELECT coalesce(
         (SELECT window_start FROM window_counts
           WHERE window_start <= now() AND origin_topic = %(topic)s
           ORDER BY window_start DESC LIMIT 1),
         CASE WHEN ahead > 0
              THEN date_bin(%(size)s * interval '1 s', now(), '1970-01-01 00:00:00+00') END),
       ahead
  FROM (SELECT count(*) AS ahead
          FROM (SELECT DISTINCT window_start FROM window_counts
                 WHERE window_start > now() AND origin_topic = %(topic)s LIMIT %(most)s) AS later) AS counted
"""
_WINDOWS: Final = """
SELECT date_bin(%(step)s * interval '1 s', window_start, '1970-01-01 00:00:00+00'), event_type,
       sum(count)::bigint, coalesce(sum(count) FILTER (WHERE late), 0)::bigint
  FROM window_counts
 WHERE window_start >= %(start)s AND window_start < %(end)s AND origin_topic = %(topic)s
 GROUP BY 1, 2 ORDER BY 1, 2
"""


def windows(settings: Settings, stream: Stream, span: float, end: datetime | None) -> Windows:
    """Window counts of the last `span` seconds before `end`, or before the end of the newest window that
    has begun; at most 300 steps."""
    if stream.event_counts is None:
        return Windows((), span, None)
    size = stream.event_counts.size.total_seconds()
    step = max(size, -(-span / MAX_POINTS // size) * size)
    with _reader(settings) as connection:
        [(newest, ahead)] = connection.execute(
            _NEWEST_WINDOW, {"topic": stream.topic, "size": size, "most": MOST_AHEAD}
        )
        if newest is None:
            return Windows((), step, None)
        end = end or newest + timedelta(seconds=size)
        start = end - timedelta(seconds=span)
        rows = connection.execute(
            _WINDOWS, {"step": step, "start": start, "end": end, "topic": stream.topic}
        )
        return Windows(tuple(WindowCell(*row) for row in rows), step, end, ahead)


class DeadLetters(NamedTuple):
    """The dead letters that match a filter, at one moment.

    Attributes:
        rows: the newest, at most 500.
        counts: how many match, by status; counting stops just past 100,000.
        as_of: the moment, by the database's clock.
    """

    rows: tuple[DeadLetterSummary, ...]
    counts: dict[Status, int]
    as_of: datetime


def dead_letters(settings: Settings, selection: Selection) -> DeadLetters:
    """The dead letters that match, from one snapshot."""
    with _reader(settings) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        [(now,)] = connection.execute("SELECT now()")
        return DeadLetters(
            tuple(summaries(connection, replace(selection, limit=MOST_LETTERS))),
            counts(connection, selection, MOST_COUNTED + 1),
            now,
        )


def dead_letter(settings: Settings, id_: Origin) -> DeadLetter | None:
    """A dead letter with the first `MOST_SHOWN` bytes of its value; None if there is none."""
    with _reader(settings) as connection:
        group = settings.group("loader")
        letters = read(connection, [id_], group=group, most_bytes=MOST_SHOWN)
    return letters[0] if letters else None


_DEAD_LETTERS_OVER_TIME: Final = """
SELECT date_bin(%(step)s * interval '1 s', appended_at, '1970-01-01 00:00:00+00'), error_code,
       count(*)
  FROM dead_letters WHERE appended_at >= now() - %(span)s * interval '1 s' AND {}
 GROUP BY 1, 2 ORDER BY 1, 2
"""


class DeadLetterCount(NamedTuple):
    """How many dead letters with an error code were appended in one step of time."""

    start: datetime
    code: str
    number: int


def dead_letters_over_time(
    settings: Settings, span: float, stream: Stream | None
) -> tuple[DeadLetterCount, ...]:
    """Dead letters of a stream, or of all, by code over the last `span` seconds, in 60 steps."""
    where, values = conditions(Selection(stream=source_of(stream), statuses=()))
    with _reader(settings) as connection:
        rows = connection.execute(
            sql.SQL(_DEAD_LETTERS_OVER_TIME).format(where),
            {**values, "step": max(1.0, span / 60), "span": span},
        )
        return tuple(DeadLetterCount(*row) for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What became of an event; each part is None, or empty, where there is nothing (yet).

    Attributes:
        stream: in whose topic it entered the log.
        row: in the stream's table.
        notification: sent for it.
        dead_letters: of its record and its replays, by attempt.
        windows: that may count it: those of its type that cover its time and offset.
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
    with _reader(settings) as connection:

        def ask(query: LiteralString | sql.Composed) -> tuple[Any, ...]:
            return tuple(row[0] for row in connection.execute(query, values))

        def rows_of(table: str) -> tuple[dict[str, Any], ...]:
            return ask(sql.SQL(_ROWS).format(table=sql.Identifier(table)))

        rows = () if stream is None else rows_of(stream.event_table)
        counted: tuple[dict[str, Any], ...] = ()
        time = rows[0][stream.event_time] if rows and stream is not None else None
        is_tombstone = stream is not None and stream.mode == "upsert" and rows and rows[0][DELETED]
        if rows and stream is not None and stream.event_counts is not None and not is_tombstone:
            table = sql.Identifier(stream.event_table)
            values["time"] = time
            values["kind"] = ask(sql.SQL(_KIND).format(kind=kind_sql(stream), table=table))[0]
            values["size"] = stream.event_counts.size_ms
            counted = ask(_COUNTED)
        return Trace(
            origin=origin,
            stream=stream,
            row=next(iter(rows), None),
            notification=next(iter(rows_of("notifications")), None),
            dead_letters=ask(_REJECTED),
            windows=counted,
            duplicates=rows_of("duplicates"),
            replay=next(iter(rows_of("replayed_events")), None),
            time=time,
        )


_REPLAYS: Final = """
SELECT to_jsonb(replay)
  FROM (SELECT replays.*,
               (SELECT jsonb_object_agg(outcome, number)
                  FROM (SELECT outcome, count(*) AS number FROM replay_records
                         WHERE replay_id = replays.id GROUP BY outcome) AS counted) AS outcomes
          FROM replays ORDER BY id DESC LIMIT 20) AS replay
"""


def recent_replays(settings: Settings) -> tuple[dict[str, Any], ...] | None:
    """The newest replays: who, when, which dead letters, and the outcome. None if the schema is too old
    to record them."""
    with _reader(settings) as connection:
        [(table,)] = connection.execute("SELECT to_regclass('replays')")
        if table is None:
            return None
        return tuple(row[0] for row in connection.execute(_REPLAYS))
