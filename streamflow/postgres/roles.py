"""Least-privilege roles: workers load and cannot alter the schema, the dashboard only reads.

The role that owns the tables stays that of ``init``, ``db upgrade``, ``forget``, the audit, replays and
Dagster. Both roles are groups: whoever may log in as a worker or dashboard is granted one of them.
"""

from collections.abc import Sequence
from typing import Final

from psycopg import sql

from streamflow.postgres.connections import Connection, session
from streamflow.postgres.partitions import table_exists
from streamflow.postgres.sink.positions import counted_tables
from streamflow.postgres.tables import REFUSED_EVENTS
from streamflow.settings import Settings
from streamflow.stream import Stream

# Written by the sink beside the tables that records are loaded into.
_INSERTED: Final = (
    REFUSED_EVENTS.name, "duplicates", "replayed_events", "loader_positions", "gaps",
    "erased_records",
)  # fmt: skip
# Notifications and dead letters for what is derived from the events of forgotten subjects.
_UPDATED: Final = ("loader_positions", "gaps", "dead_letters", "notifications", "replay_records")
_SECRET: Final = "signing_key"  # noqa: S105 (the name of a table)


def role_statements(settings: Settings, streams: Sequence[Stream], prefix: str) -> list[str]:
    """The statements that create the roles ``<prefix>_worker`` and ``<prefix>_reader`` and grant their
    rights. Safe to repeat; the owner of the tables can execute them, with CREATEROLE if the roles do not
    exist yet. Raises as `session`."""
    with session(settings, "roles") as connection:
        return _statements(connection, streams, prefix)


def apply_roles(settings: Settings, streams: Sequence[Stream], prefix: str) -> list[str]:
    """As `role_statements`, and executes them in one transaction."""
    with session(settings, "roles") as connection, connection.transaction():
        statements = _statements(connection, streams, prefix)
        for statement in statements:
            connection.execute(statement.encode())
    return statements


def _statements(connection: Connection, streams: Sequence[Stream], prefix: str) -> list[str]:
    [(schema, database)] = connection.execute("SELECT current_schema(), current_database()")
    names = {
        "schema": sql.Identifier(schema),
        "database": sql.Identifier(database),
        "worker": sql.Identifier(f"{prefix}_worker"),
        "reader": sql.Identifier(f"{prefix}_reader"),
        "secret": sql.Identifier(schema, _SECRET),
    }

    def tables(listed: Sequence[str]) -> sql.Composed:
        return sql.SQL(", ").join(sql.Identifier(schema, name) for name in listed)

    loaded = [name for name in counted_tables(streams) if table_exists(connection, name)]
    statements = [
        *(
            sql.SQL("DO $$ BEGIN CREATE ROLE {} NOLOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
            .format(names[role])
            for role in ("worker", "reader")
            if not _role_exists(connection, f"{prefix}_{role}")
        ),
        sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {worker}").format(**names),
        sql.SQL("GRANT CONNECT ON DATABASE {database} TO {reader}").format(**names),
        sql.SQL("GRANT USAGE ON SCHEMA {schema} TO {worker}, {reader}").format(**names),
        sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {worker}, {reader}").format(**names),
        # Of tables to come: those of new streams' days, and of rollups.
        sql.SQL(
            "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {worker}, {reader}"
        ).format(**names),
        sql.SQL("REVOKE ALL ON TABLE {secret} FROM {reader}").format(**names),
        sql.SQL("GRANT INSERT ON TABLE {} TO {}").format(
            tables([*loaded, *_INSERTED]), names["worker"]
        ),
        sql.SQL("GRANT UPDATE ON TABLE {} TO {}").format(tables(_UPDATED), names["worker"]),
        sql.SQL("GRANT EXECUTE ON FUNCTION {schema}.create_day_partition TO {worker}").format(**names),
    ]  # fmt: skip
    return [statement.as_string(connection) for statement in statements]


def _role_exists(connection: Connection, name: str) -> bool:
    row = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone()
    return row is not None
