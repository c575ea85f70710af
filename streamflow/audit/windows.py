"""Comparing window counts with events, up to what analytics has committed."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import Connection, sql

from streamflow.audit.gap_ledger import Range
from streamflow.audit.problems import MOST_LISTED, Problem, ProblemKind
from streamflow.postgres.counted_by import group_sql, kind_sql, kind_type
from streamflow.stream import Stream
from streamflow.windows.progress import Progress

# Compares, cell by cell, what analytics had emitted up to a committed progress with the events that it
# had read by then. An event is emitted if its window was closed, or if it was far ahead of the broker's
# clock; else its window is open. A replayed event was counted at its replay's offset, and at its
# origin's only if that record was valid and the database refused it. Duplicates were counted too.
# Events in acknowledged gaps may be uncounted. Windows of days that retention has dropped are left out:
# their events are gone. No query stands before `read`: the stream's table may have its name.
_CELLS = sql.SQL("""
WITH read AS (
    SELECT e.{time} AS event_time, {kind} AS event_type, e.appended_at, e.origin_offset AS position
    FROM {table} e
    WHERE e.origin_topic = %(topic)s AND e.origin_partition = %(partition)s
      AND e.origin_offset < %(position)s {no_tombstone}
      AND NOT EXISTS (SELECT FROM replayed_events r
                      WHERE (r.origin_topic, r.origin_partition, r.origin_offset)
                          = (e.origin_topic, e.origin_partition, e.origin_offset))
    UNION ALL
    SELECT e.{time}, {kind}, e.appended_at, r."offset"
    FROM replayed_events r
    JOIN {table} e USING (origin_topic, origin_partition, origin_offset)
    WHERE r.topic = %(topic)s AND r.partition = %(partition)s AND r."offset" < %(position)s
      {no_tombstone}
    UNION ALL
    SELECT d.event_time, {duplicate_kind}, coalesce(d.appended_at, 'infinity'), d."offset"
    FROM duplicates d
    WHERE d.topic = %(topic)s AND d.partition = %(partition)s AND d."offset" < %(position)s
      AND d.event_time IS NOT NULL
    UNION ALL
    SELECT x.event_time, {refused_kind}, x.appended_at, x."offset"
    FROM refused_events x
    WHERE x.topic = %(topic)s AND x.partition = %(partition)s AND x."offset" < %(position)s
), counted AS (
    SELECT window_start, event_type, sum(count)::bigint AS total
    FROM window_counts
    WHERE origin_topic = %(topic)s AND partition = %(partition)s
      AND CASE WHEN late THEN first_offset < %(position)s
               ELSE window_end <= to_timestamp(%(closed)s / 1000.0) END
    GROUP BY 1, 2
), judged AS (
    SELECT greatest(date_bin(%(size)s * interval '1 ms', event_time, 'epoch'),
                    '0001-01-01T00:00:00Z') AS window_start, event_type,
           event_time, {lost} AS lost,
           event_time > appended_at + %(ahead)s * interval '1 ms' AS ahead, position,
           event_time < to_timestamp(%(closed)s / 1000.0) AS closed, appended_at
    FROM read
), expected AS (
    SELECT window_start, event_type,
           count(*) FILTER (WHERE closed OR ahead) AS total,
           count(*) FILTER (WHERE (closed OR ahead) AND lost) AS lost,
           count(*) FILTER (WHERE NOT (closed OR ahead) AND NOT lost) AS open,
           max(least(event_time, appended_at)) FILTER (WHERE NOT ahead) AS latest,
           min(position) FILTER (WHERE closed OR ahead) AS first_position,
           max(position) FILTER (WHERE closed OR ahead) AS last_position
    FROM judged
    GROUP BY 1, 2
)
SELECT window_start, event_type, coalesce(expected.total, 0), coalesce(counted.total, 0),
       coalesce(expected.lost, 0), coalesce(expected.open, 0),
       floor(1000 * date_part('epoch', window_start))::bigint,
       floor(1000 * date_part('epoch', expected.latest))::bigint, first_position, last_position
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


@dataclass(kw_only=True)
class Reconciliation:
    """Window counts of one source partition compared with its events, by type.

    Attributes:
        events: by type, from the events.
        counted: by type, from the windows.
        open: events by type that were read but whose windows are still open.
        cells: number of (window, type) cells that were emitted.
        lost: events that are uncounted because of acknowledged gaps.
        overdue: whether the watermark has passed a window that is still open.
        first_end: of the windows that are still open, in milliseconds since the epoch.
        differences: the cells that differ, by window and type; at most a thousand.
        differing: the number of all cells that differ.
        uncounted: for each cell with too low a count, the range of its events' offsets.
    """

    events: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    open: Counter[str] = field(default_factory=Counter)
    cells: int = 0
    lost: int = 0
    overdue: bool = False
    first_end: float = math.inf
    differences: list[Problem] = field(default_factory=list)
    differing: int = 0
    uncounted: list[Range] = field(default_factory=list)

    def note(self, problem: Problem) -> None:
        """Counts a difference, and lists it unless there are too many."""
        self.differing += 1
        if len(self.differences) < MOST_LISTED:
            self.differences.append(problem)


def reconcile(
    connection: Connection[Any],
    stream: Stream,
    partition: int,
    progress: Progress,
    lost: Sequence[Range] = (),
) -> Reconciliation:
    """Compares the window counts of a partition of the stream's topic with its events, up to what analytics
    has committed. `lost`: offsets in acknowledged gaps of analytics."""
    compared = Reconciliation()
    windows = stream.event_counts
    if windows is None:
        return compared
    windows_progress = progress.counts
    if windows_progress is None:
        return compared
    closed = windows_progress.closed_through
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
        "position": progress.position,
        "closed": -(10**14) if closed is None else closed,
        "ahead": windows_progress.ahead,
        "size": windows.size_ms,
        "lost": "{" + ",".join(f"[{first},{end})" for first, end in lost) + "}",
    }
    latest, first_open = -math.inf, math.inf
    for start, kind, *numbers in connection.execute(query, parameters):
        expected, counted, in_gap, still_open, begins, last, low, high = numbers
        if last is not None:
            latest = max(latest, last)
        if still_open:
            compared.open[kind] += still_open
            first_open = min(first_open, begins)
        if not (expected or counted):
            continue
        compared.cells += 1
        compared.events[kind] += expected
        compared.counted[kind] += counted
        if 0 <= expected - counted <= in_gap:
            compared.lost += expected - counted
            continue
        if expected > counted:
            compared.uncounted.append((low, high + 1))
        compared.note(
            Problem(
                kind=ProblemKind.WINDOW_DIFFERS,
                topic=stream.topic,
                partition=partition,
                offset=low,
                end_offset=None if high is None else high + 1,
                count=abs(expected - counted),
                detail=f"window {start:%Y-%m-%dT%H:%M:%SZ} {kind}: {expected} events, "
                f"{counted} counted",
            )
        )
    grace = windows.grace.total_seconds() * 1000
    compared.first_end = first_open + windows.size_ms
    compared.overdue = compared.first_end + grace <= latest
    return compared


def _kind_of_text(stream: Stream, alias: str) -> sql.Composed:
    """What an event is counted by, where its field is kept as text. No text is cast: it may be that of a
    number that the database refused."""
    if stream.kind_field is None:
        return kind_sql(stream)
    text: sql.Composable = sql.Identifier(alias, "event_type")
    if kind_type(stream).startswith("numeric"):
        text = sql.SQL(_TRIMMED).format(text=text)
    return group_sql(text)
