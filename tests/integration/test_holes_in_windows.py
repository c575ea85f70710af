"""Events that windows have skipped for good: the group of analytics was moved, or a release had not declared
the windows. Workers and the audit say so, until it is acknowledged."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from conftest import SettingsFactory
from faults import wait_until
from loads import value
from pipeline import folder, produce, streamflow, topic_bounds, topics_of, workers
from streamflow.kafka.clients import admin
from streamflow.postgres import schema
from streamflow.registry import load_streams
from streamflow.settings import Settings
from window_parts import HOPPING, ORDERS, TUMBLING, orders

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MADE = [ORDERS.encode(each.order)[1] for each in orders(1_200)]


@pytest.fixture
def second(settings: SettingsFactory, database_url: str) -> Iterator[Settings]:
    made = settings(DATABASE_URL=database_url, STREAMFLOW_STREAMS="audited_windows:SECOND")
    schema.upgrade(made, load_streams(made))
    with topics_of(made):
        yield made


def wait_counted(settings: Settings, tumbling: int, hopping: int) -> None:
    def counted(name: str) -> int:
        return int(value(settings, f"SELECT coalesce(sum(counted), 0)::int FROM {name}"))

    expected = {TUMBLING: tumbling, HOPPING: hopping}
    wait_until(
        lambda: {name: counted(name) for name in expected} == expected, 90, f"{expected} in windows"
    )


def run(
    settings: Settings, log: Path, first: int, end: int, tumbling: int, hopping: int
) -> tuple[str, dict[str, Any]]:
    """Lets workers read some more events; returns what analytics has logged, and what the audit says."""
    produce(settings, "orders", MADE[first:end])
    with workers(settings, log) as running:
        wait_counted(settings, tumbling, hopping)
        assert running["analytics"].stop() == 0
        return running["analytics"].log.read_text(), audit(settings, wait=60)


def audit(settings: Settings, *arguments: str, wait: int = 0) -> dict[str, Any]:
    done = streamflow(settings, "audit", "--json", "--wait", str(wait), *arguments)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 0) is report["closed"]
    return report


def differences(report: dict[str, Any]) -> list[str]:
    assert report["verdict"] == "open"
    assert {problem["kind"] for problem in report["problems"]} == {"window_differs"}
    return [problem["message"] for problem in report["problems"]]


def test_a_group_that_was_moved_forward(second: Settings, tmp_path: Path) -> None:
    _, report = run(second, folder(tmp_path, "first"), 0, 600, 600, 600)
    assert (report["verdict"], report["problems"]) == ("closed", []), report["pending"]

    produce(second, "orders", MADE[600:800])
    ends = topic_bounds(second, "orders")
    moved = [TopicPartition(*partition, end) for partition, (_, end) in ends.items()]
    wanted = [ConsumerGroupTopicPartitions(second.group("analytics"), moved)]
    client = admin(second)
    client.alter_consumer_group_offsets(wanted)[second.group("analytics")].result(20)
    log, report = run(second, folder(tmp_path, "second"), 800, 1_000, 800, 800)

    assert "windows count from where the group was moved" in log
    said = differences(report)
    for name in (f"window {TUMBLING} ", f"window {HOPPING} ", "window 2026"):
        assert any(name in each for each in said), said
    report = audit(second, "--acknowledge")
    assert (report["verdict"], report["problems"]) == ("closed", [])
    assert report["window_differences"] == 3 * 200


def test_windows_that_are_declared_again(second: Settings, tmp_path: Path) -> None:
    first = second.model_copy(update={"streams": ("audited_windows:FIRST",)})
    run(second, folder(tmp_path, "first"), 0, 600, 600, 600)
    assert schema.upgrade(first, load_streams(first)) == []
    log, report = run(first, folder(tmp_path, "second"), 600, 1_000, 1_000, 600)
    assert "windows begin" not in log
    assert (report["verdict"], report["problems"]) == ("closed", []), report["pending"]

    against = ("check", "audited_windows:SECOND", "--against", second.database)
    done = streamflow(second, *against)
    assert done.returncode == 1
    what = f"the windows in {HOPPING} are declared again, and begin anew where analytics is: what came since "
    assert f"needs a step: {what}" in done.stdout, done.stdout
    [done_by_upgrade] = schema.upgrade(second, load_streams(second))
    assert done_by_upgrade.startswith(what)
    log, report = run(second, folder(tmp_path, "third"), 1_000, 1_200, 1_200, 800)

    [begun] = {
        (line["windows"], line["level"])
        for line in map(json.loads, log.splitlines())
        if line["event"] == "windows begin anew"
    }
    assert begun == (HOPPING, "warning")
    said = differences(report)
    assert all(
        f"window {HOPPING} " in each and "(these windows began anew at offset " in each
        for each in said
    ), said
    report = audit(second, "--acknowledge")
    assert (report["verdict"], report["problems"]) == ("closed", [])
    assert report["window_differences"] == 400
