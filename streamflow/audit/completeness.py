"""Whether each valid event has its notification, and each notification its event (G5)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from psycopg import sql

from streamflow.audit.gap_ledger import Range, append_offset, covers
from streamflow.flow import Partition
from streamflow.postgres.connections import Connection
from streamflow.stream import Stream

# Events and notifications of one source partition, joined by identity: a merge join of two primary
# keys. Rows without a partner are checked further.
#
# An event stored by a replay has the identity of its origin, but the validator wrote its notification
# when it read the replay: it is due at the replay's position. A notification may be a dead letter
# itself, and its event one if none could be made. A notification's event may be a row that the database
# refused (at first, or as a replay), or of a day that retention has dropped; or it was appended after the
# validator's position was looked up.
_UNPAIRED: Final = sql.SQL("""
WITH unpaired AS MATERIALIZED (
    SELECT event.origin_offset AS event, note.origin_offset AS note
    FROM (SELECT origin_offset FROM {table}
          WHERE origin_topic = %(topic)s AND origin_partition = %(partition)s
            AND origin_offset >= %(first)s AND origin_offset < %(end)s {no_tombstone}) AS event
    FULL JOIN (SELECT origin_offset FROM notifications
               WHERE origin_topic = %(topic)s AND origin_partition = %(partition)s
                 AND origin_offset >= %(first)s AND origin_offset < %(end)s) AS note
      ON event.origin_offset = note.origin_offset
    WHERE event.origin_offset IS NULL OR note.origin_offset IS NULL
)
SELECT 'event', event FROM unpaired
WHERE event IS NOT NULL
  AND NOT EXISTS (SELECT FROM replayed_events AS r
                  WHERE r.origin_topic = %(topic)s AND r.origin_partition = %(partition)s
                    AND r.origin_offset = event)
  AND NOT EXISTS (SELECT FROM dead_letters AS d
                  WHERE d.origin_topic = %(topic)s AND d.origin_partition = %(partition)s
                    AND d.origin_offset = event
                    AND (d.source_topic = %(notifications)s OR d.stage = 'notify'))
UNION ALL
SELECT 'event', r."offset" FROM replayed_events AS r
WHERE r.topic = %(topic)s AND r.partition = %(partition)s
  AND r."offset" >= %(first)s AND r."offset" < %(end)s {no_replayed_tombstone}
  AND NOT EXISTS (SELECT FROM notifications AS n
                  WHERE (n.origin_topic, n.origin_partition, n.origin_offset)
                      = (r.origin_topic, r.origin_partition, r.origin_offset))
  AND NOT EXISTS (SELECT FROM dead_letters AS d
                  WHERE (d.origin_topic, d.origin_partition, d.origin_offset)
                      = (r.origin_topic, r.origin_partition, r.origin_offset)
                    AND (d.source_topic = %(notifications)s OR d.stage = 'notify'))
UNION ALL
SELECT 'note', note FROM unpaired
JOIN notifications AS n
  ON n.origin_topic = %(topic)s AND n.origin_partition = %(partition)s AND n.origin_offset = note
JOIN unnest(%(partitions)s::int[], %(ends)s::bigint[]) AS seen (number, stop)
  ON seen.number = n.record_partition AND n.record_offset < seen.stop
WHERE NOT EXISTS (SELECT FROM refused_events AS x
                  WHERE x.topic = %(topic)s AND x.partition = %(partition)s AND x."offset" = note)
  AND NOT EXISTS (SELECT FROM dead_letters AS d
                  JOIN refused_events AS x ON (x.topic, x.partition, x."offset")
                   = (d.source_topic, d.source_partition, d.source_offset)
                  WHERE d.origin_topic = %(topic)s AND d.origin_partition = %(partition)s
                    AND d.origin_offset = note)
  AND NOT EXISTS (SELECT FROM dropped_days AS gone
                  WHERE gone.table_name = %(table)s
                    AND gone.day = (n."time" AT TIME ZONE 'UTC')::date)
ORDER BY 1, 2
""")
# Tombstones are no events.
_NO_REPLAYED_TOMBSTONE: Final = """
  AND NOT EXISTS (SELECT FROM {table} AS change
                  WHERE (change.origin_topic, change.origin_partition, change.origin_offset)
                      = (r.origin_topic, r.origin_partition, r.origin_offset) AND change.deleted)
"""
# A notification without an origin has its own position as its identity.
_ORPHANS: Final = """
SELECT min(origin_offset), max(origin_offset) + 1, count(*) FROM notifications
WHERE origin_topic = %s AND origin_partition = %s AND origin_offset >= %s AND origin_offset < %s
"""

_MOST_RANGES: Final = 1000


class Unpaired(NamedTuple):
    """An event without its notification, or a notification without its event: `what` says which of the
    two exists. The offset is of the record that the notification is due for, or that it is about."""

    what: Literal["event", "note"]
    offset: int


class OffsetGroup(NamedTuple):
    """Some offsets. Their ranges from the thousandth on are joined. `end` is exclusive."""

    first: int
    end: int
    number: int
    ranges: tuple[Range, ...] = ()


def unpaired(
    connection: Connection,
    stream: Stream,
    partition: int,
    within: Range,
    notes: Mapping[Partition, int],
) -> Iterator[Unpaired]:
    """Events and notifications without a partner, events first, ascending by offset.

    Args:
        connection: rows are streamed: a transaction stays open on it meanwhile.
        stream: one that has notifications.
        partition: of its topic.
        within: the offsets that are loaded and that the validator has read, or never can.
        notes: end offsets of the notifications' partitions, from before the validator's position was
            looked up.
    """
    topic = stream.notifications_topic
    numbers = {number: end for (name, number), end in notes.items() if name == topic}
    parameters = {
        "topic": stream.topic,
        "table": stream.event_table,
        "notifications": topic,
        "partition": partition,
        "first": within[0],
        "end": within[1],
        "partitions": list(numbers),
        "ends": list(numbers.values()),
    }
    table, upserts = sql.Identifier(stream.event_table), stream.mode == "upsert"
    query = _UNPAIRED.format(
        table=table,
        no_tombstone=sql.SQL("AND NOT deleted" if upserts else ""),
        no_replayed_tombstone=sql.SQL(_NO_REPLAYED_TOMBSTONE if upserts else "").format(
            table=table
        ),
    )
    with connection.transaction(), connection.cursor("unpaired") as cursor:
        # Streams from the indexes instead of hashing all offsets in memory.
        connection.execute("SET LOCAL enable_hashjoin = off")
        cursor.itersize = 10_000
        for what, offset in cursor.execute(query, parameters):
            yield Unpaired(what, offset)


def orphans(
    connection: Connection, topic: str, partition: int, within: Range
) -> OffsetGroup | None:
    """The notifications in one partition of their topic that have no origin."""
    row = connection.execute(_ORPHANS, [topic, partition, *within]).fetchone()
    return OffsetGroup(*row) if row is not None and row[2] else None


def outside(offsets: Iterable[int], ranges: Sequence[Range]) -> OffsetGroup | None:
    """The offsets that are in none of these ranges; both ascending, the ranges disjoint."""
    joined: list[Range] = []
    number = 0
    for offset in offsets:
        if not covers(ranges, offset):
            number += 1
            append_offset(joined, offset, _MOST_RANGES)
    return OffsetGroup(joined[0][0], joined[-1][1], number, tuple(joined)) if joined else None
