"""Counts, sums and means."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from streamflow.aggregates.base import Aggregate


@dataclass(frozen=True, slots=True)
class Count(Aggregate):
    """How many events there are; of a `field`, how many have it, and not null."""

    field: str | None = None  # type: ignore[assignment]
    where: Callable[[Any], bool] | None = None

    def __post_init__(self) -> None:
        if self.field is not None:
            Aggregate.__post_init__(self)


@dataclass(frozen=True, slots=True)
class Sum(Aggregate):
    """The exact sum of a number; null if there is none to sum up."""


@dataclass(frozen=True, slots=True)
class Mean(Aggregate):
    """The arithmetic mean of a number, of its exact sum."""

    suffixes: ClassVar[tuple[str, ...]] = ("_sum", "_count")
