"""The loader's positions in the database: locked first, moved last (G1)."""

from collections.abc import Iterable, Mapping, Sequence

from streamflow.errors import Fenced
from streamflow.flow import Count, Partition
from streamflow.postgres.connections import Connection
from streamflow.records import Position


def read(
    connection: Connection, group: str, partitions: Sequence[Partition]
) -> dict[Partition, int]:
    """The next offset of each partition; 0 where nothing was kept yet."""
    found = connection.execute(
        "SELECT topic, partition, next_offset FROM loader_positions WHERE group_name = %s",
        [group],
    )
    known = {(topic, partition): offset for topic, partition, offset in found}
    return {partition: known.get(partition, 0) for partition in partitions}


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
) -> None:
    """Moves the positions, and counts what was read."""
    nothing = Count(0, 0)
    found = [counts.get((each.topic, each.partition), nothing) for each in positions]
    connection.execute(
        "UPDATE loader_positions AS kept SET next_offset = moved.next_offset,"
        " records = kept.records + moved.records, rejected = kept.rejected + moved.rejected,"
        " updated_at = now() FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[],"
        " %s::bigint[]) AS moved (topic, partition, next_offset, records, rejected)"
        " WHERE kept.group_name = %s AND kept.topic = moved.topic"
        " AND kept.partition = moved.partition",
        [
            [each.topic for each in positions],
            [each.partition for each in positions],
            [each.offset for each in positions],
            [count.records for count in found],
            [count.rejected for count in found],
            group,
        ],
    )
