"""Dagster's storage in PostgreSQL, with connections that are kept. Named in the ``dagster.yaml`` of a stack.

Dagster's own opens a connection for every query, and asks for the names of all tables wherever an instance is
built, which each evaluation of a sensor does: an idle stack opened nine connections a second.
"""

from functools import cache
from typing import Any, Final

from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import Engine, create_engine

_KEPT: Final = 1  # connection of a process; more are closed after use
_RECYCLED: Final = 1800  # seconds, after which a connection is replaced


class KeptPostgresStorage(DagsterPostgresStorage):
    """Differs from Dagster's in its connections only. All instances of a process share them."""

    def __init__(self, postgres_url: str, inst_data: Any = None) -> None:
        super().__init__(
            postgres_url,
            should_autocreate_tables=postgres_url not in _prepared,
            inst_data=inst_data,
        )
        _prepared.add(postgres_url)
        for storage in (self.run_storage, self.event_log_storage, self.schedule_storage):
            # There is no other way in: `optimize_for_webserver` does not ask whether a connection still
            # works, and a query after a restart of PostgreSQL would fail.
            storage._engine = _engine(postgres_url)  # type: ignore[union-attr]  # noqa: SLF001

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "KeptPostgresStorage":
        return cls(config_value["postgres_url"], inst_data=inst_data)


# URLs of databases that hold the tables.
_prepared: Final[set[str]] = set()


@cache
def _engine(url: str) -> Engine:
    return create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_size=_KEPT,
        # Nobody waits for a connection.
        max_overflow=-1,
        pool_pre_ping=True,
        pool_recycle=_RECYCLED,
    )
