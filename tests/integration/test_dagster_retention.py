"""Retention drops whole days, only what Kafka holds no longer, and nothing while the audit is red."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from confluent_kafka import TopicPartition

import pipeline
from loads import execute, rows, value
from orchestration import Orchestration, metadata_of, orchestrated
from streamflow.kafka.clients import admin
from streamflow.postgres import schema
from streamflow.registry import load_streams
from streamflow.settings import Settings
from window_parts import HOPPING, ORDERS, TUMBLING, orders

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("exact_row_counts")]

KEY = "operations/events_retention"
EVENTS = "SELECT count(*) FROM events"


@pytest.fixture
def one(stack_settings: Settings) -> Iterator[Orchestration]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Orchestration(instance, orchestrated(stack_settings, STREAMFLOW_AUDIT_PATIENCE=30))


def told(result: dg.ExecuteInProcessResult) -> str:
    [failure] = [event for event in result.all_events if event.is_step_failure]
    return failure.step_failure_data.error_display_string


def test_days_go_when_they_are_old_and_kafka_has_let_them_go(
    one: Orchestration, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    moments = [now - timedelta(days=days) for days in (400, 20, 20, 10, 0)]
    values = [pipeline.event(number, at=each) for number, each in enumerate(moments)]
    # 400 days ago has rows in the default partition: its own cannot be made any more.
    pipeline.produce(one.settings, "user-events", values)
    with pipeline.workers(one.settings, tmp_path):
        assert pipeline.audit(one.settings).closed
        counted = "SELECT coalesce(sum(count), 0)::bigint FROM window_counts"
        pipeline.wait_until(lambda: value(one.settings, counted) == 5, 60, "closed windows")
        assert pipeline.audit(one.settings).closed
    one.materialize("rollups/daily_active_users")
    day = moments[1].date()

    off = metadata_of(one.materialize(KEY), KEY)
    assert (off["retention_days"], off["rows"]) == ("unlimited", 0)

    one.change(events_retention_days=15)
    kept = metadata_of(one.materialize(KEY), KEY)
    assert (kept["rows"], kept["days_kept_for_kafka"]) == (0, 2)
    assert f"events {day}: 2 of 2 records are still in Kafka" in kept["kept"]

    topic = f"{one.settings.prefix}user-events"
    client = admin(one.settings)
    ends = [TopicPartition(topic, each, -1) for each in range(3)]
    for future in client.delete_records(ends).values():
        future.result(20)

    # One row of another day is missing: the audit is red by its window.
    execute(one.settings, "CREATE TABLE lost AS SELECT * FROM events WHERE id = 3")
    execute(one.settings, "DELETE FROM events WHERE id = 3")
    refused = one.materialize(KEY)
    assert not refused.success
    assert "nothing of a stream is dropped while its audit is red" in told(refused)
    assert "0 events, 1 counted" in told(refused)
    assert value(one.settings, EVENTS) == 4
    execute(one.settings, "INSERT INTO events SELECT * FROM lost")

    done = metadata_of(one.materialize(KEY), KEY)
    assert (done["rows"], done["days"], done["days_kept_for_kafka"]) == (3, 2, 0)
    assert f"events {day}: 2 rows" in done["dropped"]
    assert value(one.settings, EVENTS) == 2
    assert rows(one.settings, "SELECT day, rows FROM dropped_days ORDER BY day DESC")[0] == (day, 2)
    assert value(one.settings, f"SELECT to_regclass('events_{day:%Y%m%d}') IS NULL")

    # Windows and rollups of the dropped days stay, and the audit stays green.
    assert pipeline.audit(one.settings, patience=10).closed
    assert one.check("postgres/events", "ledger_closes").passed
    assert value(one.settings, "SELECT sum(count)::bigint FROM window_counts") == 5
    partition = f"{day:%Y-%m-%d}-{moments[1]:%H}:00"
    if moments[1] >= one.settings.rollup_start:
        assert one.materialize("rollups/hourly_events", partition=partition).success
    users = "SELECT sum(users)::bigint FROM daily_active_users"
    before = value(one.settings, users)
    assert one.materialize("rollups/daily_active_users").success
    assert value(one.settings, users) == before

    assert metadata_of(one.materialize(KEY), KEY)["days"] == 0


@pytest.fixture
def ordered(settings: Callable[..., Settings], database_url: str) -> Iterator[Orchestration]:
    streams = {"STREAMFLOW_STREAMS": "window_parts:ORDERS"}
    made = settings(DATABASE_URL=database_url, **streams)
    schema.upgrade(made, load_streams(made))
    with pipeline.topics_of(made), dg.DagsterInstance.ephemeral() as instance:
        yield Orchestration(instance, orchestrated(made, STREAMFLOW_AUDIT_PATIENCE=30, **streams))


def test_days_of_windows_go_as_those_of_events(ordered: Orchestration, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    made = [
        each.order.model_copy(update={"at": now - timedelta(days=days)})
        for each, days in zip(orders(5), (400, 20, 20, 10, 1), strict=True)
    ]
    settings = ordered.settings
    pipeline.produce(settings, "orders", [ORDERS.encode(each)[1] for each in made])
    counted = "SELECT coalesce(sum(counted), 0)::bigint FROM {}"
    with pipeline.workers(settings, tmp_path):
        for table in (TUMBLING, HOPPING):
            query = counted.format(table)
            pipeline.wait_until(
                lambda query=query: value(settings, query) == 5, 90, "closed windows"
            )
        assert pipeline.audit(settings).closed

    ordered.change(windows_retention_days=15)
    kept = metadata_of(ordered.materialize(KEY), KEY)
    assert (kept["rows"], kept["days_kept_for_kafka"], kept["retention_days"]) == (
        0,
        4,
        "unlimited",
    )

    topic = f"{settings.prefix}{ORDERS.analytics_topic}"
    ends = [TopicPartition(topic, each, -1) for each in range(3)]
    client = admin(settings)
    for future in client.delete_records(ends).values():
        future.result(20)
    done = metadata_of(ordered.materialize(KEY), KEY)

    assert (done["days"], done["days_kept_for_kafka"]) == (4, 0)
    for table in (TUMBLING, HOPPING):
        assert value(settings, counted.format(table)) == 2
    gone = rows(settings, "SELECT table_name, count(*) FROM dropped_days GROUP BY 1 ORDER BY 1")
    assert gone == [(TUMBLING, 2), (HOPPING, 2)]
    assert value(settings, "SELECT count(*) FROM orders") == 5
    assert pipeline.audit(settings, patience=10).closed
