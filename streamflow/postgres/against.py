"""What a contract changes for a database that is there, with a look at its newest rows. Reads only."""

from itertools import islice
from typing import Any, Final, LiteralString

from psycopg import sql
from psycopg.rows import dict_row

from streamflow.contract import Event
from streamflow.postgres.connections import STATEMENT_TIMEOUT, Connection, session
from streamflow.postgres.evolution import (
    Change,
    Level,
    classify,
    judge_rows,
    level_of,
    merged,
)
from streamflow.postgres.existing_tables import stored_table
from streamflow.postgres.forgotten import NOT_ERASED
from streamflow.postgres.json_names import kept_names, lost_names
from streamflow.postgres.partitions import table_exists
from streamflow.postgres.schema import table_plan
from streamflow.postgres.tables import DELETED, event_table
from streamflow.postgres.windows.schema import changes_of_windows
from streamflow.samples.factory import SampleFactory
from streamflow.samples.node import NoSample
from streamflow.settings import Settings
from streamflow.stream import Stream

NEWEST: Final = 1_000  # rows of each stream
_SAMPLES: Final = 100  # until there is one of each model
# By the primary key, partition by partition of the topic: no index has the order of time. A field may
# have any name: whatever is no column of the table is qualified.
_NEWEST: Final[LiteralString] = """
SELECT event.*
  FROM generate_series(0, (SELECT max(origin_partition) FROM {table})) AS source (partition)
 CROSS JOIN LATERAL (
    SELECT * FROM {table} AS kept WHERE kept.origin_partition = source.partition
     ORDER BY kept.origin_offset DESC LIMIT %(each)s
 ) AS event
"""


def changes_for(settings: Settings, stream: Stream) -> tuple[list[Change], int]:
    """What changes for a stream, and how many rows were looked at. Raises ConfigurationError if the database
    refuses the connection, Unavailable if it does not answer."""
    with session(settings, "check", statement_timeout=STATEMENT_TIMEOUT) as connection:
        connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        return _changes(connection, stream)


def _changes(connection: Connection, stream: Stream) -> tuple[list[Change], int]:
    stored = stored_table(connection, stream)
    refused = table_plan(connection, stream).refused
    found = [*classify(stored, stream), *changes_of_windows(connection, stream)]
    is_foreign = stored.columns and stored.partitioned_by is None
    if refused and (is_foreign or level_of(found) is Level.SAFE):
        # Not by its columns: another owner's table, or another primary key.
        return [Change(Level.BREAKING, refused)], 0
    if not stored.columns:
        return found, 0
    found += lost_names(kept_names(connection, stream), stream)
    rows = _newest(connection, stream)
    return merged(found, judge_rows(stream, stored, rows, _examples(stream))), len(rows)


def _newest(connection: Connection, stream: Stream) -> list[dict[str, Any]]:
    table = event_table(stream)
    name = sql.Identifier(table.name)
    may_be_erased = table_exists(connection, "erased_records")
    query = sql.SQL(_NEWEST + " WHERE " + NOT_ERASED if may_be_erased else _NEWEST)
    [(partitions,)] = connection.execute(
        sql.SQL("SELECT coalesce(max(origin_partition), 0) + 1 FROM {}").format(name)
    )
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query.format(table=name), {"each": -(-NEWEST // partitions)})
        # Tombstones of an upsert stream are no events.
        return [row for row in rows if not (table.deletes and row[DELETED])]


def _examples(stream: Stream) -> dict[type[Event], Event]:
    """A valid event of each model, as far as they can be made."""
    try:
        samples = islice(SampleFactory(stream).plain(), _SAMPLES)
        return {type(sample.event): sample.event for sample in samples}
    except NoSample:
        return {}
