"""Gaps: what readers could not read because it was gone first, kept until a person acknowledges it."""

from collections.abc import Iterable, Sequence
from contextlib import closing

from streamflow.kafka import offsets
from streamflow.kafka.clients import admin
from streamflow.postgres.connections import Connection
from streamflow.records import Gap
from streamflow.settings import Settings
from streamflow.stream import Stream


def keep(connection: Connection, reader: str, gaps: Iterable[Gap]) -> int:
    """Stores gaps of a consumer group, or of `gap_ledger.AUDIT`, the loader's in the transaction that
    moves its position; returns how many are new or have grown.

    A known one stays as it is, acknowledged or not; one that has grown must be acknowledged again.
    """
    rows = list(gaps)
    if not rows:
        return 0
    return connection.execute(
        """
        INSERT INTO gaps AS known (reader, topic, partition, first_offset, end_offset, cause)
        SELECT %s, * FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[], %s::text[])
        ON CONFLICT (reader, topic, partition, first_offset) DO UPDATE
        SET end_offset = excluded.end_offset, noticed_at = now(),
            acknowledged_at = NULL, acknowledged_by = NULL
        WHERE known.end_offset < excluded.end_offset
        """,
        [reader, *(list(column) for column in zip(*rows, strict=True))],
    ).rowcount


def import_gaps(connection: Connection, settings: Settings, streams: Sequence[Stream]) -> int:
    """Copies the gaps that validator and analytics, without a database, keep beside their committed
    offsets into the table; returns how many were new. Safe to repeat; acknowledged ones stay
    acknowledged. Raises Unavailable if the broker does not answer."""
    partitions = offsets.partitions_of(admin(settings), [stream.topic for stream in streams])
    added = 0
    for worker in ("validator", "analytics"):
        group = settings.group(worker)
        with closing(offsets.GroupOffsets(settings, group)) as reader:
            added += keep(connection, group, reader.gaps(partitions))
    return added
