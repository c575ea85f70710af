"""A declaration of windows, made ready for counting: how an event gives its group and the values of its
aggregates. Pure."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from streamflow.aggregates.base import Aggregate, State
from streamflow.aggregates.values import json_value
from streamflow.stream import Stream
from streamflow.windows.durations import MILLISECOND
from streamflow.windows.fields import Field, field_at
from streamflow.windows.progress import COUNTS
from streamflow.windows.specs import CountedWindows

_DIGEST: Final = 8  # hexadecimal digits

# What events have for some aggregates; with offsets, which some of them need.
Reader = Callable[[Sequence[Any], Sequence[int]], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How one declaration's windows are counted.

    Attributes:
        name: of its table.
        pane: milliseconds of a cell.
        group_of: the group of an event: a text in windows without aggregates, else the value of the field to
            group by, or a tuple of several.
        names: of the aggregates, in the order of their states.
        new_states: makes the states of a new cell.
        readers: what an update of some of the states takes, by their places.
        too_late_after: milliseconds after the end of a pane when it takes no more events; None for never.
        digest: of what is counted.
        by_columns: of the fields to group by.
    """

    name: str
    pane: int
    grace: int
    ahead: int
    idle: float
    group_of: Callable[[Any], Any]
    names: tuple[str, ...] = ()
    new_states: tuple[Callable[[], State], ...] = ()
    readers: tuple[tuple[Reader, tuple[int, ...]], ...] = ()
    too_late_after: int | None = None
    digest: str = ""
    by_columns: tuple[str, ...] = ()

    def by_values(self, group: Any) -> dict[str, Any]:
        """The values of the fields to group by, as JSON has them."""
        values = group if len(self.by_columns) > 1 else (group,)
        return {
            column: json_value(value)
            for column, value in zip(self.by_columns, values, strict=False)
        }


def plans_of(stream: Stream) -> tuple[Plan, ...]:
    """For all windows of a stream that analytics counts."""
    return tuple(
        _aggregating(stream, spec) if spec.aggregates else _counting(stream, spec)
        for spec in stream.counted
    )


def _counting(stream: Stream, spec: CountedWindows) -> Plan:
    return Plan(
        name=COUNTS,
        pane=spec.pane_ms,
        grace=spec.grace // MILLISECOND,
        ahead=spec.ahead // MILLISECOND,
        idle=spec.idle.total_seconds(),
        group_of=stream.kind_of,
    )


def _aggregating(stream: Stream, spec: CountedWindows) -> Plan:
    late_after = spec.late_after
    return Plan(
        name=spec.table_of(stream.table),
        pane=spec.pane_ms,
        grace=spec.grace // MILLISECOND,
        ahead=spec.ahead // MILLISECOND,
        idle=spec.idle.total_seconds(),
        group_of=_group_of([field_at(stream.decoder, path) for path in spec.by_fields]),
        names=tuple(spec.aggregates),
        new_states=tuple(each.state for each in spec.aggregates.values()),
        readers=tuple(_readers(stream, list(spec.aggregates.values()))),
        too_late_after=None if late_after is None else late_after // MILLISECOND,
        digest=_digest(spec),
        by_columns=spec.by_columns,
    )


def _digest(spec: CountedWindows) -> str:
    """Of what decides what is counted, without the code of `where`. When an event is too late is judged
    once, when it is first read, so that may change."""
    counted = [
        (name, type(each).__name__, each.field, each.where is not None)
        for name, each in spec.aggregates.items()
    ]
    text = repr((type(spec).__name__, spec.pane_ms, spec.by_fields, counted))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]


def _group_of(fields: Sequence[Field]) -> Callable[[Any], Any]:
    if not fields:
        return lambda _event: None
    getters = [field.getter() for field in fields]
    if len(getters) == 1:
        return getters[0]
    if all(isinstance(get, attrgetter) for get in getters):
        return attrgetter(
            *(f"{each.path}._value_" if each.of_enum else each.path for each in fields)
        )
    return lambda event: tuple([get(event) for get in getters])


def _readers(
    stream: Stream, aggregates: Sequence[Aggregate]
) -> list[tuple[Reader, tuple[int, ...]]]:
    """Aggregates of the same values read them together."""
    places: dict[Any, list[int]] = {}
    for place, each in enumerate(aggregates):
        key = (each.field, each.where, each.is_timed, each.takes_whole)
        places.setdefault(key, []).append(place)
    return [(_reader(stream, aggregates[own[0]]), tuple(own)) for own in places.values()]


def _reader(stream: Stream, aggregate: Aggregate) -> Reader:
    where, time_of = aggregate.where and _guarded(aggregate.where), stream.time_of
    if aggregate.field is None:
        if where is None:
            return lambda events, _offsets: events
        return lambda events, _offsets: [event for event in events if where(event)]
    field = field_at(stream.decoder, aggregate.field, everywhere=False)
    get = field.getter(whole=aggregate.takes_whole)
    if aggregate.is_timed:
        return lambda events, offsets: [
            (time_of(event), offset, value)
            for event, offset in zip(events, offsets, strict=True)
            if (where is None or where(event)) and (value := get(event)) is not None
        ]
    if where is not None:
        return lambda events, _offsets: [
            value for event in events if where(event) and (value := get(event)) is not None
        ]
    if field.nullable or not isinstance(get, attrgetter):
        return lambda events, _offsets: [
            value for event in events if (value := get(event)) is not None
        ]
    return lambda events, _offsets: [*map(get, events)]


def _guarded(where: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """An event for which it raises is a dead letter (`faults`); but it may raise now and then."""

    def is_wanted(event: Any) -> bool:
        try:
            return bool(where(event))
        except BaseException:  # noqa: BLE001 (a user's function)
            return False

    return is_wanted
