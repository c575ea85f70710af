"""What is to be done to the tables of a stream, as they are, for its contract.

A table only ever grows: what would change or lose stored values is refused, since only its owner knows what
should become of them.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from psycopg import sql

from streamflow.errors import ConfigurationError
from streamflow.postgres import state
from streamflow.postgres.connections import Connection
from streamflow.postgres.creating import create_events
from streamflow.postgres.evolution import ExistingColumn, widens_in_place
from streamflow.postgres.existing_tables import existing_columns, partitioned_by, primary_key_of
from streamflow.postgres.modes import require_same_mode
from streamflow.postgres.partitions import quoted
from streamflow.postgres.tables import (
    DELETED,
    ORIGIN_COLUMNS,
    TIME_COLUMNS,
    Column,
    event_columns,
)
from streamflow.postgres.windows.schema import window_changes
from streamflow.stream import Stream

# A view of another owner does not show our table.
_FOREIGN: Final = """
SELECT FROM pg_class AS taken WHERE oid = to_regclass(%s) AND NOT (relkind = 'v' AND EXISTS (
    SELECT FROM pg_rewrite JOIN pg_depend ON objid = pg_rewrite.oid
     WHERE ev_class = taken.oid AND refobjid = to_regclass(%s)))
"""


def changes_of(connection: Connection, stream: Stream) -> list[tuple[str, sql.Composed]]:
    """What is to be done to a stream's tables, in words and as SQL. Raises ConfigurationError if it would
    change or lose stored values."""
    require_same_mode(connection, stream)
    existing = existing_columns(connection, stream.event_table)
    if existing:
        _require_own(connection, stream, existing)
    columns = event_columns(stream)
    changes = (
        _column_changes(stream, stream.event_table, columns, existing)
        if existing
        else [(f"table {stream.event_table}", create_events(stream, columns))]
    )
    if stream.state_table is not None:
        names = dict.fromkeys((*existing, *(column.name for column in columns)))
        changes += _state_changes(connection, stream, stream.state_table, list(names))
    return changes + window_changes(connection, stream)


def _state_changes(
    connection: Connection, stream: Stream, table: str, of_changes: Sequence[str]
) -> list[tuple[str, sql.Composed]]:
    """As `changes_of`, of the state table and its view. `of_changes` are the columns of the table of
    changes."""
    existing = existing_columns(connection, table)
    columns = state.state_columns(stream)
    if existing:
        _require_own_state(connection, stream, table)
        changes = _column_changes(stream, table, columns, existing)
    else:
        changes = [(f"table {table}", state.create_state(stream, of_changes))]
    held = (*existing, *(column.name for column in columns)) if existing else of_changes
    shown = [name for name in dict.fromkeys(held) if name not in (DELETED, "loaded_at")]
    if connection.execute(_FOREIGN, [quoted(stream.table), quoted(table)]).fetchone() is not None:
        raise ConfigurationError(
            f"stream {stream.name}: {stream.table} exists already, and an upsert stream has a view of that "
            "name: give the stream another table, or rename that one"
        )
    if not {*shown} <= existing_columns(connection, stream.table).keys():
        changes.append((f"view {stream.table}", state.create_view(stream, shown)))
    return changes


def _require_own_state(connection: Connection, stream: Stream, table: str) -> None:
    key = primary_key_of(connection, table)
    wanted = state.key_of_state(stream)
    if key != wanted:
        raise ConfigurationError(
            f"stream {stream.name}: the primary key of the table {table} is ({', '.join(key)}), and by the "
            f"declaration ({', '.join(wanted)}): drop {table} with CASCADE, and it is made again from "
            f"{stream.event_table}; or give the stream another table"
        )


def _column_changes(
    stream: Stream, of_table: str, columns: Sequence[Column], existing: Mapping[str, ExistingColumn]
) -> list[tuple[str, sql.Composed]]:
    """What is to be done to a table that exists."""
    changes = []
    table = sql.Identifier(of_table)
    for column in columns:
        known = existing.get(column.name)
        name = sql.Identifier(column.name)
        if known is None:
            # Nullable: the rows that exist have no value for it.
            add = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}")
            statement = add.format(table, name, sql.SQL(column.type))
            changes.append((f"column {of_table}.{column.name}", statement))
        elif widens_in_place(known.type, column.type):
            widen = sql.SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {}")
            statement = widen.format(table, name, sql.SQL(column.type))
            changes.append((f"column {of_table}.{column.name} is {column.type}", statement))
        elif known.type != column.type:
            raise ConfigurationError(
                f"stream {stream.name}: the field {column.name} became {column.type}, but the column "
                f"in {of_table} is {known.type}: give the field a new name, or declare a new stream "
                "(name and table), or convert the column by hand (ALTER TABLE … ALTER COLUMN … TYPE …)"
            )
        elif column.nullable and not known.nullable:
            drop = sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(table, name)
            changes.append((f"column {of_table}.{column.name} may be null", drop))
    declared = {column.name for column in columns}
    required = [
        name
        for name, known in sorted(existing.items())
        if name not in declared and not known.may_be_left_out
    ]
    if required:
        raise ConfigurationError(
            f"stream {stream.name}: the contract has no field {', '.join(required)}, but every row "
            f"of {of_table} must have a value there: keep the field as optional, or allow the "
            f"column to be empty (ALTER TABLE {of_table} ALTER COLUMN {required[0]} DROP NOT NULL)"
        )
    return changes


def _require_own(
    connection: Connection, stream: Stream, existing: Mapping[str, ExistingColumn]
) -> None:
    """Raises ConfigurationError unless `create_events` made the table: partitioned, with the loader's
    columns."""
    key = partitioned_by(connection, stream.event_table)
    missing = [name for name in (*ORIGIN_COLUMNS, *TIME_COLUMNS) if name not in existing]
    if not missing and key not in (None, stream.event_time):
        raise ConfigurationError(
            f"stream {stream.name}: the table {stream.event_table} is partitioned by {key}, and "
            f"the event time is {stream.event_time} now: declare a new stream (name and table) for it, or "
            f"event_time={key!r} again"
        )
    if missing or key is None:
        why = f"it has no {', '.join(missing)}" if missing else "it is not partitioned by a time"
        raise ConfigurationError(
            f"stream {stream.name}: the table {stream.event_table} exists already, and StreamFlow did not "
            f"create it ({why}), so it is not altered: give the stream another table, or rename that one"
        )


def surplus_columns(existing: Mapping[str, ExistingColumn], stream: Stream) -> set[str]:
    return existing.keys() - {column.name for column in event_columns(stream)}
