"""The chart of an aggregate: stacked bars of what adds up, lines or points of all else."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import pandas as pd
import streamlit as st

from streamlit_app.ui import charts

_LARGE: Final = 100_000.0  # from here on the axis has "k" and "M"
_LATE: Final = "#c2255c"
_EARLIER: Final[dict[str, Any]] = {
    "bars": {"type": "line", "strokeDash": [5, 4], "strokeWidth": 1.5, "color": "gray"},
    "lines": {"type": "line", "strokeDash": [5, 4], "strokeWidth": 1.2, "opacity": 0.6},
}

# In a legend, as dashes have no colour of their own.
_DASHES: Final = {
    "orient": "bottom",
    "symbolType": "stroke",
    "symbolSize": 400,
    "symbolStrokeColor": "gray",
    "symbolStrokeWidth": 2,
}


class Shape(StrEnum):
    BARS = "bars"
    LINES = "lines"
    POINTS = "points"


def draw(
    key: str,
    shape: Shape,
    rows: Sequence[dict[str, Any]],
    span: float,
    *,
    unit: str,
    groups: Sequence[str],
    shares: Sequence[str],
    from_zero: bool,
    height: int,
) -> None:
    """Draws values, corrections and values of an earlier time.

    A row of a value has ``time``, ``until`` (of a bar), ``value``, ``text`` (as it is written), ``group``
    (with a colour), ``name`` (of the group), ``share``, ``window`` and ``events``; one of a correction
    ``time``, ``late`` and ``top``; one of an earlier value ``time``, ``earlier``, and of a line ``group`` and
    ``share``.

    Args:
        shares: that each group has a line of, if there are several.
        from_zero: whether the axis begins there.
    """
    x = charts.time_axis(span)
    encoding = _encoding(x, rows, unit, groups, shares, from_zero=from_zero)
    layers: list[dict[str, Any]] = [{"mark": _mark(shape), "encoding": encoding}]
    if shape is Shape.LINES:
        # Points of their own layer: as a part of the line, they hide its dashes in the legend.
        points = {name: value for name, value in encoding.items() if name != "strokeDash"}
        layers.append({**_only("window"), "mark": _mark(Shape.POINTS, 22), "encoding": points})
    if shape is Shape.BARS:
        encoding |= {"x2": {"field": "until"}}
        encoding["y"]["stack"] = "zero"
    if any("earlier" in row for row in rows):
        own: dict[str, Any] = {"x": x, "y": {"field": "earlier", "type": "quantitative"}}
        if shape is not Shape.BARS:
            own |= {"color": encoding["color"], "detail": [{"field": "group"}, {"field": "share"}]}
        bars = "bars" if shape is Shape.BARS else "lines"
        layers.append({**_only("earlier"), "mark": _EARLIER[bars], "encoding": own})
    if any("late" in row for row in rows):
        layers.append(_late_layer(x, 70 if shape is Shape.BARS else 36))
    layers[0] |= _only("window")
    spec = {**charts.PLAIN, "height": height, "layer": layers}
    st.vega_lite_chart(pd.DataFrame(rows), spec, key=key, width="stretch")


def _only(field: str) -> dict[str, Any]:
    return {"transform": [{"filter": f"isValid(datum.{field})"}]}


def _mark(shape: Shape, size: int = 40) -> dict[str, Any]:
    if shape is Shape.BARS:
        return {"type": "bar", "orient": "vertical"}
    if shape is Shape.POINTS:
        return {"type": "point", "size": size, "filled": True, "opacity": 0.9}
    return {"type": "line", "strokeWidth": 1.8}


def _late_layer(x: dict[str, Any], size: int) -> dict[str, Any]:
    mark = {"type": "point", "shape": "diamond", "size": size, "filled": True, "opacity": 1}
    tooltip = {"field": "late", "title": "late events counted here", "format": ","}
    return {
        **_only("late"),
        "mark": mark,
        "encoding": {
            "x": x,
            "y": {"field": "top", "type": "quantitative"},
            "color": {"value": _LATE},
            "tooltip": [tooltip],
        },
    }


def _encoding(
    x: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    unit: str,
    groups: Sequence[str],
    shares: Sequence[str],
    *,
    from_zero: bool,
) -> dict[str, Any]:
    largest = max((abs(row["value"]) for row in rows if row.get("value") is not None), default=0)
    by_share = len(groups) < 2 and len(shares) > 1  # noqa: PLR2004
    colour, order = ("share", shares) if by_share else ("group", groups)
    encoding: dict[str, Any] = {
        "x": x,
        "y": {
            "field": "value",
            "type": "quantitative",
            "title": unit,
            "scale": {"zero": from_zero},
            "axis": {"format": "~s" if largest >= _LARGE else ",.6~g", "tickCount": 5},
        },
        "color": {
            "field": colour,
            "type": "nominal",
            "scale": {"domain": list(order)},
            "legend": charts.LEGEND if len(order) > 1 else None,
        },
        "tooltip": [
            {"field": "name", "title": "group"},
            *([{"field": "share", "title": "share"}] if shares else []),
            {"field": "text", "title": unit},
            {"field": "events", "format": ","},
            {"field": "window", "title": "UTC"},
        ],
    }
    if len(shares) > 1 and not by_share:
        encoding["strokeDash"] = {
            "field": "share",
            "type": "nominal",
            "scale": {"domain": list(shares)},
            "legend": charts.LEGEND | _DASHES,
        }
    return encoding
