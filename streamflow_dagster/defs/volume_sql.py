"""How many events each hour has, as windows have counted them."""

from datetime import datetime, timedelta
from typing import Final

from psycopg import sql

from streamflow.postgres.connections import Connection
from streamflow.postgres.tables import WINDOW_COUNTS
from streamflow.postgres.windows.tables import WindowTable, window_tables
from streamflow.stream import Stream

_HOUR_MS: Final = 3_600_000


def counted_by_hour(
    connection: Connection, stream: Stream, hours: int
) -> list[tuple[datetime, int]]:
    """A stream's events in each of the last whole hours, from its windows: oldest first, from the first
    hour that has any. For one that `has_hours`."""
    windows = _hourly(stream)
    events = "count" if windows is None else "counted + too_late"
    query = sql.SQL(
        """
        WITH counted AS (
            SELECT date_bin('1 hour', window_start, 'epoch') AS hour, sum({events})::bigint AS events
            FROM {table}
            WHERE origin_topic = %(topic)s AND window_start < date_trunc('hour', now())
                AND window_start >= date_trunc('hour', now()) - %(back)s
            GROUP BY 1
        )
        SELECT hour, coalesce(events, 0)
        FROM generate_series(
            (SELECT min(hour) FROM counted), date_trunc('hour', now()) - interval '1 hour', '1 hour'
        ) AS hours (hour)
        LEFT JOIN counted USING (hour) ORDER BY hour
        """
    ).format(
        events=sql.SQL(events),
        table=sql.Identifier(WINDOW_COUNTS.name if windows is None else windows.name),
    )
    rows = connection.execute(query, {"topic": stream.topic, "back": timedelta(hours=hours)})
    return [(hour, number) for hour, number in rows]


def has_hours(stream: Stream) -> bool:
    """Whether a stream's windows tell how many events an hour has."""
    return stream.event_counts is not None or _hourly(stream) is not None


def _hourly(stream: Stream) -> WindowTable | None:
    """The windows with aggregates that do, of a stream that has no others."""
    if stream.event_counts is not None:
        return None
    return next(
        (table for table in window_tables(stream) if _HOUR_MS % table.spec.pane_ms == 0), None
    )
