"""What the Windows page can show of a stream: its windows, and the aggregates of each. Pure."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from streamflow.aggregates.base import Aggregate
from streamflow.aggregates.distinct import Distinct
from streamflow.aggregates.quantiles import Quantiles
from streamflow.aggregates.sums import Count, Mean, Sum
from streamflow.postgres.column_types import column_type
from streamflow.postgres.sessions.tables import SessionTable, session_tables
from streamflow.postgres.windows.tables import WindowTable, shown_aggregates, window_tables
from streamflow.stream import Stream
from streamflow.windows.fields import field_at
from streamflow.windows.progress import COUNTS

COUNTED: Final = "counted"  # how many events windows have aggregated; no aggregate can be called so

AggregateTable = WindowTable | SessionTable

_NUMBERS: Final = ("bigint", "numeric", "double precision")
_PLACES: Final = re.compile(r"numeric\(\d+,(\d+)\)")


@dataclass(frozen=True, slots=True)
class ChosenAggregate:
    """An aggregate of windows, with what a chart of it needs.

    Attributes:
        aggregate: None for the number of events.
        declared: as in the declaration.
        columns: of its finished values; of `Quantiles` one for each share.
        labels: of the columns, where there are several: ``p50``.
        type: of the values, in PostgreSQL.
        places: digits after the point that the contract gives the field; None if it gives none.
    """

    name: str
    aggregate: Aggregate | None
    declared: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    type: str
    places: int | None

    @property
    def adds_up(self) -> bool:
        """Whether the values of groups, and of windows that do not overlap, add up."""
        return self.aggregate is None or isinstance(self.aggregate, Count | Sum)

    @property
    def is_number(self) -> bool:
        return self.type in _NUMBERS

    @property
    def is_chartable(self) -> bool:
        return self.is_number or self.type == "interval"

    @property
    def unit(self) -> str:
        """What an axis of its values is called."""
        field = None if self.aggregate is None else self.aggregate.field
        if self.aggregate is None or (isinstance(self.aggregate, Count) and field is None):
            return "events"
        if isinstance(self.aggregate, Count):
            return f"events with {field}"
        if isinstance(self.aggregate, Distinct):
            return f"different values of {field}"
        return f"{field}, seconds" if self.type == "interval" else str(field)


def choices_of(stream: Stream) -> dict[str, AggregateTable | None]:
    """The windows of a stream by the names of their tables, in the order of the declaration; None stands for
    those that count into `window_counts`, which come first."""
    every: list[AggregateTable] = [*window_tables(stream), *session_tables(stream)]
    tables = {table.name: table for table in every}
    counts: dict[str, AggregateTable | None] = {} if stream.event_counts is None else {COUNTS: None}
    return counts | {name: tables[name] for name in stream.window_tables}


def aggregates_of(table: AggregateTable) -> dict[str, ChosenAggregate]:
    """The aggregates of windows by name, in the order of the declaration; the number of events comes last."""
    declared = shown_aggregates(table.spec)
    chosen = {
        name: ChosenAggregate(
            name,
            each,
            declared[name],
            each.results(name),
            _labels(name, each),
            _type(table, name, each),
            _places(table.stream, each),
        )
        for name, each in table.spec.aggregates.items()
    }
    counted = ChosenAggregate(COUNTED, None, "all events", (COUNTED,), (), "bigint", None)
    return chosen | {COUNTED: counted}


def _labels(name: str, aggregate: Aggregate) -> tuple[str, ...]:
    if not isinstance(aggregate, Quantiles):
        return ()
    shares = (column.removeprefix(f"{name}_") for column in aggregate.results(name))
    return tuple(share.replace("_", ".") for share in shares)


def _type(table: AggregateTable, name: str, aggregate: Aggregate) -> str:
    """The type of the finished values."""
    if isinstance(table, SessionTable):
        [first, *_] = aggregate.results(name)
        return next(column.type for column in table.columns if column.name == first)
    if isinstance(aggregate, Count | Distinct):
        return "bigint"
    if isinstance(aggregate, Quantiles):
        return "double precision"
    kind = table.types[name]
    is_whole = isinstance(aggregate, Sum | Mean) and kind == "bigint"
    return "numeric" if is_whole else kind


def _places(stream: Stream, aggregate: Aggregate) -> int | None:
    if aggregate.field is None or isinstance(aggregate, Count | Distinct):
        return None
    definitions = stream.decoder.definitions
    schemas = field_at(stream.decoder, aggregate.field, everywhere=False).schemas
    matches = [_PLACES.fullmatch(column_type(each, definitions) or "") for each in schemas]
    return max((int(match[1]) for match in matches if match), default=None)


# Lengths of bars that people can read on an axis of time.
_ROUND: Final = tuple(
    timedelta(seconds=seconds)
    for seconds in (
        1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 300, 600, 900, 1_200, 1_800, 3_600, 7_200, 10_800, 14_400,
        21_600, 43_200, 86_400, 172_800, 604_800,
    )
)  # fmt: skip


def step_of(size: timedelta, least: timedelta) -> timedelta:
    """The shortest multiple of `size` that is not shorter than `least`; a round one, if there is one that is
    less than twice as long."""
    whole = max(1, -(-least // size)) * size
    fitting = (each for each in _ROUND if whole <= each < 2 * whole and each % size == timedelta(0))
    return next(fitting, whole)
