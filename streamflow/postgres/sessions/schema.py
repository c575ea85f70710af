"""DDL of the tables of sessions. Pure."""

from typing import Final

from psycopg import sql

from streamflow.postgres.sessions.tables import SessionTable

# No primary key: values of a key may be longer than an entry of an index.
_CREATE: Final = """
CREATE TABLE {table} ({columns});
CREATE INDEX ON {table} (hash_record_extended(ROW({by}), 0), session_end);
CREATE INDEX ON {table} (session_start);
CREATE INDEX ON {table} USING brin (computed_at);
COMMENT ON TABLE {table} IS {comment};
"""
_FORGET_PROGRESS: Final = """
DELETE FROM rollup_progress WHERE rollup = {name} AND stream = {stream};
DELETE FROM quality_scans WHERE table_name = {name};
"""


def create_sessions(table: SessionTable) -> sql.Composed:
    """DDL of the table; what was noted of an earlier one of that name is forgotten."""
    lines = [
        sql.SQL("{} {}{}{}").format(
            sql.Identifier(column.name),
            sql.SQL(column.type),
            sql.SQL("" if column.nullable else " NOT NULL"),
            sql.SQL(" DEFAULT clock_timestamp()" if column.name == "computed_at" else ""),
        )
        for column in table.columns
    ]
    create = sql.SQL(_CREATE).format(
        table=sql.Identifier(table.name),
        columns=sql.SQL(", ").join(lines),
        by=sql.SQL(", ").join(sql.Identifier(column.name) for column in table.by),
        comment=sql.Literal(f"Sessions of {table.stream.name}, computed by Dagster."),
    )
    return create + forget_progress(table)


def forget_progress(table: SessionTable) -> sql.Composed:
    """After it, all sessions are computed and checked again, as far as their events are there."""
    names = {"name": sql.Literal(table.name), "stream": sql.Literal(table.stream.name)}
    return sql.SQL(_FORGET_PROGRESS).format(**names)
