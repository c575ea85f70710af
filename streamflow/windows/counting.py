"""Counting the events of one partition in the windows of one declaration. Pure; `partition` says why it is
exact."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from streamflow.aggregates.base import State
from streamflow.windows.plans import Plan
from streamflow.windows.progress import WindowProgress

# An event's offset, its time in microseconds since 1970, itself (or `Fields` of it), and when the broker
# stamped its record, in milliseconds.
Counted = tuple[int, int, Any, int]

_Key = tuple[int, Any]
_NEVER: Final = 2**63
_NOTHING: Final[list[Any]] = []  # which is replaced and never changed: there may be a million cells


class Cell:
    """What has been counted of a group in a window, and values of events that are not aggregated yet."""

    __slots__ = ("count", "first", "last", "offsets", "states", "too_late", "values")

    def __init__(self, offset: int, states: list[State]) -> None:
        self.count = 0
        self.too_late = 0
        self.first = self.last = offset
        self.values = _NOTHING
        self.offsets = _NOTHING
        self.states = states


class WindowResult(NamedTuple):
    """One result: a group's events in a window that no other result of the same windows counts.

    Attributes:
        start: of the window, in milliseconds since the epoch.
        late: whether it corrects a window that was closed before, or one far ahead.
        too_late: events that are counted nowhere else, and not aggregated.
        aggregates: states as JSON has them, by name.
    """

    plan: Plan
    start: int
    group: Any
    counted: int
    late: bool
    first_offset: int
    last_offset: int
    too_late: int
    aggregates: dict[str, Any]

    @property
    def end(self) -> int:
        return self.start + self.plan.pane


class WindowCounter:
    """Counts the events of one partition.

    Attributes:
        closed_through: windows that end at or before this time are closed.
    """

    def __init__(self, plan: Plan, progress: WindowProgress | None, position: int) -> None:
        """`progress`: of an earlier worker, which had counted up to `position`; without it these windows
        count from there on."""
        self.plan = plan
        self._size, self._group_of = plan.pane, plan.group_of
        self._aggregates, self._values_of = bool(plan.names), plan.values_of
        self._too_late_after = plan.too_late_after
        self._counted_to = position
        # A log that was truncated may go on before that.
        self._since = position if progress is None else min(progress.since, position)
        progress = progress or WindowProgress(None, plan.ahead)
        self.closed_through = progress.closed_through
        self._ahead, self._handed_through = progress.ahead, progress.handed_through
        self._latest: int | None = None
        self._open: dict[_Key, Cell] = {}
        self._corrections: dict[_Key, Cell] = {}
        self._pending: list[Cell] = []

    def count(self, events: Iterable[Counted]) -> None:
        """Counts events, whose offsets must not go back."""
        # On the path of every event: what does not change meanwhile is looked up once.
        closed, ahead, counted_to = self.closed_through, self._ahead, self._counted_to
        size, group_of, latest = self._size, self._group_of, self._latest
        is_plain = not self._aggregates
        for offset, micros, event, appended in events:
            time = micros // 1000
            is_late = closed is not None and time < closed
            is_ahead = time > appended + ahead
            if offset < counted_to and (is_late or is_ahead or offset < self._since):
                continue
            # The watermark never passes the broker's clock.
            moved = appended if appended < time else time  # noqa: FURB136 (faster than `min`)
            if not is_ahead and (latest is None or moved > latest):
                latest = moved
            cells = self._corrections if is_late or is_ahead else self._open
            key = time - time % size, group_of(event)
            cell = cells.get(key)
            if cell is None:
                states = _NOTHING if is_plain else [new() for new in self.plan.new_states]
                cell = cells[key] = Cell(offset, states)
            cell.last = offset
            if is_plain:
                cell.count += 1
            else:
                self._keep(cell, offset, event, is_too_late=is_late and self._is_too_late(key[0]))
        self._latest = latest

    def _keep(self, cell: Cell, offset: int, event: Any, *, is_too_late: bool) -> None:
        """Keeps the values of an event until they are aggregated."""
        if is_too_late:
            cell.too_late += 1
        elif cell.values:
            cell.values.append(self._values_of(event))
            cell.offsets.append(offset)
        else:
            cell.values, cell.offsets = [self._values_of(event)], [offset]
            self._pending.append(cell)

    def _is_too_late(self, start: int) -> bool:
        """The time through which windows are closed lies behind the watermark by their grace already."""
        wait, closed = self._too_late_after, self.closed_through
        return wait is not None and closed is not None and start + self._size + wait <= closed

    def aggregate(self) -> None:
        """Takes what was kept of events since the last time into the aggregates, many at a time."""
        width, readers = self.plan.width, self.plan.readers
        for cell in self._pending:
            offsets = cell.offsets
            cell.count += len(offsets)
            columns = [*zip(*cell.values, strict=True)] if width > 1 else [cell.values]
            for read, places in readers:
                values = read(columns, offsets)
                for place in places:
                    cell.states[place].update(values)
            cell.values = cell.offsets = _NOTHING
        self._pending = []

    def close_due(self) -> None:
        """Moves the watermark, which lies `grace` behind the latest event, or where that is ahead, behind
        the broker's clock."""
        if self._latest is not None:
            watermark = self._latest - self.plan.grace
            self._close_through(watermark - watermark % self._size)

    def close_idle(self, now: int) -> None:
        """Closes all open windows that have ended by `now`: nothing has come for so long that nothing is
        waited for."""
        ends = {start + self._size for start, _ in self._open}
        if self._handed_through is not None:
            ends.add(self._handed_through)
        ended = [end for end in ends if end <= now]
        if ended:
            self._close_through(max(ended))

    def _close_through(self, time: int) -> None:
        if self.closed_through is None or time > self.closed_through:
            self.closed_through = time
            if self._handed_through is not None and self._handed_through <= time:
                self._handed_through = None

    def take(self) -> list[WindowResult]:
        """Hands over what is due: closed windows, then corrections."""
        self.aggregate()
        closed = self.closed_through
        due = [key for key in self._open if closed is not None and key[0] + self._size <= closed]
        results = [self._result(key, self._open.pop(key), late=False) for key in due]
        results += [self._result(key, cell, late=True) for key, cell in self._corrections.items()]
        self._corrections = {}
        return results

    def hand_over(self) -> list[WindowResult]:
        """Hands over what open windows have counted so far, and corrections; as `take`."""
        self.aggregate()
        ends = [start + self._size for start, _ in self._open]
        if self._handed_through is not None:
            ends.append(self._handed_through)
        self._handed_through = max(ends, default=None)
        results = [self._result(key, cell, late=False) for key, cell in self._open.items()]
        self._open = {}
        return [*results, *self.take()]

    def _result(self, key: _Key, cell: Cell, *, late: bool) -> WindowResult:
        states = (state.json() for state in cell.states)
        aggregates = dict(zip(self.plan.names, states, strict=True))
        return WindowResult(
            self.plan, *key, cell.count, late, cell.first, cell.last, cell.too_late, aggregates
        )

    @property
    def resume(self) -> int:
        """The offset of the oldest event in an open window; beyond all if there is none."""
        return min((cell.first for cell in self._open.values()), default=_NEVER)

    @property
    def settled(self) -> bool:
        """Whether no window is open or handed over."""
        return not self._open and self._handed_through is None

    def adopt_ahead(self) -> None:
        """To be called once no event has to be read again that an earlier limit judged."""
        self._ahead = self.plan.ahead

    def progress(self) -> WindowProgress:
        """Where to go on from, after `take`."""
        return WindowProgress(
            self.closed_through, self._ahead, self._handed_through, self.plan.digest, self._since
        )
