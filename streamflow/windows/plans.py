"""A declaration of windows, made ready for counting: how an event gives its group and the values of its
aggregates. Pure."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from streamflow.aggregates.base import Aggregate, State
from streamflow.aggregates.values import json_value
from streamflow.durations import MILLISECOND
from streamflow.stream import Stream
from streamflow.windows.fields import Field, field_at
from streamflow.windows.progress import COUNTS
from streamflow.windows.specs import CountedWindows

_DIGEST: Final = 8  # hexadecimal digits

# What an aggregate's update takes, of the columns of events and their offsets.
Reader = Callable[[Sequence[Sequence[Any]], Sequence[int]], Sequence[Any]]


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
        values_of: what is kept of an event until it is aggregated: a tuple, or a value alone.
        width: of the tuple.
        readers: what an update of some of the states takes, with their places.
        too_late_after: milliseconds after the end of a pane when it takes no more events; None for never.
        digest: of what is counted.
        by_columns: of the fields to group by.
        takes_times: whether an event's own time is aggregated or grouped by.
    """

    name: str
    pane: int
    grace: int
    ahead: int
    idle: float
    group_of: Callable[[Any], Any]
    names: tuple[str, ...] = ()
    new_states: tuple[Callable[[], State], ...] = ()
    values_of: Callable[[Any], Any] = lambda _event: None
    width: int = 0
    readers: tuple[tuple[Reader, tuple[int, ...]], ...] = ()
    too_late_after: int | None = None
    digest: str = ""
    by_columns: tuple[str, ...] = ()
    takes_times: bool = False

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
        takes_times=stream.kind_field == stream.event_time,
    )


def _aggregating(stream: Stream, spec: CountedWindows) -> Plan:
    late_after, columns = spec.late_after, _Columns(stream)
    readers = _readers(columns, list(spec.aggregates.values()))
    return Plan(
        name=spec.table_of(stream.table),
        pane=spec.pane_ms,
        grace=spec.grace // MILLISECOND,
        ahead=spec.ahead // MILLISECOND,
        idle=spec.idle.total_seconds(),
        group_of=_group_of([field_at(stream.decoder, path) for path in spec.by_fields]),
        names=tuple(spec.aggregates),
        new_states=tuple(each.state for each in spec.aggregates.values()),
        values_of=columns.values_of(),
        width=columns.width,
        readers=readers,
        too_late_after=None if late_after is None else late_after // MILLISECOND,
        digest=_digest(spec),
        by_columns=spec.by_columns,
        takes_times=stream.event_time in spec.by_fields or columns.holds(stream.event_time),
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
    if all(field.attributes and field.shorten is None for field in fields):
        return attrgetter(*(str(field.attributes) for field in fields))
    getters = [_short(field) for field in fields]
    return getters[0] if len(getters) == 1 else lambda event: tuple([get(event) for get in getters])


def _short(field: Field) -> Callable[[Any], Any]:
    get, shorten = field.get, field.shorten
    if shorten is None:
        return get
    return lambda event: None if (value := get(event)) is None else shorten(value)


class _Columns:
    """What is kept of events until they are aggregated: each value once."""

    def __init__(self, stream: Stream) -> None:
        self._decoder, self._event_time = stream.decoder, stream.event_time
        self._places: dict[Any, int] = {}
        self._getters: list[Callable[[Any], Any]] = []
        self._attributes: list[str | None] = []

    @property
    def width(self) -> int:
        return len(self._getters)

    def holds(self, path: str) -> bool:
        return any(path == kept for kept, _ in self._places)

    def field(self, path: str) -> Field:
        return field_at(self._decoder, path, everywhere=False)

    def place(self, path: str | None, where: Callable[[Any], bool] | None = None) -> int:
        """Of a field's values, or of whether there is an event."""
        if (path, where) not in self._places:
            self._places[path, where] = self.width
            field = None if path is None else self.field(path)
            get = (lambda _event: True) if field is None else field.get
            self._getters.append(get if where is None else _wanted(get, where))
            self._attributes.append(field.attributes if field and where is None else None)
        return self._places[path, where]

    def times(self) -> int:
        """The place of the event times."""
        return self.place(self._event_time)

    def values_of(self) -> Callable[[Any], Any]:
        """A tuple of all values; of one, the value itself."""
        getters = self._getters
        if len(getters) == 1:
            return getters[0]
        attributes = [each for each in self._attributes if each is not None]
        if getters and len(attributes) == len(getters):
            return attrgetter(*attributes)  # several times as fast
        return lambda event: tuple([get(event) for get in getters])


def _readers(
    columns: _Columns, aggregates: Sequence[Aggregate]
) -> tuple[tuple[Reader, tuple[int, ...]], ...]:
    """Aggregates of the same values read them together."""
    places: dict[Any, list[int]] = {}
    for place, each in enumerate(aggregates):
        key = (each.field, each.where, each.is_timed, each.takes_whole)
        places.setdefault(key, []).append(place)
    return tuple((_reader(columns, aggregates[own[0]]), tuple(own)) for own in places.values())


def _reader(columns: _Columns, aggregate: Aggregate) -> Reader:
    if aggregate.field is None:
        if aggregate.where is None:
            return lambda _columns, offsets: offsets
        place, nullable, shorten = columns.place(None, aggregate.where), True, None
    else:
        field = columns.field(aggregate.field)
        place = columns.place(aggregate.field, aggregate.where)
        shorten = None if aggregate.takes_whole else field.shorten
        nullable = field.nullable or aggregate.where is not None or shorten is not None

    def short(column: Sequence[Any]) -> Sequence[Any]:
        if shorten is None:
            return column
        return [None if value is None else shorten(value) for value in column]

    if aggregate.is_timed:
        times = columns.times()
        return lambda columns, offsets: [
            (moment, offset, value)
            for moment, offset, value in zip(
                columns[times], offsets, short(columns[place]), strict=True
            )
            if value is not None
        ]
    if nullable:
        return lambda columns, _: [v for v in short(columns[place]) if v is not None]
    return lambda columns, _: columns[place]


def _wanted(get: Callable[[Any], Any], where: Callable[[Any], bool]) -> Callable[[Any], Any]:
    is_wanted = guarded(where)
    return lambda event: get(event) if is_wanted(event) else None


def guarded(where: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """An event for which it raises is a dead letter (`faults`); but it may raise now and then."""

    def is_wanted(event: Any) -> bool:
        try:
            return bool(where(event))
        except BaseException:  # noqa: BLE001 (a user's function)
            return False

    return is_wanted
