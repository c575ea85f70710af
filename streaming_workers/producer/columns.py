"""The fields of a stream by the columns of a table, whose cells have other types than JSON. Pure."""

import difflib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema

from streamflow.contract import RFC3339
from streamflow.errors import UsageError
from streamflow.producer.documents import PLAIN, Documents, FieldKind
from streamflow.stream import Stream

# RFC 8259, section 6; and what writers of tables make of booleans.
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# "2026-03-01 12:00:00+00": a blank instead of the T, and an offset without minutes.
_SPACED_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d+)?)(Z|[+-]\d\d)(?::?(\d\d))?", re.ASCII
)
_BOOLEANS: Final = {"true": "true", "false": "false"}


class Column(NamedTuple):
    """A field that a column holds.

    Attributes:
        path: names from the event down to the field.
        may_be_text: whether its value may be a text in JSON.
        required: whether each model of the contract asks for it.
        is_time: whether such a text is a time.
        kind: what a document may hold in it.
    """

    path: tuple[str, ...]
    may_be_text: bool
    required: bool
    is_time: bool
    kind: FieldKind


class Columns:
    """The fields of a stream's events, by their names in JSON; ``address.city`` is a nested one."""

    def __init__(self, stream: Stream) -> None:
        self._name = stream.name
        self._forbids = stream.unknown_fields == "forbid"
        self._schemas = [_json_schema(model) for model in stream.decoder.models]
        self._kinds = Documents(stream.decoder).kinds

    def __contains__(self, name: str) -> bool:
        return any(
            _find(schema, schema, _split(schema, name)) is not None for schema in self._schemas
        )

    def named(self, names: Sequence[str]) -> list[Column]:
        """The columns with these names.

        Raises:
            UsageError: two have the same name, or one is part of another; one names no field; or a field is
                missing that every event has.
        """
        doubled = sorted(name for name, count in Counter(names).items() if count > 1)
        if doubled:
            raise UsageError(f"column {doubled[0]} is there twice: rename one of them")
        unknown = [name for name in names if name not in self]
        if unknown and self._forbids:
            near = difflib.get_close_matches(unknown[0], self._fields(), 1)
            raise UsageError(
                f"column {unknown[0] or '(without a name)'} is no field of stream {self._name}"
                + (f": is it {near[0]}?" if near else f", which has {', '.join(self._fields())}")
            )
        given = {name.partition(".")[0] for name in names} | set(names)
        missing = [
            field
            for field in self._fields()
            if field not in given
            and all(field in schema.get("required", ()) for schema in self._schemas)
        ]
        if missing:
            raise UsageError(f"column {missing[0]} is missing: stream {self._name} requires it")
        columns = [self._column(name) for name in names]
        whole = {column.path: name for column, name in zip(columns, names, strict=True)}
        for column, name in zip(columns, names, strict=True):
            for length in range(1, len(column.path)):
                if (other := whole.get(column.path[:length])) is not None:
                    raise UsageError(f"column {name} is part of column {other}: drop one of them")
        return columns

    def _fields(self) -> list[str]:
        return list(
            dict.fromkeys(name for schema in self._schemas for name in schema["properties"])
        )

    def _column(self, name: str) -> Column:
        found = [
            (schema, part)
            for schema in self._schemas
            if (part := _find(schema, schema, _split(schema, name))) is not None
        ]
        path = _split(self._schemas[0] if not found else found[0][0], name)
        return Column(
            path,
            not found or any(_may_be_text(part, schema) for schema, part in found),
            all(name in schema.get("required", ()) for schema in self._schemas),
            bool(found) and all(_is_time(part, schema) for schema, part in found),
            self._kinds.get(name, PLAIN),
        )


def cell(text: str, column: Column) -> str | None:
    """A cell of text as JSON; None for an absent one.

    What is no text in the contract is written as it is where it is JSON: a number, true, false, a list, an
    object. An empty cell is an absent field, unless it is a text that the contract requires. A time as
    PostgreSQL and pandas write it gets the form of RFC 3339.
    """
    if not text:
        return '""' if column.required and column.may_be_text else None
    if not column.may_be_text:
        if _NUMBER.fullmatch(text) or (text[0] in "[{" and _is_json(text)):
            return text
        if (boolean := _BOOLEANS.get(text.lower())) is not None:
            return boolean
    if column.is_time and (time := _SPACED_TIME.fullmatch(text)):
        day, clock, hours, minutes = time.groups()
        text = f"{day}T{clock}{hours if hours == 'Z' else f'{hours}:{minutes or 0:0>2}'}"
    return _quoted(text)


def document(members: Mapping[tuple[str, ...], str]) -> str:
    """The JSON object with these members, nested by their paths."""
    nested: dict[str, Any] = {}
    for path, value in members.items():
        place = nested
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = value
    return _object(nested)


def _object(nested: Mapping[str, Any]) -> str:
    members = (
        f"{_quoted(name)}:{value if isinstance(value, str) else _object(value)}"
        for name, value in nested.items()
    )
    return f"{{{','.join(members)}}}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return False
    return True


class _AnyWhereUnknown(GenerateJsonSchema):
    """What JSON Schema has no word for may be any value; the contract judges it."""

    def handle_invalid_for_json_schema(
        self, _schema: CoreSchema, _error_info: str
    ) -> JsonSchemaValue:
        return {}


def _json_schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True, schema_generator=_AnyWhereUnknown)
    # That of a model that holds itself is a reference.
    name = schema.get("$ref", "").rpartition("/")[2]
    return schema | schema["$defs"][name] if name else schema


def _split(schema: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return (name,) if name in schema["properties"] else tuple(name.split("."))


def _find(part: Any, schema: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The JSON schema of the field at a path; None if there is none."""
    if not path:
        return part
    for choice in _choices(part, schema):
        inner = choice.get("properties", {}).get(path[0])
        if inner is not None and (found := _find(inner, schema, path[1:])) is not None:
            return found
    return None


def _choices(part: Any, schema: Mapping[str, Any]) -> list[Any]:
    """The JSON schemas that a value may keep to, without references."""
    if not isinstance(part, dict):
        return [{}]
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        return _choices(schema["$defs"][name], schema)
    for kind in ("anyOf", "oneOf"):
        if kind in part:
            return [choice for each in part[kind] for choice in _choices(each, schema)]
    return [part]


def _may_be_text(part: Any, schema: Mapping[str, Any]) -> bool:
    return any(
        any(isinstance(value, str) for value in choice["enum"])
        if "enum" in choice
        else isinstance(choice["const"], str)
        if "const" in choice
        else choice.get("type", "string") == "string"
        for choice in _choices(part, schema)
    )


def _is_time(part: Any, schema: Mapping[str, Any]) -> bool:
    """Whether it is a time, or nothing."""
    choices = [choice for choice in _choices(part, schema) if choice.get("type") != "null"]
    return bool(choices) and all(
        choice.get("format") == "date-time" or choice.get("pattern") == RFC3339
        for choice in choices
    )
