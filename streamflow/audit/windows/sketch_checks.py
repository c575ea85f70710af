"""Whether the sketches of a cell's parts are ones, and of the values that its events give. Pure."""

import math
from collections.abc import Sequence
from typing import Any, Final

from streamflow.aggregates.distinct import LARGEST_LG_K, NO_THETA, SMALLEST_LG_K, estimate
from streamflow.aggregates.quantiles import LARGEST_K, SMALLEST_K
from streamflow.aggregates.values import distinct_text
from streamflow.audit.windows.words import shown

_LG_K: Final = 16  # of the sketch of the events' values: its memory has a bound
# What a theta sketch keeps that has left hashes out.
_KEPT: Final = frozenset(2**lg_k for lg_k in range(SMALLEST_LG_K, LARGEST_LG_K + 1))
_RANK_ERRORS: Final = 3


class DistinctCheck:
    """The different values of one cell.

    Attributes:
        fault: why a part of it is no sketch.
    """

    def __init__(self) -> None:
        self.fault: str | None = None
        self._theta = NO_THETA
        self._thetas: set[int] = set()
        self._hashes: set[int] = set()
        # It imports numpy, which costs a process 8 MB, and few streams have such windows.
        from datasketches import update_theta_sketch  # noqa: PLC0415 (when it is needed)

        self._of_events = update_theta_sketch(_LG_K)

    def merge(self, theta: int, hashes: Sequence[int]) -> None:
        if not _is_theta_sketch(theta, hashes):
            self.fault = f"has {len(hashes):,} hashes with theta {theta}, and no sketch is so"
            return
        self._theta = min(self._theta, theta)
        self._hashes.update(hashes)
        if theta < NO_THETA:
            self._thetas.add(theta)

    def add(self, value: Any, _number: int) -> None:
        if value is not None:
            self._of_events.update(distinct_text(value))

    def difference(self, too_late: int) -> str | None:
        found = {each for each in self._hashes if each < self._theta}
        known, of_events = self._of_events.theta64, {*self._of_events}
        theta = min(self._theta, known)
        given = {each for each in of_events if each < theta}
        extra = {each for each in found if each < theta} - given
        missing = () if too_late else given - found
        if not (extra or missing):
            for each in sorted(self._thetas - of_events):
                if each < known:
                    return f"has theta {each}, which is the hash of no value that the events give"
            return None
        own = estimate(len(found), self._theta)
        theirs = estimate(self._of_events.num_retained, known)
        if own == theirs:
            return f"is {own:,}, of other values than the events give"
        return f"is {own:,}, the events give {theirs:,}"


def _is_theta_sketch(theta: int, hashes: Sequence[int]) -> bool:
    """One that has left hashes out keeps ``2**lg_k``, and the next one is its theta. Which `lg_k` that was
    may differ from what is declared now."""
    if set(map(type, hashes)) - {int} or len({*hashes}) < len(hashes):
        return False
    if not all(0 < each < theta for each in hashes):
        return False
    if theta == NO_THETA:
        return len(hashes) <= 2**LARGEST_LG_K
    return theta < NO_THETA and len(hashes) in _KEPT


class QuantilesCheck:
    """The numbers of one cell, in their order; parts come first.

    Attributes:
        fault: as that of `DistinctCheck`.
    """

    def __init__(self) -> None:
        self.fault: str | None = None
        self._pairs: list[tuple[float, int]] = []
        self._k: float = LARGEST_K
        self._is_whole = True
        self._is_sorted = False
        self._next = 0  # of the pairs
        self._reached = 0  # the weight of those before
        self._number = 0  # of the events' values so far
        self._stray: float | None = None  # of no event
        self._is_equal = self._is_possible = True
        self._worst: tuple[int, float, int, int] = (0, 0.0, 0, 0)

    def merge(self, values: Sequence[float], weights: Sequence[int]) -> None:
        if not _is_kll_sketch(values, weights):
            self.fault = (
                f"has {len(values):,} values with {len(weights):,} weights, and no sketch is so"
            )
            return
        self._pairs += zip(values, weights, strict=True)
        if max(weights, default=1) > 1:
            # One that was made with a smaller k has gone further.
            self._is_whole = False
            self._k = max(SMALLEST_K, min(self._k, sum(weights) / max(weights)))

    def add(self, value: float | None, number: int) -> None:
        if value is None:
            return
        self._sort()
        self._pass(value)
        low, below = self._number, self._reached
        while self._next < len(self._pairs) and self._pairs[self._next][0] == value:
            self._reached += self._pairs[self._next][1]
            self._next += 1
        self._number += number
        kept = self._reached - below
        self._is_equal = self._is_equal and kept == number
        self._is_possible = self._is_possible and kept <= number
        # How many numbers are below the value, and up to it.
        for ours, theirs in ((below, low), (self._reached, self._number)):
            if abs(ours - theirs) > self._worst[0]:
                self._worst = abs(ours - theirs), value, ours, theirs

    def _sort(self) -> None:
        if not self._is_sorted:
            self._pairs.sort()
            self._is_sorted = True

    def _pass(self, value: float) -> None:
        """Passes what is kept below a value: no event has it."""
        while self._next < len(self._pairs) and self._pairs[self._next][0] < value:
            self._stray, weight = self._pairs[self._next]
            self._reached += weight
            self._next += 1

    def difference(self, too_late: int) -> str | None:
        self._sort()
        self._pass(math.inf)
        if not self._number - too_late <= self._reached <= self._number:
            return f"is of {self._reached:,} numbers, the events give {self._number:,}"
        if self._is_whole:
            is_right = self._is_possible if too_late else self._is_equal
            is_right = is_right and self._stray is None
            return None if is_right else "is of other numbers than the events give"
        if self._stray is not None:
            return f"has {shown(self._stray)}, which is none of the numbers that the events give"
        from datasketches import kll_doubles_sketch  # noqa: PLC0415 (as above)

        error = kll_doubles_sketch.get_normalized_rank_error(round(self._k), False)
        off, value, ours, theirs = self._worst
        if too_late or off <= _RANK_ERRORS * error * self._number + 1:
            return None
        return f"has {ours:,} of {self._number:,} numbers up to {shown(value)}, the events give {theirs:,}"


def _is_kll_sketch(values: Sequence[float], weights: Sequence[int]) -> bool:
    """Each level has twice the weight of the one below, and there is another one only once the last is full:
    of the largest weight there are always some."""
    if len(values) != len(weights) or set(map(type, values)) - {float}:
        return False
    if set(map(type, weights)) - {int} or not all(map(math.isfinite, values)):
        return False
    if any(weight < 1 or weight & (weight - 1) for weight in {*weights}):
        return False
    most = max(weights, default=1)
    return most == 1 or weights.count(most) >= SMALLEST_K // 2
