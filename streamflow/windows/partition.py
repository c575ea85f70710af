"""Windows by event time, counted exactly once across any restart (G4). Pure.

One `PartitionWindows` counts one source partition, in the windows of all declarations of its stream. It
keeps nothing on disk: what it needs to go on after a crash is its `Progress`, which the worker commits
together with what was emitted.

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

Each declaration has its own windows, watermark, ``closed_through`` and hand-over; the position is that of
all, and ``resume`` the least that one of them needs. So a declaration may read events again that another one
needs: it skips what it had emitted, and of its open windows it had read none before its own oldest event.
A declaration that is new begins at the position: it skips all before its ``since``. One that changes what it
counts is a new one; it keeps nothing of the old one's open windows, which a clean stop hands over. Without
progress, as after the group was moved by hand, nothing says where its declarations began: ``since`` is 0, so
that the audit compares all events, and names those that were skipped.

All times are integer milliseconds since the epoch; intervals are half-open, closed at the left.
"""

from collections.abc import Sequence

from streamflow.windows.counting import Counted, WindowCounter, WindowResult
from streamflow.windows.plans import Plan
from streamflow.windows.progress import COUNTS, Progress, WindowProgress


class PartitionWindows:
    """Counts the events of one partition.

    Args:
        plans: the declarations.
        progress: of an earlier worker; None to start afresh.
        start: without progress, the offset to read from. What lies before it counts as missed.

    Attributes:
        read_to: the next offset to be read; 0 before anything was.
    """

    def __init__(
        self, plans: Sequence[Plan], progress: Progress | None = None, start: int = 0
    ) -> None:
        self.read_to = start if progress is None else progress.resume
        self._counted_to = 0 if progress is None else progress.position
        self._windows = [
            WindowCounter(
                plan,
                progress and progress_of(progress, plan),
                self._counted_to,
            )
            for plan in plans
        ]

    def count(self, events: Sequence[Counted]) -> None:
        """Counts events in the windows of all declarations; their offsets must not go back."""
        for windows in self._windows:
            windows.count(events)

    @property
    def position(self) -> int:
        """Everything before this offset is counted."""
        return max(self.read_to, self._counted_to)

    @property
    def catching_up(self) -> bool:
        """Whether events are read again that an earlier worker had counted."""
        return self.read_to < self._counted_to

    def aggregate(self) -> None:
        """To be called now and then, as values of events are kept until then; `take` does it, too."""
        for windows in self._windows:
            windows.aggregate()

    def advance(self, position: int) -> None:
        """Everything before `position` was read, counted or not."""
        self.read_to = max(self.read_to, position)

    def close_due(self) -> None:
        """Closes windows that the watermark has passed."""
        if not self.catching_up:
            for windows in self._windows:
                windows.close_due()

    def close_idle(self, now: int, quiet: float) -> None:
        """Closes open windows that have ended by `now`, of declarations that wait no longer than `quiet`
        seconds, for which nothing has come."""
        if not self.catching_up:
            for windows in self._windows:
                if quiet >= windows.plan.idle:
                    windows.close_idle(now)

    def take(self) -> list[WindowResult]:
        """Hands over what is due: closed windows, then corrections. They are counted once: commit them
        together with `progress`, or throw this object away."""
        return [result for windows in self._windows for result in windows.take()]

    def hand_over(self) -> list[WindowResult]:
        """Hands over what open windows have counted so far, and corrections; as `take`. Nothing while
        events are read again."""
        if self.catching_up:
            return []
        return [result for windows in self._windows for result in windows.hand_over()]

    def progress(self) -> Progress:
        """Where to go on from, after `take`."""
        if not self.catching_up and all(windows.settled for windows in self._windows):
            for windows in self._windows:
                windows.adopt_ahead()
        return Progress(
            min(self.read_to, *(windows.resume for windows in self._windows)),
            self.position,
            {windows.plan.name: windows.progress() for windows in self._windows},
        )


def progress_of(progress: Progress, plan: Plan) -> WindowProgress | None:
    """That of the same windows. What events are counted by without aggregates may change: the audit says
    so."""
    earlier = progress.windows.get(plan.name)
    if earlier is None or (plan.name != COUNTS and earlier.digest != plan.digest):
        return None
    return earlier
