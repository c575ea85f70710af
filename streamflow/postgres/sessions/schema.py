"""DDL of a table of sessions, and whether one that is there is of the sessions that are declared."""

import json
from typing import Any, Final

from psycopg import sql

from streamflow.errors import ConfigurationError
from streamflow.postgres.connections import Connection
from streamflow.postgres.partitions import quoted, table_exists
from streamflow.postgres.schema import existing_columns
from streamflow.postgres.sessions.tables import SessionTable

# No primary key: values of a key may be longer than an entry of an index.
_CREATE: Final = """
CREATE TABLE {table} ({columns});
CREATE INDEX ON {table} (hash_record_extended(ROW({by}), 0), session_end);
CREATE INDEX ON {table} (session_start);
CREATE INDEX ON {table} USING brin (computed_at);
COMMENT ON TABLE {table} IS {comment}
"""
_COMMENT: Final = "SELECT obj_description(to_regclass(%s), 'pg_class')"
# The beginning of the comment, before the declaration.
_SESSIONS_OF: Final = "Sessions of {stream}, as they are declared: "


def prepare(connection: Connection, table: SessionTable) -> None:
    """Creates the table if there is none. Raises ConfigurationError if one is of sessions that were declared
    differently, or of another owner."""
    if table_exists(connection, table.name):
        _require_same(connection, table)
        return
    forget_progress(connection, table)  # of a table of that name that was dropped
    lines = [
        sql.SQL("{} {}{}{}").format(
            sql.Identifier(column.name),
            sql.SQL(column.type),
            sql.SQL("" if column.nullable else " NOT NULL"),
            sql.SQL(" DEFAULT clock_timestamp()" if column.name == "computed_at" else ""),
        )
        for column in table.columns
    ]
    connection.execute(
        sql.SQL(_CREATE).format(
            table=sql.Identifier(table.name),
            columns=sql.SQL(", ").join(lines),
            by=sql.SQL(", ").join(sql.Identifier(column.name) for column in table.by),
            comment=sql.Literal(_begins(table) + json.dumps(table.declaration)),
        )
    )


def forget_progress(connection: Connection, table: SessionTable) -> None:
    """All of its sessions are computed again, and checked, as far as their events are there."""
    connection.execute(
        "DELETE FROM rollup_progress WHERE rollup = %s AND stream = %s",
        [table.name, table.stream.name],
    )
    connection.execute("DELETE FROM quality_scans WHERE table_name = %s", [table.name])


def _begins(table: SessionTable) -> str:
    return _SESSIONS_OF.format(stream=table.stream.name)


def _require_same(connection: Connection, table: SessionTable) -> None:
    [(comment,)] = connection.execute(_COMMENT, [quoted(table.name)])
    begins, stream = _begins(table), table.stream.name
    try:
        stored = json.loads((comment or "").removeprefix(begins))
    except ValueError:
        raise ConfigurationError(
            f"stream {stream}: the table {table.name} exists already, and StreamFlow did not create it for "
            'sessions of this stream, so it is not altered: give the sessions another name (name="…"), or '
            "rename that table"
        ) from None
    existing = {name: kept.type for name, kept in existing_columns(connection, table.name).items()}
    wanted = {column.name: column.type for column in table.columns}
    differing = _differences(stored, table.declaration) or [
        f"the column {name} is {existing.get(name, 'missing')}, and its field needs {kind}"
        for name, kind in wanted.items()
        if existing.get(name) != kind
    ]
    if differing:
        raise ConfigurationError(
            f"stream {stream}: the sessions in {table.name} were computed by another declaration "
            f'({"; ".join(differing)}): give the sessions another name (name="…"), and the table stays as it '
            "is; or drop it, and all that is still there is computed again"
        )


def _differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    found = [
        f"{argument} was {_text(stored.get(argument))} and is {_text(wanted[argument])}"
        for argument in ("gap", "by")
        if stored.get(argument) != wanted[argument]
    ]
    before, now = stored.get("aggregates", {}), wanted["aggregates"]
    for name in dict.fromkeys((*before, *now)):
        if before.get(name) != now.get(name):
            was, becomes = before.get(name, "not there"), now.get(name, "gone")
            found.append(f"{name} was {was} and is {becomes}")
    return found


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
