"""The tables of sessions: columns, and the SQL of what they hold. Pure.

Sessions have finished values, computed of the rows of their events.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

from psycopg import sql

from streamflow.aggregates.base import Aggregate
from streamflow.aggregates.distinct import Distinct
from streamflow.aggregates.extremes import First, Last, Max, Min
from streamflow.aggregates.quantiles import Quantiles
from streamflow.aggregates.sums import Count, Mean, Sum
from streamflow.postgres.field_sql import FieldSql, field_sql
from streamflow.postgres.tables import Column
from streamflow.stream import Stream
from streamflow.windows.durations import duration_text
from streamflow.windows.specs import SessionWindow

_TIME: Final = "timestamp with time zone"
_FLOAT: Final = "double precision"
# Columns of the events that sessions are computed of; a field has no name with a space in it.
EVENT_TIME: Final = sql.Identifier("event time")
_POSITION: Final = tuple(
    sql.Identifier(f"origin {part}") for part in ("partition", "offset", "topic")
)

# A double is a binary fraction, exactly: its mantissa, of 53 bits, times a power of two. (A cast to numeric
# rounds it to 15 digits.) For a negative exponent, 2^-n is 5^n * 10^-n.
_EXACT: Final = """
(SELECT sign({value})::numeric
        * (bits & 4503599627370495 | CASE exponent WHEN 0 THEN 0 ELSE 4503599627370496 END)
        * CASE WHEN shift < 0 THEN 5::numeric ^ -shift * ('1e' || shift)::numeric ELSE 2::numeric ^ shift END
   FROM (SELECT ('x' || encode(float8send({value}), 'hex'))::bit(64)::bigint AS bits) AS "raw",
        LATERAL (SELECT bits >> 52 & 2047 AS exponent) AS "upper",
        LATERAL (SELECT (greatest(exponent, 1) - 1075)::integer AS shift) AS "scale")
"""
# Rounded once. PostgreSQL raises an error for what no double can hold.
_AS_DOUBLE: Final = """
CASE WHEN abs({number}) >= 1.7976931348623158e308 THEN sign({number})::double precision * 'Infinity'
     WHEN abs({number}) <= 2.47e-324 THEN 0
     ELSE ({number})::double precision END
"""
# With digits enough for a double, however few the sum has.
_MEAN: Final = "sum({value}) / nullif(count({value}), 0)"
_MEAN_OF_DOUBLES: Final = (
    "sum({value}) * 1.00000000000000000000000000000000 / nullif(count({value}), 0)"
)
_AT_END: Final = """
(array_agg({value} ORDER BY {time} {order}, {partition} {order}, {offset} {order}, {topic} {order})
    FILTER (WHERE {value} IS NOT NULL))[1]
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
    def columns(self) -> tuple[Column, ...]:
        return (
            Column("session_start", _TIME, nullable=False),
            Column("session_end", _TIME, nullable=False),
            *self.by,
            *(result.column for result in self.results),
            Column("counted", "bigint", nullable=False),
            Column("computed_at", _TIME, nullable=False),
        )

    @property
    def declaration(self) -> dict[str, Any]:
        """What decides what the sessions are; for JSON. The types of fields are those of the columns."""
        return {
            "gap": duration_text(self.spec.gap),
            "by": list(self.spec.by_fields),
            "aggregates": {name: _shown(each) for name, each in self.spec.aggregates.items()},
        }

    @property
    def sources(self) -> dict[str, str]:
        """The fields, by the columns that have their values as they are in the events."""
        own = dict(zip(self.spec.by_columns, self.spec.by_fields, strict=True))
        return own | {
            name: str(each.field)
            for name, each in self.spec.aggregates.items()
            if isinstance(each, Min | Max | First | Last)
        }

    def columns_of(self, field: str | None = None) -> list[str]:
        """The columns with values of a field, or with texts of any."""
        types = {column.name: column.type for column in self.columns}
        return [
            name
            for name, path in self.sources.items()
            if (path == field if field else types[name] in ("text", "jsonb"))
        ]


def session_tables(stream: Stream) -> tuple[SessionTable, ...]:
    """Raises KeyError for a field that the contract does not have."""
    return tuple(_session_table(stream, spec) for spec in stream.sessions)


def _session_table(stream: Stream, spec: SessionWindow) -> SessionTable:
    by = [field_sql(stream, path) for path in spec.by_fields]
    fields: list[sql.Composable] = []
    results: list[_Result] = []
    for name, aggregate in spec.aggregates.items():
        kind, value = "", sql.Identifier(f"value {len(fields)}")
        if aggregate.field is not None:
            found = field_sql(stream, aggregate.field)
            kind = found.type
            fields.append(_exact(found) if isinstance(aggregate, Sum | Mean) else found.value)
        columns = _RESULTS[type(aggregate)](aggregate, kind, value)
        for column, (of, result) in zip(aggregate.results(name), columns, strict=True):
            results.append(_Result(Column(column, of, nullable=True), result))
    return SessionTable(
        stream,
        spec.table_of(stream.table),
        spec,
        tuple(
            Column(name, each.type, nullable=True)
            for name, each in zip(spec.by_columns, by, strict=True)
        ),
        tuple(each.value for each in by),
        tuple(fields),
        tuple(results),
    )


def _exact(field: FieldSql) -> sql.Composable:
    """What can be summed up exactly."""
    if field.type != _FLOAT:
        return field.value
    return sql.SQL(_EXACT).format(value=field.value)


_Values = list[tuple[str, sql.Composable]]


def _count(aggregate: Aggregate, _kind: str, value: sql.Composable) -> _Values:
    what = sql.SQL("*") if aggregate.field is None else value
    return [("bigint", sql.SQL("count({})").format(what))]


def _sum(_aggregate: Aggregate, kind: str, value: sql.Composable) -> _Values:
    return [_number(kind, sql.SQL("sum({})").format(value))]


def _mean(_aggregate: Aggregate, kind: str, value: sql.Composable) -> _Values:
    return [
        _number(kind, sql.SQL(_MEAN_OF_DOUBLES if kind == _FLOAT else _MEAN).format(value=value))
    ]


def _number(kind: str, number: sql.Composable) -> tuple[str, sql.Composable]:
    if kind == _FLOAT:
        return _FLOAT, sql.SQL(_AS_DOUBLE).format(number=number)
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
            sql.SQL("percentile_disc({}) WITHIN GROUP (ORDER BY {})").format(
                sql.SQL(f"{Decimal(str(share)):f}"), value
            ),
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


def _shown(aggregate: Aggregate) -> str:
    """An aggregate as it is declared. How exact it is elsewhere means nothing here, and the shares of
    quantiles are columns."""
    return f"{type(aggregate).__name__}({aggregate.field or ''})"
