"""Taking sample events into the database and back, in temporary tables (G15)."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from streamflow.errors import ConfigurationError
from streamflow.postgres.connections import (
    STATEMENT_TIMEOUT,
    Connection,
    is_refusal,
    refused_definition,
    session,
)
from streamflow.postgres.counted_by import kind_sql
from streamflow.postgres.creating import create_table
from streamflow.postgres.rows.events import EventRows
from streamflow.postgres.rows.read_back import event_of
from streamflow.postgres.sessions.trial import problems_with_sessions
from streamflow.postgres.sink.copy import copy
from streamflow.postgres.windows.trial import problems_with_windows
from streamflow.records import Origin, Rejection
from streamflow.samples.factory import SampleEvent
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.trial import TrialProblem, differences, first_of_each, shown
from streamflow.user_code import name_of_fault

_APPENDED: Final = (2, 1_782_907_200_000)  # by the broker's clock, in milliseconds
_READ: Final = "SELECT *, {kind} AS {counted_by} FROM {table} ORDER BY origin_offset"
_COUNTED_BY: Final = "counted by"  # no field of Python has this name


def problems_with_rows(
    settings: Settings, stream: Stream, samples: Sequence[SampleEvent]
) -> list[TrialProblem]:
    """What differs, or is refused, on the way of samples into the stream's table and back; one problem for
    each field.

    The table is made in the session's temporary schema, and the transaction is rolled back: nothing is
    left, however this ends, and any number of them do not meet.

    Raises:
        ConfigurationError: the role may not create temporary tables, or the database refuses it.
        Unavailable: the database does not answer.
    """
    with session(settings, "check", statement_timeout=STATEMENT_TIMEOUT) as connection:
        try:
            return first_of_each(_problems(connection, stream, samples))
        except (
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.ReadOnlySqlTransaction,
        ) as error:
            raise ConfigurationError(
                f"the role may not create temporary tables ({error.diag.message_primary}): GRANT TEMPORARY "
                f"ON DATABASE {connection.info.dbname} TO {connection.info.user}, or check with a database "
                "of your own, or with --offline"
            ) from error


def _problems(
    connection: Connection, stream: Stream, samples: Sequence[SampleEvent]
) -> Iterator[TrialProblem]:
    rows = EventRows(stream)
    table = sql.Identifier(rows.table.name)
    with connection.transaction(force_rollback=True):
        # What is created without a schema's name goes into the first one of the path.
        connection.execute("SET LOCAL search_path TO pg_temp")
        try:
            create_table(connection, stream)
        except psycopg.Error as error:
            reason = refused_definition(error)
            if reason is None:
                raise
            yield TrialProblem(
                "table",
                f"PostgreSQL does not take its table ({reason}): give its fields other names or types",
            )
            return
        lines: dict[int, bytes] = {}
        for offset, sample in enumerate(samples):
            try:
                origin = Origin("check", 0, offset)
                lines[offset] = rows.line(sample.event, origin, _APPENDED)
            except BaseException as error:  # noqa: BLE001 (types and serializers of the user's own)
                yield TrialProblem(
                    "row",
                    f"no row can be made of {_what(sample)} ({name_of_fault(error)}): mend the serializer "
                    "of its fields",
                    cause=name_of_fault(error),
                )
        for offset, refusal in _store(connection, table, rows.table.columns, lines):
            yield _refused(samples[offset], refusal)
        with connection.cursor(row_factory=dict_row) as cursor:
            query = sql.SQL(_READ).format(
                kind=kind_sql(stream), counted_by=sql.Identifier(_COUNTED_BY), table=table
            )
            for row in cursor.execute(query):
                yield from _differences(stream, samples[row["origin_offset"]], row)
        yield from problems_with_windows(connection, stream, samples)
        yield from problems_with_sessions(connection, stream)


def _store(
    connection: Connection, table: sql.Identifier, columns: Sequence[str], lines: dict[int, bytes]
) -> Iterator[tuple[int, psycopg.Error]]:
    """Stores rows, by the offset of their samples; those that are refused, one by one."""
    try:
        with connection.transaction():
            copy(connection, table, columns, list(lines.values()))
    except psycopg.Error as error:
        if not is_refusal(error):
            raise
        if len(lines) == 1:
            yield next(iter(lines)), error
            return
        items = list(lines.items())
        half = len(items) // 2
        for part in (items[:half], items[half:]):
            yield from _store(connection, table, columns, dict(part))


def _refused(sample: SampleEvent, error: psycopg.Error) -> TrialProblem:
    # Messages of PostgreSQL about values quote them: here they are of samples.
    reason = error.diag.message_primary or type(error).__name__
    return TrialProblem(
        "row",
        f"PostgreSQL refuses {_what(sample)} ({error.sqlstate}: {reason}): let the contract refuse it too, "
        "with a bound, or give the field another type",
        sample.field,
    )


def _differences(
    stream: Stream, sample: SampleEvent, row: dict[str, Any]
) -> Iterator[TrialProblem]:
    counted_by = row.pop(_COUNTED_BY)
    try:
        kind = stream.kind_of(sample.event)
        after = event_of(stream, row)
    except BaseException as error:  # noqa: BLE001 (types and validators of the user's own)
        yield TrialProblem(
            "row",
            f"{_what(sample)} is stored, but cannot be read back ({name_of_fault(error)}): mend the "
            "validators of its fields",
            cause=name_of_fault(error),
        )
        return
    if isinstance(after, Rejection):
        yield TrialProblem(
            "row",
            f"{_what(sample)} is stored, but its row is no valid event ({after.message}): give that field a "
            "type that reads what it writes",
            cause=after.message,
        )
    else:
        for field, how in differences(sample.event, after):
            of_field = f"`{field}`: " if field else ""
            yield TrialProblem(
                "row",
                f"{of_field}{how} from PostgreSQL: give the field a type of its own instead of a union, "
                "or a narrower one",
                field,
            )
    if counted_by != kind:
        yield TrialProblem(
            "windows",
            f"`{stream.kind_field}`: windows count {shown(kind)}, and PostgreSQL {shown(counted_by)}: the "
            "audit would find a difference; count by another field",
            stream.kind_field or "",
        )


def _what(sample: SampleEvent) -> str:
    at = f" with `{sample.field}` at a limit of its type" if sample.field else ""
    return f"a valid {type(sample.event).__name__}{at}"
