"""Taking sample events through windows into the database, in temporary tables (G15)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import orjson
import psycopg
from psycopg import sql

from streamflow.postgres.connections import Connection, is_refusal, refused_definition
from streamflow.postgres.rows.windows import WindowRows
from streamflow.postgres.sink.copy import copy
from streamflow.postgres.windows.schema import create_parts
from streamflow.postgres.windows.tables import WindowTable, panes_of, window_tables
from streamflow.postgres.windows.views import totals_view
from streamflow.records import Rejection
from streamflow.samples.factory import SampleEvent
from streamflow.samples.record import SampleRecord
from streamflow.stream import Stream
from streamflow.trial import TrialProblem
from streamflow.user_code import name_of_fault
from streamflow.utc_texts import micros_of
from streamflow.windows.partition import PartitionWindows
from streamflow.windows.plans import Plan, plans_of
from streamflow.windows.results import key_and_body
from streamflow.windows.specs import HoppingWindow

_APPENDED: Final = 1_782_907_200_000  # by the broker's clock, in milliseconds
_MOST_PANES: Final = 12  # of a window that is tried

# A part of windows, and the sample that is in it.
_Part = tuple[SampleEvent, bytes]


def problems_with_windows(
    connection: Connection, stream: Stream, samples: Sequence[SampleEvent]
) -> Iterator[TrialProblem]:
    """What differs, or is refused, on the way of samples through the windows that have tables. Call it in a
    transaction that is rolled back, with the temporary schema first in the path."""
    plans = {plan.name: plan for plan in plans_of(stream)}
    for table in map(_of_few_panes, window_tables(stream)):
        try:
            with connection.transaction():
                connection.execute(create_parts(table) + totals_view(table).create())
        except psycopg.Error as error:
            if (reason := refused_definition(error)) is None:
                raise
            yield _problem(table, f"PostgreSQL does not take their table or view ({reason})")
            continue
        parts: list[_Part] = []
        rows = WindowRows(table)
        for offset, sample in enumerate(samples):
            made = _part(table, rows, plans[table.name], sample, offset)
            if isinstance(made, str):
                yield _problem(table, made, sample)
            else:
                parts.append((sample, made))
        stored = len(parts)
        for sample, refusal in _store(connection, table, parts):
            stored -= 1
            reason = refusal.diag.message_primary or type(refusal).__name__
            yield _problem(table, f"PostgreSQL refuses {_what(sample)} ({reason})", sample)
        yield from _totals(connection, table, stored)


def _of_few_panes(table: WindowTable) -> WindowTable:
    """The same with shorter windows: the view is no other one, and takes each sample many times fewer."""
    spec = table.spec
    if isinstance(spec, HoppingWindow) and panes_of(spec) > _MOST_PANES:
        return replace(table, spec=replace(spec, size=_MOST_PANES * spec.every))
    return table


def _part(
    table: WindowTable, rows: WindowRows, plan: Plan, sample: SampleEvent, offset: int
) -> bytes | str:
    """The row of a part with one event; or why there is none."""
    windows = PartitionWindows([plan])
    try:
        micros = micros_of(table.stream.time_of(sample.event))
        windows.count([(offset, micros, sample.event, _APPENDED)])
        windows.aggregate()
        [result] = windows.hand_over()
        value = orjson.dumps(key_and_body(result, 0)[1])
    except BaseException as error:  # noqa: BLE001 (types and functions of the user's own)
        return f"{_what(sample)} cannot be aggregated ({name_of_fault(error)})"
    record = SampleRecord(table.stream.analytics_topic, offset, value, timestamp=(2, _APPENDED))
    line = rows.line(record, None)
    if isinstance(line, Rejection):
        return f"the part of a window with {_what(sample)} is no row ({line.message})"
    return line


def _store(
    connection: Connection, table: WindowTable, parts: Sequence[_Part]
) -> Iterator[tuple[SampleEvent, psycopg.Error]]:
    """Stores rows; those that are refused, one by one."""
    try:
        with connection.transaction():
            lines = [line for _, line in parts]
            copy(connection, sql.Identifier(table.name), table.table.columns, lines)
    except psycopg.Error as error:
        if not is_refusal(error):
            raise
        if len(parts) == 1:
            yield parts[0][0], error
            return
        half = len(parts) // 2
        for some in (parts[:half], parts[half:]):
            yield from _store(connection, table, some)


def _totals(connection: Connection, table: WindowTable, stored: int) -> Iterator[TrialProblem]:
    query = sql.SQL("SELECT sum(counted), count(DISTINCT totals::text) FROM {} AS totals").format(
        sql.Identifier(table.view)
    )
    try:
        with connection.transaction():
            [(counted, _)] = connection.execute(query).fetchall()
    except psycopg.Error as error:
        if not is_refusal(error):
            raise
        reason = error.diag.message_primary or type(error).__name__
        yield _problem(table, f"PostgreSQL cannot add up their parts ({reason})")
        return
    expected = stored * panes_of(table.spec)
    if (counted or 0) != expected:
        yield _problem(table, f"their totals count {counted or 0} of {expected} events")


def _problem(table: WindowTable, text: str, sample: SampleEvent | None = None) -> TrialProblem:
    return TrialProblem(
        "windows",
        f"{table.name}: {text}: aggregate or group by other fields, or bound their values in the contract",
        f"{table.name} {sample.field}" if sample is not None and sample.field else table.name,
    )


def _what(sample: SampleEvent) -> str:
    at = f" with `{sample.field}` at a limit of its type" if sample.field else ""
    return f"a valid {type(sample.event).__name__}{at}"
