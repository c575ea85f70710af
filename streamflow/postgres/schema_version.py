"""Which migration a database has, known without SQLAlchemy: its import takes long, and 20 MB."""

from pathlib import Path
from typing import Final

from psycopg import sql

from streamflow.names import VERSION_TABLE
from streamflow.postgres.connections import Connection
from streamflow.postgres.partitions import table_exists

_VERSIONS: Final = Path(__file__).with_name("migrations") / "versions"


def current_version(connection: Connection) -> str | None:
    """The revision of the last migration that was applied; None if there was none."""
    if not table_exists(connection, VERSION_TABLE):
        return None
    query = sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(VERSION_TABLE))
    row = connection.execute(query).fetchone()
    return None if row is None else str(row[0])


def newest_version() -> str:
    """The revision of this release's last migration: its file's name begins with it."""
    return max(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*.py"))
