"""Windows of a stream: which ones, which aggregate, and which time."""

from datetime import UTC, datetime, timedelta
from typing import Final

import streamlit as st

from streamflow.dead_letters.selection_parser import parse_time
from streamflow.errors import UsageError
from streamflow.windows.progress import COUNTS
from streamlit_app.pages.window_aggregates import render_aggregate
from streamlit_app.pages.window_counts import render_counts
from streamlit_app.records.window_choice import (
    AggregateTable,
    ChosenAggregate,
    aggregates_of,
    choices_of,
)
from streamlit_app.serving import serving
from streamlit_app.ui.components import card, heading, show, span_control
from streamlit_app.ui.markup import empty
from streamlit_app.ui.named_choice import named_choice
from streamlit_app.ui.stream_control import stream_control, summary

_BEFORE: Final = {
    "nothing": None,
    "an hour before": timedelta(hours=1),
    "a day before": timedelta(days=1),
    "a week before": timedelta(weeks=1),
}


def render() -> None:
    server = serving()
    # Those that have windows first. No sum over streams: their groups are of different fields.
    streams = sorted(
        server.streams, key=lambda stream: (stream.event_counts is None, not stream.windows)
    )
    controls = heading("Windows")
    stream = stream_control(controls, streams) or streams[0]
    with controls:
        span = span_control("window_span")
    if len(streams) > 1:
        show(summary(stream, streams))
    choices = choices_of(stream)
    if not choices:
        hint = 'Declare windows=TumblingWindow("10s", …) in the stream to count or aggregate its events.'
        show(empty(f"The stream {stream.name} has no windows", hint))
        return
    with card("controls"):
        table, chosen = _controls(choices)
        first, second = st.columns(2)
        before = first.selectbox(
            "Compare with", list(_BEFORE), key="compare", index=1, bind="query-params"
        )
        until = second.text_input(
            "Up to, UTC",
            key="until",
            placeholder="the newest window",
            bind="query-params",
            help="A time such as 2016-12-10 11:05, or an age such as 2h; empty follows the newest "
            "window.",
        )
    try:
        end = parse_time(until.strip(), datetime.now(UTC)) if until else None
    except UsageError as error:
        show(empty("That time cannot be read", str(error)))
        return
    earlier = _BEFORE[before or "nothing"]
    if table is not None and chosen is not None:
        render_aggregate(server, table, chosen, timedelta(seconds=span), end, earlier)
    elif stream.event_counts is not None:
        render_counts(server, stream, stream.event_counts, span, end, earlier)


def _controls(
    choices: dict[str, AggregateTable | None],
) -> tuple[AggregateTable | None, ChosenAggregate | None]:
    """Which windows, and which of their aggregates; nothing to choose of those that only count."""
    if list(choices) == [COUNTS]:
        return None, None
    several = len(choices) > 1
    first, second = st.columns(2) if several else (st, st)
    table = choices[named_choice(first, "Windows", list(choices), "windows")]
    aggregates = {} if table is None else aggregates_of(table)
    return table, aggregates.get(named_choice(second, "Aggregate", list(aggregates), "aggregate"))
