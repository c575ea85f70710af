"""A stream with fields of many types, for what sends events from Python."""

from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from streamflow import EpochMillis, Event, Hashed, Stream, Timestamp, Topics


class Country(Enum):
    FRANCE = "FR"
    JAPAN = "JP"


class Purchase(Event):
    id: UUID
    customer: str
    country: Country
    quantity: int
    weight: float | None = None
    total: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
    due: date | None = None
    voucher: str | None
    shipped: EpochMillis | None = None
    email: Hashed | None = None
    timestamp: Timestamp


PURCHASES = Stream(
    name="purchases",
    contract=Purchase,
    table="purchases",
    key="customer",
    topics=Topics(partitions=2),
)
