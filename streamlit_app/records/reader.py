"""The connection of a page's own queries: read-only, and with a limit of time. Each query has a limit of
rows, and an index."""

from collections.abc import Iterator
from contextlib import contextmanager

from streamflow.postgres.connections import Connection, session
from streamflow.settings import Settings
from streamlit_app.measure.postgres import READ_ONLY, STATEMENT_TIMEOUT


@contextmanager
def reader(settings: Settings) -> Iterator[Connection]:
    """Raises Unavailable if the database does not answer, or not within five seconds."""
    with session(settings, "dashboard-page", statement_timeout=STATEMENT_TIMEOUT) as connection:
        connection.execute(READ_ONLY)
        yield connection
