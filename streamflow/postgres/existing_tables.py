"""Tables as they are in the database."""

from typing import Final

from streamflow.postgres.connections import Connection
from streamflow.postgres.evolution import ExistingColumn, StoredTable
from streamflow.postgres.partitions import quoted
from streamflow.postgres.tables import event_table
from streamflow.stream import Stream

_PARTITION_KEY: Final = """
SELECT attname FROM pg_partitioned_table JOIN pg_attribute ON attrelid = partrelid AND attnum = partattrs[0]
 WHERE partrelid = to_regclass(%s) AND partstrat = 'r' AND partnatts = 1
"""
_PRIMARY_KEY: Final = """
SELECT attname FROM pg_index
  JOIN unnest(indkey) WITH ORDINALITY AS part (number, place) ON true
  JOIN pg_attribute ON attrelid = indrelid AND attnum = part.number
 WHERE indrelid = to_regclass(%s) AND indisprimary ORDER BY place
"""


def existing_columns(connection: Connection, table: str) -> dict[str, ExistingColumn]:
    """The columns of a table; none if there is no such table."""
    rows = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull,"
        " atthasdef OR attidentity <> '' FROM pg_attribute"
        " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [quoted(table)],
    )
    return {name: ExistingColumn(*rest) for name, *rest in rows}


def partitioned_by(connection: Connection, table: str) -> str | None:
    row = connection.execute(_PARTITION_KEY, [quoted(table)]).fetchone()
    return None if row is None else row[0]


def primary_key_of(connection: Connection, table: str) -> tuple[str, ...]:
    return tuple(name for (name,) in connection.execute(_PRIMARY_KEY, [quoted(table)]))


def stored_table(connection: Connection, stream: Stream) -> StoredTable:
    """A stream's table as it is."""
    table = event_table(stream).name
    return StoredTable(existing_columns(connection, table), partitioned_by(connection, table))
