"""A database that falls silent: every wait for it has an end."""

import time
from collections.abc import Iterator

import psycopg
import pytest

from faults import Proxy
from services import DatabaseService
from streamflow.errors import Unavailable
from streamflow.postgres import connections
from streamflow.postgres.connections import Ping, connect, ping, translated
from streamflow.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


@pytest.fixture
def proxy(database_server: DatabaseService) -> Iterator[Proxy]:
    with Proxy(database_server.port) as made:
        yield made


@pytest.fixture
def settings(database_url: str, proxy: Proxy, database_server: DatabaseService) -> Settings:
    url = database_url.replace(f":{database_server.port}/", f":{proxy.port}/")
    assert url != database_url
    return Settings(DATABASE_URL=url)


def test_a_silent_database_is_waited_for_no_longer_than_its_statement_may_take(
    settings: Settings, proxy: Proxy
) -> None:
    connection = connect(settings, "test", statement_timeout=1)
    connection.execute("CREATE TEMPORARY TABLE copied (number integer)")
    proxy.stall()
    began = time.monotonic()
    # TCP sees nothing wrong: the proxy acknowledges every packet.
    with (
        pytest.raises(Unavailable, match="no answer within 6 s"),
        translated(),
        connection.transaction(),
        connection.cursor() as cursor,
        cursor.copy("COPY copied FROM STDIN") as copy,
    ):
        copy.write(b"1\n")
    assert time.monotonic() - began < 20
    assert connection.closed


def test_a_silent_database_is_not_waited_for_while_connecting(
    settings: Settings, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CONNECT_TIMEOUT", 2)
    proxy.stall()
    began = time.monotonic()
    with pytest.raises(Unavailable):
        connect(settings, "test")
    assert time.monotonic() - began < 15


def test_a_statement_that_takes_its_time_is_waited_for(settings: Settings) -> None:
    connection = connect(settings, "test", statement_timeout=0)
    connection.answer_within = None
    assert connection.execute("SELECT 1 FROM pg_sleep(1.5)").fetchone() == (1,)
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("SET statement_timeout = '500ms'; SELECT pg_sleep(5)")
    connection.close()


def test_a_ping_keeps_its_connection_and_notices_the_end_of_the_database(
    settings: Settings, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def open_() -> connections.Connection:
        opened.append(connect(settings, "ping", statement_timeout=5))
        return opened[-1]

    ask = Ping(open_, 5)
    for _ in range(3):
        ask()
    assert len(opened) == 1
    with psycopg.connect(settings.database, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [opened[0].info.backend_pid])
    # The database answers all the same.
    ask()
    assert len(opened) == 2
    monkeypatch.setattr(connections, "_PING_KEPT", 0)
    ask()
    assert len(opened) == 3
    assert opened[1].closed
    proxy.cut()
    with pytest.raises(Unavailable):
        ping(settings)()
    with pytest.raises(Unavailable):
        ask()
    assert all(each.closed for each in opened)


def test_a_ping_waits_for_a_silent_database_once(
    settings: Settings, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not first on the connection that it keeps, and then on another one."""
    monkeypatch.setattr(connections, "CONNECT_TIMEOUT", 2)
    ask = ping(settings)
    ask()
    proxy.stall()
    began = time.monotonic()
    with pytest.raises(Unavailable, match="no answer within 2 s"):
        ask()
    assert time.monotonic() - began < 3.5
    proxy.mend()
    ask()
