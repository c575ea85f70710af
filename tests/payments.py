"""A stream with two kinds of events."""

from typing import Annotated, Literal

from pydantic import Field

from drawn import Colour
from streamflow import Event, Stream, Timestamp


class Paid(Event):
    type: Literal["PAID"]
    timestamp: Timestamp
    amount: float
    colour: Colour | None = None
    tags: list[str] = []  # noqa: RUF012 (pydantic copies it)


class Refunded(Event):
    type: Literal["REFUNDED"]
    timestamp: Timestamp
    reason: str
    final: bool


PAYMENTS = Stream(
    name="payments",
    contract=Annotated[Paid | Refunded, Field(discriminator="type")],
    table="payments",
    key="type",
)
