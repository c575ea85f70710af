"""Dagster's storage in PostgreSQL, with connections that are kept. Named in the ``dagster.yaml`` of a stack.

Dagster's own opens a connection for every query, and asks for the names of all tables wherever an instance is
built, which each evaluation of a sensor does: an idle stack opened nine connections a second.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from threading import Timer
from typing import Any, Final

from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError

from streamflow.postgres.connections import CONNECT_TIMEOUT, KEEPALIVES

_KEPT: Final = 1  # connection of a process; more are closed after use
_RECYCLED: Final = 1800  # seconds, after which a connection is replaced
_ANSWER_WITHIN: Final = 5  # seconds, after which a kept connection is replaced


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
    chosen = make_url(url).query
    options = KEEPALIVES | {"connect_timeout": CONNECT_TIMEOUT}
    engine = create_engine(
        url,
        connect_args={name: option for name, option in options.items() if name not in chosen},
        isolation_level="AUTOCOMMIT",
        pool_size=_KEPT,
        # Nobody waits for a connection.
        max_overflow=-1,
        pool_recycle=_RECYCLED,
    )
    event.listen(engine, "checkout", _require_answer)
    return engine


def _require_answer(connection: Any, _record: object, _proxy: object) -> None:
    """As SQLAlchemy's ``pool_pre_ping``, which waits without end for a server that acknowledges packets and
    does not answer, or for a proxy whose other side is gone."""
    try:
        with _shut_down_after(_ANSWER_WITHIN, connection), closing(connection.cursor()) as cursor:
            cursor.execute("SELECT 1")
    except connection.Error as error:
        # The pool opens another one.
        raise DisconnectionError("the connection is gone") from error


@contextmanager
def _shut_down_after(seconds: float, connection: Any) -> Iterator[None]:
    """Whatever waits for an answer on the connection fails after so long: psycopg2 has no time-out."""
    # A descriptor of its own: that of a connection which was closed meanwhile may be another's.
    with socket.socket(fileno=os.dup(connection.fileno())) as channel:

        def shut_down() -> None:
            with suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)

        timer = Timer(seconds, shut_down)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
