"""How many rows tables have, kept by those who change it: the loader and retention. Nothing else removes rows
of these tables; what is erased or set aside stays as a row.

The loader adds what a transaction has stored to a count of one of the partitions whose positions that has
locked. So the count is as exact as the rows are (G1), and no loader waits for another.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from psycopg import sql

from streamflow.flow import Partition
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.partitions import quoted, table_exists
from streamflow.postgres.tables import SHARED
from streamflow.postgres.windows.tables import window_tables
from streamflow.settings import Settings
from streamflow.stream import Stream

_TIMEOUT: Final = 5  # seconds
_FEW: Final = 10_000  # rows of a state table: as many are counted

_ADD: Final = """
INSERT INTO row_counts AS kept (table_name, topic, partition, rows)
SELECT table_name, %s, %s, rows FROM unnest(%s::text[], %s::bigint[]) AS stored (table_name, rows)
ON CONFLICT (table_name, topic, partition) DO UPDATE SET rows = kept.rows + excluded.rows
"""
_TAKE_OFF: Final = """
UPDATE row_counts SET rows = rows - %s WHERE table_name = %s AND topic = ''
"""
# A restored table, or one that was dropped and created again, is another one.
_UNCOUNTED: Final = """
SELECT wanted.name, to_regclass(wanted.quoted)::oid
  FROM unnest(%s::text[], %s::text[]) AS wanted (name, quoted)
 WHERE NOT EXISTS (SELECT FROM row_counts WHERE table_name = wanted.name AND topic = ''
                      AND counted_table = to_regclass(wanted.quoted)::oid)
 ORDER BY wanted.name
"""
_COUNT: Final = """
INSERT INTO row_counts AS kept (table_name, topic, partition, rows, counted_table)
SELECT %(name)s, '', -1, counted.rows - coalesce(
           (SELECT sum(rows) FROM row_counts WHERE table_name = %(name)s AND topic <> ''), 0),
       %(table)s
  FROM (SELECT count(*) AS rows FROM {}) AS counted
ON CONFLICT (table_name, topic, partition) DO UPDATE
   SET rows = excluded.rows, counted_table = excluded.counted_table
"""
_READ: Final = """
SELECT table_name, sum(rows)::bigint FROM row_counts
 WHERE table_name = ANY(%s) GROUP BY table_name HAVING bool_or(topic = '')
"""


# Of a table that was never analyzed, PostgreSQL has none.
_ESTIMATE: Final = """
SELECT nullif(greatest(reltuples, -1), -1)::bigint FROM pg_class WHERE oid = to_regclass(%s)
"""


class RowCounts(NamedTuple):
    """How many rows tables and views have.

    Attributes:
        rows: None for those that do not exist, or of which nothing is known.
        estimated: the names of those whose number is PostgreSQL's estimate.
        missing: the names of those that do not exist.
    """

    rows: dict[str, int | None]
    estimated: frozenset[str]
    missing: frozenset[str]


def counted_tables(streams: Sequence[Stream]) -> list[str]:
    """The tables that records are loaded into: the streams' own, those of their windows, the shared ones."""
    return [
        *(stream.event_table for stream in streams),
        *(table.name for stream in streams for table in window_tables(stream)),
        *(table.name for table in SHARED),
    ]


def row_counts(settings: Settings, streams: Sequence[Stream]) -> RowCounts:
    """Of all tables that records are loaded into, and of the views of upsert streams; counts none that has
    more than a few rows. Raises as `session`."""
    names = counted_tables(streams)
    views = {stream.table: str(stream.state_table) for stream in streams if stream.state_table}
    with session(settings, "status", statement_timeout=_TIMEOUT) as connection:
        missing = {name for name in (*views, *names) if not table_exists(connection, name)}
        existing = [name for name in names if name not in missing]
        kept = read(connection, existing) if existing else {}
        few = {
            view: None if view in missing else _count_few(connection, view, state)
            for view, state in views.items()
        }
        many = {
            view: _estimate(connection, state)
            for view, state in views.items()
            if few[view] is None and view not in missing
        }
    rows = few | many | {name: kept.get(name) for name in names}
    estimated = frozenset(view for view, number in many.items() if number is not None)
    return RowCounts(rows, estimated, frozenset(missing))


def _count_few(connection: Connection, view: str, state: str) -> int | None:
    """The rows of a view of a state table; None if the table has more than a few."""
    some = sql.SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT {}) AS few").format(
        sql.Identifier(state), sql.Literal(_FEW + 1)
    )
    [(number,)] = connection.execute(some)
    if number > _FEW:
        return None
    [(rows,)] = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(view)))
    return int(rows)


def _estimate(connection: Connection, table: str) -> int | None:
    [(rows,)] = connection.execute(_ESTIMATE, [quoted(table)])
    return None if rows is None else int(rows)


def add(connection: Connection, locked: Partition, stored: Mapping[str, int]) -> None:
    """Adds rows that the connection's transaction has stored, by table; `locked` is a partition whose
    position it has locked."""
    names = sorted(name for name, rows in stored.items() if rows)
    if names:
        connection.execute(_ADD, [*locked, names, [stored[name] for name in names]])


def take_off(connection: Connection, table: str, rows: int) -> None:
    """Subtracts rows that the connection's transaction has removed."""
    connection.execute(_TAKE_OFF, [rows, table])


def begin(connection: Connection, tables: Iterable[str]) -> None:
    """Counts tables of which no count is kept yet, once and for all. Loaders wait while one is counted."""
    existing = [name for name in tables if table_exists(connection, name)]
    for name, _ in _uncounted(connection, existing):
        with connection.transaction():
            # Each transaction of a loader, of an older release too, changes a position before it stores
            # rows; what retention removes from a default partition, it removes before it takes it off.
            # Statements of their own: whoever counts has to see what those have done that held the locks.
            connection.execute("LOCK TABLE loader_positions IN SHARE MODE")
            connection.execute(f"LOCK TABLE {quoted(name)} IN SHARE MODE".encode())
            for _, table in _uncounted(connection, [name]):
                statement = _COUNT.format(quoted(name).replace("%", "%%"))
                connection.execute(statement.encode(), {"name": name, "table": table})


def _uncounted(connection: Connection, tables: Sequence[str]) -> list[tuple[str, int]]:
    """Those of these tables that are to be counted, and what `counted_table` will be."""
    names = [list(tables), list(map(quoted, tables))]
    return connection.execute(_UNCOUNTED, names).fetchall()


def read(connection: Connection, tables: Iterable[str]) -> dict[str, int]:
    """The rows of these tables; those are left out of which no count is kept."""
    return dict(connection.execute(_READ, [list(tables)]).fetchall())
