"""The schema: Alembic's migrations for the shared tables, the streams' own from their contracts.

A stream's table only ever grows: a new field becomes a new column, and a column without a field stays
(`surplus`), so that an older release runs as well. What would change or lose stored values is refused,
since only its owner knows what should become of them.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final, NamedTuple, Protocol, cast

import psycopg

from streamflow.errors import ConfigurationError, StreamsRefused
from streamflow.postgres import row_counts
from streamflow.postgres.connections import (
    STATEMENT_TIMEOUT,
    Connection,
    refused_definition,
    session,
)
from streamflow.postgres.contract_changes import judged_from
from streamflow.postgres.existing_tables import existing_columns
from streamflow.postgres.json_names import keep_names
from streamflow.postgres.partitions import DayPartitions, table_exists
from streamflow.postgres.schema_version import current_version, newest_version
from streamflow.postgres.table_changes import changes_of, surplus_columns
from streamflow.postgres.tables import event_table
from streamflow.postgres.windows.given_up import note_given_up, tables_with_parts
from streamflow.postgres.windows.schema import note_late_after, refresh_window_rows, unfit_tables
from streamflow.postgres.windows.tables import window_tables
from streamflow.postgres.windows.views import kept_in_words, kept_views
from streamflow.settings import Settings
from streamflow.stream import Stream

_ADVISORY_KEY: Final = 0x5F10_5C4E_3A00  # any number, if only all upgrades use the same


def upgrade(settings: Settings, streams: Sequence[Stream]) -> list[str]:
    """Brings the database to what this release and these streams need; returns what was done, one line
    each. Safe to repeat, and at the same time.

    Raises:
        StreamsRefused: a stream's table has a column of another type, or one that must have a value and
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
            done = [] if _is_newest(connection) else _migrations().migrate(settings, connection)
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
        row_counts.begin(connection, row_counts.counted_tables(streams))
    if refused_streams:
        raise StreamsRefused(refused_streams)
    return done


def refused(settings: Settings, streams: Sequence[Stream]) -> dict[str, str]:
    """The names of the streams whose tables `upgrade` would refuse, and why. Raises Unavailable if the
    database does not answer."""
    return refused_in(plans(settings, streams))


def refused_in(found: Mapping[str, "TablePlan"]) -> dict[str, str]:
    """As `refused`, by the plans of the streams."""
    return {name: f"stream {name}: {plan.refused}" for name, plan in found.items() if plan.refused}


def not_loadable(settings: Settings, streams: Sequence[Stream]) -> dict[str, str]:
    """As `refused`, and those that `upgrade` has yet to change: rows would be refused that are valid."""
    return not_loadable_in(plans(settings, streams))


def not_loadable_in(found: Mapping[str, "TablePlan"]) -> dict[str, str]:
    """As `not_loadable`, by the plans of the streams."""
    return {
        name: f"stream {name}: "
        + (plan.refused or f"the database has no {', '.join(plan.needed)}: run `streamflow init`")
        for name, plan in found.items()
        if plan.refused or plan.needed
    }


def unfit_windows(settings: Settings, streams: Sequence[Stream]) -> dict[str, dict[str, str]]:
    """The tables of windows that take no rows of what is declared, and why, by stream. Raises Unavailable if
    the database does not answer."""
    counted = [stream for stream in streams if window_tables(stream)]
    if not counted:
        return {}
    with session(settings, "schema", statement_timeout=STATEMENT_TIMEOUT) as connection:
        found = {stream.name: unfit_tables(connection, stream) for stream in counted}
    return {name: tables for name, tables in found.items() if tables}


def windows_with_parts(settings: Settings, streams: Sequence[Stream]) -> set[str]:
    """The tables of windows that have rows. Raises Unavailable if the database does not answer."""
    counted = [stream for stream in streams if window_tables(stream)]
    if not counted:
        return set()
    with session(settings, "schema", statement_timeout=STATEMENT_TIMEOUT) as connection:
        return set().union(*(tables_with_parts(connection, stream) for stream in counted))


def plans(settings: Settings, streams: Sequence[Stream]) -> dict[str, "TablePlan"]:
    """What `upgrade` would do with each stream's table. Raises Unavailable if the database does not
    answer."""
    with session(settings, "schema", statement_timeout=STATEMENT_TIMEOUT) as connection:
        return {stream.name: table_plan(connection, stream) for stream in streams}


def pending(settings: Settings, streams: Sequence[Stream]) -> list[str]:
    """What `upgrade` would do, without doing it. Raises as `upgrade`."""
    with session(settings, "schema", statement_timeout=STATEMENT_TIMEOUT) as connection:
        todo = [f"migration {name}" for name in _pending(connection)]
        for stream in streams:
            todo += [text for text, _ in changes_of(connection, stream)]
    return todo


def surplus(settings: Settings, streams: Sequence[Stream]) -> list[str]:
    """The columns that no contract has, in a sentence for each table, and the views of totals that stay
    without columns that are declared. Raises as `upgrade`."""
    found = []
    with session(settings, "schema", statement_timeout=STATEMENT_TIMEOUT) as connection:
        for stream in streams:
            columns = sorted(
                surplus_columns(existing_columns(connection, stream.event_table), stream)
            )
            if columns:
                found.append(
                    f"table {stream.event_table} has columns that stream {stream.name} has no field for "
                    f"({', '.join(columns)}): they stay, empty in new rows; add the fields as "
                    "optional, or drop the columns by hand"
                )
            found += [kept_in_words(*kept) for kept in kept_views(connection, stream).items()]
    return found


class TablePlan(NamedTuple):
    """What becomes of a stream's table."""

    changes: tuple[str, ...] = ()  # that `upgrade` would make
    surplus: tuple[str, ...] = ()  # columns that no field is for
    refused: str = ""  # why it would not
    totals: tuple[str, ...] = ()  # those of the changes that are of views of totals

    @property
    def needed(self) -> tuple[str, ...]:
        """The changes without which rows would be refused."""
        return tuple(text for text in self.changes if text not in self.totals)


def plan_of(settings: Settings, stream: Stream) -> TablePlan:
    """Raises Unavailable if the database does not answer, ConfigurationError if it refuses or belongs to a
    newer release."""
    with session(settings, "schema", statement_timeout=STATEMENT_TIMEOUT) as connection:
        _pending(connection)
        return table_plan(connection, stream)


def table_plan(connection: Connection, stream: Stream) -> TablePlan:
    try:
        changes = tuple(text for text, _ in changes_of(connection, stream))
    except ConfigurationError as error:
        return TablePlan(refused=str(error).removeprefix(f"stream {stream.name}: "))
    existing = existing_columns(connection, event_table(stream).name)
    surplus = tuple(sorted(surplus_columns(existing, stream)))
    totals = tuple(f"view {table.view}" for table in window_tables(stream))
    return TablePlan(changes, surplus, totals=totals)


def is_newest(settings: Settings) -> bool:
    """Whether no migration is pending. Raises Unavailable if the database does not answer."""
    with session(settings, "schema", statement_timeout=STATEMENT_TIMEOUT) as connection:
        return _is_newest(connection)


def _is_newest(connection: Connection) -> bool:
    return current_version(connection) == newest_version()


def _pending(connection: Connection) -> list[str]:
    """The migrations that the database lacks. Raises ConfigurationError if it is newer than this release."""
    return [] if _is_newest(connection) else _migrations().pending(connection)


class _Migrations(Protocol):
    def pending(self, connection: Connection) -> list[str]: ...
    def migrate(self, settings: Settings, connection: Connection) -> list[str]: ...


def _migrations() -> _Migrations:
    # SQLAlchemy takes long to import, and a worker that looks at its tables needs none of it.
    return cast("_Migrations", import_module("streamflow.postgres.migrating"))


def _upgrade_events(connection: Connection, stream: Stream) -> list[str]:
    done = []
    is_new = not table_exists(connection, stream.event_table)
    for text, statement in changes_of(connection, stream):
        try:
            connection.execute(statement)
        except psycopg.errors.DuplicateTable as error:
            raise _foreign(error) from error
        except (
            psycopg.errors.FeatureNotSupported,
            psycopg.errors.DependentObjectsStillExist,
        ) as error:
            # A view or a generated column of the user's own stands on a column that is widened.
            raise ConfigurationError(
                f'stream {stream.name}: its contract needs "{text}", but PostgreSQL cannot alter it '
                f"({error.diag.message_primary}): drop what uses it, run `streamflow db upgrade`, and "
                "create it again"
            ) from error
        except psycopg.Error as error:
            reason = refused_definition(error)
            if reason is None:
                raise
            raise ConfigurationError(
                f'stream {stream.name}: its contract needs "{text}", but PostgreSQL does not take it '
                f"({reason}): give its fields other names or types"
            ) from error
        done.append(text)
    judged_from(connection, stream, is_new=is_new)
    for table in window_tables(stream):
        note_late_after(connection, table)
    refresh_window_rows(connection)
    done += note_given_up(connection, stream)
    keep_names(connection, stream)
    return done


def _foreign(error: psycopg.errors.DuplicateTable) -> ConfigurationError:
    """What a new table's name being taken means: all of ours are in the version table."""
    return ConfigurationError(
        f"{error.diag.message_primary}, and StreamFlow did not create it: rename it, or give "
        "StreamFlow a database or a schema of its own (DATABASE_URL with "
        "?options=-csearch_path%3DSCHEMA)"
    )
