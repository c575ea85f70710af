"""Retention of events: drops whole days that are past their age and of which Kafka holds no record.

The audit compares what Kafka holds with what is stored, so a day stays while Kafka has a record of it,
however old its events are. What was dropped is noted for the audit of the windows and for the rollups.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from psycopg import errors, sql

from streamflow.audit.proofs import lower_for_day
from streamflow.errors import Unavailable
from streamflow.flow import Partition
from streamflow.postgres import row_counts
from streamflow.postgres.connections import Connection
from streamflow.postgres.partitions import partition_name
from streamflow.stream import Stream

LOCK_SECONDS: Final = 5
NOTE_DROPPED: Final = """
INSERT INTO dropped_days (table_name, day, rows) VALUES (%s, %s, %s)
    ON CONFLICT (table_name, day) DO UPDATE
   SET rows = dropped_days.rows + excluded.rows, dropped_at = now()
"""


class Expired(NamedTuple):
    """A day that is past its age."""

    day: date
    rows: int
    own_partition: bool  # False if its rows are in the default partition
    held: int  # records that Kafka still holds


def expired_days(
    connection: Connection, stream: Stream, first_kept: date, held_from: dict[Partition, int]
) -> list[Expired]:
    """The days before `first_kept` that have rows. `held_from` is the first offset that Kafka still holds
    of each partition."""
    table = sql.Identifier(stream.event_table)
    end = datetime.combine(first_kept, datetime.min.time(), UTC)
    rows = connection.execute(
        sql.SQL(
            "SELECT (e.{time} AT TIME ZONE 'UTC')::date, count(*),"
            " bool_and(e.tableoid <> {default}::regclass),"
            " count(*) FILTER (WHERE held.first IS NOT NULL"
            ' AND coalesce(r."offset", e.origin_offset) >= held.first)'
            " FROM {table} AS e"
            # A replayed event belongs to the replay's record, not to its origin's.
            " LEFT JOIN replayed_events AS r USING (origin_topic, origin_partition, origin_offset)"
            " LEFT JOIN unnest(%s::text[], %s::int[], %s::bigint[]) AS held (topic, number, first)"
            " ON held.topic = coalesce(r.topic, e.origin_topic)"
            " AND held.number = coalesce(r.partition, e.origin_partition)"
            " WHERE e.{time} < %s GROUP BY 1 ORDER BY 1"
        ).format(
            table=table,
            default=sql.Literal(f'"{stream.event_table}_default"'),
            time=sql.Identifier(stream.event_time),
        ),
        [
            [topic for topic, _ in held_from],
            [number for _, number in held_from],
            list(held_from.values()),
            end,
        ],
    )
    return [Expired(*row) for row in rows]


def drop_day(connection: Connection, stream: Stream, expired: Expired) -> None:
    """Removes a day and what audits remember of its rows, and notes that, in one transaction. Raises
    Unavailable if the table is busy; nothing was removed then."""
    start = datetime.combine(expired.day, datetime.min.time(), UTC)
    end = start + timedelta(days=1)
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            lower_for_day(connection, stream, start, end)
            if expired.own_partition:
                rows = drop_partition(connection, stream.event_table, expired.day)
            else:
                rows = connection.execute(
                    sql.SQL("DELETE FROM {table} WHERE {time} >= %s AND {time} < %s").format(
                        table=sql.Identifier(stream.event_table),
                        time=sql.Identifier(stream.event_time),
                    ),
                    [start, end],
                ).rowcount
            row_counts.take_off(connection, stream.event_table, rows)
            connection.execute(NOTE_DROPPED, [stream.event_table, expired.day, rows])
    except errors.LockNotAvailable as error:
        raise Unavailable(
            f"{stream.event_table} is busy: {expired.day} is not dropped now, try again later"
        ) from error


def drop_partition(connection: Connection, table: str, day: date) -> int:
    """Drops the partition of a day; returns how many rows it had, to the last one."""
    partition = sql.Identifier(partition_name(table, day))
    # The table first, as loaders and DROP do.
    for lock in ("LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE", "LOCK TABLE {partition}"):
        connection.execute(sql.SQL(lock).format(table=sql.Identifier(table), partition=partition))
    [(rows,)] = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(partition))
    connection.execute(sql.SQL("DROP TABLE {}").format(partition))
    return int(rows)
