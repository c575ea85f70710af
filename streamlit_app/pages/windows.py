"""Windows: counts by event time, corrections by late events, compared with the same time before."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import pandas as pd
import streamlit as st

from streamflow import units
from streamflow.stream import Stream
from streamlit_app.measure.demand import Question
from streamlit_app.measure.readings import Reading
from streamlit_app.records.queries import WindowCell, Windows, windows
from streamlit_app.serving import Serving, serving
from streamlit_app.ui import charts
from streamlit_app.ui.components import show, span_control, trouble
from streamlit_app.ui.markup import Html, Tone, code, empty, mark, soft, table

_BEFORE: Final = {
    "nothing": None,
    "an hour before": 3600,
    "a day before": 86_400,
    "a week before": 604_800,
}
_INTERVAL: Final = 2.0  # seconds


def render() -> None:
    """The page."""
    server = serving()
    counted = [stream for stream in server.streams if stream.windows is not None]
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.title("Windows", anchor=False)
    if not counted:
        show(empty("No stream has windows", "Declare windows=TumblingWindow(…) in a stream."))
        return
    with right, st.container(horizontal=True, horizontal_alignment="right"):
        span = span_control("window_span")
    with st.container(border=True, key="card-controls"):
        first, second, third = st.columns(3)
        name = first.selectbox(
            "Stream", [stream.name for stream in counted], key="stream", bind="query-params"
        )
        before = second.selectbox(
            "Compare with", list(_BEFORE), key="compare", index=1, bind="query-params"
        )
        until = third.text_input(
            "Up to, UTC",
            key="until",
            placeholder="the newest window",
            bind="query-params",
            help="A time such as 2016-12-10 11:05; empty follows the newest window.",
        )
    stream = next(each for each in counted if each.name == name)
    end = _moment(until or "")
    if until and end is None:
        show(empty("That time cannot be read", "Write it as 2016-12-10 11:05, in UTC."))
        return
    server.demand.wait(_question(server, stream, span, end), 2.0)
    _counts(stream.name, span, end, _BEFORE[before or "nothing"])


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _question(
    server: Serving, stream: Stream, span: float, end: datetime | None
) -> Question[Windows]:
    ask = partial(windows, server.settings, stream, span, end)
    return Question(("windows", stream.name, span, end), "PostgreSQL", _INTERVAL, ask)


@st.fragment(run_every=2)
def _counts(name: str, span: float, end: datetime | None, before: int | None) -> None:
    """Chart and totals. No I/O: fetched in the background."""
    server = serving()
    stream = next(each for each in server.streams if each.name == name)
    reading: Reading[Windows] = server.demand.look(_question(server, stream, span, end))
    now = datetime.now(UTC).timestamp()
    if trouble(reading, now, "PostgreSQL") and reading.sample is None:
        return
    found = reading.sample
    if found is None or found.newest is None:
        show(
            empty(
                "No window is closed yet", "Windows close 5 s after their end: produce some events."
            )
        )
        return
    earlier: Windows | None = None
    if before is not None:
        shifted = found.end - timedelta(seconds=before)
        earlier = server.demand.look(_question(server, stream, span, shifted)).sample
    with st.container(border=True, key="card-windows"):
        size = stream.windows.size.total_seconds() if stream.windows else 10.0
        together = f", {found.step / size:.0f} windows to a bar" if found.step > size else ""
        st.subheader("Events by type", anchor=False)
        st.caption(
            f"Windows of {size:g} s by event time{together}, up to {units.moment(found.end)[:19]} UTC. "
            "A diamond marks corrections by late events; the dashed line is the earlier total."
        )
        if not found.cells:
            show(empty("No event in this time", "Choose a longer span, or another end."))
        else:
            _chart(found, earlier, span, before)
    left, right = st.columns(2)
    with left, st.container(border=True, key="card-totals", height="stretch"):
        st.subheader("Totals", anchor=False)
        show(_totals(found, earlier))
    with right, st.container(border=True, key="card-late", height="stretch"):
        st.subheader("Corrected windows", anchor=False)
        show(_late(found))


def _chart(found: Windows, earlier: Windows | None, span: float, before: int | None) -> None:
    kinds = sorted({cell.kind for cell in found.cells})
    step = timedelta(seconds=found.step)
    rows: list[dict[str, Any]] = [
        {"time": cell.start, "until": cell.start + step, "type": cell.kind, "value": cell.number}
        for cell in found.cells
    ]
    layers: list[dict[str, Any]] = []
    x = charts.time_axis(span)
    late = _by_start(found.cells, late=True)
    totals = _by_start(found.cells)
    if late:
        rows += [
            {"time": start + step / 2, "late": number, "top": totals[start]}
            for start, number in late.items()
        ]
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
                    "tooltip": [
                        {"field": "late", "title": "late events counted here", "format": ","}
                    ],
                },
            }
        )
    if earlier is not None and before is not None and earlier.cells:
        shift = timedelta(seconds=before)
        rows += [
            {"time": start + shift + step / 2, "earlier": number}
            for start, number in _by_start(earlier.cells).items()
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
        order=kinds,
        layers=layers,
        height=300,
    )


def _by_start(cells: tuple[WindowCell, ...], *, late: bool = False) -> dict[datetime, int]:
    found: dict[datetime, int] = {}
    for cell in cells:
        number = cell.late if late else cell.number
        if number:
            found[cell.start] = found.get(cell.start, 0) + number
    return found


def _totals(found: Windows, earlier: Windows | None) -> Html:
    now, late = _by_kind(found.cells), _by_kind(found.cells, late=True)
    then = _by_kind(earlier.cells) if earlier is not None else {}
    rows = []
    for kind in sorted({*now, *then}):
        count = now.get(kind, 0)
        rows.append(
            (
                code(kind),
                Html(f'<span data-window-total="{kind}">{units.count(count)}</span>'),
                units.count(late.get(kind, 0)),
                units.count(then[kind]) if kind in then else "—",
                _change(count, then.get(kind)),
            )
        )
    if not rows:
        return empty("No totals", "There is no event in this time.")
    return table(("type", "events", "of those late", "before", "change"), rows, (1, 2, 3, 4))


def _by_kind(cells: tuple[WindowCell, ...], *, late: bool = False) -> dict[str, int]:
    found: dict[str, int] = {}
    for cell in cells:
        found[cell.kind] = found.get(cell.kind, 0) + (cell.late if late else cell.number)
    return found


def _change(now: int, then: int | None) -> str:
    if not then:
        return "—"
    return f"{(now - then) / then * 100:+.0f} %"


def _late(found: Windows) -> Html:
    corrected = [cell for cell in reversed(found.cells) if cell.late][:12]
    if not corrected:
        return empty("No correction", "Every event came before its window closed.")
    return table(
        ("window", "type", "late", "of"),
        (
            (
                f"{cell.start.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
                code(cell.kind),
                mark(Tone.WARN, units.count(cell.late)),
                soft(units.count(cell.number)),
            )
            for cell in corrected
        ),
        (2, 3),
    )
