"""The rows of the chart of an aggregate. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any, Final

from streamlit_app.records.window_choice import ChosenAggregate
from streamlit_app.records.window_results import Cell, WindowTotals
from streamlit_app.ui.values import chart_number, value_text
from streamlit_app.ui.window_chart import Shape

MOST_COMPARED: Final = 3  # lines; of more a chart would be unreadable with those of an earlier time

Row = dict[str, Any]


def series_of(shown: WindowTotals) -> list[str]:
    """The groups, in the order of their colours."""
    return [total.group for total in shown.totals]


def is_compared(chosen: ChosenAggregate, shown: WindowTotals, shape: Shape) -> bool:
    """Whether the chart has the earlier values, too."""
    if shape is Shape.BARS:
        return True
    lines = len(shown.totals) * max(1, len(chosen.labels))
    return shape is Shape.LINES and lines <= MOST_COMPARED


def chart_rows(
    chosen: ChosenAggregate,
    shape: Shape,
    shown: WindowTotals,
    earlier: WindowTotals | None,
    before: timedelta | None,
) -> list[Row]:
    """As `window_chart.draw` takes them."""
    rows = list(_values(chosen, shape, shown))
    rows += _late(shape, shown)
    if earlier is not None and before is not None and is_compared(chosen, shown, shape):
        rows += _earlier(chosen, shape, shown, earlier, before)
    return rows


def _values(chosen: ChosenAggregate, shape: Shape, shown: WindowTotals) -> Iterator[Row]:
    groups = series_of(shown)
    for cell, share, value in _points(chosen, shape, shown):
        number = chart_number(value)
        yield {
            "time": _time(cell, shape, shown.step),
            "until": cell.end,
            "value": number,
            "text": value_text(value, chosen),
            # Sessions have groups of their own, which may have no colour.
            "group": cell.group if cell.group in groups else groups[-1],
            "name": cell.group,
            "share": share,
            "window": _window_text(cell),
            "events": cell.counted,
        }


def _points(
    chosen: ChosenAggregate, shape: Shape, shown: WindowTotals
) -> Iterator[tuple[Cell, str, Any]]:
    """Each value of each cell; a line has a gap where no window is."""
    by_group: dict[str, list[Cell]] = defaultdict(list)
    for cell in shown.cells:
        by_group[cell.group].append(cell)
    for cells in by_group.values():
        for cell, later in zip_longest(cells, cells[1:]):
            for share, value in zip(chosen.labels or ("",), cell.values, strict=True):
                yield cell, share, value
            if shape is not Shape.LINES or later is None or later.start - cell.start <= shown.step:
                continue
            gap = cell._replace(start=cell.start + shown.step, end=cell.end + shown.step)
            for share in chosen.labels or ("",):
                yield gap, share, None


def _time(cell: Cell, shape: Shape, step: timedelta) -> datetime:
    """Where a cell is: windows that overlap at their ends, others in their middle; bars and sessions where
    they begin."""
    if shape is Shape.POINTS:
        return cell.start
    if shape is Shape.BARS:
        return max(cell.start, cell.end - step)
    return cell.end if cell.end - cell.start > step else cell.start + (cell.end - cell.start) / 2


def _late(shape: Shape, shown: WindowTotals) -> Iterator[Row]:
    late: dict[datetime, int] = defaultdict(int)
    tops: dict[datetime, list[float]] = defaultdict(list)
    for cell in shown.cells:
        start = _time(cell, shape, shown.step)
        middle = start + min(shown.step, cell.end - start) / 2 if shape is Shape.BARS else start
        late[middle] += cell.late
        tops[middle] += filter(None, map(chart_number, cell.values))
    for middle, number in late.items():
        if number:
            yield {"time": middle, "late": number, "top": _top(shape, tops[middle])}


def _top(shape: Shape, numbers: Sequence[float]) -> float:
    if shape is Shape.BARS:
        return sum(number for number in numbers if number > 0)
    return max(numbers, default=0.0)


def _earlier(
    chosen: ChosenAggregate,
    shape: Shape,
    shown: WindowTotals,
    earlier: WindowTotals,
    before: timedelta,
) -> Iterator[Row]:
    if shape is Shape.BARS:
        sums: dict[datetime, float] = defaultdict(float)
        for cell in earlier.cells:
            middle = cell.end - min(earlier.step, cell.end - cell.start) / 2
            sums[middle] += sum(chart_number(value) or 0.0 for value in cell.values)
        for middle, total in sums.items():
            yield {"time": middle + before, "earlier": total}
        return
    groups = {*series_of(shown)}
    for cell, share, value in _points(chosen, shape, earlier):
        if cell.group in groups:
            time = _time(cell, shape, earlier.step) + before
            yield {
                "time": time,
                "earlier": chart_number(value),
                "group": cell.group,
                "share": share,
            }


def _window_text(cell: Cell) -> str:
    start, until = cell.start.astimezone(UTC), cell.end.astimezone(UTC)
    same_day = start.date() == until.date()
    return f"{start:%d %b %H:%M:%S} to {until:{'%H:%M:%S' if same_day else '%d %b %H:%M:%S'}}"
