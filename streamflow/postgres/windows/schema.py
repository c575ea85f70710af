"""DDL of the windows' tables, and what a declaration changes of those that are there: a table never, the view
of the totals (`views`) whenever it differs."""

from typing import Final

from psycopg import sql
from psycopg.types.json import Jsonb

from streamflow.errors import ConfigurationError
from streamflow.postgres.connections import Connection
from streamflow.postgres.evolution import Change, Level
from streamflow.postgres.partitions import table_exists
from streamflow.postgres.sessions.schema import create_sessions
from streamflow.postgres.sessions.tables import SessionTable, session_tables
from streamflow.postgres.windows.given_up import declared_again
from streamflow.postgres.windows.kept_declaration import Declared, require_same
from streamflow.postgres.windows.tables import WindowTable, window_tables
from streamflow.postgres.windows.views import (
    Statement,
    View,
    kept_in_words,
    kept_views,
    view_changes,
)
from streamflow.stream import Stream

# `window_counts` has the same identity, and the same index by record.
_CREATE: Final = """
CREATE TABLE {table} ({columns}, PRIMARY KEY (first_offset, partition, origin_topic, window_start))
    PARTITION BY RANGE (window_start);
CREATE TABLE {default} PARTITION OF {table} DEFAULT;
CREATE INDEX {by_day} ON {default} (window_start);
CREATE INDEX {by_time} ON {table} (window_start);
CREATE INDEX {by_record} ON {table} (record_offset, record_partition, record_topic);
CREATE INDEX {by_load} ON {table} USING brin (loaded_at) WITH (pages_per_range = 32, autosummarize = on);
COMMENT ON TABLE {table} IS {comment};
"""
_NOTE: Final = """
INSERT INTO window_tables (table_name, stream, declaration, late_after)
VALUES ({name}, {stream}, {declaration}, {late_after})
ON CONFLICT (table_name) DO UPDATE
   SET stream = excluded.stream, declaration = excluded.declaration, late_after = excluded.late_after,
       created_at = now()
"""
_NOTE_LATE_AFTER: Final = """
UPDATE window_tables SET late_after = true WHERE table_name = %s AND late_after IS NOT TRUE
"""
_ALL_ROWS: Final = """
SELECT {name}::text AS table_name, origin_topic, partition, first_offset, last_offset, window_start,
       record_topic, record_partition, record_offset
  FROM {table}
"""
_KNOWN: Final = """
SELECT table_name FROM window_tables
 WHERE to_regclass(quote_ident(table_name)) IS NOT NULL AND declaration->>'windows' <> 'SessionWindow'
 ORDER BY table_name
"""

_HOLE: Final = (
    "acknowledge what the audit then names (`streamflow audit --acknowledge`); or give the windows another "
    'name (name="…"), and the new table has no hole'
)


def window_changes(connection: Connection, stream: Stream) -> list[Statement]:
    """What is to be done to the tables of a stream's windows. Raises ConfigurationError if one is of
    windows that were declared differently, or of another owner."""
    changes = []
    for table in window_tables(stream):
        if table_exists(connection, table.name):
            require_same(connection, table)
        else:
            changes.append((f"table {table.name}", create_parts(table) + _note(table)))
        changes += view_changes(connection, table)
    for sessions in session_tables(stream):
        if table_exists(connection, sessions.name):
            require_same(connection, sessions)
        else:
            changes.append((f"table {sessions.name}", create_sessions(sessions) + _note(sessions)))
    return changes


def unfit_tables(connection: Connection, stream: Stream) -> dict[str, str]:
    """Why tables of a stream's windows take no rows, by their names; of those that do, nothing."""
    found = {}
    for table in window_tables(stream):
        if not table_exists(connection, table.name):
            found[table.name] = f"the database has no table {table.name}: run `streamflow init`"
            continue
        try:
            require_same(connection, table)
        except ConfigurationError as error:
            found[table.name] = str(error).removeprefix(f"stream {stream.name}: ")
    return found


def prepare_sessions(connection: Connection, table: SessionTable) -> None:
    """Creates a table of sessions if there is none; raises as `window_changes`."""
    if table_exists(connection, table.name):
        require_same(connection, table)
    else:
        connection.execute(create_sessions(table) + _note(table))


def create_parts(table: WindowTable) -> sql.Composed:
    """DDL of a table with the parts of windows."""
    name = table.name
    lines = [
        sql.SQL("{} {}{}{}").format(
            sql.Identifier(column.name),
            sql.SQL(column.type),
            sql.SQL("" if column.nullable else " NOT NULL"),
            sql.SQL(" DEFAULT now()" if column.name == "loaded_at" else ""),
        )
        for column in table.columns
    ]
    return sql.SQL(_CREATE).format(
        table=sql.Identifier(name),
        columns=sql.SQL(", ").join(lines),
        default=sql.Identifier(f"{name}_default"),
        by_day=sql.Identifier(f"{name}_default_day"),
        by_time=sql.Identifier(f"{name}_time"),
        by_record=sql.Identifier(f"{name}_record"),
        by_load=sql.Identifier(f"{name}_loaded"),
        comment=sql.Literal(
            f"Parts of windows of {table.stream.name}, which add up: their totals are in {table.view}. No "
            "source event is counted in two rows."
        ),
    )


def tables_of_windows(connection: Connection) -> list[str]:
    """The tables with rows of windows that there are."""
    return ["window_counts", *(name for (name,) in connection.execute(_KNOWN))]


def refresh_window_rows(connection: Connection) -> None:
    """Makes the view `window_rows`, if it is another one: it has the rows of all tables of windows, also of
    those that no stream declares any more, for the topics may still have their records."""
    view = View(
        "window_rows",
        sql.SQL(" UNION ALL ").join(
            sql.SQL(_ALL_ROWS).format(name=sql.Literal(name), table=sql.Identifier(name))
            for name in tables_of_windows(connection)
        ),
    )
    if not view.is_current(connection):
        connection.execute(view.create())


def changes_of_windows(connection: Connection, stream: Stream) -> list[Change]:
    """What a declaration changes for the windows' tables that a database has; as `window_changes`."""
    changes = []
    tables: list[Declared] = [*window_tables(stream), *session_tables(stream)]
    for table in tables:
        if not table_exists(connection, table.name):
            changes.append(
                Change(
                    Level.SAFE,
                    f"the table {table.name} of its windows is new"
                    + (
                        ""
                        if isinstance(table, SessionTable)  # of all events that are there
                        else ": they count from where analytics is"
                    ),
                )
            )
            continue
        try:
            require_same(connection, table)
        except ConfigurationError as error:
            why, _, way = str(error).removeprefix(f"stream {stream.name}: ").partition(": ")
            changes.append(Change(Level.BREAKING, why, way))
    changes += [
        Change(Level.SAFE, kept_in_words(view, users))
        for view, users in kept_views(connection, stream).items()
    ]
    given_up = sorted(_declared_by(connection, stream) - stream.window_tables.keys())
    return [
        *changes,
        *(Change(Level.STEP, str(again), _HOLE) for again in declared_again(connection, stream)),
        *(
            Change(
                Level.SAFE,
                f"windows with the table {name} are declared no more: it stays as it is; declared "
                "again, they would begin anew, and miss what comes until then",
            )
            for name in given_up
        ),
    ]


def _declared_by(connection: Connection, stream: Stream) -> set[str]:
    if not table_exists(connection, "window_tables"):
        return set()
    query = "SELECT table_name FROM window_tables WHERE stream = %s"
    return {name for (name,) in connection.execute(query, [stream.name])}


def _note(table: Declared) -> sql.Composed:
    return sql.SQL(_NOTE).format(
        name=sql.Literal(table.name),
        stream=sql.Literal(table.stream.name),
        declaration=sql.Literal(Jsonb(table.declaration)),
        late_after=sql.Literal(isinstance(table, WindowTable) and _takes_late(table)),
    )


def note_late_after(connection: Connection, table: WindowTable) -> None:
    """Keeps with a table that events may have come too late for its windows: `late_after` may be taken
    away later."""
    if _takes_late(table):
        connection.execute(_NOTE_LATE_AFTER, [table.name])


def _takes_late(table: WindowTable) -> bool:
    return table.spec.late_after is not None
