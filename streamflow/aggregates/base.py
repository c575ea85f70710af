"""What all aggregates have in common."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Protocol

from streamflow.argument_types import described, function, optional

NUMBERS: Final = frozenset(("integer", "decimal", "float"))
ORDERED: Final = NUMBERS | {"text", "datetime", "date", "time", "timedelta"}
SCALARS: Final = ORDERED | {"boolean", "uuid"}

# The source partition of a window's part, and the state of an aggregate in it, as JSON has it.
Part = tuple[int, Any]


class State(Protocol):
    """What a cell keeps of an aggregate while its window is open."""

    def update(self, values: Sequence[Any]) -> None:
        """Takes what more events have; there is no null among them."""

    def json(self) -> Any:
        """The state as the record of a window has it."""


def field_path(value: Any) -> str | None:
    """What is wrong with the name of a field, as `argument_types.Check` has it."""
    if isinstance(value, str) and all(value.split(".")):
        return None
    hint = ": a function says which events count with where=" if callable(value) else ""
    wanted = 'must be the name of a field, as in "total", or "address.city" within another'
    return f"{wanted}, not {described(value)}{hint}"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A value that windows compute of a field of their events. An event whose field is null is left out.
    Wrong arguments raise nothing: `argument_faults` names them.

    Args:
        field: what is aggregated; a dotted path leads into nested models.
        where: which events are aggregated; None for all.
    """

    field: Annotated[str | None, field_path]  # None of a `Count` of all events
    where: Annotated[
        Callable[[Any], bool] | None,
        optional(function("a function of an event that says whether it counts", "event")),
    ] = None
    misnamed: tuple[str, ...] = dataclasses.field(
        default=(), repr=False, compare=False, kw_only=True
    )

    # What the names of its columns in the table of the windows' parts add to its own name.
    suffixes: ClassVar[tuple[str, ...]] = ("",)
    # Kinds of fields that it takes, and what they are called (`windows.fields`).
    takes: ClassVar[frozenset[str]] = NUMBERS
    takes_words: ClassVar[str] = "a number: int, Decimal or float"
    # Of the distribution, that brings what it is computed with.
    extra: ClassVar[str | None] = None
    # Whether its values come with the time and the offset of their events, as (time, offset, value).
    is_timed: ClassVar[bool] = False
    # Whether it takes long numbers and texts as they are.
    takes_whole: ClassVar[bool] = False

    def results(self, name: str) -> tuple[str, ...]:
        """The columns of its finished values, where it is called `name`."""
        return (name,)

    def state(self) -> State:
        """Of a new cell."""
        raise NotImplementedError

    def merge(self, parts: Sequence[Part]) -> Any:
        """The state, as JSON, of what several parts of a window have counted; in any order."""
        raise NotImplementedError

    def finish(self, state: Any) -> tuple[Any, ...]:
        """The finished values of a state as JSON has it, one for each of `results`."""
        return (state,)

    def most_bytes(self) -> int:
        """The most that its state takes in a record; a text of 256 characters may take six bytes each."""
        return 2_048
