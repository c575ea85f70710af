"""DDL of a stream's table."""

from collections.abc import Sequence

from psycopg import sql

from streamflow.postgres import state
from streamflow.postgres.connections import Connection
from streamflow.postgres.tables import Column, event_columns
from streamflow.stream import Stream


def create_table(connection: Connection, stream: Stream) -> None:
    """Creates a stream's table, empty, in the first schema of the search path."""
    connection.execute(create_events(stream, event_columns(stream)))


def create_events(stream: Stream, columns: Sequence[Column]) -> sql.Composed:
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
