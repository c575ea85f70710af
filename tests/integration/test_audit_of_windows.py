"""The audit of windows with aggregates: they tell what the events tell, and each value that does not is
named."""

import json
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from pydantic import BaseModel, Field

from conftest import SettingsFactory
from faults import wait_until
from installations import Installation
from loads import execute, rows, value
from pipeline import folder, produce, streamflow, topics_of, workers
from streamflow import (
    Count,
    Distinct,
    Event,
    First,
    Hashed,
    Last,
    Max,
    Mean,
    Min,
    Quantiles,
    Stream,
    Sum,
    Timestamp,
    TumblingWindow,
)
from streamflow.audit.due import DueWindows
from streamflow.audit.gap_ledger import known_gaps
from streamflow.audit.recreated import Reuse, keep_underived
from streamflow.audit.window_ledger import (
    acknowledge_differences,
    acknowledged_differences,
    keep_differences,
)
from streamflow.audit.windows import conditions
from streamflow.audit.windows.counts import reconcile
from streamflow.audit.windows.parts import TopicsOfParts
from streamflow.postgres import schema
from streamflow.postgres.connections import session
from streamflow.records import Position
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow.windows.plans import plans_of
from window_parts import HOPPING, NOON, ORDERS, TUMBLING, Order, Placed, orders

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.mark.parametrize("seed", [1, 2])
def test_windows_that_tell_what_the_events_tell(database: Settings, seed: int) -> None:
    own = Installation(database)
    placed = orders(1_500, seed, partitions=2)
    own.load(placed, seed=seed)

    for name in (TUMBLING, HOPPING):
        assert own.problems(name) == []
        compared = [own.compare(name, partition) for partition in range(2)]
        emitted = sum(each.events.total() for each in compared)
        assert emitted + sum(each.open.total() for each in compared) == len(placed)
        assert emitted > 0.8 * len(placed)
        assert sum(each.cells for each in compared) > 100


def in_order(number: int) -> list[Placed]:
    """Events of one minute, in the order of their times."""
    made = [each.order for each in orders(number)]
    placed = [
        order.model_copy(update={"at": NOON + (order.at - NOON) / 10})
        for order in sorted(made, key=lambda order: order.at)
    ]
    return [Placed(place % 2, place // 2, order) for place, order in enumerate(placed)]


ROW = "(partition, first_offset, window_start) = ({partition}, {first}, '{start}')"
# What is changed in one row, and what is said of its cell.
PLANTED = {
    "orders = orders + 1": "orders is {orders:+1}, the events give {orders}",
    "quantities = quantities + 1": "quantities is {quantities:+1}, the events give {quantities}",
    "revenue = revenue + 1": "revenue is {revenue:+1}, the events give {revenue}",
    "weight = weight + 1e-40": "weight is ",
    "placed = coalesce(placed, 0) - 1": "placed is ",
    "mean_total_sum = mean_total_sum - 0.01": "mean_total_sum is ",
    "mean_weight_count = mean_weight_count + 1": "mean_weight_count is {orders:+1}, the events give {orders}",
    "cheapest = cheapest + 1": "cheapest is {cheapest:+1}, the events give {cheapest}",
    "heaviest = NULL": "heaviest is null, the events give {heaviest}",
    "first_name = 'Zoe'": "first_name is Zoe, the events give {first_name}",
    "latest = latest + interval '1 us'": "latest is ",
    "opened_by = 'nobody'": "opened_by is nobody, the events give {opened_by}",
    "closed_by_offset = closed_by_offset + 1": (
        "closed_by_offset is {closed_by_offset:+1}, the events give {closed_by_offset}"
    ),
    "closed_by_time = closed_by_time - interval '1 us'": "closed_by_time is ",
    "customers_hashes = customers_hashes[2:]": "customers is {distinct:-1}, the events give {distinct}",
    "customers_hashes[1] = customers_hashes[1] - 1": (
        "customers is {distinct}, of other values than the events give"
    ),
    "customers_hashes[2] = customers_hashes[1]": "customers has {distinct} hashes with theta {NO_THETA}, and",
    "customers_hashes[1] = NULL": "customers has {distinct} hashes with theta {NO_THETA}, and no ",
    "customers_theta = 1": "customers has {distinct} hashes with theta 1, and no sketch is so",
    "customers_theta = customers_theta - 1": "customers has {distinct} hashes with theta {NO_THETA:-1}, and",
    "customers_theta = customers_theta / 2": "customers has {distinct} hashes with theta ",
    "sizes_values[1] = sizes_values[1] - 1e-3": "sizes is of other numbers than the events give",
    "(sizes_values, sizes_weights) = (sizes_values || 0.5::float8, sizes_weights || 1::bigint)": (
        "sizes is of {orders:+1} numbers, the events give {orders}"
    ),
    "sizes_weights[1] = 2": "sizes has {orders} values with {orders} weights, and no sketch is so",
    "sizes_weights = sizes_weights[2:]": "sizes has {orders} values with {orders:-1} weights, and no sketch",
    "sizes_values = sizes_values || 1e300::float8": "sizes has {orders:+1} values with {orders} weights, and",
    "sizes_values[1] = 'NaN'": "sizes has {orders} values with {orders} weights, and no sketch is so",
    "counted = counted - 1": "{orders} events, {orders:-1} counted",
    "(counted, late) = (counted - 1, true)": "{orders} events, {orders:-1} counted",
    "last_offset = last_offset + 1": "its parts are of offsets {first_offset} to {last_offset:+1}, the",
}
# Of a part alone: no group is told.
IN_PART = {
    "window_end = window_end + interval '1 hour'": "window_end is 2026-03-01T13:00:",
    "window_end = window_end - interval '1 us'": "window_end is 2026-03-01T12:00:",
    "(counted, too_late, orders) = (counted - 1, 1, orders - 1)": (
        "too_late is 1, and that is no correction, in which alone events can come too late"
    ),
    "(counted, too_late, orders, revenue, late) = (counted - 1, 1, orders - 1, 2 * revenue, true)": (
        "too_late is 1, and these windows were never declared with late_after"
    ),
}


class _Number(int):
    def __format__(self, change: str) -> str:
        return str(self + int(change or 0))


class _Decimal(Decimal):
    def __format__(self, change: str) -> str:
        return f"{Decimal(self) + int(change or 0):f}"


def shown_values(row: dict[str, Any]) -> dict[str, Any]:
    row = row | {"distinct": len(row["customers_hashes"]), "NO_THETA": row["customers_theta"]}
    kinds: dict[type, Callable[[Any], Any]] = {int: _Number, Decimal: _Decimal}
    return {name: kinds.get(type(each), lambda same: same)(each) for name, each in row.items()}


def test_each_planted_fault_is_named(database: Settings) -> None:
    own = Installation(database)
    own.load(in_order(600))
    execute(database, "CREATE TABLE kept AS TABLE orders_10s")
    [row] = dict_rows(
        database,
        "SELECT * FROM orders_10s AS part WHERE counted > 2 AND country = 'DE' AND NOT EXISTS (SELECT"
        " FROM orders_10s AS other WHERE (other.window_start, other.country, other.partition)"
        " = (part.window_start, part.country, part.partition) AND other.first_offset <> part.first_offset)"
        " ORDER BY record_offset LIMIT 1",
    )
    assert not own.problems()
    of_row = ROW.format(
        partition=row["partition"], first=row["first_offset"], start=row["window_start"]
    )
    group = f"window orders_10s {row['window_start']:%Y-%m-%dT%H:%M:%SZ} country=DE: "
    values = shown_values(row)

    def planted(statement: str) -> list[str]:
        execute(database, statement)
        problems = own.problems()
        execute(database, "DELETE FROM orders_10s; INSERT INTO orders_10s SELECT * FROM kept")
        return problems

    for change, said in PLANTED.items():
        [problem] = planted(f"UPDATE orders_10s SET {change} WHERE {of_row}")
        assert problem.startswith(group + said.format(**values)), (change, problem)
    for change, said in IN_PART.items():
        [problem] = planted(f"UPDATE orders_10s SET {change} WHERE {of_row}")
        assert problem.startswith(group.replace(" country=DE", "") + said), (change, problem)
    for change in (
        "too_late = too_late + 1",
        "counted = counted - 10 ^ 6",
        "last_offset = first_offset",
    ):
        assert len(planted(f"UPDATE orders_10s SET {change} WHERE {of_row}")) == 2, change
    [problem] = planted(f"DELETE FROM orders_10s WHERE {of_row}")
    assert problem.startswith(f"{group}{row['counted']} events, 0 counted")
    copied = ", ".join(name for name in row if name != "first_offset")
    problem, *_ = planted(
        f"INSERT INTO orders_10s ({copied}, first_offset) SELECT {copied}, last_offset FROM orders_10s"
        f" WHERE {of_row}"
    )
    assert problem.startswith(f"{group}{row['counted']} events, {2 * row['counted']} counted")
    moved = planted(f"UPDATE orders_10s SET country = 'a b' WHERE {of_row}")
    assert [problem.split(";")[0] for problem in moved] == [
        f"{group}{row['counted']} events, 0 counted",
        f"{group.replace('DE', chr(34) + 'a b' + chr(34))}0 events, {row['counted']} counted",
    ]
    assert not own.problems()


def test_parts_without_events_are_named(database: Settings) -> None:
    """They bring values into the totals that no event has."""
    own = Installation(database)
    own.load(in_order(200))
    of_row = "WHERE record_offset = (SELECT min(record_offset) FROM orders_10s WHERE partition = 0)"
    [row] = dict_rows(database, f"SELECT * FROM orders_10s {of_row}")
    copied = ", ".join(row.keys() - {"first_offset", "counted", "too_late", "country"})
    execute(
        database,
        f"INSERT INTO orders_10s (first_offset, counted, too_late, country, {copied})"
        f" SELECT first_offset - 1, 0, 0, 'XY', {copied} FROM orders_10s {of_row}",
    )
    *_, problem = own.problems()
    assert ": 0 counted and 0 too late, first_offset " in problem


def test_parts_of_other_topics_and_partitions_are_named(database: Settings) -> None:
    own = Installation(database)
    own.load(in_order(200))
    of_row = "WHERE record_offset = (SELECT min(record_offset) FROM orders_10s WHERE partition = 0)"
    [row] = dict_rows(database, f"SELECT * FROM orders_10s {of_row}")

    def problems(**changes: object) -> list[str]:
        with psycopg.connect(database.database) as connection:
            made = connection.execute(
                sql.SQL("INSERT INTO orders_10s SELECT {} FROM orders_10s {}").format(
                    sql.SQL(", ").join(
                        sql.Literal(changes[name]) if name in changes else sql.Identifier(name)
                        for name in row
                    ),
                    sql.SQL(of_row),
                )
            )
            assert made.rowcount == 1
        found = own.problems()
        wanted = sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(to))
            for name, to in changes.items()
        )
        with psycopg.connect(database.database) as connection:
            connection.execute(sql.SQL("DELETE FROM orders_10s WHERE {}").format(wanted))
        return found

    for changes, said in (
        (
            {"origin_topic": "another", "record_topic": "theirs", "record_offset": 7},
            "of another[0]",
        ),
        ({"origin_topic": "another"}, "of another[0]"),
        ({"partition": 2}, "of orders[2]"),
        ({"partition": -1}, "of orders[-1]"),
        ({"record_partition": 1, "first_offset": -1}, "from o-analytics[1]"),
        ({"record_topic": "theirs", "first_offset": -1}, "from theirs[0]"),
    ):
        found = [each for each in problems(**changes) if each.startswith("orders_10s has ")]
        wanted = f"orders_10s has 1 part {said}, which the stream does not read or write, and the totals "
        assert found == [f"{wanted}count them"], changes
    # Those of a recreated topic are set aside, and the stream's topic may have had another name.
    assert problems(origin_topic="orders@old") == []
    assert problems(origin_topic="orders", partition=1, first_offset=-5)
    execute(
        database,
        "INSERT INTO loader_positions (group_name, topic, partition) VALUES ('x', 'earlier', 0)",
    )
    assert problems(origin_topic="earlier") == []
    topics = TopicsOfParts(2, 1, ["earlier"])
    assert own.problems(topics=topics) == []
    execute(database, f"UPDATE orders_10s SET origin_topic = 'earlier' {of_row}")
    assert any("of earlier[0]" in each for each in own.problems(topics=topics))


def test_windows_that_begin_later_are_compared_from_there(database: Settings) -> None:
    old = TumblingWindow("10s", by="country", revenue=Sum("total"))
    new = TumblingWindow("5s", by="kind", revenue=Sum("total"))
    own = Installation(database, replace(ORDERS, windows=old))
    placed = in_order(400)
    own.load(placed[:200])
    own.release(replace(ORDERS, windows=[old, new]))
    own.load(placed[200:])

    assert {own.progress(each).windows["orders_5s"].since for each in range(2)} == {100}
    assert (own.problems(TUMBLING), own.problems("orders_5s")) == ([], [])
    for name, number in ((TUMBLING, 400), ("orders_5s", 200)):
        compared = [own.compare(name, partition) for partition in range(2)]
        assert sum((each.events + each.open).total() for each in compared) == number
    execute(database, "UPDATE orders_5s SET revenue = revenue + 1")
    problems = own.problems("orders_5s")
    assert problems
    assert all(": revenue is " in problem for problem in problems)


def test_events_that_a_moved_group_skips_are_named(database: Settings) -> None:
    own = Installation(database)
    placed = in_order(400)
    own.load(placed[:200])
    assert own.problems() == []
    moved = {(ORDERS.topic, each): Position(ORDERS.topic, each, 150) for each in range(2)}
    own.committed |= moved
    own.load(placed[200:])

    for name in (TUMBLING, HOPPING):
        assert {own.progress(each).windows[name].since for each in range(2)} == {0}
        found = [own.compare(name, each) for each in range(2)]
        assert sum((each.events + each.open).total() for each in found) == 400
        # Beside the skipped ones those in windows that were open.
        assert sum(each.difference for each in found) >= 100
        cells = [cell for each in found for cell in each.differing_cells]
        assert sum(cell.difference for cell in cells) == sum(each.difference for each in found)
        assert all(cell.acknowledgeable for cell in cells)


def test_windows_that_were_taken_away_and_declared_again(database: Settings) -> None:
    both = replace(
        ORDERS,
        windows=[
            TumblingWindow("10s", by="country", revenue=Sum("total")),
            TumblingWindow("5s", by="kind", revenue=Sum("total")),
        ],
    )
    own = Installation(database, both)
    placed = in_order(600)
    own.load(placed[:200])
    own.release(replace(both, windows=both.windows[:1]))
    own.load(placed[200:400])
    own.release(both)
    own.load(placed[400:])

    assert {own.progress(each).windows["orders_5s"].since for each in range(2)} == {200}
    assert own.problems(TUMBLING) == []
    # An audit had proved all that was counted then: in the windows that there were.
    problems = own.problems("orders_5s", proved=200)
    assert problems
    assert all(
        "counted (these windows began anew at offset 200); once you know why" in each
        for each in problems
    ), problems
    with session(database, "test") as connection:
        for each in range(2):
            found = own.compare("orders_5s", each, proved=200)
            assert sum((found.events + found.open).values()) == 300
            hole = sum(cell.difference for cell in found.differing_cells)
            assert 60 < hole <= 200
            partition = (ORDERS.topic, each)
            keep_differences(connection, partition, found.differing_cells, [], [], "orders_5s")
        acknowledge_differences(connection, [ORDERS.topic], "ann")
        for each in range(2):
            known = acknowledged_differences(connection, (ORDERS.topic, each), "orders_5s")
            again = own.compare("orders_5s", each, proved=200, acknowledged=known)
            assert (again.differing, again.window_differences) == (0, sum(known.values()))
    # What the new ones have counted and an audit has proved is no hole.
    execute(
        database,
        "DELETE FROM orders_5s WHERE first_offset = (SELECT max(first_offset) FROM orders_5s)",
    )
    more = [
        cell
        for each in range(2)
        for cell in own.compare("orders_5s", each, proved=300).differing_cells
        if cell.span[0] >= 200
    ]
    assert more
    assert not any(cell.acknowledgeable for cell in more)


def test_counting_windows_that_were_taken_away_and_declared_again(database: Settings) -> None:
    summing = TumblingWindow("10s", by="country", revenue=Sum("total"))
    both = replace(ORDERS, windows=[TumblingWindow("5s", by="kind"), summing])
    own = Installation(database, both)
    placed = in_order(600)
    own.load(placed[:200])
    own.release(replace(both, windows=summing))
    own.load(placed[200:400])
    own.release(both)
    own.load(placed[400:])

    with session(database, "test") as connection:
        for partition in range(2):
            progress = own.progress(partition)
            assert progress.counts is not None
            assert progress.counts.since == 200
            found = reconcile(connection, both, partition, progress, proved=200)
            assert sum((found.events + found.open).values()) == 300
            assert found.difference > 60
            assert found.difference == sum(cell.difference for cell in found.differing_cells)
            assert all(cell.acknowledgeable for cell in found.differing_cells)
            assert all("began anew at offset 200" in each.detail for each in found.differences)


def test_events_that_came_too_late(database: Settings) -> None:
    own = Installation(database, replace(ORDERS, windows=[
        TumblingWindow(
            "10s", grace="0s", late_after="0s", orders=Count(), quantities=Count("quantity"),
            revenue=Sum("total"), cheapest=Min("total"), heaviest=Max("weight"), mean_total=Mean("total"),
            opened_by=First("customer"), closed_by=Last("customer"), customers=Distinct("customer"),
            sizes=Quantiles("weight"),
        ),
    ]))  # fmt: skip
    placed = [each.order for each in in_order(300)]
    own.load([Placed(0, offset, order) for offset, order in enumerate(placed[:250] + placed[::10])])
    assert value(database, "SELECT sum(too_late)::int FROM orders_10s") > 10
    assert own.problems() == []
    compared = own.compare(TUMBLING)
    assert (compared.events + compared.open).total() == 280

    late = "WHERE window_start = (SELECT min(window_start) FROM orders_10s WHERE too_late > 0)"
    for change, said in {
        "orders = orders + 1": "orders is ",
        "quantities = 1000": "quantities is ",
        "cheapest = -100000": "cheapest is -100000, the events give ",
        "heaviest = 1e300": "heaviest is 1e+300, the events give ",
        "mean_total_count = 1000": "mean_total_sum is ",
        "opened_by_time = opened_by_time - interval '1 day'": "opened_by is ",
        "closed_by_time = closed_by_time + interval '1 day'": "closed_by is ",
        "customers_hashes = customers_hashes || 17::bigint": "customers is ",
        "sizes_weights[1] = 1000": "sizes has ",
        "sizes_values = coalesce((SELECT array_agg(x + 1e-3) FROM unnest(sizes_values) AS x), '{}')": (
            "sizes is of other numbers than the events give"
        ),
        "too_late = too_late - 1": "events, ",
    }.items():
        execute(database, "CREATE TABLE kept AS TABLE orders_10s")
        execute(database, f"UPDATE orders_10s SET {change} {late} AND counted > 0")
        execute(database, f"UPDATE orders_10s SET {change} {late} AND counted = 0")
        problems = own.problems()
        assert any(said in problem for problem in problems), (change, problems)
        execute(
            database,
            "DELETE FROM orders_10s; INSERT INTO orders_10s SELECT * FROM kept; DROP TABLE kept",
        )


def test_events_that_came_too_late_for_windows_that_take_all_now(database: Settings) -> None:
    late = TumblingWindow("10s", grace="0s", late_after="0s", orders=Count(), revenue=Sum("total"))
    all_taken = TumblingWindow("10s", grace="0s", orders=Count(), revenue=Sum("total"))
    own = Installation(database, replace(ORDERS, windows=all_taken))
    noted = "SELECT late_after FROM window_tables WHERE table_name = 'orders_10s'"
    assert value(database, noted) is False
    own.release(replace(ORDERS, windows=late))
    placed = [each.order for each in in_order(300)]
    own.load([Placed(0, offset, order) for offset, order in enumerate(placed[:250] + placed[::10])])
    own.release(replace(ORDERS, windows=all_taken))
    assert own.problems() == []
    execute(database, "UPDATE window_tables SET late_after = false")
    number = value(database, "SELECT count(*)::int FROM orders_10s WHERE too_late > 0")
    assert number > 1
    problems = own.problems()
    assert len(problems) == number
    assert "and these windows were never declared with late_after" in problems[0]
    # Of tables that an earlier release has made it is not known; the audit notes what is declared.
    execute(database, "UPDATE window_tables SET late_after = NULL")
    assert own.problems() == []
    own.stream = replace(ORDERS, windows=late)
    assert own.problems() == []
    assert value(database, noted) is True


LONG = Stream(
    name="long", contract=Order, table="long", key="customer", event_time="at",
    windows=TumblingWindow(
        "10min", by="country", idle="2s",
        few=Quantiles("weight", k=8), more=Quantiles("weight", k=200), exact=Distinct("at", lg_k=14),
        rough=Distinct("at", lg_k=5),
    ),
)  # fmt: skip
# Of sketches that have thrown values away.
PLANTED_IN_LARGE = {
    "few_values[3] = 99": "few has 99.0, which is none of the numbers that the events give",
    "few_values = (SELECT array_agg(each + 0.5) FROM unnest(few_values) AS each)": "few has ",
    "more_values[7] = more_values[7] - 1": "more has -",
    "more_weights = (SELECT array_agg(each ORDER BY each) FROM unnest(more_weights) AS each)": "more has ",
    "few_weights[1] = few_weights[1] * 2": "few is of ",
    "few_values = few_values[2:]": "few has ",
    "few_weights = few_weights[2:]": "few has ",
    "(few_values, few_weights) = (few_values[1:1], ARRAY[1024])": "few has 1 values with 1 weights, and no ",
    "rough_theta = rough_theta - 1": "rough has theta ",
    "rough_theta = rough_theta + 1": "rough has theta ",
    "rough_theta = rough_theta / 2": "rough has 32 hashes with theta ",
    "rough_hashes = rough_hashes[:16]": "rough has 16 hashes with theta ",
    "(rough_theta, rough_hashes) = (rough_hashes[32], rough_hashes[:31])": "rough has 31 hashes with theta ",
    "exact_theta = exact_theta - 1": "exact has ",
}


def test_each_fault_planted_in_a_large_sketch_is_named(database: Settings) -> None:
    own = Installation(database, LONG)
    # What comes last closes the window.
    made = [
        each.order.model_copy(update={"country": "DE", "weight": math.sin(number) / 2})
        for number, each in enumerate(in_order(1_500))
    ]
    last = made[-1].model_copy(update={"at": NOON + timedelta(minutes=20)})
    own.load([Placed(0, offset, order) for offset, order in enumerate([*made, last])])
    assert own.problems("long_10min") == []
    [(counted, largest)] = rows(
        database, "SELECT counted, record_offset FROM long_10min ORDER BY counted DESC LIMIT 1"
    )
    assert counted > 400
    execute(database, "CREATE TABLE kept AS TABLE long_10min")
    for change, said in PLANTED_IN_LARGE.items():
        execute(database, f"UPDATE long_10min SET {change} WHERE record_offset = {largest}")
        problems = own.problems("long_10min")
        execute(database, "DELETE FROM long_10min; INSERT INTO long_10min SELECT * FROM kept")
        assert len(problems) == 1, (change, problems)
        assert f"country=DE: {said}" in problems[0], (change, problems)


@pytest.fixture
def orders_of_a_minute(database: Settings) -> Installation:
    own = Installation(database)
    own.load(in_order(300))
    assert own.problems() == []
    return own


# An event in the first of the windows.
EVENT = "(origin_partition, origin_offset) = (0, 3)"
WITHOUT_ROW = {
    "refused": """
        INSERT INTO refused_events (topic, partition, "offset", event_type, event_time, appended_at)
        SELECT origin_topic, origin_partition, origin_offset, kind, at, appended_at FROM orders WHERE {event};
        DELETE FROM orders WHERE {event}
    """,
    "duplicate": """
        INSERT INTO duplicates (topic, partition, "offset", origin_topic, origin_partition, origin_offset,
                                table_name, event_type, event_time, appended_at)
        SELECT origin_topic, origin_partition, origin_offset, origin_topic, 7, 7, 'orders', kind, at,
               appended_at
          FROM orders WHERE {event};
        DELETE FROM orders WHERE {event}
    """,
    "erased": """
        INSERT INTO erasures (id, kind, hashes, requested_by) OVERRIDING SYSTEM VALUE
        VALUES (1, 'user', '{{x}}', 'ann');
        INSERT INTO erased_records (erasure_id, place, topic, partition, "offset")
        SELECT 1, 'events', origin_topic, origin_partition, origin_offset FROM orders WHERE {event};
        UPDATE orders SET country = NULL, customer = 'erased', total = 0, weight = 0 WHERE {event}
    """,
}


@pytest.mark.parametrize("kind", WITHOUT_ROW)
def test_an_event_whose_values_are_gone(
    orders_of_a_minute: Installation, database: Settings, kind: str
) -> None:
    """The number of events of its whole window is compared, and all else in other windows."""
    own = orders_of_a_minute
    execute(database, WITHOUT_ROW[kind].format(event=EVENT))
    assert own.problems() == []
    first = "partition = 0 AND window_start = (SELECT min(window_start) FROM orders_10s)"
    execute(database, f"UPDATE orders_10s SET revenue = revenue + 1 WHERE {first}")
    assert own.problems() == []
    execute(
        database,
        "UPDATE orders_10s SET counted = counted - 1 WHERE record_offset ="
        f" (SELECT min(record_offset) FROM orders_10s WHERE {first} AND counted > 1)",
    )
    [problem] = own.problems()
    assert problem.startswith("window orders_10s 2026-03-01T12:00:00Z (all): ")


def test_events_in_gaps_and_acknowledged_differences(
    orders_of_a_minute: Installation, database: Settings
) -> None:
    own = orders_of_a_minute
    [(number, country, start)] = rows(
        database,
        "DELETE FROM orders_10s WHERE record_offset = (SELECT min(record_offset) FROM orders_10s WHERE"
        " partition = 0 AND country = 'DE') RETURNING counted, country, window_start",
    )
    [problem] = own.problems()
    assert f"country={country}: {number} events, 0 counted; once you know why" in problem
    # What was proved cannot be acknowledged.
    assert own.problems(proved=10**6)[0].endswith(f"{number} events, 0 counted")
    found = own.compare(TUMBLING, lost=[(0, 1000)])
    assert (found.differing, found.lost) == (0, number)
    group = f"country={country}"
    found = own.compare(TUMBLING, acknowledged={(start, group): number})
    assert (found.differing, found.window_differences) == (0, number)
    assert own.compare(TUMBLING, acknowledged={(start, group): number + 1}).differing == 1


def test_a_difference_is_acknowledged_for_its_windows_alone(
    orders_of_a_minute: Installation, database: Settings
) -> None:
    own, partition = orders_of_a_minute, (ORDERS.topic, 0)
    [(number, start)] = rows(
        database,
        "DELETE FROM orders_10s WHERE record_offset = (SELECT min(record_offset) FROM orders_10s WHERE"
        " partition = 0 AND country = 'DE') RETURNING counted, window_start",
    )
    with session(database, "test") as connection:
        found = own.compare(TUMBLING)
        cells = found.differing_cells
        keep_differences(connection, partition, cells, found.acknowledged, [], TUMBLING)
        [known] = acknowledge_differences(connection, [ORDERS.topic], "ann")
        assert str(known) == (
            f"orders[0] window orders_10s {start:%Y-%m-%dT%H:%M:%SZ} country=DE, {number} events not counted"
        )
        kept = acknowledged_differences(connection, partition, TUMBLING)
        assert kept == {(start, "country=DE"): number}
        assert acknowledged_differences(connection, partition) == {}
        keep_differences(connection, partition, [], [], [])
        assert acknowledged_differences(connection, partition, TUMBLING) == kept
        assert own.compare(TUMBLING, acknowledged=kept).differing == 0


def test_an_idle_partition_is_waited_for_if_a_window_ends_in_time(
    orders_of_a_minute: Installation, database: Settings
) -> None:
    own = orders_of_a_minute
    topic, progress = ORDERS.topic, own.progress(0)
    [closed] = {progress.windows[TUMBLING].closed_through}
    assert closed is not None
    assert own.compare(TUMBLING).open

    def waits(deadline: int) -> bool:
        with session(database, "test") as connection:
            due = DueWindows(connection, {topic: ORDERS}, {topic: plans_of(ORDERS)}, deadline)
            return due.ends_in_time((topic, 0), progress)

    assert waits(closed + 10_000)
    assert not waits(closed + 9_999)
    execute(database, "DELETE FROM orders")  # as if nothing were loaded yet
    assert waits(closed)


@pytest.mark.usefixtures("orders_of_a_minute")
def test_events_of_a_recreated_topic_that_were_not_counted(
    database: Settings,
) -> None:
    missing = {
        partition: max(
            # From when on windows without any part have counted is not known.
            value(
                database,
                f"SELECT (SELECT count(*) FROM orders WHERE origin_partition = {partition})"
                f" - sum(counted)::int FROM {table} WHERE partition = {partition}",
            )
            or 0
            for table in (TUMBLING, HOPPING)
        )
        for partition in (0, 1)
    }
    assert min(missing.values()) > 0
    reuse = Reuse(ORDERS.topic, "orders@old", "new", "recreated", {0: 0, 1: 0})
    with session(database, "test") as connection:
        with connection.transaction():
            keep_underived(connection, ORDERS, reuse, "validator", "analytics")
        gaps = known_gaps(connection, [ORDERS.topic])
    assert {gap.partition: gap.end - gap.first for gap in gaps} == missing


def test_windows_of_days_that_retention_dropped(
    orders_of_a_minute: Installation, database: Settings
) -> None:
    own = orders_of_a_minute
    for table in ("orders", TUMBLING):
        execute(database, f"CREATE TABLE kept AS TABLE {table}; DELETE FROM {table}")
        assert own.problems()
        execute(
            database,
            f"INSERT INTO dropped_days (table_name, day, rows) VALUES ('{table}', '2026-03-01', 1)",
        )
        assert own.problems() == []
        execute(
            database,
            f"INSERT INTO {table} SELECT * FROM kept; DROP TABLE kept; DELETE FROM dropped_days",
        )


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    number: Annotated[Decimal, Field(alias="Nr")]
    code: UUID
    day: date | None
    flag: bool
    when: datetime
    size: float


class Everything(Event):
    at: Timestamp
    inner: Inner | None
    colour: Colour
    flag: bool
    code: UUID
    day: date
    moment: time
    span: timedelta
    large: Annotated[int, Field(ge=-(10**30), le=10**30)]
    whole: int
    text: str
    blob: bytes
    exact: Decimal
    share: float | None
    tags: list[str] | None
    secret: Hashed


def everything(number: int) -> list[Placed]:
    rng = random.Random(1)
    made = []
    for _ in range(number):
        moment = NOON + timedelta(microseconds=rng.randrange(150_000_000))
        inner = {
            "Nr": Decimal(rng.randrange(-500, 500)) / 8, "code": UUID(int=rng.randrange(5)),
            "day": rng.choice([None, date(1999, 12, 31)]), "flag": rng.random() < 0.5,
            "when": NOON - timedelta(microseconds=rng.randrange(10**12)),
            "size": rng.choice([1e-300, 0.1, rng.random(), 1e22]),
        }  # fmt: skip
        event = Everything.model_validate({
            "at": moment, "inner": rng.choice([None, inner, inner]), "colour": rng.choice(list(Colour)),
            "flag": rng.random() < 0.5, "code": UUID(int=rng.randrange(2**128)),
            "day": date(1, 1, 1 + rng.randrange(30)),
            "moment": time(rng.randrange(24), 1, 2, rng.randrange(3)),
            "span": timedelta(days=rng.randrange(-40, 400), microseconds=rng.randrange(10**10)),
            "large": rng.randrange(-(10**30), 10**30), "whole": rng.randrange(-(2**63), 2**63),
            "text": rng.choice(["", "ä" * rng.randrange(250, 270), "Z", "a\\b\t", "0"]),
            "blob": rng.randbytes(rng.randrange(3)).hex().encode(),
            "exact": rng.choice([Decimal("1e-30"), Decimal("-1.50"), Decimal("0.0"), Decimal("1e40")]),
            "share": rng.choice([None, -0.0, 0.0, 5e-324, 1.7e308, rng.random() * 1e-20]),
            "tags": rng.choice([None, [], ["a"]]), "secret": "a" * 63 + rng.choice("bc"),
        })  # fmt: skip
        made.append((moment, event))
    made.sort(key=lambda pair: pair[0])
    return [Placed(0, offset, event) for offset, (_, event) in enumerate(made)]  # type: ignore[arg-type]


_NESTED = {
    f"{kind.__name__.lower()}_{field}": kind(f"inner.{field}")
    for kind, fields in {
        Count: ("number", "code", "day", "flag", "when", "size"), Sum: ("number", "size"),
        Min: ("number", "day", "when", "size"), Last: ("code", "flag", "when", "number"),
        Distinct: ("number", "code", "day", "flag", "size"),
    }.items()
    for field in fields
}  # fmt: skip
_ORDERED = ("day", "moment", "span", "large", "whole", "text", "exact", "share", "at")
_SCALARS = (*_ORDERED, "colour", "flag", "code")
_OWN = {
    f"{kind.__name__.lower()}_of_{field}": kind(field)
    for kind, fields in {
        Min: _ORDERED, Max: _ORDERED, First: _SCALARS, Last: _SCALARS,
        Distinct: (*_SCALARS, "blob", "secret"), Count: (*_SCALARS, "blob", "tags", "secret", "inner"),
        Sum: ("large", "whole", "exact", "share"), Mean: ("large", "exact", "share"),
        Quantiles: ("large", "whole", "exact", "share"),
    }.items()
    for field in fields
}  # fmt: skip
EVERYTHING = Stream(
    name="everything", contract=Everything, table="everything", key="text", event_time="at",
    windows=[
        TumblingWindow("10s", by=("colour", "flag", "inner.day"), aggregates=_OWN),
        TumblingWindow("20s", by=("text", "inner.code", "inner.number"), aggregates=_NESTED),
        TumblingWindow("30s", by=("exact", "day"), orders=Count()),
        TumblingWindow("40s", by="secret", orders=Count()),
    ],
)  # fmt: skip


def test_values_of_every_type(database: Settings) -> None:
    own = Installation(database, EVERYTHING)
    own.load(everything(400))
    for name in EVERYTHING.window_tables:
        assert own.problems(name) == []
        assert own.compare(name).cells > 0
    # Of groups that no row tells for sure, the whole window is compared.
    execute(database, "UPDATE everything_40s SET counted = counted - 1 WHERE counted > 1")
    problems = own.problems("everything_40s")
    assert problems
    assert all("Z (all): " in problem for problem in problems)
    for table, aggregates, most in (
        ("everything_10s", _OWN, "count_of_share"),
        ("everything_20s", _NESTED, "count_day"),
    ):
        wrong = ", ".join(
            f"{name}{each.suffixes[-1]} = {WRONG.get(type(each), 'NULL')}"
            for name, each in aggregates.items()
        )
        execute(
            database,
            f"UPDATE {table} SET {wrong} WHERE record_offset = (SELECT record_offset FROM {table}"
            f" ORDER BY {most} DESC, record_offset LIMIT 1)",
        )
        named = {problem.split(": ")[1].split(" ")[0] for problem in own.problems(table)}
        for name, each in aggregates.items():
            # A key may have hashed it again.
            is_told = each.field != "secret" or isinstance(each, Count)
            assert any(found.startswith(name) for found in named) is is_told, (name, named)


WRONG = {Count: "-1", Mean: "-1", Distinct: "'{17}'", Quantiles: "'{}'"}


@pytest.fixture
def first(settings: SettingsFactory, database_url: str) -> Iterator[Settings]:
    made = settings(DATABASE_URL=database_url, STREAMFLOW_STREAMS="audited_windows:FIRST")
    schema.upgrade(made, load_streams(made))
    with topics_of(made):
        yield made


def audit(settings: Settings, wait: float = 90) -> dict[str, Any]:
    done = streamflow(settings, "audit", "--json", "--wait", str(wait), seconds=wait + 60)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 0) is report["closed"]
    return report


@pytest.mark.chaos  # `test_windows_under_faults` is its short form
def test_releases_and_kills_and_a_planted_fault(first: Settings, tmp_path: Path) -> None:
    second = first.model_copy(update={"streams": ("audited_windows:SECOND",)})
    made = [ORDERS.encode(each.order)[1] for each in orders(2_000)]

    def counted(name: str) -> int:
        return int(value(first, f"SELECT coalesce(sum(counted), 0)::int FROM {name}"))

    produce(first, "orders", made[:1_000])
    with workers(first, folder(tmp_path, "first")) as running:
        wait_until(lambda: counted(TUMBLING) > 0, 60, "the first windows")
        running["analytics"].kill()
        running["loader"].kill()
    produce(first, "orders", made[1_000:1_500])
    with workers(first, folder(tmp_path, "second")) as running:
        wait_until(lambda: counted(TUMBLING) == 1_500, 90, "all events in windows")
        assert running["analytics"].stop() == 0
        schema.upgrade(second, load_streams(second))
        report = audit(second, wait=1)
        assert (report["verdict"], report["problems"]) == ("not_yet", [])
        assert any(
            "analytics has not begun to count the windows orders_5min_by_1min" in each["message"]
            for each in report["pending"]
        ), report["pending"]
    produce(first, "orders", made[1_500:])
    with workers(second, folder(tmp_path, "third")):
        wait_until(
            lambda: (counted(TUMBLING), counted(HOPPING)) == (2_000, 500),
            90,
            "all events in windows",
        )
        report = audit(second)
        assert (report["verdict"], report["problems"]) == ("closed", []), report["pending"]
        of_windows = report["windows"][f"{first.prefix}orders[0] orders_10s"]
        assert of_windows["events"] == of_windows["counted"]

        [(partition, revenue)] = rows(
            second,
            "UPDATE orders_10s SET revenue = revenue + 0.5 WHERE ctid = (SELECT min(ctid) FROM orders_10s)"
            " AND tableoid = (SELECT min(tableoid) FROM orders_10s) RETURNING partition, revenue::text",
        )
        report = audit(second)
        [problem] = report["problems"]
        assert (problem["kind"], problem["partition"]) == ("window_differs", partition)
        assert "window orders_10s 2026-03-01T12:" in problem["message"]
        assert ": revenue is " in problem["message"]
        assert revenue


def dict_rows(settings: Settings, query: str) -> list[dict[str, Any]]:
    with psycopg.connect(settings.database, row_factory=dict_row) as connection:
        connection.execute("SET timezone = 'UTC'")
        return connection.execute(query.encode()).fetchall()


@pytest.fixture
def asking(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> tuple[Installation, list[Decimal]]:
    """Windows with a condition, and the events that it was asked about."""
    asked: list[Decimal] = []

    def is_placed(order: Order) -> bool:
        asked.append(order.total)
        return order.kind == "placed"

    monkeypatch.setattr(conditions, "_CHUNK", 50)
    windows = TumblingWindow(
        "10s",
        by="country",
        idle="2s",
        placed=Sum("total", where=is_placed),
        n=Count(where=is_placed),
    )
    own = Installation(database, replace(ORDERS, windows=windows))
    own.load(orders(120, partitions=1))
    asked.clear()
    return own, asked


def test_conditions_are_asked_once_of_each_event(
    asking: tuple[Installation, list[Decimal]], database: Settings
) -> None:
    own, asked = asking
    assert own.problems() == []
    assert len(asked) == 120
    for _ in range(2):
        assert own.problems() == []
    # The last chunk is full later: then it is asked again.
    kept = "SELECT chunk::int, cardinality(positions) FROM judged_conditions ORDER BY 1"
    assert rows(database, kept) == [(0, 50), (1, 50), (2, 20)]
    assert len(asked) == 120
    own.load([each._replace(offset=120 + each.offset) for each in orders(20, 2, partitions=1)])
    asked.clear()
    assert own.problems() == []
    assert len(asked) == 40
    # What is erased is not asked about, and so its neighbours are known.
    for statement in WITHOUT_ROW["erased"].format(event="origin_offset = 3").split(";"):
        execute(database, statement)
    assert own.problems() == []
    assert rows(database, kept)[0] == (0, 49)
    execute(database, "DELETE FROM orders WHERE origin_offset < 50")
    assert "events, " in own.problems()[0]
    execute(database, "DELETE FROM orders_10s WHERE first_offset < 140")
    execute(database, "DELETE FROM orders")
    assert own.problems() == []
    assert rows(database, kept) == []


def test_what_was_known_hides_no_fault(
    asking: tuple[Installation, list[Decimal]], database: Settings
) -> None:
    own, asked = asking
    assert own.problems() == []
    # A fault in a part, and one in an event, and how they are mended.
    faults = {
        "UPDATE orders_10s SET n = n + 1": "UPDATE orders_10s SET n = n - 1",
        "UPDATE orders SET kind = 'cancelled' WHERE origin_offset = 7": (
            "UPDATE orders SET kind = 'placed' WHERE origin_offset = 7"
        ),
    }
    if value(database, "SELECT kind FROM orders WHERE origin_offset = 7") == "cancelled":
        [(part, mended), (cancelled, placed)] = faults.items()
        faults = {part: mended, placed: cancelled}
    for fault, mended in faults.items():
        execute(database, fault)
        problems = own.problems()
        assert re.search(r": (n|placed) is ", problems[0]), problems
        execute(database, mended)
        assert own.problems() == []
    asked.clear()
    assert own.problems() == []
    assert asked == []


def test_answers_for_rows_that_cannot_be_read_back_are_not_kept(
    asking: tuple[Installation, list[Decimal]], database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, asked = asking
    with monkeypatch.context() as other_contract:
        other_contract.setattr(conditions, "event_of", lambda _stream, row: 1 / (row["total"] * 0))
        assert own.problems() == []
    assert asked == []
    assert value(database, "SELECT count(*) FROM judged_conditions") == 0
    execute(database, "UPDATE orders_10s SET n = n + 1 WHERE n > 0")
    assert ": n is " in own.problems()[0]


def test_another_function_is_asked_only_of_what_is_new_or_differs(
    asking: tuple[Installation, list[Decimal]], database: Settings
) -> None:
    own, _ = asking
    assert own.problems() == []

    def is_cancelled(order: Order) -> bool:
        return order.kind == "cancelled"

    [spec] = own.stream.counted
    aggregates = {name: replace(each, where=is_cancelled) for name, each in spec.aggregates.items()}
    own.release(replace(own.stream, windows=replace(spec, aggregates=aggregates)))
    # What the function of before has counted was proved.
    assert own.problems() == []
    # In a chunk of their own.
    own.load([each._replace(offset=150 + each.offset) for each in orders(20, 3, partitions=1)])
    assert own.problems() == []
    execute(database, "UPDATE orders_10s SET counted = counted + 1 WHERE first_offset = 3")
    assert len(own.problems()) > 1
