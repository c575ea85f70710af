"""Fields of events in SQL: from a row of the stream's table, also where they are nested."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from psycopg import sql

from streamflow.postgres.windows.tables import field_type
from streamflow.stream import Stream


def field_sql(stream: Stream, path: str, alias: str) -> sql.Composable:
    """The value of a field, of the type of `field_type`, in a row of the stream's table; `alias` is that
    of the table. Of a time within a document only the form of RFC 3339 is read."""
    column, *nested = path.split(".")
    if not nested:
        return sql.Identifier(alias, column)
    texts = [
        sql.SQL("{} #>> {}").format(sql.Identifier(alias, column), sql.Literal(names))
        for names in _json_paths(stream, column, nested)
    ]
    text = (
        texts[0] if len(texts) == 1 else sql.SQL("coalesce({})").format(sql.SQL(", ").join(texts))
    )
    return sql.SQL("({})::{}").format(text, sql.SQL(field_type(stream, path)))


def _json_paths(stream: Stream, column: str, nested: Sequence[str]) -> list[list[str]]:
    """The names that lead to a field within a column's JSON, in each model that has it."""
    found = []
    for model in stream.decoder.models:
        names = list(_json_names(stream, model, [column, *nested]))
        if len(names) == len(nested) and names not in found:
            found.append(names)
    return found


def _json_names(stream: Stream, model: type, path: Sequence[str]) -> Iterator[str]:
    definitions, fields = stream.decoder.definitions, stream.decoder.fields_of(model)
    for name, inner in pairwise(path):
        if name not in fields:
            return
        schema = definitions.unwrapped(fields[name])
        fields = definitions.fields(schema)
        if inner not in fields:
            return
        field = schema["cls"].model_fields[inner]
        yield field.serialization_alias or inner
