"""Keys of dicts that are no texts. Where several texts are one key, as "1" and "01" of ``dict[int, str]``,
the last of their values would replace the others: a key has one form, and types without one are refused."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic_core import core_schema

from streamflow.core_schema import Definitions, fields_in, mapped, parts_of

_FORMS: Final = {
    "int": r"^(0|-?[1-9][0-9]*)$",
    "uuid": r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
    "bool": r"^(true|false)$",
}
# What a key that is not in its form is told.
WORDS: Final = {
    _FORMS["int"]: "should be a valid integer, without leading zeros",
    _FORMS["uuid"]: "should be a valid UUID in small letters",
    _FORMS["bool"]: "should be true or false",
}
_WITHOUT_FORM: Final = frozenset(("float", "decimal", "datetime", "time", "timedelta"))


def with_exact_keys(schema: Any) -> Any:
    """The schema with keys, at any depth, that JSON can only hold in their form."""
    return mapped(schema, _exact)


def inexact_keys(schema: Any) -> Iterator[tuple[str, str]]:
    """Fields with a dict, at any depth, whose keys have several forms, and the type of these keys."""
    definitions = Definitions(schema)
    for name, field in fields_in(schema):
        for part in parts_of(field["schema"], within_models=False):
            keys = part.get("keys_schema") if part["type"] == "dict" else None
            if keys and (kind := definitions.unwrapped(keys)["type"]) in _WITHOUT_FORM:
                yield name, kind


def _exact(schema: Mapping[str, Any]) -> Any:
    keys: Any = schema.get("keys_schema", {}) if schema["type"] == "dict" else {}
    form = _FORMS.get(keys.get("type", ""))
    if form is None:
        return schema
    text = core_schema.str_schema(pattern=form, strict=True)
    from_text = core_schema.chain_schema([text, {**keys, "strict": False}])
    exact = core_schema.json_or_python_schema(json_schema=from_text, python_schema=keys)
    return {**schema, "keys_schema": exact}
