"""The smallest and largest, the first and last value."""

from dataclasses import dataclass
from typing import ClassVar

from streamflow.aggregates.base import Aggregate


@dataclass(frozen=True, slots=True)
class Min(Aggregate):
    """The smallest of numbers, times or texts; texts are ordered by their code points."""


@dataclass(frozen=True, slots=True)
class Max(Aggregate):
    """The largest; as `Min`."""


@dataclass(frozen=True, slots=True)
class First(Aggregate):
    """The value of the earliest event; of several at one time, that of the lowest partition and offset."""

    suffixes: ClassVar[tuple[str, ...]] = ("", "_time", "_offset")


@dataclass(frozen=True, slots=True)
class Last(Aggregate):
    """The value of the latest event; as `First`."""

    suffixes: ClassVar[tuple[str, ...]] = ("", "_time", "_offset")
