"""Dagster as `streamflow dagster` runs it: webserver, daemon and code server, on PostgreSQL."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import requests

import pipeline
from faults import free_ports, is_running, wait_until
from loads import value
from orchestration import stack_of_a_module
from services import BrokerService, DatabaseService
from streamflow.settings import DEFAULT_PORTS, Settings
from streamflow_stack.orchestration import HeartbeatProbe, database_url, with_schema

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

SELECTOR = {
    "repositoryLocationName": "streamflow",
    "repositoryName": "__repository__",
    "pipelineName": "__ASSET_JOB",
}
LAUNCH = """mutation($p: ExecutionParams!) {launchPipelineExecution(executionParams: $p)
  {__typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}}"""
RUN = "query($id: ID!) {runOrError(runId: $id) {... on Run {status}}}"
UNFINISHED = """{runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED]})
  {... on Runs {results {runId}}}}"""
MATERIALIZATIONS = """query($keys: [AssetKeyInput!]!) {assetNodes(assetKeys: $keys)
  {assetKey {path} assetMaterializations(limit: 50) {runId description metadataEntries
  {label ... on IntMetadataEntry {intValue} ... on TextMetadataEntry {text}}}}}"""
CHECKS = """query($keys: [AssetKeyInput!]!) {assetNodes(assetKeys: $keys) {assetChecksOrError
  {... on AssetChecks {checks {name executionForLatestMaterialization {status}}}}}}"""
GRAPH = """{assetNodes {assetKey {path} groupName description kinds owners {__typename}
  dependencyKeys {path} isMaterializable metadataEntries {label}}
  workspaceOrError {... on Workspace {locationEntries {loadStatus
  locationOrLoadError {__typename}}}}}"""
INSTIGATORS = """{sensorsOrError(repositorySelector: {repositoryLocationName: "streamflow",
  repositoryName: "__repository__"}) {... on Sensors {results {name sensorState {status}}}}
  schedulesOrError(repositorySelector: {repositoryLocationName: "streamflow",
  repositoryName: "__repository__"}) {... on Schedules {results {name scheduleState {status}}}}}"""


class Dagster:
    """A running `streamflow dagster`."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.offset = _free_offset()
        self.url = f"http://127.0.0.1:{DEFAULT_PORTS['dagster'] + self.offset}"
        self.environment = pipeline.environment(
            settings,
            STREAMFLOW_PORT_OFFSET=str(self.offset),
            STREAMFLOW_SENSOR_SECONDS="2",
            # Checks have their own tests, and would only take their time here.
            STREAMFLOW_QUALITY_CRON="0 0 1 1 *",
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "dagster.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streamflow_cli.app", "dagster"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        probe = HeartbeatProbe(self.url)
        probe.launched()

        def up() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "dagster.log").read_text()
            return probe().ready

        wait_until(up, 150, "webserver and daemon")

    def processes(self) -> list[int]:
        assert self.process is not None
        return [each.pid for each in psutil.Process(self.process.pid).children(recursive=True)]

    def ask(self, query: str, **variables: Any) -> Any:
        answer = requests.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=30
        )
        found = answer.json()
        assert "errors" not in found, found
        return found["data"]

    def materialize(self, *keys: str) -> str:
        selection = [{"path": key.split("/")} for key in keys]
        selector = {**SELECTOR, "assetSelection": selection}
        found = self.ask(LAUNCH, p={"selector": selector, "mode": "default"})
        launched = found["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def wait_for(self, run_id: str) -> str:
        ended = {"SUCCESS", "FAILURE", "CANCELED"}

        def final() -> str | None:
            found = self.status(run_id)
            return found if found in ended else None

        return wait_until(final, 120, f"the end of run {run_id}") or ""

    def status(self, run_id: str) -> str:
        return str(self.ask(RUN, id=run_id)["runOrError"]["status"])

    def unfinished(self) -> list[Any]:
        found: list[Any] = self.ask(UNFINISHED)["runsOrError"]["results"]
        return found

    def materializations(self, key: str) -> list[dict[str, Any]]:
        found = self.ask(MATERIALIZATIONS, keys=[{"path": key.split("/")}])["assetNodes"]
        return [
            {
                "run": each["runId"],
                "description": each["description"],
                **{
                    entry["label"]: entry.get("intValue", entry.get("text"))
                    for entry in each["metadataEntries"]
                },
            }
            for each in found[0]["assetMaterializations"]
        ]


def _free_offset() -> int:
    while True:
        offset = free_ports(1)[0] % 30_000 + 10_000
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            import socket

            for name in ("dagster", "dagster-code"):
                probe = held.enter_context(socket.socket())
                probe.bind(("127.0.0.1", DEFAULT_PORTS[name] + offset))
            return offset


@pytest.fixture(scope="module")
def settings(
    broker: BrokerService,
    database_server: DatabaseService,
    database_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("dagster")
    with stack_of_a_module(broker, database_server, database_template, folder) as made:
        yield made


@pytest.fixture(scope="module")
def dagster(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    running = Dagster(settings, tmp_path_factory.mktemp("home"))
    running.start()
    yield running
    assert running.process is not None
    if running.process.poll() is None:
        running.process.terminate()
        running.process.wait(30)


def test_the_whole_graph_is_there(dagster: Dagster) -> None:
    found = dagster.ask(GRAPH)
    [entry] = found["workspaceOrError"]["locationEntries"]
    assert entry["locationOrLoadError"]["__typename"] == "RepositoryLocation"
    nodes = {"/".join(each["assetKey"]["path"]): each for each in found["assetNodes"]}
    assert nodes.keys() >= {
        "producer/user_events",
        *(f"kafka/{name}" for name in ("user_events", "analytics", "notifications")),
        "kafka/dead_letter_topic",
        *(f"postgres/{name}" for name in ("events", "window_counts", "notifications")),
        "postgres/dead_letters",
        "rollups/hourly_events",
    }
    for name, node in nodes.items():
        assert node["groupName"] != "default", name
        assert node["description"], name
        assert node["kinds"], name
        assert node["owners"], name
    schema = {entry["label"] for entry in nodes["postgres/events"]["metadataEntries"]}
    assert "dagster/column_schema" in schema
    states = dagster.ask(INSTIGATORS)
    started = [
        *((each["name"], each["sensorState"]) for each in states["sensorsOrError"]["results"]),
        *((each["name"], each["scheduleState"]) for each in states["schedulesOrError"]["results"]),
    ]
    assert "data_quality_schedule" in dict(started)
    assert {state["status"] for _, state in started} == {"RUNNING"}


def test_runs_and_events_are_kept_in_postgresql(dagster: Dagster) -> None:
    url = database_url(Settings(**dagster.settings.model_dump()))
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT current_schema(), (SELECT count(*) FROM daemon_heartbeats)"
        ).fetchone()
    assert row is not None
    assert row[0].endswith("dagster")
    assert row[1] > 0
    # StreamFlow's own tables are elsewhere.
    assert value(dagster.settings, "SELECT to_regclass('public.daemon_heartbeats') IS NULL")
    kept = (dagster.settings.state_dir / "dagster" / "dagster.yaml").read_text()
    assert url not in kept
    assert json.loads(kept)["storage"].keys() == {"custom"}


def test_assets_are_materialized_from_the_ui(dagster: Dagster) -> None:
    run = dagster.materialize("kafka/user_events", "rollups/daily_active_users")
    assert dagster.wait_for(run) == "SUCCESS"
    [latest, *_] = dagster.materializations("kafka/user_events")
    assert (latest["run"], latest["partitions"]) == (run, 3)


def test_a_check_stands_though_workers_report_after_it(dagster: Dagster) -> None:
    key = {"path": ["kafka", "notifications"]}
    selector = {
        **SELECTOR,
        "assetSelection": [],
        "assetCheckSelection": [{"assetKey": key, "name": "as_declared"}],
    }
    found = dagster.ask(LAUNCH, p={"selector": selector, "mode": "default"})
    run = found["launchPipelineExecution"]["run"]["runId"]
    assert dagster.wait_for(run) == "SUCCESS"
    answer = requests.post(
        f"{dagster.url}/report_asset_materialization/kafka/notifications", json={}, timeout=10
    )
    assert answer.status_code == 200
    found = dagster.ask(CHECKS, keys=[key])["assetNodes"][0]["assetChecksOrError"]["checks"]
    assert [each["executionForLatestMaterialization"] for each in found] == [
        {"status": "SUCCEEDED"}
    ]


def test_without_a_loader_the_sensor_brings_the_table_up_to_date(dagster: Dagster) -> None:
    settings = dagster.settings
    pipeline.produce(settings, "user-events", pipeline.events(400)[0])
    stored = "SELECT count(*) FROM events"
    wait_until(lambda: value(settings, stored) == 400, 120, "the drain")

    def told() -> int:
        return sum(each["rows"] for each in dagster.materializations("postgres/events"))

    # A run tells what it has done when it is done.
    wait_until(lambda: told() == 400, 60, "the drain to be told")


def test_workers_show_in_the_graph_without_runs(dagster: Dagster, tmp_path: Path) -> None:
    pipeline.produce(dagster.settings, "user-events", pipeline.events(50, seed=3)[0])
    worker = pipeline.WorkerProcess(
        dagster.settings,
        "validator",
        tmp_path / "validator.log",
        STREAMFLOW_DAGSTER_URL=dagster.url,
    )
    try:
        told = wait_until(
            lambda: [
                each
                for each in dagster.materializations("kafka/notifications")
                if each["description"] == "reported by the validator"
            ],
            60,
            "a report",
        )
        assert not told[0]["run"]
        assert told[0]["worker"] == "validator"
    finally:
        assert worker.stop() == 0


def test_what_dies_is_started_again_and_nothing_is_left_at_the_end(dagster: Dagster) -> None:
    assert dagster.process is not None

    def running(module: str) -> list[psutil.Process]:
        found = []
        for pid in dagster.processes():
            # What has just ended has no command line any more.
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if module in " ".join(process.cmdline()):
                    found.append(process)
        return found

    [daemon] = running("dagster-daemon")
    daemon.kill()
    wait_until(lambda: running("dagster-daemon") not in ([], [daemon]), 60, "another daemon")
    before = dagster.processes()
    os.kill(dagster.process.pid, signal.SIGKILL)
    dagster.process.wait(10)
    # The daemon waits up to 30 s for each thread that is busy.
    wait_until(lambda: not any(map(is_running, before)), 120, "the end of its children")

    dagster.start()
    # The sensor's drains would be in the way.
    wait_until(lambda: not dagster.unfinished(), 60, "the end of other runs")
    assert dagster.wait_for(dagster.materialize("postgres/events")) == "SUCCESS"
    wait_until(lambda: not dagster.unfinished(), 60, "the end of other runs")
    # It ends while a run is going on, whose process can note nothing any more.
    with psycopg.connect(dagster.settings.database) as locking:
        locking.execute("LOCK TABLE loader_positions IN ACCESS EXCLUSIVE MODE")
        run_id = dagster.materialize("postgres/events")
        wait_until(lambda: dagster.status(run_id) == "STARTED", 60, "the start of a run")
        for process in running("spawn_main"):
            process.suspend()
        before = dagster.processes()
        dagster.process.terminate()
        assert dagster.process.wait(30) == 0
    assert not [pid for pid in before if is_running(pid)]

    dagster.start()
    assert dagster.status(run_id) == "FAILURE"
    # Nor does it keep the next one from loading the table.
    assert dagster.wait_for(dagster.materialize("postgres/events")) == "SUCCESS"


def test_a_schema_keeps_the_urls_other_options(settings: Settings) -> None:
    made = with_schema(f"{settings.database}?connect_timeout=3", "beside")
    assert made.endswith("?connect_timeout=3&options=-csearch_path%3Dbeside")
    assert with_schema(settings.database, "beside") == with_schema(
        f"{settings.database}?options=-cjit%3Doff", "beside"
    )
    with psycopg.connect(made) as connection:
        assert connection.execute("SELECT current_schema()").fetchone() == ("beside",)


def test_a_database_that_is_gone_is_one_line(tmp_path: Path) -> None:
    [port] = free_ports(1)
    done = subprocess.run(
        [sys.executable, "-m", "streamflow_cli.app", "dagster"],
        env={
            **os.environ,
            "DATABASE_URL": f"postgresql://u:secret@127.0.0.1:{port}/x",
            "STREAMFLOW_STATE_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: Dagster's schema dagster cannot be created")
    assert "secret" not in done.stderr
