"""How far behind the loader is, by what the database says: exact, also when nobody tells Kafka."""

from collections.abc import Iterable

from confluent_kafka.admin import AdminClient

from streamflow.flow import Partition
from streamflow.kafka import offsets
from streamflow.postgres.connections import Connection
from streamflow.postgres.sink.positions import loaded


def loader_lags(
    client: AdminClient, connection: Connection, group: str, topics: Iterable[str]
) -> dict[Partition, int]:
    """Offsets between the loader's position and the end of each partition, markers included.

    Raises:
        Unavailable: the broker does not answer.
    """
    positions = loaded(connection, group)
    bounds = offsets.bounds(client, offsets.partitions_of(client, topics))
    return {
        partition: max(
            0, end - max(first, positions[partition].next_offset if partition in positions else 0)
        )
        for partition, (first, end) in bounds.items()
    }
