"""Charts as Vega-Lite: at most 300 points a series and 1,500 a chart, times in UTC."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd
import streamlit as st

from streamlit_app.measure.series import MAX_POINTS, Points

MAX_CHART_POINTS: Final = 1_500

# The card behind a chart shows through.
_PLAIN: Final = {"background": "transparent", "config": {"view": {"fill": None}}}
# On a phone two beside each other.
_LEGEND: Final = {
    "orient": "top",
    "title": None,
    "columns": {"expr": "width < 480 ? 2 : 4"},
    "labelLimit": {"expr": "width < 480 ? 130 : 260"},
}
_TIME: Final = {
    "field": "time",
    "type": "temporal",
    "title": None,
    "scale": {"type": "utc"},
    "axis": {"format": "%H:%M:%S", "grid": False, "labelOverlap": True, "tickCount": 6},
}


def points_for(series: int) -> int:
    """How many points each series of a chart may have."""
    return max(20, min(MAX_POINTS, MAX_CHART_POINTS // max(1, series)))


def time_axis(span: float) -> dict[str, Any]:
    """The axis of time for a span in seconds."""
    form = "%H:%M:%S" if span <= 1800 else "%H:%M" if span <= 90_000 else "%d %b %H:%M"  # noqa: PLR2004
    return {**_TIME, "axis": {**_TIME["axis"], "format": form}}  # type: ignore[dict-item]


def frame(series: Mapping[str, Points]) -> pd.DataFrame:
    """The rows of a chart: time, series, value."""
    return pd.DataFrame(
        {
            "time": pd.to_datetime(
                [time for each in series.values() for time in each.times], unit="s", utc=True
            ),
            "series": [name for name, each in series.items() for _ in each.times],
            "value": [value for each in series.values() for value in each.means],
        }
    )


def lines(
    key: str,
    series: Mapping[str, Points],
    span: float,
    *,
    unit: str,
    area: bool = False,
    height: int = 250,
    form: str = "~s",
) -> None:
    """Lines over time, as areas where asked; each with its name below.

    Args:
        key: of the chart, so that it is updated and not recreated.
        series: by name.
        span: seconds that are shown.
        unit: of the values, on the axis.
        area: fill below the lines.
        height: in pixels.
        form: how values are written (d3-format).
    """
    names = list(series)
    shown = frame(series)
    mark: dict[str, Any] = (
        {"type": "area", "line": {"strokeWidth": 1.6}, "fillOpacity": 0.14, "interpolate": "linear"}
        if area
        else {"type": "line", "strokeWidth": 1.8}
    )
    spec: dict[str, Any] = {
        **_PLAIN,
        "height": height,
        "mark": mark,
        "encoding": {
            "x": time_axis(span),
            "y": {
                "field": "value",
                "type": "quantitative",
                "title": unit,
                "stack": None,
                "scale": {"domainMin": 0},
                "axis": {"format": form, "tickCount": 5},
            },
            "color": {
                "field": "series",
                "type": "nominal",
                "scale": {"domain": names},
                "legend": _LEGEND,
            },
            "tooltip": [
                {"field": "series", "title": "series"},
                {"field": "value", "title": unit, "format": ",.2f"},
                {"field": "time", "type": "temporal", "format": "%H:%M:%S", "title": "UTC"},
            ],
        },
    }
    st.vega_lite_chart(shown, spec, key=key, width="stretch")


def bars(
    key: str,
    rows: pd.DataFrame,
    span: float,
    *,
    unit: str,
    colour: str,
    order: Sequence[str],
    layers: Sequence[dict[str, Any]] = (),
    height: int = 280,
) -> None:
    """Stacked bars over time; `rows` has ``time``, ``until``, ``value`` and the column `colour`."""
    x = time_axis(span)
    bar: dict[str, Any] = {
        "mark": {"type": "bar", "orient": "vertical"},
        "encoding": {
            "x": {**x, "field": "time"},
            "x2": {"field": "until"},
            "y": {
                "field": "value",
                "type": "quantitative",
                "title": unit,
                "stack": "zero",
                "axis": {"format": "~s", "tickCount": 5},
            },
            "color": {
                "field": colour,
                "type": "nominal",
                "scale": {"domain": list(order)},
                "legend": _LEGEND,
            },
            "tooltip": [
                {"field": colour, "title": "type"},
                {"field": "value", "title": unit, "format": ","},
                {
                    "field": "time",
                    "type": "temporal",
                    "format": "%d %b %H:%M:%S",
                    "title": "from, UTC",
                },
            ],
        },
    }
    st.vega_lite_chart(
        rows, {**_PLAIN, "height": height, "layer": [bar, *layers]}, key=key, width="stretch"
    )
