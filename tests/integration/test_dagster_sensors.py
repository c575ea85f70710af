"""Sensors and schedules, evaluated against the real broker and database."""

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from pydantic import SecretStr

import pipeline
from faults import free_ports
from loads import execute, rows, value
from orchestration import Orchestration, orchestrated
from streamflow.settings import Settings
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow_dagster.code_server import fail_orphans
from streamflow_dagster.defs.sensors import ASKED_BY
from webhook import Webhook

log = logging.getLogger(__name__)

pytestmark = pytest.mark.integration

# Seconds: two looks are always further apart, so that what the second one finds again fires.
_TWO_LOOKS = 0.001


class Watch(Orchestration):
    """Evaluates sensors as the daemon does: with the cursor of the last look, launching what is asked
    for."""

    def __init__(self, instance: dg.DagsterInstance, settings: OrchestrationSettings) -> None:
        super().__init__(instance, settings)
        self.cursors: dict[str, str | None] = {}

    def look(self, name: str) -> dg.SensorResult:
        sensor = self.sensor(name)
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(name),
            resources={"platform": self.platform},
            definitions=self.definitions,
        )
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursors[name] = result.cursor
        return result

    def asked(self, name: str) -> dg.SensorResult:
        """The next look that asks for a run."""

        def look() -> dg.SensorResult | None:
            found = self.look(name)
            return found if found.run_requests else None

        found = pipeline.wait_until(look, 20, f"{name} to ask")
        assert found is not None
        return found

    def said(self, name: str) -> str:
        found = self.look(name)
        assert not found.run_requests
        assert found.skip_reason is not None
        return found.skip_reason.skip_message or ""

    def launch(self, job: str, result: dg.SensorResult) -> dg.ExecuteInProcessResult:
        [request] = result.run_requests or []
        return self.run(job, asset_selection=request.asset_selection, tags=dict(request.tags))

    def launch_failing(self, job: str, result: dg.SensorResult) -> None:
        """The run starts, and the database is gone."""
        url = self.settings.database_url
        self.change(database_url=SecretStr(f"postgresql://u:p@127.0.0.1:{free_ports(1)[0]}/x"))
        assert not self.launch(job, result).success
        self.change(database_url=url)


@pytest.fixture
def one(stack_settings: Settings) -> Iterator[Watch]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = Watch(
            instance,
            orchestrated(stack_settings, STREAMFLOW_DRAIN_LAG=100, STREAMFLOW_ALERT_FOR=_TWO_LOOKS),
        )
        # The first question about any group makes the broker prepare for groups.
        pipeline.wait_until(lambda: "wait" in made.said("lag_sensor"), 30)
        made.cursors.clear()
        yield made


@pytest.fixture
def clock(stack_settings: Settings, tmp_path: Path) -> Iterator[Watch]:
    """As `one`, with an instance on the disk: schedules find theirs by reference."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield Watch(instance, orchestrated(stack_settings))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that fail here fail at once: what is tried again within a run has no say."""
    monkeypatch.setattr("streamflow_dagster.failures._RETRIES", 0)


def test_a_lag_without_a_loader_is_drained_once(one: Watch) -> None:
    assert "0 offsets wait" in one.said("lag_sensor")
    pipeline.produce(one.settings, "user-events", pipeline.events(50)[0])
    asked = one.look("lag_sensor")
    [request] = asked.run_requests or []
    assert request.asset_selection == [dg.AssetKey(["postgres", "events"])]
    assert request.tags["streamflow/reason"] == "the loader is gone and 50 offsets wait"

    # While the run is in progress, none is requested.
    job = one.definitions.resolve_job_def("drain_tables")
    with_tag = {ASKED_BY: "lag_sensor"}
    run = one.instance.create_run_for_job(job, tags=with_tag)
    assert one.said("lag_sensor") == f"run {run.run_id} is in progress"
    one.instance.report_run_failed(run)
    assert one.said("lag_sensor").startswith(f"run {run.run_id} failed; requested again in ")

    one.change(sensor_seconds=1)
    assert one.launch("drain_tables", one.asked("lag_sensor")).success
    assert value(one.settings, "SELECT count(*) FROM events") == 50
    assert "0 offsets wait" in one.said("lag_sensor")


def test_a_failed_drain_is_asked_for_again_with_a_cap(one: Watch) -> None:
    one.change(sensor_seconds=1)
    pipeline.produce(one.settings, "user-events", pipeline.events(50)[0])
    assert one.said("lag_sensor")
    for _ in range(3):
        one.launch_failing("drain_tables", one.asked("lag_sensor"))
    assert one.said("lag_sensor").startswith("3 runs failed in a row, the last is ")


def test_a_loader_that_works_is_left_alone_and_a_late_one_is_helped(
    one: Watch, tmp_path: Path
) -> None:
    pipeline.produce(one.settings, "user-events", pipeline.events(300)[0])
    with pipeline.workers(one.settings, tmp_path, ["loader"]) as running:
        running["loader"].wait_assigned()
        pipeline.wait_until(lambda: value(one.settings, "SELECT count(*) FROM events") == 300)
        for _ in range(3):
            assert one.said("lag_sensor") == "0 offsets wait, the loader is up"
    # Killed: the broker notices when its session has timed out, and positions do not move meanwhile.
    pipeline.produce(one.settings, "user-events", pipeline.events(150, seed=2)[0])
    asked = one.look("lag_sensor")
    [request] = asked.run_requests or []
    assert request.tags["streamflow/reason"].startswith("lag is above 100 (events: 150")


def test_dead_letters_are_triaged_once_and_none_is_forgotten(one: Watch) -> None:
    one.change(sensor_seconds=1)
    assert one.said("dead_letter_sensor") == "no new dead letters"
    pipeline.produce(one.settings, "dead-letter-topic", [b"foreign"] * 3)
    one.materialize("postgres/dead_letters")
    asked = one.look("dead_letter_sensor")
    [request] = asked.run_requests or []
    assert request.tags["streamflow/reason"] == "new dead letters: 3 FOREIGN_RECORD"
    one.launch_failing("triage_dead_letters", asked)
    # More arrive while the first request has failed.
    pipeline.produce(one.settings, "dead-letter-topic", [b"foreign"] * 2)
    one.materialize("postgres/dead_letters")
    again = one.asked("dead_letter_sensor")
    assert one.launch("triage_dead_letters", again).success
    assert value(one.settings, "SELECT sum(letters)::bigint FROM dead_letters_by_cause") == 5
    assert one.said("dead_letter_sensor") == "no new dead letters"


def test_a_failed_triage_is_asked_for_again_though_nothing_is_new(one: Watch) -> None:
    one.change(sensor_seconds=1)
    pipeline.produce(one.settings, "dead-letter-topic", [b"foreign"])
    one.materialize("postgres/dead_letters")
    one.launch_failing("triage_dead_letters", one.look("dead_letter_sensor"))
    assert one.launch("triage_dead_letters", one.asked("dead_letter_sensor")).success
    assert one.said("dead_letter_sensor") == "no new dead letters"


def test_workers_that_go_and_come_are_told(one: Watch, tmp_path: Path) -> None:
    with Webhook() as webhook:
        one.change(webhook_url=SecretStr(f"{webhook.url}/secret"))
        with pipeline.workers(one.settings, tmp_path) as running:
            for worker in running.values():
                worker.wait_assigned()
            one.said("worker_heartbeat_sensor")
            said = one.said("worker_heartbeat_sensor")
            assert said == "validator up, analytics up, loader up"
            assert running["loader"].stop() == 0
            first = one.look("worker_heartbeat_sensor")
            second = one.look("worker_heartbeat_sensor")
        assert not first.asset_events
        [observation] = second.asset_events
        assert isinstance(observation, dg.AssetObservation)
        assert observation.asset_key == dg.AssetKey(["postgres", "events"])
        assert observation.metadata["state"].value == "gone"
        [(path, body)] = webhook.bodies
        group = one.settings.group("loader")
        assert path == "/secret"
        assert body["text"] == f"[StreamFlow] FIRING: loader is down: {group} has no member"
        assert (body["key"], body["state"]) == ("part down/loader", "firing")
        assert (body["worker"], body["severity"]) == ("loader", "critical")


def test_a_failed_run_goes_to_the_webhook_with_its_checks(one: Watch) -> None:
    execute(one.settings, "ALTER TABLE notifications ADD COLUMN mine text")
    with Webhook() as webhook:
        one.change(webhook_url=SecretStr(webhook.url))
        failed = one.run("data_quality")
        assert not failed.success
        run_failure = _failure_of(one, failed)
        [(_, body)] = webhook.bodies
        assert run_failure is None
    assert body["job"] == "data_quality"
    assert body["run_id"] == failed.run_id
    assert body["key"] == "run failed/data_quality"
    assert body["text"].startswith("[StreamFlow] FIRING: run of data_quality failed. contract: ")
    assert {
        "asset": "postgres/notifications",
        "check": "columns_keep_contract",
        "says": "notifications breaks the contract in 1 column: first column mine: not declared",
    } in body["failed_checks"]


def test_a_deaf_webhook_is_said_without_its_address(
    one: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(one.settings, "ALTER TABLE notifications ADD COLUMN mine text")
    failed = one.run("data_quality")
    with Webhook(500) as webhook:
        one.change(webhook_url=SecretStr(f"{webhook.url}/secret"))
        assert _failure_of(one, failed) is not None
        assert len(webhook.bodies) == 3
    said = capsys.readouterr()
    assert "the webhook did not take the alert (status 500)" in said.err + said.out
    assert "/secret" not in said.err + said.out


def _failure_of(one: Watch, failed: dg.ExecuteInProcessResult) -> Any:
    sensor = one.sensor("run_failure_sensor")
    context = dg.build_run_status_sensor_context(
        sensor_name="run_failure_sensor",
        dagster_event=failed.get_run_failure_event(),
        dagster_instance=one.instance,
        dagster_run=failed.dagster_run,
        resources={"platform": one.platform},
    ).for_run_failure()
    return sensor(context)


@pytest.mark.parametrize("name", ["lag_sensor", "dead_letter_sensor", "worker_heartbeat_sensor"])
def test_nobody_there_is_said_within_a_second(one: Watch, name: str) -> None:
    one.look(name)
    cursor = one.cursors[name]
    [port] = free_ports(1)
    one.change(kafka_bootstrap_servers=f"127.0.0.1:{port}")
    began = time.monotonic()
    said = one.said(name)
    assert time.monotonic() - began < 1
    assert said.endswith("does not answer: is the stack up?")
    one.change(database_url=None, kafka_bootstrap_servers=None)
    assert one.said(name)
    assert one.cursors[name] == cursor


@pytest.mark.chaos
def test_ticks_are_quick_and_leave_nothing_behind(one: Watch, record_property: Any) -> None:
    """200 ticks of each sensor; run with -o log_cli=true to see what they cost."""
    pipeline.produce(one.settings, "user-events", pipeline.events(50)[0])
    process = psutil.Process()
    for name in ("lag_sensor", "dead_letter_sensor", "worker_heartbeat_sensor"):
        for _ in range(20):
            one.look(name)
        began, before = time.monotonic(), process.memory_info().rss
        connections, threads = len(process.net_connections()), process.num_threads()
        for _ in range(200):
            one.look(name)
        each = (time.monotonic() - began) / 200 * 1000
        grown = (process.memory_info().rss - before) / 1e6
        record_property(name, f"{each:.1f} ms, {grown:+.1f} MB")
        log.warning("%s: %.1f ms a tick, %+.1f MB in 200 ticks", name, each, grown)
        assert len(process.net_connections()) <= connections + 2
        assert process.num_threads() <= threads + 2
        assert grown < 20
        assert each < 500


def test_a_schedule_waits_for_the_run_before(clock: Watch) -> None:
    schedule = clock.schedule("data_quality_schedule")
    assert (schedule.cron_schedule, schedule.default_status) == (
        "*/5 * * * *",
        dg.DefaultScheduleStatus.RUNNING,
    )
    context = dg.build_schedule_context(
        instance=clock.instance, repository_def=clock.definitions.get_repository_def()
    )
    [_] = schedule.evaluate_tick(context).run_requests or []
    assert clock.run("data_quality").success
    run = clock.instance.create_run_for_job(
        clock.definitions.resolve_job_def("data_quality"), status=dg.DagsterRunStatus.STARTED
    )
    tick = schedule.evaluate_tick(context)
    assert (tick.run_requests or []) == []
    assert tick.skip_message == f"run {run.run_id} is not done yet"

    # A run that no code server has launched does not end with one.
    fail_orphans(clock.instance)
    assert clock.instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.STARTED
    clock.instance.add_run_tags(run.run_id, {".dagster/grpc_info": "{}"})
    fail_orphans(clock.instance)
    assert clock.instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
    [_] = schedule.evaluate_tick(context).run_requests or []


def test_all_evaluations_ask_one_instance_for_runs(
    clock: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    ask = dg.DagsterInstance.get_run_records

    def remembered(self: dg.DagsterInstance, *args: Any, **options: Any) -> Any:
        asked.append(self)
        return ask(self, *args, **options)

    monkeypatch.setattr(dg.DagsterInstance, "get_run_records", remembered)
    schedule, sensor = clock.schedule("prune_schedule"), clock.sensor("dead_letter_sensor")
    reference = clock.instance.get_ref()
    for _ in range(5):
        with dg.build_schedule_context(instance_ref=reference) as context:
            assert isinstance(schedule(context), dg.RunRequest)
        with dg.build_sensor_context(
            instance_ref=reference, resources={"platform": clock.platform}
        ) as looking:
            assert isinstance(sensor(looking), dg.SensorResult)
    assert len(asked) == 10
    assert len(set(map(id, asked))) == 1


def test_hours_with_news_are_rolled_up_by_the_clock(clock: Watch) -> None:
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    earlier = [hour - timedelta(hours=each, minutes=-5) for each in (1, 30)]
    values = [pipeline.event(number, at=each) for number, each in enumerate([*earlier, now])]
    pipeline.produce(clock.settings, "user-events", values)
    clock.materialize("postgres/events")
    schedule = clock.schedule("hourly_rollup_schedule")

    def requests() -> list[dg.RunRequest]:
        with dg.build_schedule_context(
            instance=clock.instance,
            repository_def=clock.definitions.get_repository_def(),
            scheduled_execution_time=now,
            resources={"platform": clock.platform},
        ) as context:
            return list(schedule.evaluate_tick(context).run_requests or [])

    asked = requests()
    assert [each.partition_key for each in asked] == [
        (hour - timedelta(hours=each)).strftime("%Y-%m-%d-%H:%M") for each in (30, 1)
    ]
    for each in asked:
        assert clock.run("roll_hours", partition_key=each.partition_key).success
    assert requests() == []
    assert rows(clock.settings, "SELECT events FROM hourly_events") == [(1,), (1,)]
    # A rollup that is older than its events.
    execute(clock.settings, "UPDATE hourly_events SET computed_at = now() - interval '1 hour'")
    assert len(requests()) == 2
