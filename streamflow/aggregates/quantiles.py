"""Quantiles, by an Apache DataSketches KLL sketch (https://datasketches.apache.org/docs/KLL/KLLSketch.html).

A sketch is a list of values with weights. Several lists together describe all of their values, with a rank
error that is no larger than the largest of theirs.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from typing import Any, ClassVar, Final

import numpy as np
from datasketches import kll_doubles_sketch

from streamflow.aggregates.base import Aggregate, Part, State
from streamflow.aggregates.values import finite_double

# Of a KLL sketch: its rank error is about 2.3 / k.
SMALLEST_K: Final = 8
LARGEST_K: Final = 4096
# A sketch of any number of values keeps about three times k of them, and eight at each of 60 levels.
_MOST_TIMES_K: Final = 4
_MOST_MORE: Final = 480
_VALUE_BYTES: Final = 46  # of a value and its weight


@dataclass(frozen=True, slots=True)
class Quantiles(Aggregate):
    """The values below which given shares of the numbers lie: 0.5 is the median.

    Args:
        at: the shares, between 0 and 1.
        k: of the KLL sketch: the rank of each answer is off by 1.33 % of all numbers at most with 200, in
            99 of 100 cases.
    """

    at: tuple[float, ...] = (0.5, 0.9, 0.99)
    k: int = 200

    suffixes: ClassVar[tuple[str, ...]] = ("_values", "_weights")

    def __post_init__(self) -> None:
        Aggregate.__post_init__(self)
        at = tuple(self.at)  # of a list, too
        object.__setattr__(self, "at", at)
        if not at or len({*at}) < len(at):
            raise ValueError(
                f"Quantiles({self.field!r}): at needs shares, each once: at=(0.5, 0.99)"
            )
        for share in at:
            if not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ValueError(
                    f"Quantiles({self.field!r}): at has {share!r}, and must lie between 0 and 1: 0.5 is the "
                    "median"
                )
        if type(self.k) is not int or not SMALLEST_K <= self.k <= LARGEST_K:
            raise ValueError(
                f"Quantiles({self.field!r}): k is {self.k!r}, and must be a whole number from "
                f"{SMALLEST_K} to {LARGEST_K}"
            )

    def results(self, name: str) -> tuple[str, ...]:
        """A column for each share: ``_p50``, and ``_p99_9`` for 0.999."""
        return tuple(f"{name}_p{_percent(share)}" for share in self.at)

    def state(self) -> State:
        return _QuantilesState(self.k)

    def merge(self, parts: Sequence[Part]) -> dict[str, Any]:
        pairs = sorted(
            pair
            for _, state in parts
            for pair in zip(state["values"], state["weights"], strict=True)
        )
        return {"values": [value for value, _ in pairs], "weights": [weight for _, weight in pairs]}

    def finish(self, state: Any) -> tuple[float | None, ...]:
        """For each share the smallest value that, with all below it, has so much of the weight."""
        values, reached = state["values"], list(accumulate(state["weights"]))
        if not values:
            return (None,) * len(self.at)
        return tuple(values[bisect_left(reached, share * reached[-1])] for share in self.at)

    def most_bytes(self) -> int:
        return _VALUE_BYTES * (_MOST_TIMES_K * self.k + _MOST_MORE)


class _QuantilesState:
    """At most `k` numbers are kept as they are: a sketch would hold each of them, too, and take many times as
    long."""

    __slots__ = ("_few", "_k", "_sketch")

    def __init__(self, k: int) -> None:
        self._k = k
        self._few = array("d")
        self._sketch: kll_doubles_sketch | None = None

    def update(self, values: Sequence[Any]) -> None:
        if set(map(type, values)) != {float}:
            values = [*map(finite_double, values)]
        if self._sketch is not None:
            self._sketch.update(np.array(values))
            return
        self._few.extend(values)
        if len(self._few) > self._k:
            self._sketch = kll_doubles_sketch(self._k)
            self._sketch.update(np.array(self._few))
            self._few = array("d")

    def json(self) -> dict[str, Any]:
        if self._sketch is None:
            return {"values": sorted(self._few), "weights": [1] * len(self._few)}
        pairs = sorted(self._sketch)
        return {"values": [value for value, _ in pairs], "weights": [weight for _, weight in pairs]}


def _percent(share: float) -> str:
    text = f"{Decimal(str(share)) * 100:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace(".", "_")
