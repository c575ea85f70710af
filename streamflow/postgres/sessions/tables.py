"""The tables of sessions: columns, and the SQL of what they hold. Pure.

Sessions have finished values, computed of the rows of their events.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import sql

from streamflow.aggregates.base import Aggregate
from streamflow.aggregates.distinct import Distinct
from streamflow.aggregates.extremes import First, Last, Max, Min
from streamflow.aggregates.quantiles import Quantiles
from streamflow.aggregates.sums import Count, Mean, Sum
from streamflow.durations import duration_text
from streamflow.postgres.tables import Column
from streamflow.postgres.windows.fields import field_sql
from streamflow.postgres.windows.tables import field_type, shown_aggregates, sources_of
from streamflow.postgres.windows.totals import MEAN_OF_DOUBLES, as_double
from streamflow.stream import Stream
from streamflow.windows.specs import SessionWindow

_TIME: Final = "timestamp with time zone"
_FLOAT: Final = "double precision"
# Columns of the events that sessions are computed of; a field has no name with a space in it.
EVENT_TIME: Final = sql.Identifier("event time")
_POSITION: Final = tuple(
    sql.Identifier(f"origin {part}") for part in ("partition", "offset", "topic")
)

_MEAN: Final = "{sum} / nullif({count}, 0)"
_AT_END: Final = """
(array_agg({value} ORDER BY {time} {order}, {partition} {order}, {offset} {order}, {topic} {order})
    FILTER (WHERE {value} IS NOT NULL))[1]
"""
# As `percentile_disc`, which takes shares as doubles: to it, 0.07 of 100 is more than seven.
_QUANTILE: Final = """
(array_agg({value} ORDER BY {value}) FILTER (WHERE {value} IS NOT NULL))
    [greatest(1, ceil({share} * count({value})))::int]
"""


class _Result(NamedTuple):
    """A column with a finished value."""

    column: Column
    value: sql.Composable  # over the events of a session


@dataclass(frozen=True, slots=True)
class SessionTable:
    """The table of one declaration of sessions.

    Attributes:
        by: the columns that say whose session it is, of events as of sessions.
        by_values: their values, of a row of an event with the alias ``event``.
        fields: the aggregated values, of such a row.
        results: the columns of the aggregates, and their values over `fields`.
    """

    stream: Stream
    name: str
    spec: SessionWindow
    by: tuple[Column, ...]
    by_values: tuple[sql.Composable, ...]
    fields: tuple[sql.Composable, ...]
    results: tuple[_Result, ...]

    @property
    def own_columns(self) -> tuple[Column, ...]:
        """Those that follow from the declaration: of keys and aggregates."""
        return (*self.by, *(result.column for result in self.results))

    @property
    def columns(self) -> tuple[Column, ...]:
        return (
            Column("session_start", _TIME, nullable=False),
            Column("session_end", _TIME, nullable=False),
            *self.own_columns,
            Column("counted", "bigint", nullable=False),
            Column("computed_at", _TIME, nullable=False),
        )

    @property
    def declaration(self) -> dict[str, Any]:
        """What decides what the sessions are; for JSON. The types of fields are those of the columns."""
        return {
            "windows": type(self.spec).__name__,
            "gap": duration_text(self.spec.gap),
            "by": list(self.spec.by_fields),
            "aggregates": shown_aggregates(self.spec)
            | {
                name: f'Quantiles("{each.field}", at={each.at})'
                for name, each in self.spec.aggregates.items()
                if isinstance(each, Quantiles)
            },
        }

    @property
    def sources(self) -> dict[str, str]:
        """The fields, by the columns that have their values as they are in the events."""
        return sources_of(self.spec)

    def columns_of(self, field: str | None = None) -> list[str]:
        """The columns with values of a field, or with texts of any."""
        types = {column.name: column.type for column in self.columns}
        return [
            name
            for name, path in self.sources.items()
            if (path == field if field else types[name] in ("text", "jsonb"))
        ]


def session_tables(
    stream: Stream, *, exact_numeric: LiteralString = "exact_numeric"
) -> tuple[SessionTable, ...]:
    """Raises KeyError for a field that the contract does not have. `exact_numeric` is the function that turns
    a double into the decimal fraction that it is."""
    return tuple(_session_table(stream, spec, exact_numeric) for spec in stream.sessions)


def _session_table(
    stream: Stream, spec: SessionWindow, exact_numeric: LiteralString
) -> SessionTable:
    fields: list[sql.Composable] = []
    results: list[_Result] = []
    for name, aggregate in spec.aggregates.items():
        kind, value = "", sql.Identifier(f"value {len(fields)}")
        if aggregate.field is not None:
            kind = field_type(stream, aggregate.field)
            field = field_sql(stream, aggregate.field, "event")
            is_summed = kind == _FLOAT and isinstance(aggregate, Sum | Mean)
            exact = sql.SQL(exact_numeric) + sql.SQL("({})").format(field)
            fields.append(exact if is_summed else field)
        columns = _RESULTS[type(aggregate)](aggregate, kind, value)
        for column, (of, result) in zip(aggregate.results(name), columns, strict=True):
            results.append(_Result(Column(column, of, nullable=True), result))
    return SessionTable(
        stream,
        spec.table_of(stream.table),
        spec,
        tuple(
            Column(name, field_type(stream, path), nullable=True)
            for name, path in zip(spec.by_columns, spec.by_fields, strict=True)
        ),
        tuple(field_sql(stream, path, "event") for path in spec.by_fields),
        tuple(fields),
        tuple(results),
    )


_Values = list[tuple[str, sql.Composable]]


def _count(aggregate: Aggregate, _kind: str, value: sql.Composable) -> _Values:
    what = sql.SQL("*") if aggregate.field is None else value
    return [("bigint", sql.SQL("count({})").format(what))]


def _sum(_aggregate: Aggregate, kind: str, value: sql.Composable) -> _Values:
    return [_number(kind, sql.SQL("sum({})").format(value))]


def _mean(_aggregate: Aggregate, kind: str, value: sql.Composable) -> _Values:
    parts = {
        "sum": sql.SQL("sum({})").format(value),
        "count": sql.SQL("count({})").format(value),
    }
    return [_number(kind, sql.SQL(MEAN_OF_DOUBLES if kind == _FLOAT else _MEAN).format(**parts))]


def _number(kind: str, number: sql.Composable) -> tuple[str, sql.Composable]:
    if kind == _FLOAT:
        return _FLOAT, as_double(number)
    return "numeric", sql.SQL("({})::numeric").format(number)


def _extreme(aggregate: Aggregate, kind: str, value: sql.Composable) -> _Values:
    function = sql.SQL("min" if isinstance(aggregate, Min) else "max")
    collation = sql.SQL(' COLLATE "C"' if kind == "text" else "")
    return [(kind, sql.SQL("{}({}{})").format(function, value, collation))]


def _at_end(aggregate: Aggregate, kind: str, value: sql.Composable) -> _Values:
    partition, offset, topic = _POSITION
    order = sql.SQL("ASC" if isinstance(aggregate, First) else "DESC")
    parts = {"partition": partition, "offset": offset, "topic": topic, "time": EVENT_TIME}
    return [(kind, sql.SQL(_AT_END).format(value=value, order=order, **parts))]


def _distinct(_aggregate: Aggregate, _kind: str, value: sql.Composable) -> _Values:
    return [("bigint", sql.SQL("count(DISTINCT {})").format(value))]


def _quantiles(aggregate: Aggregate, kind: str, value: sql.Composable) -> _Values:
    shares = aggregate.at if isinstance(aggregate, Quantiles) else ()
    return [
        (
            kind,
            sql.SQL(_QUANTILE).format(share=sql.SQL(f"{Decimal(str(share)):f}"), value=value),
        )
        for share in shares
    ]


_RESULTS: Final[
    Mapping[type[Aggregate], Callable[[Aggregate, str, sql.Composable], _Values]]
] = {
    Count: _count,
    Sum: _sum,
    Mean: _mean,
    Min: _extreme,
    Max: _extreme,
    First: _at_end,
    Last: _at_end,
    Distinct: _distinct,
    Quantiles: _quantiles,
}  # fmt: skip


def event_values(table: SessionTable) -> sql.Composed:
    """SELECT list of an event's values, as `SessionTable.results` needs them."""
    position = ("origin_partition", "origin_offset", "origin_topic")
    pairs = [
        *zip(table.by_values, (sql.Identifier(each.name) for each in table.by), strict=True),
        (sql.Identifier("event", table.stream.event_time), EVENT_TIME),
        *zip((sql.Identifier("event", name) for name in position), _POSITION, strict=True),
        *((value, sql.Identifier(f"value {index}")) for index, value in enumerate(table.fields)),
    ]
    return sql.SQL(", ").join(sql.SQL("{} AS {}").format(*pair) for pair in pairs)
