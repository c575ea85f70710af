"""Values of aggregates as texts and as numbers of a chart. Pure."""

import math
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from streamflow import units
from streamflow.aggregates.sums import Mean
from streamflow.groups import scalar_text
from streamlit_app.records.window_choice import ChosenAggregate

_LONGEST: Final = 80  # characters


def value_text(value: Any, chosen: ChosenAggregate) -> str:
    """Of one value: numbers with the digits of their field, times in UTC."""
    if value is None:
        return units.UNKNOWN
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Decimal | float):
        return _number_text(value, chosen)
    if isinstance(value, datetime):
        return units.moment(value)
    if isinstance(value, timedelta):
        return str(value)
    text = scalar_text(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _number_text(value: Decimal | float, chosen: ChosenAggregate) -> str:
    if not math.isfinite(value):
        return str(value)
    if chosen.places is not None:
        return f"{value:,.{chosen.places}f}"
    # The others are exact, with the digits that the events have.
    if isinstance(value, Decimal) and not isinstance(chosen.aggregate, Mean):
        return f"{value:,f}"
    return units.significant(float(value))


def values_text(values: tuple[Any, ...], chosen: ChosenAggregate) -> str:
    """Of the shares of `Quantiles`, one after the other."""
    return " / ".join(value_text(value, chosen) for value in values)


def chart_number(value: Any) -> float | None:
    """The value on an axis; None if it has no place there."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    return float(value) if math.isfinite(value) else None


def change_text(now: tuple[Any, ...], then: tuple[Any, ...]) -> str:
    """By how much numbers have changed."""
    changes = []
    for value, before in zip(map(chart_number, now), map(chart_number, then), strict=True):
        if value is None or not before:
            changes.append(units.UNKNOWN)
        else:
            changes.append(f"{(value - before) / abs(before) * 100:+,.0f} %")
    return units.UNKNOWN if {*changes} == {units.UNKNOWN} else " / ".join(changes)
