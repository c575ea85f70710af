"""How replayed events get into their table.

The identity of a replayed event is that of its origin, and a repair may have changed its time, which
is part of the table's key. So it is stored by whoever can write its origin into ``replayed_events``.
"""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from psycopg import sql

from streamflow.flow import Replayed
from streamflow.postgres.connections import Connection
from streamflow.postgres.sink.copy import (
    Stored,
    copy,
    create_incoming,
    name_or_null,
    names,
    store_sound,
    text_or_null,
)
from streamflow.postgres.tables import Table
from streamflow.records import Origin, Record, position_of

_POSITION: Final = ("record_topic", "record_partition", "record_offset")


class ReplayedRow(NamedTuple):
    """The row of an event that a replay has sent.

    Attributes:
        line: COPY text, with the origin as identity.
        record: that was sent.
        attempt: how often the event had been replayed by then.
    """

    line: bytes
    record: Record
    attempt: int


def store_replays(connection: Connection, table: Table, replays: Sequence[ReplayedRow]) -> Stored:
    """Stores each replayed event unless its origin is stored already, under any time stamp."""
    storer = _ReplayStorer(connection, table)
    create_incoming(connection, table, attempt=True)
    refused = store_sound(connection, table, replays, storer)
    connection.execute("DROP TABLE incoming")
    return Stored(storer.rows, storer.duplicates, refused)


# The position is written down before Kafka commits the record, so before anybody can read it. One
# offset can be that of two records where the topic was recreated.
_SENT: Final = """
SELECT DISTINCT ON (sent.topic, sent.partition, sent."offset")
       sent.topic, sent.partition, sent."offset",
       letter.origin_topic, letter.origin_partition, letter.origin_offset, sent.attempt
  FROM unnest(%s::text[], %s::int[], %s::bigint[]) AS claimed (topic, partition, at)
  JOIN replay_records AS sent
    ON sent.partition = claimed.partition AND sent."offset" = at AND sent.topic = claimed.topic
  JOIN dead_letters AS letter USING (source_topic, source_partition, source_offset)
 WHERE sent.outcome IN ('prepared', 'sent', 'stored', 'duplicate', 'rejected')
 ORDER BY sent.topic, sent.partition, sent."offset", sent.replay_id DESC
"""


def sent_by_replays(
    connection: Connection, positions: Collection[Origin]
) -> dict[Origin, Replayed]:
    """What those of the records are that a replay has sent.

    Args:
        connection: where to look.
        positions: of records that claim to be replays. What they claim does not matter.
    """
    topics, partitions, offsets = (list(each) for each in zip(*positions, strict=True))
    found = connection.execute(_SENT, [topics, partitions, offsets])
    return {Origin(*row[:3]): Replayed(Origin(*row[3:6]), row[6]) for row in found}


def replayed_origins(
    connection: Connection, ranges: Sequence[tuple[str, int, int, int]]
) -> set[Origin]:
    """The origins whose events were stored from a replay, within these ranges.

    Args:
        connection: where to look.
        ranges: topic, partition, first offset, and the offset after the last.
    """
    topics, partitions, firsts, ends = (list(each) for each in zip(*ranges, strict=True))
    found = connection.execute(
        "SELECT origin_topic, origin_partition, origin_offset"
        " FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[])"
        " AS batch (topic, partition, first, stop) JOIN replayed_events"
        " ON origin_topic = batch.topic AND origin_partition = batch.partition"
        " AND origin_offset >= first AND origin_offset < stop",
        [topics, partitions, firsts, ends],
    )
    return {Origin(*row) for row in found}


class _ReplayStorer:
    """Stores replayed events by way of ``incoming``, and counts what became of them."""

    def __init__(self, connection: Connection, table: Table) -> None:
        self.rows = 0
        self.duplicates = 0
        self._connection = connection
        self._table = table

    def __call__(self, replays: Sequence[ReplayedRow]) -> None:
        table, connection = self._table, self._connection
        copy(
            connection,
            table,
            sql.Identifier("incoming"),
            [_with_position(replay) for replay in replays],
            (*_POSITION, "attempt"),
        )
        # The identity first: the event is stored by whoever could write that down.
        stored = connection.execute(
            sql.SQL(
                "WITH fresh AS (INSERT INTO replayed_events (origin_topic, origin_partition,"
                ' origin_offset, topic, partition, "offset", attempt)'
                " SELECT origin_topic, origin_partition, origin_offset, record_topic,"
                " record_partition, record_offset, attempt FROM incoming WHERE NOT EXISTS"
                " (SELECT FROM {table} AS kept WHERE kept.origin_partition ="
                " incoming.origin_partition AND kept.origin_offset = incoming.origin_offset"
                " AND kept.origin_topic = incoming.origin_topic)"
                " ORDER BY record_offset ON CONFLICT DO NOTHING"
                ' RETURNING topic, partition, "offset")'
                " INSERT INTO {table} ({names}) SELECT {names} FROM incoming JOIN fresh"
                " ON record_topic = topic AND record_partition = partition"
                ' AND record_offset = "offset"'
            ).format(table=sql.Identifier(table.name), names=names(table.columns))
        ).rowcount
        duplicates = connection.execute(
            sql.SQL(
                'INSERT INTO duplicates (topic, partition, "offset", origin_topic,'
                " origin_partition, origin_offset, table_name, event_type, event_time,"
                " appended_at)"
                " SELECT record_topic, record_partition, record_offset, origin_topic,"
                " origin_partition, origin_offset, {name}, {event_type}, {event_time}, appended_at"
                " FROM incoming WHERE NOT EXISTS (SELECT FROM replayed_events WHERE"
                " topic = record_topic AND partition = record_partition"
                ' AND "offset" = record_offset)'
                " ON CONFLICT DO NOTHING"
            ).format(
                name=sql.Literal(table.name),
                event_type=text_or_null(table.event_type),
                event_time=name_or_null(table.event_time),
            )
        ).rowcount
        connection.execute("DELETE FROM incoming")
        self.rows += stored
        self.duplicates += duplicates


def _with_position(row: ReplayedRow) -> bytes:
    topic, partition, offset = position_of(row.record)
    return row.line[:-1] + f"\t{topic}\t{partition}\t{offset}\t{row.attempt}\n".encode()
