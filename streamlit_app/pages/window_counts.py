"""Counts by event time, corrections by late events, compared with the same time before."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from streamflow import units
from streamflow.stream import Stream
from streamflow.windows.specs import TumblingWindow
from streamlit_app.measure.poller import PollJob
from streamlit_app.records.window_counts import WindowCounts, window_counts
from streamlit_app.serving import Serving, serving
from streamlit_app.ui import charts
from streamlit_app.ui.components import card, show, show_trouble
from streamlit_app.ui.markup import Html, Tone, code, empty, mark, soft, table
from streamlit_app.ui.window_words import ahead_of_now


def _job(
    server: Serving, stream: Stream, span: float, end: datetime | None
) -> PollJob[WindowCounts]:
    query = partial(window_counts, server.settings, stream, span, end)
    return PollJob(("windows", stream.name, span, end), "PostgreSQL", 2.0, query)


def render_counts(
    server: Serving,
    stream: Stream,
    spec: TumblingWindow,
    span: float,
    end: datetime | None,
    before: timedelta | None,
) -> None:
    """Shows them, updated while they are on the screen."""
    server.demand.wait(_job(server, stream, span, end), 2.0)
    _counts(stream, spec, span, end, before)


@st.fragment(run_every=2)
def _counts(
    stream: Stream,
    spec: TumblingWindow,
    span: float,
    end: datetime | None,
    before: timedelta | None,
) -> None:
    """Chart and totals. No I/O: fetched in the background."""
    server = serving()
    reading = server.demand.latest(_job(server, stream, span, end))
    shown = reading.sample
    if show_trouble(reading, datetime.now(UTC).timestamp()) and shown is None:
        return
    if shown is None or shown.end is None:
        grace = spec.grace.total_seconds()
        hint = f"Windows close {grace:g} s after their end: produce some events."
        show(empty("No window is closed yet", hint))
        return
    earlier: WindowCounts | None = None
    if before is not None:
        earlier = server.demand.latest(_job(server, stream, span, shown.end - before)).sample
    kind = stream.kind_field
    with card("windows", f"Events by {kind}" if kind else "Events"):
        size = spec.size.total_seconds()
        together = f", {shown.step / size:.0f} windows to a bar" if shown.step > size else ""
        st.caption(
            f"Windows of {size:g} s by event time{together}, up to {units.moment(shown.end)[:19]} UTC. "
            "A diamond marks corrections by late events; the dashed line is the earlier total."
        )
        if shown.ahead:
            st.caption(ahead_of_now(shown.ahead, "window"))
        if not shown.cells:
            show(empty("No event in this time", "Choose a longer span, or another end."))
        else:
            _chart(shown, earlier, span, before, kind or "group")
    left, right = st.columns(2)
    with left, card("totals", "Totals", stretch=True):
        show(_totals(shown, earlier, kind or "group"))
    with right, card("late", "Corrected windows", stretch=True):
        show(_late(shown, kind or "group"))


def _chart(
    shown: WindowCounts,
    earlier: WindowCounts | None,
    span: float,
    before: timedelta | None,
    title: str,
) -> None:
    step = timedelta(seconds=shown.step)
    rows: list[dict[str, Any]] = [
        {"time": cell.start, "until": cell.start + step, "type": cell.kind, "value": cell.number}
        for cell in shown.cells
    ]
    layers: list[dict[str, Any]] = []
    x = charts.time_axis(span)
    late = _sums(shown, "start", "late")
    totals = _sums(shown, "start", "number")
    if late:
        rows += [
            {"time": start + step / 2, "late": number, "top": totals[start]}
            for start, number in late.items()
        ]
        tooltip = {"field": "late", "title": "late events counted here", "format": ","}
        layers.append(
            {
                "transform": [{"filter": "isValid(datum.late)"}],
                "mark": {
                    "type": "point",
                    "shape": "diamond",
                    "size": 70,
                    "filled": True,
                    "opacity": 1,
                },
                "encoding": {
                    "x": x,
                    "y": {"field": "top", "type": "quantitative"},
                    "color": {"value": "#c2255c"},
                    "tooltip": [tooltip],
                },
            }
        )
    if earlier is not None and before is not None and earlier.cells:
        rows += [
            {"time": start + before + step / 2, "earlier": number}
            for start, number in _sums(earlier, "start", "number").items()
        ]
        layers.append(
            {
                "transform": [{"filter": "isValid(datum.earlier)"}],
                "mark": {"type": "line", "strokeDash": [5, 4], "strokeWidth": 1.5, "color": "gray"},
                "encoding": {"x": x, "y": {"field": "earlier", "type": "quantitative"}},
            }
        )
    charts.bars(
        "windows",
        pd.DataFrame(rows),
        span,
        unit="events",
        colour="type",
        title=title,
        order=sorted({cell.kind for cell in shown.cells}),
        layers=layers,
        height=300,
    )


def _sums(counted: WindowCounts, by: str, field: str) -> Counter[Any]:
    """Sums of a field of the cells by another one, without zeros."""
    sums: Counter[Any] = Counter()
    for cell in counted.cells:
        sums[getattr(cell, by)] += getattr(cell, field)
    return +sums


def _totals(shown: WindowCounts, earlier: WindowCounts | None, title: str) -> Html:
    now, late = _sums(shown, "kind", "number"), _sums(shown, "kind", "late")
    then = Counter() if earlier is None else _sums(earlier, "kind", "number")
    rows = [
        (
            code(kind),
            Html(f'<span data-window-total="{escape(kind)}">{units.count(now[kind])}</span>'),
            units.count(late[kind]),
            units.count(then[kind]) if kind in then else "—",
            f"{(now[kind] - then[kind]) / then[kind] * 100:+.0f} %" if kind in then else "—",
        )
        for kind in sorted(now | then)
    ]
    if not rows:
        return empty("No totals", "There is no event in this time.")
    return table((title, "events", "of those late", "before", "change"), rows, (1, 2, 3, 4))


def _late(shown: WindowCounts, title: str) -> Html:
    corrected = [cell for cell in reversed(shown.cells) if cell.late][:12]
    if not corrected:
        return empty("No correction", "Every event came before its window closed.")
    rows = (
        (
            f"{cell.start.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            code(cell.kind),
            mark(Tone.WARN, units.count(cell.late)),
            soft(units.count(cell.number)),
        )
        for cell in corrected
    )
    return table(("window", title, "late", "of"), rows, (2, 3))
