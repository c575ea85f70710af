"""Computing the sessions of stored samples, in temporary tables (G15)."""

from collections.abc import Iterator
from typing import Final

import psycopg
from psycopg import sql

from streamflow.postgres.connections import Connection, faulty_statement
from streamflow.postgres.sessions.compute import EVERYTHING, SessionSql, collect_changed, recompute
from streamflow.postgres.sessions.schema import create_sessions
from streamflow.postgres.sessions.tables import SessionTable, session_tables
from streamflow.stream import Stream
from streamflow.trial import TrialProblem

# What the statements use of our schema, which there may not be yet.
_EXACT: Final = "pg_temp.exact_numeric"
_STAND_INS: Final = """
CREATE TEMPORARY TABLE dropped_days (table_name text, day date);
CREATE TEMPORARY TABLE erased_records (place text, topic text, partition integer, "offset" bigint);
CREATE TEMPORARY TABLE rollup_progress (rollup text, stream text, loaded_through timestamptz);
CREATE TEMPORARY TABLE quality_scans (scan text, table_name text, loaded_through timestamptz);
CREATE FUNCTION pg_temp.exact_numeric(number double precision) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT AS 'SELECT number::numeric'
"""


def problems_with_sessions(connection: Connection, stream: Stream) -> Iterator[TrialProblem]:
    """What PostgreSQL refuses, or loses, of the sessions of samples that are in the stream's table. Call it
    in a transaction that is rolled back, with the temporary schema first in the path."""
    if stream.sessions:
        connection.execute(_STAND_INS)
    for table in session_tables(stream, exact_numeric=_EXACT):
        try:
            with connection.transaction():
                events, counted = _computed(connection, table)
        except psycopg.Error as error:
            if faulty_statement(error) is None:
                raise
            # They are of samples, so that values may be quoted.
            reason = error.diag.message_primary or type(error).__name__
            yield _problem(table, f"PostgreSQL cannot compute the sessions of samples ({reason})")
            continue
        if events != counted:
            yield _problem(table, f"the sessions of samples count {counted} of {events} events")


def _computed(connection: Connection, table: SessionTable) -> tuple[int, int]:
    """How many events there are, and how many of them sessions count."""
    parts = SessionSql(table)
    connection.execute(create_sessions(table))
    events = collect_changed(connection, parts, EVERYTHING)
    recompute(connection, parts)
    total = sql.SQL("SELECT coalesce(sum(counted), 0)::bigint FROM {}")
    [(counted,)] = connection.execute(total.format(sql.Identifier(table.name))).fetchall()
    return events, counted


def _problem(table: SessionTable, text: str) -> TrialProblem:
    return TrialProblem(
        "windows",
        f"{table.name}: {text}: aggregate or group by other fields, or bound their values in the contract",
        table.name,
    )
