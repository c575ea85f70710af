"""Whether each valid event has its notification, and each notification its event (G5)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from psycopg import sql

from streamflow.audit.gap_ledger import Range
from streamflow.flow import Partition
from streamflow.postgres.connections import Connection
from streamflow.stream import Stream

# Events and notifications of one source partition, side by side by their identity: a merge join of
# two primary keys. What has no partner is looked at more closely.
#
# An event stored from a replay stands under its origin: the validator wrote its notification when it
# read the replay, so it is due by the replay's position. A notification may itself be a dead letter.
# A notification's event may be a row that the database refused (first-hand, or as a replay), or of a
# day that retention has dropped; and it may have been made of a record that was appended after the
# validator's position was looked up.
_UNPAIRED: Final = sql.SQL("""
WITH unpaired AS MATERIALIZED (
    SELECT event.origin_offset AS event, note.origin_offset AS note
    FROM (SELECT origin_offset FROM {table}
          WHERE origin_topic = %(topic)s AND origin_partition = %(partition)s
            AND origin_offset >= %(first)s AND origin_offset < %(end)s) AS event
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
                    AND d.origin_offset = event AND d.source_topic = %(notifications)s)
UNION ALL
SELECT 'event', r."offset" FROM replayed_events AS r
WHERE r.topic = %(topic)s AND r.partition = %(partition)s
  AND r."offset" >= %(first)s AND r."offset" < %(end)s
  AND NOT EXISTS (SELECT FROM notifications AS n
                  WHERE n.origin_topic = r.origin_topic
                    AND n.origin_partition = r.origin_partition
                    AND n.origin_offset = r.origin_offset)
  AND NOT EXISTS (SELECT FROM dead_letters AS d
                  WHERE d.origin_topic = r.origin_topic
                    AND d.origin_partition = r.origin_partition
                    AND d.origin_offset = r.origin_offset AND d.source_topic = %(notifications)s)
UNION ALL
SELECT 'note', note FROM unpaired
JOIN notifications AS n
  ON n.origin_topic = %(topic)s AND n.origin_partition = %(partition)s AND n.origin_offset = note
JOIN unnest(%(partitions)s::int[], %(ends)s::bigint[]) AS seen (number, stop)
  ON seen.number = n.record_partition AND n.record_offset < seen.stop
WHERE NOT EXISTS (SELECT FROM refused_events AS x
                  WHERE x.topic = %(topic)s AND x.partition = %(partition)s AND x."offset" = note)
  AND NOT EXISTS (SELECT FROM dead_letters AS d
                  JOIN refused_events AS x
                    ON x.topic = d.source_topic AND x.partition = d.source_partition
                   AND x."offset" = d.source_offset
                  WHERE d.origin_topic = %(topic)s AND d.origin_partition = %(partition)s
                    AND d.origin_offset = note)
  AND NOT EXISTS (SELECT FROM dropped_days AS gone
                  WHERE gone.table_name = %(table)s
                    AND gone.day = (n."time" AT TIME ZONE 'UTC')::date)
ORDER BY 1, 2
""")
# A notification without an origin of its own stands under its own position.
_ORPHANS: Final = """
SELECT min(origin_offset), max(origin_offset) + 1, count(*) FROM notifications
WHERE origin_topic = %s AND origin_partition = %s AND origin_offset >= %s AND origin_offset < %s
"""

_MOST_RANGES: Final = 1000


class Unpaired(NamedTuple):
    """An event without its notification, or a notification without its event.

    Attributes:
        what: which of the two is there.
        offset: of the record that the notification is due by, or that it tells of.
    """

    what: Literal["event", "note"]
    offset: int


class Group(NamedTuple):
    """Some offsets: the first, the one behind the last, and how many there are; and which, as ranges.
    From the thousandth range on, what lies between them is taken in."""

    first: int
    end: int
    number: int
    ranges: tuple[Range, ...] = ()


def unpaired(
    connection: Connection,
    stream: Stream,
    partition: int,
    through: Range,
    notes: Mapping[Partition, int],
) -> Iterator[Unpaired]:
    """What has no partner, events first, ascending by offset. Rows are fetched as asked for.

    Args:
        connection: a transaction is kept open while rows are fetched.
        stream: one that has notifications.
        partition: of its topic.
        through: the offsets that were loaded and that the validator had read, or never can.
        notes: where each partition of the notifications ended before the validator's position was
            looked up.
    """
    topic = stream.notifications_topic
    numbers = {number: end for (name, number), end in notes.items() if name == topic}
    first, end = through
    parameters = {
        "topic": stream.topic,
        "table": stream.table,
        "notifications": topic,
        "partition": partition,
        "first": first,
        "end": end,
        "partitions": list(numbers),
        "ends": list(numbers.values()),
    }
    query = _UNPAIRED.format(table=sql.Identifier(stream.table))
    with connection.transaction(), connection.cursor("unpaired") as cursor:
        # Streams from the indexes instead of holding all offsets in memory.
        connection.execute("SET LOCAL enable_hashjoin = off")
        cursor.itersize = 10_000
        for what, offset in cursor.execute(query, parameters):
            yield Unpaired(what, offset)


def orphans(connection: Connection, topic: str, partition: int, within: Range) -> Group | None:
    """The notifications in one partition of their topic that tell of no event at all."""
    row = connection.execute(_ORPHANS, [topic, partition, *within]).fetchone()
    return Group(*row) if row is not None and row[2] else None


def outside(offsets: Iterable[int], ranges: Sequence[Range]) -> Group | None:
    """Those of some offsets, ascending, that lie in none of these ranges."""
    found: list[Range] = []
    number = 0
    for offset in offsets:
        if any(low <= offset < high for low, high in ranges):
            continue
        number += 1
        if found and (offset <= found[-1][1] or len(found) == _MOST_RANGES):
            found[-1] = (found[-1][0], offset + 1)
        else:
            found.append((offset, offset + 1))
    return Group(found[0][0], found[-1][1], number, tuple(found)) if found else None
