"""One sketch gives one answer: Python's, which the audit compares, and the view's, which users read."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from streamflow import Distinct, Event, Quantiles, Stream, Timestamp, TumblingWindow
from streamflow.aggregates.base import Part
from streamflow.aggregates.distinct import NO_THETA
from streamflow.postgres import schema
from streamflow.postgres.connections import Connection, session
from streamflow.settings import Settings

pytestmark = pytest.mark.integration

# Those of which the product with a whole number is none in doubles are among them: 0.07 * 100.
SHARES = (0, *(number / 100 for number in range(1, 100)), 0.0001, 1 / 3, 0.9999999, 1e-20, 1)


class Reading(Event):
    sensor: str
    value: Decimal
    at: Timestamp


READINGS = Stream(
    name="readings", contract=Reading, table="readings", key="sensor", event_time="at",
    windows=TumblingWindow("10s", of=Quantiles("value", at=SHARES, k=8), seen=Distinct("value", lg_k=5)),
)  # fmt: skip
QUANTILES = Quantiles("value", at=SHARES, k=8)
DISTINCT = Distinct("value", lg_k=5)
_INSERT = """
INSERT INTO readings_10s (window_start, window_end, of_values, of_weights, seen_theta, seen_hashes, counted,
                          too_late, partition, late, first_offset, last_offset, origin_topic, record_topic,
                          record_partition, record_offset)
VALUES ('2026-03-01', '2026-03-01 00:00:10', %s::float8[], %s::bigint[], %s, %s::bigint[], 1, 0, 0, false, %s,
        %s, 'readings', 'analytics', 0, %s)
"""
NUMBERS = st.one_of(
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 2**53 + 1, -(2**53) - 1, 10**999, 5e-324]),
    st.integers(-(2**70), 2**70),
    st.decimals(allow_nan=False, allow_infinity=False, places=30, min_value=-9, max_value=9),
)


@pytest.fixture
def connection(database: Settings) -> Iterator[Connection]:
    schema.upgrade(database, [READINGS])
    with session(database, "test") as made:
        yield made


def shown(
    connection: Connection, parts: Sequence[tuple[dict[str, Any], dict[str, Any]]]
) -> list[Any]:
    """What the view tells of a window of these parts."""
    with connection.transaction(force_rollback=True):
        for offset, (quantiles, distinct) in enumerate(parts):
            values, weights = quantiles["values"], quantiles["weights"]
            theta, hashes = distinct["theta"], distinct["hashes"]
            connection.execute(_INSERT, [values, weights, theta, hashes, offset, offset, offset])
        columns = sql.SQL(", ").join(map(sql.Identifier, (*QUANTILES.results("of"), "seen")))
        query = sql.SQL("SELECT {} FROM readings_10s_totals").format(columns)
        [row] = connection.execute(query)
        return list(row)


def told(parts: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[Any]:
    """What Python tells."""
    quantiles: list[Part] = [(0, state) for state, _ in parts]
    distinct: list[Part] = [(0, state) for _, state in parts]
    return [
        *QUANTILES.finish(QUANTILES.merge(quantiles)),
        *DISTINCT.finish(DISTINCT.merge(distinct)),
    ]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.lists(st.lists(NUMBERS, max_size=120), min_size=1, max_size=4))
def test_python_and_the_view_give_one_answer(
    connection: Connection, parts: list[list[Any]]
) -> None:
    states = []
    for numbers in parts:
        quantiles, distinct = QUANTILES.state(), DISTINCT.state()
        quantiles.update(numbers)
        distinct.update(numbers)
        states.append((quantiles.json(), distinct.json()))
    of_view, of_python = shown(connection, states), told(states)
    # As texts: a negative zero equals another one.
    assert list(map(repr, of_view)) == list(map(repr, of_python))


def test_of_a_hundred_numbers_the_seventh(connection: Connection) -> None:
    """In doubles, 0.07 * 100 is more than seven."""
    state = {"values": [float(n) for n in range(1, 101)], "weights": [1] * 100}
    parts = [(state, DISTINCT.state().json())]
    wanted = [
        float(max(1, (Decimal(str(share)) * 100).to_integral_value("ROUND_CEILING")))
        for share in SHARES
    ]
    assert told(parts)[:-1] == wanted
    assert shown(connection, parts)[:-1] == wanted


@pytest.mark.parametrize(
    ("hashes", "theta"), [(1, 2**62), (3, 2**62 - 1), (33, 9 * 10**17), (32, 1_000_003), (33, 7)]
)
def test_estimates_are_rounded_alike(connection: Connection, hashes: int, theta: int) -> None:
    """Also where a double would be rounded twice."""
    state = {"theta": theta, "hashes": list(range(1, min(hashes, theta - 1) + 1))}
    parts = [({"values": [], "weights": []}, state)]
    exact = (2 * len(state["hashes"]) * NO_THETA + theta) // (2 * theta)
    assert told(parts)[-1] == exact
    assert shown(connection, parts)[-1] == exact
