"""A stream whose `mode` is another one than its tables were made for."""

from collections.abc import Iterable
from typing import Final

from streamflow.errors import ConfigurationError
from streamflow.postgres.connections import Connection
from streamflow.postgres.partitions import quoted
from streamflow.postgres.tables import ORIGIN_COLUMNS
from streamflow.stream import Stream

# Of ours is a partitioned table with the loader's columns, and a view of a state table.
_WAS_APPEND: Final = """
SELECT FROM pg_partitioned_table WHERE partrelid = to_regclass(%(table)s) AND (
    SELECT count(*) FROM pg_attribute WHERE attrelid = partrelid AND attname = ANY(%(columns)s)
) = cardinality(%(columns)s)
"""
_WAS_UPSERT: Final = """
SELECT FROM pg_rewrite JOIN pg_depend ON objid = pg_rewrite.oid
 WHERE ev_class = to_regclass(%(table)s) AND refobjid = to_regclass(%(state)s)
"""


def require_same_mode(connection: Connection, stream: Stream) -> None:
    """Raises ConfigurationError if the stream's tables are those of an append stream, and it upserts now,
    or the other way round."""
    table = stream.table
    names = {
        "table": quoted(table),
        "state": quoted(f"{table}_state"),
        "columns": [*ORIGIN_COLUMNS],
    }
    if stream.mode == "append":
        earlier, query = "upsert", _WAS_UPSERT
        held = f"{table} is a view: its events are in {table}_changes and {table}_state"
    else:
        earlier, query = "append", _WAS_APPEND
        held = f"{table} is the table of all its events"
    if connection.execute(query, names).fetchone() is not None:
        raise ConfigurationError(
            f'stream {stream.name}: mode was "{earlier}" and is "{stream.mode}" now, and {held}. Declare '
            f'mode="{earlier}" again, or a new stream (name and table)'
        )


def of_other_mode(
    connection: Connection, streams: Iterable[Stream]
) -> dict[str, ConfigurationError]:
    """By topic, why `require_same_mode` refuses some of the streams."""
    refused = {}
    for stream in streams:
        try:
            require_same_mode(connection, stream)
        except ConfigurationError as error:
            refused[stream.topic] = error
    return refused
