"""Quantiles, by an Apache DataSketches KLL sketch (https://datasketches.apache.org/docs/KLL/KLLSketch.html).

A sketch is a list of values with weights. Several lists together describe all of their values, with a rank
error that is no larger than the largest of theirs.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from streamflow.aggregates.base import Aggregate, Part, State
from streamflow.aggregates.values import finite_double
from streamflow.argument_types import described, keeps_misnamed, whole_number

if TYPE_CHECKING:
    from datasketches import kll_doubles_sketch

# Of a KLL sketch: its rank error is about 2.3 / k.
SMALLEST_K: Final = 8
LARGEST_K: Final = 4096
# A sketch of any number of values keeps about three times k of them, and eight at each of 60 levels.
_MOST_TIMES_K: Final = 4
_MOST_MORE: Final = 480
_NO_SIGN: Final = 0.0  # added to a negative zero, it gives zero
_VALUE_BYTES: Final = 46  # of a value and its weight


def _shares(value: Any) -> str | None:
    wanted = "must be shares from 0 to 1, each once, as in at=(0.5, 0.99)"
    if not isinstance(value, list | tuple):
        return f"{wanted}, not {described(value)}"
    if not value:
        return f"{wanted}: it is empty"
    for share in value:
        is_number = isinstance(share, int | float) and not isinstance(share, bool)
        if not (is_number and 0 <= share <= 1):
            hint = ", write it as a float" if isinstance(share, Decimal | Fraction) else ""
            return f"{wanted}: {described(share)} is none{hint}"
    return None if len({*value}) == len(value) else f"{wanted}: one is there twice"


@keeps_misnamed
@dataclass(frozen=True, slots=True)
class Quantiles(Aggregate):
    """The values below which given shares of the numbers lie: 0.5 is the median. Numbers are taken as
    doubles, the nearest one of each; one beyond their range is the last one.

    Args:
        at: the shares, between 0 and 1.
        k: of the KLL sketch: the rank of each answer is off by 1.33 % of all numbers at most with 200, in
            99 of 100 cases.
    """

    at: Annotated[tuple[float, ...], _shares] = (0.5, 0.9, 0.99)
    k: Annotated[int, whole_number(SMALLEST_K, LARGEST_K)] = 200

    extra: ClassVar[str | None] = "sketches"
    suffixes: ClassVar[tuple[str, ...]] = ("_values", "_weights")

    def __post_init__(self) -> None:
        given: Any = self.at
        if isinstance(given, list):
            object.__setattr__(self, "at", tuple(given))

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
        return tuple(values[bisect_left(reached, _rank(share, reached[-1]))] for share in self.at)

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
        if self._sketch is None:
            self._few.extend(values)
            if len(self._few) <= self._k:
                return
            values, self._few = self._few, array("d")
            self._sketch = _sketch(self._k)
        _update(self._sketch, values)

    def json(self) -> dict[str, Any]:
        if self._sketch is None:
            values = sorted(number + _NO_SIGN for number in self._few)
            return {"values": values, "weights": [1] * len(self._few)}
        pairs = sorted(self._sketch)
        return {"values": [value for value, _ in pairs], "weights": [weight for _, weight in pairs]}


# They import numpy when it is needed: it costs a process 8 MB, and few streams have such windows.


def _sketch(k: int) -> "kll_doubles_sketch":
    from datasketches import kll_doubles_sketch  # noqa: PLC0415 (see above)

    return kll_doubles_sketch(k)


def _update(sketch: "kll_doubles_sketch", values: Sequence[float]) -> None:
    import numpy as np  # noqa: PLC0415 (see above)

    sketch.update(np.array(values) + _NO_SIGN)


def _rank(share: float, weight: int) -> int:
    """How much of the weight a share is, rounded up: of the share as it is written, as SQL has it. In doubles
    0.07 of 100 is more than seven."""
    return math.ceil(Fraction(str(share)) * weight)


def _percent(share: float) -> str:
    text = f"{Decimal(str(share)) * 100:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace(".", "_")
