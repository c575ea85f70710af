"""Texts of times and dates. pydantic also reads digits as such, "5" as 1970-01-01T00:00:05Z; a contract takes
RFC 3339 only."""

from typing import Any, Final

from pydantic_core import core_schema

from streamflow.contract import RFC3339
from streamflow.core_schema import own_parts

DATE: Final = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_FORMS: Final = {"datetime": RFC3339, "date": DATE}
# What gets no text of the document, but what a step before it has made of that. (A contract's own functions
# may return a datetime; texts that they return are refused by strict models.)
_AFTER_OTHERS: Final = ("function-before", "function-wrap")


def with_time_texts(schema: Any, *, is_made: bool = False) -> Any:
    """The schema with times and dates, at any depth, that JSON can only hold in their form; `is_made` says
    that something else has made the values of this part."""
    if type(schema) in (list, tuple):
        return type(schema)(with_time_texts(part, is_made=is_made) for part in schema)
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    is_schema = isinstance(kind, str)
    is_made = is_made or (is_schema and kind in _AFTER_OTHERS)
    new = schema | {
        name: _steps(part, is_made=is_made)
        if is_schema and kind == "chain" and name == "steps"
        else with_time_texts(part, is_made=is_made)
        for name, part in own_parts(schema)
        if not (is_schema and kind == "json-or-python" and name == "python_schema")
    }
    form = _FORMS.get(kind) if is_schema and isinstance(kind, str) else None
    if form is None or is_made:
        return new
    text = core_schema.str_schema(pattern=form, strict=True)
    from_text = core_schema.chain_schema([text, new | {"strict": False}])
    return core_schema.json_or_python_schema(json_schema=from_text, python_schema=new)


def _steps(steps: list[Any], *, is_made: bool) -> list[Any]:
    first, *others = steps
    return [
        with_time_texts(first, is_made=is_made),
        *(with_time_texts(step, is_made=True) for step in others),
    ]
