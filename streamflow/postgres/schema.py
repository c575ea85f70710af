"""The schema: Alembic's migrations for the shared tables, the streams' own from their contracts.

A stream's table only ever grows: a new field becomes a new column, and a column without a field stays
(`surplus`), so that an older release runs as well. What would change or lose stored values is refused,
since only its owner knows what should become of them.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final, NamedTuple, Protocol, cast

import psycopg
from psycopg import sql

from streamflow.errors import ConfigurationError
from streamflow.postgres import state
from streamflow.postgres.connections import (
    STATEMENT_TIMEOUT,
    Connection,
    refused_definition,
    session,
)
from streamflow.postgres.contract_changes import judged_from
from streamflow.postgres.evolution import ExistingColumn, StoredTable, widens_in_place
from streamflow.postgres.modes import require_same_mode
from streamflow.postgres.partitions import DayPartitions, quoted, table_exists
from streamflow.postgres.tables import (
    DELETED,
    ORIGIN_COLUMNS,
    TIME_COLUMNS,
    Column,
    event_columns,
    event_table,
)
from streamflow.postgres.windows.schema import refresh_window_rows, window_changes
from streamflow.postgres.windows.tables import window_tables
from streamflow.settings import Settings
from streamflow.stream import Stream

_ADVISORY_KEY: Final = 0x5F10_5C4E_3A00  # any number, if only all upgrades use the same
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
# A view of another owner does not show our table.
_FOREIGN: Final = """
SELECT FROM pg_class AS taken WHERE oid = to_regclass(%s) AND NOT (relkind = 'v' AND EXISTS (
    SELECT FROM pg_rewrite JOIN pg_depend ON objid = pg_rewrite.oid
     WHERE ev_class = taken.oid AND refobjid = to_regclass(%s)))
"""


class TablesRefused(ConfigurationError):
    """The tables of some streams cannot be what their contracts need; those of the others are.

    Attributes:
        streams: the names of the streams, and why.
    """

    def __init__(self, streams: Mapping[str, str]) -> None:
        super().__init__("; ".join(streams.values()))
        self.streams = dict(streams)


def upgrade(settings: Settings, streams: Sequence[Stream]) -> list[str]:
    """Brings the database to what this release and these streams need; returns what was done, one line
    each. Safe to repeat, and at the same time.

    Raises:
        TablesRefused: a stream's table has a column of another type, or one that must have a value and
            of which its contract knows nothing, or is another owner's. Everything else is done.
        ConfigurationError: a table of another owner has the name of one of ours.
        Unavailable: the database does not answer.
    """
    with session(settings, "schema") as connection:
        # Held until the connection closes; each step below is a transaction of its own, and what an
        # interrupted upgrade left undone is done by the next.
        connection.execute("SET lock_timeout = '60s'")
        connection.execute("SELECT pg_advisory_lock(%s)", [_ADVISORY_KEY])
        try:
            done = _migrations().migrate(settings, connection)
        except psycopg.errors.DuplicateTable as error:
            raise _foreign(error) from error
        refused_streams: dict[str, str] = {}
        for stream in streams:
            try:
                with connection.transaction():
                    done += _upgrade_events(connection, stream)
            except ConfigurationError as error:
                refused_streams[stream.name] = str(error)
                continue
            for table in (stream.event_table, *(each.name for each in window_tables(stream))):
                DayPartitions(table).prepare(connection, ())
    if refused_streams:
        raise TablesRefused(refused_streams)
    return done


def refused(settings: Settings, streams: Sequence[Stream]) -> dict[str, str]:
    """The names of the streams whose tables `upgrade` would refuse, and why. Raises Unavailable if the
    database does not answer."""
    plans = _plans(settings, streams).items()
    return {name: f"stream {name}: {plan.refused}" for name, plan in plans if plan.refused}


def not_loadable(settings: Settings, streams: Sequence[Stream]) -> dict[str, str]:
    """As `refused`, and those that `upgrade` has yet to change: rows would be refused that are valid."""
    return {
        name: f"stream {name}: "
        + (
            plan.refused
            or f"the database has no {', '.join(plan.changes)}: run `streamflow db upgrade`"
        )
        for name, plan in _plans(settings, streams).items()
        if plan.refused or plan.changes
    }


def _plans(settings: Settings, streams: Sequence[Stream]) -> dict[str, "TablePlan"]:
    with session(settings, "schema", statement_timeout=STATEMENT_TIMEOUT) as connection:
        return {stream.name: table_plan(connection, stream) for stream in streams}


def pending(settings: Settings, streams: Sequence[Stream]) -> list[str]:
    """What `upgrade` would do, without doing it. Raises as `upgrade`."""
    with session(settings, "schema", statement_timeout=STATEMENT_TIMEOUT) as connection:
        todo = [f"migration {name}" for name in _migrations().pending(connection)]
        for stream in streams:
            todo += [text for text, _ in _changes(connection, stream)]
    return todo


def surplus(settings: Settings, streams: Sequence[Stream]) -> list[str]:
    """The columns that no contract has, in a sentence for each table. Raises as `upgrade`."""
    found = []
    with session(settings, "schema", statement_timeout=STATEMENT_TIMEOUT) as connection:
        for stream in streams:
            columns = sorted(_surplus(existing_columns(connection, stream.event_table), stream))
            if columns:
                found.append(
                    f"table {stream.event_table} has columns that stream {stream.name} has no field for "
                    f"({', '.join(columns)}): they stay, empty in new rows; add the fields as "
                    "optional, or drop the columns by hand"
                )
    return found


class TablePlan(NamedTuple):
    """What becomes of a stream's table."""

    changes: tuple[str, ...] = ()  # that `upgrade` would make
    surplus: tuple[str, ...] = ()  # columns that no field is for
    refused: str = ""  # why it would not


def plan_of(settings: Settings, stream: Stream) -> TablePlan:
    """Raises Unavailable if the database does not answer, ConfigurationError if it refuses or belongs to a
    newer release."""
    with session(settings, "schema", statement_timeout=STATEMENT_TIMEOUT) as connection:
        _migrations().pending(connection)
        return table_plan(connection, stream)


def table_plan(connection: Connection, stream: Stream) -> TablePlan:
    try:
        changes = tuple(text for text, _ in _changes(connection, stream))
    except ConfigurationError as error:
        return TablePlan(refused=str(error).removeprefix(f"stream {stream.name}: "))
    existing = existing_columns(connection, event_table(stream).name)
    return TablePlan(changes, tuple(sorted(_surplus(existing, stream))))


def stored_table(connection: Connection, stream: Stream) -> StoredTable:
    """A stream's table as it is."""
    table = event_table(stream).name
    return StoredTable(existing_columns(connection, table), _partitioned_by(connection, table))


class _Migrations(Protocol):
    def pending(self, connection: Connection) -> list[str]: ...
    def migrate(self, settings: Settings, connection: Connection) -> list[str]: ...


def _migrations() -> _Migrations:
    # SQLAlchemy takes long to import, and a worker that looks at its tables needs none of it.
    return cast("_Migrations", import_module("streamflow.postgres.migrating"))


def _upgrade_events(connection: Connection, stream: Stream) -> list[str]:
    done = []
    is_new = not table_exists(connection, stream.event_table)
    for text, statement in _changes(connection, stream):
        try:
            connection.execute(statement)
        except psycopg.errors.DuplicateTable as error:
            raise _foreign(error) from error
        except (
            psycopg.errors.FeatureNotSupported,
            psycopg.errors.DependentObjectsStillExist,
        ) as error:
            # A view or a generated column of the user's own stands on a column that is widened, or on a
            # view that is made again.
            raise ConfigurationError(
                f"stream {stream.name}: {text} by the contract, but PostgreSQL cannot alter it "
                f"({error.diag.message_primary}): drop what uses it, run `streamflow db upgrade`, and "
                "create it again"
            ) from error
        except psycopg.Error as error:
            reason = refused_definition(error)
            if reason is None:
                raise
            raise ConfigurationError(
                f"stream {stream.name}: {text} by the contract, but PostgreSQL does not take it ({reason}): "
                "give its fields other names or types"
            ) from error
        done.append(text)
    judged_from(connection, stream, is_new=is_new)
    refresh_window_rows(connection)
    return done


def _foreign(error: psycopg.errors.DuplicateTable) -> ConfigurationError:
    """What a new table's name being taken means: all of ours are in the version table."""
    return ConfigurationError(
        f"{error.diag.message_primary}, and StreamFlow did not create it: rename it, or give "
        "StreamFlow a database or a schema of its own (DATABASE_URL with "
        "?options=-csearch_path%3DSCHEMA)"
    )


def _surplus(existing: Mapping[str, ExistingColumn], stream: Stream) -> set[str]:
    return existing.keys() - {column.name for column in event_columns(stream)}


def _require_own(
    connection: Connection, stream: Stream, existing: Mapping[str, ExistingColumn]
) -> None:
    """Raises ConfigurationError unless `_create` made the table: partitioned, with the loader's columns."""
    partitioned_by = _partitioned_by(connection, stream.event_table)
    missing = [name for name in (*ORIGIN_COLUMNS, *TIME_COLUMNS) if name not in existing]
    if not missing and partitioned_by not in (None, stream.event_time):
        raise ConfigurationError(
            f"stream {stream.name}: the table {stream.event_table} is partitioned by {partitioned_by}, and "
            f"the event time is {stream.event_time} now: declare a new stream (name and table) for it, or "
            f"event_time={partitioned_by!r} again"
        )
    if missing or partitioned_by is None:
        why = f"it has no {', '.join(missing)}" if missing else "it is not partitioned by a time"
        raise ConfigurationError(
            f"stream {stream.name}: the table {stream.event_table} exists already, and StreamFlow did not "
            f"create it ({why}), so it is not altered: give the stream another table, or rename that one"
        )


def _partitioned_by(connection: Connection, table: str) -> str | None:
    row = connection.execute(_PARTITION_KEY, [quoted(table)]).fetchone()
    return None if row is None else row[0]


def existing_columns(connection: Connection, table: str) -> dict[str, ExistingColumn]:
    """The columns of a table; none if there is no such table."""
    rows = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull,"
        " atthasdef OR attidentity <> '' FROM pg_attribute"
        " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [quoted(table)],
    )
    return {name: ExistingColumn(*rest) for name, *rest in rows}


def _changes(connection: Connection, stream: Stream) -> list[tuple[str, sql.Composed]]:
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
        else [(f"table {stream.event_table}", _create(stream, columns))]
    )
    if stream.state_table is not None:
        names = dict.fromkeys((*existing, *(column.name for column in columns)))
        changes += _state_changes(connection, stream, stream.state_table, list(names))
    return changes + window_changes(connection, stream)


def _state_changes(
    connection: Connection, stream: Stream, table: str, of_changes: Sequence[str]
) -> list[tuple[str, sql.Composed]]:
    """As `_changes`, of the state table and its view. `of_changes` are the columns of the table of
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
    rows = connection.execute(_PRIMARY_KEY, [quoted(table)])
    key = tuple(name for (name,) in rows)
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


def create_table(connection: Connection, stream: Stream) -> None:
    """Creates a stream's table, empty, in the first schema of the search path."""
    connection.execute(_create(stream, event_columns(stream)))


def _create(stream: Stream, columns: Sequence[Column]) -> sql.Composed:
    """DDL of a stream's table.

    The key holds the event's identity, and the time stamp because PostgreSQL requires the partition key
    in it; so it does not stop a replayed event with a repaired time: ``replayed_events`` does. Events
    arrive roughly in the order of their time, so BRIN answers for a range of time within a day, and costs
    COPY little; a B-tree on (type, timestamp) took a third of its rate.
    """
    lines = [
        sql.SQL("{} {}{}{}").format(
            sql.Identifier(column.name),
            sql.SQL(column.type),
            sql.SQL("" if column.nullable else " NOT NULL"),
            sql.SQL(" DEFAULT now()" if column.name == "loaded_at" else ""),
        )
        for column in columns
    ]
    return sql.SQL(
        "CREATE TABLE {table} ({lines},"
        " PRIMARY KEY (origin_partition, origin_offset, origin_topic, {time}){constraint})"
        " PARTITION BY RANGE ({time});"
        " CREATE TABLE {default} PARTITION OF {table} DEFAULT;"
        " CREATE INDEX {by_day} ON {default} ({time});"
        " CREATE INDEX {by_time} ON {table} USING brin ({time}) WITH ({brin});"
        " CREATE INDEX {by_load} ON {table} USING brin (loaded_at) WITH ({brin})"
    ).format(
        table=sql.Identifier(stream.event_table),
        time=sql.Identifier(stream.event_time),
        lines=sql.SQL(", ").join(lines),
        constraint=state.key_constraint(stream),
        default=sql.Identifier(f"{stream.event_table}_default"),
        by_day=sql.Identifier(f"{stream.event_table}_default_day"),
        by_time=sql.Identifier(f"{stream.event_table}_time"),
        by_load=sql.Identifier(f"{stream.event_table}_loaded"),
        brin=sql.SQL("pages_per_range = 32, autosummarize = on"),
    )
