"""How replayed events get into their table.

The identity of a replayed event is that of its origin, and a repair may have changed its time, which is
part of the table's key. So the one that can write its origin into ``replayed_events`` is stored.
"""

from collections.abc import Collection, Sequence
from typing import Final

from psycopg import sql

from streamflow.flow import Replayed
from streamflow.postgres.connections import Connection
from streamflow.postgres.sink.copy import Merge, Row, Stored, merge_items, names, note_duplicates
from streamflow.postgres.tables import Table
from streamflow.records import Origin

# What a replayed row has besides its columns; see the names in `copy`.
_RECORD: Final = ("record topic", "record partition", "record offset")
_ATTEMPT: Final = "record attempt"

_CREATE_INCOMING: Final = """
CREATE TEMPORARY TABLE "incoming rows" (
    LIKE {table} INCLUDING DEFAULTS,
    "record topic" text, "record partition" integer, "record offset" bigint, "record attempt" integer
) ON COMMIT DROP
"""
# The identity first: the event that could write it down is stored.
_INSERT_NEW: Final = """
WITH "fresh rows" AS (
    INSERT INTO replayed_events (origin_topic, origin_partition, origin_offset,
                                 topic, partition, "offset", attempt)
    SELECT origin_topic, origin_partition, origin_offset,
           "record topic", "record partition", "record offset", "record attempt"
      FROM "incoming rows" AS incoming
     WHERE NOT EXISTS (SELECT FROM {table} AS kept
                        WHERE kept.origin_partition = incoming.origin_partition
                          AND kept.origin_offset = incoming.origin_offset
                          AND kept.origin_topic = incoming.origin_topic)
     ORDER BY "record offset"
    ON CONFLICT DO NOTHING
    RETURNING topic AS "record topic", partition AS "record partition", "offset" AS "record offset"
)
INSERT INTO {table} ({columns})
SELECT {columns}
  FROM "incoming rows"
  JOIN "fresh rows" USING ("record topic", "record partition", "record offset")
"""
# The position is written down before Kafka commits the record, so before it can be read. One
# offset can be that of two records where the topic was recreated.
_SENT: Final = """
SELECT DISTINCT ON (sent.topic, sent.partition, sent."offset")
       sent.topic, sent.partition, sent."offset",
       failed.origin_topic, failed.origin_partition, failed.origin_offset, sent.attempt
  FROM unnest(%s::text[], %s::int[], %s::bigint[]) AS claimed (topic, partition, at)
  JOIN replay_records AS sent
    ON sent.partition = claimed.partition AND sent."offset" = at AND sent.topic = claimed.topic
  JOIN dead_letters AS failed USING (source_topic, source_partition, source_offset)
 WHERE sent.outcome IN ('prepared', 'sent', 'stored', 'duplicate', 'rejected')
 ORDER BY sent.topic, sent.partition, sent."offset", sent.replay_id DESC
"""
_REPLAYED_ORIGINS: Final = """
SELECT origin_topic, origin_partition, origin_offset
  FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[])
       AS batch (topic, partition, first, stop)
  JOIN replayed_events
    ON origin_topic = batch.topic AND origin_partition = batch.partition
   AND origin_offset >= first AND origin_offset < stop
"""


def merge_replayed(connection: Connection, table: Table, rows: Sequence[Row]) -> Stored:
    """Stores each replayed event unless its origin is stored already, under any time stamp."""
    own_table = sql.Identifier(table.name)
    merge = Merge(
        create=sql.SQL(_CREATE_INCOMING).format(table=own_table),
        columns=(*table.columns, *_RECORD, _ATTEMPT),
        insert=sql.SQL(_INSERT_NEW).format(table=own_table, columns=names(table.columns)),
        note_duplicates=note_duplicates(
            table, _RECORD, "replayed_events", ("topic", "partition", "offset"), _RECORD
        ),
    )
    return merge_items(connection, table, rows, merge)


def sent_by_replays(
    connection: Connection, positions: Collection[Origin]
) -> dict[Origin, Replayed]:
    """What those of the records at `positions` are that a replay has sent, whatever they claim."""
    rows = connection.execute(_SENT, list(map(list, zip(*positions, strict=True))))
    return {Origin(*row[:3]): Replayed(Origin(*row[3:6]), row[6]) for row in rows}


def replayed_origins(
    connection: Connection, ranges: Sequence[tuple[str, int, int, int]]
) -> set[Origin]:
    """The origins whose events were stored from a replay, within ranges: topic, partition, first offset,
    and the offset after the last."""
    rows = connection.execute(_REPLAYED_ORIGINS, list(map(list, zip(*ranges, strict=True))))
    return {Origin(*row) for row in rows}
