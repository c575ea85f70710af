"""The code location loads with nothing running and nothing set, and derives from the streams."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC
from functools import partial
from pathlib import Path

import dagster as dg
import pytest

from dagster_windows import ORDERS as WINDOWS
from services import Quiet
from streamflow import Count, HoppingWindow, SessionWindow, TumblingWindow
from streamflow.errors import ConfigurationError
from streamflow.lag.measure import ConsumerGroup, LagSample
from streamflow.settings import Settings
from streamflow.settings.orchestration import (
    HOUR_FORMAT,
    OrchestrationSettings,
    load_orchestration_settings,
)
from streamflow.streams.user_events import USER_EVENTS
from streamflow.windows.specs import Windows
from streamflow_dagster.catalog import catalog_of
from streamflow_dagster.definitions import build
from streamflow_dagster.defs.rollups import daily_rollups
from streamflow_dagster.defs.volume_sql import has_hours
from streamflow_dagster.observing import table_lags
from streamflow_dagster.resources import Platform
from streamflow_stack.orchestration import Home, dagster_parts
from streamflow_stack.process import Launch

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(file.parent.name for file in ROOT.glob("stream*/__init__.py"))


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


def test_a_stream_that_cannot_work_takes_no_other_s_assets_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = "streamflow.streams.user_events:USER_EVENTS"
    made = build(
        Platform(lambda: OrchestrationSettings(STREAMFLOW_STREAMS=f"{path},nowhere:S,{path}"))
    )
    assert dg.AssetKey(["postgres", "events"]) in made.resolve_all_asset_keys()
    assert "nowhere:S does not start: there is no module nowhere" in caplog.text
    assert "stream user-events does not start: " in caplog.text


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


@pytest.mark.parametrize(
    ("start", "hour"),
    [
        ("2026-11-01T00:00:00+05:30", "2026-10-31-18:00"),
        ("2026-11-01T00:00:00+05:45", "2026-10-31-18:00"),
        ("2026-11-01T10:17:30Z", "2026-11-01-10:00"),
        ("2026-11-01T10:17:30.5", "2026-11-01-10:00"),
        ("2026-11-01T03:00:00-08:00", "2026-11-01-11:00"),
        ("2026-11-01", "2026-11-01-00:00"),
    ],
)
def test_the_hourly_rollup_begins_with_a_whole_hour_of_utc(start: str, hour: str) -> None:
    settings = partial(OrchestrationSettings, STREAMFLOW_ROLLUP_START=start)
    graph = build(Platform(settings)).get_repository_def().asset_graph
    partitions = graph.get(dg.AssetKey(["rollups", "hourly_events"])).partitions_def
    assert partitions is not None
    # The schedule asks for the hours from the setting's instant on, by these keys.
    assert settings().rollup_start.astimezone(UTC).strftime(HOUR_FORMAT) == hour
    assert partitions.has_partition_key(hour)
    assert partitions.get_first_partition_key() == hour


def test_a_start_that_utc_does_not_have_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="STREAMFLOW_ROLLUP_START: is no time that UTC has"
    ):
        load_orchestration_settings(STREAMFLOW_ROLLUP_START="0001-01-01T00:00:00+14:00")


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


ORDERS = """
from dataclasses import replace
from typing import Literal
from streamflow import Event, Stream, Timestamp, Topics
from streamflow.streams.user_events import USER_EVENTS

class Order(Event):
    type: Literal["placed"]
    customer: str
    timestamp: Timestamp

BARE = Stream(name="orders", contract=Order, table="orders", key=lambda event: event.customer)
FOREIGN = replace(
    BARE,
    name="their.orders",
    table="their_orders",
    topics=Topics(managed=False, analytics="a", notifications="n", dead_letters="d"),
)
"""
BARE, FOREIGN = "my_streams:BARE", "my_streams:FOREIGN"
EXAMPLE = "streamflow.streams.user_events:USER_EVENTS"


@pytest.mark.parametrize(
    "streams", [(BARE,), (FOREIGN,), (EXAMPLE, BARE), (EXAMPLE, BARE, FOREIGN)]
)
def test_any_set_of_streams_loads_with_what_it_declares(
    streams: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_streams.py").write_text(ORDERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_streams", raising=False)
    made = build(Platform(partial(OrchestrationSettings, STREAMFLOW_STREAMS=",".join(streams))))
    dg.Definitions.validate_loadable(made)
    repository = made.get_repository_def()
    graph = repository.asset_graph
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    tables = {BARE: "orders", FOREIGN: "their_orders", EXAMPLE: "events"}
    for name, table in tables.items():
        checks = {key.name for key in graph.asset_check_keys if key.asset_key.path[-1] == table}
        assert (f"postgres/{table}" in keys) is (name in streams)
        # What is a stream's fault is red at the stream's table.
        own = {"ledger_closes", "no_gaps", "few_dead_letters", "columns_keep_contract"}
        assert (checks >= own) is (name in streams)
        # What the stream does not have is not checked.
        assert ("windows_equal_events" in checks) is (name == EXAMPLE and name in streams)
        assert ("volume_as_usual" in checks) is (name == EXAMPLE and name in streams)
    shared = {
        (key.asset_key.path[-1], key.name)
        for key in graph.asset_check_keys
        if key.asset_key.path[-1] in ("window_counts", "notifications", "dead_letters")
    }
    assert not {name for _, name in shared} & {"ledger_closes", "windows_equal_events"}
    # Nothing of the example is there without it.
    examples = {"rollups/login_failure_bursts", "rollups/daily_active_users", "kafka/user_events"}
    assert bool(examples & keys) is (EXAMPLE in streams)
    specified = {
        key.asset_key.path[-1] for key in graph.asset_check_keys if key.name == "as_declared"
    }
    assert "their_orders" not in specified
    assert ("kafka/their_orders" in keys) is (FOREIGN in streams)
    assert len({job.name for job in repository.get_all_jobs()}) > 5


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


@pytest.mark.parametrize("url", ["", "postgresql://u:pa55word@db/x"])
def test_an_instance_is_configured_by_public_names_and_without_a_secret(
    tmp_path: Path, url: str
) -> None:
    home = Home(Settings(STREAMFLOW_STATE_DIR=tmp_path), lambda: url)
    variables = home.write()
    written = (home.directory / "dagster.yaml").read_text()
    storage = json.loads(written)["storage"]
    if url:
        assert variables["STREAMFLOW_DAGSTER_DATABASE_URL"] == url
        assert storage["custom"]["config"] == {
            "postgres_url": {"env": "STREAMFLOW_DAGSTER_DATABASE_URL"}
        }
    else:
        assert storage == {"sqlite": {"base_dir": str(home.directory / "storage")}}
    assert "pa55word" not in written + (home.directory / "workspace.yaml").read_text()
    # What begins with an underscore is Dagster's own and may change with any release.
    assert not re.search(r"dagster\._|dagster\.core", written)


@pytest.mark.parametrize("given", [None, "4"])
def test_the_heaps_of_threads_are_few_unless_the_user_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    if given is not None:
        monkeypatch.setenv("MALLOC_ARENA_MAX", given)
    variables = Home(Settings(STREAMFLOW_STATE_DIR=tmp_path), lambda: "").write()
    assert variables["MALLOC_ARENA_MAX"] == (given or "2")


def test_no_module_of_ours_imports_what_is_private_to_dagster() -> None:
    private = re.compile(r"\bdagster(_postgres|_webserver|_shared)?\._")
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    assert not [file.name for file in files if private.search(file.read_text())]


def test_no_secret_is_in_a_command_line(tmp_path: Path) -> None:
    url = "postgresql://u:pa55word@db/x"
    parts = dagster_parts(Home(Settings(STREAMFLOW_STATE_DIR=tmp_path), lambda: url), tmp_path)
    parts[0].prepare(Quiet())
    for part in parts:
        assert part.launch is not None
        launch: Launch = part.launch()
        assert "pa55word" not in " ".join(launch.command)
        assert launch.environment["STREAMFLOW_DAGSTER_DATABASE_URL"] == url


def test_the_view_of_an_upsert_stream_depends_on_its_changes() -> None:
    made = build(Platform(partial(OrchestrationSettings, STREAMFLOW_STREAMS="upserts:CUSTOMERS")))
    graph = made.resolve_asset_graph()
    view, changes = (dg.AssetKey(["postgres", name]) for name in ("customers", "customers_changes"))
    assert graph.get(view).parent_keys == {changes}
    assert not graph.get(view).is_materializable
    assert graph.get(changes).is_materializable


def test_windows_with_aggregates_have_a_table_and_a_view_of_their_own() -> None:
    made = build(
        Platform(partial(OrchestrationSettings, STREAMFLOW_STREAMS="dagster_windows:ORDERS"))
    )
    dg.Definitions.validate_loadable(made)
    graph = made.resolve_asset_graph()
    for name in WINDOWS.window_tables:
        table, view = (dg.AssetKey(["postgres", each]) for each in (name, f"{name}_totals"))
        assert graph.get(table).parent_keys == {dg.AssetKey(["kafka", "o_analytics"])}
        assert graph.get(view).parent_keys == {table}
        assert (graph.get(table).is_materializable, graph.get(view).is_materializable) == (
            True,
            False,
        )
        checks = {key.name for key in graph.asset_check_keys if key.asset_key == table}
        assert {"windows_equal_events", "columns_keep_contract", "no_duplicates"} <= checks
        assert not checks & {"ledger_closes", "fresh_by_event_time", "volume_as_usual"}
    # They are drained with the table of their topic, and not counted twice.
    catalog = catalog_of(OrchestrationSettings(), [USER_EVENTS, WINDOWS])
    drained = {key.path[-1] for key in catalog.drained_with("window_counts")}
    assert drained == {"window_counts", *WINDOWS.window_tables}
    assert catalog.drained_with("orders") == [dg.AssetKey(["postgres", "orders"])]
    positions = {("analytics", 0): 1, ("o-analytics", 0): 2, ("orders", 1): 4}
    group = ConsumerGroup(name="db-group", worker="loader", positions=positions)
    sample = LagSample(
        bounds=dict.fromkeys(positions, (0, 5)), groups={"db-group": group}, brokers=1, missing=()
    )
    assert table_lags(catalog, sample, "db-group") == {
        "events": 0, "orders": 1, "window_counts": 7, "notifications": 0, "dead_letters": 0
    }  # fmt: skip


def test_hours_are_known_of_windows_that_fit_into_them() -> None:
    def has(*windows: Windows) -> bool:
        return has_hours(replace(WINDOWS, windows=windows))

    assert has(TumblingWindow("1d"))
    assert has(TumblingWindow("1d", n=Count()), HoppingWindow("1d", every="20min", n=Count()))
    assert not has(TumblingWindow("1d", n=Count()), TumblingWindow("25min", n=Count()))
    assert not has(SessionWindow("5min", by="customer", n=Count()))
    assert not has()
