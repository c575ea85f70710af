"""What pages are made of."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from streamflow import units
from streamlit_app.measure.readings import Reading
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


def heading(title: str) -> DeltaGenerator:
    """The page's title; returns the place for controls at its right."""
    left, right = st.columns(2, vertical_alignment="bottom")
    left.title(title, anchor=False)
    return right.container(horizontal=True, horizontal_alignment="right")


def card(name: str, title: str = "", *, stretch: bool = False) -> DeltaGenerator:
    """A framed container; `stretch` makes it as high as the one beside it."""
    frame = st.container(
        border=True, key=f"card-{name}", height="stretch" if stretch else "content"
    )
    if title:
        frame.subheader(title, anchor=False)
    return frame


def choice(label: str, options: Sequence[str], key: str, default: str) -> str:
    """One of a few options, kept in the address."""
    chosen = st.segmented_control(
        label,
        options,
        default=default,
        required=True,
        key=key,
        label_visibility="collapsed",
        bind="query-params",
    )
    return chosen or default


def span_control(key: str = "span", default: str = "15 min") -> float:
    """The time span to show, in seconds."""
    return SPANS[choice("Time span", list(SPANS), key, default)]


def metric(
    key: str,
    label: str,
    figure: Reading[float],
    form: Callable[[float | None], str],
    *,
    note: str = "",
    points: Sequence[float] | None = None,
) -> None:
    """A figure on a card: its value, or "—" with what was known last, its age and why.

    `form` writes the value with its unit, `note` is shown below while it is current, and `points` are
    a sparkline without its gaps.
    """
    now = time.time()
    current = figure.sample is not None and figure.is_current(now)
    below = note if current else _why_missing(figure, form, now)
    known = [point for point in points or () if point == point]  # noqa: PLR0124 (NaN is not itself)
    with st.container(key=f"figure-{key}"):
        st.metric(
            label,
            form(figure.sample) if current else units.UNKNOWN,
            delta=below or None,
            delta_color="off" if current else "orange",
            delta_arrow="off",
            help=f"Measured by {figure.source}, every {figure.interval:g} s.",
            border=True,
            chart_data=known if len(known) > 1 else None,
            chart_type="area",
            height="stretch",
        )


def _why_missing(figure: Reading[float], form: Callable[[float | None], str], now: float) -> str:
    age = figure.age(now)
    if age is None:
        return figure.error or "not measured yet"
    if figure.sample is None:
        return figure.error or "nothing to measure"
    last = f"last {form(figure.sample)}, {units.ago(age)}"
    return " · ".join(filter(None, (last, figure.error)))


def show_trouble(reading: Reading[Any], now: float) -> bool:
    """Shows why a source's figures are not current; False where they are."""
    why = reading.trouble(now)
    if why is None:
        return False
    if reading.is_pending:
        show(empty(f"Asking {reading.source} …", "Waiting for the first answer."))
        return True
    age = reading.age(now)
    known = "" if age is None else f" What follows was measured {units.ago(age)}."
    show(banner(Tone.BAD, f"{reading.source} does not answer", f"{why}.{known}"))
    return True


def show_error(reading: Reading[Any]) -> bool:
    """Shows why the last attempt failed; False where it did not."""
    if reading.error is None:
        return False
    show(banner(Tone.BAD, f"{reading.source} does not answer", reading.error))
    return True


def stamp(now: float, measured_at: float | None) -> Html:
    """When the figures beside it were measured, with what tests read."""
    return Html(
        f'<span class="sf-stamp" data-sequence="{now:.0f}">as of {units.clock(measured_at)} UTC</span>'
    )
