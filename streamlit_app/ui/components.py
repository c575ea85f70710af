"""What pages are made of."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import streamlit as st

from streamflow import units
from streamlit_app.measure.readings import Figure, Reading
from streamlit_app.ui.markup import Html, Tone, banner, empty

SPANS: Final = {
    "5 min": 300.0,
    "15 min": 900.0,
    "1 h": 3600.0,
    "4 h": 14_400.0,
    "24 h": 86_400.0,
}


def show(markup: Html) -> None:
    """Puts markup on the page."""
    st.html(markup)


def metric(
    key: str,
    label: str,
    figure: Figure,
    form: Callable[[float | None], str],
    *,
    note: str = "",
    points: Sequence[float] | None = None,
) -> None:
    """A figure on a card: its value, or "—" with what was known last, its age and why.

    Args:
        key: of the card, for tests and styles.
        label: what it is.
        figure: the value.
        form: writes it with its unit.
        note: below the value while it is current.
        points: a sparkline; gaps are left out.
    """
    now = time.time()
    current = figure.is_current(now)
    if current:
        value, below = form(figure.value), note
    else:
        value, below = units.UNKNOWN, _why(figure, form, now)
    known = [point for point in points or () if point == point]  # noqa: PLR0124 (NaN is not itself)
    with st.container(key=f"figure-{key}"):
        st.metric(
            label,
            value,
            delta=below or None,
            delta_color="off" if current else "orange",
            delta_arrow="off",
            help=f"Measured by {figure.source}, every {figure.interval:g} s.",
            border=True,
            chart_data=known if len(known) > 1 else None,
            chart_type="area",
            height="stretch",
        )


def _why(figure: Figure, form: Callable[[float | None], str], now: float) -> str:
    age = figure.age(now)
    if age is None:
        return figure.error or "not measured yet"
    if figure.value is None and figure.error is None:
        return "nothing to measure"
    last = f"last {form(figure.value)}, {units.ago(age)}" if figure.value is not None else ""
    return " · ".join(filter(None, (last, figure.error)))


def trouble(reading: Reading[Any], now: float, subject: str) -> bool:
    """Shows why a source's figures are not current; False where they are."""
    why = reading.trouble(now)
    if why is None:
        return False
    if reading.measured_at is None and reading.error is None:
        show(empty(f"Asking {subject} …", "Waiting for the first answer."))
        return True
    known = (
        f" What follows was measured {units.ago(now - reading.measured_at)}."
        if reading.measured_at is not None
        else ""
    )
    show(banner(Tone.BAD, f"{subject} does not answer", f"{why}.{known}"))
    return True


def span_control(key: str = "span", default: str = "15 min") -> float:
    """Which span of time to show, kept in the address."""
    chosen = st.segmented_control(
        "Time span",
        list(SPANS),
        default=default,
        required=True,
        key=key,
        label_visibility="collapsed",
        bind="query-params",
    )
    return SPANS[chosen or default]


def stamp(sequence: int, measured_at: float | None) -> Html:
    """When the figures beside it were measured, readable for tests, too."""
    return Html(
        f'<span class="sf-stamp" data-sequence="{sequence}" data-measured="{measured_at or 0:.3f}">'
        f"as of {units.clock(measured_at)} UTC</span>"
    )
