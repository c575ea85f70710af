"""Topics, tables and rollups, materialized against the real broker and database."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from confluent_kafka.admin import NewPartitions

import pipeline
from loads import execute, rows, value
from orchestration import Orchestration, metadata_of, orchestrated
from streamflow.kafka.clients import admin
from streamflow.postgres.existing_tables import existing_columns
from streamflow.postgres.tables import SHARED_COLUMNS
from streamflow.settings import Settings
from streamflow_dagster.catalog import catalog_of
from streamflow_dagster.defs.content_checks import column_drifts

pytestmark = pytest.mark.integration

DAY = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def one(stack_settings: Settings) -> Iterator[Orchestration]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Orchestration(instance, orchestrated(stack_settings))


def login(number: int, at: datetime, user: str = "ann", kind: str = "USER_LOGIN") -> bytes:
    body = pipeline.event(number, at=at, kind=kind).decode()
    return body.replace(f"user-{number % 997}", user).encode()


def test_a_topic_is_created_grown_and_never_shrunk(one: Orchestration) -> None:
    client = admin(one.settings)
    name = f"{one.settings.prefix}notifications"
    client.delete_topics([name])[name].result(20)
    pipeline.wait_until(lambda: name not in client.list_topics(timeout=5).topics, 20)
    result = one.materialize("kafka/notifications")
    assert result.success
    assert metadata_of(result, "kafka/notifications")["partitions"] == 3
    [verdict] = result.get_asset_check_evaluations()
    assert (verdict.check_name, verdict.passed) == ("as_declared", True)

    client.create_partitions([NewPartitions(name, 5)])[name].result(20)
    pipeline.wait_until(lambda: len(client.list_topics(timeout=5).topics[name].partitions) == 5, 20)
    grown = one.materialize("kafka/notifications")
    assert grown.success
    measured = metadata_of(grown, "kafka/notifications")
    assert (measured["partitions"], measured["changed"]) == (5, "nothing")
    verdict = one.check("kafka/notifications", "as_declared")
    assert not verdict.passed
    assert "partitions was 5, 3 is declared" in (verdict.description or "")
    assert "raise the declaration" in (verdict.description or "")


def test_a_missing_topic_is_a_blocking_error(one: Orchestration) -> None:
    client, name = admin(one.settings), f"{one.settings.prefix}analytics"
    client.delete_topics([name])[name].result(20)
    pipeline.wait_until(lambda: name not in client.list_topics(timeout=5).topics, 20)
    verdict = one.check("kafka/analytics", "as_declared")
    assert (verdict.passed, verdict.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "materialize kafka/analytics" in (verdict.description or "")


def test_a_topic_tells_records_and_not_offsets(one: Orchestration) -> None:
    values, _ = pipeline.events(120)
    pipeline.produce(one.settings, "user-events", values)
    found = metadata_of(one.materialize("kafka/user_events"), "kafka/user_events")
    assert (found["records"], found["offsets_held"], found["retention_hours"]) == (120, 120, 168)
    assert found["bytes"] > sum(map(len, values))
    one.change(count_offsets=100)
    found = metadata_of(one.materialize("kafka/user_events"), "kafka/user_events")
    assert "records" not in found
    assert found["records_unknown"] == "not counted: more than 100 offsets"


def test_every_asset_is_materialized_in_one_run(one: Orchestration) -> None:
    values, invalid = pipeline.events(500, invalid=0.05)
    pipeline.produce(one.settings, "user-events", values)
    pipeline.produce(one.settings, "dead-letter-topic", [b"foreign"] * 3)
    for key in ("kafka", "postgres"):
        result = one.materialize(
            *(
                each.to_user_string()
                for each in one.definitions.resolve_asset_graph().materializable_asset_keys
                if each.path[0] == key
            )
        )
        assert result.success
    events = metadata_of(result, "postgres/events")
    assert (events["rows"], events["rejected"]) == (500 - invalid.total(), invalid.total())
    assert events["remaining_lag"] == 0
    assert events["records_per_second"] > 0
    assert metadata_of(result, "postgres/dead_letters")["rows"] == 3
    rollups = one.materialize(
        "rollups/daily_active_users",
        "rollups/login_failure_bursts",
        "rollups/dead_letters_by_cause",
    )
    assert rollups.success
    assert value(one.settings, "SELECT sum(events) FROM daily_active_users") == events["rows"]
    assert metadata_of(rollups, "rollups/dead_letters_by_cause")["letters"] == 3


def test_totals_of_dead_letters_include_rare_causes(one: Orchestration) -> None:
    pipeline.produce(one.settings, "dead-letter-topic", [b"foreign"])
    one.materialize("postgres/dead_letters")
    execute(
        one.settings,
        "INSERT INTO dead_letters SELECT (jsonb_populate_record(letter, jsonb_build_object("
        "'source_offset', source_offset + number, 'error_code', 'CODE_' || number))).*"
        " FROM dead_letters AS letter, generate_series(1, 30) AS number",
    )
    rollups = one.materialize("rollups/dead_letters_by_cause")
    found = metadata_of(rollups, "rollups/dead_letters_by_cause")
    assert (found["letters"], found["open"]) == (31, 31)


def test_hours_are_backfilled_in_one_run_and_again(one: Orchestration) -> None:
    at = [DAY + timedelta(minutes=20 * number) for number in range(30)]
    pipeline.produce(one.settings, "user-events", [login(n, each) for n, each in enumerate(at)])
    one.materialize("postgres/events")
    tags = {
        "dagster/asset_partition_range_start": "2026-03-01-00:00",
        "dagster/asset_partition_range_end": "2026-03-01-23:00",
    }
    for _ in range(2):
        result = one.materialize("rollups/hourly_events", tags=tags)
        assert result.success
        found = rows(one.settings, "SELECT hour, events, users FROM hourly_events ORDER BY hour")
        assert found == [(DAY + timedelta(hours=n), 3, 1) for n in range(10)]
    single = one.materialize("rollups/hourly_events", partition="2026-03-01-04:00")
    assert metadata_of(single, "rollups/hourly_events") == {"rows": 1, "hours": 1}


def test_late_events_correct_the_days_they_belong_to(one: Orchestration) -> None:
    pipeline.produce(one.settings, "user-events", [login(1, DAY), login(2, DAY, "bob")])
    one.materialize("postgres/events")
    one.materialize("rollups/daily_active_users")
    pipeline.produce(one.settings, "user-events", [login(3, DAY, "cleo")])
    one.materialize("postgres/events")
    one.materialize("rollups/daily_active_users")
    assert rows(one.settings, "SELECT users, events FROM daily_active_users") == [(3, 3)]


def test_a_brute_force_attack_is_found_and_honest_mistakes_are_not(one: Orchestration) -> None:
    failed = "USER_LOGIN_FAILED"
    attack = [login(n, DAY + timedelta(hours=9, seconds=20 * n), "root", failed) for n in range(40)]
    attack.append(login(50, DAY + timedelta(hours=9, minutes=15), "root"))
    honest = [login(100 + n, DAY + timedelta(hours=n), "ann", failed) for n in range(12)]
    spraying = [
        login(200 + n, DAY + timedelta(hours=20, seconds=n), f"guess{n}", failed) for n in range(30)
    ]
    # Half of it on each side of midnight.
    night = [
        login(300 + n, DAY + timedelta(hours=24, seconds=15 * n - 60), "eve", failed)
        for n in range(8)
    ]
    pipeline.produce(one.settings, "user-events", [*attack, *honest, *spraying, *night])
    one.materialize("postgres/events")
    result = one.materialize("rollups/login_failure_bursts")
    assert result.success
    # Dagster keeps what it shows, and nobody can be forgotten there.
    shown = str(metadata_of(result, "rollups/login_failure_bursts"))
    assert "peak" in shown
    assert "root" not in shown
    found = rows(
        one.settings,
        'SELECT scope, "user", failures, users, peak, succeeded FROM login_failure_bursts'
        " ORDER BY started_at, scope DESC",
    )
    assert found == [
        ("user", "root", 40, 1, 16, True),
        ("all", "", 30, 30, 30, False),
        ("user", "eve", 4, 1, 4, False),
        ("user", "eve", 4, 1, 8, False),
    ]


def naive_bursts(at: list[float], enough: int, span: float) -> list[tuple[float, float, int]]:
    """The definition, word by word and slowly."""
    members = [
        each
        for each in at
        if any(
            start <= each <= start + span
            and sum(start <= other <= start + span for other in at) >= enough
            for start in at
        )
    ]
    bursts: list[list[float]] = []
    for each in members:
        if bursts and each - bursts[-1][-1] <= span:
            bursts[-1].append(each)
        else:
            bursts.append([each])
    return [(burst[0], burst[-1], len(burst)) for burst in bursts]


def test_bursts_are_what_their_definition_says(one: Orchestration) -> None:
    import random

    chance = random.Random(7)
    noon = DAY + timedelta(hours=12)
    moments: dict[str, list[float]] = {}
    for user in ("a", "b", "c"):
        clock = 0.0
        for _ in range(150):
            clock += chance.choice([1, 20, 45, 70, 200, 700])
            moments.setdefault(user, []).append(clock)
    events = [
        login(n, noon + timedelta(seconds=clock), user, "USER_LOGIN_FAILED")
        for n, (user, clock) in enumerate(
            (user, clock) for user, clocks in moments.items() for clock in clocks if clock < 43_000
        )
    ]
    pipeline.produce(one.settings, "user-events", events)
    one.materialize("postgres/events")
    one.materialize("rollups/login_failure_bursts")
    for user, clocks in moments.items():
        expected = naive_bursts([clock for clock in clocks if clock < 43_000], 5, 300)
        found: list[Any] = rows(
            one.settings,
            "SELECT extract(epoch FROM started_at), extract(epoch FROM ended_at), failures"
            f" FROM login_failure_bursts WHERE \"user\" = '{user}' ORDER BY 1",
        )
        start = noon.timestamp()
        assert expected
        assert [(float(a) - start, float(b) - start, n) for a, b, n in found] == expected


def test_the_declared_columns_are_those_of_the_database(one: Orchestration) -> None:
    catalog = catalog_of(one.settings, one.platform.streams(one.settings))
    with one.platform.database(one.settings) as connection:
        for entry in catalog.tables:
            actual = existing_columns(connection, entry.table.name)
            assert column_drifts(entry, actual) == []
            assert list(actual) == list(entry.columns) or entry.table.name in SHARED_COLUMNS
