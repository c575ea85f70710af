"""Fields of events in SQL: a column, or what a dotted path leads to in the JSON of one. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from psycopg import sql

from streamflow.core_schema import choices_of
from streamflow.postgres.column_types import JSON, column_type
from streamflow.postgres.tables import event_columns
from streamflow.stream import Stream

# How JSON's text becomes a value, where that is more than a cast.
_FROM_TEXT: Final = {"bytea": "convert_to({text}, 'UTF8')", "text": "{text}"}


class FieldSql(NamedTuple):
    """A field of a row with the alias ``event``."""

    type: (
        str  # a numeric without digits, so that a contract that allows more of them changes nothing
    )
    value: sql.Composable


def field_sql(stream: Stream, path: str) -> FieldSql:
    """Raises KeyError if no model of the contract has such a field."""
    name, *rest = path.split(".")
    column = sql.Identifier("event", name)
    if not rest:
        kinds = {each.name: each.type for each in event_columns(stream)}
        return FieldSql(kinds[name].partition("(")[0], column)
    found = dict(_nested(stream, name, rest))
    if not found:
        raise KeyError(path)
    kind = next(iter(found.values())).partition("(")[0]
    operator = sql.SQL(" #> " if kind == JSON else " #>> ")
    values = [column + operator + sql.Literal(list(names)) for names in found]
    text = values[0]
    if len(values) > 1:
        text = sql.SQL("coalesce({})").format(sql.SQL(", ").join(values))
    if kind == JSON:
        return FieldSql(kind, sql.SQL("nullif({}, 'null')").format(text))
    if kind in _FROM_TEXT:
        return FieldSql(kind, sql.SQL(_FROM_TEXT[kind]).format(text=sql.SQL("({})").format(text)))
    return FieldSql(kind, sql.SQL("CAST({} AS {})").format(text, sql.SQL(kind)))


def _nested(
    stream: Stream, name: str, rest: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """The names in JSON on the way to a field within the column, and the field's type: several, where models
    have different names for it."""
    for model in stream.decoder.models:
        schemas = stream.decoder.fields_of(model)
        if name in schemas:
            yield from _within(stream, schemas[name], rest)


def _within(
    stream: Stream, schema: Any, path: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], str]]:
    definitions = stream.decoder.definitions
    name, *rest = path
    for fields in _fields_at(stream, schema):
        if name not in fields:
            continue
        field = fields[name]
        in_json = field.get("serialization_alias") or name
        if rest:
            for names, kind in _within(stream, field["schema"], rest):
                yield (in_json, *names), kind
        elif (of := column_type(field["schema"], definitions)) is not None:
            yield (in_json,), of


def _fields_at(stream: Stream, schema: Any) -> Iterator[Mapping[str, Any]]:
    """The fields of a nested model, or of each in a union."""
    definitions = stream.decoder.definitions
    schema = definitions.unwrapped(schema)
    if schema["type"] in ("union", "tagged-union"):
        for choice in choices_of(schema):
            yield from _fields_at(stream, choice)
    elif schema["type"] == "model":
        yield from _fields_at(stream, schema["schema"])
    elif schema["type"] == "model-fields":
        yield schema["fields"]
