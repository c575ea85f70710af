"""How far behind a group is, in seconds, and what that means. Pure.

Lag in seconds is the time since the record at the group's position was the end of its partition,
interpolated between the ends that were seen. Verdicts are Burrow's: no thresholds, only what happened
in a sliding window.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import pairwise
from operator import itemgetter
from statistics import correlation, linear_regression
from typing import Final, NamedTuple

_MOST_ENDS: Final = 4_000
_STEADY: Final = 0.7  # correlation with time, below which something only goes up and down


class LagTime(NamedTuple):
    """Seconds of lag; `exact` is False where the position is older than what was seen, and the lag
    at least that long."""

    seconds: float
    exact: bool


class EndHistory:
    def __init__(self) -> None:
        self._ends: deque[tuple[float, int]] = deque()

    def add(self, time: float, end: int) -> None:
        """Records an end offset. One before the last belongs to a recreated topic."""
        if self._ends and end < self._ends[-1][1]:
            self._ends.clear()
        if len(self._ends) > 1 and self._ends[-1][1] == self._ends[-2][1] == end:
            # While nothing is appended, the last point moves on.
            self._ends[-1] = (time, end)
            return
        self._ends.append((time, end))
        if len(self._ends) > _MOST_ENDS:
            # Thins out the older half: lag is interpolated anyway.
            old = [self._ends.popleft() for _ in range(_MOST_ENDS // 2)]
            self._ends.extendleft(reversed(old[::2]))

    def lag(self, position: int, now: float) -> LagTime | None:
        """How long ago the record at `position` was appended; None where nothing is known."""
        if not self._ends:
            return None
        index = bisect_right(self._ends, position, key=itemgetter(1))
        if index == len(self._ends):
            return LagTime(0.0, exact=True)
        time, end = self._ends[index]
        if index == 0:
            return LagTime(max(0.0, now - time), exact=False)
        time_before, end_before = self._ends[index - 1]
        share = (position + 1 - end_before) / (end - end_before)
        appended = time_before + (time - time_before) * share
        return LagTime(max(0.0, now - appended), exact=True)


class LagVerdict(StrEnum):
    """What a lag means for a partition or a group, the worst last."""

    UNKNOWN = "UNKNOWN"
    OK = "OK"
    WARN = "WARN"
    STALL = "STALL"
    STOP = "STOP"
    REWIND = "REWIND"
    ERR = "ERR"


MEANINGS: Final = {
    LagVerdict.UNKNOWN: "not measured yet, or nothing was ever committed",
    LagVerdict.OK: "keeps up, or catches up",
    LagVerdict.WARN: "moves, but its lag grows without a break",
    LagVerdict.STALL: "a member owns the partition, and does not move though there is something to read",
    LagVerdict.STOP: "no member owns the partition though there is something to read",
    LagVerdict.REWIND: "its position went backwards: an offset reset, or a lost commit",
    LagVerdict.ERR: "partitions of the group are in different kinds of trouble",
}
TROUBLE: Final = (LagVerdict.STALL, LagVerdict.STOP, LagVerdict.REWIND, LagVerdict.ERR)


class PartitionSample(NamedTuple):
    """A group's partition at one moment, in seconds; `owned` if it is assigned to a member."""

    time: float
    position: int
    end: int
    owned: bool

    @property
    def lag(self) -> int:
        return max(0, self.end - self.position)


def trend(window: Sequence[tuple[float, float]], *, shortest: float) -> float | None:
    """How fast a lag grows, in units per second: the slope of time and lag. 0 where it only goes up
    and down; None where less than `shortest` seconds are known."""
    if not window or window[-1][0] - window[0][0] < shortest:
        return None
    times, lags = zip(*window, strict=True)
    if min(lags) == max(lags) or abs(correlation(times, lags)) < _STEADY:
        return 0.0
    return linear_regression(times, lags).slope


def judge_partition(window: Sequence[PartitionSample], *, shortest: float) -> LagVerdict:
    """Burrow's rules on the samples of a sliding window.

    1. A position that went backwards: REWIND.
    2. A lag of 0 anywhere in the window: OK.
    3. A position that did not move while there was lag: STOP without an owner, STALL with one.
    4. A lag that grew and never shrank: WARN.
    5. Everything else: OK.

    Args:
        window: samples, the oldest first.
        shortest: seconds that the window must cover before rules 3 and 4 apply.
    """
    if not window:
        return LagVerdict.UNKNOWN
    pairs = list(pairwise(window))
    if any(after.position < before.position for before, after in pairs):
        return LagVerdict.REWIND
    if any(sample.lag == 0 for sample in window):
        return LagVerdict.OK
    first, last = window[0], window[-1]
    if last.time - first.time < shortest:
        return LagVerdict.OK
    if last.position == first.position:
        return LagVerdict.STALL if last.owned else LagVerdict.STOP
    never_shrank = all(after.lag >= before.lag for before, after in pairs)
    return LagVerdict.WARN if never_shrank and last.lag > first.lag else LagVerdict.OK


def judge_group(partitions: Iterable[LagVerdict]) -> LagVerdict:
    """The verdict on a group: the one kind of trouble its partitions have, or ERR for several."""
    verdicts = set(partitions)
    trouble = verdicts.intersection(TROUBLE)
    if len(trouble) > 1:
        return LagVerdict.ERR
    return max(trouble or verdicts, key=list(LagVerdict).index, default=LagVerdict.UNKNOWN)
