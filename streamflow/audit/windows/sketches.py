"""Comparing the sketches of windows with the values of the events.

A theta sketch keeps all hashes below its theta. So whatever was merged, it must hold exactly the hashes of
the events' values that lie below: of few values it is compared exactly, and of many as exactly as its own
theta lets. The ranks of a KLL sketch that has thrown values away must be within three times the rank error
that it promises in 99 of 100 cases; one that holds all its values must hold those of the events.

Whatever a sketch has thrown away, what it keeps must be of the events: each value, each hash, and its theta,
which is the hash that came next. And it must be one that such a sketch can be.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from psycopg import sql

from streamflow.aggregates.base import Aggregate
from streamflow.aggregates.distinct import Distinct
from streamflow.aggregates.quantiles import Quantiles
from streamflow.aggregates.values import LARGEST_DOUBLE
from streamflow.audit.windows.cells import CellQueries, Named
from streamflow.audit.windows.reading import cells_of
from streamflow.audit.windows.reconciliation import CellFigures, CellJudge
from streamflow.audit.windows.sketch_checks import DistinctCheck, QuantilesCheck
from streamflow.audit.windows.words import group_of
from streamflow.postgres.connections import Connection

# As `finite_double` takes a Decimal or a long whole number: PostgreSQL refuses one that is no double, and one
# that is nearest to zero. Half of the smallest double is a decimal fraction of 1,075 places.
_DOUBLE: Final = """
CASE WHEN abs({value}) > {largest} THEN sign({value})::double precision * {largest}::double precision
     WHEN abs({value}) <= 5::numeric ^ 1075 * 1e-1075 THEN 0
     ELSE ({value})::double precision END
"""
_NUMERIC: Final = "numeric"
_WHERE: Final = "CASE WHEN {condition} THEN {value} END"


def compare_sketches(
    connection: Connection,
    queries: CellQueries,
    name: str,
    aggregate: Aggregate,
    condition: int | None,
    parameters: Mapping[str, Any],
    judge: CellJudge,
) -> None:
    """Compares an aggregate in all cells whose events were all counted; nothing of one that SQL computes."""
    check: type[DistinctCheck | QuantilesCheck]
    if isinstance(aggregate, Distinct):
        check, types = DistinctCheck, ("bigint", "bigint[]")
    elif isinstance(aggregate, Quantiles):
        check, types = QuantilesCheck, ("double precision[]", "bigint[]")
    else:
        return
    query = _query(queries, name, aggregate, condition, types)
    if query is None:
        return
    columns = [column.name for column in queries.table.by]
    width = len(columns) or 1
    for key, rows in cells_of(connection, "audited_sketches", query, parameters, width):
        start, blurred, *values = key
        cell = check()
        figures, too_late, is_complete = _read(cell, (row[2 + width :] for row in rows))
        what = cell.fault or (cell.difference(too_late) if is_complete else None)
        if what is not None:
            group = group_of(columns, values, blurred=blurred)
            judge.note(start, group, figures, f"{name} {what}", figures.events)


def _query(
    queries: CellQueries,
    name: str,
    aggregate: Aggregate,
    condition: int | None,
    types: tuple[str, str],
) -> sql.Composed | None:
    """None if no row tells the values."""
    value = queries.value(aggregate.field or "", whole=aggregate.takes_whole)
    if value is None:
        return None
    if isinstance(aggregate, Quantiles) and queries.table.types[name] == _NUMERIC:
        largest = sql.Literal(repr(LARGEST_DOUBLE))
        value = sql.SQL(_DOUBLE).format(value=value, largest=sql.SQL("{}::numeric").format(largest))
    elif isinstance(aggregate, Quantiles):
        value = sql.SQL("({})::double precision").format(value)
    unknown: sql.Composable = sql.SQL("0::bigint")
    if condition is not None:
        judged = queries.condition(condition)
        value = sql.SQL(_WHERE).format(condition=judged, value=value)
        unknown = sql.SQL("count(*) FILTER (WHERE {} IS NULL)").format(judged)
    states = [sql.SQL("NULL::{}").format(sql.SQL(kind)) for kind in types]
    of_events: list[Named] = [
        ("total", sql.SQL("count(*)")),
        ("too late", sql.SQL("0::bigint")),
        ("unknown", unknown),
        ("first", sql.SQL("min(position)")),
        ("last", sql.SQL("max(position)")),
        *zip(("state", "more"), states, strict=True),
        ("value", value),
    ]
    parts = [sql.Identifier("part", name + suffix) for suffix in aggregate.suffixes]
    figures = sql.SQL("counted, too_late, 0, first_offset, last_offset")
    return queries.cells(
        of_events,
        [figures, *parts, sql.SQL("NULL")],
        each_value=value,
        in_order=isinstance(aggregate, Quantiles),
    )


def _read(
    cell: DistinctCheck | QuantilesCheck, rows: Iterator[tuple[Any, ...]]
) -> tuple[CellFigures, int, bool]:
    """The figures of a cell, how many events were too late, and whether all were counted and can be told."""
    events = counted = too_late = unknown = 0
    offsets: tuple[int, int] | None = None
    for side, number, late, untold, first, last, *state, value in rows:
        low, high = offsets or (first, last)
        offsets = min(low, first), max(high, last)
        if side:
            events += number
            unknown += untold
            cell.add(value, number)
        else:
            counted += number
            too_late += late
            cell.merge(*state)
    is_complete = not unknown and events == counted + too_late
    first, last = offsets or (0, 0)
    figures = CellFigures(events, counted, 0, 0, None, (first, last), (0, 0), (first, last + 1))
    return figures, too_late, is_complete
