"""Whether a table that is there is of the windows that are declared, and what differs, in words.

A table of windows never changes: its rows were counted by one declaration, and parts that were counted by
another do not add up with them. So whoever declares the windows differently gives them another name.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from streamflow.errors import ConfigurationError
from streamflow.postgres.connections import Connection
from streamflow.postgres.partitions import quoted, table_exists
from streamflow.postgres.sessions.tables import SessionTable
from streamflow.postgres.tables import Column
from streamflow.postgres.windows.tables import WindowTable

Declared = WindowTable | SessionTable

_DECLARED: Final = "SELECT stream, declaration FROM window_tables WHERE table_name = %s"
_COLUMNS: Final = """
SELECT attname, format_type(atttypid, NULL), NOT attnotnull FROM pg_attribute
 WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


def require_same(connection: Connection, table: Declared) -> None:
    """Raises ConfigurationError if the table was made for other windows, or is another owner's."""
    row = None
    if table_exists(connection, "window_tables"):
        row = connection.execute(_DECLARED, [table.name]).fetchone()
    stream = table.stream.name
    if row is None:
        raise ConfigurationError(
            f"stream {stream}: the table {table.name} exists already, and StreamFlow did not create it for "
            'windows, so it is not altered: give the windows another name (name="…"), or rename that table'
        )
    owner, stored = row
    if owner != stream:
        raise ConfigurationError(
            f"stream {stream}: the table {table.name} has windows of the stream {owner}: give the windows "
            'another name (name="…")'
        )
    differences = [
        *_declared_differently(stored, table.declaration),
        *_columns_that_differ(table.columns, _columns(connection, table.name)),
    ]
    if differences:
        raise ConfigurationError(
            f"stream {stream}: the windows in {table.name} were counted by another declaration "
            f'({"; ".join(differences)}): give the windows another name (name="…"), and the table stays as '
            "it is; or declare them as before"
        )


def _declared_differently(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    for argument in dict.fromkeys((*wanted, *stored)):
        before, now = stored.get(argument), wanted.get(argument)
        if argument == "aggregates":
            yield from _aggregates_that_differ(before or {}, now or {})
        elif before != now:
            yield f"{argument} was {_text(before)} and is {_text(now)}"


def _aggregates_that_differ(stored: Mapping[str, str], wanted: Mapping[str, str]) -> Iterator[str]:
    for name in dict.fromkeys((*wanted, *stored)):
        if name not in stored:
            yield f"{name} is new"
        elif name not in wanted:
            yield f"{name} is gone"
        elif stored[name] != wanted[name]:
            yield f"{name} was {stored[name]} and is {wanted[name]}"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "all events together"
    return "not set" if value is None else str(value)


def _columns_that_differ(wanted: Sequence[Column], existing: Sequence[Column]) -> Iterator[str]:
    """Of a field that has another type now."""
    types = {column.name: column.type for column in existing}
    for column in wanted:
        found = types.get(column.name)
        if found is not None and found != column.type:
            yield f"the column {column.name} is {found}, and its field needs {column.type}"


def _columns(connection: Connection, table: str) -> list[Column]:
    return [Column(*row) for row in connection.execute(_COLUMNS, [quoted(table)])]
