"""What is told to Dagster, when, and that nobody waits for it."""

import socket
import time

from faults import wait_until
from streaming_workers.reporting import (
    Ledger,
    Reporter,
    producer_asset,
    table_asset,
    topic_asset,
)
from webhook import Webhook

EVENTS = "postgres/events"


def due(ledger: Ledger, now: float) -> dict[str, int]:
    return {asset: done.records for asset, done in ledger.take_due(now).items()}


def test_an_asset_is_told_at_most_once_an_interval() -> None:
    ledger = Ledger(30)
    ledger.note(EVENTS, 5, 0)
    assert due(ledger, 0) == {EVENTS: 5}
    ledger.note(EVENTS, 1, 1)
    ledger.note(EVENTS, 2, 29)
    assert due(ledger, 29) == {}
    assert due(ledger, 30) == {EVENTS: 3}
    assert due(ledger, 90) == {}


def test_a_worker_without_work_is_told_of_now_and_then() -> None:
    ledger = Ledger(30)
    ledger.note(EVENTS, 0, 0)
    assert due(ledger, 0) == {EVENTS: 0}
    ledger.note(EVENTS, 0, 1)
    assert due(ledger, 299) == {}
    assert due(ledger, 300) == {EVENTS: 0}


def test_what_nobody_took_is_told_with_the_next() -> None:
    ledger = Ledger(30)
    ledger.note(EVENTS, 5, 0)
    [(asset, done)] = ledger.take_due(0).items()
    ledger.note(EVENTS, 2, 1)
    ledger.give_back(asset, done)
    assert due(ledger, 29) == {}
    assert due(ledger, 30) == {EVENTS: 7}
    ledger.note(EVENTS, 0, 31)
    [(asset, done)] = ledger.take_due(330).items()
    ledger.give_back(asset, done)
    assert due(ledger, 360) == {EVENTS: 0}


def test_names_are_those_of_the_graph() -> None:
    assert topic_asset("test.user-events", "test.") == "kafka/user_events"
    assert producer_asset("user-events", "") == "producer/user_events"
    assert table_asset("events") == EVENTS


def test_a_report_is_what_dagster_takes() -> None:
    with Webhook() as dagster, Reporter(f"{dagster.url}/", 15, "loader") as reporter:
        reporter.note(EVENTS, 40)
        reporter.note(EVENTS, 2)
        [(path, body)] = wait_until(lambda: list(dagster.bodies), 10)
    assert path == "/report_asset_materialization/postgres/events"
    assert body["metadata"].keys() == {"records", "seconds", "records_per_second", "worker"}
    assert (body["metadata"]["records"], body["metadata"]["worker"]) == (42, "loader")


def test_a_webserver_that_hangs_or_is_gone_costs_the_worker_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        began = time.monotonic()
        with Reporter(url, 15, "loader") as reporter:
            for _ in range(10_000):
                reporter.note(EVENTS, 1)
            hanging.settimeout(10)
            connection, _ = hanging.accept()
            connection.close()
        # Leaving does not wait for the answer that never comes.
        assert time.monotonic() - began < 8
    with Reporter(url, 15, "loader") as reporter:
        reporter.note(EVENTS, 1)


def test_without_an_address_nothing_runs() -> None:
    with Reporter(None, 30, "loader") as reporter:
        reporter.note(EVENTS, 1)
        assert not reporter._thread.is_alive()
