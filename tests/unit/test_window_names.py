"""Tables of windows have names of their own, or the declaration says which are taken."""

from dataclasses import replace
from typing import Any

import pytest

from streamflow import Count, DailyRollup, Event, Stream, Timestamp, TumblingWindow
from streamflow.declarations import problems


class Order(Event):
    country: str
    timestamp: Timestamp


ORDERS = Stream(name="orders", contract=Order, table="orders", key="country")
ROLLUP = DailyRollup(table="orders_1h", description="", columns={}, query="SELECT")


def ten_seconds(**more: Any) -> TumblingWindow:
    return TumblingWindow("10s", by="country", orders=Count(), **more)


def with_windows(*windows: TumblingWindow, **changes: Any) -> Stream:
    return replace(ORDERS, windows=windows, **changes)


def test_names_of_their_own() -> None:
    stream = with_windows(ten_seconds(), ten_seconds(name="by_country"), TumblingWindow("1min"))

    assert problems(stream) == []
    other = replace(stream, name="more", table="more", windows=ten_seconds())
    assert problems(other, [stream]) == []


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (with_windows(ten_seconds(), ten_seconds()), "2 of its windows have one table, orders_10s"),
        (with_windows(ten_seconds(name="orders")), "has the name of orders (its table)"),
        (with_windows(ten_seconds(name="orders_20260101")), "or of a part of it"),
        (with_windows(ten_seconds(name="order"), table="order_totals"), "its view order_totals, has"),
        (with_windows(ten_seconds(name="o"), table="o_20260101"), "of o_20260101 (its table)"),
        (with_windows(ten_seconds(name="orders_1h"), rollups=(ROLLUP,)), "of orders_1h (its rollup)"),
        (
            with_windows(ten_seconds(), ten_seconds(name="orders_10s_totals")),
            "of orders_10s_totals (another of its windows)",
        ),
        (with_windows(ten_seconds(name="window_counts")), "is one of StreamFlow's own: give them a name="),
        (with_windows(ten_seconds(name="w" * 51)), "is 51 characters long, and there is room for 50"),
        (with_windows(ten_seconds(name="a-b")), "the table a-b of its windows is no plain name"),
    ],
)  # fmt: skip
def test_a_name_that_is_taken(stream: Stream, says: str) -> None:
    found = problems(stream)

    assert [problem for problem in found if says in problem], found


@pytest.mark.parametrize(
    ("stream", "other", "says"),
    [
        (
            with_windows(ten_seconds(name="events")),
            replace(ORDERS, name="more", table="events"),
            "or its view events_totals, has the name of events (stream more)",
        ),
        (
            with_windows(ten_seconds(name="x")),
            with_windows(ten_seconds(name="x"), name="more", table="more"),
            "has the name of x (stream more)",
        ),
        (
            replace(ORDERS, table="x_default"),
            with_windows(ten_seconds(name="x"), name="more", table="more"),
            "its table, x_default, has the name of x, the table of windows of stream more, or of a part",
        ),
    ],
)
def test_a_name_that_another_stream_has(stream: Stream, other: Stream, says: str) -> None:
    found = problems(stream, [other])

    assert [problem for problem in found if says in problem], found
