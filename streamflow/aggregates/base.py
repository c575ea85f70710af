"""What all aggregates have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A value that windows compute of a field of their events. An event whose field is null is left out.

    Args:
        field: what is aggregated; a dotted path leads into nested models.
        where: which events are aggregated; None for all.
    """

    field: str
    where: Callable[[Any], bool] | None = None

    # What the names of its columns in the table of the windows' parts add to its own name.
    suffixes: ClassVar[tuple[str, ...]] = ("",)

    def __post_init__(self) -> None:
        if not isinstance(self.field, str) or not all(self.field.split(".")):
            raise ValueError(
                f"{type(self).__name__}({self.field!r}): name a field, as in "
                f'{type(self).__name__}("total"), or "address.city" within another'
            )
        if self.where is not None and not callable(self.where):
            raise ValueError(
                f"{type(self).__name__}({self.field!r}): where must be a function of an event that says "
                "whether it is aggregated, as in where=lambda order: order.total > 0"
            )

    def results(self, name: str) -> tuple[str, ...]:
        """The columns of its finished values, where it is called `name`."""
        return (name,)
