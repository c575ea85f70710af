"""Quantiles, by an Apache DataSketches KLL sketch."""

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar, Final

from streamflow.aggregates.base import Aggregate

# Of a KLL sketch: its rank error is about 2.3 / k.
SMALLEST_K: Final = 8
LARGEST_K: Final = 4096


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


def _percent(share: float) -> str:
    text = f"{Decimal(str(share)) * 100:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace(".", "_")
