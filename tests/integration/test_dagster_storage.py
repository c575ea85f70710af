"""Dagster's storage in PostgreSQL keeps its connections, and opens new ones when they are gone."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.pool import Pool

from faults import Proxy
from services import DatabaseService
from streamflow.settings import Settings
from streamflow_dagster import storage
from streamflow_stack.orchestration import Home

pytestmark = pytest.mark.integration


@pytest.fixture
def opened() -> Iterator[list[Any]]:
    """What any engine of this process has opened."""
    connections: list[Any] = []

    def note(connection: Any, _record: object) -> None:
        connections.append(connection)

    event.listen(Pool, "connect", note)
    yield connections
    event.remove(Pool, "connect", note)


@pytest.fixture
def dagster_home(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `streamflow up` writes it."""
    home = Home(Settings(STREAMFLOW_STATE_DIR=tmp_path), lambda: database_url)
    for name, value in home.write().items():
        if name != "PYTHONPATH":
            monkeypatch.setenv(name, value)


def ask() -> None:
    """As an evaluation of a sensor does, with an instance of its own."""
    with dg.DagsterInstance.get() as instance:
        assert instance.get_run_records() == []
        assert list(instance.get_asset_keys()) == []
        assert list(instance.all_instigator_state()) == []


@pytest.mark.usefixtures("dagster_home")
def test_instances_share_a_connection_that_is_replaced_when_it_is_gone(
    opened: list[Any], database_url: str
) -> None:
    ask()
    of_the_first = len(opened)
    for _ in range(3):
        ask()
    assert len(opened) == of_the_first
    with psycopg.connect(database_url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    assert ended == [(True,)]
    ask()
    assert len(opened) == of_the_first + 1


@pytest.mark.timeout(60)
def test_a_kept_connection_that_is_silent_is_replaced(
    opened: list[Any],
    database_url: str,
    database_server: DatabaseService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a fail-over of which nobody told it: packets are acknowledged, or lost."""
    monkeypatch.setattr(storage, "_ANSWER_WITHIN", 1)
    with Proxy(database_server.port) as proxy:
        url = database_url.replace(f":{database_server.port}/", f":{proxy.port}/")
        assert url != database_url
        engine = storage._engine(url)
        try:
            for _ in range(2):
                with engine.connect() as connection:
                    connection.execute(text("SELECT 1"))
            assert len(opened) == 1
            with socket.socket(fileno=os.dup(opened[0].fileno())) as channel:
                assert channel.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
                assert channel.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
            proxy.black_hole()
            with engine.connect() as connection:
                assert connection.execute(text("SELECT 1")).scalar() == 1
            assert len(opened) == 2
        finally:
            engine.dispose()
