"""Day partitions: created when needed, never more than the catalogue can bear.

Any date that the contract allows has a place at once, in the default partition. A day gets a partition of
its own before its first row is loaded; a day that already has rows in the default partition stays there.
Time stamps are input: a producer that sends another day in every record must not fill the catalogue,
because each query without a bound on time locks every partition. So days near the present always get
theirs, the others only up to a limit.
"""

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from streamflow.postgres.connections import Connection

NEAR_PAST: Final = timedelta(days=31)
NEAR_FUTURE: Final = timedelta(days=2)
MOST_FAR: Final = 500  # partitions of days that are not near
MOST_AT_ONCE: Final = 50  # new partitions before one batch
_MOST_REMEMBERED: Final = 100_000

# Attaching waits for the readers of the default partition, and new readers wait behind it.
_LOCK_TIMEOUT: Final = timedelta(seconds=2)

# To pg_partition_tree, a table without partitions is no tree.
_LEAVES: Final = """
SELECT leaf.oid::bigint, nspname, relname
  FROM pg_class AS leaf JOIN pg_namespace AS namespace ON namespace.oid = relnamespace
 WHERE relkind = 'r' AND (leaf.oid = to_regclass(%(table)s)
    OR leaf.oid IN (SELECT relid FROM pg_partition_tree(to_regclass(%(table)s)) WHERE isleaf))
 ORDER BY relname
"""


class Leaf(NamedTuple):
    """A partition, or a table that has none."""

    oid: int
    schema: str
    name: str

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)


def partition_name(table: str, day: date) -> str:
    return f"{table}_{day.year:04d}{day.month:02d}{day.day:02d}"


class DayPartitions:
    """The day partitions of one table, as far as this process knows them.

    At most `most_far` days that are not near the present have partitions; one call creates
    `most_at_once`.
    """

    def __init__(
        self, table: str, *, most_far: int = MOST_FAR, most_at_once: int = MOST_AT_ONCE
    ) -> None:
        self._table = table
        self._most_far = most_far
        self._most_at_once = most_at_once
        self._known: set[date] | None = None

    def prepare(
        self, connection: Connection, days: Iterable[date], today: date | None = None
    ) -> None:
        """Creates the partitions for these days, today and tomorrow, in transactions of their own on a
        connection in autocommit mode.

        What cannot be created now, because the limit is reached or the table is busy, is left to the
        default partition. `today` is for tests; else the current day in UTC.
        """
        today = today or datetime.now(UTC).date()
        wanted = {*days, today, today + timedelta(days=1)}
        if self._known is not None and wanted <= self._known:
            return
        existing = self._existing(connection)
        known_days = (self._known or set()) | existing
        missing = sorted(wanted - known_days, key=lambda day: abs(day - today))
        room = self._most_far - sum(not _is_near(day, today) for day in existing)
        created = 0
        for day in missing:
            near = _is_near(day, today)
            if created >= self._most_at_once or not (near or room > 0):
                continue
            if self._create(connection, day):
                created += 1
                room -= not near
        # Days without one have rows in the default partition from now on.
        known_days |= wanted
        self._known = known_days if len(known_days) < _MOST_REMEMBERED else existing

    def _existing(self, connection: Connection) -> set[date]:
        rows = connection.execute(
            "SELECT partition.relname FROM pg_inherits"
            " JOIN pg_class AS partition ON partition.oid = inhrelid"
            " WHERE inhparent = %s::regclass",
            [quoted(self._table)],
        )
        return {day for (name,) in rows if (day := self._day_of(name)) is not None}

    def _day_of(self, name: str) -> date | None:
        digits = name.removeprefix(f"{self._table}_")
        try:
            return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
        except ValueError:
            return None

    def _create(self, connection: Connection, day: date) -> bool:
        """Creates one; False where it must be left to the default partition."""
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT.seconds}s'")
                # A function of the schema's owner: a loader need not be able to alter tables.
                [(created,)] = connection.execute(
                    "SELECT create_day_partition(%s, %s)", [self._table, day]
                )
                return bool(created)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.CheckViolation):
            return False


def _is_near(day: date, today: date) -> bool:
    return -NEAR_PAST <= day - today <= NEAR_FUTURE


def leaves(connection: Connection, table: str) -> list[Leaf]:
    return [Leaf(*row) for row in connection.execute(_LEAVES, {"table": quoted(table)})]


def newest_first(connection: Connection, table: str) -> list[Leaf]:
    """The partitions of a table, the default one first, then those of days, the newest one first."""
    default = f"{table}_default"
    return sorted(
        leaves(connection, table),
        key=lambda leaf: (leaf.name == default, leaf.name),
        reverse=True,
    )


def remove_old_versions(connection: Connection, leaf: Leaf) -> None:
    """Until then, what was replaced stays readable in the file. If others keep it locked for long, that is
    left to autovacuum."""
    with suppress(psycopg.errors.LockNotAvailable, psycopg.errors.UndefinedTable):
        connection.execute(sql.SQL("VACUUM {}").format(leaf.identifier))


def table_exists(connection: Connection, table: str) -> bool:
    row = connection.execute("SELECT to_regclass(%s)", [quoted(table)]).fetchone()
    return row is not None and row[0] is not None


def quoted(name: str) -> str:
    """A name as `to_regclass` takes it."""
    return '"' + name.replace('"', '""') + '"'
