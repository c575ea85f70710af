"""Totals of windows in SQL: the parts of a window, whatever there are, put together to one row a group.

Every state merges in any order: see `streamflow.aggregates`. Of a theta sketch all hashes below the smallest
theta are kept, of a KLL sketch all items with their weights, so that a merge loses nothing.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from psycopg import sql

from streamflow.aggregates.base import Aggregate
from streamflow.aggregates.distinct import Distinct
from streamflow.aggregates.extremes import First, Last, Max, Min
from streamflow.aggregates.quantiles import Quantiles
from streamflow.aggregates.sums import Count, Mean, Sum
from streamflow.durations import MILLISECOND
from streamflow.postgres.windows.tables import WindowTable, panes_of, total_columns

Named = tuple[str, sql.Composable]  # a column, and its expression

_FLOAT: Final = "double precision"

_TOTALS: Final = """
SELECT {results}
  FROM (SELECT {bounds}, {merged}
          FROM {table} AS part{panes}
         {where}
         GROUP BY {groups}) AS merged{sketches}
"""
# The windows that a pane is in; the calendar begins in the year 1.
_PANES: Final = """
         CROSS JOIN generate_series(0, {last}) AS later (panes)"""
_WINDOW_START: Final = """
greatest(part.window_start - later.panes * {every}, '0001-01-01T00:00:00Z')
"""
_WINDOW_END: Final = """
least(part.window_start - later.panes * {every} + {size}, '9999-12-31T23:59:59.999Z')
"""
_WITHIN: Final = "WHERE part.window_start >= %(since)s AND part.window_start < %(until)s"

# PostgreSQL raises an error for what is no double: up to half of the smallest one, 2^-1075, and from half a
# digit beyond the largest one. Totals do not come closer to these limits.
_AS_DOUBLE: Final = """
CASE WHEN abs({number}) <= 2.4703282292062328e-324 THEN 0
     WHEN abs({number}) < 1.7976931348623158079e308 THEN ({number})::double precision
     ELSE sign({number})::double precision * 'Infinity' END
"""
# Digits enough for a double, however few the sum has.
MEAN_OF_DOUBLES: Final = "{sum} * 1.00000000000000000000000000000000 / nullif({count}, 0)"
# Hashes have 63 bits, and theta is the bound below which all are kept; the smallest counts. Rounded once.
_DISTINCT: Final = """
(SELECT div(count(DISTINCT hash) * 18446744073709551614.0 + {theta}, 2.0 * {theta})::bigint
   FROM unnest({parts}) AS sketch (hashes bigint[]), unnest(sketch.hashes) AS hash WHERE hash < {theta})
"""
# The first item up to which, in order, there is so much of the weight.
_QUANTILES: Final = """
 CROSS JOIN LATERAL (
    SELECT {quantiles}
      FROM (SELECT value, sum(weight) OVER (ORDER BY value ROWS UNBOUNDED PRECEDING) AS up_to
              FROM unnest({parts}) AS sketch ("values" double precision[], weights bigint[]),
                   unnest(sketch."values", sketch.weights::double precision[]) AS item (value, weight)
           ) AS items,
           (SELECT coalesce(sum(weight), 0) AS total
              FROM unnest({parts}) AS sketch ("values" double precision[], weights bigint[]),
                   unnest(sketch.weights) AS weight) AS whole
 ) AS {name}"""
_QUANTILE: Final = """
min(value) FILTER (WHERE up_to >= ceil({share} * total)::double precision) AS {column}
"""


class _Total(NamedTuple):
    """How an aggregate is put together."""

    merged: list[Named]  # name and expression over the parts of a group
    results: list[Named]  # name and expression over what is merged
    sketch: sql.Composable = sql.SQL("")  # joined to it


def totals_query(table: WindowTable, *, within: bool = False) -> sql.Composed:
    """The totals of all windows. With `within` only the parts from ``%(since)s`` to ``%(until)s`` are read: a
    window that overlaps others is made of parts of its whole length."""
    start, end, panes = _bounds(table)
    groups = [(column.name, _of("part", column.name)) for column in table.by]
    return merged_parts(
        table,
        [("window_start", start), ("window_end", end), *groups],
        aggregates=tuple(table.spec.aggregates),
        figures=[(name, sum_of("part", name)) for name in ("counted", "too_late")],
        joined=panes,
        where=sql.SQL(_WITHIN if within else ""),
    )


def merged_parts(
    table: WindowTable,
    groups: Sequence[Named],
    *,
    aggregates: Sequence[str],
    figures: Sequence[Named],
    joined: sql.Composable,
    where: sql.Composable,
) -> sql.Composed:
    """A row for each of the groups: these, the finished values of some aggregates, and figures.

    Args:
        groups: what parts are put together by, as names and expressions over ``part``; the names differ from
            those of aggregates.
        figures: other aggregates, likewise.
        joined: to the parts, if anything.
        where: which parts; with the word WHERE.
    """
    totals = [_total(table, name, table.spec.aggregates[name]) for name in aggregates]
    merged = [pair for total in totals for pair in total.merged]
    results = [pair for total in totals for pair in total.results]
    return sql.SQL(_TOTALS).format(
        results=_listed(
            [
                *((name, _of("merged", name)) for name, _ in groups),
                *results,
                *((name, _of("merged", name)) for name, _ in figures),
            ]
        ),
        bounds=_listed(groups),
        merged=_listed([*merged, *figures]),
        table=sql.Identifier(table.name),
        panes=joined,
        where=where,
        groups=sql.SQL(", ").join(sql.SQL(str(number + 1)) for number in range(len(groups))),
        sketches=sql.SQL("").join(total.sketch for total in totals),
    )


def result_columns(table: WindowTable) -> tuple[str, ...]:
    """The names of the view's columns."""
    return tuple(column.name for column in total_columns(table))


def _bounds(table: WindowTable) -> tuple[sql.Composable, sql.Composable, sql.Composable]:
    """The window's start and end, and what makes the windows of a pane."""
    panes = panes_of(table.spec)
    if panes == 1:
        return _of("part", "window_start"), _of("part", "window_end"), sql.SQL("")
    spans = {
        "every": _interval(table.spec.pane_ms),
        "size": _interval(table.spec.size // MILLISECOND),
    }
    return (
        sql.SQL(_WINDOW_START).format(**spans),
        sql.SQL(_WINDOW_END).format(**spans),
        sql.SQL(_PANES).format(last=sql.Literal(panes - 1)),
    )


def _interval(milliseconds: int) -> sql.Composed:
    return sql.SQL("({} * interval '1 ms')").format(sql.Literal(milliseconds))


def _total(table: WindowTable, name: str, aggregate: Aggregate) -> _Total:
    kind = table.types.get(name, "")
    match aggregate:
        case Count():
            return _plain(name, sum_of("part", name))
        case Sum():
            total = sql.SQL("sum({})").format(_of("part", name))
            return _plain(name, as_double(total) if kind == _FLOAT else total)
        case Mean():
            return _mean(name, kind)
        case Min() | Max():
            return _plain(
                name, _extreme(name, kind, "min" if isinstance(aggregate, Min) else "max")
            )
        case First() | Last():
            return _plain(name, _at_end(name, "ASC" if isinstance(aggregate, First) else "DESC"))
        case Distinct():
            return _distinct(name)
        case Quantiles():
            return _quantiles(name, aggregate)
    raise TypeError(f"no SQL puts parts of {type(aggregate).__name__} together")


def _plain(name: str, expression: sql.Composable) -> _Total:
    return _Total([(name, expression)], [(name, _of("merged", name))])


def _mean(name: str, kind: str) -> _Total:
    total = sql.SQL("sum({})").format(_of("part", f"{name}_sum"))
    count = sql.SQL("sum({})").format(_of("part", f"{name}_count"))
    if kind == _FLOAT:
        return _plain(name, as_double(sql.SQL(MEAN_OF_DOUBLES).format(sum=total, count=count)))
    return _plain(name, sql.SQL("{} / nullif({}, 0)").format(total, count))


def _extreme(name: str, kind: str, function: str) -> sql.Composed:
    column: sql.Composable = _of("part", name)
    if kind == "text":
        column = sql.SQL('{} COLLATE "C"').format(column)
    return sql.SQL("{}({})").format(sql.SQL(function), column)


def _at_end(name: str, order: str) -> sql.Composed:
    """The value of the earliest or the latest event."""
    return sql.SQL(
        "(array_agg({value} ORDER BY {time} {order}, part.partition {order}, {offset} {order})"
        " FILTER (WHERE {time} IS NOT NULL))[1]"
    ).format(
        value=_of("part", name),
        time=_of("part", f"{name}_time"),
        offset=_of("part", f"{name}_offset"),
        order=sql.SQL(order),
    )


def _distinct(name: str) -> _Total:
    theta, hashes = f"{name}_theta", f"{name}_hashes"
    merged: list[Named] = [
        (theta, sql.SQL("min({})").format(_of("part", theta))),
        (hashes, sql.SQL("array_agg(ROW({}))").format(_of("part", hashes))),
    ]
    estimate = sql.SQL(_DISTINCT).format(theta=_of("merged", theta), parts=_of("merged", hashes))
    return _Total(merged, [(name, estimate)])


def _quantiles(name: str, aggregate: Quantiles) -> _Total:
    values, weights = _of("part", f"{name}_values"), _of("part", f"{name}_weights")
    columns = aggregate.results(name)
    joined = sql.SQL(_QUANTILES).format(
        quantiles=sql.SQL(", ").join(
            sql.SQL(_QUANTILE).format(
                share=sql.SQL(f"{Decimal(str(share)):f}"), column=sql.Identifier(column)
            )
            for share, column in zip(aggregate.at, columns, strict=True)
        ),
        parts=_of("merged", f"{name} parts"),
        name=sql.Identifier(f"{name} of sketches"),
    )
    merged = [(f"{name} parts", sql.SQL("array_agg(ROW({}, {}))").format(values, weights))]
    results = [(column, _of(f"{name} of sketches", column)) for column in columns]
    return _Total(list(merged), list(results), joined)


def sum_of(alias: str, name: str) -> sql.Composed:
    """The total of a whole number."""
    return sql.SQL("sum({})::bigint").format(_of(alias, name))


def as_double(number: sql.Composable) -> sql.Composed:
    return sql.SQL(_AS_DOUBLE).format(number=number)


def _of(alias: str, name: str) -> sql.Identifier:
    return sql.Identifier(alias, name)


def _listed(pairs: Sequence[Named]) -> sql.Composed:
    return sql.SQL(", ").join(_named(pairs))


def _named(pairs: Sequence[Named]) -> Iterator[sql.Composed]:
    for name, expression in pairs:
        yield sql.SQL("{} AS {}").format(expression, sql.Identifier(name))
