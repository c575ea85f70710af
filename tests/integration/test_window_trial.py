"""Samples through the windows' tables: what `streamflow check` finds, in the temporary schema."""

from collections.abc import Callable
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from loads import value
from streamflow import (
    Count,
    Distinct,
    EpochMillis,
    Event,
    First,
    HoppingWindow,
    Last,
    Max,
    Mean,
    Min,
    Quantiles,
    Stream,
    Sum,
    TumblingWindow,
)
from streamflow.postgres.trial import problems_with_rows
from streamflow.postgres.windows import trial
from streamflow.privacy import Hasher
from streamflow.settings import Settings
from streamflow.trial import samples_of
from window_parts import ORDERS

pytestmark = pytest.mark.integration


class Colour(Enum):
    RED = 1


class Every(Event):
    """A field of every type that an aggregate takes."""

    at: EpochMillis
    text: str
    number: int
    large: int | None
    decimal: Decimal
    double: float
    flag: bool
    day: date
    clock: time
    span: timedelta | None
    id: UUID
    colour: Colour


_ORDERED = ("at", "text", "number", "large", "decimal", "double", "day", "clock", "span", "colour")
_NUMBERS = ("number", "large", "decimal", "double", "colour")
_SCALARS = (*_ORDERED, "flag", "id")


def named(fields: tuple[str, ...], *kinds: Callable[[str], Any]) -> dict[str, Any]:
    return {f"{kind.__name__.lower()}_{field}": kind(field) for kind in kinds for field in fields}


EVERY = Stream(
    name="every", contract=Every, table="every", key="text", event_time="at",
    windows=[
        TumblingWindow(
            "1h", by=("text", "number", "decimal", "flag", "day", "id", "colour"),
            aggregates=(
                named(_ORDERED, Min, Max) | named(_SCALARS, First, Last) | named(_NUMBERS, Sum, Mean)
            ),
        ),
        HoppingWindow(
            "3h", every="1h",
            aggregates={
                **{f"distinct_{name}": Distinct(name, lg_k=5) for name in _SCALARS},
                **{f"quantiles_{name}": Quantiles(name, k=8) for name in _NUMBERS},
                "large": Count("large"),
            },
        ),
    ],
)  # fmt: skip


@pytest.mark.parametrize("stream", [EVERY, ORDERS], ids=["every", "orders"])
def test_samples_of_every_type_go_through(database: Settings, stream: Stream) -> None:
    samples = samples_of(stream, Hasher())

    assert len(samples) > 100
    assert problems_with_rows(database, stream, samples) == []
    assert value(database, "SELECT count(*) FROM pg_class WHERE relname LIKE 'every_%'") == 0


def test_a_part_that_is_lost_is_noticed(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "copy", lambda *_: None)

    problems = problems_with_rows(database, ORDERS, samples_of(ORDERS, Hasher()))

    assert [problem.part for problem in problems] == ["windows", "windows"]
    assert "orders_10s: their totals count 0 of" in problems[0].text
