"""Streams whose windows fail: for some event, or for the table that is there. They share the derived topics
of the example stream."""

from dataclasses import replace
from typing import Any

from quick_windows import USER_EVENTS
from streamflow import Count, Event, Stream, Sum, Timestamp, Topics, TumblingWindow

__all__ = ["AFTER", "BEFORE", "GIVEN_UP", "RAISING", "USER_EVENTS"]


class Sale(Event):
    shop: str
    price: int
    pieces: int
    at: Timestamp


def stream(**aggregates: Any) -> Stream:
    return Stream(
        name="sales", contract=Sale, table="sales", key="shop", event_time="at", topics=Topics(partitions=1),
        windows=TumblingWindow("10s", by="shop", idle="2s", aggregates=aggregates),
    )  # fmt: skip


BEFORE = stream(n=Count())
GIVEN_UP = replace(BEFORE, windows=None)
AFTER = stream(n=Count(), taken=Sum("price"))
RAISING = stream(
    n=Count(),
    dear=Count(where=lambda sale: sale.price / sale.pieces > 10),
)
# Declared as before, with another code: that may change.
MENDED = replace(
    RAISING,
    windows=TumblingWindow(
        "10s",
        by="shop",
        idle="2s",
        n=Count(),
        dear=Count(where=lambda sale: sale.price > 10 * sale.pieces),
    ),
)
