"""Which rows the database refuses, and why.

COPY only says that it refuses one. Trying each row from here would cost a round trip and more for each;
so the database tries them, each in a subtransaction, in one call of a function that lives as long as the
call. All of it is rolled back: the accepted rows are stored in one step afterwards.
"""

from collections.abc import Sequence
from typing import Final, LiteralString

import psycopg
from psycopg import errors, sql

from streamflow.errors import ErrorCode
from streamflow.postgres.connections import Connection, is_refusal
from streamflow.postgres.partitions import quoted
from streamflow.postgres.state import KEY_CONSTRAINT, LONGEST_ENTRY, LONGEST_KEY
from streamflow.postgres.tables import Table
from streamflow.records import Rejection

# Lines are kept as text, so that a value that is not of its column's type fails in its own try.
# The classes of SQLSTATE are those of `connections.is_refusal`.
# A field may be called as a column of ours, unless ours has a space in its name.
_TRY_EACH: Final[LiteralString] = """
CREATE TEMPORARY TABLE "trial rows" ("row number" bigint, {lines})
ON COMMIT DROP;
CREATE FUNCTION pg_temp.try_each(OUT number bigint, OUT state text, OUT of_column text,
                                 OUT of_constraint text, OUT of_type text)
RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
    line record;
BEGIN
    FOR line IN SELECT * FROM pg_temp."trial rows" LOOP
        BEGIN
            INSERT INTO {table} ({columns}) VALUES ({values}) ON CONFLICT DO NOTHING;
        EXCEPTION WHEN data_exception OR integrity_constraint_violation
                    OR with_check_option_violation OR program_limit_exceeded OR plpgsql_error THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, of_column = COLUMN_NAME,
                of_constraint = CONSTRAINT_NAME, of_type = PG_DATATYPE_NAME;
            number := line."row number";
            RETURN NEXT;
        END;
    END LOOP;
END $$
"""

# Columns that a constraint names.
_MEASURED: Final[LiteralString] = """
SELECT attname FROM pg_constraint
  JOIN unnest(conkey) WITH ORDINALITY AS part (number, place) ON true
  JOIN pg_attribute ON attrelid = conrelid AND attnum = part.number
 WHERE conrelid = to_regclass(%s) AND conname = %s AND contype = 'c' ORDER BY place
"""
_CHECK_VIOLATION: Final = "23514"
_LIMIT_EXCEEDED: Final = "54000"


def find_refused(
    connection: Connection, table: Table, lines: Sequence[bytes]
) -> dict[int, Rejection]:
    """The rows that the database refuses by themselves: why, by the index of the line of COPY text. Works
    whatever a line holds. The transaction is as before."""
    # Without their modifiers: a cast to varchar(2) would cut, where COPY refuses.
    types = types_of(connection, table.name)
    columns = [sql.Identifier(name) for name in table.columns]
    statement = sql.SQL(_TRY_EACH).format(
        lines=sql.SQL(", ").join(sql.SQL("{} text").format(name) for name in columns),
        table=sql.Identifier(table.name),
        columns=sql.SQL(", ").join(columns),
        values=sql.SQL(", ").join(
            sql.SQL("line.{}::{}").format(column, sql.SQL(types[name]))
            for name, column in zip(table.columns, columns, strict=True)
        ),
    )
    into = sql.SQL('COPY pg_temp."trial rows" ("row number", {}) FROM STDIN').format(
        sql.SQL(", ").join(columns)
    )
    with connection.transaction(force_rollback=True), connection.cursor() as cursor:
        cursor.execute(statement)
        unreadable = _copy_readable(connection, into, range(len(lines)), lines)
        refused = cursor.execute("SELECT * FROM pg_temp.try_each()").fetchall()
    key = key_columns(connection, table) if refused else ()
    return unreadable | {
        number: rejection_of(*diagnosis, key=key) for number, *diagnosis in refused
    }


def types_of(connection: Connection, table: str) -> dict[str, LiteralString]:
    """The types of a table's columns, without their modifiers."""
    return dict(
        connection.execute(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            [quoted(table)],
        ).fetchall()
    )


def _copy_readable(
    connection: Connection, into: sql.Composed, numbers: Sequence[int], lines: Sequence[bytes]
) -> dict[int, Rejection]:
    """Copies the lines with these numbers, but those that COPY itself cannot read, as one with NUL: why not,
    by their numbers. In halves and halves of halves, for COPY says only that it cannot read one."""
    try:
        with connection.transaction(), connection.cursor() as cursor, cursor.copy(into) as stream:
            for number in numbers:
                stream.write(b"%d\t%b" % (number, lines[number]))
    except psycopg.Error as error:
        if not is_refusal(error):
            raise
        if len(numbers) == 1:
            return {numbers[0]: rejection_of_error(error)}
    else:
        return {}
    half = len(numbers) // 2
    return {
        number: rejection
        for part in (numbers[:half], numbers[half:])
        for number, rejection in _copy_readable(connection, into, part, lines).items()
    }


def key_columns(connection: Connection, table: Table) -> tuple[str, ...]:
    """The columns whose length the key's constraint bounds (`state.key_constraint`); none if the table has
    no such constraint."""
    name = f"{table.name}{KEY_CONSTRAINT}"
    of_table = sql.Identifier(table.name).as_string(connection)
    return tuple(column for (column,) in connection.execute(_MEASURED, [of_table, name]))


def rejection_of_error(error: psycopg.Error, key: Sequence[str] = ()) -> Rejection:
    """Why the database refuses a row, from the error that it gives for this row alone."""
    diag = error.diag
    fields = (diag.sqlstate, diag.column_name, diag.constraint_name, diag.datatype_name)
    return rejection_of(*fields, key=key)


def rejection_of(
    state: str | None,
    column: str | None,
    constraint: str | None,
    datatype: str | None,
    *,
    key: Sequence[str],
) -> Rejection:
    """Why the database refuses a row, from the fields of its diagnosis. Its message would quote the row.
    `key` are the columns whose length the key's constraint bounds."""
    names = {"SQLSTATE": state, "column": column, "constraint": constraint, "type": datatype}
    reason = ", ".join(f"{what} {name}" for what, name in names.items() if name)
    if key and (constraint or "").endswith(KEY_CONSTRAINT) and state == _CHECK_VIOLATION:
        reason = f"its primary key ({', '.join(key)}) has more than {LONGEST_KEY:,} bytes; {reason}"
    elif constraint and state == _LIMIT_EXCEEDED:
        reason += f": an entry of an index can have {LONGEST_ENTRY:,} bytes"
    try:
        kind = errors.lookup(state or "").__name__
    except KeyError:  # of an extension, or of a trigger's own
        kind = "DatabaseError"
    return Rejection(ErrorCode.UNSTORABLE_VALUE, kind, f"the database refuses it: {reason}")
