"""From which time on windows can have changed since an audit has proved them."""

from collections.abc import Mapping
from typing import Any, Final

from psycopg import Connection, sql

from streamflow.stream import Stream

EVERY_WINDOW: Final = "-infinity"
_NO_WINDOW: Final = "infinity"

# The first window in which a record is counted that was not proved, as records or parts tell, or of which a
# part was not proved itself. Replays, duplicates and refused events are of any time.
_FIRST: Final = """
SELECT date_bin(%(size)s * interval '1 ms', least(
    (SELECT min(e.{time}) FROM {table} AS e
      WHERE e.origin_topic = %(topic)s AND e.origin_partition = %(partition)s
        AND e.origin_offset >= %(proved)s AND e.origin_offset < %(position)s),
    (SELECT min(e.{time})
       FROM replayed_events AS r JOIN {table} AS e USING (origin_topic, origin_partition, origin_offset)
      WHERE r.topic = %(topic)s AND r.partition = %(partition)s
        AND r."offset" >= %(proved)s AND r."offset" < %(position)s),
    (SELECT min(d.event_time) FROM duplicates AS d
      WHERE d.topic = %(topic)s AND d.partition = %(partition)s
        AND d."offset" >= %(proved)s AND d."offset" < %(position)s),
    (SELECT min(x.event_time) FROM refused_events AS x
      WHERE x.topic = %(topic)s AND x.partition = %(partition)s
        AND x."offset" >= %(proved)s AND x."offset" < %(position)s),
    (SELECT min(w.window_start) FROM window_counts AS w
      WHERE w.origin_topic = %(topic)s AND w.partition = %(partition)s AND w.last_offset >= %(proved)s),
    (SELECT min(w.window_start) FROM window_counts AS w
       JOIN unnest(%(numbers)s::int[], %(throughs)s::bigint[]) AS known (number, through)
         ON w.record_partition = known.number AND w.record_offset >= known.through
      WHERE w.record_topic = %(parts_topic)s
        AND w.origin_topic = %(topic)s AND w.partition = %(partition)s)
), 'epoch')::text
"""


def first_touched(
    connection: Connection[Any],
    stream: Stream,
    parameters: Mapping[str, Any],
    proved_parts: Mapping[int, int],
) -> str:
    """The start of the first window that records from `proved` on are counted in, as PostgreSQL's text.
    `proved_parts`: how far the partitions of the windows' topic are proved."""
    query = sql.SQL(_FIRST).format(
        table=sql.Identifier(stream.event_table), time=sql.Identifier(stream.event_time)
    )
    of_parts = {
        "parts_topic": stream.analytics_topic,
        "numbers": list(proved_parts),
        "throughs": list(proved_parts.values()),
    }
    [(first,)] = connection.execute(query, {**parameters, **of_parts})
    return _NO_WINDOW if first is None else str(first)
