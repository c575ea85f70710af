"""Database queries of single pages. Each has its own read-only connection, a limit of rows, and an
index."""

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
    counts,
    read,
    summaries,
)
from streamflow.postgres.connections import Connection, session
from streamflow.records import Origin
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamlit_app.measure.series import MAX_POINTS

_TIMEOUT: Final = 5  # seconds
MOST_LETTERS: Final = 500
MOST_COUNTED: Final = 100_000
MOST_SHOWN: Final = 65_536  # bytes of a value


@contextmanager
def _reader(settings: Settings) -> Iterator[Connection]:
    with session(settings, "dashboard-page", statement_timeout=_TIMEOUT) as connection:
        connection.execute("SET default_transaction_read_only = on")
        yield connection


class WindowCell(NamedTuple):
    """Events of a type in a window, or in some windows next to each other.

    Attributes:
        start: of the first window.
        number: all of them.
        late: how many of those came too late for their window, as corrections.
    """

    start: datetime
    kind: str
    number: int
    late: int


class Windows(NamedTuple):
    """Windows of a span of time.

    Attributes:
        cells: by time, then type.
        step: seconds that a cell covers: a window, or several where there are many.
        end: of the span.
        newest: start of the newest window that there is.
    """

    cells: tuple[WindowCell, ...]
    step: float
    end: datetime
    newest: datetime | None


_WINDOWS: Final = """
SELECT date_bin(%(step)s * interval '1 s', window_start, '1970-01-01 00:00:00+00'), event_type,
       sum(count)::bigint, coalesce(sum(count) FILTER (WHERE late), 0)::bigint
  FROM window_counts
 WHERE window_start >= %(start)s AND window_start < %(end)s AND origin_topic = %(topic)s
 GROUP BY 1, 2 ORDER BY 1, 2
"""


def windows(settings: Settings, stream: Stream, span: float, end: datetime | None) -> Windows:
    """Window counts of the last `span` seconds before `end`, at most 300 steps.

    Args:
        settings: where the database is.
        stream: whose windows.
        span: in seconds.
        end: None for the end of the newest window.

    Raises:
        Unavailable: the database does not answer.
    """
    size = stream.windows.size.total_seconds() if stream.windows is not None else 10.0
    step = max(size, -(-span / MAX_POINTS // size) * size)
    with _reader(settings) as connection:
        row = connection.execute(
            "SELECT window_start FROM window_counts WHERE window_start <= now() + interval '1 hour'"
            " ORDER BY window_start DESC LIMIT 1"
        ).fetchone()
        newest = row[0] if row else None
        until = end or (newest + timedelta(seconds=size) if newest else None)
        if until is None:
            return Windows((), step, datetime.fromtimestamp(0).astimezone(), None)
        rows = connection.execute(
            _WINDOWS,
            {
                "step": step,
                "start": until - timedelta(seconds=span),
                "end": until,
                "topic": stream.topic,
            },
        ).fetchall()
    return Windows(tuple(WindowCell(*each) for each in rows), step, until, newest)


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
    """The dead letters that match, from one snapshot.

    Raises:
        Unavailable: the database does not answer, or not within five seconds.
    """
    with _reader(settings) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        row = connection.execute("SELECT now()").fetchone()
        assert row is not None  # noqa: S101 (one row always)
        return DeadLetters(
            tuple(summaries(connection, replace(selection, limit=MOST_LETTERS))),
            counts(connection, selection, MOST_COUNTED + 1),
            row[0],
        )


def dead_letter(settings: Settings, id_: Origin) -> DeadLetter | None:
    """A dead letter with the first `MOST_SHOWN` bytes of its value; None if there is none.

    Raises:
        Unavailable: the database does not answer.
    """
    with _reader(settings) as connection:
        group = settings.group("loader")
        letters = read(connection, [id_], group=group, most_bytes=MOST_SHOWN)
    return letters[0] if letters else None


_DEAD_LETTERS_OVER_TIME: Final = """
SELECT date_bin(%(step)s * interval '1 s', appended_at, '1970-01-01 00:00:00+00'), error_code,
       count(*)
  FROM dead_letters WHERE appended_at >= now() - %(span)s * interval '1 s'
 GROUP BY 1, 2 ORDER BY 1, 2
"""


class DeadLetterCount(NamedTuple):
    """How many dead letters with an error code were appended in one step of time."""

    start: datetime
    code: str
    number: int


def dead_letters_over_time(settings: Settings, span: float) -> tuple[DeadLetterCount, ...]:
    """Dead letters by code over the last `span` seconds, in 60 steps.

    Raises:
        Unavailable: the database does not answer.
    """
    with _reader(settings) as connection:
        rows = connection.execute(
            _DEAD_LETTERS_OVER_TIME, {"step": max(1.0, span / 60), "span": span}
        ).fetchall()
    return tuple(DeadLetterCount(*row) for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What became of an event; each part is None, or empty, where there is nothing (yet).

    Attributes:
        row: in the stream's table.
        notification: sent for it.
        dead_letters: of its record and its replays, by attempt.
        windows: that may count it: those of its type that cover its time and offset.
        duplicates: records of the same event that were not stored.
        replay: the replay by which it was stored.
    """

    origin: Origin
    row: dict[str, Any] | None
    notification: dict[str, Any] | None
    dead_letters: tuple[dict[str, Any], ...]
    windows: tuple[dict[str, Any], ...]
    duplicates: tuple[dict[str, Any], ...]
    replay: dict[str, Any] | None


_ROW: Final = """
SELECT to_jsonb(kept) FROM {table} AS kept WHERE origin_topic = %(topic)s
   AND origin_partition = %(partition)s AND origin_offset = %(offset)s
"""
_COUNTED: Final = """
SELECT to_jsonb(window_counts) FROM window_counts
 WHERE window_start <= %(time)s::timestamptz
   AND window_start > %(time)s::timestamptz - %(size)s * interval '1 ms'
   AND event_type = %(kind)s AND origin_topic = %(topic)s AND partition = %(partition)s
   AND first_offset <= %(offset)s AND last_offset >= %(offset)s
 ORDER BY late, first_offset LIMIT 20
"""
_NOTIFIED: Final = """
SELECT to_jsonb(notifications) FROM notifications WHERE origin_topic = %(topic)s
   AND origin_partition = %(partition)s AND origin_offset = %(offset)s LIMIT 1
"""
_REJECTED: Final = """
SELECT to_jsonb(dead_letters) - 'value' - 'key' - 'headers' FROM dead_letters
 WHERE origin_topic = %(topic)s AND origin_partition = %(partition)s
   AND origin_offset = %(offset)s ORDER BY attempt LIMIT 20
"""
_REPEATED: Final = """
SELECT to_jsonb(duplicates) FROM duplicates WHERE origin_topic = %(topic)s
   AND origin_partition = %(partition)s AND origin_offset = %(offset)s LIMIT 20
"""
_REPLAYED: Final = """
SELECT to_jsonb(replayed_events) FROM replayed_events WHERE origin_topic = %(topic)s
   AND origin_partition = %(partition)s AND origin_offset = %(offset)s LIMIT 1
"""


def trace(settings: Settings, streams: Sequence[Stream], origin: Origin) -> Trace:
    """Follows an event by its identity.

    Raises:
        Unavailable: the database does not answer.
    """
    values: dict[str, Any] = origin._asdict()
    stream = next((stream for stream in streams if stream.topic == origin.topic), None)
    with _reader(settings) as connection:

        def ask(query: LiteralString | sql.Composed) -> tuple[dict[str, Any], ...]:
            return tuple(row[0] for row in connection.execute(query, values).fetchall())

        rows: tuple[dict[str, Any], ...] = ()
        counted: tuple[dict[str, Any], ...] = ()
        if stream is not None:
            rows = ask(sql.SQL(_ROW).format(table=sql.Identifier(stream.table)))
        if rows and stream is not None and stream.windows is not None:
            values["time"] = rows[0]["timestamp"]
            values["kind"] = str(rows[0][stream.windows.group_by])
            values["size"] = stream.windows.size_ms
            counted = ask(_COUNTED)
        notifications, replayed = ask(_NOTIFIED), ask(_REPLAYED)
        return Trace(
            origin=origin,
            row=rows[0] if rows else None,
            notification=notifications[0] if notifications else None,
            dead_letters=ask(_REJECTED),
            windows=counted,
            duplicates=ask(_REPEATED),
            replay=replayed[0] if replayed else None,
        )


def has_table(settings: Settings, name: str) -> bool:
    """Whether the database has a table; older schemas lack those of replays.

    Raises:
        Unavailable: the database does not answer.
    """
    with _reader(settings) as connection:
        row = connection.execute("SELECT to_regclass(%s)", [name]).fetchone()
    return row is not None and row[0] is not None


def recent_replays(settings: Settings) -> tuple[dict[str, Any], ...] | None:
    """The newest replays: who, when, which dead letters, and the outcome. None if the schema is too old
    to record them.

    Raises:
        Unavailable: the database does not answer.
    """
    if not has_table(settings, "replays"):
        return None
    with _reader(settings) as connection:
        rows = connection.execute(
            "SELECT to_jsonb(replay) FROM (SELECT replays.*,"
            " (SELECT jsonb_object_agg(outcome, number) FROM (SELECT outcome, count(*) AS number"
            " FROM replay_records WHERE replay_id = replays.id GROUP BY outcome) AS counted)"
            " AS outcomes FROM replays ORDER BY id DESC LIMIT 50) AS replay"
        ).fetchall()
    return tuple(row[0] for row in rows)
