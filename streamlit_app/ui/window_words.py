"""What is shown of an aggregate of windows, in words. Pure."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from streamflow import units
from streamflow.durations import duration_text
from streamflow.postgres.sessions.tables import SessionTable
from streamflow.postgres.windows.tables import WindowTable, panes_of
from streamflow.units import counted
from streamlit_app.records.window_choice import COUNTED, AggregateTable, ChosenAggregate
from streamlit_app.records.window_counts import MOST_AHEAD
from streamlit_app.records.window_results import WindowTotals


def captions(
    table: AggregateTable,
    chosen: ChosenAggregate,
    shown: WindowTotals,
    *,
    compared: bool,
    now: datetime,
) -> Iterator[str]:
    """The sentences above the chart, which may have the values of an earlier time, too (`compared`)."""
    if chosen.name != COUNTED:
        yield f"{chosen.declared}."
    if isinstance(table, SessionTable):
        yield from _sessions(table, chosen, shown, now)
    else:
        yield from _windows(table, chosen, shown)
    if chosen.is_chartable and any(cell.late for cell in shown.cells):
        yield "A diamond marks corrections by late events."
    if chosen.is_chartable and compared:
        yield "Dashed is the time before."
    if shown.totals and shown.totals[-1].is_others:
        as_one = ""
        if not isinstance(table, SessionTable) or chosen.adds_up:
            as_one = f", taken as one: {chosen.name} is that of all their events"
        yield f"“{shown.totals[-1].group}” stands for the groups with fewer events{as_one}."
    if shown.is_cut and shown.since is not None and shown.end is not None:
        length = units.duration((shown.end - shown.since).total_seconds())
        yield (
            f"Only the last {length} of this time are shown: in all of it there is too much to read within "
            "seconds. Choose an earlier end to see what was before."
        )
    if shown.ahead:
        yield ahead_of_now(shown.ahead, "session" if isinstance(table, SessionTable) else "window")


def length(duration: timedelta) -> str:
    """A duration as in "10 s"."""
    return re.sub(r"(?<=[0-9])(?=[a-z])", " ", duration_text(duration))


def ahead_of_now(number: int, noun: str) -> str:
    """That there are so many windows in the future."""
    least = "At least " if number == MOST_AHEAD else ""
    return (
        f"{least}{counted(number, noun)} ahead of now, of events with future times: choose an end there to "
        "see them."
    )


def _windows(table: WindowTable, chosen: ChosenAggregate, shown: WindowTotals) -> Iterator[str]:
    spec = table.spec
    size, pane = length(spec.size), timedelta(milliseconds=spec.pane_ms)
    together = shown.step // pane
    mark = "bar" if chosen.adds_up else "point" if chosen.is_chartable else "row"
    up_to = f"up to {units.moment(shown.end)[:19]} UTC."
    if panes_of(spec) > 1:
        which = (
            "a window begins"
            if together == 1
            else f"every {_ordinal(together)} window is shown, one"
        )
        yield (
            f"Windows of {size}, which overlap: {which} every {length(shown.step)}. Each {mark} is at "
            f"the end of a window, {up_to}"
        )
    elif together > 1:
        merged = "" if chosen.adds_up else ", which is of all their events"
        yield (
            f"Windows of {size} by event time, {up_to} {together:,} of them make a {mark} of "
            f"{length(shown.step)}{merged}."
        )
    else:
        yield f"Windows of {size} by event time, {up_to}"


def _sessions(
    table: SessionTable, chosen: ChosenAggregate, shown: WindowTotals, now: datetime
) -> Iterator[str]:
    gap = length(table.spec.gap)
    if not chosen.is_chartable:
        yield f"Sessions with a gap of {gap}. What is no number is listed, and not drawn."
    elif chosen.adds_up:
        yield f"Sessions with a gap of {gap}: a bar adds up those that began in {length(shown.step)}."
    else:
        number = sum(total.number for total in shown.totals)
        which = "each point is one, where it began"
        if number > len(shown.cells):
            which = f"shown are the newest {len(shown.cells):,} of {number:,}, each where it began"
        yield f"Sessions with a gap of {gap}: {which}."
    if shown.computed_at is not None:
        age = units.ago((now - shown.computed_at).total_seconds())
        at = units.moment(shown.computed_at)[:19]
        yield f"The newest was computed {age}, at {at} UTC, from the rows that there were by then."


def _ordinal(number: int) -> str:
    last = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}th" if number % 100 in (11, 12, 13) else f"{number}{last}"
