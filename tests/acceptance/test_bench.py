"""The benchmark measures what it says and leaves nothing behind. Nothing here is about speed."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import NewTopic

from faults import wait_until
from pipeline import environment, streamflow
from streamflow.kafka.clients import admin
from streamflow.settings import Settings

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

EVENTS = 5_000


def topics_and_groups(settings: Settings) -> list[str]:
    client = admin(settings)
    groups = client.list_consumer_groups(request_timeout=20).result(20).valid
    names = [*client.list_topics(timeout=20).topics, *(each.group_id for each in groups)]
    return [name for name in names if name.startswith("bench-")]


def schemas(settings: Settings) -> list[str]:
    with psycopg.connect(settings.database) as connection:
        rows = connection.execute("SELECT nspname FROM pg_namespace").fetchall()
    return [name for (name,) in rows if name.startswith("streamflow_bench_")]


def measured(
    settings: Settings, folder: Path, *arguments: str, seconds: float = 280
) -> tuple["subprocess.CompletedProcess[str]", dict[str, Any]]:
    """A benchmark that went well, whatever its figures, and what it wrote."""
    out = folder / "bench.json"
    judging = ("--no-judge", "--out", str(out))
    done = streamflow(settings, "bench", *arguments, *judging, seconds=seconds)
    assert done.returncode == 0, done.stderr
    return done, json.loads(out.read_text())


def test_every_path_is_measured_and_nothing_is_left(
    stack_settings: Settings, tmp_path: Path
) -> None:
    done, report = measured(
        stack_settings, tmp_path, "--events", str(EVENTS), "--latency-seconds", "1"
    )
    assert report["events"] == EVENTS
    assert report["machine"]["cores"] > 0
    assert len(report["machine"]["load_average"]) == 3
    assert report["versions"]["postgresql"].startswith("18")
    paths: dict[str, dict[str, Any]] = {each["name"]: each for each in report["paths"]}
    assert list(paths) == [
        *("produce", "loader", "analytics", "validator", "latency", "socket", "socket-loss")
    ]
    for each in paths.values():
        assert each["path"] in done.stdout
        [run] = each["runs"]
        if each["figure"] is None:
            # So few events can be one step: then nothing can be told of the rate.
            assert (run["figure"], each["met"], run["events_timed"]) == (None, None, 0)
            assert "unknown" in done.stdout
        else:
            assert each["figure"]["median"] == run["figure"] >= 0
    for name in ("produce", "loader", "analytics", "validator"):
        [run] = paths[name]["runs"]
        assert run["events_timed"] < EVENTS
        assert run["hand_loop"]["events_timed"] <= EVENTS
        assert (run["cpu_s_per_million"] is None) == (run["events_timed"] == 0)
        assert "hand loop" in paths[name]["bar"]
        if run["memory"]["samples"]:
            assert run["memory"]["peak_mb"] >= run["memory"]["first_mb"] > 10
        else:
            # So few events can be done before anybody looks.
            assert run["events_timed"] == 0
    [run] = paths["latency"]["runs"]
    assert run["row_events"] == run["bare_events"] == 5_000
    assert run["row_max_ms"] >= run["row_p99_ms"] >= run["row_p50_ms"] > 0
    for name, sent in (("socket", 5_000), ("socket-loss", 12_000)):
        [run] = paths[name]["runs"]
        assert (run["client_events"], run["client_lost"]) == (sent, 0)
        assert run["bare_events"] == sent
        assert run["client_max_ms"] >= run["client_p99_ms"] >= run["client_p50_ms"] > 0
        assert run["bridge_cpu_seconds"] > 0
    assert (paths["socket-loss"]["figure"]["median"], paths["socket-loss"]["met"]) == (0, True)
    assert f"p99 {run['client_p99_ms']:,.0f} ms" in done.stdout
    assert topics_and_groups(stack_settings) == []
    assert schemas(stack_settings) == []


def test_the_hand_loop_takes_turns_with_the_producer(
    stack_settings: Settings, tmp_path: Path
) -> None:
    done, report = measured(
        stack_settings,
        tmp_path,
        "--peers",
        *("--only", "produce", "--events", "30000", "--runs", "2"),
    )
    [compared] = report["peers"]
    assert compared["path"] == "produce"
    ours, hand = compared["contenders"]
    assert (ours["name"], hand["name"]) == ("StreamFlow", "hand loop")
    assert [len(each["runs"]) for each in (ours, hand)] == [2, 2]
    assert hand["versions"]["confluent-kafka"] == report["versions"]["confluent-kafka"]
    assert [each["name"] for each in report["paths"]] == ["produce"]
    assert "produce, round 2 of 2: hand loop" in done.stderr
    assert topics_and_groups(stack_settings) == []


@pytest.mark.chaos
def test_one_path_can_be_measured_several_times(stack_settings: Settings) -> None:
    done = streamflow(
        stack_settings,
        *("bench", "--events", "20000", "--only", "loader", "--runs", "2", "--no-judge"),
        seconds=280,
    )
    assert done.returncode == 0, done.stderr
    assert "loader, run 2 of 2" in done.stderr
    assert "user-events → PostgreSQL (loader)" in done.stdout
    assert "user-events → windows" not in done.stdout


@pytest.fixture
def interrupted(stack_settings: Settings, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with (tmp_path / "bench.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamflow_cli.app", "bench", "--events", "200000"],
            env=environment(stack_settings),
            stdout=log,
            stderr=log,
        )
    yield process
    if process.poll() is None:
        process.kill()
        process.wait(10)


def test_an_interrupted_benchmark_leaves_nothing(
    stack_settings: Settings, interrupted: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    wait_until(lambda: topics_and_groups(stack_settings), 120, "its first topic")
    assert schemas(stack_settings)
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(90) == 130, (tmp_path / "bench.log").read_text()
    assert topics_and_groups(stack_settings) == []
    assert schemas(stack_settings) == []


def test_a_user_who_may_not_create_a_schema_is_told_what_to_grant(
    stack_settings: Settings,
) -> None:
    with psycopg.connect(stack_settings.database, autocommit=True) as connection:
        user, database = connection.info.user, connection.info.dbname
        connection.execute(f'REVOKE CREATE ON DATABASE "{database}" FROM {user}'.encode())
    done = streamflow(stack_settings, "bench", "--only", "loader")
    assert done.returncode == 1
    assert f"GRANT CREATE ON DATABASE {database} TO {user}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert topics_and_groups(stack_settings) == []


def test_a_place_that_cannot_be_written_is_told_before(
    settings_without_topics: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "missing" / "bench.json"
    done = streamflow(settings_without_topics, "bench", "--out", str(out))
    assert done.returncode == 2
    assert "bench.json cannot be written: No such file or directory" in done.stderr


@pytest.mark.chaos
def test_several_workers_are_measured_together(stack_settings: Settings, tmp_path: Path) -> None:
    done, report = measured(stack_settings, tmp_path, "--events", "20000", "--workers", "2")
    assert report["paths"] == []
    found = report["scaling"]
    assert [(each["name"], each["workers"]) for each in found] == [
        (name, 2) for name in ("loader", "analytics", "validator", "socket")
    ]
    for each in found:
        [run] = each["runs"]
        assert run["events_per_s"] > 0
        assert 1 <= run["busy"] <= each["workers"]
        assert run["lost"] == 0
        assert run["cores"]["workers"] > 0
        assert run["cores"]["kafka"] > 0
        assert run["cores"]["machine"] >= run["cores"]["workers"]
    assert "clients of one bridge: 2" in done.stdout
    assert topics_and_groups(stack_settings) == []
    assert schemas(stack_settings) == []


def growth_of(report: dict[str, Any]) -> dict[tuple[str, str], dict[int, list[dict[str, Any]]]]:
    """The runs by step, of each dimension and part."""
    return {
        (each["dimension"], each["part"]): {step["step"]: step["runs"] for step in each["steps"]}
        for each in report["growth"]
    }


@pytest.mark.chaos  # a minute; tests/unit/test_bench_growth.py knows the form
def test_the_cost_of_more_rows_is_measured(stack_settings: Settings, tmp_path: Path) -> None:
    done, report = measured(
        stack_settings,
        tmp_path,
        *("--growth", "--only", "rows", "--events", "1000"),
    )
    assert report["paths"] == report["scaling"] == report["peers"] == []
    found = growth_of(report)
    assert {name: list(steps) for name, steps in found.items()} == {
        ("rows", "loader"): [0, 10_000, 100_000]
    }
    for [run] in found["rows", "loader"].values():
        assert run["cpu_us_per_event"] > 0
        assert run["status_p99_ms"] >= run["status_p50_ms"] > 0
    assert "100,000 rows in  " in done.stderr
    assert "10,000 rows in the table, loader, run 1 of 1: " in done.stderr
    assert "100,000 rows in the table" in done.stdout
    assert topics_and_groups(stack_settings) == []
    assert schemas(stack_settings) == []


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_the_cost_of_all_that_grows_is_measured(stack_settings: Settings, tmp_path: Path) -> None:
    names = ("partitions", "users", "size", "workers", "catch-up")
    only = [word for name in names for word in ("--only", name)]
    _, report = measured(
        stack_settings, tmp_path, "--growth", *only, "--events", "2000", seconds=580
    )
    found = growth_of(report)
    for part in ("loader", "analytics", "validator"):
        assert list(found["partitions", part]) == [3, 12, 48]
        assert list(found["users", part]) == [10, 1_000, 100_000]
        assert list(found["catch-up", part]) == [10_000, 100_000]
        assert list(found["size", part]) == [200, 1_000, 10_000]
        assert list(found["workers", part]) == [1, 2, 3]
        for [run] in found["workers", part].values():
            assert run["peak_mb"] > 10
    for steps in found.values():
        for [run] in steps.values():
            assert run["cpu_us_per_event"] > 0
            assert run["seconds"] > 0
    assert topics_and_groups(stack_settings) == []
    assert schemas(stack_settings) == []


def test_what_there_is_only_one_of_cannot_be_several(settings_without_topics: Settings) -> None:
    done = streamflow(settings_without_topics, "bench", "--workers", "2", "--only", "produce")
    assert done.returncode == 2
    assert "there are never several workers of produce: with --workers, --only takes" in done.stderr


def test_what_a_killed_benchmark_left_is_removed_by_the_next(
    stack_settings: Settings, interrupted: "subprocess.Popen[bytes]"
) -> None:
    wait_until(lambda: topics_and_groups(stack_settings), 120, "its first topic")
    interrupted.kill()
    interrupted.wait(10)
    left = topics_and_groups(stack_settings)
    assert left
    assert schemas(stack_settings)
    # Of another machine, and not a day old; and somebody's own.
    others = ["bench-ffffffff000000001.x.user-events", "bench-marks"]
    client = admin(stack_settings)
    for future in client.create_topics([NewTopic(name, 1, 1) for name in others]).values():
        future.result(30)
    try:
        done = streamflow(
            stack_settings,
            *("bench", "--events", "1000", "--only", "latency", "--latency-seconds", "0.1"),
            "--no-judge",
            seconds=280,
        )
        assert done.returncode == 0, done.stderr
        assert f"what a killed benchmark left (process {interrupted.pid}, started 20" in done.stderr
        assert sorted(topics_and_groups(stack_settings)) == others
        assert schemas(stack_settings) == []
    finally:
        for future in client.delete_topics(others).values():
            future.result(30)
