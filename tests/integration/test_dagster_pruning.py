"""What Dagster keeps of old runs is deleted: in SQLite and in PostgreSQL, by real runs."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from orchestration import Orchestration, orchestrated
from streamflow.settings import Settings
from streamflow_dagster.defs import pruning
from streamflow_dagster.defs.pruning import prune
from streamflow_stack.orchestration import Home

pytestmark = pytest.mark.integration

KEY = dg.AssetKey(["kafka", "rows"])
EXECUTED, NEW = 2, 2


@dg.asset(key=KEY)
def rows() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"rows": 17})


@dg.asset_check(asset=KEY)
def plausible() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


JOB = dg.Definitions(
    assets=[rows],
    asset_checks=[plausible],
    jobs=[dg.define_asset_job("one", dg.AssetSelection.all())],
    executor=dg.in_process_executor,
).resolve_job_def("one")


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.chaos), "postgres"])
def instance(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance as `streamflow up` configures it."""
    url = request.getfixturevalue("database_url") if request.param == "postgres" else ""
    home = Home(Settings(STREAMFLOW_STATE_DIR=tmp_path), lambda: url)
    for name, value in home.write().items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as made:
        yield made


def run(instance: dg.DagsterInstance, *, executed: bool = False) -> str:
    """A run of the job, or its record alone; and what workers and checks report outside of runs."""
    if executed:
        run_id = JOB.execute_in_process(instance=instance).run_id
    else:
        run_id = str(uuid.uuid4())
        ended = dg.DagsterRunStatus.FAILURE
        instance.add_run(dg.DagsterRun(job_name="one", run_id=run_id, status=ended))
    instance.report_runless_asset_event(dg.AssetMaterialization(KEY, metadata={"rows": 1}))
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(asset_key=KEY, check_name="plausible", passed=True, metadata={})
    )
    return run_id


def materializations(instance: dg.DagsterInstance) -> int:
    return len(instance.fetch_materializations(KEY, limit=1_000).records)


@pytest.mark.timeout(600)
def test_old_runs_go_with_all_that_belongs_to_them(instance: dg.DagsterInstance) -> None:
    count = 40
    old = [run(instance, executed=number < EXECUTED) for number in range(count)]
    before = datetime.now(UTC)
    new = [run(instance, executed=True) for _ in range(NEW)]
    assert materializations(instance) == count + EXECUTED + 2 * NEW

    deleted = prune(instance, before)

    assert deleted["runs"] == count
    assert deleted["reported_events"] == 2 * count
    assert deleted["check_executions"] >= count
    assert {record.dagster_run.run_id for record in instance.get_run_records()} == set(new)
    files = {file.stem for file in Path(instance.storage_directory()).rglob("*") if file.is_file()}
    assert not files & set(old)
    assert all(instance.all_logs(run_id) for run_id in new)
    assert materializations(instance) == 2 * NEW
    # The state of asset and check is that of before.
    assert instance.get_latest_materialization_event(KEY) is not None
    assert prune(instance, before) == {
        "runs": 0,
        "reported_events": 0,
        "check_executions": 0,
        "event_tags": 0,
    }


def test_what_is_the_last_of_its_kind_and_what_runs_stays(instance: dg.DagsterInstance) -> None:
    run(instance, executed=True)
    [record] = instance.get_run_records()
    waiting = instance.create_run_for_job(JOB)
    prune(instance, datetime.now(UTC) + timedelta(days=1))
    assert [each.dagster_run.run_id for each in instance.get_run_records()] == [waiting.run_id]
    assert waiting.run_id != record.dagster_run.run_id
    materialization = instance.get_latest_materialization_event(KEY)
    assert materialization is not None
    # The waiting run has planned the check; its last result is older, and stays.
    history = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(KEY, "plausible"), limit=9
    )
    assert [each.status.value for each in history] == ["PLANNED", "SUCCEEDED"]


def test_one_run_of_the_job_deletes_no_more_than_its_bound(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "RUNS_AT_ONCE", 4)
    monkeypatch.setattr(pruning, "ROWS_AT_ONCE", 3)
    for _ in range(5):
        run(instance)
    before = datetime.now(UTC)
    assert [prune(instance, before)["runs"] for _ in range(3)] == [4, 1, 0]
    assert prune(instance, before)["reported_events"] == 1


def test_the_job_deletes_by_the_age_of_the_settings(
    instance: dg.DagsterInstance, stack_settings: Settings
) -> None:
    old = run(instance)
    one = Orchestration(instance, orchestrated(stack_settings))
    one.definitions.get_repository_def()
    assert one.run(pruning.JOB).success
    # Nothing is 14 days old.
    assert old in {record.dagster_run.run_id for record in instance.get_run_records()}


def test_ticks_are_kept_as_long_as_runs(tmp_path: Path) -> None:
    settings = Settings(STREAMFLOW_STATE_DIR=tmp_path, STREAMFLOW_DAGSTER_RETENTION_DAYS=5)
    home = Home(settings, lambda: "")
    home.write()
    retention = json.loads((home.directory / "dagster.yaml").read_text())["retention"]
    kept = {"purge_after_days": {"skipped": 1, "success": 5, "failure": 5}}
    assert retention == {"sensor": kept, "schedule": kept}
