"""Sessions in SQL over the stream's table: exact, whatever came late.

A late event may join two sessions, so they are computed anew each time, from the events that there are. A
session of which retention has dropped events stays as it was; what follows on it is a part of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from psycopg import sql

from streamflow.aggregates.base import Aggregate
from streamflow.aggregates.distinct import Distinct
from streamflow.aggregates.extremes import First, Last, Max, Min
from streamflow.aggregates.quantiles import Quantiles
from streamflow.aggregates.sums import Count, Mean, Sum
from streamflow.postgres.connections import Connection
from streamflow.postgres.tables import Column
from streamflow.postgres.windows.fields import field_sql
from streamflow.postgres.windows.tables import BOUNDS, field_type, shown_aggregates
from streamflow.postgres.windows.totals import MEAN_OF_DOUBLES, as_double
from streamflow.stream import Stream
from streamflow.windows.durations import MILLISECOND, duration_text
from streamflow.windows.specs import SessionWindow

_DOUBLE: Final = "double precision"
_CREATE: Final = """
CREATE TABLE {table} ({columns}, computed_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX {by_time} ON {table} (window_start);
COMMENT ON TABLE {table} IS {comment};
"""
# Rows of forgotten subjects are emptied, and no events.
_SESSIONS: Final = """
WITH read AS (
    SELECT {read}, event.{time} AS "at", event.origin_partition, event.origin_offset
      FROM {events} AS event
     WHERE NOT EXISTS (
        SELECT FROM erased_records AS erased WHERE erased.place = 'events'
           AND (erased.topic, erased.partition, erased."offset")
             = (event.origin_topic, event.origin_partition, event.origin_offset)) {no_tombstone}
), marked AS (
    SELECT *, ("at" - lag("at") OVER in_order < {gap}) IS NOT TRUE AS "begins"
      FROM read WINDOW in_order AS (PARTITION BY {by} ORDER BY "at", origin_partition, origin_offset)
), numbered AS (
    SELECT *, count(*) FILTER (WHERE "begins") OVER in_order AS "number of session"
      FROM marked WINDOW in_order AS (PARTITION BY {by} ORDER BY "at", origin_partition, origin_offset)
)
SELECT min("at") AS window_start, max("at") + {gap} AS window_end, {results}, count(*) AS counted
  FROM numbered GROUP BY {by}, "number of session"
"""
_REPLACED: Final = """
DELETE FROM {table} AS kept WHERE NOT EXISTS (
    SELECT FROM dropped_days AS gone WHERE gone.table_name = %(events)s
       AND gone.day BETWEEN (kept.window_start AT TIME ZONE 'UTC')::date
                        AND ((kept.window_end - {gap}) AT TIME ZONE 'UTC')::date)
"""
_STORE: Final = """
INSERT INTO {table} ({columns})
SELECT {columns} FROM ({sessions}) AS session
 WHERE NOT EXISTS (
    SELECT FROM {table} AS kept WHERE ROW({kept_by}) IS NOT DISTINCT FROM ROW({session_by})
       AND kept.window_start < session.window_end AND session.window_start < kept.window_end)
"""


@dataclass(frozen=True, slots=True)
class SessionTable:
    """The table of one declaration of sessions.

    Attributes:
        by: the columns whose values sessions are of.
        types: of the aggregated fields, by the aggregate's name.
        columns: of the table, in its order, without `computed_at`.
    """

    stream: Stream
    name: str
    spec: SessionWindow
    by: tuple[Column, ...]
    types: Mapping[str, str]
    columns: tuple[Column, ...]

    @property
    def declaration(self) -> dict[str, Any]:
        """As that of a `WindowTable`."""
        return {
            "windows": type(self.spec).__name__,
            "gap": duration_text(self.spec.gap),
            "by": list(self.spec.by_fields),
            "aggregates": shown_aggregates(self.spec),
        }


def session_tables(stream: Stream) -> tuple[SessionTable, ...]:
    return tuple(
        _session_table(stream, name, spec)
        for name, spec in stream.window_tables.items()
        if isinstance(spec, SessionWindow)
    )


def _session_table(stream: Stream, name: str, spec: SessionWindow) -> SessionTable:
    by = tuple(
        Column(column, field_type(stream, path), True)
        for column, path in zip(spec.by_columns, spec.by_fields, strict=True)
    )
    types = {
        each: field_type(stream, aggregate.field)
        for each, aggregate in spec.aggregates.items()
        if aggregate.field is not None
    }
    results = (
        Column(column, _result_type(aggregate, types.get(each, "")), True)
        for each, aggregate in spec.aggregates.items()
        for column in aggregate.results(each)
    )
    counted = Column("counted", "bigint", False)
    return SessionTable(stream, name, spec, by, types, (*BOUNDS, *by, *results, counted))


def create_sessions(table: SessionTable) -> sql.Composed:
    """DDL of the table."""
    lines = [
        sql.SQL("{} {}{}").format(
            sql.Identifier(column.name),
            sql.SQL(column.type),
            sql.SQL("" if column.nullable else " NOT NULL"),
        )
        for column in table.columns
    ]
    comment = (
        f"Sessions of {table.stream.name}, computed anew each time; nothing has come for "
        f"{duration_text(table.spec.gap)} before and after one."
    )
    return sql.SQL(_CREATE).format(
        table=sql.Identifier(table.name),
        columns=sql.SQL(", ").join(lines),
        by_time=sql.Identifier(f"{table.name}_time"),
        comment=sql.Literal(comment),
    )


def compute_sessions(connection: Connection, table: SessionTable) -> int:
    """Computes all sessions anew, in one transaction; returns how many there are. It reads the whole table of
    the events."""
    columns = [column.name for column in table.columns]
    by = [column.name for column in table.by]
    names = {"table": sql.Identifier(table.name), "gap": _gap(table)}
    with connection.transaction():
        connection.execute(
            sql.SQL("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE").format(**names)
        )
        connection.execute(sql.SQL(_REPLACED).format(**names), {"events": table.stream.event_table})
        connection.execute(
            sql.SQL(_STORE).format(
                **names,
                columns=_listed(columns),
                sessions=sessions_query(table),
                kept_by=_listed(by, of="kept"),
                session_by=_listed(by, of="session"),
            )
        )
        [(number,)] = connection.execute(sql.SQL("SELECT count(*) FROM {table}").format(**names))
    return int(number)


def sessions_query(table: SessionTable) -> sql.Composed:
    """The sessions that the events in the stream's table make."""
    stream, spec = table.stream, table.spec
    read = [
        (f"by {column}", path) for column, path in zip(spec.by_columns, spec.by_fields, strict=True)
    ]
    read += [(f"of {name}", each.field) for name, each in spec.aggregates.items() if each.field]
    results: list[tuple[str, sql.Composable]] = [
        (column, sql.Identifier(f"by {column}")) for column in spec.by_columns
    ]
    for name, each in spec.aggregates.items():
        results += _results(name, each, table.types.get(name, ""))
    return sql.SQL(_SESSIONS).format(
        read=sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(field_sql(stream, path, "event"), sql.Identifier(column))
            for column, path in read
        ),
        time=sql.Identifier(stream.event_time),
        events=sql.Identifier(stream.event_table),
        no_tombstone=sql.SQL("AND NOT event.deleted" if stream.mode == "upsert" else ""),
        by=_listed([f"by {column}" for column in spec.by_columns]),
        gap=_gap(table),
        results=sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(expression, sql.Identifier(column))
            for column, expression in results
        ),
    )


def _gap(table: SessionTable) -> sql.Composed:
    return sql.SQL("({} * interval '1 ms')").format(sql.Literal(table.spec.gap // MILLISECOND))


def _result_type(aggregate: Aggregate, kind: str) -> str:
    match aggregate:
        case Count() | Distinct():
            return "bigint"
        case Sum() | Mean():
            return _DOUBLE if kind == _DOUBLE else "numeric"
        case Quantiles():
            return _DOUBLE
    return kind


def _results(name: str, aggregate: Aggregate, kind: str) -> list[tuple[str, sql.Composable]]:
    value: sql.Composable = sql.Identifier(f"of {name}")
    if isinstance(aggregate, Quantiles):
        return [
            (column, _quantile(value, share))
            for column, share in zip(aggregate.results(name), aggregate.at, strict=True)
        ]
    number = sql.SQL("exact_numeric({})" if kind == _DOUBLE else "{}").format(value)
    template = _TEMPLATES[type(aggregate)]
    if isinstance(aggregate, Count) and aggregate.field is None:
        template = "count(*)"
    if isinstance(aggregate, Mean) and kind == _DOUBLE:
        total, count = sql.SQL("sum({})").format(number), sql.SQL("count({})").format(value)
        return [(name, as_double(sql.SQL(MEAN_OF_DOUBLES).format(sum=total, count=count)))]
    if isinstance(aggregate, Min | Max) and kind == "text":
        value = sql.SQL('{} COLLATE "C"').format(value)
    result = sql.SQL(template).format(value=value, number=number)
    is_double = isinstance(aggregate, Sum) and kind == _DOUBLE
    return [(name, as_double(result) if is_double else result)]


def _quantile(value: sql.Composable, share: float) -> sql.Composed:
    return sql.SQL(
        "percentile_disc({share}) WITHIN GROUP (ORDER BY ({value})::double precision)"
    ).format(share=sql.SQL(f"{Decimal(str(share)):f}"), value=value)


_END: Final = (
    '(array_agg({{value}} ORDER BY "at" {0}, origin_partition {0}, origin_offset {0})'
    " FILTER (WHERE {{value}} IS NOT NULL))[1]"
)
_TEMPLATES: Final[dict[type[Aggregate], str]] = {
    Count: "count({value})",
    Sum: "sum({number})::numeric",
    Mean: "sum({number})::numeric / nullif(count({value}), 0)",
    Min: "min({value})",
    Max: "max({value})",
    First: _END.format("ASC"),
    Last: _END.format("DESC"),
    Distinct: "count(DISTINCT {value})",
}


def _listed(columns: list[str], of: str | None = None) -> sql.Composed:
    alias = () if of is None else (of,)
    return sql.SQL(", ").join(sql.Identifier(*alias, column) for column in columns)
