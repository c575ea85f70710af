"""Comparing window counts with events, up to what analytics has committed."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg import Connection, sql

from streamflow.audit.gap_ledger import Range, multirange
from streamflow.audit.window_ledger import Cell
from streamflow.audit.windows.beginning import first_part, offsets_compared
from streamflow.audit.windows.reconciliation import CellFigures, CellJudge, Reconciliation
from streamflow.audit.windows.touched import EVERY_WINDOW, first_touched
from streamflow.postgres.counted_by import group_sql, kind_sql, kind_type
from streamflow.stream import Stream
from streamflow.windows.progress import COUNTS, Progress

# Compares, cell by cell, what analytics had emitted up to a committed progress with the events that it
# had read by then. An event is emitted if its window was closed, if it was far ahead of the broker's
# clock, or if it is before `resume`: no analytics reads it again, so its count was handed over, or never
# comes. Else its window is open. A replayed event was counted at its replay's offset, and at its
# origin's only if that record was valid and the database refused it. Duplicates were counted too.
# Events in acknowledged gaps may be uncounted. Windows of days that retention has dropped are left out:
# their events are gone. No query stands before `read`: the stream's table may have its name.
_CELLS = sql.SQL("""
WITH read AS (
    SELECT e.{time} AS event_time, {kind} AS event_type, e.appended_at, e.origin_offset AS position
    FROM {table} e
    WHERE e.origin_topic = %(topic)s AND e.origin_partition = %(partition)s
      AND e.origin_offset >= %(since)s AND e.origin_offset < %(position)s {no_tombstone}
      AND e.{time} >= %(from)s::timestamptz
      AND NOT EXISTS (SELECT FROM replayed_events r
                      WHERE (r.origin_topic, r.origin_partition, r.origin_offset)
                          = (e.origin_topic, e.origin_partition, e.origin_offset))
    UNION ALL
    SELECT e.{time}, {kind}, e.appended_at, r."offset"
    FROM replayed_events r
    JOIN {table} e USING (origin_topic, origin_partition, origin_offset)
    WHERE r.topic = %(topic)s AND r.partition = %(partition)s
      AND r."offset" >= %(since)s AND r."offset" < %(position)s
      AND e.{time} >= %(from)s::timestamptz {no_tombstone}
    UNION ALL
    SELECT d.event_time, {duplicate_kind}, coalesce(d.appended_at, 'infinity'), d."offset"
    FROM duplicates d
    WHERE d.topic = %(topic)s AND d.partition = %(partition)s
      AND d."offset" >= %(since)s AND d."offset" < %(position)s
      AND d.event_time >= %(from)s::timestamptz
    UNION ALL
    SELECT x.event_time, {refused_kind}, x.appended_at, x."offset"
    FROM refused_events x
    WHERE x.topic = %(topic)s AND x.partition = %(partition)s
      AND x."offset" >= %(since)s AND x."offset" < %(position)s
      AND x.event_time >= %(from)s::timestamptz
), counted AS (
    SELECT window_start, event_type, sum(count)::bigint AS total,
           coalesce(sum(count) FILTER (WHERE last_offset >= %(proved)s
                                            OR first_offset < %(proved_from)s), 0)::bigint AS unproved,
           min(first_offset) AS first_position, max(last_offset) AS last_position
    FROM window_counts
    WHERE origin_topic = %(topic)s AND partition = %(partition)s AND first_offset >= %(since)s
      AND window_start >= %(from)s::timestamptz
      AND CASE WHEN late THEN first_offset < %(position)s
               ELSE window_end <= to_timestamp(%(closed)s / 1000.0) OR last_offset < %(resume)s END
    GROUP BY 1, 2
), timed AS (
    SELECT *, event_time > appended_at + (%(ahead)s + 0.999) * interval '1 ms' AS ahead
    FROM read
), judged AS (
    SELECT greatest(date_bin(%(size)s * interval '1 ms', event_time, 'epoch'),
                    '0001-01-01T00:00:00Z') AS window_start, event_type,
           event_time, {lost} AS lost, ahead, position, appended_at,
           ahead OR position < %(resume)s OR event_time < to_timestamp(%(closed)s / 1000.0) AS emitted
    FROM timed OFFSET 0
), expected AS (
    SELECT window_start, event_type,
           count(*) FILTER (WHERE emitted) AS total,
           count(*) FILTER (WHERE emitted AND lost) AS lost,
           count(*) FILTER (WHERE emitted AND NOT lost
                            AND (position >= %(proved)s OR position < %(proved_from)s)) AS unproved,
           count(*) FILTER (WHERE NOT emitted AND NOT lost) AS open,
           max(least(event_time, appended_at)) FILTER (WHERE NOT ahead) AS latest,
           min(position) FILTER (WHERE emitted) AS first_position,
           max(position) FILTER (WHERE emitted) AS last_position
    FROM judged
    GROUP BY 1, 2
)
SELECT window_start, event_type, coalesce(expected.total, 0), coalesce(counted.total, 0),
       coalesce(expected.lost, 0), coalesce(expected.open, 0),
       floor(1000 * date_part('epoch', expected.latest))::bigint,
       expected.first_position, expected.last_position,
       coalesce(expected.unproved, 0), coalesce(counted.unproved, 0),
       ARRAY[coalesce(expected.first_position, counted.first_position),
             coalesce(expected.last_position, counted.last_position) + 1]
FROM expected FULL JOIN counted USING (window_start, event_type)
WHERE NOT EXISTS (SELECT FROM dropped_days d WHERE d.table_name = %(table)s
                  AND d.day >= (window_start AT TIME ZONE 'UTC')::date
                  AND d.day <= ((window_start + %(size)s * interval '1 ms'
                                 - interval '1 microsecond') AT TIME ZONE 'UTC')::date)
ORDER BY 1, 2
""")
# As `trim_scale` has it.
_TRIMMED: Final = """
CASE WHEN position('.' IN {text}) > 0 THEN rtrim(rtrim({text}, '0'), '.') ELSE {text} END
"""


def reconcile(
    connection: Connection[Any],
    stream: Stream,
    partition: int,
    progress: Progress,
    lost: Sequence[Range] = (),
    acknowledged: Mapping[Cell, int] | None = None,
    proved: int = 0,
    proved_parts: Mapping[int, int] | None = None,
) -> Reconciliation:
    """Compares the window counts of a partition of the stream's topic with its events, up to what analytics
    has committed.

    Args:
        connection: to the database.
        stream: whose windows they are.
        partition: of its topic.
        progress: of analytics.
        lost: offsets in acknowledged gaps of analytics.
        acknowledged: differences that were acknowledged.
        proved: an audit has proved that events before this offset are counted.
        proved_parts: compare only windows from the first one on that events behind that are counted in, or of
            which a part is behind these offsets of the partitions of its topic; all windows if None.
    """
    windows, windows_progress = stream.event_counts, progress.counts
    if windows is None or windows_progress is None:
        return Reconciliation()
    query = _CELLS.format(
        table=sql.Identifier(stream.event_table),
        time=sql.Identifier(stream.event_time),
        kind=kind_sql(stream, "e"),
        duplicate_kind=_kind_of_text(stream, "d"),
        refused_kind=_kind_of_text(stream, "x"),
        no_tombstone=sql.SQL("AND NOT e.deleted" if stream.mode == "upsert" else ""),
        lost=sql.SQL("position <@ %(lost)s::int8multirange" if lost else "false"),
    )
    parameters = {
        "topic": stream.topic,
        "table": stream.event_table,
        "partition": partition,
        **offsets_compared(
            windows_progress,
            progress.position,
            progress.resume,
            first_part(connection, COUNTS, (stream.topic, partition)),
        ),
        "closed": windows_progress.closed_before,
        "ahead": windows_progress.ahead,
        "size": windows.size_ms,
        "proved": proved,
        "lost": multirange(lost),
    }
    parameters["from"] = EVERY_WINDOW
    if proved_parts is not None:
        parameters["from"] = first_touched(connection, stream, parameters, proved_parts)
    judge = CellJudge(
        partition=(stream.topic, partition),
        acknowledged=acknowledged or {},
        begun=windows_progress.since,
    )
    for start, kind, *numbers in connection.execute(query, parameters):
        judge.judge(start, kind, _figures(numbers), kind)
    return judge.finish(windows.size_ms, windows.grace.total_seconds() * 1000)


def _figures(numbers: Sequence[Any]) -> CellFigures:
    events, counted, in_gap, still_open, latest, first, last, *unproved, span = numbers
    return CellFigures(events, counted, in_gap, still_open, latest, (first, last), unproved, span)


def _kind_of_text(stream: Stream, alias: str) -> sql.Composed:
    """What an event is counted by, where its field is kept as text. No text is cast: it may be that of a
    number that the database refused."""
    if stream.kind_field is None:
        return kind_sql(stream)
    text: sql.Composable = sql.Identifier(alias, "event_type")
    if kind_type(stream).startswith("numeric"):
        text = sql.SQL(_TRIMMED).format(text=text)
    return group_sql(text)
