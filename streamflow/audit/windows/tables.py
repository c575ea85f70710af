"""Comparing windows with aggregates with the events, up to what analytics has committed (G5).

Every cell is compared by the number of its events. Where each of these was aggregated, and rows tell their
values, so is every aggregate: `exact` ones by what SQL computes of the events, sketches as `sketches` says.
Of a cell with events that came too late, which only analytics knows, aggregates are compared with what is
possible.

Both sides are read in one snapshot, in the order of the cells, and none of them is kept.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from psycopg import sql

from streamflow.aggregates.base import Aggregate
from streamflow.audit.gap_ledger import Range, multirange
from streamflow.audit.window_ledger import Cell
from streamflow.audit.windows.beginning import first_part, offsets_compared
from streamflow.audit.windows.cells import CellQueries, Named
from streamflow.audit.windows.comparison import FIGURES, Comparison
from streamflow.audit.windows.conditions import (
    drop_conditions,
    judge_conditions,
    keep_conditions,
)
from streamflow.audit.windows.exact import ExactAggregate, exact_aggregate
from streamflow.audit.windows.parts import (
    TopicsOfParts,
    faulty_parts,
    parts_from_elsewhere,
)
from streamflow.audit.windows.reading import cells_of
from streamflow.audit.windows.reconciliation import CellFigures, CellJudge, Reconciliation
from streamflow.audit.windows.sketches import compare_sketches
from streamflow.durations import MILLISECOND
from streamflow.postgres.connections import Connection
from streamflow.postgres.windows.schema import note_late_after
from streamflow.postgres.windows.tables import WindowTable, window_tables
from streamflow.stream import Stream
from streamflow.windows.partition import progress_of
from streamflow.windows.plans import plans_of
from streamflow.windows.progress import Progress, WindowProgress


class Compared(NamedTuple):
    """What is compared: the windows of one declaration in one source partition.

    Attributes:
        progress: of analytics, in these windows.
        position: everything before it was counted.
        lost: offsets in acknowledged gaps of analytics.
        acknowledged: differences that were acknowledged.
        proved: an audit has proved that events before this offset are counted.
        first_part: as `beginning.first_part`.
        topics: what parts can be of, if those that are of nothing else are looked for, too.
    """

    table: WindowTable
    partition: int
    progress: WindowProgress
    position: int
    resume: int
    lost: Sequence[Range] = ()
    acknowledged: Mapping[Cell, int] = {}
    proved: int = 0
    first_part: int | None = None
    topics: TopicsOfParts | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        stream, progress = self.table.stream, self.progress
        return {
            "topic": stream.topic,
            "partition": self.partition,
            "table": stream.event_table,
            "parts": self.table.name,
            **offsets_compared(progress, self.position, self.resume, self.first_part),
            "closed": progress.closed_before,
            "ahead": progress.ahead,
            "pane": self.table.spec.pane_ms,
            "proved": self.proved,
            "lost": multirange(self.lost),
        }


def counted_tables(stream: Stream, progress: Progress) -> list[WindowTable]:
    """The tables of a stream's windows that analytics counts, as they are declared."""
    counted = {plan.name for plan in plans_of(stream) if progress_of(progress, plan) is not None}
    return [table for table in window_tables(stream) if table.name in counted]


def reconcile_table(connection: Connection, compared: Compared) -> Reconciliation:
    """Compares what analytics has emitted with the events that it had read by then. `connection`: not in a
    transaction."""
    aggregates = compared.table.spec.aggregates
    note_late_after(connection, compared.table)
    wheres = _wheres(aggregates)
    if not wheres:
        with _snapshot(connection):
            return _compare(connection, _with_first_part(connection, compared), aggregates)
    queries = _queries(compared, wheres)
    with _snapshot(connection):
        compared = _with_first_part(connection, compared)
        parameters = compared.parameters
        known = judge_conditions(connection, queries, wheres, parameters)
        found = _compare(connection, compared, aggregates)
        if found.differing and known:
            # The function may have changed since it was asked.
            judge_conditions(connection, queries, wheres, parameters, anew=True)
            found = _compare(connection, compared, aggregates)
    if not found.differing:
        keep_conditions(connection, queries, parameters)
    drop_conditions(connection)
    return found


def count_table(connection: Connection, compared: Compared) -> Reconciliation:
    """As `reconcile_table`, of nothing but the numbers of events. In the connection's transaction."""
    return _compare(connection, compared, {})


def _with_first_part(connection: Connection, compared: Compared) -> Compared:
    table = compared.table
    found = first_part(connection, table.name, (table.stream.topic, compared.partition))
    return compared._replace(first_part=found)


@contextmanager
def _snapshot(connection: Connection) -> Iterator[None]:
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield


def _wheres(aggregates: Mapping[str, Aggregate]) -> list[Callable[[Any], bool]]:
    return list(dict.fromkeys(each.where for each in aggregates.values() if each.where is not None))


def _queries(compared: Compared, wheres: Sequence[object]) -> CellQueries:
    names = [f"condition {number}" for number in range(len(wheres))]
    return CellQueries(compared.table.stream, compared.table, bool(compared.lost), names)


def _compare(
    connection: Connection, compared: Compared, aggregates: Mapping[str, Aggregate]
) -> Reconciliation:
    """Once conditions are judged, if there are any."""
    table, parameters = compared.table, compared.parameters
    wheres = _wheres(aggregates)

    def queries() -> CellQueries:
        return _queries(compared, wheres)

    judge = CellJudge(
        partition=(table.stream.topic, compared.partition),
        table=table.name,
        acknowledged=compared.acknowledged,
        begun=compared.progress.since,
    )
    connection.execute(queries().lock())
    connection.execute(queries().blur(), parameters)
    conditions = {
        name: None if each.where is None else wheres.index(each.where)
        for name, each in aggregates.items()
    }
    _compare_exact(connection, queries(), aggregates, conditions, parameters, judge)
    for name, each in aggregates.items():
        compare_sketches(connection, queries(), name, each, conditions[name], parameters, judge)
    connection.execute("DROP TABLE pg_temp.audited_blurred")
    if aggregates:
        _judge_parts(connection, compared, judge)
    return judge.finish(table.spec.pane_ms, table.spec.grace / MILLISECOND)


def _judge_parts(connection: Connection, compared: Compared, judge: CellJudge) -> None:
    for start, first, last, events, what in faulty_parts(
        connection, compared.table, compared.parameters
    ):
        span = (first, last + 1)
        figures = CellFigures(events, events, 0, 0, None, (first, last), (0, 0), span)
        judge.note(start, "", figures, what, events)
    if compared.topics is not None:
        for number, what in parts_from_elsewhere(connection, compared.table, compared.topics):
            judge.note_elsewhere(number, what)


def _compare_exact(
    connection: Connection,
    queries: CellQueries,
    aggregates: Mapping[str, Aggregate],
    conditions: Mapping[str, int | None],
    parameters: Mapping[str, Any],
    judge: CellJudge,
) -> None:
    found: list[ExactAggregate] = []
    width = len(queries.table.by) or 1
    place = 3 + width + len(FIGURES) + len(queries.conditions)
    for name, each in aggregates.items():
        exact = exact_aggregate(queries, name, each, place, conditions[name])
        if exact is not None:
            found.append(exact)
            place += len(exact.columns)
    of_events: list[Named] = [(name, sql.SQL(expression)) for name, expression, _ in FIGURES]
    of_events += [
        (
            f"without {name}",
            sql.SQL("count(*) FILTER (WHERE emitted AND {} IS NULL)").format(
                queries.condition(number)
            ),
        )
        for number, name in enumerate(queries.conditions)
    ]
    of_parts: list[sql.Composable] = [sql.SQL(expression) for *_, expression in FIGURES]
    of_parts += [sql.SQL("0")] * len(queries.conditions)
    for exact in found:
        places = range(exact.place, exact.place + len(exact.pairs))
        of_events += [
            (f"column {place}", pair.of_events)
            for place, pair in zip(places, exact.pairs, strict=True)
        ]
        of_parts += [pair.of_parts for pair in exact.pairs]
    compare = Comparison([column.name for column in queries.table.by], found, width, judge)
    query = queries.cells(of_events, of_parts)
    for key, sides in cells_of(connection, "audited_cells", query, parameters, width):
        compare.cell(key, list(sides))
