"""A shop's orders and its thermometers, with windows of every kind, in two releases; and a repair of what
some clients send. `shop_events` makes events of them, `shop_totals` has DuckDB's answers."""

from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from streamflow import (
    Count,
    Distinct,
    EpochMillis,
    Event,
    First,
    HashedAddress,
    HoppingWindow,
    Last,
    Max,
    Mean,
    Min,
    Quantiles,
    SessionWindow,
    Stream,
    Sum,
    Timestamp,
    Topics,
    TumblingWindow,
)
from streamflow.dead_letters.repairs import Document, repair
from streamflow.privacy import Hasher


class Address(BaseModel):
    city: str | None = None


class Order(Event):
    id: int
    kind: Literal["placed", "cancelled"]
    created_at: Timestamp
    country: str | None
    address: Address
    customer: str
    email: HashedAddress
    total: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
    weight: float
    quantity: int | None = None


class Reading(Event):
    id: int
    device: str
    at: EpochMillis
    temperature: float | None


def is_placed(order: Order) -> bool:
    return order.kind == "placed"


ORDERS = Stream(
    name="orders", contract=Order, table="orders", key="customer", event_time="created_at",
    private_fields=("email",),
    topics=Topics(analytics="order-windows", notifications="order-notes", dead_letters="order-letters"),
    windows=[
        TumblingWindow("10s", by="kind", idle="2s"),
        TumblingWindow(
            "10s", by="country", idle="2s",
            orders=Count(), revenue=Sum("total"), placed=Sum("total", where=is_placed),
            mean_total=Mean("total"), weight=Sum("weight"), cheapest=Min("total"), dearest=Max("total"),
            last_name=Max("customer"), opened_by=First("customer"), closed_by=Last("customer"),
        ),
        HoppingWindow(
            "5min", every="1min", by=("country", "address.city"), idle="2s",
            orders=Count(), revenue=Sum("total"), customers=Distinct("customer"),
            order_value=Quantiles("total", at=(0.5, 0.99)),
        ),
        TumblingWindow(
            "1h", name="orders_overall", idle="2s",
            customers=Distinct("customer"), some=Distinct("customer", lg_k=5), people=Distinct("email"),
            order_value=Quantiles("total", at=(0.5, 0.99)), weights=Quantiles("weight", at=(0, 0.9), k=16),
        ),
        TumblingWindow(
            "10s", name="orders_strict", by="kind", grace="1s", late_after="20s", idle="2s",
            pieces=Sum("quantity"),
        ),
        SessionWindow(
            "30s", by="customer",
            orders=Count(), spent=Sum("total"), weight=Sum("weight"), mean_total=Mean("total"),
            kinds=Distinct("kind"), opening=First("id"), order_value=Quantiles("total", at=(0.5, 0.99)),
        ),
    ],
)  # fmt: skip
READINGS = Stream(
    name="readings", contract=Reading, table="readings", key="device", event_time="at",
    topics=Topics(analytics="reading-windows", notifications="reading-notes", dead_letters="reading-letters"),
    windows=[
        TumblingWindow(
            "1min", by="device", idle="2s",
            readings=Count(), measured=Count("temperature"), lowest=Min("temperature"),
            highest=Max("temperature"), mean=Mean("temperature"), total=Sum("temperature"),
            latest=Last("temperature"),
        ),
        HoppingWindow(
            "2min", every="30s", by="device", idle="2s",
            mean=Mean("temperature"), middle=Quantiles("temperature", at=(0.5, 0.99)),
        ),
        SessionWindow("3s", by="device", readings=Count(), mean=Mean("temperature")),
    ],
)  # fmt: skip
# The second release: one declaration more.
MORE_ORDERS = replace(
    ORDERS,
    windows=[
        *ORDERS.windows,
        TumblingWindow(
            "1min", by="country", idle="2s",
            orders=Count(), revenue=Sum("total"), customers=Distinct("customer"),
        ),
    ],
)  # fmt: skip


def _mended(document: Document, _stream: Stream, _hasher: Hasher) -> Document:
    changed: dict[str, Any] = {}
    if str(document.get("total")).endswith(" EUR"):
        changed["total"] = document["total"].removesuffix(" EUR")
    if isinstance(document.get("at"), str):
        changed["at"] = int(document["at"])
    return document | changed


MEND = repair("mend", "Takes units off amounts, and numbers out of texts.")(_mended)
