"""Charts as Vega-Lite: at most 300 points a series and 1,500 a chart, times in UTC."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd
import streamlit as st

from streamlit_app.measure.ring_buffers import Points

# The card behind a chart shows through.
PLAIN: Final = {"background": "transparent", "config": {"view": {"fill": None}}}
# On a phone two beside each other.
LEGEND: Final = {
    "orient": "top",
    "title": None,
    "columns": {"expr": "width < 480 ? 2 : 4"},
    "labelLimit": {"expr": "width < 480 ? 130 : 260"},
}


def time_axis(span: float) -> dict[str, Any]:
    """The axis of time for a span in seconds."""
    form = "%H:%M:%S" if span <= 1800 else "%H:%M" if span <= 90_000 else "%d %b %H:%M"  # noqa: PLR2004
    return {
        "field": "time",
        "type": "temporal",
        "title": None,
        "scale": {"type": "utc"},
        "axis": {"format": form, "grid": False, "labelOverlap": True, "tickCount": 6},
    }


def lines(
    key: str,
    series: Mapping[str, Points],
    span: float,
    *,
    unit: str,
    height: int,
    area: bool = False,
    form: str = "~s",
) -> None:
    """Lines of named series over the last `span` seconds; `form` is the d3-format of the axis, and with
    the same `key` a chart is updated and not recreated."""
    rows = pd.DataFrame(
        {
            "time": pd.to_datetime(
                [time for points in series.values() for time in points.times], unit="s", utc=True
            ),
            "series": [name for name, points in series.items() for _ in points.times],
            "value": [mean for points in series.values() for mean in points.means],
        }
    )
    mark: dict[str, Any] = {"type": "line", "strokeWidth": 1.8}
    if area:
        mark = {"type": "area", "line": {"strokeWidth": 1.6}, "fillOpacity": 0.14}
    encoding = _encoding(span, unit, "series", list(series), form=form, number=",.2f", stack=None)
    spec = {**PLAIN, "height": height, "mark": mark, "encoding": encoding}
    st.vega_lite_chart(rows, spec, key=key, width="stretch")


def bars(
    key: str,
    rows: pd.DataFrame,
    span: float,
    *,
    unit: str,
    colour: str,
    order: Sequence[str],
    title: str | None = None,
    layers: Sequence[dict[str, Any]] = (),
    height: int,
) -> None:
    """Stacked bars over time; `rows` has ``time``, ``until``, ``value`` and the column `colour`, which is
    called `title` where that is given."""
    encoding = _encoding(span, unit, colour, order, form="~s", number=",", stack="zero")
    encoding["tooltip"][0]["title"] = title or colour
    bar = {
        "mark": {"type": "bar", "orient": "vertical"},
        "encoding": {**encoding, "x2": {"field": "until"}},
    }
    spec = {**PLAIN, "height": height, "layer": [bar, *layers]}
    st.vega_lite_chart(rows, spec, key=key, width="stretch")


def _encoding(
    span: float,
    unit: str,
    colour: str,
    order: Sequence[str],
    *,
    form: str,
    number: str,
    stack: str | None,
) -> dict[str, Any]:
    """Values over time, coloured by a column; `form` on the axis, `number` in the tooltip."""
    return {
        "x": time_axis(span),
        "y": {
            "field": "value",
            "type": "quantitative",
            "title": unit,
            "stack": stack,
            "scale": {"domainMin": 0},
            "axis": {"format": form, "tickCount": 5},
        },
        "color": {
            "field": colour,
            "type": "nominal",
            "scale": {"domain": list(order)},
            "legend": LEGEND,
        },
        "tooltip": [
            {"field": colour},
            {"field": "value", "title": unit, "format": number},
            {"field": "time", "type": "temporal", "format": "%d %b %H:%M:%S", "title": "UTC"},
        ],
    }
