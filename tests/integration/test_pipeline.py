"""The whole path, with real processes: exact whatever is killed, stalled or refused."""

import os
import signal
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from faults import stalled, wait_until
from loads import rows
from pipeline import (
    INVALID,
    WorkerProcess,
    audit,
    codes,
    count,
    event,
    events,
    folder,
    produce,
    workers,
)
from services import BrokerService, DatabaseService
from streamflow.kafka import clients
from streamflow.kafka.producing import produce_all
from streamflow.records import ORIGIN_HEADER, SOURCE_HEADER, OutRecord
from streamflow.settings import Settings

pytestmark = pytest.mark.integration


def totals(settings: Settings) -> tuple[Counter[str], Counter[str]]:
    """Events by type, and window totals by type."""
    with psycopg.connect(settings.database) as connection:
        stored = connection.execute("SELECT type, count(*) FROM events GROUP BY 1").fetchall()
        counted = connection.execute(
            "SELECT event_type, sum(count)::bigint FROM window_counts GROUP BY 1"
        ).fetchall()
    return Counter(dict(stored)), Counter(dict(counted))


def wait_for_closed_windows(settings: Settings) -> None:
    """Idle partitions close their windows after ten seconds."""
    wait_until(lambda: totals(settings)[0] == totals(settings)[1], 40, "all windows to close")


def test_every_record_is_a_row_or_a_dead_letter(stack_settings: Settings, tmp_path: Path) -> None:
    values, expected = events(5_000, invalid=0.05)
    produce(stack_settings, "user-events", values)
    with workers(stack_settings, tmp_path) as running:
        report = audit(stack_settings)
        assert report.closed, report.problems
        assert codes(stack_settings) == expected
        topic = stack_settings.prefix + "user-events"
        for worker in running.values():
            assert (worker.metric("streamflow_records_in_total", topic=topic)) == 5_000
            rejected = worker.metric("streamflow_records_rejected_total")
            assert rejected == expected.total()
            wait_until(lambda worker=worker: worker.metric("streamflow_lag_offsets") == 0, 20)
            assert worker.metric("streamflow_end_to_end_seconds_count") >= 1
            assert worker.get("/ready") == "ready\n"
        assert count(stack_settings, "SELECT count(*) FROM events") == 5_000 - expected.total()
        assert count(stack_settings, "SELECT count(*) FROM notifications") == (
            5_000 - expected.total()
        )
        wait_for_closed_windows(stack_settings)
    assert (
        count(
            stack_settings,
            "SELECT count(*) FROM dead_letters WHERE position('ann@' in value::text) > 0",
        )
        == 0
    )


def test_an_audit_names_a_missing_row(stack_settings: Settings, tmp_path: Path) -> None:
    produce(stack_settings, "user-events", events(200)[0])
    with workers(stack_settings, tmp_path):
        assert audit(stack_settings).closed
    with psycopg.connect(stack_settings.database) as connection:
        gone = connection.execute(
            "DELETE FROM events WHERE (origin_partition, origin_offset) = (1, 3)"
        )
        assert gone.rowcount == 1
    report = audit(stack_settings, patience=1)
    assert f"{stack_settings.prefix}user-events[1] offset 3: not accounted for" in map(
        str, report.problems
    )


def test_a_forged_origin_takes_no_notification(stack_settings: Settings, tmp_path: Path) -> None:
    topic = stack_settings.prefix + "user-events"
    client = clients.producer(stack_settings)
    headers = [(ORIGIN_HEADER, f"{topic}/0/1".encode()), (SOURCE_HEADER, f"{topic}/0/1".encode())]
    client.produce(topic, event(9), partition=0, headers=headers)
    client.produce(topic, event(1), partition=0)
    assert client.flush(30) == 0
    with workers(stack_settings, tmp_path):
        report = audit(stack_settings)
    assert report.closed, report.problems
    for table, number in (("events", "id"), ("notifications", "event_id")):
        query = f"SELECT origin_offset, {number} FROM {table} ORDER BY 1"
        assert rows(stack_settings, query) == [(0, 9), (1, 1)], table
    assert count(stack_settings, "SELECT count(*) FROM duplicates") == 0


def test_garbage_in_any_topic_costs_nobody_else(stack_settings: Settings, tmp_path: Path) -> None:
    garbage = [*INVALID.values(), b"[" * 100_000, b"\x00" * 1_000_000, b'{"id": NaN}']
    for topic in ("user-events", "analytics", "notifications", "dead-letter-topic"):
        produce(stack_settings, topic, garbage)
    produce(stack_settings, "user-events", [event(1), event(2)])
    with workers(stack_settings, tmp_path):
        report = audit(stack_settings)
    assert report.closed, report.problems
    assert count(stack_settings, "SELECT count(*) FROM events") == 2
    # Three topics' garbage as dead letters, and the fourth's as rows at once.
    assert count(stack_settings, "SELECT count(*) FROM dead_letters") == 4 * len(garbage)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("total", [60_000, pytest.param(300_000, marks=pytest.mark.chaos)])
def test_events_while_everything_is_killed(
    total: int,
    stack_settings: Settings,
    broker: BrokerService,
    database_server: DatabaseService,
    tmp_path: Path,
) -> None:
    values, expected = events(total, invalid=0.02)
    topic, part = "user-events", total // 30
    produce(stack_settings, topic, values[: 10 * part])
    with workers(stack_settings, tmp_path) as running:
        for number, (name, victim) in enumerate(list(running.items()), 1):
            victim.wait_assigned()
            produce(stack_settings, topic, values[(6 * number + 4) * part :][: 6 * part])
            victim.kill()
            running[name] = WorkerProcess(
                stack_settings,
                name,
                tmp_path / f"{name}-again.log",
                "--instance",
                f"{stack_settings.prefix}{name}",
            )
        produce(stack_settings, topic, values[28 * part : 29 * part])
        broker.restart()
        produce(stack_settings, topic, values[29 * part :])
        database_server.restart()
        report = audit(stack_settings, patience=120)
        assert report.closed, report.problems[:5]
        assert codes(stack_settings) == expected
        assert count(stack_settings, "SELECT count(*) FROM events") == total - expected.total()
        wait_for_closed_windows(stack_settings)


def test_a_stalled_loader_is_fenced(stack_settings: Settings, tmp_path: Path) -> None:
    produce(stack_settings, "user-events", events(2_000)[0])
    first = WorkerProcess(stack_settings, "loader", tmp_path / "first.log")
    try:
        first.wait_assigned()
        wait_until(lambda: count(stack_settings, "SELECT count(*) FROM events") == 2_000)
        with stalled(first.pid):
            produce(stack_settings, "user-events", events(2_000, seed=2)[0])
            with workers(stack_settings, tmp_path):
                wait_until(
                    lambda: count(stack_settings, "SELECT count(*) FROM events") == 4_000, 60
                )
                os.kill(first.pid, signal.SIGCONT)
                produce(stack_settings, "user-events", events(2_000, seed=3)[0])
                report = audit(stack_settings)
        assert report.closed, report.problems
        assert count(stack_settings, "SELECT count(*) FROM events") == 6_000
    finally:
        first.kill()


def test_a_database_outage_is_waited_for(
    stack_settings: Settings, database_server: DatabaseService, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", events(1_000)[0])
    with workers(stack_settings, tmp_path) as running:
        wait_until(lambda: count(stack_settings, "SELECT count(*) FROM events") == 1_000)
        database_server.kill()
        produce(stack_settings, "user-events", events(1_000, seed=2)[0])
        wait_until(lambda: running["loader"].said('"session ended"'), 60)
        database_server.start()
        report = audit(stack_settings)
        assert running["loader"].process.poll() is None
    assert report.closed, report.problems
    assert count(stack_settings, "SELECT count(*) FROM events") == 2_000
    assert codes(stack_settings).total() == 0


def test_a_broken_release_is_stopped_and_a_mended_one_goes_on(
    stack_settings: Settings, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", events(3_000)[0])
    broken = tmp_path / "broken_release.py"
    broken.write_text(
        "from dataclasses import replace\n"
        "from streamflow.contract import Timestamp\n"
        "from streamflow.streams.user_events import USER_EVENTS, UserEvent\n"
        "class Broken(UserEvent):\n"
        "    tenant: str\n"
        "STREAM = replace(USER_EVENTS, contract=Broken)\n"
    )
    worker = WorkerProcess(
        stack_settings,
        "validator",
        tmp_path / "validator.log",
        STREAMFLOW_STREAMS="broken_release:STREAM",
        STREAMFLOW_BREAKER_CONSECUTIVE="500",
        PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]),
    )
    try:
        wait_until(lambda: worker.said("circuit open"), 30)
        assert worker.process.poll() is None
        assert worker.said("--accept-rejects")
    finally:
        assert worker.stop() == 0
    with workers(stack_settings, tmp_path):
        report = audit(stack_settings)
    assert report.closed, report.problems
    assert codes(stack_settings).total() == 0


def test_a_broken_producer_stops_no_worker(stack_settings: Settings, tmp_path: Path) -> None:
    """Six thousand bad records in a row, of one key: the default breaker stops at 5,000 of ten keys."""
    values, _ = events(1_000)
    broken = (
        OutRecord(f"{stack_settings.prefix}user-events", b"broken", b"{", []) for _ in range(6_000)
    )
    client = clients.producer(stack_settings)
    produce_all(client, broken)
    assert client.flush(60) == 0
    produce(stack_settings, "user-events", values)
    with workers(stack_settings, tmp_path) as running:
        report = audit(stack_settings)
        for worker in running.values():
            assert worker.said("broken producer")
            assert not worker.said("circuit open")
    assert report.closed, report.problems
    assert codes(stack_settings).total() == 6_000
    assert count(stack_settings, "SELECT count(*) FROM events") == 1_000


def test_one_fast_clock_splits_no_windows(stack_settings: Settings, tmp_path: Path) -> None:
    """A producer four minutes ahead, then honest events of the same key, one by one."""
    with workers(stack_settings, tmp_path) as running:
        running["analytics"].wait_assigned()
        started = datetime.now(UTC)

        def send(number: int, after: timedelta = timedelta()) -> None:
            produce(stack_settings, "user-events", [event(number, at=datetime.now(UTC) + after)])
            metric = "streamflow_records_in_total"
            wait_until(lambda: running["analytics"].metric(metric) > number, 30)

        send(0, timedelta(minutes=4))
        for number in range(1, 9):
            send(number)
        sent = datetime.now(UTC)
        # Too far ahead to be waited for, and too old: each is a result of its own.
        send(9, timedelta(minutes=6))
        send(10, timedelta(days=-400))
        counted = "SELECT coalesce(sum(count), 0) FROM window_counts"
        wait_until(lambda: count(stack_settings, counted) == 10, 60, "windows of the past to close")
        # That of the first event is not due yet, and the audit does not wait for it.
        report = audit(stack_settings)
    assert report.closed, report.problems
    old, *honest, ahead = rows(
        stack_settings, "SELECT count, late FROM window_counts ORDER BY window_start"
    )
    assert old == ahead == (1, True)
    assert {is_late for _, is_late in honest} == {False}
    # A row for each window of ten seconds, and not for each event.
    assert len(honest) <= (sent - started) / timedelta(seconds=10) + 2


def test_two_of_each_worker_give_the_same_totals(stack_settings: Settings, tmp_path: Path) -> None:
    values, expected = events(30_000, invalid=0.02)
    produce(stack_settings, "user-events", values[:10_000])
    others = folder(tmp_path, "others")
    with workers(stack_settings, tmp_path) as running:
        for worker in running.values():
            worker.wait_assigned()
        second = [WorkerProcess(stack_settings, name, others / f"{name}.log") for name in running]
        try:
            produce(stack_settings, "user-events", values[10_000:20_000])
            for worker in second:
                worker.wait_assigned()
            produce(stack_settings, "user-events", values[20_000:])
            for worker in second:
                worker.kill()
            report = audit(stack_settings)
            assert report.closed, report.problems[:5]
            assert codes(stack_settings) == expected
            wait_for_closed_windows(stack_settings)
        finally:
            for worker in second:
                worker.kill()


def test_a_worker_stops_within_ten_seconds_with_exit_code_0(
    stack_settings: Settings, tmp_path: Path
) -> None:
    with workers(stack_settings, tmp_path) as running:
        for worker in running.values():
            worker.wait_assigned()
        assert {name: worker.stop() for name, worker in running.items()} == {
            "validator": 0,
            "analytics": 0,
            "loader": 0,
        }
