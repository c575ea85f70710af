"""How many different values there are, by an Apache DataSketches theta sketch."""

from dataclasses import dataclass
from typing import ClassVar, Final

from streamflow.aggregates.base import Aggregate

# Of a theta sketch; a part of the largest has 16,384 hashes, in a record of some 330 kB.
SMALLEST_LG_K: Final = 5
LARGEST_LG_K: Final = 14


@dataclass(frozen=True, slots=True)
class Distinct(Aggregate):
    """How many different values there are: exact up to ``2**lg_k``, beyond that an estimate with a standard
    error of ``1 / sqrt(2**lg_k)``."""

    lg_k: int = 11

    suffixes: ClassVar[tuple[str, ...]] = ("_theta", "_hashes")

    def __post_init__(self) -> None:
        Aggregate.__post_init__(self)
        if type(self.lg_k) is not int or not SMALLEST_LG_K <= self.lg_k <= LARGEST_LG_K:
            raise ValueError(
                f"Distinct({self.field!r}): lg_k is {self.lg_k!r}, and must be a whole number from "
                f"{SMALLEST_LG_K} to {LARGEST_LG_K}"
            )
