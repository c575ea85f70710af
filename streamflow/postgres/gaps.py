"""Gaps: what readers could not read because it was gone first, kept until a person acknowledges it."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Final

from streamflow.kafka import offsets
from streamflow.kafka.clients import admin
from streamflow.postgres.connections import Connection
from streamflow.records import Gap
from streamflow.settings import Settings
from streamflow.stream import Stream

_WITHOUT_DATABASE: Final = ("validator", "analytics")


def keep(connection: Connection, reader: str, gaps: Iterable[Gap]) -> int:
    """Writes gaps down; one that is known already stays as it is, acknowledged or not.

    Args:
        connection: where to; the loader's are kept in the transaction that moves the position.
        reader: the consumer group that could not read them.
        gaps: to be kept.

    Returns:
        How many were not known before.
    """
    found = list(gaps)
    if not found:
        return 0
    return connection.execute(
        "INSERT INTO gaps (reader, topic, partition, first_offset, end_offset, cause)"
        " SELECT %s, * FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[], %s::text[])"
        " ON CONFLICT DO NOTHING",
        [reader, *(list(column) for column in zip(*found, strict=True))],
    ).rowcount


def import_gaps(connection: Connection, settings: Settings, streams: Sequence[Stream]) -> int:
    """Copies the gaps that validator and analytics keep beside their committed offsets, for want of a
    database, into the table. Safe to repeat; acknowledged ones stay acknowledged.

    Returns:
        How many were not known before.

    Raises:
        Unavailable: the broker does not answer.
    """
    partitions = offsets.partitions_of(admin(settings), [stream.topic for stream in streams])
    added = 0
    for worker in _WITHOUT_DATABASE:
        group = settings.group(worker)
        with closing(offsets.GroupOffsets(settings, group)) as reader:
            added += keep(connection, group, reader.gaps(partitions))
    return added
