"""The values of an event that windows group by and aggregate, in SQL of the stream's table. Pure.

They are what `Field.getter` takes from the event: long texts are shortened, and numbers of too many digits
are left out. Some cannot be told from the row, and are not compared: those of private fields, which a new
key hashes again in the table, and within nested models those that are written in a form of their own.
"""

from collections.abc import Iterator
from typing import Any, Final

from psycopg import sql

from streamflow.aggregates.values import MOST_DIGITS
from streamflow.postgres.column_types import JSON, column_type
from streamflow.postgres.counted_by import group_sql
from streamflow.postgres.tables import event_columns
from streamflow.postgres.windows.tables import field_type
from streamflow.stream import Stream
from streamflow.windows.fields import DOCUMENT, Field, field_at

_SHORTENED: Final = "CASE WHEN char_length({text}) > 256 THEN {group} ELSE {text} END"
_BOUNDED: Final = """
CASE WHEN abs({number}) < power(10::numeric, {digits}) AND min_scale({number}::numeric) <= {digits}
     THEN {number} END
"""
# JSON writes them in other forms than PostgreSQL reads, or as fields of the database have no type.
_NOT_IN_JSON: Final = frozenset(("timedelta", "bytes"))


def value_sql(
    stream: Stream, path: str, *, whole: bool = False, counted: bool = False
) -> sql.Composed | None:
    """The value of a field, of a row with the alias ``e``; None if the row does not tell it. `whole`: however
    long it is; `counted`: only whether there is one."""
    if not counted and not stream.decoder.private_fields.isdisjoint(path.split(".")):
        return None
    field = field_at(stream.decoder, path, everywhere=False)
    top, *nested = path.split(".")
    value = _nested(stream, field) if nested else _column(stream, top)
    if value is None or whole or field.bounded:
        return value
    if field.kind == "text":
        return sql.SQL(_SHORTENED).format(text=value, group=group_sql(value))
    if field.kind in ("integer", "decimal"):
        return sql.SQL(_BOUNDED).format(number=value, digits=sql.Literal(MOST_DIGITS))
    return value


def _column(stream: Stream, name: str) -> sql.Composed:
    kind = next(column.type for column in event_columns(stream) if column.name == name)
    value = sql.SQL("{}").format(sql.Identifier("e", name))
    return sql.SQL("nullif({}, 'null'::jsonb)").format(value) if kind == JSON else value


def _nested(stream: Stream, field: Field) -> sql.Composed | None:
    """From the document of the outermost model."""
    top, *_ = field.path.split(".")
    paths = set(_json_paths(stream, field.path))
    if len(paths) != 1 or None in paths or field.kind in _NOT_IN_JSON:
        return None
    [path] = paths
    names: dict[str, Any] = {
        "document": sql.Identifier("e", top),
        "path": sql.Literal(list(path or ())),
    }
    if field.kind == DOCUMENT:
        return sql.SQL("nullif({document} #> {path}, 'null'::jsonb)").format(**names)
    kind = sql.SQL(field_type(stream, field.path))
    return sql.SQL("({document} #>> {path})::{kind}").format(**names, kind=kind)


def _json_paths(stream: Stream, path: str) -> Iterator[tuple[str, ...] | None]:
    """The names in JSON that lead to a nested field, of each model that has it; None if it is not written as
    it is."""
    definitions = stream.decoder.definitions
    for model in stream.decoder.models:
        top, *steps = path.split(".")
        fields: Any = stream.decoder.fields_of(model)
        if top not in fields:
            continue
        schema, names = fields[top], []
        for name in steps:
            if definitions.holds(schema, _is_written_differently):
                yield None
                return
            found = _model_fields(stream, schema).get(name)
            if found is None:
                break
            schema = found["schema"]
            names.append(found.get("serialization_alias") or name)
        else:
            own_form = definitions.holds(schema, _is_written_differently)
            yield None if own_form or column_type(schema, definitions) is None else tuple(names)


def _is_written_differently(part: Any) -> bool:
    return "serialization" in part


def _model_fields(stream: Stream, schema: Any) -> Any:
    unwrapped = stream.decoder.definitions.unwrapped
    model = unwrapped(schema)
    while model["type"] != "model-fields":
        model = unwrapped(model["schema"])
    return model["fields"]
