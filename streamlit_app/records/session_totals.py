"""Aggregates of sessions over time, by group.

Sessions have finished values. Sums and counts of several add up, and so do the smallest and largest values;
all others are shown of each session.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, Final, LiteralString

from psycopg import sql

from streamflow.aggregates.extremes import Max, Min
from streamflow.postgres.connections import Connection
from streamflow.postgres.sessions.tables import SessionTable
from streamflow.settings import Settings
from streamlit_app.measure.ring_buffers import MAX_CHART_POINTS, points_for
from streamlit_app.records.reader import reader
from streamlit_app.records.window_choice import ChosenAggregate, step_of
from streamlit_app.records.window_counts import MOST_AHEAD
from streamlit_app.records.window_groups import Groups, label_of, most_frequent, most_groups
from streamlit_app.records.window_results import (
    Cell,
    GroupTotal,
    WindowTotals,
    ceiling,
    floor,
    refusal_of,
)
from streamlit_app.records.window_totals import MOST_PARTS

_LISTED: Final = 12  # sessions in the table of the newest
_SECOND: Final = timedelta(seconds=1)

_NEWEST: Final = """
SELECT coalesce(newest.session_start, CASE WHEN ahead > 0 THEN now() END), newest.computed_at, ahead
  FROM (SELECT count(*) AS ahead
          FROM (SELECT FROM {table} WHERE session_start > now() LIMIT %(most)s) AS later) AS counted
  LEFT JOIN LATERAL (SELECT session_start, computed_at FROM {table} WHERE session_start <= now()
                      ORDER BY session_start DESC LIMIT 1) AS newest ON true
"""
_WITHIN: Final = "session.session_start >= %(since)s AND session.session_start < %(until)s"
_JUST_TOO_MANY: Final = """
SELECT session_start FROM {table} AS session WHERE {within}
 ORDER BY session_start DESC LIMIT 1 OFFSET {most}
"""
_BINS: Final = """
SELECT date_bin(%(step)s, session_start, '1970-01-01 00:00:00+00'), {number}, {results},
       sum(counted)::bigint
  FROM {table} AS session WHERE {within} GROUP BY 1, 2
"""
_TOTALS: Final = """
SELECT {number}, {results}, sum(counted)::bigint, count(*)
  FROM {table} AS session WHERE {within} GROUP BY 1
"""
_SESSIONS: Final = """
SELECT session_start, session_end, counted, {results}, {by}
  FROM {table} AS session WHERE {within} ORDER BY session_start DESC LIMIT {most}
"""


def session_totals(
    settings: Settings,
    table: SessionTable,
    chosen: ChosenAggregate,
    span: timedelta,
    end: datetime | None,
) -> WindowTotals:
    """Of the sessions that began in the last `span` before `end`, or up to the newest one that has begun.
    Cells are sessions, where their values do not add up. Raises as `window_totals`."""
    with reader(settings) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        if refusal := refusal_of(connection, table):
            return WindowTotals(refusal=refusal)
        query = _Query(connection, table, chosen)
        [(newest, computed_at, ahead)] = query.ask(_NEWEST, {"most": MOST_AHEAD})
        if newest is None:
            return WindowTotals()
        return query.run(span, end, newest)._replace(ahead=ahead, computed_at=computed_at)


class _Query:
    """What a page asks of one table."""

    def __init__(
        self, connection: Connection, table: SessionTable, chosen: ChosenAggregate
    ) -> None:
        self._connection, self._table, self._chosen = connection, table, chosen
        self._lines = max(1, len(chosen.labels))

    def run(self, span: timedelta, end: datetime | None, newest: datetime) -> WindowTotals:
        most_shown = most_groups(self._table.by, self._chosen)
        step = step_of(_SECOND, span / points_for(most_shown * self._lines))
        until = end or floor(newest, step) + step
        values: dict[str, Any] = {"since": floor(until - span, step), "until": until}
        if too_many := self.ask(_JUST_TOO_MANY, values, most=MOST_PARTS):
            [(first,)] = too_many
            values["since"] = ceiling(first + timedelta.resolution, step)
        groups = most_frequent(
            self._connection, self._table.name, self._table.by, "session_start", values, most_shown
        )
        values["step"] = step
        if self._chosen.adds_up:
            sessions = self._sessions(values, _LISTED)
            cells = tuple(self._bins(groups, values, step))
        else:
            sessions = self._sessions(values, MAX_CHART_POINTS // self._lines)
            cells = sessions[::-1]
        return WindowTotals(
            cells=cells,
            totals=tuple(self._totals(groups, values)),
            step=step,
            since=values["since"],
            end=until,
            is_cut=bool(too_many),
            sessions=sessions,
        )

    def ask(self, query: LiteralString, values: dict[str, Any], **parts: Any) -> list[Any]:
        made = {
            name: part if isinstance(part, sql.Composable) else sql.Literal(part)
            for name, part in parts.items()
        }
        table = sql.Identifier(self._table.name)
        statement = sql.SQL(query).format(table=table, within=sql.SQL(_WITHIN), **made)
        return self._connection.execute(statement, values).fetchall()

    def _bins(self, groups: Groups, values: dict[str, Any], step: timedelta) -> Iterator[Cell]:
        number = groups.number("session")
        rows = self.ask(_BINS, values, number=number, results=self._merged("sum"))
        for start, place, *results, counted in sorted(rows, key=itemgetter(0, 1)):
            label = groups.labels[place]
            yield Cell(start, start + step, label, tuple(results), counted, 0)

    def _sessions(self, values: dict[str, Any], most: int) -> tuple[Cell, ...]:
        """The newest ones, newest first, each of its own group."""
        by = [column.name for column in self._table.by]
        columns, by_columns = (
            sql.SQL(", ").join(sql.Identifier("session", column) for column in names)
            for names in (self._chosen.columns, by)
        )
        rows: Sequence[Any] = self.ask(_SESSIONS, values, results=columns, by=by_columns, most=most)
        last = len(self._chosen.columns)
        return tuple(
            Cell(start, end, label_of(rest[last:]), tuple(rest[:last]), counted, 0)
            for start, end, counted, *rest in rows
        )

    def _totals(self, groups: Groups, values: dict[str, Any]) -> Iterator[GroupTotal]:
        """With None for what does not add up."""
        match self._chosen.aggregate:
            case Min():
                merged = self._merged("min")
            case Max():
                merged = self._merged("max")
            case _ if self._chosen.adds_up:
                merged = self._merged("sum")
            case _:
                merged = sql.SQL(", ").join([sql.SQL("NULL")] * len(self._chosen.columns))
        rows = self.ask(_TOTALS, values, number=groups.number("session"), results=merged)
        for place, *results, counted, number in sorted(rows, key=itemgetter(0)):
            yield groups.total(place, results, counted, 0, number)

    def _merged(self, function: LiteralString) -> sql.Composed:
        collation = sql.SQL(' COLLATE "C"' if self._chosen.type == "text" else "")
        return sql.SQL(", ").join(
            sql.SQL("{}({}{})::{}").format(
                sql.SQL(function),
                sql.Identifier("session", column),
                collation,
                sql.SQL(self._chosen.type),
            )
            for column in self._chosen.columns
        )
