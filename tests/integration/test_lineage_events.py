"""Lineage of real workers, rollups, drains and replays, told to a receiver of OpenLineage events."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pytest

import pipeline
from conftest import SettingsFactory
from faults import wait_until
from loads import value
from openlineage_schemas import require_valid
from orchestration import Orchestration, metadata_of, orchestrated
from pipeline import INVALID, WorkerProcess, environment, events, produce, workers
from receivers import LineageReceiver
from streamflow.errors import ErrorCode
from streamflow.settings import Settings
from streamflow_dagster.defs.replay import replay_dead_letters

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture
def receiver() -> Iterator[LineageReceiver]:
    with LineageReceiver() as made:
        yield made


def variables(receiver: LineageReceiver) -> dict[str, str]:
    return {"OPENLINEAGE_URL": receiver.url, "STREAMFLOW_OPENLINEAGE_SECONDS": "1"}


def rows_of(event: dict[str, Any]) -> int | None:
    statistics = event["outputs"][0]["outputFacets"].get("outputStatistics")
    return None if statistics is None else statistics["rowCount"]


def require_all_valid(receiver: LineageReceiver, settings: Settings) -> None:
    assert receiver.events
    for event in receiver.events:
        require_valid(event)
    password = urlsplit(settings.database).password
    for _, _, body in receiver.posted:
        assert password is None or password.encode() not in body


def test_workers_say_what_they_write_until_they_stop(
    stack_settings: Settings, tmp_path: Path, receiver: LineageReceiver
) -> None:
    values, codes = events(500, invalid=0.05)
    notifications = f"validator.{stack_settings.prefix}notifications"
    good, topic = 500 - codes.total(), f"{stack_settings.prefix}user-events"
    produce(stack_settings, "user-events", values)
    with workers(stack_settings, tmp_path, **variables(receiver)) as running:
        for name in (
            "loader.events",
            "loader.notifications",
            notifications,
        ):
            told = wait_until(
                lambda name=name: [e for e in receiver.of_job(name) if rows_of(e) == good], 60, name
            )
            assert told[0]["eventType"] == "RUNNING"
        counting = f"analytics.{stack_settings.prefix}analytics"
        wait_until(lambda: any(rows_of(each) for each in receiver.of_job(counting)), 60, counting)
        assert all(worker.stop() == 0 for worker in running.values())
    ours = receiver.of_job("loader.events")
    assert ours[0]["eventType"] == "START"
    assert [event["eventType"] for event in ours].count("COMPLETE") == 1
    assert (ours[-1]["eventType"], rows_of(ours[-1])) == ("COMPLETE", good)
    assert len({event["run"]["runId"] for event in ours}) == 1
    [read], [written] = ours[0]["inputs"], ours[0]["outputs"]
    database = urlsplit(stack_settings.database)
    assert (read["namespace"], read["name"]) == (f"kafka://{stack_settings.bootstrap}", topic)
    assert written["namespace"] == f"postgres://{database.hostname}:{database.port}"
    assert written["name"] == f"{database.path[1:]}.public.events"
    [source] = written["facets"]["columnLineage"]["fields"]["user"]["inputFields"]
    assert (source["namespace"], source["name"], source["field"]) == (
        read["namespace"], topic, "user",
    )  # fmt: skip
    require_all_valid(receiver, stack_settings)


def test_a_worker_that_cannot_run_says_so(
    settings: SettingsFactory, tmp_path: Path, receiver: LineageReceiver
) -> None:
    nowhere = settings(STREAMFLOW_SIGNING_KEY="a key of sixteen characters")
    changes = variables(receiver) | {"STREAMFLOW_SIGNING_KEY": "a key of sixteen characters"}
    with pipeline.topics_of(nowhere):
        worker = WorkerProcess(nowhere, "loader", tmp_path / "log", **changes)
        try:
            assert worker.process.wait(60) != 0
        finally:
            worker.process.kill()
    states = [event["eventType"] for event in receiver.of_job("loader.events")]
    assert (states[0], states[-1]) == ("START", "FAIL")
    require_all_valid(receiver, nowhere)


@pytest.fixture
def one(stack_settings: Settings, receiver: LineageReceiver) -> Iterator[Orchestration]:
    made = orchestrated(stack_settings, **variables(receiver))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Orchestration(instance, made)


def test_a_step_of_dagster_is_a_run_within_dagsters_run(
    one: Orchestration, receiver: LineageReceiver
) -> None:
    values, invalid = events(200, invalid=0.05)
    produce(one.settings, "user-events", values)
    drained = one.materialize("postgres/events")
    assert drained.success
    rollups = one.materialize(
        "rollups/daily_active_users",
        "rollups/login_failure_bursts",
        "rollups/dead_letters_by_cause",
    )
    hour = one.materialize("rollups/hourly_events", partition="2026-03-01-12:00")
    assert rollups.success
    assert hour.success
    require_all_valid(receiver, one.settings)
    expected = {
        "postgres/events": (drained, 200 - invalid.total()),
        "rollups/daily_active_users": (rollups, 1),
        "rollups/dead_letters_by_cause": (rollups, 0),
        "rollups/hourly_events": (hour, metadata_of(hour, "rollups/hourly_events")["rows"]),
    }
    for name, (result, rows) in expected.items():
        start, complete = receiver.of_job(name)
        assert [start["eventType"], complete["eventType"]] == ["START", "COMPLETE"], name
        assert rows_of(complete) == rows, name
        parent = complete["run"]["facets"]["parent"]
        assert parent["run"]["runId"] == result.run_id
        assert parent["job"]["name"] == result.job_def.name
    runs = {event["run"]["runId"] for event in receiver.events}
    assert len(runs) == len(expected) + 1
    [users] = receiver.of_job("rollups/daily_active_users")[-1]["outputs"]
    fields = users["facets"]["columnLineage"]["fields"]
    sources = {
        (each["field"], each["transformations"][0]["subtype"])
        for each in fields["users"]["inputFields"]
    }
    assert sources == {("user", "AGGREGATION"), ("timestamp", "WINDOW")}
    # What a query of its own makes of the fields, only the query says.
    bursts = receiver.of_job("rollups/login_failure_bursts")[-1]
    assert "USER_LOGIN_FAILED" in bursts["job"]["facets"]["sql"]["query"]


def test_a_failed_step_is_a_failed_run(one: Orchestration, receiver: LineageReceiver) -> None:
    one.change(database_url="postgresql://127.0.0.1:1/gone")
    assert not one.materialize("rollups/dead_letters_by_cause").success
    states = [event["eventType"] for event in receiver.of_job("rollups/dead_letters_by_cause")]
    # The first attempt, and its retries, each a run of its own.
    assert states == ["START", "FAIL"] * (len(states) // 2)
    runs = {event["run"]["runId"] for event in receiver.of_job("rollups/dead_letters_by_cause")}
    assert len(runs) == len(states) // 2 > 1


def test_a_replay_has_the_id_of_dagsters_run(
    stack_settings: Settings,
    tmp_path: Path,
    receiver: LineageReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    produce(stack_settings, "user-events", [INVALID[ErrorCode.CLEAR_TEXT_PII]])
    for name, content in environment(stack_settings, **variables(receiver)).items():
        monkeypatch.setenv(name, content)
    job = dg.Definitions(jobs=[replay_dead_letters]).get_job_def("replay_dead_letters")

    def launch(**config: Any) -> dg.ExecuteInProcessResult:
        run_config = {"ops": {"replay": {"config": {"repairs": ["hash_address"], **config}}}}
        return job.execute_in_process(run_config=run_config, raise_on_error=False)

    with workers(stack_settings, tmp_path, ("validator", "loader")):
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM dead_letters") == 1, 60)
        # A plan writes nothing.
        assert launch(dry_run=True).success
        assert receiver.of_job("replay_dead_letters") == []
        result = launch(dry_run=False)
    assert result.success
    start, complete = receiver.of_job("replay_dead_letters")
    assert [start["eventType"], complete["eventType"]] == ["START", "COMPLETE"]
    assert start["run"]["runId"] == complete["run"]["runId"] == result.run_id
    assert rows_of(complete) == 1
    require_all_valid(receiver, stack_settings)


def test_a_receiver_that_hangs_costs_no_row(stack_settings: Settings, tmp_path: Path) -> None:
    values, codes = events(2_000, invalid=0.01)
    produce(stack_settings, "user-events", values)
    good = 2_000 - codes.total()
    with (
        LineageReceiver(hangs=True) as receiver,
        workers(stack_settings, tmp_path, **variables(receiver)) as running,
    ):
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM events") == good, 60)
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM notifications") == good, 60)
        assert receiver.asked.wait(30)
        loader = running["loader"]
        wait_until(lambda: loader.said("lineage is not sent"), 30)
        assert all(worker.stop() == 0 for worker in running.values())
    for worker in running.values():
        assert worker.log.read_text().count("lineage is not sent") <= 1
        assert "Traceback" not in worker.log.read_text()
