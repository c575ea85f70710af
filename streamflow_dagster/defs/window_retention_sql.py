"""Retention of windows with aggregates: as that of events, by the day on which windows begin.

A day stays while Kafka has a record of its parts. What was dropped is noted for the audit of the windows.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Final

from psycopg import errors, sql

from streamflow.errors import Unavailable
from streamflow.flow import Partition
from streamflow.postgres import row_counts
from streamflow.postgres.connections import Connection
from streamflow_dagster.defs.retention_sql import (
    LOCK_SECONDS,
    NOTE_DROPPED,
    Expired,
    drop_partition,
)

_EXPIRED: Final = """
SELECT (part.window_start AT TIME ZONE 'UTC')::date, count(*),
       bool_and(part.tableoid <> {default}::regclass),
       count(*) FILTER (WHERE part.record_offset >= held.first)
  FROM {table} AS part
  LEFT JOIN unnest(%s::text[], %s::int[], %s::bigint[]) AS held (topic, number, first)
    ON held.topic = part.record_topic AND held.number = part.record_partition
 WHERE part.window_start < %s
 GROUP BY 1 ORDER BY 1
"""
_LOWER: Final = """
UPDATE audit_ledger AS kept SET stored = kept.stored - gone.parts
  FROM (SELECT ledger.topic, ledger.partition, count(*) AS parts
          FROM {table} AS part
          JOIN audit_ledger AS ledger
            ON ledger.topic = part.record_topic AND ledger.partition = part.record_partition
           AND part.record_offset < ledger.proved_through
         WHERE part.window_start >= %s AND part.window_start < %s
         GROUP BY 1, 2) AS gone
 WHERE (kept.topic, kept.partition) = (gone.topic, gone.partition)
"""
_DELETE: Final = "DELETE FROM {table} WHERE window_start >= %s AND window_start < %s"


def expired_window_days(
    connection: Connection, table: str, first_kept: date, held_from: dict[Partition, int]
) -> list[Expired]:
    """The days before `first_kept` that have rows. `held_from` is the first offset that Kafka still holds
    of each partition of the analytics topic."""
    query = sql.SQL(_EXPIRED).format(
        table=sql.Identifier(table), default=sql.Literal(f'"{table}_default"')
    )
    held = [
        [topic for topic, _ in held_from],
        [number for _, number in held_from],
        list(held_from.values()),
    ]
    end = datetime.combine(first_kept, datetime.min.time(), UTC)
    return [Expired(*row) for row in connection.execute(query, [*held, end])]


def drop_window_day(connection: Connection, table: str, expired: Expired) -> None:
    """Removes a day and what audits remember of its rows, and notes that, in one transaction. Raises
    Unavailable if the table is busy; nothing was removed then."""
    start = datetime.combine(expired.day, datetime.min.time(), UTC)
    of_day = [start, start + timedelta(days=1)]
    names = {"table": sql.Identifier(table)}
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            connection.execute(sql.SQL(_LOWER).format(**names), of_day)
            if expired.own_partition:
                rows = drop_partition(connection, table, expired.day)
            else:
                rows = connection.execute(sql.SQL(_DELETE).format(**names), of_day).rowcount
            row_counts.take_off(connection, table, rows)
            connection.execute(NOTE_DROPPED, [table, expired.day, rows])
    except errors.LockNotAvailable as error:
        raise Unavailable(
            f"{table} is busy: {expired.day} is not dropped now, try again later"
        ) from error
