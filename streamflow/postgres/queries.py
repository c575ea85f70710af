"""Reads for status, audit, checks and dashboard. Each query has a name and says what it tells."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from psycopg import sql

from streamflow.flow import Partition
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.tables import SHARED
from streamflow.settings import Settings
from streamflow.stream import Stream

_COUNT_TIMEOUT: Final = 20  # seconds; counting reads every row


class Loaded(NamedTuple):
    """How far the loader is with a partition.

    Attributes:
        next_offset: where it goes on.
        records: how many it has read.
        rejected: how many of them were no events.
    """

    next_offset: int
    records: int
    rejected: int


def counted_tables(streams: Sequence[Stream]) -> list[str]:
    """The tables that records are loaded into: the streams' own, then the shared ones."""
    return [*(stream.table for stream in streams), *(table.name for table in SHARED)]


def row_counts(settings: Settings, streams: Sequence[Stream]) -> dict[str, int]:
    """How many rows each table holds, exactly.

    Raises:
        Unavailable: the database does not answer, or not within 20 s.
        ConfigurationError: a table is missing.
    """
    names = counted_tables(streams)
    with session(settings, "status", statement_timeout=_COUNT_TIMEOUT) as connection:
        counts = [
            sql.SQL("(SELECT count(*) FROM {})").format(sql.Identifier(name)) for name in names
        ]
        row = connection.execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(counts))).fetchone()
    return dict(zip(names, row or (), strict=True))


def loaded(connection: Connection, group: str) -> dict[Partition, Loaded]:
    """How far the loader is, by partition."""
    rows = connection.execute(
        "SELECT topic, partition, next_offset, records, rejected FROM loader_positions"
        " WHERE group_name = %s ORDER BY topic, partition",
        [group],
    )
    return {(topic, partition): Loaded(*rest) for topic, partition, *rest in rows}
