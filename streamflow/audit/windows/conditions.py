"""What each `where` of a declaration says of each event, for SQL: a temporary table."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from psycopg import sql
from psycopg.rows import dict_row

from streamflow.audit.windows.cells import CellQueries
from streamflow.postgres.connections import Connection
from streamflow.postgres.rows.read_back import event_of
from streamflow.postgres.tables import UNKNOWN_FIELDS
from streamflow.records import Rejection
from streamflow.stream import Stream
from streamflow.windows.plans import guarded

_BATCH: Final = 5_000  # rows
_CREATE: Final = """
CREATE TEMPORARY TABLE audited_conditions (position bigint NOT NULL, {columns})
"""


def judge_conditions(
    connection: Connection,
    queries: CellQueries,
    wheres: Sequence[Callable[[Any], bool]],
    parameters: Mapping[str, Any],
) -> None:
    """Fills the table, in the connection's transaction: with a column for each function, null where a row
    cannot be read back. Asks the functions that are declared now: of events that another one has judged,
    they may say something else."""
    stream = queries.stream
    conditions = [guarded(where) for where in wheres]
    columns = sql.SQL(", ").join(
        sql.SQL("{} boolean").format(sql.Identifier(name)) for name in queries.conditions
    )
    connection.execute(sql.SQL(_CREATE).format(columns=columns))
    names = list(
        dict.fromkeys(name for model in stream.decoder.models for name in model.model_fields)
    )
    if stream.unknown_fields == "keep":
        names.append(UNKNOWN_FIELDS)
    with connection.cursor("rows_of_conditions", row_factory=dict_row) as rows:
        rows.itersize = _BATCH
        rows.execute(queries.rows(names), parameters)
        while batch := rows.fetchmany(_BATCH):
            with (
                connection.cursor() as writer,
                writer.copy("COPY pg_temp.audited_conditions FROM STDIN") as copy,
            ):
                for row in batch:
                    copy.write_row((row.pop("position"), *_judged(stream, row, conditions)))
    connection.execute("ANALYZE pg_temp.audited_conditions")


def _judged(
    stream: Stream, row: Mapping[str, Any], conditions: Sequence[Callable[[Any], bool]]
) -> Sequence[bool | None]:
    try:
        event = event_of(stream, row)
    except BaseException:  # noqa: BLE001 (types and validators of the user's own)
        return (None,) * len(conditions)
    if isinstance(event, Rejection):
        return (None,) * len(conditions)
    return [is_wanted(event) for is_wanted in conditions]
