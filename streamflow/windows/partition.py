"""Tumbling windows by event time, counted exactly once across any restart (G4). Pure.

One `PartitionWindows` counts one source partition. It keeps nothing on disk: what it needs to go on after
a crash is its `Progress`, which the worker commits together with what was emitted.

Why that is exact. Everything before ``position`` was counted. Of that, an event was *emitted* if its time
lies before ``closed_through`` (its window was closed, or it came late) or if it was far ahead of the
broker's clock; everything else is in a window that is still open. So a restarted worker reads again from
the oldest event of an open window (``resume``), skips up to ``position`` what was emitted, and counts the
rest into its open windows as before. Until it has caught up with ``position`` it emits nothing: its open
windows are not complete yet. When a window is closed does not matter for that, only that ``closed_through``
says so.

A worker that stops cleanly hands its open windows over: it emits what they have counted so far as a part of
their totals, and resumes behind it. So the next release does not judge those events again by its own
contract. Until such a window closes, later events of it are further parts.

No window is closed before the broker's clock has passed its end: an event that is a little ahead, from a
client whose clock is fast, waits in its open window, and makes no event of others late.

All times are integer milliseconds since the epoch; intervals are half-open, closed at the left.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from streamflow.windows.durations import MILLISECOND
from streamflow.windows.specs import TumblingWindow

_VERSION: Final = "1"
_WITH_HANDED: Final = "2"

# Count, smallest and largest source offset of a cell that is being counted.
_Cell = list[int]
_Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class WindowCount:
    """One result: a group's events in a window that no other result counts."""

    start: int
    end: int
    group: str
    count: int
    late: bool
    first_offset: int
    last_offset: int


class Progress(NamedTuple):
    """What a partition's counting needs to go on."""

    resume: int  # offset to read from: the oldest event of an open window
    position: int  # everything before this offset was counted
    closed_through: int | None  # what was before it is emitted; None before the first event
    ahead: int  # the far-ahead limit, in milliseconds, in force since `resume`
    # End of the last window that was handed over and is not closed yet.
    handed_through: int | None = None

    def metadata(self) -> str:
        """Committed beside ``resume``, as the metadata of the offset."""
        closed = "" if self.closed_through is None else self.closed_through
        if self.handed_through is None:
            return f"{_VERSION};{self.position};{closed};{self.ahead}"
        return f"{_WITH_HANDED};{self.position};{closed};{self.ahead};{self.handed_through}"

    @classmethod
    def parse(cls, offset: int, metadata: str | None) -> "Progress | None":
        """From a committed offset. None if the metadata is not ours, as after the group's offsets were
        reset: counting starts again from that offset."""
        try:
            version, position, closed, ahead, *handed = (metadata or "").split(";")
            if (version, len(handed)) not in ((_VERSION, 0), (_WITH_HANDED, 1)):
                return None
            closed_through = int(closed) if closed else None
            return cls(offset, int(position), closed_through, int(ahead), *map(int, handed))
        except ValueError:
            return None


class PartitionWindows:
    """Counts the events of one partition.

    Args:
        spec: the windows.
        progress: of an earlier worker; None to start afresh.

    Attributes:
        read_to: the next offset to be read; 0 before anything was.
        closed_through: windows that end at or before this time are closed.
    """

    def __init__(self, spec: TumblingWindow, progress: Progress | None = None) -> None:
        self._size = spec.size_ms
        self._grace = spec.grace // MILLISECOND
        self._configured_ahead = spec.ahead // MILLISECOND
        self._open: dict[_Key, _Cell] = {}
        self._corrections: dict[_Key, _Cell] = {}
        self._latest: int | None = None
        # A new limit applies once no event has to be read again that the old one judged.
        progress = progress or Progress(0, 0, None, self._configured_ahead)
        self.read_to, self._counted_to, self.closed_through, self._ahead, self._handed_through = (
            progress
        )

    @property
    def position(self) -> int:
        """Everything before this offset is counted."""
        return max(self.read_to, self._counted_to)

    @property
    def catching_up(self) -> bool:
        """Whether events are read again that an earlier worker had counted."""
        return self.read_to < self._counted_to

    def count(self, offset: int, time: int, group: str, appended: int) -> None:
        """Counts an event of time `time` at `offset`, which must not go back; the broker stamped its
        record `appended`."""
        closed = self.closed_through
        is_late = closed is not None and time < closed
        is_ahead = time > appended + self._ahead
        if offset < self._counted_to and (is_late or is_ahead):
            return
        start = time - time % self._size
        cells = self._corrections if is_late or is_ahead else self._open
        # The watermark never passes the broker's clock.
        moved = min(time, appended)
        if not is_ahead and (self._latest is None or moved > self._latest):
            self._latest = moved
        cell = cells.get((start, group))
        if cell is None:
            cells[start, group] = [1, offset, offset]
        else:
            cell[0] += 1
            cell[2] = offset

    def advance(self, position: int) -> None:
        """Everything before `position` was read, counted or not."""
        self.read_to = max(self.read_to, position)

    def close_due(self) -> None:
        """Moves the watermark, which lies `grace` behind the latest event, or where that is ahead, behind
        the broker's clock."""
        if self._latest is not None and not self.catching_up:
            watermark = self._latest - self._grace
            self._close_through(watermark - watermark % self._size)

    def close_idle(self, now: int) -> None:
        """Closes all open windows that have ended by `now`: nothing has come for so long that nothing is
        waited for."""
        ends = {start + self._size for start, _ in self._open}
        if self._handed_through is not None:
            ends.add(self._handed_through)
        ended = [end for end in ends if end <= now]
        if ended and not self.catching_up:
            self._close_through(max(ended))

    def _close_through(self, time: int) -> None:
        if self.closed_through is None or time > self.closed_through:
            self.closed_through = time
            if self._handed_through is not None and self._handed_through <= time:
                self._handed_through = None

    def take(self) -> list[WindowCount]:
        """Hands over what is due: closed windows, then corrections. They are counted once: commit them
        together with `progress`, or throw this object away."""
        closed = self.closed_through
        due = [key for key in self._open if closed is not None and key[0] + self._size <= closed]
        results = [self._result(key, self._open.pop(key), late=False) for key in due]
        results += [self._result(key, cell, late=True) for key, cell in self._corrections.items()]
        self._corrections = {}
        return results

    def hand_over(self) -> list[WindowCount]:
        """Hands over what open windows have counted so far, and corrections; as `take`. Nothing while
        events are read again."""
        if self.catching_up:
            return []
        ends = [start + self._size for start, _ in self._open]
        if self._handed_through is not None:
            ends.append(self._handed_through)
        self._handed_through = max(ends, default=None)
        results = [self._result(key, cell, late=False) for key, cell in self._open.items()]
        self._open = {}
        return [*results, *self.take()]

    def _result(self, key: _Key, cell: _Cell, *, late: bool) -> WindowCount:
        return WindowCount(key[0], key[0] + self._size, key[1], cell[0], late, cell[1], cell[2])

    def progress(self) -> Progress:
        """Where to go on from, after `take`."""
        resume = min((cell[1] for cell in self._open.values()), default=self.read_to)
        if not (self._open or self._handed_through or self.catching_up):
            self._ahead = self._configured_ahead
        return Progress(
            min(resume, self.read_to),
            self.position,
            self.closed_through,
            self._ahead,
            self._handed_through,
        )
