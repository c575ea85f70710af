"""Groups of windows: the most frequent ones, and all others together. Pure but for `most_frequent`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import sql

from streamflow.groups import ALL, group_text
from streamflow.postgres.connections import Connection
from streamflow.postgres.tables import Column
from streamlit_app.records.window_choice import ChosenAggregate
from streamlit_app.records.window_results import GroupTotal

MOST_GROUPS: Final = 7  # as many as charts have colours
_LEAST_GROUPS: Final = 3

_FREQUENT: Final = """
SELECT {by}, sum(counted)::bigint, count(*) OVER () AS "groups"
  FROM {table} WHERE {start} >= %(since)s AND {start} < %(until)s
 GROUP BY {by} ORDER BY sum(counted) DESC, {by} LIMIT {most}
"""


def label_of(group: Sequence[Any]) -> str:
    """What a group is called, by its values."""
    return " · ".join(map(group_text, group)) or ALL


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a span of time.

    Attributes:
        values: of each of the most frequent groups, by the columns that windows group by.
        others: how many more groups there are; the aggregates of these are of all their events together.
    """

    by: tuple[Column, ...]
    values: tuple[tuple[Any, ...], ...]
    others: int

    @property
    def labels(self) -> tuple[str, ...]:
        """What the groups are called, and at last the others, if there are any."""
        named = tuple(map(label_of, self.values))
        return (*named, f"{self.others:,} more groups") if self.others else named

    def total(
        self, place: int, values: Sequence[Any], counted: int, late: int, number: int = 0
    ) -> GroupTotal:
        """Of the group at a place among `labels`."""
        is_others = place == len(self.values)
        return GroupTotal(self.labels[place], tuple(values), counted, late, number, is_others)

    def number(self, alias: str) -> sql.Composable:
        """The place among `labels` of the group that a row is of."""
        if not self.by or not self.values:
            return sql.SQL("0")
        cases = (
            sql.SQL("WHEN {} THEN {}").format(
                sql.SQL(" AND ").join(
                    sql.SQL("{} IS NOT DISTINCT FROM {}").format(
                        sql.Identifier(alias, column.name), sql.Literal(value)
                    )
                    for column, value in zip(self.by, group, strict=True)
                ),
                sql.Literal(place),
            )
            for place, group in enumerate(self.values)
        )
        return sql.SQL("CASE {} ELSE {} END").format(
            sql.SQL(" ").join(cases), sql.Literal(len(self.values))
        )


def most_groups(by: Sequence[Column], chosen: ChosenAggregate) -> int:
    """How many groups a chart can tell apart: fewer, if each has several lines."""
    return max(_LEAST_GROUPS, MOST_GROUPS // max(1, len(chosen.labels))) if by else 1


def most_frequent(
    connection: Connection,
    table: str,
    by: Sequence[Column],
    start: str,
    span: dict[str, Any],
    most: int,
) -> Groups:
    """At most so many groups, the others among them: those with the most events in a span.

    Args:
        start: the column with the start of windows.
        span: `since` and `until`.
    """
    if not by:
        return Groups((), ((),), 0)
    query = sql.SQL(_FREQUENT).format(
        by=sql.SQL(", ").join(sql.Identifier(column.name) for column in by),
        table=sql.Identifier(table),
        start=sql.Identifier(start),
        most=sql.Literal(most),
    )
    rows = connection.execute(query, span).fetchall()
    groups = tuple(tuple(row[: len(by)]) for row in rows)
    number = rows[0][-1] if rows else 0
    if number <= most:
        return Groups(tuple(by), groups, 0)
    return Groups(tuple(by), groups[: most - 1], number - most + 1)
