"""Workers that die at the worst moments, exactly there; and records that are gone from Kafka."""

import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic

from faults import wait_until
from pipeline import (
    audit,
    codes,
    count,
    environment,
    events,
    produce,
    topic_bounds,
    workers,
)
from streamflow.audit.problems import ProblemKind
from streamflow.kafka.clients import admin
from streamflow.kafka.offsets import partitions_of
from streamflow.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("exact_row_counts")]

DIE = "lambda *_: os.kill(os.getpid(), signal.SIGKILL)"

# What is replaced in the worker's process, by a sudden end.
AFTER_ROWS = f"""
from streaming_workers.runtime.session import Session
Session._commit_for_display = lambda self: self._sink.take_durable() and ({DIE})()
"""
BEFORE_ROWS = f"""
from streamflow.postgres.sink import positions
positions.move = {DIE}
"""
IN_TRANSACTION = f"""
from streamflow.kafka import transactions
produce_all = transactions.produce_all
def produce_and_wait(client, records):
    produce_all(client, records)
    client.flush(10)
transactions.produce_all = produce_and_wait
transactions.retry_while_retriable = {DIE}
"""
AFTER_TRANSACTION = f"""
from streaming_workers.runtime.session import Session
commit = Session.commit
def die(self, batch, output):
    commit(self, batch, output)
    batch.records and ({DIE})()
Session.commit = die
"""
MOMENTS = {
    "loader, rows committed, Kafka not told": ("loader", AFTER_ROWS),
    "loader, rows copied, not committed": ("loader", BEFORE_ROWS),
    "validator, transaction open": ("validator", IN_TRANSACTION),
    "validator, transaction committed": ("validator", AFTER_TRANSACTION),
    "analytics, transaction open": ("analytics", IN_TRANSACTION),
    "analytics, transaction committed": ("analytics", AFTER_TRANSACTION),
}
# What the other of the two shows of the same code: in `make chaos`.
SHOWN_BY_OTHERS = ("validator, transaction committed", "analytics, transaction open")


def run_until_it_dies(settings: Settings, worker: str, fault: str) -> None:
    code = (
        f"import os, signal\n{fault}\n"
        "from streamflow.settings import load_settings\n"
        "from streaming_workers.launch import run_worker\n"
        f"run_worker(load_settings(), {worker!r}, instance='{settings.prefix}{worker}',"
        " health_port=0, accept_rejects=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(settings),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -9, done.stderr.decode()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(moment, marks=[pytest.mark.chaos] if moment in SHOWN_BY_OTHERS else [])
        for moment in MOMENTS
    ],
)
def test_killed_at(moment: str, stack_settings: Settings, tmp_path: Path) -> None:
    worker, fault = MOMENTS[moment]
    values, expected = events(3_000, invalid=0.02, spacing=20)
    produce(stack_settings, "user-events", values)
    run_until_it_dies(stack_settings, worker, fault)
    with workers(stack_settings, tmp_path):
        report = audit(stack_settings)
    assert report.closed, report.problems[:5]
    assert count(stack_settings, "SELECT count(*) FROM events") == 3_000 - expected.total()
    assert codes(stack_settings) == expected
    # Nothing was even sent twice: the transaction, or the stored position, prevented it.
    assert count(stack_settings, "SELECT count(*) FROM duplicates") == 0
    closed = [found for found in report.windows.values() if found.cells]
    assert closed
    assert all(found.counted == found.events for found in closed)


def test_records_that_retention_removed_unseen_are_told(
    stack_settings: Settings, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", events(300)[0])
    client, topic = admin(stack_settings), f"{stack_settings.prefix}user-events"
    client.delete_records([TopicPartition(topic, 0, 5)])[TopicPartition(topic, 0)].result(20)
    end = topic_bounds(stack_settings, "user-events")[topic, 0][1]
    with workers(stack_settings, tmp_path):
        report = audit(stack_settings)
    # Each of the three groups has missed them.
    assert {problem.kind for problem in report.problems} == {ProblemKind.GAP_RETENTION}
    told = list(map(str, report.problems))
    assert all(each.startswith(f"{topic}[0] offsets 0 to 4: ") for each in told)
    for worker in ("validator", "analytics", "loader"):
        assert any(stack_settings.group(worker) in each for each in told)
    assert (
        count(stack_settings, "SELECT count(*) FROM events WHERE origin_partition = 0") == end - 5
    )


def test_what_was_proved_stays_proved_when_retention_removes_it(
    stack_settings: Settings, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", events(300)[0])
    client, topic = admin(stack_settings), f"{stack_settings.prefix}user-events"
    with workers(stack_settings, tmp_path):
        assert audit(stack_settings).closed
        client.delete_records([TopicPartition(topic, 0, 5)])[TopicPartition(topic, 0)].result(20)
        assert audit(stack_settings).closed


def test_the_audit_notices_that_a_topic_was_recreated(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """What the workers do about it is in test_gaps."""
    produce(stack_settings, "user-events", events(300)[0])
    with workers(stack_settings, tmp_path):
        assert audit(stack_settings).closed
    client, topic = admin(stack_settings), f"{stack_settings.prefix}user-events"
    client.delete_topics([topic])[topic].result(20)

    def made() -> bool:
        return client.create_topics([NewTopic(topic, 3, 1)])[topic].exception(20) is None

    wait_until(made, 30, "the topic to be recreated")
    # The controller has answered; the broker's metadata may be behind it.
    wait_until(lambda: partitions_of(client, [topic]), 30, "the topic to be listed")
    report = audit(stack_settings, patience=0)
    assert report.problems[0].kind is ProblemKind.TOPIC_RECREATED
    assert report.problems[0].topic == topic
