"""How a stream's windows are declared. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Any, Final

from streamflow.aggregates.base import Aggregate
from streamflow.argument_types import (
    TEXT,
    described,
    duration,
    instance_of,
    keeps_misnamed,
    optional,
)
from streamflow.durations import MILLISECOND, duration_text, parse_duration

By = str | tuple[str, ...] | list[str] | None
Span = timedelta | str
_NONE: Final[Mapping[str, Aggregate]] = MappingProxyType({})
_MOST: Final = timedelta(days=3650)
# Of a hopping window: its view takes each part for each of them, a million in half a second.
MOST_PANES: Final = 1_440
_LENGTH: Final = duration(MILLISECOND, _MOST)
_WAIT: Final = duration(timedelta(0), _MOST)
_EXAMPLE: Final = "add one, as in events=Count()"


def column_of(path: str) -> str:
    """The column of a field, which may be nested: ``address_city`` of ``address.city``."""
    return path.replace(".", "_")


def _by(value: Any) -> str | None:
    paths = value if isinstance(value, tuple | list) else (value,)
    if value is None or (
        paths and all(isinstance(path, str) and all(path.split(".")) for path in paths)
    ):
        return None
    return f'must name a field, as in by="country", or several in a tuple, not {described(value)}'


@dataclass(frozen=True, slots=True, init=False)
class Windows:
    """What all kinds of windows have in common; see `TumblingWindow` for the arguments. Wrong ones raise
    nothing: `argument_faults` and `faults` name them."""

    by: Annotated[str | tuple[str, ...] | None, _by]
    name: Annotated[str | None, optional(TEXT)]
    aggregates: Annotated[
        Mapping[str, Aggregate], instance_of(Mapping, what="a mapping of names to aggregates")
    ] = field(hash=False)
    misnamed: tuple[str, ...] = field(repr=False, compare=False)

    def _set(
        self,
        by: By,
        name: str | None,
        aggregates: Mapping[str, Aggregate],
        named: Mapping[str, Aggregate],
        spans: Mapping[str, Span | None],
    ) -> None:
        """Fills a frozen instance; `spans` are its durations by argument."""
        given = {**aggregates, **named} if isinstance(aggregates, Mapping) else aggregates
        kept, wrong = given, []
        if isinstance(given, Mapping):
            kept = {
                each: one
                for each, one in given.items()
                if isinstance(each, str) and isinstance(one, Aggregate)
            }
            wrong = [
                f"aggregates must have texts as names, not {described(each)}"
                for each in given
                if not isinstance(each, str)
            ]
            wrong += [
                f"{type(self).__name__} has no argument {each}, and {described(one)} is no aggregate like "
                'Count() or Sum("total")'
                for each, one in given.items()
                if isinstance(each, str) and each not in kept
            ]
        object.__setattr__(self, "by", tuple(by) if isinstance(by, list) else by)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "aggregates", kept)
        object.__setattr__(self, "misnamed", tuple(wrong))
        for argument, span in spans.items():
            object.__setattr__(self, argument, span)
            # Of what is no duration `argument_faults` speaks.
            with suppress(ValueError, TypeError, OverflowError):
                object.__setattr__(self, argument, None if span is None else parse_duration(span))

    def faults(self) -> Iterator[str]:
        """Why its arguments do not fit together, where each of them is right."""
        raise NotImplementedError

    @property
    def by_fields(self) -> tuple[str, ...]:
        """The fields to group by, each as a dotted path."""
        if self.by is None:
            return ()
        return (self.by,) if isinstance(self.by, str) else self.by

    @property
    def by_columns(self) -> tuple[str, ...]:
        return tuple(map(column_of, self.by_fields))

    @property
    def suffix(self) -> str:
        """What the name of its table adds to that of the stream's."""
        raise NotImplementedError

    def table_of(self, table: str) -> str:
        """The name of its table; `table` is the stream's. Windows without aggregates have none."""
        return self.name or f"{table}_{self.suffix}"

    @property
    def conditions(self) -> dict[str, Callable[[Any], bool]]:
        """The functions of the user's own, by the name of the aggregate."""
        return {
            name: each.where for name, each in self.aggregates.items() if each.where is not None
        }


@dataclass(frozen=True, slots=True, init=False)
class CountedWindows(Windows):
    """Windows that analytics counts; see `TumblingWindow` for the arguments."""

    size: Annotated[timedelta, _LENGTH]
    grace: Annotated[timedelta, _WAIT]
    idle: Annotated[timedelta, _WAIT]
    ahead: Annotated[timedelta, _WAIT]
    late_after: Annotated[timedelta | None, optional(_WAIT)]

    def faults(self) -> Iterator[str]:
        """Why its arguments do not fit together, where each of them is right."""
        if self.aggregates:
            return
        if self.name or self.late_after is not None:
            yield f"name and late_after are for windows with aggregates: {_EXAMPLE}"
        if len(self.by_fields) > 1:
            yield f"windows by several fields ({', '.join(self.by_fields)}) need aggregates: {_EXAMPLE}"

    @property
    def size_ms(self) -> int:
        return self.size // MILLISECOND

    @property
    def pane_ms(self) -> int:
        """The size of what is counted, of which each event is in exactly one."""
        return self.size_ms


@keeps_misnamed
@dataclass(frozen=True, slots=True, init=False)
class TumblingWindow(CountedWindows):
    """Windows of one size, aligned to the epoch, that do not overlap.

    Without aggregates they count events, into ``window_counts``; with some, they have a table of their own.

    Args:
        size: of a window, as a ``timedelta`` or a text like ``10s``, ``5min``, ``1h``; whole milliseconds.
        by: the event's field to group by, or several; None for all events together. With aggregates, a dotted
            path leads into nested models.
        grace: how long after its end, in event time, a window waits for late events; as `size`.
        idle: close open windows when a partition has brought nothing for this long.
        ahead: an event further ahead of the broker's clock than this does not move the watermark.
        name: of its table; None for that of the stream and the size, as in ``orders_10s``.
        late_after: an event that comes so long after its window's end and grace is not aggregated, but
            counted as too late; None to aggregate each, however late it comes.
        aggregates: what is computed of each window, by the name of its column, such as ``orders=Count()``; or
            all in one mapping, for names that are arguments as well.
    """

    def __init__(
        self,
        size: Span,
        *,
        by: By = None,
        grace: Span = timedelta(seconds=5),
        idle: Span = timedelta(seconds=10),
        ahead: Span = timedelta(minutes=5),
        name: str | None = None,
        late_after: Span | None = None,
        aggregates: Mapping[str, Aggregate] = _NONE,
        **named: Aggregate,
    ) -> None:
        spans = {
            "size": size, "grace": grace, "idle": idle, "ahead": ahead, "late_after": late_after,
        }  # fmt: skip
        self._set(by, name, aggregates, named, spans)

    @property
    def suffix(self) -> str:
        return duration_text(self.size)


@keeps_misnamed
@dataclass(frozen=True, slots=True, init=False)
class HoppingWindow(CountedWindows):
    """Windows of one size that overlap, as a new one begins every so often. They need aggregates.

    Each event is counted once, in a pane as long as the step; the view of the totals puts panes together.

    Args:
        size: of a window, as a multiple of `every`: at most 1,440 times as long.
        every: how long after another one a window begins; as `size`.
        by: as those of `TumblingWindow`, and all that follow.
    """

    every: Annotated[timedelta, _LENGTH]

    def __init__(
        self,
        size: Span,
        *,
        every: Span,
        by: By = None,
        grace: Span = timedelta(seconds=5),
        idle: Span = timedelta(seconds=10),
        ahead: Span = timedelta(minutes=5),
        name: str | None = None,
        late_after: Span | None = None,
        aggregates: Mapping[str, Aggregate] = _NONE,
        **named: Aggregate,
    ) -> None:
        spans = {
            "size": size, "every": every, "grace": grace, "idle": idle, "ahead": ahead,
            "late_after": late_after,
        }  # fmt: skip
        self._set(by, name, aggregates, named, spans)

    def faults(self) -> Iterator[str]:
        """Why its arguments do not fit together, where each of them is right."""
        if self.size % self.every:
            yield (
                f"the size of a hopping window, {duration_text(self.size)}, must be a multiple of every, "
                f"{duration_text(self.every)}"
            )
        elif (panes := self.size // self.every) > MOST_PANES:
            yield (
                f"a hopping window of {duration_text(self.size)} every {duration_text(self.every)} is put "
                f"together of {panes:,} panes, and {MOST_PANES:,} are the most: choose a longer every"
            )
        if not self.aggregates:
            yield f"a hopping window needs aggregates: {_EXAMPLE}"

    @property
    def pane_ms(self) -> int:
        """The size of what is counted, of which each event is in exactly one."""
        return self.every // MILLISECOND

    @property
    def suffix(self) -> str:
        return f"{duration_text(self.size)}_by_{duration_text(self.every)}"


@keeps_misnamed
@dataclass(frozen=True, slots=True, init=False)
class SessionWindow(Windows):
    """Windows of one key's activity: a session ends where nothing comes for the length of a gap. They need
    `by` and aggregates.

    Sessions are computed by SQL over the stream's table, in a Dagster asset, so their aggregates are exact;
    they take no `where`.

    Args:
        gap: as the size of a `TumblingWindow`.
        by: whose sessions they are; as that of `TumblingWindow`.
        name: of its table; None for that of the stream and the gap, as in ``orders_sessions_30min``.
        aggregates: as those of `TumblingWindow`.
    """

    gap: Annotated[timedelta, _LENGTH]

    def __init__(
        self,
        gap: Span,
        *,
        by: By,
        name: str | None = None,
        aggregates: Mapping[str, Aggregate] = _NONE,
        **named: Aggregate,
    ) -> None:
        self._set(by, name, aggregates, named, {"gap": gap})

    def faults(self) -> Iterator[str]:
        """Why its arguments do not fit together, where each of them is right."""
        if not self.by_fields:
            yield 'a session window needs by: whose sessions are they? by="customer"'
        if not self.aggregates:
            yield f"a session window needs aggregates: {_EXAMPLE}"
        for each in self.conditions:
            yield (
                f"{each}: aggregates of sessions take no where=, as they are computed by SQL of the stream's "
                "table: use a tumbling window, or a view of the table"
            )

    @property
    def suffix(self) -> str:
        return f"sessions_{duration_text(self.gap)}"


def all_windows(value: Any) -> str | None:
    for each in value:
        if not isinstance(each, Windows):
            hint = f": write {each.__name__}(…)" if isinstance(each, type) else ""
            return (
                'must be a TumblingWindow, as in windows=TumblingWindow("10s", by="type"), a HoppingWindow, '
                f"a SessionWindow, or a list of such, not {described(each)}{hint}"
            )
    return None


class WindowsField:
    """`Stream.windows`: takes one declaration, several or None, and is a tuple of them."""

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, _owner: type | None = None) -> tuple[Windows, ...]:
        if instance is None:
            return ()
        windows: tuple[Windows, ...] = instance.__dict__[self._name]
        return windows

    def __set__(self, instance: object, value: Windows | Sequence[Windows] | None) -> None:
        windows = (
            () if value is None else tuple(value) if isinstance(value, list | tuple) else (value,)
        )
        instance.__dict__[self._name] = windows
