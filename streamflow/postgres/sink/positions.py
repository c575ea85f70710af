"""The loader's positions in the database: locked first, moved last (G1); and what they say is loaded."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from streamflow.errors import Fenced
from streamflow.flow import Count, Partition
from streamflow.postgres.connections import Connection
from streamflow.records import Log, Position

_READ: Final = """
SELECT topic, partition, next_offset, topic_id, leader_epoch
  FROM loader_positions
 WHERE group_name = %s
"""
_CREATE: Final = """
INSERT INTO loader_positions (group_name, topic, partition)
SELECT %s, * FROM unnest(%s::text[], %s::int[])
ON CONFLICT DO NOTHING
"""
_LOCK: Final = """
SELECT topic, partition, next_offset
  FROM loader_positions
 WHERE group_name = %s AND (topic, partition) IN (SELECT * FROM unnest(%s::text[], %s::int[]))
 ORDER BY topic, partition
   FOR UPDATE
"""
_MOVE: Final = """
UPDATE loader_positions AS kept
   SET next_offset = moved.next_offset,
       records = kept.records + moved.records,
       rejected = kept.rejected + moved.rejected,
       topic_id = coalesce(nullif(moved.topic_id, ''), kept.topic_id),
       leader_epoch = moved.leader_epoch,
       updated_at = now()
  FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::int[])
       AS moved (topic, partition, next_offset, records, rejected, topic_id, leader_epoch)
 WHERE kept.group_name = %s AND kept.topic = moved.topic AND kept.partition = moved.partition
"""
_LOADED: Final = """
SELECT topic, partition, next_offset, records, rejected
  FROM loader_positions
 WHERE group_name = %s
 ORDER BY topic, partition
"""


class Loaded(NamedTuple):
    """How far the loader is with a partition."""

    next_offset: int
    records: int  # that it has read
    rejected: int  # of these


def read(
    connection: Connection, group: str, partitions: Sequence[Partition]
) -> dict[Partition, Position | None]:
    """Where each partition is to be read from; None where nothing was kept yet of its topic.

    A partition of which nothing was kept, in a topic of which something was, begins at 0 in the same
    topic: its id shows if that was recreated.
    """
    rows = connection.execute(_READ, [group])
    known: dict[Partition, Position] = {}
    ids: dict[str, str] = {}
    for topic, partition, offset, topic_id, epoch in rows:
        if offset or topic_id:
            log = Log(topic_id or "", epoch)
            known[topic, partition] = Position(topic, partition, offset, log=log)
        if topic_id:
            ids[topic] = topic_id
    return {
        (topic, partition): known.get(
            (topic, partition),
            Position(topic, partition, 0, log=Log(ids[topic])) if topic in ids else None,
        )
        for topic, partition in partitions
    }


def lock(
    connection: Connection,
    group: str,
    expected: Mapping[Partition, int],
    others: Iterable[Partition],
) -> None:
    """Locks the positions of these partitions until the transaction ends. Always in the same order, so
    that two loaders that share some do not deadlock.

    Args:
        expected: where this process left each partition that it is about to move.
        others: partitions whose loading must wait meanwhile, at any offset.

    Raises:
        Fenced: another loader has moved one of them.
    """
    mine = sorted(expected)
    connection.execute(_CREATE, [group, *_columns(mine)])
    rows = connection.execute(_LOCK, [group, *_columns(sorted({*mine, *others}))])
    for topic, partition, offset in rows:
        left_at = expected.get((topic, partition), offset)
        if offset != left_at:
            raise Fenced(
                f"{topic}/{partition} is at offset {offset}, this loader had left it at "
                f"{left_at}: another loader has taken over; the batch is dropped, it is loaded there"
            )


def move(
    connection: Connection,
    group: str,
    positions: Sequence[Position],
    counts: Mapping[Partition, Count],
    logs: Mapping[Partition, Log],
) -> None:
    """Moves the positions, with the counts of the records before them and the logs that they count in."""
    nothing, unknown = Count(0, 0), Log()
    moved = []
    for topic, partition, offset, *_ in positions:
        count = counts.get((topic, partition), nothing)
        log = logs.get((topic, partition), unknown)
        moved.append((topic, partition, offset, *count, *log))
    connection.execute(_MOVE, [*_columns(moved, 7), group])


def _columns(rows: Sequence[Sequence[object]], width: int = 2) -> list[list[object]]:
    """Rows as the arrays that ``unnest`` takes."""
    return [[row[index] for row in rows] for index in range(width)]


def loaded(connection: Connection, group: str) -> dict[Partition, Loaded]:
    rows = connection.execute(_LOADED, [group])
    return {(topic, partition): Loaded(*rest) for topic, partition, *rest in rows}
