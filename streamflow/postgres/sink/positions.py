"""The loader's positions in the database: locked first, moved last (G1)."""

from collections.abc import Iterable, Mapping, Sequence

from streamflow.errors import Fenced
from streamflow.flow import Count, Partition
from streamflow.postgres.connections import Connection
from streamflow.records import Log, Position


def read(
    connection: Connection, group: str, partitions: Sequence[Partition]
) -> dict[Partition, Position | None]:
    """Where each partition is to be read from; None where nothing was kept yet of its topic.

    A partition of which nothing was kept, in a topic of which something was, begins at 0 in the same
    topic: its id tells when that was recreated.
    """
    rows = connection.execute(
        "SELECT topic, partition, next_offset, topic_id, leader_epoch FROM loader_positions"
        " WHERE group_name = %s",
        [group],
    )
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
    """Locks the positions of these partitions until the transaction ends. Always in the same order,
    so that two loaders that share some do not lock each other out.

    Args:
        connection: in a transaction.
        group: of the loader.
        expected: where this process left each partition that it is about to move.
        others: partitions whose loading must wait meanwhile, wherever they stand.

    Raises:
        Fenced: another loader has moved one of them.
    """
    mine = sorted(expected)
    topics = [topic for topic, _ in mine]
    numbers = [number for _, number in mine]
    connection.execute(
        "INSERT INTO loader_positions (group_name, topic, partition)"
        " SELECT %s, * FROM unnest(%s::text[], %s::int[]) ON CONFLICT DO NOTHING",
        [group, topics, numbers],
    )
    wanted = sorted({*mine, *others})
    rows = connection.execute(
        "SELECT topic, partition, next_offset FROM loader_positions"
        " WHERE group_name = %s AND (topic, partition) IN"
        " (SELECT * FROM unnest(%s::text[], %s::int[])) ORDER BY topic, partition FOR UPDATE",
        [group, [topic for topic, _ in wanted], [number for _, number in wanted]],
    )
    for topic, partition, offset in rows:
        left_at = expected.get((topic, partition), offset)
        if offset != left_at:
            raise Fenced(
                f"{topic}/{partition} stands at offset {offset}, this loader had left it at "
                f"{left_at}: another loader has taken over; the batch is dropped, it is loaded there"
            )


def move(
    connection: Connection,
    group: str,
    positions: Sequence[Position],
    counts: Mapping[Partition, Count],
    logs: Mapping[Partition, Log],
) -> None:
    """Moves the positions, and counts what was read.

    Args:
        connection: in the transaction that loads the rows.
        group: of the loader.
        positions: the next offsets.
        counts: of the records before them.
        logs: which logs the offsets count in.
    """
    nothing, unknown = Count(0, 0), Log()
    partitions = [(each.topic, each.partition) for each in positions]
    found = [counts.get(each, nothing) for each in partitions]
    kept_in = [logs.get(each, unknown) for each in partitions]
    connection.execute(
        "UPDATE loader_positions AS kept SET next_offset = moved.next_offset,"
        " records = kept.records + moved.records, rejected = kept.rejected + moved.rejected,"
        " topic_id = coalesce(nullif(moved.topic_id, ''), kept.topic_id),"
        " leader_epoch = moved.leader_epoch,"
        " updated_at = now() FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[],"
        " %s::bigint[], %s::text[], %s::int[]) AS moved (topic, partition, next_offset, records,"
        " rejected, topic_id, leader_epoch)"
        " WHERE kept.group_name = %s AND kept.topic = moved.topic"
        " AND kept.partition = moved.partition",
        [
            [each.topic for each in positions],
            [each.partition for each in positions],
            [each.offset for each in positions],
            [count.records for count in found],
            [count.rejected for count in found],
            [log.topic_id for log in kept_in],
            [log.leader_epoch for log in kept_in],
            group,
        ],
    )
