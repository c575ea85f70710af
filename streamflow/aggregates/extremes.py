"""The smallest and largest, the first and last value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from streamflow.aggregates.base import ORDERED, SCALARS, Aggregate, Part, State
from streamflow.aggregates.values import json_value, moment_text
from streamflow.argument_types import keeps_misnamed

_Pick = Callable[..., Any]  # min or max
# A value with the time and the offset of its event.
_Entry = tuple[datetime, int, Any]


@keeps_misnamed
@dataclass(frozen=True, slots=True)
class Min(Aggregate):
    """The smallest of numbers, times or texts; texts are ordered by their code points."""

    takes: ClassVar[frozenset[str]] = ORDERED
    takes_words: ClassVar[str] = "a number, a text, or a time"

    def state(self) -> State:
        return _ExtremeState(min)

    def merge(self, parts: Sequence[Part]) -> Any:
        """Of values in an order of their own: texts of numbers and of durations are to be read first."""
        return _extreme(min, parts)


@keeps_misnamed
@dataclass(frozen=True, slots=True)
class Max(Aggregate):
    """The largest; as `Min`."""

    takes: ClassVar[frozenset[str]] = ORDERED
    takes_words: ClassVar[str] = "a number, a text, or a time"

    def state(self) -> State:
        return _ExtremeState(max)

    def merge(self, parts: Sequence[Part]) -> Any:
        """As that of `Min`."""
        return _extreme(max, parts)


@keeps_misnamed
@dataclass(frozen=True, slots=True)
class First(Aggregate):
    """The value of the earliest event; of several at one time, that of the lowest partition and offset."""

    suffixes: ClassVar[tuple[str, ...]] = ("", "_time", "_offset")
    takes: ClassVar[frozenset[str]] = SCALARS
    takes_words: ClassVar[str] = "a text, a number, a bool, an Enum, a UUID, or a time"
    is_timed: ClassVar[bool] = True

    def state(self) -> State:
        return _OrderedState(min)

    def merge(self, parts: Sequence[Part]) -> Any:
        return _in_order(min, parts)

    def finish(self, state: Any) -> tuple[Any]:
        return (state and state["value"],)


@keeps_misnamed
@dataclass(frozen=True, slots=True)
class Last(Aggregate):
    """The value of the latest event; of several at one time, that of the highest partition and offset."""

    suffixes: ClassVar[tuple[str, ...]] = ("", "_time", "_offset")
    takes: ClassVar[frozenset[str]] = SCALARS
    takes_words: ClassVar[str] = "a text, a number, a bool, an Enum, a UUID, or a time"
    is_timed: ClassVar[bool] = True

    def state(self) -> State:
        return _OrderedState(max)

    def merge(self, parts: Sequence[Part]) -> Any:
        return _in_order(max, parts)

    def finish(self, state: Any) -> tuple[Any]:
        return (state and state["value"],)


class _ExtremeState:
    __slots__ = ("_pick", "_value")

    def __init__(self, pick: _Pick) -> None:
        self._pick = pick
        self._value: Any = None

    def update(self, values: Sequence[Any]) -> None:
        if values:
            best = self._pick(values)
            self._value = best if self._value is None else self._pick(self._value, best)

    def json(self) -> Any:
        return json_value(self._value)


class _OrderedState:
    """The value of the event that is the first, or the last, by time and offset."""

    __slots__ = ("_entry", "_pick")

    def __init__(self, pick: _Pick) -> None:
        self._pick = pick
        self._entry: _Entry | None = None

    def update(self, values: Sequence[_Entry]) -> None:
        if values:
            # No two have one offset, so no values are compared.
            best = self._pick(values)
            self._entry = best if self._entry is None else self._pick(self._entry, best)

    def json(self) -> dict[str, Any] | None:
        if self._entry is None:
            return None
        moment, offset, value = self._entry
        return {"value": json_value(value), "time": moment_text(moment), "offset": offset}


def _extreme(pick: _Pick, parts: Sequence[Part]) -> Any:
    return pick((value for _, value in parts if value is not None), default=None)


def _in_order(pick: _Pick, parts: Sequence[Part]) -> Any:
    """Times in RFC 3339, all in UTC and of one length, are in the order of their texts."""
    return pick(
        ((state["time"], partition, state["offset"], state) for partition, state in parts if state),
        key=lambda entry: entry[:3],
        default=(None,),
    )[-1]
