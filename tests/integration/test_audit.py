"""The audit closes only when it knows: each way in which it must not be green, with real workers."""

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import NewTopic

from faults import stalled, wait_until
from loads import execute, rows, value
from pipeline import (
    WorkerProcess,
    count,
    event,
    events,
    folder,
    loader_lag,
    produce,
    stored_values,
    streamflow,
    topic_bounds,
    workers,
)
from services import BrokerService
from streamflow.audit.ledger import run_audit
from streamflow.audit.report import AuditReport
from streamflow.kafka.clients import admin
from streamflow.lag.measure import group_lags
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

COUNTED = "SELECT coalesce(sum(count), 0)::int FROM window_counts"


def audit(settings: Settings, *arguments: str, wait: float = 0, **changes: str) -> dict[str, Any]:
    """What the command says, once it is sure that its exit code says the same."""
    done = streamflow(settings, "audit", "--json", "--wait", str(wait), *arguments, **changes)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 0) is report["closed"]
    if report["closed"]:
        assert report["caught_up"]
    return report | {"code": done.returncode}


def kinds(report: dict[str, Any]) -> set[str]:
    return {problem["kind"] for problem in report["problems"]}


def of_kind(report: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [problem for problem in report["problems"] if problem["kind"] == kind]


def closes(settings: Settings, wait: float = 60) -> dict[str, Any]:
    report = audit(settings, wait=wait)
    assert report["verdict"] == "closed", (report["problems"], report["pending"])
    return report


def remove_all_records(settings: Settings, topic: str) -> int:
    """As retention does; returns how many offsets that were."""
    client, bounds = admin(settings), topic_bounds(settings, topic)
    ends = [TopicPartition(*partition, end) for partition, (_, end) in bounds.items()]
    for future in client.delete_records(ends).values():
        future.result(20)
    return sum(end - first for first, end in bounds.values())


def stored(settings: Settings, number: int) -> None:
    wait_until(lambda: count(settings, "SELECT count(*) FROM events") == number, 60, "all stored")


def test_a_worker_that_never_ran_is_not_yet(stack_settings: Settings, tmp_path: Path) -> None:
    produce(stack_settings, "user-events", events(300)[0])
    with workers(stack_settings, tmp_path, ("validator", "loader")):
        stored(stack_settings, 300)
        report = audit(stack_settings, wait=5)
        assert (report["code"], report["verdict"]) == (1, "not_yet")
        assert report["problems"] == []
        [pending] = report["pending"]
        assert (pending["worker"], pending["records"]) == ("analytics", 300)
        assert "analytics is 300 offsets behind" in pending["message"]
        shown = streamflow(stack_settings, "audit", "--wait", "0")
        assert shown.returncode == 1
        assert "not yet: analytics is 300 offsets behind" in shown.stdout


def test_a_broker_that_restarts_meanwhile_is_waited_for(
    stack_settings: Settings, broker: BrokerService, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", events(300)[0])
    begun = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT clock_timestamp()'"
    with workers(stack_settings, tmp_path, ("validator", "loader")), ThreadPoolExecutor(1) as pool:
        stored(stack_settings, 300)
        audited = pool.submit(audit, stack_settings, wait=120)
        wait_until(lambda: count(stack_settings, begun) == 1, 30, "the audit to wait for analytics")
        broker.kill()
        try:
            wait_until(lambda: not broker.probe().ready, 10, "the broker to be gone")
        finally:
            broker.start()
        with workers(stack_settings, folder(tmp_path, "analytics"), ("analytics",)):
            assert audited.result(120)["verdict"] == "closed"


def test_a_worker_that_has_stopped_is_not_yet_with_numbers(
    stack_settings: Settings, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", events(100)[0])
    with workers(stack_settings, tmp_path) as running:
        closes(stack_settings)
        assert running["validator"].stop() == 0
        produce(stack_settings, "user-events", events(50)[0])
        stored(stack_settings, 150)
        report = audit(stack_settings, wait=3)
    assert (report["verdict"], report["problems"]) == ("not_yet", [])
    assert [each["message"] for each in report["pending"] if each["worker"] == "validator"] == [
        "validator is 50 offsets behind"
    ]


def test_notifications_of_removed_records_are_missed_and_can_be_acknowledged(
    stack_settings: Settings, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", events(902)[0])
    with workers(stack_settings, tmp_path, ("analytics", "loader")):
        stored(stack_settings, 902)
        wait_until(lambda: value(stack_settings, COUNTED) == 902, 60, "all counted")
    assert remove_all_records(stack_settings, "user-events") == 902

    asleep = audit(stack_settings, wait=1)
    assert asleep["verdict"] == "open"
    assert sum(each["count"] for each in of_kind(asleep, "no_notification")) == 902
    with workers(stack_settings, tmp_path):
        awake = audit(stack_settings, wait=60)
        assert (awake["code"], awake["verdict"], awake["caught_up"]) == (1, "open", True)
        assert kinds(awake) == {"no_notification", "gap_retention"}
        lost = of_kind(awake, "no_notification")
        assert sum(each["count"] for each in lost) == 902
        assert [(each["partition"], each["offset"]) for each in lost] == [(0, 0), (1, 0), (2, 0)]
        assert "events without a notification, the first at offset 0" in lost[0]["message"]
        assert all("--acknowledge" in each["message"] for each in of_kind(awake, "gap_retention"))
        # It stays so until somebody says that they know.
        assert audit(stack_settings, wait=10)["verdict"] == "open"

        known = audit(stack_settings, "--acknowledge", wait=20)
        assert (known["code"], known["verdict"], known["problems"]) == (0, "closed", [])
        assert known["lost"] == 902
        assert value(stack_settings, "SELECT sum(lost)::int FROM audit_ledger") == 902
        assert value(stack_settings, "SELECT count(*) FROM gaps WHERE acknowledged_by = ''") == 0

        produce(stack_settings, "user-events", events(90)[0])
        again = closes(stack_settings)
        assert again["lost"] == 902
        proved = (
            "SELECT sum(proved_through)::int FROM audit_ledger WHERE topic LIKE '%.user-events'"
        )
        assert value(stack_settings, proved) == 992

        # What is lost once more is a new gap, whatever was said of the old one.
        execute(stack_settings, "DELETE FROM audit_ledger")
        remove_all_records(stack_settings, "user-events")
        assert kinds(audit(stack_settings, wait=10)) == {"gap_retention"}


@pytest.mark.chaos
def test_windows_of_removed_records_can_be_acknowledged(
    stack_settings: Settings, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", events(300)[0])
    with workers(stack_settings, tmp_path, ("validator", "loader")):
        stored(stack_settings, 300)
        wait_until(lambda: count(stack_settings, "SELECT count(*) FROM notifications") == 300)
    remove_all_records(stack_settings, "user-events")
    with workers(stack_settings, tmp_path):
        produce(stack_settings, "user-events", [event(n, at=datetime.now(UTC)) for n in range(30)])
        wait_until(lambda: value(stack_settings, COUNTED) == 30, 60, "the others to be counted")
        red = audit(stack_settings, wait=30)
        assert kinds(red) == {"window_differs", "gap_retention"}
        assert sum(each["count"] for each in of_kind(red, "window_differs")) == 300
        known = audit(stack_settings, "--acknowledge", wait=30)
        assert (known["verdict"], known["problems"]) == ("closed", [])
        assert sum(each["lost"] for each in known["windows"].values()) == 300


def test_what_is_missing_among_derived_rows_is_named(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """A notification, an event behind one, a window, and a row of another record."""
    topic = stack_settings.prefix + "user-events"
    produce(stack_settings, "user-events", events(300)[0])
    with workers(stack_settings, tmp_path):
        wait_until(lambda: value(stack_settings, COUNTED) == 300, 60, "all counted")
        closes(stack_settings)
    changed = (
        "UPDATE events SET appended_at = appended_at + interval '1 ms'"
        " WHERE (origin_partition, origin_offset) = (0, 5)"
    )
    for statement in (
        "DELETE FROM notifications WHERE (origin_partition, origin_offset) = (1, 7)",
        "DELETE FROM events WHERE (origin_partition, origin_offset) = (2, 9)",
        changed,
    ):
        execute(stack_settings, statement)
    report = audit(stack_settings)
    [missed] = of_kind(report, "no_notification")
    assert (missed["topic"], missed["partition"], missed["offset"]) == (topic, 1, 7)
    [orphan] = of_kind(report, "no_event")
    assert (orphan["topic"], orphan["partition"], orphan["offset"]) == (topic, 2, 9)
    [other] = of_kind(report, "other_record")
    assert (other["topic"], other["partition"], other["offset"]) == (topic, 0, 5)
    assert "-0.001 s" in other["message"]
    # Those two are missing as records, too, and the event in its window.
    assert len(of_kind(report, "missing")) == 2
    assert len(of_kind(report, "window_differs")) == 1


def test_a_missing_window_is_named(stack_settings: Settings, tmp_path: Path) -> None:
    produce(stack_settings, "user-events", events(300)[0])
    with workers(stack_settings, tmp_path):
        wait_until(lambda: value(stack_settings, COUNTED) == 300, 60, "all counted")
        closes(stack_settings)
    [(partition, kind, number)] = rows(
        stack_settings,
        "DELETE FROM window_counts WHERE ctid = (SELECT min(ctid) FROM window_counts)"
        " RETURNING partition, event_type, count",
    )
    report = audit(stack_settings)
    [differs] = of_kind(report, "window_differs")
    assert (differs["partition"], differs["count"]) == (partition, number)
    assert kind in differs["message"]


def test_a_stream_without_windows_or_notifications_closes_at_once(
    stack_settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "plain.py").write_text(
        "from dataclasses import replace\n"
        "from streamflow.streams.user_events import USER_EVENTS\n"
        "STREAM = replace(USER_EVENTS, windows=None, notify=None)\n"
    )
    own = {
        "STREAMFLOW_STREAMS": "plain:STREAM",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }
    produce(stack_settings, "user-events", events(200)[0])
    running = [
        WorkerProcess(stack_settings, name, tmp_path / f"{name}.log", **own)
        for name in ("validator", "loader")
    ]
    try:
        stored(stack_settings, 200)
        started = time.monotonic()
        report = audit(stack_settings, wait=60, **own)
        assert report["verdict"] == "closed", report["pending"]
        assert time.monotonic() - started < 40
        quiet = replace(USER_EVENTS, windows=None, notify=None).prefixed(stack_settings.prefix)
        assert group_lags(stack_settings, [quiet])["analytics-group"] == 0
    finally:
        for worker in running:
            worker.kill()


@pytest.mark.chaos
def test_open_windows_are_fine_while_they_are_open(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """Open legitimately; then overdue, because the worker stands still; then emitted."""
    # As long as by default: they must still be open when the audit is asked.
    streams = Settings.model_fields["streams"].default
    settings = stack_settings.model_copy(update={"streams": streams})
    now = datetime.now(UTC)
    with workers(settings, tmp_path) as running:
        for worker in running.values():
            worker.wait_assigned()
        produce(settings, "user-events", [event(n, at=now) for n in range(60)])
        stored(settings, 60)
        young = closes(settings, wait=8)
        assert young["in_open_windows"] == 60
        with stalled(running["analytics"].pid):
            wait_until(lambda: audit(settings)["verdict"] == "not_yet", 60, "its time is up")
            overdue = audit(settings)
            assert overdue["problems"] == []
            [pending] = overdue["pending"]
            assert (pending["kind"], pending["records"]) == ("open_windows", 60)
            assert "has not emitted windows that are due, of 60 events" in pending["message"]
        done = closes(settings)
        assert done["in_open_windows"] == 0


def test_a_group_without_positions_is_not_green(stack_settings: Settings, tmp_path: Path) -> None:
    produce(stack_settings, "user-events", events(100)[0])
    with workers(stack_settings, tmp_path) as running:
        wait_until(lambda: value(stack_settings, COUNTED) == 100, 60, "all counted")
        closes(stack_settings)
        assert all(worker.stop() == 0 for worker in running.values())
    closes(stack_settings, wait=0)
    client = admin(stack_settings)
    for worker in ("validator", "analytics"):
        group = stack_settings.group(worker)
        wait_until(
            lambda group=group: client.delete_consumer_groups([group])[group].exception(20) is None,
            30,
        )
    report = audit(stack_settings)
    assert (report["verdict"], report["problems"]) == ("not_yet", [])
    assert {(each["kind"], each["worker"]) for each in report["pending"]} == {
        ("no_position", "validator"),
        ("no_position", "analytics"),
    }

    # Somebody resets the group of analytics with a tool: to the end, and without our metadata.
    ends = topic_bounds(stack_settings, "user-events")
    group = stack_settings.group("analytics")
    offsets = [TopicPartition(*partition, end) for partition, (_, end) in ends.items()]
    wanted = [ConsumerGroupTopicPartitions(group, offsets)]
    client.alter_consumer_group_offsets(wanted)[group].result(20)
    report = audit(stack_settings)
    assert report["verdict"] == "not_yet"
    assert ("unreadable_position", "analytics") in {
        (each["kind"], each["worker"]) for each in report["pending"]
    }

    # What the workers keep themselves holds: nothing is derived or counted twice, nor passed over.
    produce(stack_settings, "user-events", events(50, seed=2)[0])
    with workers(stack_settings, tmp_path) as running:
        closes(stack_settings)
        assert value(stack_settings, COUNTED) == 150
        for name in ("validator", "analytics"):
            assert running[name].said("committed offset restored")
    assert len(stored_values(stack_settings, "notifications")) == 150


def test_a_topic_that_is_not_there_and_one_that_was_recreated(
    stack_settings: Settings, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", events(60)[0])
    with workers(stack_settings, tmp_path):
        wait_until(lambda: value(stack_settings, COUNTED) == 60, 60, "all counted")
        closes(stack_settings)
    client, topic = admin(stack_settings), stack_settings.prefix + "notifications"
    client.delete_topics([topic])[topic].result(20)
    wait_until(lambda: topic not in client.list_topics(timeout=10).topics, 20)
    gone = audit(stack_settings)
    assert gone["problems"][0]["kind"] == "topic_missing"
    assert gone["problems"][0]["topic"] == topic

    def created() -> bool:
        return client.create_topics([NewTopic(topic, 3, 1)])[topic].exception(20) is None

    wait_until(created, 30, "the topic to be created again")
    # The controller has answered; the broker's metadata may be behind it.
    wait_until(lambda: topic in client.list_topics(timeout=10).topics, 20)
    recreated = audit(stack_settings)
    first = recreated["problems"][0]
    assert (recreated["verdict"], first["kind"], first["topic"]) == (
        "open",
        "topic_recreated",
        topic,
    )
    assert f"streamflow topics --accept-recreated {topic}" in first["message"]
    # It is not forgotten by having been said once.
    assert audit(stack_settings)["problems"][0]["kind"] == "topic_recreated"


def test_a_notification_of_nobody_is_named(stack_settings: Settings, tmp_path: Path) -> None:
    produce(stack_settings, "user-events", events(30)[0])
    notes = "SELECT count(*) FROM notifications"
    with workers(stack_settings, tmp_path):
        stored(stack_settings, 30)
        wait_until(lambda: count(stack_settings, notes) == 30, 60, "all notifications")
        wait_until(lambda: value(stack_settings, COUNTED) == 30, 60, "all counted")
        # Behind the marker of the last transaction, and without an audit that proves the rows.
        wait_until(lambda: not loader_lag(stack_settings), 60, "the loader to read all")
    # As a row without an origin: whoever wrote it, it tells of no event.
    execute(
        stack_settings,
        "UPDATE notifications SET (origin_topic, origin_partition, origin_offset) ="
        " (record_topic, record_partition, record_offset)"
        " WHERE (origin_partition, origin_offset) = (0, 0)",
    )
    report = audit(stack_settings)
    assert report["pending"] == []
    [orphan] = of_kind(report, "no_event")
    assert orphan["topic"] == stack_settings.prefix + "notifications"
    [missed] = of_kind(report, "no_notification")
    assert (missed["partition"], missed["offset"], missed["count"]) == (0, 0, 1)
    assert kinds(report) == {"no_event", "no_notification"}

    # What comes next would be skipped by a loader that reads on from there.
    execute(
        stack_settings,
        "UPDATE loader_positions SET next_offset = next_offset + 20"
        f" WHERE topic = '{stack_settings.prefix}user-events' AND partition = 0",
    )
    [beyond] = of_kind(audit(stack_settings), "truncated")
    assert (beyond["partition"], beyond["count"]) == (0, 20)


@contextmanager
def changed(settings: Settings, table: str, statement: str) -> Iterator[None]:
    """The table is as this statement leaves it inside, and afterwards what it was."""
    execute(settings, f"CREATE TABLE kept AS TABLE {table}")
    execute(settings, statement)
    try:
        yield
    finally:
        execute(settings, f"TRUNCATE {table}")
        execute(settings, f"INSERT INTO {table} SELECT * FROM kept")
        execute(settings, "DROP TABLE kept")


def test_rows_that_vanish_after_kafka_has_let_go_are_missed(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """Each table, once everything was proved and retention has emptied all topics."""

    def run(most: int | None = None) -> AuditReport:
        return run_audit(stack_settings, load_streams(stack_settings), patience=0, most=most)

    values, codes = events(300, invalid=0.1)
    valid = 300 - sum(codes.values())
    produce(stack_settings, "user-events", values)
    with workers(stack_settings, tmp_path):
        wait_until(lambda: value(stack_settings, COUNTED) == valid, 60, "all counted")
        closes(stack_settings)
    for topic in ("user-events", "notifications", "analytics", "dead-letter-topic"):
        remove_all_records(stack_settings, topic)
    assert run().closed
    bad = 300 - valid
    for table, statement, number, what in (
        ("notifications", "TRUNCATE notifications", valid, "notification"),
        ("dead_letters", "DELETE FROM dead_letters", bad, "dead letter"),
        ("events", "TRUNCATE events", valid, "event"),
        ("events", "DELETE FROM events WHERE (origin_partition, origin_offset) = (0, 5)", 1, ""),
        ("window_counts", "TRUNCATE window_counts", None, "window count"),
        (
            "window_counts",
            "DELETE FROM window_counts WHERE ctid = (SELECT min(ctid) FROM window_counts)",
            1,
            "window count",
        ),
    ):
        for most in (None, 1):
            with changed(stack_settings, table, statement):
                report = run(most)
            assert report.verdict == "open", statement
            vanished = [each for each in report.problems if each.kind == "rows_vanished"]
            if table == "dead_letters":  # of the source, and as records of their own topic
                assert sum(each.count for each in vanished) == 2 * bad
            elif number is not None:
                assert sum(each.count for each in vanished) == number
            gone = rf"{what}(s that were proved are| that was proved is) gone"
            assert re.search(gone, str(vanished[0]))
    # None of this is a gap that somebody could acknowledge.
    assert rows(stack_settings, "SELECT reader, topic, first_offset, end_offset FROM gaps") == []
    more = (
        'INSERT INTO duplicates (topic, partition, "offset", origin_topic, origin_partition,'
        " origin_offset, table_name) SELECT origin_topic, 0, 5, origin_topic, 0, 5, 'events'"
        " FROM events LIMIT 1"
    )
    with changed(stack_settings, "duplicates", more):
        [added] = [each for each in run().problems if each.kind == "rows_added"]
    assert "1 duplicate more than were proved" in str(added)
    assert run().closed
    ledger = (
        "SELECT sum(records)::int, sum(stored)::int, sum(dead_lettered)::int FROM audit_ledger"
        " WHERE topic LIKE '%.user-events'"
    )
    # What is remembered is of all records, not of those that Kafka still has.
    assert rows(stack_settings, ledger) == [(300, valid, 300 - valid)]


@pytest.mark.chaos
def test_what_is_missing_for_a_gap_in_a_derived_topic_can_be_acknowledged(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """Without the loader, retention removes notifications and window counts that it had not read."""

    def derived() -> tuple[int, int]:
        found = stored_values(stack_settings, "analytics")
        counted = sum(orjson.loads(each or b"")["count"] for each in found)
        return len(stored_values(stack_settings, "notifications")), counted

    topic = stack_settings.prefix + "user-events"
    produce(stack_settings, "user-events", events(300)[0])
    with workers(stack_settings, tmp_path) as running:
        wait_until(lambda: value(stack_settings, COUNTED) == 300, 60, "all counted")
        closes(stack_settings)
        assert running["loader"].stop() == 0
        produce(stack_settings, "user-events", events(200, seed=2)[0])
        wait_until(lambda: derived() == (500, 500), 60, "all derived")
    remove_all_records(stack_settings, "notifications")
    remove_all_records(stack_settings, "analytics")
    with workers(stack_settings, folder(tmp_path, "second")):
        red = audit(stack_settings, wait=60)
        assert kinds(red) == {"no_notification", "window_differs", "gap_retention"}
        assert red["pending"] == []
        group = stack_settings.group("validator")
        shown = [each for each in of_kind(red, "gap_retention") if group in each["message"]]
        assert sum(each["count"] for each in shown) == 200
        assert "derived from them was gone before it was loaded" in shown[0]["message"]
        known = audit(stack_settings, "--acknowledge", wait=30)
        assert (known["verdict"], known["problems"]) == ("closed", [])
        assert sum(each["lost"] for each in known["partitions"] if each["topic"] == topic) == 200

        # That gap excuses nothing of what comes after it.
        produce(stack_settings, "user-events", events(30, seed=3)[0])
        stored(stack_settings, 530)
        notes = "SELECT count(*) FROM notifications"
        wait_until(lambda: count(stack_settings, notes) == 330, 60, "their notifications")
        wait_until(lambda: value(stack_settings, COUNTED) == 330, 60, "the others to be counted")
        execute(
            stack_settings,
            "DELETE FROM notifications WHERE (origin_partition, origin_offset) ="
            " (SELECT 0, max(origin_offset) FROM notifications WHERE origin_partition = 0)",
        )
        later = audit(stack_settings, wait=30)
        assert kinds(later) == {"missing", "no_notification"}


@pytest.mark.chaos
def test_what_is_missing_for_lost_dead_letters_can_be_acknowledged(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """Without the loader, retention removes dead letters that it had not read: their records have no
    outcome, and never will."""
    topic = stack_settings.prefix + "user-events"
    produce(stack_settings, "user-events", events(60)[0])
    with workers(stack_settings, tmp_path) as running:
        closes(stack_settings)
        assert running["loader"].stop() == 0
        produce(stack_settings, "user-events", [b"{}"] * 20)
        letters = "dead-letter-topic"
        wait_until(lambda: len(stored_values(stack_settings, letters)) == 20, 60, "dead letters")
    remove_all_records(stack_settings, letters)
    with workers(stack_settings, folder(tmp_path, "second")):
        red = audit(stack_settings, wait=60)
        assert kinds(red) == {"missing", "gap_retention"}
        assert sum(each["count"] for each in of_kind(red, "missing")) == 20
        group = stack_settings.group("loader")
        shown = [each for each in of_kind(red, "gap_retention") if each["topic"] == topic]
        assert sum(each["count"] for each in shown) == 20
        assert f"group {group}: what was derived" in shown[0]["message"]
        known = audit(stack_settings, "--acknowledge", wait=30)
        assert (known["verdict"], known["problems"]) == ("closed", [])
        assert sum(each["lost"] for each in known["partitions"] if each["topic"] == topic) == 20

        # It excuses no other record.
        produce(stack_settings, "user-events", events(30, seed=3)[0])
        stored(stack_settings, 90)
        execute(
            stack_settings,
            "DELETE FROM events WHERE (origin_partition, origin_offset) ="
            " (SELECT origin_partition, max(origin_offset) FROM events"
            " WHERE origin_partition = 0 GROUP BY 1)",
        )
        assert "missing" in kinds(audit(stack_settings, wait=30))
