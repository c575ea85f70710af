"""Values over time: ring buffers that keep a day in few points, and charts of at most 300."""

import math
import threading
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Final, NamedTuple

# Of a chart: of each series, and of all.
MAX_POINTS: Final = 300
MAX_CHART_POINTS: Final = 1_500
_SLACK: Final = 2  # steps: a measurement that came a little late is no gap


def points_for(series: int) -> int:
    """How many points each series of a chart may have."""
    return max(20, min(MAX_POINTS, MAX_CHART_POINTS // max(1, series)))


class Tier(NamedTuple):
    """A resolution: `capacity` points of `step` seconds."""

    step: float
    capacity: int


# A quarter of an hour by the second, four hours by 15 s, a day by 2 min: 2,580 points of 24 bytes.
TIERS: Final = (Tier(1.0, 900), Tier(15.0, 960), Tier(120.0, 720))


class _Ring:
    """Means of values over steps of time; the last step is still growing."""

    def __init__(self, tier: Tier) -> None:
        self.step, self._capacity = tier
        self._sums = array("d", bytes(8 * tier.capacity))
        self._counts = array("q", bytes(8 * tier.capacity))
        self._slots = array("q", [-1]) * tier.capacity

    @property
    def reach(self) -> float:
        """Seconds that it looks back."""
        return self.step * self._capacity

    def add(self, time: float, value: float) -> None:
        number = int(time // self.step)
        index = number % self._capacity
        if self._slots[index] != number:
            self._slots[index], self._sums[index], self._counts[index] = number, 0.0, 0
        self._sums[index] += value
        self._counts[index] += 1

    def kept(self) -> tuple[bytes, bytes, bytes]:
        return self._slots.tobytes(), self._sums.tobytes(), self._counts.tobytes()

    def restore(self, steps: bytes, sums: bytes, counts: bytes) -> None:
        """Takes what `kept` gave; content of another size is left out."""
        if len(steps) == len(sums) == len(counts) == 8 * self._capacity:
            self._slots = array("q", steps)
            self._sums = array("d", sums)
            self._counts = array("q", counts)

    def since(self, start: float) -> list[tuple[float, float]]:
        """Time and mean of each step from `start` on, ascending; a step without values is absent."""
        first = int(start // self.step)
        return [
            (number * self.step, self._sums[index] / self._counts[index])
            for number, index in sorted(
                (number, index) for index, number in enumerate(self._slots) if number >= first
            )
        ]


@dataclass(frozen=True, slots=True)
class Points:
    """A series for a chart: times in seconds since the epoch, and means; NaN where none is known."""

    times: list[float]
    means: list[float]


class Kept(NamedTuple):
    """One resolution of one series, as bytes."""

    name: str
    tier: int
    steps: bytes
    sums: bytes
    counts: bytes


class Store:
    """All series of one server, by name. Written by the poller, read by every session."""

    def __init__(self) -> None:
        self._series: dict[str, tuple[_Ring, ...]] = {}
        self._guard = threading.Lock()

    def add(self, name: str, time: float, value: float | None) -> None:
        """Adds a value; None leaves a gap."""
        if value is None:
            return
        with self._guard:
            for ring in self._rings(name):
                ring.add(time, value)

    def _rings(self, name: str) -> tuple[_Ring, ...]:
        if name not in self._series:
            self._series[name] = tuple(map(_Ring, TIERS))
        return self._series[name]

    def kept(self) -> Iterator[Kept]:
        with self._guard:
            series = list(self._series.items())
        for name, rings in series:
            with self._guard:
                copies = [Kept(name, tier, *ring.kept()) for tier, ring in enumerate(rings)]
            yield from copies

    def restore(self, kept: Kept) -> None:
        """Takes back what `kept` gave, before anything is added."""
        if kept.tier < len(TIERS):
            with self._guard:
                self._rings(kept.name)[kept.tier].restore(kept.steps, kept.sums, kept.counts)

    def names(self, prefix: str) -> list[str]:
        with self._guard:
            return sorted(name for name in self._series if name.startswith(prefix))

    def recent(self, name: str, now: float, span: float, points: int = MAX_POINTS) -> Points:
        """The last `span` seconds of a series in evenly spaced points, at most `points` of them.

        A point is the mean of its step. Where nothing was measured for more than two steps there is
        NaN: a gap stays a gap.
        """
        step = max(span / points, 1.0)
        with self._guard:
            rings = self._series.get(name)
            if rings is None:
                return Points([], [])
            ring = next((ring for ring in rings if ring.reach >= span), rings[-1])
            values = ring.since(now - span)
        return _downsample(values, now, span, max(step, ring.step))


def _downsample(values: list[tuple[float, float]], now: float, span: float, step: float) -> Points:
    """Means over steps, from the first value on; NaN in gaps of more than two steps."""
    last = int(now // step)
    cells: dict[int, list[float]] = defaultdict(list)
    for time, value in values:
        cells[int(time // step)].append(value)
    # The step that is still growing would show a dip, and before the first value there was nothing.
    first = max(min(cells, default=last), int((now - span) // step) + 1)
    times, means = [], []
    for measured, run in groupby(range(first, last), key=cells.__contains__):
        numbers = list(run)
        if measured:
            means += [fmean(cells[number]) for number in numbers]
        elif len(numbers) > _SLACK:
            means += [math.nan] * len(numbers)
        else:
            continue
        times += [number * step for number in numbers]
    return Points(times, means)
