"""How many different values there are, by an Apache DataSketches theta sketch
(https://datasketches.apache.org/docs/Theta/ThetaSketches.html).

It keeps the smallest hashes of values: all while there are at most ``2**lg_k``, else as many, with `theta`
as the bound that all of them lie below. Such sketches merge by taking the smallest theta and the hashes
below it, in any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from streamflow.aggregates.base import SCALARS, Aggregate, Part, State
from streamflow.aggregates.values import distinct_text
from streamflow.argument_types import keeps_misnamed, whole_number

# Of a theta sketch; a part of the largest has 16,384 hashes, in a record of some 330 kB.
SMALLEST_LG_K: Final = 5
LARGEST_LG_K: Final = 14
# Of a sketch that has seen all values: hashes have 63 bits.
NO_THETA: Final = 2**63 - 1
_HASH_BYTES: Final = 20


@keeps_misnamed
@dataclass(frozen=True, slots=True)
class Distinct(Aggregate):
    """How many different values there are: exact up to ``2**lg_k``, beyond that an estimate with a standard
    error of ``1 / sqrt(2**lg_k)``."""

    lg_k: Annotated[int, whole_number(SMALLEST_LG_K, LARGEST_LG_K)] = 11

    extra: ClassVar[str | None] = "sketches"
    suffixes: ClassVar[tuple[str, ...]] = ("_theta", "_hashes")
    takes: ClassVar[frozenset[str]] = SCALARS | {"bytes"}
    takes_words: ClassVar[str] = "a text, a number, a bool, an Enum, a UUID, bytes, or a time"

    def state(self) -> State:
        return _DistinctState(self.lg_k)

    def merge(self, parts: Sequence[Part]) -> dict[str, Any]:
        theta = min((state["theta"] for _, state in parts), default=NO_THETA)
        hashes = {each for _, state in parts for each in state["hashes"] if each < theta}
        return {"theta": theta, "hashes": sorted(hashes)}

    def finish(self, state: Any) -> tuple[int]:
        """The number of hashes below theta, by the share of all hashes that is."""
        return (estimate(len(state["hashes"]), state["theta"]),)

    def most_bytes(self) -> int:
        return _HASH_BYTES * ((1 << self.lg_k) + 2)


def estimate(hashes: int, theta: int) -> int:
    """How many different values there are, if so many hashes are below theta: rounded once, as in SQL."""
    return (2 * hashes * NO_THETA + theta) // (2 * theta)


def hash_of(value: Any) -> int:
    """What a sketch keeps of a value."""
    from datasketches import update_theta_sketch  # noqa: PLC0415 (as below)

    sketch = update_theta_sketch(SMALLEST_LG_K)
    sketch.update(distinct_text(value))
    [hashed] = sketch
    return int(hashed)


class _DistinctState:
    __slots__ = ("_sketch",)

    def __init__(self, lg_k: int) -> None:
        # It imports numpy, which costs a process 8 MB, and few streams have such windows.
        from datasketches import update_theta_sketch  # noqa: PLC0415 (when it is needed)

        self._sketch = update_theta_sketch(lg_k)

    def update(self, values: Sequence[Any]) -> None:
        update = self._sketch.update
        for value in set(values):
            update(value if type(value) is str and value else distinct_text(value))

    def json(self) -> dict[str, Any]:
        # What it keeps beyond 2**lg_k depends on the order of the events.
        self._sketch.trim()
        return {"theta": self._sketch.theta64, "hashes": sorted(self._sketch)}
