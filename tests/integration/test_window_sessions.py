"""Sessions in SQL, against plain Python: late events, joined sessions, dropped days, forgotten subjects."""

import math
import random
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import dagster as dg
import pytest

from loads import FakeRecord, Load, execute, rows, value
from orchestration import Orchestration, metadata_of, orchestrated
from streamflow.postgres import schema
from streamflow.postgres.connections import session
from streamflow.postgres.windows.sessions import compute_sessions, session_tables
from streamflow.settings import Settings
from window_parts import NOON, SESSIONS, Placed, orders

pytestmark = pytest.mark.integration

GAP = timedelta(seconds=20)
STREAM, TABLE = SESSIONS, "orders_sessions_20s"


@pytest.fixture
def load(database: Settings) -> Iterator[Load]:
    assert schema.upgrade(database, [STREAM]) == ["table orders", f"table {TABLE}"]
    assert schema.upgrade(database, [STREAM]) == []
    made = Load(database, [STREAM])
    yield made
    made.sink.close()


def store(load: Load, placed: Sequence[Placed]) -> None:
    made = [
        FakeRecord(offset, STREAM.encode(order)[1], topic=STREAM.topic, partition=partition)
        for partition, offset, order in placed
    ]
    load.load(sorted(made, key=lambda each: (each.partition(), each.offset())))
    assert load.delivered == []


def compute(settings: Settings) -> int:
    [table] = session_tables(STREAM)
    with session(settings, "test") as connection:
        return compute_sessions(connection, table)


def expected(placed: Sequence[Placed]) -> set[tuple[Any, ...]]:
    of_key = defaultdict(list)
    for each in placed:
        of_key[each.order.country, each.order.address.city].append(each)
    found: list[tuple[Any, list[Placed]]] = []
    for key, events in of_key.items():
        last = None
        for each in sorted(events, key=lambda one: (one.order.at, one.partition, one.offset)):
            if last is None or each.order.at - last >= GAP:
                found.append((key, []))
            found[-1][1].append(each)
            last = each.order.at
    return {_row(key, events) for key, events in found}


def _row(key: tuple[str | None, str | None], found: list[Placed]) -> tuple[Any, ...]:
    events = [each.order for each in found]
    weights = sorted(each.weight for each in events)
    weight = sum(map(Fraction, weights), Fraction(0))
    total = sum(each.total for each in events)
    return (
        events[0].at, events[-1].at + GAP, *key, len(events),
        sum(each.quantity is not None for each in events), total, float(weight),
        round(total / len(events), 8), float(weight / len(events)),
        min(each.total for each in events), max(each.customer for each in events),
        events[0].customer, events[-1].kind, len({each.customer for each in events}),
        weights[math.ceil(len(weights) / 2) - 1], weights[-1], len(events),
    )  # fmt: skip


def stored(settings: Settings) -> set[tuple[Any, ...]]:
    [table] = session_tables(STREAM)
    names = ", ".join(
        f"round({column.name}, 8)" if column.name == "mean_total" else column.name
        for column in table.columns
    )
    found = rows(settings, f"SELECT {names} FROM {TABLE}")
    assert len({*found}) == len(found)
    return {*found}


def test_sessions_are_those_of_the_events_whatever_comes_late(
    load: Load, database: Settings
) -> None:
    placed = orders(400)
    early = [each for each in placed if each.offset % 3]
    store(load, early)
    before = compute(database)
    assert stored(database) == expected(early)

    store(load, [each for each in placed if each.offset % 3 == 0])
    after = compute(database)

    assert stored(database) == expected(placed)
    assert after != before
    assert after > 10
    assert compute(database) == after


def test_a_session_of_a_dropped_day_stays(load: Load, database: Settings) -> None:
    placed = orders(60)
    night = NOON.replace(hour=23, minute=59, second=55)
    later = [
        Placed(
            0,
            1_000 + second,
            placed[0].order.model_copy(update={"at": night + timedelta(seconds=second)}),
        )
        for second in range(0, 12, 3)
    ]
    store(load, [*placed, *later])
    compute(database)
    before = stored(database)
    execute(
        database,
        "DELETE FROM orders WHERE at < '2026-03-02T00:00:00Z';"
        "INSERT INTO dropped_days (table_name, day, rows) VALUES ('orders', '2026-03-01', 1)",
    )

    compute(database)

    assert stored(database) == before
    assert value(database, "SELECT count(*) FROM orders") == 2
    assert date(2026, 3, 2) in {row[1].date() for row in before}


def test_nothing_is_left_of_a_forgotten_subject(load: Load, database: Settings) -> None:
    placed = orders(50)
    store(load, placed)
    compute(database)
    execute(
        database,
        "INSERT INTO erasures (kind, hashes, requested_by) VALUES ('user', '{}', 'tests');"
        'INSERT INTO erased_records (erasure_id, place, topic, partition, "offset")'
        " SELECT currval('erasures_id_seq'), 'events', origin_topic, origin_partition, origin_offset"
        " FROM orders WHERE origin_partition = 0",
    )

    compute(database)

    assert stored(database) == expected([each for each in placed if each.partition])


def test_doubles_are_exact_as_decimal_fractions(database: Settings) -> None:
    rng = random.Random(1)
    bits = (struct.unpack("d", rng.randbytes(8))[0] for _ in range(2_000))
    doubles = [
        0.0,
        -0.0,
        0.1,
        5e-324,
        2.2250738585072014e-308,
        1.7976931348623157e308,
        1e23,
        2.0**53,
    ]
    doubles += [each for each in bits if math.isfinite(each)]

    with session(database, "test") as connection:
        query = "SELECT exact_numeric(number) FROM unnest(%s::double precision[]) AS number"
        found = connection.execute(query, [doubles]).fetchall()

    assert [Fraction(number) for (number,) in found] == [Fraction(each) for each in doubles]


def test_an_asset_of_dagster_computes_them(
    settings: Callable[..., Settings], load: Load, database: Settings
) -> None:
    placed = orders(40)
    store(load, placed)
    streams = {"STREAMFLOW_STREAMS": "window_parts:SESSIONS"}
    made = settings(DATABASE_URL=database.database, **streams)

    with dg.DagsterInstance.ephemeral() as instance:
        one = Orchestration(instance, orchestrated(made, **streams))
        done = metadata_of(one.materialize(f"rollups/{TABLE}"), f"rollups/{TABLE}")
        assert "session_schedule" in {each.name for each in one.definitions.schedules or ()}

    assert stored(database) == expected(placed)
    assert done["sessions"] == len(expected(placed))
