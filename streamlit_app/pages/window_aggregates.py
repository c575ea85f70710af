"""An aggregate of windows by event time and group, compared with the same time before."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import streamlit as st

from streamflow.postgres.sessions.tables import SessionTable
from streamlit_app.measure.poller import PollJob
from streamlit_app.pages.window_tables import (
    corrected_table,
    newest_table,
    sessions_table,
    too_late_line,
    totals_table,
)
from streamlit_app.records.session_totals import session_totals
from streamlit_app.records.window_choice import AggregateTable, ChosenAggregate
from streamlit_app.records.window_results import WindowTotals
from streamlit_app.records.window_totals import window_totals
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import card, show, show_trouble
from streamlit_app.ui.markup import Html, Tone, banner, empty
from streamlit_app.ui.window_chart import Shape, draw
from streamlit_app.ui.window_rows import chart_rows, is_compared, series_of
from streamlit_app.ui.window_words import captions

_INTERVAL: Final = 4.0  # seconds


def render_aggregate(
    server: Serving,
    table: AggregateTable,
    chosen: ChosenAggregate,
    span: timedelta,
    end: datetime | None,
    before: timedelta | None,
) -> None:
    """Shows it, updated while it is on the screen."""
    server.demand.wait(_job(server, table, chosen, span, end), 2.0)
    _aggregate(table, chosen, span, end, before)


def _job(
    server: Serving,
    table: AggregateTable,
    chosen: ChosenAggregate,
    span: timedelta,
    end: datetime | None,
) -> PollJob[WindowTotals]:
    if isinstance(table, SessionTable):
        query = partial(session_totals, server.settings, table, chosen, span, end)
    else:
        query = partial(window_totals, server.settings, table, chosen, span, end)
    return PollJob(("windows", table.name, chosen.name, span, end), "PostgreSQL", _INTERVAL, query)


@st.fragment(run_every=2)
def _aggregate(
    table: AggregateTable,
    chosen: ChosenAggregate,
    span: timedelta,
    end: datetime | None,
    before: timedelta | None,
) -> None:
    """Chart and tables. No I/O: fetched in the background."""
    server = serving()
    reading = server.demand.latest(_job(server, table, chosen, span, end))
    shown = reading.sample
    if show_trouble(reading, datetime.now(UTC).timestamp()) and shown is None:
        return
    if shown is None or shown.refusal:
        why = "" if shown is None else shown.refusal
        show(banner(Tone.WARN, f"The windows {table.name} cannot be shown", why))
        return
    if shown.end is None:
        show(_nothing(table))
        return
    earlier: WindowTotals | None = None
    if before is not None:
        job = _job(server, table, chosen, span, shown.end - before)
        earlier = server.demand.latest(job).sample
    _chart_card(table, chosen, shown, earlier, before, span)
    left, right = st.columns(2)
    with left, card("totals", "Totals", stretch=True):
        if not isinstance(table, SessionTable) and (table.spec.late_after or shown.too_late):
            show(too_late_line(shown.too_late, table.spec.late_after))
        show(totals_table(table, chosen, shown, earlier))
    with right:
        if isinstance(table, SessionTable):
            with card("sessions", "Newest sessions", stretch=True):
                show(sessions_table(chosen, shown))
        else:
            with card("late", "Corrected windows", stretch=True):
                show(corrected_table(shown))


def _nothing(table: AggregateTable) -> Html:
    if isinstance(table, SessionTable):
        hint = f"The Dagster asset rollups/{table.name} computes them, every 15 minutes: see when it ran."
        return empty("No session is computed yet", hint)
    grace = table.spec.grace.total_seconds()
    return empty(
        "No window is closed yet",
        f"Windows close {grace:g} s after their end: produce some events.",
    )


def _chart_card(
    table: AggregateTable,
    chosen: ChosenAggregate,
    shown: WindowTotals,
    earlier: WindowTotals | None,
    before: timedelta | None,
    span: timedelta,
) -> None:
    by = " and ".join(column.name for column in table.by)
    with card("windows", f"{chosen.name} by {by}" if by else chosen.name):
        shape = _shape(table, chosen)
        compared = earlier is not None and bool(earlier.cells) and is_compared(chosen, shown, shape)
        now = datetime.now(UTC)
        st.caption(" ".join(captions(table, chosen, shown, compared=compared, now=now)))
        if not shown.cells and shown.is_cut:
            hint = f"One window has more parts than can be read within seconds: query {table.name}_totals."
            show(empty("Too much to show", hint))
        elif not shown.cells:
            show(empty("No event in this time", "Choose a longer span, or another end."))
        elif not chosen.is_chartable:
            # Sessions are listed below.
            if not isinstance(table, SessionTable):
                show(newest_table(chosen, shown))
        else:
            draw(
                "windows",
                shape,
                chart_rows(chosen, shape, shown, earlier, before),
                span.total_seconds(),
                unit=chosen.unit,
                groups=series_of(shown),
                shares=chosen.labels,
                from_zero=chosen.type == "bigint" or chosen.adds_up,
                height=300,
            )


def _shape(table: AggregateTable, chosen: ChosenAggregate) -> Shape:
    if chosen.adds_up:
        return Shape.BARS
    return Shape.POINTS if isinstance(table, SessionTable) else Shape.LINES
