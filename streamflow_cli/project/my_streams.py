"""The streams of this project. `streamflow check` tries them before data flows."""

from typing import Annotated, Literal

from pydantic import Field

from streamflow import Count, Event, Hashed, Stream, Sum, Timestamp, TumblingWindow


class Order(Event):
    type: Literal["ORDER_PLACED", "ORDER_CANCELLED"]
    customer: str
    country: str
    amount_cents: Annotated[int, Field(ge=0)]
    email: Hashed | None = None  # hashed before it leaves the producer
    timestamp: Timestamp


ORDERS = Stream(
    name="orders",
    contract=Order,
    table="orders",
    key="customer",
    windows=TumblingWindow(
        "10s",
        by="country",
        idle="2s",  # without new events, open windows close after this
        orders=Count(),
        revenue=Sum("amount_cents"),
    ),
)
