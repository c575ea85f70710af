"""Reads for status, audit, checks and dashboard. Each query has a name and says what it tells."""

from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

from psycopg import sql

from streamflow.errors import ConfigurationError
from streamflow.flow import Partition
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.tables import SHARED, Table
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow.stream import Stream

Outcome = Literal["stored", "dead_lettered", "duplicate"]

_COUNT_TIMEOUT: Final = 20  # seconds; counting reads every row
_PAGE: Final = 20_000  # rows that a streaming read fetches at a time


class Loaded(NamedTuple):
    """How far the loader is with a partition.

    Attributes:
        next_offset: where it goes on.
        records: how many it has read.
        rejected: how many of them were no events.
    """

    next_offset: int
    records: int
    rejected: int


class WindowCell(NamedTuple):
    """A window and type where counts and events differ; starts are in UTC, as text, since
    PostgreSQL knows dates that Python does not."""

    start: str
    group: str
    counted: int
    stored: int


class GroupTotal(NamedTuple):
    """Totals of a type, over all windows."""

    group: str
    counted: int
    stored: int


class Reconciliation(NamedTuple):
    """Whether the windows tell what the events tell.

    Attributes:
        totals: by type.
        differing: how many cells differ.
        first: the first of them, by time.
    """

    totals: list[GroupTotal]
    differing: int
    first: list[WindowCell]


def row_counts(settings: Settings) -> dict[str, int]:
    """How many rows each table holds, exactly.

    Raises:
        Unavailable: the database does not answer, or not within 20 s.
        ConfigurationError: a table is missing.
    """
    names = [stream.table for stream in load_streams(settings)]
    names += [table.name for table in SHARED]
    with session(settings, "status", statement_timeout=_COUNT_TIMEOUT) as connection:
        counts = [
            sql.SQL("(SELECT count(*) FROM {})").format(sql.Identifier(name)) for name in names
        ]
        row = connection.execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(counts))).fetchone()
    return dict(zip(names, row or (), strict=True))


def loaded(connection: Connection, group: str) -> dict[Partition, Loaded]:
    """How far the loader is, by partition."""
    rows = connection.execute(
        "SELECT topic, partition, next_offset, records, rejected FROM loader_positions"
        " WHERE group_name = %s ORDER BY topic, partition",
        [group],
    )
    return {(topic, partition): Loaded(*rest) for topic, partition, *rest in rows}


# What became of the records of one partition, by their own offsets. An event that a replay brought
# lies under its origin's identity; it stands for the replayed record, not for its origin.
_EVENTS: Final = """
SELECT origin_offset AS at, 'stored' AS outcome FROM {table} AS kept
 WHERE origin_topic = %(topic)s AND origin_partition = %(partition)s
   AND origin_offset >= %(start)s AND origin_offset < %(stop)s
   AND NOT EXISTS (SELECT FROM replayed_events AS replayed
                    WHERE replayed.origin_partition = kept.origin_partition
                      AND replayed.origin_offset = kept.origin_offset
                      AND replayed.origin_topic = kept.origin_topic)
UNION ALL
SELECT "offset", 'stored' FROM replayed_events
 WHERE topic = %(topic)s AND partition = %(partition)s
   AND "offset" >= %(start)s AND "offset" < %(stop)s
"""

_DERIVED: Final = """
SELECT record_offset AS at, 'stored' AS outcome FROM {table}
 WHERE record_topic = %(topic)s AND record_partition = %(partition)s
   AND record_offset >= %(start)s AND record_offset < %(stop)s
"""

# A foreign record in a dead-letter topic is its own source; it is stored, and nothing else.
_OTHERWISE: Final = """
UNION ALL
SELECT source_offset, 'dead_lettered' FROM dead_letters
 WHERE source_topic = %(topic)s AND source_partition = %(partition)s
   AND source_offset >= %(start)s AND source_offset < %(stop)s
   AND (record_topic, record_partition, record_offset)
    IS DISTINCT FROM (source_topic, source_partition, source_offset)
UNION ALL
SELECT "offset", 'duplicate' FROM duplicates
 WHERE topic = %(topic)s AND partition = %(partition)s
   AND "offset" >= %(start)s AND "offset" < %(stop)s
ORDER BY at
"""


def accounted_offsets(
    connection: Connection, table: Table, partition: Partition, start: int, stop: int
) -> Iterator[tuple[int, Outcome]]:
    """What became of each record of a partition, in the order of their offsets. Streams; a record
    with two outcomes comes twice, one with none not at all.

    Args:
        connection: nothing else may be done on it meanwhile.
        table: that the topic's records are loaded into (`tables.tables_of_topics`).
        partition: of which topic.
        start: the first offset.
        stop: the offset after the last.
    """
    own_identity = table.position == table.identity
    stored = sql.SQL(_EVENTS if own_identity else _DERIVED).format(table=sql.Identifier(table.name))
    values = {"topic": partition[0], "partition": partition[1], "start": start, "stop": stop}
    with connection.transaction(), connection.cursor(name="accounted_offsets") as cursor:
        cursor.itersize = _PAGE
        cursor.execute(stored + sql.SQL(_OTHERWISE), values)
        yield from cursor


# Counts and events side by side, by window and type. Analytics counts what is in the topic, so a
# replayed event that is stored already counts there as well: as a duplicate.
_CELLS: Final = """
WITH counted AS (
    SELECT window_start AS start, event_type AS kind, sum(count)::bigint AS total
      FROM window_counts WHERE origin_topic = %(topic)s GROUP BY 1, 2
), stored AS (
    SELECT date_bin(%(size)s::interval, moment, '1970-01-01 00:00:00+00') AS start, kind,
           count(*) AS total
      FROM (SELECT "timestamp" AS moment, {kind}::text AS kind FROM {table}
            UNION ALL
            SELECT event_time, event_type FROM duplicates
             WHERE table_name = %(table)s AND topic = %(topic)s) AS events
     GROUP BY 1, 2
), cells AS (
    SELECT start, kind, coalesce(counted.total, 0) AS counted, coalesce(stored.total, 0) AS stored
      FROM counted FULL JOIN stored USING (start, kind)
)
"""


def window_reconciliation(
    connection: Connection, stream: Stream, *, most: int = 10
) -> Reconciliation:
    """Compares the totals of a stream's windows with its events, by type and by window. Equal once
    analytics has closed its windows and the loader has caught up.

    Args:
        connection: where to look.
        stream: whose windows and events.
        most: how many differing cells to name.

    Raises:
        ConfigurationError: the stream has no windows.
    """
    if stream.windows is None:
        raise ConfigurationError(f"stream {stream.name} has no windows to compare")
    cells = sql.SQL(_CELLS).format(
        table=sql.Identifier(stream.table), kind=sql.Identifier(stream.windows.group_by)
    )
    values = {
        "topic": stream.topic,
        "table": stream.table,
        "size": f"{stream.windows.size_ms} milliseconds",
        "most": most,
    }
    with connection.transaction():
        # Both reads see the same rows.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        totals = connection.execute(
            cells
            + sql.SQL(
                "SELECT kind, sum(counted)::bigint, sum(stored)::bigint FROM cells"
                " GROUP BY kind ORDER BY kind"
            ),
            values,
        ).fetchall()
        differing = connection.execute(
            cells
            + sql.SQL(
                "SELECT count(*) OVER (), start::text, kind, counted, stored FROM cells"
                " WHERE counted <> stored ORDER BY start, kind LIMIT %(most)s"
            ),
            values,
        ).fetchall()
    return Reconciliation(
        [GroupTotal(*row) for row in totals],
        differing[0][0] if differing else 0,
        [WindowCell(*row[1:]) for row in differing],
    )


def missing_tables(connection: Connection, streams: Sequence[Stream]) -> list[str]:
    """The tables that are not there: all of them before the first `schema.upgrade`."""
    names = [*(stream.table for stream in streams), *(table.name for table in SHARED)]
    rows = connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(quote_ident(name)) IS NULL",
        [names],
    )
    return [name for (name,) in rows]
