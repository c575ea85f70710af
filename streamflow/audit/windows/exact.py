"""Aggregates that SQL computes exactly, of events and of parts, and how the two compare. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from psycopg import sql

from streamflow.aggregates.base import Aggregate
from streamflow.aggregates.extremes import First, Last, Max, Min
from streamflow.aggregates.sums import Count, Mean, Sum
from streamflow.audit.windows.cells import CellQueries

# The exact value of a double: numeric has fifteen digits of it. A double is a whole number, of which it holds
# 53 bits, by a power of two; of a negative power it is a decimal fraction with as many digits.
_EXACT: Final = """
(SELECT CASE WHEN bits < 0 THEN -1 ELSE 1 END
        * ((bits & 4503599627370495) + CASE WHEN (bits >> 52) & 2047 > 0 THEN 4503599627370496 ELSE 0 END)
        * CASE WHEN power >= 0 THEN 2::numeric ^ power
               ELSE 5::numeric ^ (-power) * ('1e' || power)::numeric END
   FROM (SELECT ('x' || encode(float8send({value}), 'hex'))::bit(64)::bigint AS bits) AS double,
        LATERAL (SELECT greatest((bits >> 52) & 2047, 1)::int - 1075 AS power) AS exponent)
"""
# In the order of time and position, then the value: texts of one length.
_ENTRY: Final = """
ARRAY[to_char(event_time, 'YYYY-MM-DD HH24:MI:SS.US'), lpad(position::text, 19, '0'), ({value})::text]
      COLLATE "C"
"""
_FLOAT: Final = "double precision"

Compare = Callable[[Sequence[Any], Sequence[Any], int], bool]


class _Pair(NamedTuple):
    """A column of an aggregate: what of events must equal what of parts."""

    of_events: sql.Composable
    of_parts: sql.Composable


@dataclass(frozen=True, slots=True)
class ExactAggregate:
    """One aggregate of a declaration.

    Attributes:
        columns: their names.
        place: of its first column among all.
        condition: the number of its `where`; None if it has none.
        within: whether the parts are possible if so many of the events were too late.
    """

    columns: tuple[str, ...]
    pairs: tuple[_Pair, ...]
    place: int
    condition: int | None
    within: Compare

    def values(self, row: Sequence[Any]) -> Sequence[Any]:
        return row[self.place : self.place + len(self.columns)]


def exact_aggregate(
    queries: CellQueries, name: str, aggregate: Aggregate, place: int, condition: int | None
) -> ExactAggregate | None:
    """None of an aggregate that sketches, or of a field that rows do not tell."""
    build = _PAIRS.get(type(aggregate))
    if build is None:
        return None
    value: sql.Composable | None = sql.SQL("1")
    if aggregate.field is not None:
        counted = isinstance(aggregate, Count)
        value = queries.value(aggregate.field, whole=aggregate.takes_whole, counted=counted)
    if value is None:
        return None
    where = sql.SQL("emitted")
    judged = where if condition is None else where + sql.SQL(" AND ") + queries.condition(condition)
    columns = tuple(name + suffix for suffix in aggregate.suffixes)
    parts = [sql.Identifier("part", column) for column in columns]
    pairs = build(aggregate, queries.table.types.get(name, ""), value, judged, parts)
    within = _WITHIN.get(type(aggregate), _anything)
    if isinstance(aggregate, Count) and aggregate.field is None and aggregate.where is None:
        within = _all_but_late
    return ExactAggregate(columns, tuple(pairs), place, condition, within)


def _count(value: sql.Composable, judged: sql.Composable, part: sql.Composable) -> _Pair:
    return _Pair(
        sql.SQL("count({}) FILTER (WHERE {})").format(value, judged),
        sql.SQL("sum({})::bigint").format(part),
    )


def _sum(kind: str, value: sql.Composable, judged: sql.Composable, part: sql.Composable) -> _Pair:
    exact = sql.SQL(_EXACT).format(value=value) if kind == _FLOAT else value
    return _Pair(
        sql.SQL("sum(({})::numeric) FILTER (WHERE {})").format(exact, judged),
        sql.SQL("sum({})").format(part),
    )


def _extreme(
    aggregate: Aggregate,
    kind: str,
    value: sql.Composable,
    judged: sql.Composable,
    part: sql.Composable,
) -> _Pair:
    names: dict[str, Any] = {
        "pick": sql.SQL("min" if isinstance(aggregate, Min) else "max"),
        "kind": sql.SQL(kind),
        "collated": sql.SQL(' COLLATE "C"' if kind == "text" else ""),
    }
    return _Pair(
        sql.SQL("{pick}(({value})::{kind}{collated}) FILTER (WHERE {judged})").format(
            value=value, judged=judged, **names
        ),
        sql.SQL("{pick}({part}{collated})").format(part=part, **names),
    )


def _end(
    aggregate: Aggregate,
    kind: str,
    value: sql.Composable,
    judged: sql.Composable,
    parts: Sequence[sql.Composable],
) -> list[_Pair]:
    is_first = isinstance(aggregate, First)
    entry = sql.SQL("({}({}) FILTER (WHERE {} AND ({}) IS NOT NULL))").format(
        sql.SQL("min" if is_first else "max"), sql.SQL(_ENTRY).format(value=value), judged, value
    )
    of_events = [
        sql.SQL("({})[3]::{}").format(entry, sql.SQL(kind)),
        sql.SQL("({})[1]::timestamptz").format(entry),
        sql.SQL("({})[2]::bigint").format(entry),
    ]
    order = sql.SQL("ASC" if is_first else "DESC")
    return [
        _Pair(
            of_event,
            sql.SQL(
                "(array_agg({} ORDER BY {time} {order}, {offset} {order})"
                " FILTER (WHERE {time} IS NOT NULL))[1]"
            ).format(part, time=parts[1], offset=parts[2], order=order),
        )
        for of_event, part in zip(of_events, parts, strict=True)
    ]


_Build = Callable[
    [Aggregate, str, sql.Composable, sql.Composable, Sequence[sql.Composable]], Sequence[_Pair]
]
_PAIRS: Final[dict[type[Aggregate], _Build]] = {
    Count: lambda _, __, value, judged, parts: [_count(value, judged, parts[0])],
    Sum: lambda _, kind, value, judged, parts: [_sum(kind, value, judged, parts[0])],
    Mean: lambda _, kind, value, judged, parts: [
        _sum(kind, value, judged, parts[0]),
        _count(value, judged, parts[1]),
    ],
    Min: lambda each, kind, value, judged, parts: [_extreme(each, kind, value, judged, parts[0])],
    Max: lambda each, kind, value, judged, parts: [_extreme(each, kind, value, judged, parts[0])],
    First: _end,
    Last: _end,
}


def _anything(_events: Sequence[Any], _parts: Sequence[Any], _too_late: int) -> bool:
    return True


def _all_but_late(events: Sequence[Any], parts: Sequence[Any], too_late: int) -> bool:
    return bool(parts[0] == events[0] - too_late)


def _few_less(events: Sequence[Any], parts: Sequence[Any], too_late: int) -> bool:
    """Of a count, the last of the columns."""
    return bool(events[-1] - too_late <= parts[-1] <= events[-1])


def _not_less(events: Sequence[Any], parts: Sequence[Any], _too_late: int) -> bool:
    return parts[0] is None or (events[0] is not None and parts[0] >= events[0])


def _not_more(events: Sequence[Any], parts: Sequence[Any], _too_late: int) -> bool:
    return parts[0] is None or (events[0] is not None and parts[0] <= events[0])


def _not_before(events: Sequence[Any], parts: Sequence[Any], _too_late: int) -> bool:
    return parts[1] is None or (events[1] is not None and [*parts[1:]] >= [*events[1:]])


def _not_after(events: Sequence[Any], parts: Sequence[Any], _too_late: int) -> bool:
    return parts[1] is None or (events[1] is not None and [*parts[1:]] <= [*events[1:]])


_WITHIN: Final[dict[type[Aggregate], Compare]] = {
    Count: _few_less,
    Mean: _few_less,
    Min: _not_less,
    Max: _not_more,
    First: _not_before,
    Last: _not_after,
}
