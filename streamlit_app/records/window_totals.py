"""Aggregates of windows over time, by group, from the parts of the windows.

Parts are put together by the SQL of the view `_totals`, over windows, or over as many adjacent windows as a
point of the chart stands for, or over all groups that have no colour of their own. So what is shown is of the
events themselves, never an average of averages. Windows that overlap stay as they are: if there are too many,
some of them are left out.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, Final, LiteralString

from psycopg import sql

from streamflow.aggregates.distinct import Distinct
from streamflow.aggregates.quantiles import Quantiles
from streamflow.durations import MILLISECOND
from streamflow.postgres.connections import Connection
from streamflow.postgres.windows.tables import WindowTable
from streamflow.postgres.windows.totals import Named, merged_parts, sum_of
from streamflow.settings import Settings
from streamlit_app.measure.ring_buffers import points_for
from streamlit_app.records.reader import reader
from streamlit_app.records.window_choice import ChosenAggregate, step_of
from streamlit_app.records.window_counts import MOST_AHEAD
from streamlit_app.records.window_groups import Groups, most_frequent, most_groups
from streamlit_app.records.window_results import (
    Cell,
    WindowTotals,
    ceiling,
    floor,
    refusal_of,
)

# What a query may read, so that it takes a second or so: parts, each as often as there are windows that it is
# in.
MOST_PARTS: Final = 300_000
_SAMPLED: Final = 100  # parts


_NEWEST: Final = """
SELECT coalesce((SELECT window_start FROM {table} WHERE window_start <= now()
                  ORDER BY window_start DESC LIMIT 1),
                CASE WHEN ahead > 0 THEN date_bin(%(pane)s, now(), '1970-01-01 00:00:00+00') END),
       ahead
  FROM (SELECT count(*) AS ahead
          FROM (SELECT DISTINCT window_start FROM {table}
                 WHERE window_start > now() LIMIT %(most)s) AS later) AS counted
"""
_WITHIN: Final = "WHERE part.window_start >= %(since)s AND part.window_start < %(until)s"
_NUMBER: Final = """
SELECT count(*) FROM (SELECT FROM {table} AS part {within} LIMIT {most}) AS counted
"""
_JUST_TOO_MANY: Final = """
SELECT part.window_start FROM {table} AS part {within} ORDER BY part.window_start DESC LIMIT 1 OFFSET {most}
"""
_SKETCHED: Final = """
SELECT avg(cardinality(sketch))::float
  FROM (SELECT {sketch} FROM {table} AS part {within} ORDER BY part.window_start DESC LIMIT {sampled})
       AS sampled (sketch)
"""
_BIN: Final = "date_bin(%(step)s, part.window_start, '1970-01-01 00:00:00+00')"
# The windows that a pane is in, of those that are shown.
_SHOWN: Final = """
 CROSS JOIN LATERAL generate_series(date_bin(%(step)s, part.window_start, '1970-01-01 00:00:00+00'),
                                    part.window_start - %(size)s + %(pane)s, -%(step)s::interval)
         AS shown (window_start)"""
_SHOWN_WITHIN: Final = " AND shown.window_start >= %(since)s AND shown.window_start <= %(last)s"
_LATE: Final = "coalesce(sum(part.counted) FILTER (WHERE part.late), 0)::bigint"
_FIGURES: Final[list[Named]] = [
    ("events counted", sum_of("part", "counted")),
    ("events late", sql.SQL(_LATE)),
    ("events too late", sum_of("part", "too_late")),
]
_NOTHING: Final = sql.SQL("")
# Of a sketch: the column that shows its size, and how many of its entries a query may read.
_SKETCHES: Final[dict[type, tuple[str, int]]] = {
    Distinct: ("_hashes", 2_000_000),
    Quantiles: ("_values", 400_000),
}
_START, _GROUP = "start of the cell", "number of the group"  # no aggregate has a name with a space


def window_totals(
    settings: Settings,
    table: WindowTable,
    chosen: ChosenAggregate,
    span: timedelta,
    end: datetime | None,
) -> WindowTotals:
    """Of the last `span` before `end`, or before the end of the newest window that has begun.
    Raises as `reader` does."""
    with reader(settings) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        if refusal := refusal_of(connection, table):
            return WindowTotals(refusal=refusal)
        pane = table.spec.pane_ms * MILLISECOND
        [(newest, ahead)] = connection.execute(
            sql.SQL(_NEWEST).format(table=sql.Identifier(table.name)),
            {"pane": pane, "most": MOST_AHEAD},
        ).fetchall()
        if newest is None:
            return WindowTotals()
        shown = _Query(connection, table, chosen).run(span, end or newest + pane)
        return shown._replace(ahead=ahead)


class _Query:
    """What a page asks of one table."""

    def __init__(self, connection: Connection, table: WindowTable, chosen: ChosenAggregate) -> None:
        self._connection, self._table, self._chosen = connection, table, chosen
        self._pane = table.spec.pane_ms * MILLISECOND
        self._size = table.spec.size

    def run(self, span: timedelta, end: datetime) -> WindowTotals:
        overlap = self._size - self._pane
        most_shown = most_groups(self._table.by, self._chosen)
        points = points_for(most_shown * max(1, len(self._chosen.labels)))
        step = step_of(self._pane, span / points)
        until = floor(end, self._pane) if overlap else end
        # Windows that overlap are shown at their ends.
        since = floor(until - span, self._pane if overlap else step) - overlap
        values: dict[str, Any] = {"since": since, "until": until}
        parts, most = self._parts(values)
        if is_cut := parts > most:
            first = self._first_of(values, most)
            step = step_of(self._pane, (until - first) / points)
            values["since"] = first if overlap else ceiling(first, step)
        if overlap:
            step = step_of(step, self._size * min(parts, most) / most)
            values |= {"pane": self._pane, "size": self._size, "last": until - self._size}
        groups = most_frequent(
            self._connection, self._table.name, self._table.by, "window_start", values, most_shown
        )
        totals = self._rows(groups, [], values)
        return WindowTotals(
            cells=tuple(self._cells(groups, values | {"step": step})),
            totals=tuple(
                groups.total(number, results, counted, late)
                for number, *results, counted, late, _ in sorted(totals, key=itemgetter(0))
            ),
            step=step,
            since=values["since"],
            end=until,
            is_cut=is_cut,
            too_late=sum(row[-1] for row in totals),
        )

    def _parts(self, values: dict[str, Any]) -> tuple[int, int]:
        """How many parts there are in a span, and how many may be read; counting ends just past that."""
        most = MOST_PARTS
        if sketch := _SKETCHES.get(type(self._chosen.aggregate)):
            suffix, entries = sketch
            column = sql.Identifier(self._chosen.name + suffix)
            [(sketched,)] = self._ask(_SKETCHED, values, sketch=column, sampled=_SAMPLED)
            most = min(most, int(entries / max(1.0, sketched or 0.0)))
        [(parts,)] = self._ask(_NUMBER, values, most=most + 1)
        return parts, most

    def _first_of(self, values: dict[str, Any], most: int) -> datetime:
        """The time from which on there are at most so many parts."""
        [(start,)] = self._ask(_JUST_TOO_MANY, values, most=most)
        moment: datetime = start
        return moment + self._pane

    def _ask(self, query: LiteralString, values: dict[str, Any], **parts: Any) -> list[Any]:
        made = {
            name: part if isinstance(part, sql.Composable) else sql.Literal(part)
            for name, part in parts.items()
        }
        table = sql.Identifier(self._table.name)
        statement = sql.SQL(query).format(table=table, within=sql.SQL(_WITHIN), **made)
        return self._connection.execute(statement, values).fetchall()

    def _cells(self, groups: Groups, values: dict[str, Any]) -> Iterator[Cell]:
        """By time, then group."""
        if "size" in values:
            start: sql.Composable = sql.Identifier("shown", "window_start")
            joined, where, length = sql.SQL(_SHOWN), sql.SQL(_WITHIN + _SHOWN_WITHIN), self._size
        else:
            start, joined, where = sql.SQL(_BIN), sql.SQL(""), sql.SQL(_WITHIN)
            length = values["step"]
        rows = self._rows(groups, [(_START, start)], values, joined, where)
        for begin, number, *results, counted, late, _ in sorted(rows, key=itemgetter(0, 1)):
            yield Cell(begin, begin + length, groups.labels[number], tuple(results), counted, late)

    def _rows(
        self,
        groups: Groups,
        times: Sequence[Named],
        values: dict[str, Any],
        joined: sql.Composable = _NOTHING,
        where: sql.Composable = sql.SQL(_WITHIN),  # noqa: B008 (it never changes)
    ) -> list[Any]:
        """The times, the number of the group, the aggregate's values, and the figures."""
        aggregate = self._chosen.aggregate
        query = merged_parts(
            self._table,
            [*times, (_GROUP, groups.number("part"))],
            aggregates=[] if aggregate is None else [self._chosen.name],
            figures=_FIGURES if aggregate else [("value", sum_of("part", "counted")), *_FIGURES],
            joined=joined,
            where=where,
        )
        return self._connection.execute(query, values).fetchall()
