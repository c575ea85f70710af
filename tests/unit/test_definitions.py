"""The code location loads with nothing running and nothing set, and derives from the streams."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from streamflow.errors import ConfigurationError
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow.streams.user_events import USER_EVENTS
from streamflow_dagster import storage
from streamflow_dagster.catalog import catalog_of
from streamflow_dagster.definitions import build
from streamflow_dagster.defs.rollups import daily_rollups
from streamflow_dagster.resources import Platform
from streamflow_stack.process import Launch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build(Platform(OrchestrationSettings))


def test_it_loads_without_a_warning_and_without_a_stack(tmp_path: Path) -> None:
    plain = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    code = "from streamflow_dagster.definitions import defs; defs.get_repository_def()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=plain,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_everything_has_its_name(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)
    repository = definitions.get_repository_def()
    assert {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()} == {
        "producer/user_events",
        "kafka/user_events",
        "kafka/analytics",
        "kafka/notifications",
        "kafka/dead_letter_topic",
        "postgres/events",
        "postgres/window_counts",
        "postgres/notifications",
        "postgres/dead_letters",
        "rollups/hourly_events",
        "rollups/daily_active_users",
        "rollups/login_failure_bursts",
        "rollups/dead_letters_by_cause",
        "operations/events_retention",
    }
    schedules = {schedule.name for schedule in repository.schedule_defs}
    assert schedules >= {"data_quality_schedule", "hourly_rollup_schedule", "retention_schedule"}
    sensors = {sensor.name for sensor in repository.sensor_defs}
    assert sensors == {
        "lag_sensor",
        "dead_letter_sensor",
        "worker_heartbeat_sensor",
        "run_failure_sensor",
    }


def test_lineage_goes_from_the_producer_to_the_rollups(definitions: dg.Definitions) -> None:
    graph = definitions.get_repository_def().asset_graph

    def parents(key: str) -> set[str]:
        found = graph.get(dg.AssetKey.from_user_string(key)).parent_keys
        return {each.to_user_string() for each in found}

    assert parents("kafka/user_events") == {"producer/user_events"}
    assert parents("kafka/analytics") == {"kafka/user_events"}
    assert parents("postgres/window_counts") == {"kafka/analytics"}
    assert parents("rollups/login_failure_bursts") == {"postgres/events"}
    assert parents("rollups/dead_letters_by_cause") == {"postgres/dead_letters"}


def test_a_second_stream_brings_its_own_assets() -> None:
    orders = replace(USER_EVENTS, name="orders", table="orders")
    catalog = catalog_of(OrchestrationSettings(), [USER_EVENTS, orders])
    assert dg.AssetKey(["kafka", "orders"]) in {entry.key for entry in catalog.topics}
    assert catalog.table("orders").deps == (dg.AssetKey(["kafka", "orders"]),)
    # What streams share is there once, and comes from both.
    shared = next(entry for entry in catalog.topics if entry.key.path[-1] == "analytics")
    assert [key.path[-1] for key in shared.deps] == ["user_events", "orders"]
    assert len(catalog.tables) == 5


def test_streams_share_a_rollup_only_if_it_is_the_same() -> None:
    orders = replace(USER_EVENTS, name="orders", table="orders")
    shared = {rollup.table: streams for rollup, streams in daily_rollups([USER_EVENTS, orders])}
    assert shared["login_failure_bursts"] == [USER_EVENTS, orders]
    other = replace(USER_EVENTS.rollups[0], order="day")
    with pytest.raises(ConfigurationError, match="stream orders: its rollup login_failure_bursts"):
        daily_rollups([USER_EVENTS, replace(orders, rollups=(other,))])


def test_a_prefix_changes_topics_and_no_asset() -> None:
    settings = OrchestrationSettings(STREAMFLOW_PREFIX="team.")
    catalog = catalog_of(settings, [USER_EVENTS.prefixed("team.")])
    assert catalog.topics[0].spec.name == "team.user-events"
    assert catalog.topics[0].key == dg.AssetKey(["kafka", "user_events"])
    assert catalog.table("events").topics == ("team.user-events",)


def test_the_instance_file_in_the_root_is_the_one_that_is_shipped() -> None:
    shipped = (ROOT / "streamflow_dagster" / "dagster.yaml").read_text()
    assert (ROOT / "dagster.yaml").read_text() == shipped


def test_without_a_database_an_instance_keeps_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STREAMFLOW_DAGSTER_DATABASE_URL", raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    found = storage.InstanceStorage.from_config_value(None, {})
    assert isinstance(found, DagsterSqliteStorage)
    assert (tmp_path / "storage").exists()
    found.dispose()


def test_no_secret_is_in_a_command_line() -> None:
    from streamflow_stack.orchestration import Home

    settings = OrchestrationSettings()
    for part in Home(settings, "postgresql://u:secret@db/x").parts():
        assert part.launch is not None
        launch: Launch = part.launch()
        assert "secret" not in " ".join(launch.command)
        assert launch.environment["STREAMFLOW_DAGSTER_DATABASE_URL"].endswith("secret@db/x")
