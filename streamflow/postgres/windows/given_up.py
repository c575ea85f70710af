"""Windows that a release has given up, and a later one declares again. What came in between no worker has
counted, and no other one will: their table has a hole."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from psycopg import sql

from streamflow.postgres.connections import Connection
from streamflow.postgres.partitions import table_exists
from streamflow.postgres.windows.tables import window_tables
from streamflow.stream import Stream

# Sessions are computed of all events that are stored.
_GIVE_UP: Final = """
UPDATE window_tables SET given_up_at = now()
 WHERE stream = %s AND NOT table_name = ANY(%s) AND given_up_at IS NULL
   AND declaration->>'windows' <> 'SessionWindow'
"""
_TAKE_UP: Final = (
    "UPDATE window_tables SET given_up_at = NULL WHERE stream = %s AND table_name = ANY(%s)"
)
# Of a database of an older release, too.
_GIVEN_UP: Final = """
SELECT table_name, (to_jsonb(known)->>'given_up_at')::timestamptz FROM window_tables AS known
 WHERE stream = %s AND table_name = ANY(%s) AND to_jsonb(known)->>'given_up_at' IS NOT NULL
 ORDER BY table_name
"""
_OF_NO_STREAM: Final = """
SELECT table_name FROM window_tables
 WHERE NOT table_name = ANY(%s) AND to_regclass(quote_ident(table_name)) IS NOT NULL ORDER BY table_name
"""
_HAS_PARTS: Final = "SELECT EXISTS (SELECT FROM {})"


class DeclaredAgain(NamedTuple):
    """Windows that were not declared for a time, and whose table has rows from before."""

    table: str
    given_up_at: datetime

    def __str__(self) -> str:
        return (
            f"the windows in {self.table} are declared again, and begin anew where analytics is: what came "
            f"since {self.given_up_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} is not in them"
        )


def declared_again(connection: Connection, stream: Stream) -> list[DeclaredAgain]:
    """Those that the database knows as given up."""
    if not table_exists(connection, "window_tables"):
        return []
    rows = connection.execute(_GIVEN_UP, [stream.name, _names(stream)]).fetchall()
    with_parts = tables_with_parts(connection, stream)
    return [DeclaredAgain(*row) for row in rows if row[0] in with_parts]


def undeclared_tables(connection: Connection, streams: Iterable[Stream]) -> list[str]:
    """The tables of windows, and of sessions, that are there and that no stream declares any more."""
    declared = [name for stream in streams for name in stream.window_tables]
    return [name for (name,) in connection.execute(_OF_NO_STREAM, [declared])]


def note_given_up(connection: Connection, stream: Stream) -> list[str]:
    """Notes which windows are declared no more; says which are declared again."""
    again = declared_again(connection, stream)
    names = [stream.name, _names(stream)]
    connection.execute(_GIVE_UP, names)
    connection.execute(_TAKE_UP, names)
    return [f"{each}; the audit names what they miss" for each in again]


def tables_with_parts(connection: Connection, stream: Stream) -> set[str]:
    """The tables of a stream's windows that have rows."""
    found = set()
    for name in _names(stream):
        if table_exists(connection, name):
            query = sql.SQL(_HAS_PARTS).format(sql.Identifier(name))
            [(has_parts,)] = connection.execute(query)
            found |= {name} if has_parts else set()
    return found


def _names(stream: Stream) -> Sequence[str]:
    return [table.name for table in window_tables(stream)]
