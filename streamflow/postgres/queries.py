"""Reads for status, checks and dashboard; each named and described."""

import psycopg
from psycopg import sql

from streamflow.errors import Unavailable
from streamflow.registry import load_streams
from streamflow.settings import Settings

_SHARED = ("window_counts", "notifications", "dead_letters")


def row_counts(settings: Settings) -> dict[str, int]:
    """Exact number of rows of each table.

    Raises:
        Unavailable: the database does not answer.
    """
    tables = [*(stream.table for stream in load_streams(settings)), *_SHARED]
    query = sql.SQL("SELECT count(*) FROM {}")
    counts: dict[str, int] = {}
    try:
        with psycopg.connect(settings.database, connect_timeout=5) as connection:
            for table in tables:
                row = connection.execute(query.format(sql.Identifier(table))).fetchone()
                counts[table] = int(row[0]) if row else 0
    except psycopg.Error as error:
        raise Unavailable(f"the database does not answer: {type(error).__name__}") from error
    return counts
