"""How sessions follow the loaded rows: in pieces of load time, each with its progress in one transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from psycopg import sql

from streamflow.postgres.connections import Connection
from streamflow.postgres.sessions.compute import SessionSql, collect_changed, lock, recompute
from streamflow.postgres.sessions.tables import SessionTable
from streamflow.postgres.windows.schema import prepare_sessions

# A row's load time is when its transaction began: one that commits later is still found.
OVERLAP: Final = timedelta(minutes=5)
ROWS_AT_ONCE: Final = 50_000  # a piece takes seconds, for which retention may have to wait

_SINCE: Final = """
SELECT now(), (SELECT loaded_through FROM rollup_progress WHERE rollup = %s AND stream = %s)
"""
# Where pieces of about so many rows end, by the second of a time.
_PIECES: Final = """
SELECT max("second") + interval '1 s'
  FROM (SELECT "second", trunc((sum(rows) OVER (ORDER BY "second") - rows) / {most}) AS piece
          FROM (SELECT date_trunc('second', {time}) AS "second", count(*) AS rows FROM {table}
                 WHERE {time} >= {since} GROUP BY 1) AS "counted") AS "numbered"
 GROUP BY piece ORDER BY 1
"""
_PROGRESS: Final = """
INSERT INTO rollup_progress AS kept (rollup, stream, loaded_through) VALUES (%s, %s, %s)
ON CONFLICT (rollup, stream) DO UPDATE
   SET loaded_through = greatest(kept.loaded_through, excluded.loaded_through)
"""


class Computed(NamedTuple):
    """What one run has done."""

    sessions: int  # computed, some perhaps in several pieces
    events: int  # that were newly loaded, or so lately that they are looked at again
    pieces: int
    loaded_through: datetime


def compute_sessions(
    connection: Connection, table: SessionTable, *, most: int = ROWS_AT_ONCE
) -> Computed:
    """Computes the sessions of all keys of which rows were loaded since the last time. Each piece, of about
    `most` rows, is one transaction: sessions are whole at each moment, and a run that was killed goes on
    where it was. Raises ConfigurationError if the table is not that of the sessions."""
    parts = SessionSql(table)
    with connection.transaction():
        prepare_sessions(connection, table)
    [(now, since)] = connection.execute(_SINCE, [table.name, table.stream.name])
    settled = now - OVERLAP
    sessions = events = pieces = 0
    for first, end in _pieces(connection, parts, since, most):
        with locked(connection, parts):
            changed = collect_changed(connection, parts, _loaded(first, end))
            sessions += recompute(connection, parts)
            through = settled if end is None else min(end, settled)
            connection.execute(_PROGRESS, [table.name, table.stream.name, through])
        events, pieces = events + changed, pieces + 1
    return Computed(sessions, events, pieces, max(settled, since or settled))


@contextmanager
def locked(connection: Connection, parts: SessionSql) -> Iterator[None]:
    """A transaction of one snapshot, from when the sessions were locked."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        lock(connection, parts)
        yield


def _pieces(
    connection: Connection, parts: SessionSql, since: datetime | None, most: int
) -> Iterator[tuple[datetime | None, datetime | None]]:
    """Ranges of load time; the last has no end."""
    events = parts.table.stream.event_table
    for end in inner_ends(connection, events, "loaded_at", since, most):
        yield since, end
        since = end
    yield since, None


def inner_ends(
    connection: Connection, table: str, time: str, since: datetime | None, most: int
) -> list[datetime]:
    """Where pieces of about `most` rows end, by the time in a column, but for the last piece."""
    query = sql.SQL(_PIECES).format(
        table=sql.Identifier(table),
        time=sql.Identifier(time),
        most=sql.Literal(most),
        since=sql.SQL("'-infinity'") if since is None else sql.Literal(since),
    )
    return [end for (end,) in connection.execute(query)][:-1]


def _loaded(first: datetime | None, end: datetime | None) -> sql.Composable:
    bounds = [
        sql.SQL("event.loaded_at {} {}").format(sql.SQL(sign), sql.Literal(bound))
        for sign, bound in ((">=", first), ("<", end))
        if bound is not None
    ]
    return sql.SQL(" AND ").join([sql.SQL("true"), *bounds])
