"""Sessions as Dagster sees them: assets, their checks, and when they are computed. No broker is asked."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from loads import execute, rows, value
from orchestration import Orchestration, metadata_of
from session_streams import CUSTOMERS, MINUTE, PURCHASES, age, expected, insert, purchase, stored
from streamflow.postgres import schema
from streamflow.postgres.connections import session
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow_dagster.definitions import build
from streamflow_dagster.resources import Platform

pytestmark = pytest.mark.integration

ASSET = "rollups/purchases_sessions_30min"
OTHER = "rollups/purchases_sessions_90s"
TABLE = "purchases_sessions_30min"


@pytest.fixture
def one(database_url: str, tmp_path: Path) -> Iterator[Orchestration]:
    made = OrchestrationSettings(
        DATABASE_URL=database_url,
        STREAMFLOW_STREAMS="session_streams:PURCHASES",
        STREAMFLOW_STATE_DIR=tmp_path,
    )
    schema.upgrade(made, [PURCHASES])
    with dg.DagsterInstance.ephemeral() as instance:
        yield Orchestration(instance, made)


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {each.check_name: each.passed for each in result.get_asset_check_evaluations()}


def test_the_graph_shows_sessions_with_their_columns(one: Orchestration) -> None:
    graph = one.definitions.resolve_asset_graph()
    key = dg.AssetKey.from_user_string(ASSET)
    assert graph.get(key).parent_keys == {dg.AssetKey(["postgres", "purchases"])}
    assert dg.AssetKey.from_user_string(OTHER) in graph.get_all_asset_keys()
    columns = {
        column.name: (column.type, column.constraints.nullable)
        for column in graph.get(key).metadata["dagster/column_schema"].columns
    }
    assert columns["customer"] == ("text", True)
    assert columns["spent"] == ("numeric", True)
    assert columns["weight"] == columns["weights_p99_9"] == ("double precision", True)
    assert columns["session_end"] == ("timestamp with time zone", False)
    one.materialize(ASSET)
    kinds = rows(
        one.settings,
        "SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull FROM pg_attribute"
        f" WHERE attrelid = '{TABLE}'::regclass AND attnum > 0 ORDER BY attnum",
    )
    assert list(columns.items()) == [
        (name, (kind, may_be_null)) for name, kind, may_be_null in kinds
    ]


def test_sessions_follow_what_is_loaded_and_are_checked(one: Orchestration) -> None:
    events = [purchase(number, number * 20 * MINUTE, total="1.50") for number in range(10)]
    with session(one.settings, "test") as connection:
        insert(connection, [*events[:4], *events[6:]])
        first = one.materialize(ASSET)
        assert (first.success, evaluations(first)) == (
            True, {"sessions_equal_events": True, "sessions_are_apart": True},
        )  # fmt: skip
        told = metadata_of(first, ASSET)
        assert (told["sessions_computed"], told["events_loaded"], told["pieces"]) == (2, 8, 1)
        age(connection)
        insert(connection, events[4:6])
        done = one.run("compute_sessions")
        assert metadata_of(done, ASSET)["sessions_computed"] == 1
        assert metadata_of(done, OTHER)["sessions_computed"] == 10
        assert stored(connection, CUSTOMERS) == expected(events, CUSTOMERS)


def test_checks_are_red_where_sessions_are_wrong(one: Orchestration) -> None:
    before = one.check(ASSET, "sessions_equal_events")
    assert (before.passed, before.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "not yet" in (before.description or "")
    with session(one.settings, "test") as connection:
        insert(connection, [purchase(0, 0), purchase(1, 1), purchase(2, 3600)])
    one.materialize(ASSET)
    execute(one.settings, f"UPDATE {TABLE} SET counted = 5 WHERE counted = 2")
    red = one.check(ASSET, "sessions_equal_events")
    assert (red.passed, red.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "counts 5 of 2" in (red.description or "")
    assert one.check(ASSET, "sessions_are_apart").passed
    execute(one.settings, f"DROP TABLE {TABLE}")
    assert all(evaluations(one.materialize(ASSET)).values())
    assert value(one.settings, f"SELECT sum(counted)::int FROM {TABLE}") == 3


def test_a_table_of_others_fails_the_step_in_words(one: Orchestration) -> None:
    execute(one.settings, f"DROP TABLE {TABLE}; DELETE FROM window_tables")
    execute(one.settings, f"CREATE TABLE {TABLE} (customer text)")
    result = one.materialize(ASSET)
    [failure] = [event for event in result.all_events if event.is_step_failure]
    says = failure.step_failure_data.error_display_string
    assert "StreamFlow did not create it for windows" in says
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    assert value(one.settings, f"SELECT count(*) FROM {TABLE}") == 0


def test_sessions_are_scheduled_where_a_stream_has_some(one: Orchestration) -> None:
    schedule = one.schedule("sessions_schedule")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    job = one.definitions.resolve_job_def(schedule.job_name)
    assert {key.to_user_string() for key in job.asset_layer.selected_asset_keys} == {ASSET, OTHER}
    without = build(Platform(OrchestrationSettings))
    names = {schedule.name for schedule in without.get_repository_def().schedule_defs}
    assert names > {"daily_rollup_schedule"}
    assert "sessions_schedule" not in names
