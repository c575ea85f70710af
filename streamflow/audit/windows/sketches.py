"""Comparing the sketches of windows with the values of the events.

A theta sketch keeps all hashes below its theta. So whatever was merged, it must hold exactly the hashes of
the events' values that lie below: of few values it is compared exactly, and of many as exactly as its own
theta lets. The answers of a KLL sketch that has thrown values away must be within three times the rank error
that it promises in 99 of 100 cases; one that holds all its values must hold those of the events.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from datasketches import kll_doubles_sketch, update_theta_sketch
from psycopg import sql

from streamflow.aggregates.base import Aggregate
from streamflow.aggregates.distinct import NO_THETA, SMALLEST_LG_K, Distinct, estimate
from streamflow.aggregates.quantiles import SMALLEST_K, Quantiles
from streamflow.aggregates.values import LARGEST_DOUBLE, distinct_text
from streamflow.audit.windows.cells import CellQueries, Named
from streamflow.audit.windows.reading import cells_of
from streamflow.audit.windows.reconciliation import CellFigures, CellJudge
from streamflow.audit.windows.words import group_of, shown
from streamflow.postgres.connections import Connection

_LG_K: Final = 16  # of the sketch of the events' values: its memory has a bound
_RANK_ERRORS: Final = 3
# As `finite_double` takes it.
_DOUBLE: Final = """
CASE WHEN abs({value}) > {largest} THEN sign({value})::double precision * {largest}::double precision
     ELSE ({value})::double precision END
"""
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
    check: type[_Distinct | _Quantiles]
    if isinstance(aggregate, Distinct):
        check, types = _Distinct, ("bigint", "bigint[]")
    elif isinstance(aggregate, Quantiles):
        check, types = _Quantiles, ("double precision[]", "bigint[]")
    else:
        return
    query = _query(queries, name, aggregate, condition, types)
    if query is None:
        return
    columns = [column.name for column in queries.table.by]
    width = len(columns) or 1
    for key, rows in cells_of(connection, "audited_sketches", query, parameters, width):
        start, blurred, *values = key
        cell = check(name, aggregate)  # type: ignore[arg-type]
        figures, too_late = _read(cell, (row[2 + width :] for row in rows))
        what = None if figures is None else cell.difference(figures.events, too_late)
        if figures is not None and what is not None:
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
    if isinstance(aggregate, Quantiles):
        largest = sql.Literal(repr(LARGEST_DOUBLE))
        value = sql.SQL(_DOUBLE).format(value=value, largest=sql.SQL("{}::numeric").format(largest))
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
    cell: "_Distinct | _Quantiles", rows: Iterator[tuple[Any, ...]]
) -> tuple[CellFigures | None, int]:
    """The figures of a cell, if all its events were counted and can be told; and how many were too late."""
    events = counted = too_late = unknown = 0
    offsets: tuple[int, int] | None = None
    for side, number, late, untold, first, last, *state, value in rows:
        if side:
            events += number
            unknown += untold
            low, high = offsets or (first, last)
            offsets = min(low, first), max(high, last)
            cell.add(value, number)
        else:
            counted += number
            too_late += late
            cell.merge(*state)
    if unknown or events != counted + too_late:
        return None, too_late
    first, last = offsets or (0, 0)
    figures = CellFigures(events, counted, 0, 0, None, (first, last), (0, 0), (first, last + 1))
    return figures, too_late


class _Distinct:
    """The different values of one cell."""

    def __init__(self, _name: str, _aggregate: Distinct) -> None:
        self._theta = NO_THETA
        self._hashes: set[int] = set()
        self._of_events = update_theta_sketch(_LG_K)

    def merge(self, theta: int, hashes: Sequence[int]) -> None:
        self._theta = min(self._theta, theta)
        self._hashes.update(hashes)

    def add(self, value: Any, _number: int) -> None:
        if value is not None:
            self._of_events.update(distinct_text(value))

    def difference(self, _events: int, too_late: int) -> str | None:
        found = {each for each in self._hashes if each < self._theta}
        theta = min(self._theta, self._of_events.theta64)
        given = {each for each in self._of_events if each < theta}
        extra = {each for each in found if each < theta} - given
        missing = () if too_late else given - found
        is_empty = self._theta < NO_THETA and len(found) < 2**SMALLEST_LG_K
        if not (extra or missing or is_empty):
            return None
        own = estimate(len(found), self._theta)
        theirs = estimate(self._of_events.num_retained, self._of_events.theta64)
        if own == theirs:
            return f"is {own:,}, of other values than the events give"
        return f"is {own:,}, the events give {theirs:,}"


class _Quantiles:
    """The numbers of one cell, in their order; parts come first."""

    def __init__(self, _name: str, aggregate: Quantiles) -> None:
        self._aggregate = aggregate
        self._pairs: list[tuple[float, int]] = []
        self._k = float(aggregate.k)
        self._answers: tuple[float | None, ...] | None = None
        self._below: list[int] = []
        self._up_to: list[int] = []
        self._number = 0
        self._equal = True

    def merge(self, values: Sequence[float], weights: Sequence[int]) -> None:
        self._pairs += zip(values, weights, strict=False)
        if max(weights, default=1) > 1:
            # One that was made with a smaller k has gone further.
            self._k = max(SMALLEST_K, min(self._k, sum(weights) / max(weights)))

    def add(self, value: float | None, number: int) -> None:
        if self._answers is None:
            self._prepare()
        if value is None:
            return
        if self._is_whole:
            wanted = self._values[self._number : self._number + number]
            self._equal = self._equal and wanted == [value] * number
        for place, answer in enumerate(self._answers or ()):
            if answer is None:
                continue
            if value < answer:
                self._below[place] += number
            if value <= answer:
                self._up_to[place] += number
        self._number += number

    def _prepare(self) -> None:
        self._pairs.sort()
        self._values = [value for value, _ in self._pairs]
        weights = [weight for _, weight in self._pairs]
        self._is_whole = max(weights, default=1) == 1
        self._weight = sum(weights)
        self._answers = self._aggregate.finish({"values": self._values, "weights": weights})
        self._below = [0] * len(self._answers)
        self._up_to = [0] * len(self._answers)

    def difference(self, _events: int, too_late: int) -> str | None:
        if self._answers is None:
            return None
        if too_late:
            is_possible = self._number - too_late <= self._weight <= self._number
            return None if is_possible else self._of_weight()
        if self._weight != self._number:
            return self._of_weight()
        if self._is_whole:
            return None if self._equal else "is of other numbers than the events give"
        allowed = _RANK_ERRORS * kll_doubles_sketch.get_normalized_rank_error(round(self._k), False)
        for place, share in enumerate(self._aggregate.at):
            low, high = self._below[place], self._up_to[place]
            wanted, slack = share * self._number, allowed * self._number + 1
            if low - slack > wanted or high + slack < wanted:
                return (
                    f"is {shown(self._answers[place])} for the share {share}, and of the {self._number:,} "
                    f"numbers that the events give {low:,} are below it"
                )
        return None

    def _of_weight(self) -> str:
        return f"is of {self._weight:,} numbers, the events give {self._number:,}"
