"""Three brokers on one machine: one dies while events go through, and none is lost."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from faults import kill, wait_until
from folders import Folder, free_offset

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


@pytest.fixture
def folder(tmp_path: Path, _clean_environment: None) -> Iterator[Folder]:
    made = Folder(tmp_path / "project", free_offset())
    yield made
    made.run("down", "--purge")


def _leader(folder: Folder, topic: str) -> int:
    """The node that leads the first partition."""
    ports = ",".join(f"127.0.0.1:{port + folder.port_offset}" for port in (9092, 9094, 9096))
    found: Any = AdminClient({"bootstrap.servers": ports}).list_topics(topic, timeout=20)
    assert all(len(each.replicas) == 3 for each in found.topics[topic].partitions.values())
    return int(found.topics[topic].partitions[0].leader)


@pytest.mark.chaos  # three brokers, two minutes
def test_a_broker_dies_and_no_event_is_lost(folder: Folder) -> None:
    folder.up("--brokers", "3", "--without", "producer", "--without", "bridge", timeout=300)
    nodes = ["kafka", "kafka-2", "kafka-3"]
    parts = {part["name"]: part for part in folder.status()["parts"]}
    assert [parts[name]["state"] for name in nodes] == ["up"] * 3
    # The other commands know that there are three.
    assert folder.run("topics").returncode == 0
    leader = nodes[_leader(folder, "user-events") - 1]

    producing = subprocess.Popen(
        [
            *(sys.executable, "-m", "streamflow_cli.app", "produce", "--json"),
            *("--count", "100000", "--rate", "10000", "--invalid-ratio", "0.01"),
        ],
        cwd=folder.path,
        env=folder.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    wait_until(lambda: (folder.status()["rows"]["events"] or 0) > 0, 120, "the first rows")
    kill(parts[leader]["pid"])
    output, _ = producing.communicate(timeout=240)
    assert producing.returncode == 0
    sent = json.loads(output)
    assert sent["sent"] == 100_000

    report = folder.run("audit", "--json", "--wait", "180", timeout=300)
    assert report.returncode == 0, report.stdout[-2000:] + report.stderr
    rows = folder.status()["rows"]
    assert rows["events"] == sent["valid"]
    assert rows["dead_letters"] == 100_000 - sent["valid"]
    wait_until(lambda: folder.part(leader)["restarts"] >= 1, 60, "the broker's restart")
    wait_until(lambda: folder.part(leader)["state"] == "up", 120, "the broker to be up again")


@pytest.mark.parametrize(("made", "asked"), [("1", "3"), ("3", "1")])
def test_a_folder_stays_with_its_number_of_brokers(folder: Folder, made: str, asked: str) -> None:
    kafka = folder.state / "kafka"
    kafka.mkdir(parents=True)
    (kafka / "cluster.json").write_text(json.dumps({"cluster_id": "x" * 22, "brokers": int(made)}))
    done = folder.run("up", "--detach", "--brokers", asked)
    assert done.returncode == 1
    assert f"start with `streamflow up --brokers {made}`" in done.stderr
    assert "down --purge" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_of_an_earlier_release_has_one(folder: Folder) -> None:
    node = folder.state / "kafka" / "1"
    node.mkdir(parents=True)
    (node / "formatted").write_text("x" * 22 + "\n")
    done = folder.run("up", "--detach", "--brokers", "3")
    assert "is of one broker, not of 3 brokers" in done.stderr


@pytest.mark.parametrize("brokers", ["0", "2", "4"])
def test_other_numbers_are_refused(folder: Folder, brokers: str) -> None:
    done = folder.run("up", "--brokers", brokers)
    assert done.returncode == 1
    assert "is 1, or 3 to try failover" in done.stderr
