"""Numbers at the limits of their types, in windows: no one event takes its window, or the view, with it."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from installations import Installation
from loads import rows
from streamflow import (
    Count,
    Distinct,
    Event,
    Last,
    Max,
    Mean,
    Min,
    Quantiles,
    SessionWindow,
    Stream,
    Sum,
    Timestamp,
    TumblingWindow,
)
from streamflow.postgres.connections import session
from streamflow.postgres.sessions.tables import session_tables
from streamflow.settings import Settings
from streamflow_dagster.defs.sessions_sql import compute_sessions
from window_parts import NOON, Placed

pytestmark = pytest.mark.integration

HUGE, LONG = 2**70, 10**1_200  # no bigint, and more digits than windows take


class Inner(BaseModel):
    n: int | None


class Measured(Event):
    at: Timestamp
    group: str
    o: Inner
    x: float | None = None


NESTED = Stream(
    name="nested", contract=Measured, table="nested", key="group", event_time="at",
    windows=[
        TumblingWindow(
            "10s", by="group", n=Count(), numbers=Count("o.n"), least=Min("o.n"), most=Max("o.n"),
            total=Sum("o.n"), newest=Last("o.n"), different=Distinct("o.n"),
            middle=Quantiles("o.n", at=(0.5,)),
        ),
        TumblingWindow("20s", by="o.n", n=Count()),
        SessionWindow("1min", by="group", most=Max("o.n")),
    ],
)  # fmt: skip
MEANS = Stream(
    name="means", contract=Measured, table="means", key="group", event_time="at",
    windows=[
        TumblingWindow("10s", by="group", mean=Mean("x"), total=Sum("x")),
        SessionWindow("1min", by="group", mean=Mean("x")),
    ],
)  # fmt: skip


def placed(*events: dict[str, Any]) -> list[Placed]:
    made = [
        Measured.model_validate({"at": NOON, "group": "g", "o": {"n": None}} | event)
        for event in (*events, {"at": NOON + timedelta(minutes=4), "group": "later"})
    ]
    return [Placed(0, offset, event) for offset, event in enumerate(made)]  # type: ignore[arg-type]


def computed(settings: Settings, stream: Stream) -> None:
    with session(settings, "tests") as connection:
        for table in session_tables(stream):
            compute_sessions(connection, table)


def test_a_nested_whole_number_beyond_a_bigint_is_counted(database: Settings) -> None:
    own = Installation(database, NESTED)
    own.load(placed(*({"o": {"n": n}} for n in (1, 2, 3, HUGE, 5, None, -LONG))))

    totals = rows(
        database,
        "SELECT n, numbers, least, most, total FROM nested_10s_totals WHERE \"group\" = 'g'",
    )
    assert totals == [(7, 6, 1, HUGE, HUGE + 11)]
    groups = dict(
        rows(
            database,
            "SELECT o_n, n FROM nested_20s_totals WHERE window_start < '2026-03-01T12:03Z'",
        )
    )
    assert groups == {1: 1, 2: 1, 3: 1, 5: 1, HUGE: 1, None: 2}
    for name in ("nested_10s", "nested_20s"):
        assert own.problems(name) == []


def test_sessions_take_such_a_number(database: Settings) -> None:
    Installation(database, NESTED).load(placed({"o": {"n": HUGE}}))
    computed(database, NESTED)

    assert rows(database, "SELECT most FROM nested_sessions_1min WHERE \"group\" = 'g'") == [
        (HUGE,)
    ]


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ((5e-324, 0.0), 0.0),
        ((-5e-324, 0.0), 0.0),
        ((5e-324, 5e-324, 0.0), 5e-324),
        ((5e-324, 0.0, 0.0), 0.0),
        ((1.7976931348623157e308, 1.7976931348623157e308), 1.7976931348623157e308),
    ],
)  # fmt: skip
def test_means_at_the_limits_of_doubles(
    database: Settings, values: tuple[float, ...], mean: float
) -> None:
    own = Installation(database, MEANS)
    own.load(placed(*({"x": x} for x in values)))
    computed(database, MEANS)

    assert rows(database, "SELECT mean FROM means_10s_totals WHERE \"group\" = 'g'") == [(mean,)]
    assert rows(database, "SELECT mean FROM means_sessions_1min WHERE \"group\" = 'g'") == [(mean,)]
    assert own.problems("means_10s") == []


def test_a_sum_beyond_the_largest_double_by_less_than_half_a_digit(database: Settings) -> None:
    largest = 1.7976931348623157e308
    Installation(database, MEANS).load(placed({"x": largest}, {"x": 9.5e291}))

    query = "SELECT total FROM means_10s_totals WHERE \"group\" = 'g'"
    assert rows(database, query) == [(largest,)]
