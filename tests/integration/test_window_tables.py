"""Windows with aggregates: from records of their parts to rows and totals, in a real database."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from psycopg import sql

from loads import FakeRecord, Load, execute, rows, value
from streamflow.audit import recreated
from streamflow.dead_letters import store
from streamflow.postgres import schema
from streamflow.postgres.connections import session
from streamflow.postgres.windows.tables import window_tables
from streamflow.postgres.windows.totals import totals_query
from streamflow.settings import Settings
from streamflow.signing import Signer
from window_parts import (
    HOPPING,
    NOON,
    ORDERS,
    TUMBLING,
    orders,
    part,
    parts_of,
    record,
    shown,
    totals,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def database(database: Settings) -> Settings:
    schema.upgrade(database, [ORDERS])
    return database


@pytest.fixture
def load(database: Settings) -> Iterator[Load]:
    made = Load(database, [ORDERS])
    yield made
    made.sink.close()


@pytest.mark.parametrize("name", [TUMBLING, HOPPING])
def test_totals_are_those_of_the_events(load: Load, database: Settings, name: str) -> None:
    placed = orders(700)
    parts = list(parts_of(placed, name))
    load.load([record(offset, part) for offset, part in enumerate(parts)])

    assert load.delivered == []
    assert value(database, f"SELECT count(*) FROM {name}") == len(parts)
    assert shown(database, name) == totals(placed, name)
    assert rows(database, "SELECT table_name, count(*) FROM window_rows GROUP BY 1") == [
        (name, len(parts))
    ]


def test_a_part_is_in_the_partition_of_its_day(load: Load, database: Settings) -> None:
    day = {"window_start": "2026-02-27T23:59:50.000Z", "window_end": "2026-02-28T00:00:00.000Z"}
    load.load([record(0, part(0, **day)), record(1, part(1))])

    query = "SELECT tableoid::regclass::text FROM orders_10s ORDER BY first_offset"
    assert rows(database, query) == [("orders_10s_20260227",), ("orders_10s_20260301",)]


def test_windows_of_the_ends_of_the_calendar(load: Load, database: Settings) -> None:
    [minute] = parts_of(orders(1, partitions=1), HOPPING)
    ends = {"window_start": "0001-01-01T00:00:00.000Z", "window_end": "0001-01-01T00:01:00.000Z"}
    last = {"window_start": "9999-12-31T23:59:00.000Z", "window_end": "9999-12-31T23:59:59.999Z"}
    moved = {"first_offset": 1, "last_offset": 1}
    load.load([record(0, minute | ends), record(1, minute | last | moved)])

    query = (
        "SELECT (window_start AT TIME ZONE 'UTC')::text, (window_end AT TIME ZONE 'UTC')::text, orders"
        " FROM orders_5min_by_1min_totals ORDER BY window_start, window_end"
    )
    found = rows(database, query)
    assert len(found) == 10
    assert found[0] == ("0001-01-01 00:00:00", "0001-01-01 00:01:00", 1)
    assert found[-1] == ("9999-12-31 23:59:00", "9999-12-31 23:59:59.999", 1)


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"window": "orders_9s"}, "UNKNOWN_TYPE", "'orders_9s', which no stream declares"),
        ({"window": 1}, "SCHEMA_VIOLATION", ""),
        ({"counted": 2}, "SCHEMA_VIOLATION", "a validator"),
        ({"counted": 0}, "SCHEMA_VIOLATION", "a validator"),
        ({"by": {}}, "SCHEMA_VIOLATION", "country"),
        ({"aggregates": {}}, "SCHEMA_VIOLATION", "orders"),
        ({"more": 1}, "SCHEMA_VIOLATION", ""),
    ],
)
def test_a_record_that_is_no_part_is_a_dead_letter(
    load: Load, database: Settings, changes: dict[str, Any], code: str, says: str
) -> None:
    load.load([record(0, part(0)), record(1, part(1, **changes)), record(2, part(2))])

    assert value(database, "SELECT count(*) FROM orders_10s") == 2
    assert value(database, "SELECT count(*) FROM window_counts") == 0
    [letter] = load.delivered
    headers = dict(letter.headers)
    assert headers["__streamflow.error_code"] == code.encode()
    assert says.encode() in headers["__connect.errors.exception.message"]


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("orders", -1),
        ("orders", 2**63),
        ("revenue", "NaN"),
        ("revenue", "1e999999"),
        ("mean_total", {"sum": "1"}),
        ("latest", "2026-03-01"),
        ("opened_by", {"value": 1, "time": "2026-03-01T12:00:00Z", "offset": 1}),
        ("customers", {"theta": 0, "hashes": []}),
        ("customers", {"theta": 1, "hashes": [2**63]}),
        ("sizes", {"values": [1.0], "weights": []}),
    ],
)
def test_a_state_that_is_none_is_a_dead_letter(load: Load, name: str, state: Any) -> None:
    wrong = part()
    wrong["aggregates"][name] = state

    load.load([record(0, wrong)])

    [letter] = load.delivered
    assert name.encode() in dict(letter.headers)["__connect.errors.exception.message"]


def test_a_part_whose_table_takes_none_is_a_dead_letter(load: Load, database: Settings) -> None:
    """And no error of the database, which would end the loader; replayed later, it counts."""
    load.loader.unfit_windows = {TUMBLING: "the windows were counted by another declaration"}
    load.load([record(0, part(0))])
    [letter] = load.delivered
    headers = dict(letter.headers)
    assert headers["__streamflow.error_code"] == b"UNKNOWN_TYPE"
    assert b"takes no rows of what is declared" in headers["__connect.errors.exception.message"]
    assert value(database, f"SELECT count(*) FROM {TUMBLING}") == 0
    load.loader.unfit_windows = {}
    load.load([record(1, part(1))])
    assert value(database, f"SELECT count(*) FROM {TUMBLING}") == 1


def test_a_part_of_late_events_that_were_not_aggregated(load: Load, database: Settings) -> None:
    nothing = {
        "counted": 0, "too_late": 1, "late": True,
        "aggregates": {
            "orders": 0, "quantities": 0, "revenue": None, "weight": None, "placed": None,
            "mean_total": {"sum": None, "count": 0}, "mean_weight": {"sum": None, "count": 0},
            "cheapest": None, "heaviest": None, "first_name": None, "latest": None, "opened_by": None,
            "closed_by": None, "customers": {"theta": 2**63 - 1, "hashes": []},
            "sizes": {"values": [], "weights": []},
        },
    }  # fmt: skip
    load.load([record(0, part(0)), record(1, part(1, **nothing))])
    before = shown(database, TUMBLING)
    load.load([record(2, part(2, **nothing))])

    assert load.delivered == []
    [(key, total)] = before.items()
    assert (total["orders"], total["customers"], total["counted"], total["too_late"]) == (
        1,
        1,
        1,
        1,
    )
    assert shown(database, TUMBLING) == {key: total | {"too_late": 2}}


def test_a_window_of_nothing_but_late_events(load: Load, database: Settings) -> None:
    test_a_part_of_late_events_that_were_not_aggregated(load, database)
    execute(database, "DELETE FROM orders_10s WHERE counted > 0")

    [total] = shown(database, TUMBLING).values()
    kept = {"orders": 0, "quantities": 0, "customers": 0, "counted": 0, "too_late": 2}
    assert total == dict.fromkeys(total) | kept


def test_a_part_that_is_there_already_is_a_duplicate(load: Load, database: Settings) -> None:
    load.load([record(0, part(5))])
    load.load([record(1, part(5)), record(2, part(6))])

    assert rows(database, "SELECT record_offset FROM orders_10s ORDER BY 1") == [(0,), (2,)]
    query = 'SELECT topic, "offset", origin_offset, table_name FROM duplicates'
    assert rows(database, query) == [("o-analytics", 1, 5, "orders_10s")]


def test_only_signed_parts_count(database: Settings) -> None:
    strict = Load(database, [ORDERS], Signer(b"of these tests"))
    try:
        strict.load([record(0, part())])
    finally:
        strict.sink.close()

    assert value(database, "SELECT count(*) FROM window_rows") == 0
    assert dict(strict.delivered[0].headers)["__streamflow.error_code"] == b"FOREIGN_RECORD"


def test_a_replayed_part_is_the_one_that_failed(load: Load, database: Settings) -> None:
    """A part of windows that were not declared at first is a dead letter, and a row once it is replayed."""
    failed = record(3, part(7, window="orders_9s"))
    load.load([failed])
    letter = load.delivered.pop()
    kept = FakeRecord(0, letter.value, topic=ORDERS.dead_letter_topic, headers=list(letter.headers))
    load.load([kept])
    load.sent(f"{ORDERS.analytics_topic}/0/3", f"{ORDERS.analytics_topic}/0/9")

    strict = Load(database, [ORDERS], Signer(b"of these tests"))
    try:
        strict.load([FakeRecord(9, record(9, part(7)).value(), topic=ORDERS.analytics_topic)])
    finally:
        strict.sink.close()

    assert strict.delivered == []
    query = "SELECT origin_topic, first_offset, record_offset FROM orders_10s"
    assert rows(database, query) == [("orders", 7, 9)]
    with session(database, "test") as connection:
        store.settle(connection)
    assert value(database, "SELECT outcome FROM replay_records") == "stored"


def test_a_span_of_time_reads_only_its_days(load: Load, database: Settings) -> None:
    placed = orders(300)
    days = [timedelta(days=0), timedelta(days=1)]
    moved = [
        each._replace(
            offset=each.offset + 1_000 * number,
            order=each.order.model_copy(update={"at": each.order.at + day}),
        )
        for number, day in enumerate(days)
        for each in placed
    ]
    parts = [*parts_of(moved, TUMBLING), *parts_of(moved, HOPPING)]
    load.load([record(offset, part) for offset, part in enumerate(parts)])
    until = NOON + timedelta(hours=1)

    with session(database, "test") as connection:
        for table in window_tables(ORDERS):
            span = {"since": NOON, "until": until}
            query = totals_query(table, within=True)
            found = connection.execute(query, span).fetchall()
            of_day = [key for key in totals(moved, table.name) if key[0] < until]
            assert len(found) == len(of_day) > 100
            plan = connection.execute(sql.SQL("EXPLAIN ") + query, span).fetchall()
            assert "20260302" not in str(plan)
            assert "20260301" in str(plan)
        query = sql.SQL("EXPLAIN SELECT * FROM orders_10s_totals WHERE window_start < {}")
        plan = connection.execute(query.format(sql.Literal(until))).fetchall()
        assert "20260302" not in str(plan)


@pytest.mark.parametrize(
    ("topic", "column"),
    [(ORDERS.topic, "origin_topic"), (ORDERS.analytics_topic, "record_topic")],
)
def test_parts_of_a_recreated_topic_are_set_aside(
    load: Load, database: Settings, topic: str, column: str
) -> None:
    parts = [*parts_of(orders(20), TUMBLING)]
    load.load([record(offset, part) for offset, part in enumerate(parts)])
    since = dict.fromkeys(range(3), 0)
    reuse = recreated.Reuse(topic, f"{topic}@old", "new", "recreated", since, "old")

    with session(database, "test") as connection, connection.transaction():
        affected = recreated.affected_rows(connection, [ORDERS], reuse)
        recreated.set_aside(connection, [ORDERS], reuse, load.loader.group, {})

    assert affected == {TUMBLING: len(parts)}
    query = f"SELECT {column}, count(*) FROM window_rows GROUP BY 1"
    assert rows(database, query) == [(f"{topic}@old", len(parts))]
    load.load([record(offset, part) for offset, part in enumerate(parts)])
    if column == "origin_topic":
        assert value(database, "SELECT count(*) FROM orders_10s") == 2 * len(parts)
