"""Counts, sums and means. Sums are exact, of floats, too: each double is a decimal fraction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow, localcontext
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Final

from streamflow.aggregates.base import SCALARS, Aggregate, Part, State, field_path
from streamflow.argument_types import keeps_misnamed, optional
from streamflow.groups import decimal_text

# More digits than a sum can have of numbers that windows take (`values.MOST_DIGITS`): nothing is rounded.
_EXACT: Final = Context(prec=10_000, traps=[Inexact, InvalidOperation, Overflow])


_MOST_DOUBLES: Final = 128  # that are kept before a few are made of them


@keeps_misnamed
@dataclass(frozen=True, slots=True)
class Count(Aggregate):
    """How many events there are; of a `field`, how many have it, and not null."""

    field: Annotated[str | None, optional(field_path)] = None

    takes: ClassVar[frozenset[str]] = SCALARS | {"bytes", "document"}
    takes_words: ClassVar[str] = "any field"
    takes_whole: ClassVar[bool] = True

    def state(self) -> State:
        return _CountState()

    def merge(self, parts: Sequence[Part]) -> int:
        counts: list[int] = [count for _, count in parts]
        return sum(counts)


@keeps_misnamed
@dataclass(frozen=True, slots=True)
class Sum(Aggregate):
    """The exact sum of a number; null if there is none to sum up."""

    def state(self) -> State:
        return _SumState()

    def merge(self, parts: Sequence[Part]) -> str | None:
        total = _total(text for _, text in parts)
        return None if total is None else decimal_text(total)


@keeps_misnamed
@dataclass(frozen=True, slots=True)
class Mean(Aggregate):
    """The arithmetic mean of a number, of its exact sum."""

    suffixes: ClassVar[tuple[str, ...]] = ("_sum", "_count")

    def state(self) -> State:
        return _MeanState()

    def merge(self, parts: Sequence[Part]) -> dict[str, Any]:
        total = _total(state["sum"] for _, state in parts)
        return {
            "sum": None if total is None else decimal_text(total),
            "count": sum(state["count"] for _, state in parts),
        }

    def finish(self, state: Any) -> tuple[Fraction | None]:
        """As the fraction that it is; each reader rounds it."""
        return (state["sum"] and Fraction(state["sum"]) / state["count"],)


class _CountState:
    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def update(self, values: Sequence[Any]) -> None:
        self._count += len(values)

    def json(self) -> int:
        return self._count


class _SumState:
    """The total, and doubles that are not in it yet."""

    __slots__ = ("_doubles", "_total")

    def __init__(self) -> None:
        self._total: int | Decimal | None = None
        self._doubles: list[float] = []

    def update(self, values: Sequence[Any]) -> None:
        if not values:
            return
        types = set(map(type, values))
        if types != {float}:
            # Some may be defaults of another type.
            self._add([*map(Decimal, values)] if len(types) > 1 else values)
            return
        self._doubles += values
        if len(self._doubles) > _MOST_DOUBLES:
            self._reduce()

    def _reduce(self) -> None:
        try:
            self._doubles = _partials([*self._doubles])
        except OverflowError:  # near the ends of their range
            self._add_doubles()

    def _add_doubles(self) -> None:
        doubles, self._doubles = self._doubles, []
        self._add([*map(Decimal, doubles)])

    def _add(self, values: Sequence[Any]) -> None:
        total = self._total or 0
        if type(total) is type(values[0]) is int:
            self._total = sum(values, total)
            return
        with localcontext(_EXACT):
            self._total = sum(values, total)

    def json(self) -> str | None:
        if self._doubles:
            self._reduce()
        if self._doubles:
            self._add_doubles()
        return None if self._total is None else decimal_text(Decimal(self._total))


class _MeanState:
    __slots__ = ("_count", "_sum")

    def __init__(self) -> None:
        self._sum = _SumState()
        self._count = 0

    def update(self, values: Sequence[Any]) -> None:
        self._sum.update(values)
        self._count += len(values)

    def json(self) -> dict[str, Any]:
        return {"sum": self._sum.json(), "count": self._count}


def _partials(values: list[float]) -> list[float]:
    """A few doubles with the same exact sum: `fsum` rounds once, and what that leaves is summed up again.
    Raises OverflowError where a sum is no double."""
    partials: list[float] = []
    while rounded := math.fsum(values):
        partials.append(rounded)
        values.append(-rounded)
    return partials or [0.0]


def _total(texts: Any) -> Decimal | None:
    numbers = [Decimal(text) for text in texts if text is not None]
    with localcontext(_EXACT):
        return sum(numbers, Decimal()) if numbers else None
