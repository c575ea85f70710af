"""Reads of the database for single pages. Each opens a connection of its own that can change nothing,
has a limit of rows, and follows an index."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import sql
from psycopg.rows import dict_row

from streamflow.dead_letters import Truncated, truncation_of
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.letter_selection import decoded
from streamflow.records import Origin
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamlit_app.masking import as_text
from streamlit_app.series import MAX_POINTS

_TIMEOUT: Final = 5  # seconds
MOST_LETTERS: Final = 500
MOST_SHOWN: Final = 65_536  # bytes of a payload


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which dead letters; empty parts match all.

    Attributes:
        codes: error codes.
        status: open, replayed, quarantined …
        since: seconds before now, by the broker's time; None for ever.
        text: in the value, or in the message.
    """

    codes: tuple[str, ...] = ()
    status: str | None = None
    since: float | None = None
    text: str = ""


_LETTERS: Final = """
SELECT source_topic, source_partition, source_offset, origin_topic, origin_partition, origin_offset,
       record_topic, record_partition, record_offset, error_code, stage, exception, message, attempt,
       redacted, failed_at, status, key, substring(value FOR %(shown)s) AS value,
       octet_length(value) AS size, headers, appended_at
  FROM dead_letters
 WHERE (%(codes)s::text[] IS NULL OR error_code = ANY(%(codes)s))
   AND (%(status)s::text IS NULL OR status = %(status)s)
   AND (%(since)s::float8 IS NULL OR appended_at >= now() - %(since)s * interval '1 s')
   AND (%(text)s = '' OR position(convert_to(%(text)s, 'UTF8') IN value) > 0
        OR position(lower(%(text)s) IN lower(message)) > 0)
 ORDER BY appended_at DESC NULLS LAST, record_partition, record_offset DESC
 LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter. Its addresses were hashed before it was written.

    Attributes:
        id: as ``topic/partition/offset`` of the record that failed: what a replay is asked for by.
        position: of the dead letter itself.
    """

    id: str
    position: str
    origin: Origin
    code: str
    stage: str
    exception: str
    message: str
    attempt: int
    redacted: bool
    failed_at: datetime | None
    status: str
    key: str | None
    value: str | None
    headers: tuple[tuple[str, str], ...]
    appended_at: datetime | None
    size: int = 0
    truncated: Truncated | None = None


def letters(settings: Settings, wanted: LetterFilter) -> tuple[Letter, ...]:
    """Dead letters, the newest first, at most 500.

    Raises:
        Unavailable: the database does not answer, or not within five seconds.
    """
    values = {
        "codes": list(wanted.codes) or None,
        "status": wanted.status,
        "since": wanted.since,
        "text": wanted.text.strip().replace("\0", ""),
        "most": MOST_LETTERS,
        "shown": MOST_SHOWN,
    }
    with _reader(settings) as connection:
        cursor = connection.cursor(row_factory=dict_row)
        rows = cursor.execute(_LETTERS, values).fetchall()
    return tuple(_letter(row) for row in rows)


def _letter(row: Mapping[str, Any]) -> Letter:
    record = (row["record_topic"], row["record_partition"], row["record_offset"])
    source = (row["source_topic"], row["source_partition"], row["source_offset"])
    held = row["headers"]
    pairs = held.items() if isinstance(held, dict) else [tuple(each) for each in held or ()]
    return Letter(
        id="/".join(map(str, source)),
        position="/".join(map(str, record)),
        origin=Origin(row["origin_topic"], row["origin_partition"], row["origin_offset"]),
        code=row["error_code"],
        stage=row["stage"],
        exception=row["exception"],
        message=row["message"],
        attempt=row["attempt"],
        redacted=row["redacted"],
        failed_at=row["failed_at"],
        status=row["status"],
        key=None if row["key"] is None else as_text(bytes(row["key"]))[0],
        value=None if row["value"] is None else as_text(bytes(row["value"]))[0],
        headers=tuple((str(pair[0]), str(pair[-1])) for pair in pairs),
        appended_at=row["appended_at"],
        size=row["size"] or 0,
        truncated=None if isinstance(held, dict) else truncation_of(decoded(held or ())),
    )


_LETTERS_OVER_TIME: Final = """
SELECT date_bin(%(step)s * interval '1 s', appended_at, '1970-01-01 00:00:00+00'), error_code,
       count(*)
  FROM dead_letters WHERE appended_at >= now() - %(span)s * interval '1 s'
 GROUP BY 1, 2 ORDER BY 1, 2
"""


class LetterCount(NamedTuple):
    """How many dead letters of a code came in a step of time."""

    start: datetime
    code: str
    number: int


def letters_over_time(settings: Settings, span: float) -> tuple[LetterCount, ...]:
    """Dead letters by code over the last `span` seconds, in 60 steps.

    Raises:
        Unavailable: the database does not answer.
    """
    with _reader(settings) as connection:
        rows = connection.execute(
            _LETTERS_OVER_TIME, {"step": max(1.0, span / 60), "span": span}
        ).fetchall()
    return tuple(LetterCount(*row) for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What became of an event on its way; each part is None, or empty, where there is nothing (yet).

    Attributes:
        row: of the stream's table.
        notification: that was told of it.
        letters: that it became, by attempt.
        windows: that may count it: of its type, over its time and offset.
        duplicates: records that told it again.
        replay: how it came to be stored by a replay.
    """

    origin: Origin
    row: dict[str, Any] | None
    notification: dict[str, Any] | None
    letters: tuple[dict[str, Any], ...]
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
_TOLD: Final = """
SELECT to_jsonb(notifications) FROM notifications WHERE origin_topic = %(topic)s
   AND origin_partition = %(partition)s AND origin_offset = %(offset)s LIMIT 1
"""
_REFUSED: Final = """
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
    stream = next((each for each in streams if each.topic == origin.topic), None)
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
        notifications, replayed = ask(_TOLD), ask(_REPLAYED)
        return Trace(
            origin=origin,
            row=rows[0] if rows else None,
            notification=notifications[0] if notifications else None,
            letters=ask(_REFUSED),
            windows=counted,
            duplicates=ask(_REPEATED),
            replay=replayed[0] if replayed else None,
        )


def has_table(settings: Settings, name: str) -> bool:
    """Whether the database has a table: older ones lack what replays keep.

    Raises:
        Unavailable: the database does not answer.
    """
    with _reader(settings) as connection:
        row = connection.execute("SELECT to_regclass(%s)", [name]).fetchone()
    return row is not None and row[0] is not None


def replays(settings: Settings) -> tuple[dict[str, Any], ...] | None:
    """The newest replays as their tables tell them: who, when, which and what became of it. None
    where the schema does not have them yet.

    Raises:
        Unavailable: the database does not answer.
    """
    if not has_table(settings, "replays"):
        return None
    with _reader(settings) as connection:
        rows = connection.execute(
            "SELECT to_jsonb(found) FROM (SELECT replays.*,"
            " (SELECT jsonb_object_agg(outcome, number) FROM (SELECT outcome, count(*) AS number"
            " FROM replay_records WHERE replay_id = replays.id GROUP BY outcome) AS counted)"
            " AS outcomes FROM replays ORDER BY id DESC LIMIT 50) AS found"
        ).fetchall()
    return tuple(row[0] for row in rows)
