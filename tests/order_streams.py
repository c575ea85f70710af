"""A second stream beside the example, as a team of its own declares it, without a simulator."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from streamflow import Event, Stream, Timestamp, Topics


class Item(BaseModel):
    sku: str
    quantity: Annotated[int, Field(gt=0)]


class Order(Event):
    type: Literal["ORDER_PLACED", "ORDER_CANCELLED"]
    customer: str
    amount_cents: Annotated[int, Field(ge=0)]
    items: list[Item]
    timestamp: Timestamp


ORDERS = Stream(
    name="orders",
    contract=Order,
    table="orders",
    key=lambda order: order.customer,
    topics=Topics(partitions=1),
)


class Ticket(Event):
    """`user_email` is private in `user-events`, and a plain text here."""

    user_email: str
    timestamp: Timestamp


TICKETS = Stream(name="tickets", contract=Ticket, table="tickets", key="user_email")
FOREIGN = replace(ORDERS, name="foreign", table="foreign_orders", topics=Topics(managed=False))
STREAMS = "streamflow.streams.user_events:USER_EVENTS,order_streams:ORDERS"
