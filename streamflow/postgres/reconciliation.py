"""Whether the window counts equal the events, as far as analytics has got."""

from typing import Any, NamedTuple

from psycopg import Connection, sql

from streamflow.stream import Stream
from streamflow.windows import Progress

# Compares, cell by cell, what analytics had emitted up to a committed progress with the events that
# it had read by then. An event is emitted if its window was closed, or if it was far ahead of the
# broker's clock. A replayed event was counted where its replay lies; where its origin does, only if
# that had kept its contract and was refused by the database. Duplicates were counted, too.
# Windows of days whose events retention has removed have nothing left to be compared with.
_CELLS = sql.SQL("""
WITH counted AS (
    SELECT window_start, event_type, sum(count)::bigint AS total
    FROM window_counts
    WHERE origin_topic = %(topic)s AND partition = %(partition)s
      AND CASE WHEN late THEN first_offset < %(position)s
               ELSE window_end <= to_timestamp(%(closed)s / 1000.0) END
    GROUP BY 1, 2
), read AS (
    SELECT e.timestamp, e.{group} AS event_type, e.appended_at
    FROM {table} e
    WHERE e.origin_topic = %(topic)s AND e.origin_partition = %(partition)s
      AND e.origin_offset < %(position)s
      AND NOT EXISTS (SELECT FROM replayed_events r
                      WHERE (r.origin_topic, r.origin_partition, r.origin_offset)
                          = (e.origin_topic, e.origin_partition, e.origin_offset))
    UNION ALL
    SELECT e.timestamp, e.{group}, e.appended_at
    FROM replayed_events r
    JOIN {table} e USING (origin_topic, origin_partition, origin_offset)
    WHERE r.topic = %(topic)s AND r.partition = %(partition)s AND r."offset" < %(position)s
    UNION ALL
    SELECT d.event_time, d.event_type, coalesce(d.appended_at, 'infinity')
    FROM duplicates d
    WHERE d.topic = %(topic)s AND d.partition = %(partition)s AND d."offset" < %(position)s
      AND d.event_time IS NOT NULL
    UNION ALL
    SELECT x.event_time, x.event_type, x.appended_at
    FROM refused_events x
    WHERE x.topic = %(topic)s AND x.partition = %(partition)s AND x."offset" < %(position)s
), expected AS (
    SELECT date_bin(%(size)s * interval '1 ms', timestamp, 'epoch') AS window_start, event_type,
           count(*) AS total
    FROM read
    WHERE timestamp < to_timestamp(%(closed)s / 1000.0)
       OR timestamp > appended_at + %(ahead)s * interval '1 ms'
    GROUP BY 1, 2
)
SELECT window_start, event_type, coalesce(expected.total, 0), coalesce(counted.total, 0)
FROM expected FULL JOIN counted USING (window_start, event_type)
WHERE NOT EXISTS (SELECT FROM dropped_days d WHERE d.table_name = %(table)s
                  AND d.day >= (window_start AT TIME ZONE 'UTC')::date
                  AND d.day <= ((window_start + %(size)s * interval '1 ms'
                                 - interval '1 microsecond') AT TIME ZONE 'UTC')::date)
ORDER BY 1, 2
""")


class Reconciliation(NamedTuple):
    """Window totals of one source partition against its events, by type.

    Attributes:
        events: by type, from the events.
        counted: by type, from the windows.
        cells: number of (window, type) cells.
        first_difference: what differs first, in words; None where nothing does.
    """

    events: dict[str, int]
    counted: dict[str, int]
    cells: int
    first_difference: str | None


def reconcile(
    connection: Connection[Any], stream: Stream, partition: int, progress: Progress
) -> Reconciliation:
    """Compares one source partition's windows with its events, up to what analytics committed."""
    windows = stream.windows
    if windows is None:
        return Reconciliation({}, {}, 0, None)
    closed = progress.closed_through
    query = _CELLS.format(
        table=sql.Identifier(stream.table), group=sql.Identifier(windows.group_by)
    )
    parameters = {
        "topic": stream.topic,
        "table": stream.table,
        "partition": partition,
        "position": progress.position,
        "closed": -(10**14) if closed is None else closed,
        "ahead": progress.ahead,
        "size": windows.size_ms,
    }
    events: dict[str, int] = {}
    counted: dict[str, int] = {}
    cells, first = 0, None
    with connection.cursor() as cursor:
        for start, kind, expected, found in cursor.execute(query, parameters):
            cells += 1
            events[kind] = events.get(kind, 0) + expected
            counted[kind] = counted.get(kind, 0) + found
            if expected != found and first is None:
                first = (
                    f"{stream.topic}[{partition}] window {start:%Y-%m-%dT%H:%M:%SZ} {kind}: "
                    f"{expected} events, {found} counted"
                )
    return Reconciliation(events, counted, cells, first)
