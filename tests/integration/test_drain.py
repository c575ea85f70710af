"""A drain loads a topic to its end: alone, beside the loader's worker, and beside another drain."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faults import wait_until
from pipeline import audit, count, events, produce, workers
from streamflow.errors import CircuitOpen
from streamflow.kafka.clients import admin
from streamflow.lag.measure import group_lags
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streaming_workers.drain import Drained, drain

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("exact_row_counts")]

EVENTS = "SELECT count(*) FROM events"


def drained(settings: Settings, *topics: str, patience: float = 1.0) -> Drained:
    names = [settings.prefix + topic for topic in topics or ("user-events",)]
    return drain(settings, load_streams(settings), names, patience=patience)


def test_a_drain_loads_to_the_end_and_again_nothing(stack_settings: Settings) -> None:
    values, invalid = events(5_000, invalid=0.05)
    produce(stack_settings, "user-events", values)
    done = drained(stack_settings)
    assert (done.records, done.rows, done.lag) == (5_000, 5_000 - invalid.total(), 0)
    assert (done.rejected, done.refused, done.duplicates) == (invalid.total(), 0, 0)
    assert done.rate > 0
    assert count(stack_settings, EVENTS) == done.rows
    again = drained(stack_settings)
    assert (again.records, again.rows, again.lag, again.rate) == (0, 0, 0, 0)
    # With nobody in the group, Kafka's own offsets follow.
    assert group_lags(stack_settings, load_streams(stack_settings))["db-group"] == 0


def test_an_empty_topic_has_nothing_to_drain(stack_settings: Settings) -> None:
    assert drained(stack_settings, "notifications").records == 0


def test_a_transaction_marker_at_the_end_is_no_lag(
    stack_settings: Settings, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", events(300)[0])
    with workers(stack_settings, tmp_path, ["validator"]):
        wait_until(
            lambda: (
                group_lags(stack_settings, load_streams(stack_settings))["notification-group"] == 0
            ),
            60,
        )
    done = drained(stack_settings, "notifications")
    assert (done.records, done.lag) == (300, 0)


def test_several_drains_at_once_store_each_record_once(stack_settings: Settings) -> None:
    produce(stack_settings, "user-events", events(60_000)[0])
    # Without patience they race for every batch.
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: drained(stack_settings, patience=0), range(3)))
    assert count(stack_settings, EVENTS) == 60_000
    assert sum(each.records for each in done) == 60_000
    assert {each.lag for each in done} == {0}


@pytest.mark.parametrize("patience", [0.0, pytest.param(1.0, marks=pytest.mark.chaos)])
def test_a_drain_beside_the_worker_is_exact(
    stack_settings: Settings, tmp_path: Path, patience: float
) -> None:
    produce(stack_settings, "user-events", events(30_000)[0])
    with workers(stack_settings, tmp_path) as running:
        running["loader"].wait_assigned()
        produce(stack_settings, "user-events", events(60_000, seed=2)[0])
        done = drained(stack_settings, patience=patience)
        assert done.lag == 0
        report = audit(stack_settings)
        assert running["loader"].process.poll() is None
    assert report.closed, report.problems[:5]
    assert count(stack_settings, EVENTS) == 90_000
    # Rows that the worker stored after the drain looked first are told apart from its own.
    assert done.records + done.by_others <= 90_000


def test_records_removed_by_retention_are_passed_over(stack_settings: Settings) -> None:
    from confluent_kafka import TopicPartition

    produce(stack_settings, "user-events", events(900)[0])
    drained(stack_settings)
    produce(stack_settings, "user-events", events(900, seed=2)[0])
    topic = f"{stack_settings.prefix}user-events"
    ends = [TopicPartition(topic, each, -1) for each in range(3)]
    client = admin(stack_settings)
    for future in client.delete_records(ends).values():
        future.result(20)
    produce(stack_settings, "user-events", events(30, seed=3)[0])
    done = drained(stack_settings)
    assert (done.records, done.lag) == (30, 0)


def test_a_drain_of_nothing_but_rejects_stops_before_harm(stack_settings: Settings) -> None:
    changed = stack_settings.model_copy(update={"breaker_consecutive": 50})
    produce(stack_settings, "user-events", [b"{"] * 300)
    with pytest.raises(CircuitOpen):
        drained(changed)
    assert count(stack_settings, "SELECT coalesce(sum(records), 0) FROM loader_positions") == 0
