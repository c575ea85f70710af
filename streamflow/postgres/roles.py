"""Least-privilege roles: workers load and cannot alter the schema, the dashboard only reads.

The role that owns the tables stays that of ``init``, ``db upgrade``, ``forget``, the audit, replays and
Dagster. Both roles are groups: whoever may log in as a worker or dashboard is granted one of them.
"""

from collections.abc import Sequence
from typing import Final

from psycopg import sql

from streamflow.errors import ConfigurationError
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.forgotten import DEAD_LETTER_BLANKS, NOTIFICATION_BLANKS
from streamflow.postgres.partitions import table_exists
from streamflow.postgres.row_counts import counted_tables
from streamflow.postgres.tables import IGNORED_RECORDS, REFUSED_EVENTS
from streamflow.settings import Settings
from streamflow.stream import Stream

# Written by the sink beside the tables that records are loaded into.
_INSERTED: Final = (
    REFUSED_EVENTS.name, IGNORED_RECORDS.name, "duplicates", "replayed_events", "loader_positions", "gaps",
    "erased_records", "row_counts", "ingest_batches", "ingest_requests",
)  # fmt: skip
# What the loader updates, and nothing else: its positions, gaps that grow, and, emptied, what is derived
# from the events of forgotten subjects.
_UPDATED: Final = {
    "loader_positions": (
        "next_offset", "records", "rejected", "topic_id", "leader_epoch", "updated_at",
    ),
    "row_counts": ("rows",),
    "ingest_batches": ("positions", "stored"),
    "gaps": ("end_offset", "noticed_at", "acknowledged_at", "acknowledged_by"),
    "notifications": tuple(NOTIFICATION_BLANKS),
    "dead_letters": ("status", *DEAD_LETTER_BLANKS),
}  # fmt: skip
# Whole tables that earlier releases let workers update.
_ONCE_UPDATED: Final = (*_UPDATED, "replay_records")
_SECRET: Final = "signing_key"  # noqa: S105 (the name of a table)


def role_statements(settings: Settings, streams: Sequence[Stream], prefix: str) -> list[str]:
    """The statements that create the roles ``<prefix>_worker`` and ``<prefix>_reader`` and grant their
    rights. Safe to repeat; the owner of the tables can execute them, with CREATEROLE if the roles do not
    exist yet. Raises as `session`."""
    with session(settings, "roles") as connection:
        return _statements(connection, streams, prefix)


def role_names(prefix: str) -> tuple[str, str]:
    return f"{prefix}_worker", f"{prefix}_reader"


def apply_roles(settings: Settings, streams: Sequence[Stream], prefix: str) -> list[str]:
    """As `role_statements`, and executes them in one transaction. Also raises ConfigurationError if the roles
    do not exist and the owner may create none, or if everybody may create tables in the schema, and it is
    not ours to change that."""
    with session(settings, "roles") as connection, connection.transaction():
        _require_roles(connection, prefix)
        statements = _statements(connection, streams, prefix)
        for statement in statements:
            connection.execute(statement.encode())
        if still := _closing(connection):
            raise ConfigurationError(
                "everybody may create tables in this schema, so the roles could do more than their work: "
                f"let the owner of the schema execute {'; '.join(still)}"
            )
    return statements


def _creation(name: str) -> sql.Composed:
    return sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name))


def _require_roles(connection: Connection, prefix: str) -> None:
    [(may_create,)] = connection.execute(
        "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
    )
    missing = _missing(connection, prefix)
    if missing and not may_create:
        created = " ".join(f"{_creation(name).as_string(connection)};" for name in missing)
        raise ConfigurationError(
            f"the user of DATABASE_URL may not create roles, and {' and '.join(missing)} must exist: let an "
            f"administrator of the database execute {created} and run this again"
        )


def _statements(connection: Connection, streams: Sequence[Stream], prefix: str) -> list[str]:
    [(schema, database)] = connection.execute("SELECT current_schema(), current_database()")
    worker, reader = role_names(prefix)
    names = {
        "schema": sql.Identifier(schema),
        "database": sql.Identifier(database),
        "worker": sql.Identifier(worker),
        "reader": sql.Identifier(reader),
        "secret": sql.Identifier(schema, _SECRET),
    }

    def tables(listed: Sequence[str]) -> sql.Composed:
        return sql.SQL(", ").join(sql.Identifier(schema, name) for name in listed)

    loaded = [name for name in counted_tables(streams) if table_exists(connection, name)]
    statements = [
        *(
            sql.SQL("DO $$ BEGIN {}; EXCEPTION WHEN duplicate_object THEN END $$").format(
                _creation(name)
            )
            for name in _missing(connection, prefix)
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
        *(
            sql.SQL("GRANT INSERT, UPDATE ON TABLE {} TO {}").format(
                tables([stream.state_table]), names["worker"]
            )
            for stream in streams
            if stream.state_table is not None and table_exists(connection, stream.state_table)
        ),
        sql.SQL("REVOKE UPDATE ON TABLE {} FROM {}").format(tables(_ONCE_UPDATED), names["worker"]),
        *(
            sql.SQL("GRANT UPDATE ({}) ON TABLE {} TO {}").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), tables([name]), names["worker"]
            )
            for name, columns in _UPDATED.items()
        ),
        # Requests go with their batch.
        sql.SQL("GRANT DELETE ON TABLE {} TO {}").format(
            tables(["ingest_batches"]), names["worker"]
        ),
        sql.SQL("GRANT EXECUTE ON FUNCTION {schema}.create_day_partition TO {worker}").format(**names),
    ]  # fmt: skip
    return [
        *(statement.as_string(connection) for statement in statements),
        *_closing(connection),
    ]


def _closing(connection: Connection) -> list[str]:
    """The statements after which only the owner of the tables creates more in their schema; none if that is
    so. PostgreSQL before 15 let everybody do it in `public`, also after an upgrade."""
    query = (
        "SELECT current_schema(), current_user"
        " WHERE has_schema_privilege('public', current_schema(), 'CREATE')"
    )
    return [
        sql.SQL(statement)
        .format(schema=sql.Identifier(schema), owner=sql.Identifier(owner))
        .as_string(connection)
        for schema, owner in connection.execute(query)
        for statement in (
            "GRANT CREATE ON SCHEMA {schema} TO {owner}",
            "REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC",
        )
    ]


def _missing(connection: Connection, prefix: str) -> list[str]:
    query = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)"
    existing = {name for (name,) in connection.execute(query, [list(role_names(prefix))])}
    return [name for name in role_names(prefix) if name not in existing]
