"""Windows with aggregates as Dagster sees them: assets that drain their topic, their columns and checks."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import orjson
import pytest

import pipeline
from dagster_windows import LOGINS, ORDERS
from loads import execute, rows, value
from orchestration import Orchestration, broken, metadata_of, orchestrated, stack_of_a_module
from services import BrokerService, DatabaseService
from streamflow.postgres import schema
from streamflow.postgres.connections import session
from streamflow.postgres.windows.tables import window_tables
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow_dagster.defs.volume_sql import counted_by_hour
from window_parts import HOPPING, NOON, TUMBLING, orders

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

HOURLY = "orders_1h"
STREAM = {"STREAMFLOW_STREAMS": "dagster_windows:ORDERS"}
LATER, TOO_LATE = 30, 20  # events
EVENTS = 400 + LATER + TOO_LATE
ERROR = dg.AssetCheckSeverity.ERROR
COLUMNS = (
    "SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull FROM pg_attribute"
    " WHERE attrelid = '{}'::regclass AND attnum > 0 ORDER BY attnum"
)


def encoded(number: int, *, hours: int = 0) -> list[bytes]:
    shift = timedelta(hours=hours)
    made = (each.order for each in orders(number, seed=hours + 1))
    return [ORDERS.encode(order.model_copy(update={"at": order.at + shift}))[1] for order in made]


def counted(settings: Settings, name: str) -> int:
    """Events in the records of some windows."""
    records = (
        orjson.loads(each or b"{}") for each in pipeline.stored_values(settings, "o-analytics")
    )
    return sum(one["counted"] + one["too_late"] for one in records if one.get("window") == name)


@pytest.fixture(scope="module")
def filled(
    broker: BrokerService,
    database_server: DatabaseService,
    database_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """A stack whose validator and analytics have handled all events, and whose loader has not run."""
    folder = tmp_path_factory.mktemp("windows")
    with stack_of_a_module(
        broker, database_server, database_template, folder, **STREAM
    ) as settings:
        schema.upgrade(settings, load_streams(settings))
        with pipeline.workers(settings, folder, ("validator", "analytics"), **STREAM):
            sent = 0
            for part in (encoded(400), encoded(LATER, hours=4), encoded(TOO_LATE)):
                pipeline.produce(settings, "orders", part)
                sent += len(part)
                pipeline.wait_until(
                    lambda: {counted(settings, name) for name in ORDERS.window_tables} == {sent},  # noqa: B023
                    90,
                    "all windows to close",
                )
        yield settings


@pytest.fixture(scope="module")
def one(filled: Settings) -> Iterator[Orchestration]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Orchestration(instance, orchestrated(filled, **STREAM))


@pytest.fixture(scope="module")
def drained(one: Orchestration) -> dg.ExecuteInProcessResult:
    """The run in which the tables were filled."""
    keys = [f"postgres/{name}" for name in (HOPPING, TUMBLING, HOURLY, "orders", "notifications")]
    return one.materialize(*keys)


def test_the_graph_shows_tables_and_views_with_their_columns(one: Orchestration) -> None:
    graph = one.definitions.resolve_asset_graph()
    for table in window_tables(ORDERS):
        key, view = dg.AssetKey(["postgres", table.name]), dg.AssetKey(["postgres", table.view])
        assert graph.get(key).parent_keys == {dg.AssetKey(["kafka", "o_analytics"])}
        assert graph.get(view).parent_keys == {key}
        assert not graph.get(view).is_materializable
        assert table.view in (graph.get(key).description or "")
        for asset, name in ((key, table.name), (view, table.view)):
            shown = graph.get(asset).metadata["dagster/column_schema"].columns
            assert [
                (column.name, column.type, column.constraints.nullable) for column in shown
            ] == rows(one.settings, COLUMNS.format(name))
    retention = graph.get(dg.AssetKey(["operations", "events_retention"]))
    assert dg.AssetKey(["postgres", TUMBLING]) in retention.parent_keys


def test_materializing_drains_the_topic_and_tells_what_is_there(
    one: Orchestration, drained: dg.ExecuteInProcessResult
) -> None:
    assert drained.success, drained.all_events
    # The first asset of the topic has loaded the parts of all windows.
    found = {name: metadata_of(drained, f"postgres/{name}") for name in (TUMBLING, HOPPING, HOURLY)}
    records = len(pipeline.stored_values(one.settings, "o-analytics"))
    assert sum(each["records"] for each in found.values()) == records
    assert [each["remaining_lag"] for each in found.values()] == [0, 0, 0]
    for name, told in found.items():
        assert told["dagster/row_count"] == value(one.settings, f"SELECT count(*) FROM {name}")
        assert told["dagster/row_count"] > 0
        [(newest, late)] = rows(
            one.settings, f"SELECT max(window_start), count(*) FILTER (WHERE late) FROM {name}"
        )
        assert told["newest_window"] == newest.timestamp()
        assert told["corrections_of_last_day"] == late > 0
    assert [each["too_late_of_last_day"] for each in found.values()] == [0, 0, TOO_LATE]


@pytest.mark.usefixtures("drained")
def test_a_table_without_a_row_has_no_newest_window(one: Orchestration) -> None:
    with broken(
        one.settings,
        f"CREATE TABLE kept AS SELECT * FROM {HOURLY}",
        f"DELETE FROM {HOURLY}",
        mend=[f"INSERT INTO {HOURLY} SELECT * FROM kept", "DROP TABLE kept"],
    ):
        told = metadata_of(one.materialize(f"postgres/{HOURLY}"), f"postgres/{HOURLY}")
    assert (told["newest_window"], told["too_late_of_last_day"]) == ("none", 0)


@pytest.mark.usefixtures("drained")
def test_all_is_green_on_sound_data(one: Orchestration) -> None:
    result = one.run("data_quality")
    found = {
        f"{each.asset_key.to_user_string()}:{each.check_name}": each
        for each in result.get_asset_check_evaluations()
    }
    red = {name: each.description for name, each in found.items() if not each.passed}
    # These events are of long ago.
    assert set(red) == {"postgres/orders:fresh_by_event_time", "postgres/orders:volume_as_usual"}
    own = {name.partition(":")[2] for name in found if name.startswith(f"postgres/{TUMBLING}:")}
    assert own == {
        "no_gaps", "no_duplicates", "windows_equal_events", "columns_keep_contract",
        "no_clear_text_address", "fresh_by_load_time",
    }  # fmt: skip
    windows = found[f"postgres/{HOURLY}:windows_equal_events"].metadata
    assert windows["events"].value == windows["counted"].value == EVENTS
    assert f"postgres/{TUMBLING}_totals:no_gaps" not in found


@pytest.mark.usefixtures("drained")
def test_a_difference_is_red_at_the_table_of_its_windows_and_of_the_stream(
    one: Orchestration,
) -> None:
    where = f"WHERE ctid = '(0,1)' AND tableoid = '{TUMBLING}_20260301'::regclass"
    change = f"UPDATE {TUMBLING} SET {{}} WHERE first_offset = (SELECT first_offset FROM kept)"
    with broken(
        one.settings,
        f"CREATE TABLE kept AS SELECT first_offset FROM {TUMBLING} {where}",
        change.format("revenue = revenue + 1"),
        mend=[change.format("revenue = revenue - 1"), "DROP TABLE kept"],
    ):
        red = one.check(f"postgres/{TUMBLING}", "windows_equal_events")
        assert (red.passed, red.severity) == (False, ERROR)
        assert f": window {TUMBLING} 2026-03-01T" in (red.description or "")
        # Dagster keeps what it is told, so it is told no groups and values.
        assert "`streamflow audit` says what differs" in str(red)
        ledger = one.check("postgres/orders", "ledger_closes")
        for check in (red, ledger, one.check("postgres/orders", "windows_equal_events")):
            assert not check.passed
            assert "revenue is " not in str(check)
        assert one.check(f"postgres/{HOPPING}", "windows_equal_events").passed
    assert one.check(f"postgres/{TUMBLING}", "windows_equal_events").passed


@pytest.mark.usefixtures("drained")
def test_a_missing_part_is_a_gap(one: Orchestration) -> None:
    with broken(
        one.settings,
        f"CREATE TABLE kept AS SELECT * FROM {HOURLY} LIMIT 1",
        f"DELETE FROM {HOURLY} WHERE (record_partition, record_offset) = "
        "(SELECT record_partition, record_offset FROM kept)",
        mend=[f"INSERT INTO {HOURLY} SELECT * FROM kept", "DROP TABLE kept"],
    ):
        red = one.check(f"postgres/{HOURLY}", "no_gaps")
    assert (red.passed, red.severity) == (False, ERROR)
    assert f"{one.settings.prefix}o-analytics[" in (red.description or "")


@pytest.mark.usefixtures("drained")
def test_columns_and_contents_are_checked(one: Orchestration) -> None:
    with broken(
        one.settings,
        f"ALTER TABLE {TUMBLING} ADD COLUMN more text",
        mend=[f"ALTER TABLE {TUMBLING} DROP COLUMN more"],
    ):
        red = one.check(f"postgres/{TUMBLING}", "columns_keep_contract")
        assert "column more: not declared" in (red.description or "")
    execute(one.settings, "DELETE FROM quality_scans")
    with broken(
        one.settings,
        f"UPDATE {TUMBLING} SET opened_by = 'ann@example.com', loaded_at = now() WHERE country = 'DE'",
        mend=[f"UPDATE {TUMBLING} SET opened_by = NULL WHERE country = 'DE'"],
    ):
        red = one.check(f"postgres/{TUMBLING}", "no_clear_text_address")
    assert (red.passed, red.severity) == (False, ERROR)
    assert ": opened_by" in (red.description or "")
    assert "example.com" not in str(red)


@pytest.mark.usefixtures("drained")
def test_hours_are_counted_by_windows_with_aggregates(one: Orchestration) -> None:
    execute(one.settings, f"CREATE TABLE kept AS SELECT * FROM {TUMBLING}")
    [(hour,)] = rows(one.settings, "SELECT date_trunc('hour', now()) - interval '1 hour'")
    moved = f"window_start = window_start + ('{hour}'::timestamptz - '{NOON}'::timestamptz)"
    [stream] = load_streams(one.settings)
    with (
        broken(
            one.settings,
            f"UPDATE {TUMBLING} SET {moved}",
            mend=[
                f"DELETE FROM {TUMBLING}",
                f"INSERT INTO {TUMBLING} SELECT * FROM kept",
                "DROP TABLE kept",
            ],
        ),
        session(one.settings, "test") as connection,
    ):
        # The later ones are of an hour that is still to come.
        assert counted_by_hour(connection, stream, 25) == [(hour, EVENTS - LATER)]


def test_private_columns_hold_hashes_only(database: Settings) -> None:
    streams = {"STREAMFLOW_STREAMS": "dagster_windows:LOGINS"}
    schema.upgrade(database, [LOGINS])
    hashed = "a" * 64
    insert = (
        "INSERT INTO events_1h (window_start, window_end, user_email, n, least, counted, too_late,"
        " partition, late, first_offset, last_offset, origin_topic, record_topic, record_partition,"
        " record_offset) VALUES (now(), now(), '{}', 1, '{}', 1, 0, 0, false, {}, 0, 't', 't', 0, {})"
    )
    execute(database, insert.format(hashed, hashed, 0, 0))
    with dg.DagsterInstance.ephemeral() as instance:
        one = Orchestration(instance, orchestrated(database, **streams))
        assert one.check("postgres/events_1h", "no_clear_text_address").passed
        execute(database, insert.format(hashed, "ann", 1, 1))
        red = one.check("postgres/events_1h", "no_clear_text_address")
    assert (red.passed, red.severity) == (False, ERROR)
    assert "first t/0/1: least" in (red.description or "")
