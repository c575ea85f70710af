"""The tables of an aggregate of windows. Pure."""

from datetime import UTC, datetime, timedelta
from html import escape
from itertools import islice
from typing import Final

from streamflow import units
from streamflow.postgres.sessions.tables import SessionTable
from streamflow.units import counted, either
from streamlit_app.records.window_choice import COUNTED, AggregateTable, ChosenAggregate
from streamlit_app.records.window_results import Cell, GroupTotal, WindowTotals
from streamlit_app.ui.markup import Html, Tone, code, empty, line, mark, soft, table
from streamlit_app.ui.values import change_text, value_text, values_text
from streamlit_app.ui.window_words import length

_MOST_ROWS: Final = 12


def totals_table(
    windows: AggregateTable,
    chosen: ChosenAggregate,
    shown: WindowTotals,
    earlier: WindowTotals | None,
) -> Html:
    """Of each group: the aggregate of all the time that is shown, and how it was before."""
    if not shown.totals:
        return empty("No totals", "There is no event in this time.")
    before = {} if earlier is None else {total.group: total for total in earlier.totals}
    of_sessions = isinstance(windows, SessionTable)
    # Values of sessions may not add up.
    has_values = any(value is not None for total in shown.totals for value in total.values)
    values = list(chosen.labels or [chosen.name]) if has_values and chosen.name != COUNTED else []
    before = before if has_values and chosen.is_chartable else {}
    columns = [
        ", ".join(column.name for column in windows.by) or "group",
        *values,
        *(["sessions", "events"] if of_sessions else ["events", "of those late"]),
        *(["before", "change"] if before else []),
    ]
    rows = []
    for total in shown.totals:
        cells: list[object] = [code(total.group) if not total.is_others else soft(total.group)]
        if values:
            cells += [_value(total, each, chosen) for each in total.values]
        second = total.number if of_sessions else total.counted
        third = total.counted if of_sessions else total.late
        cells += [units.count(second), units.count(third)]
        if before:
            cells += _compared(total, before.get(total.group), chosen)
        rows.append(cells)
    return table(columns, rows, range(1, len(columns)))


def _value(total: GroupTotal, value: object, chosen: ChosenAggregate) -> Html:
    text = escape(value_text(value, chosen))
    return Html(f'<span data-window-total="{escape(total.group)}">{text}</span>')


def _compared(total: GroupTotal, then: GroupTotal | None, chosen: ChosenAggregate) -> list[object]:
    """Of the others there is nothing to compare with: they may have been other groups."""
    if then is None or total.is_others or then.is_others:
        return [units.UNKNOWN, units.UNKNOWN]
    return [values_text(then.values, chosen), change_text(total.values, then.values)]


def too_late_line(number: int, late_after: timedelta | None) -> Html:
    """How many events are in no aggregate."""
    after = "" if late_after is None else f" more than {length(late_after)}"
    words = (
        f"{counted(number, 'event')} of this time came{after} after {either(number, 'its', 'their')} window "
        f"had closed, and {either(number, 'is', 'are')} in no aggregate. For those of all times run"
    )
    tone = Tone.WARN if number else Tone.IDLE
    return line(
        mark(tone, "too late"),
        soft(words),
        code("streamflow audit"),
        data=f'data-too-late="{number}"',
    )


def corrected_table(shown: WindowTotals) -> Html:
    """The newest windows with late events."""
    corrected = list(islice((cell for cell in reversed(shown.cells) if cell.late), _MOST_ROWS))
    if not corrected:
        return empty("No correction", "Every event came before its window closed.")
    rows = (
        (
            _time_text(cell.start),
            _group(cell.group, shown),
            mark(Tone.WARN, units.count(cell.late)),
            soft(units.count(cell.counted)),
        )
        for cell in corrected
    )
    return table(("window", "group", "late", "of"), rows, (2, 3))


def newest_table(chosen: ChosenAggregate, shown: WindowTotals) -> Html:
    """The newest values, of what has no place on an axis."""
    rows = (
        (
            _time_text(cell.start),
            _group(cell.group, shown),
            values_text(cell.values, chosen),
            units.count(cell.counted),
        )
        for cell in islice(reversed(shown.cells), 2 * _MOST_ROWS)
    )
    return table(("window", "group", chosen.name, "events"), rows, (3,))


def sessions_table(chosen: ChosenAggregate, shown: WindowTotals) -> Html:
    """The newest sessions."""
    if not shown.sessions:
        return empty("No session", "None began in this time.")
    rows = (
        (
            _time_text(cell.start),
            _length_text(cell),
            code(cell.group),
            values_text(cell.values, chosen),
            units.count(cell.counted),
        )
        for cell in shown.sessions[:_MOST_ROWS]
    )
    return table(("began", "with the gap", "group", chosen.name, "events"), rows, (3, 4))


def _group(label: str, shown: WindowTotals) -> Html:
    last = shown.totals[-1]
    return soft(label) if last.is_others and last.group == label else code(label)


def _length_text(cell: Cell) -> str:
    return units.duration((cell.end - cell.start).total_seconds())


def _time_text(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
