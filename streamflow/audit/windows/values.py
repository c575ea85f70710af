"""The values of an event that windows group by and aggregate, in SQL of the stream's table. Pure.

They are what `Field` takes from the event: long texts are shortened, and numbers of too many digits
are left out. Some cannot be told from the row, and are not compared: those of private fields, which a new
key hashes again in the table, and within nested models those that are written in a form of their own.
"""

from typing import Final

from psycopg import sql

from streamflow.aggregates.values import MOST_DIGITS
from streamflow.postgres.counted_by import group_sql
from streamflow.postgres.windows.fields import field_sql
from streamflow.stream import Stream
from streamflow.windows.fields import DOCUMENT, Field, field_at

_SHORTENED: Final = "CASE WHEN char_length({text}) > 256 THEN {group} ELSE {text} END"
_BOUNDED: Final = """
CASE WHEN abs({number}) < power(10::numeric, {digits}) AND min_scale({number}::numeric) <= {digits}
     THEN {number} END
"""
# JSON has them in forms that PostgreSQL reads otherwise.
_NOT_IN_JSON: Final = frozenset(("timedelta", "bytes"))


def value_sql(
    stream: Stream, path: str, *, whole: bool = False, counted: bool = False
) -> sql.Composed | None:
    """The value of a field, of a row with the alias ``e``; None if the row does not tell it. `whole`: however
    long it is; `counted`: only whether there is one."""
    if not counted and not stream.decoder.private_fields.isdisjoint(path.split(".")):
        return None
    field = field_at(stream.decoder, path, everywhere=False)
    if "." in path and not _is_told(stream, field):
        return None
    value = sql.SQL("{}").format(field_sql(stream, path, "e"))
    if field.kind == DOCUMENT:
        value = sql.SQL("nullif({}::jsonb, 'null'::jsonb)").format(value)
    if whole or field.bounded:
        return value
    if field.kind == "text":
        return sql.SQL(_SHORTENED).format(text=value, group=group_sql(value))
    if field.kind in ("integer", "decimal"):
        return sql.SQL(_BOUNDED).format(number=value, digits=sql.Literal(MOST_DIGITS))
    return value


def _is_told(stream: Stream, field: Field) -> bool:
    """Whether JSON holds the value of a nested field as PostgreSQL reads it."""
    if field.kind in _NOT_IN_JSON:
        return False
    definitions, path = stream.decoder.definitions, field.path.split(".")
    for model in stream.decoder.models:
        fields = stream.decoder.fields_of(model)
        for left, name in zip(range(len(path) - 1, -1, -1), path, strict=True):
            if name not in fields:
                break
            if definitions.holds(fields[name], lambda part: "serialization" in part):
                return False
            if left:
                fields = definitions.fields(fields[name])
    return True
