"""What the tables of windows with aggregates look like. Pure: nothing here talks to a database.

A row is a part of a window: what one record of the analytics topic says of it. Parts add up, so the totals
are in a view (`totals`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from streamflow.aggregates.base import Aggregate
from streamflow.aggregates.distinct import Distinct
from streamflow.aggregates.extremes import First, Last, Max, Min
from streamflow.aggregates.quantiles import Quantiles
from streamflow.aggregates.sums import Count, Mean, Sum
from streamflow.core_schema import is_always_bigint
from streamflow.durations import MILLISECOND, duration_text
from streamflow.names import totals_name
from streamflow.postgres.column_types import JSON, column_type
from streamflow.postgres.tables import RECORD_COLUMNS, TIME_COLUMNS, Column, Table
from streamflow.stream import Stream
from streamflow.windows.fields import field_at
from streamflow.windows.specs import CountedWindows, HoppingWindow, SessionWindow, Windows

_TIME: Final = "timestamp with time zone"
_FLOAT: Final = "double precision"
BOUNDS: Final = (Column("window_start", _TIME, False), Column("window_end", _TIME, False))
FIGURES: Final = (Column("counted", "bigint", False), Column("too_late", "bigint", False))
SOURCE: Final = (
    Column("partition", "integer", False),
    Column("late", "boolean", False),
    Column("first_offset", "bigint", False),
    Column("last_offset", "bigint", False),
    Column("origin_topic", "text", False),
)
# Of one source event at most one part of a window counts it first.
IDENTITY: Final = ("origin_topic", "partition", "first_offset")


@dataclass(frozen=True, slots=True)
class WindowTable:
    """The table of one declaration of windows.

    Attributes:
        by: the columns that the windows group by.
        types: of the aggregated fields, by the aggregate's name; of `Count` none.
        columns: of the table, in its order.
    """

    stream: Stream
    name: str
    spec: CountedWindows
    by: tuple[Column, ...]
    types: Mapping[str, str]
    columns: tuple[Column, ...]

    @property
    def view(self) -> str:
        return totals_name(self.name)

    @property
    def own_columns(self) -> tuple[Column, ...]:
        """Those that follow from the declaration: of groups and aggregates."""
        names = [column.name for column in self.columns]
        return self.columns[len(BOUNDS) : names.index(FIGURES[0].name)]

    @property
    def table(self) -> Table:
        return Table(
            name=self.name,
            columns=tuple(column.name for column in self.columns if column.name != "loaded_at"),
            position=RECORD_COLUMNS,
            identity=IDENTITY,
            event_time="window_start",
            by_day=True,
        )

    @property
    def declaration(self) -> dict[str, Any]:
        """What decides what is counted; the table is kept as long as that stays. For JSON."""
        return declaration_of(self.spec)


def window_tables(stream: Stream) -> tuple[WindowTable, ...]:
    """The tables that the loader fills; those of sessions are none of them."""
    return tuple(
        _window_table(stream, name, spec)
        for name, spec in stream.window_tables.items()
        if isinstance(spec, CountedWindows)
    )


def _window_table(stream: Stream, name: str, spec: CountedWindows) -> WindowTable:
    by = tuple(
        Column(column, field_type(stream, path), True)
        for column, path in zip(spec.by_columns, spec.by_fields, strict=True)
    )
    types = {
        each: field_type(stream, aggregate.field)
        for each, aggregate in spec.aggregates.items()
        if aggregate.field is not None
    }
    record = zip(RECORD_COLUMNS, ("text", "integer", "bigint"), strict=True)
    return WindowTable(
        stream,
        name,
        spec,
        by,
        types,
        (
            *BOUNDS,
            *by,
            *(
                column
                for each, aggregate in spec.aggregates.items()
                for column in aggregate_columns(each, aggregate, types.get(each, ""))
            ),
            *FIGURES,
            *SOURCE,
            *(Column(column, kind, False) for column, kind in record),
            *(
                Column(column, kind, column == "appended_at")
                for column, kind in TIME_COLUMNS.items()
            ),
        ),
    )


def aggregate_columns(name: str, aggregate: Aggregate, kind: str) -> tuple[Column, ...]:
    """The columns with the state of an aggregate; `kind` is the type of its field's column."""
    types = _STATES[type(aggregate)](kind)
    columns = zip(aggregate.suffixes, types, strict=True)
    return tuple(
        Column(f"{name}{suffix}", of.removesuffix(" not null"), not of.endswith(" not null"))
        for suffix, of in columns
    )


_STATES: Final[dict[type[Aggregate], Callable[[str], Sequence[str]]]] = {
    Count: lambda _: ("bigint not null",),
    Sum: lambda _: ("numeric",),
    Mean: lambda _: ("numeric", "bigint not null"),
    Min: lambda kind: (kind,),
    Max: lambda kind: (kind,),
    First: lambda kind: (kind, _TIME, "bigint"),
    Last: lambda kind: (kind, _TIME, "bigint"),
    Distinct: lambda _: ("bigint not null", "bigint[] not null"),
    Quantiles: lambda _: ("double precision[] not null", "bigint[] not null"),
}


def total_columns(table: WindowTable) -> tuple[Column, ...]:
    """The columns of the view of the totals; PostgreSQL takes any column of a view for nullable."""
    totals = [
        (column, _TOTALS[type(each)](table.types.get(name, "")))
        for name, each in table.spec.aggregates.items()
        for column in each.results(name)
    ]
    return tuple(
        Column(name, kind, nullable=True)
        for name, kind in (
            *((column.name, column.type) for column in (*BOUNDS, *table.by)),
            *totals,
            *((column.name, column.type) for column in FIGURES),
        )
    )


def _number(kind: str) -> str:
    return kind if kind == _FLOAT else "numeric"


# The type of an aggregate's total, given that of its field's column.
_TOTALS: Final[dict[type[Aggregate], Callable[[str], str]]] = {
    Count: lambda _: "bigint",
    Sum: _number,
    Mean: _number,
    Min: lambda kind: kind,
    Max: lambda kind: kind,
    First: lambda kind: kind,
    Last: lambda kind: kind,
    Distinct: lambda _: "bigint",
    Quantiles: lambda _: _FLOAT,
}


def field_type(stream: Stream, path: str) -> str:
    """The type of a column that holds a field, which may be nested; of any numeric without digits, so that
    a contract that allows more of them changes nothing. Raises NoField."""
    definitions, field = (
        stream.decoder.definitions,
        field_at(stream.decoder, path, everywhere=False),
    )
    schemas = field.schemas
    if "." in path and field.kind == "integer":
        unwrapped = map(definitions.unwrapped, schemas)
        return "bigint" if all(map(is_always_bigint, unwrapped)) else "numeric"
    types = {column_type(schema, definitions) or JSON for schema in schemas}
    kinds = {kind.partition("(")[0] for kind in types}
    # Whole numbers of one model fit into a bigint, and those of another do not.
    return kinds.pop() if len(kinds) == 1 else "numeric"


def declaration_of(spec: CountedWindows) -> dict[str, Any]:
    """See `WindowTable.declaration`."""
    return {
        "windows": type(spec).__name__,
        "pane": duration_text(spec.pane_ms * MILLISECOND),
        "by": list(spec.by_fields),
        "aggregates": shown_aggregates(spec),
    }


def shown_aggregates(spec: Windows) -> dict[str, str]:
    return {name: _shown(each) for name, each in spec.aggregates.items()}


def _shown(aggregate: Aggregate) -> str:
    """An aggregate as it is declared, without the code of `where`, and without what parts may differ in and
    add up all the same."""
    arguments = [] if aggregate.field is None else [f'"{aggregate.field}"']
    if aggregate.where is not None:
        arguments.append("where=…")
    return f"{type(aggregate).__name__}({', '.join(arguments)})"


def windows_in_words(spec: CountedWindows | SessionWindow) -> str:
    """Such as "5min every 1min, by country"."""
    by = f"by {', '.join(spec.by_fields)}" if spec.by_fields else "of all events together"
    if isinstance(spec, SessionWindow):
        return f"sessions with a gap of {duration_text(spec.gap)}, {by}"
    step = f" every {duration_text(spec.every)}" if isinstance(spec, HoppingWindow) else ""
    return f"{duration_text(spec.size)}{step}, {by}"


def sources_of(spec: Windows) -> dict[str, str]:
    """The fields, by the columns that have their values as they are in the events."""
    return dict(zip(spec.by_columns, spec.by_fields, strict=True)) | {
        name: str(each.field)
        for name, each in spec.aggregates.items()
        if isinstance(each, Min | Max | First | Last)
    }


def panes_of(spec: CountedWindows) -> int:
    """Of how many panes a window consists: one, unless windows overlap."""
    return spec.size // spec.every if isinstance(spec, HoppingWindow) else 1
