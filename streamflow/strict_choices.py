"""Choices as JSON tells them apart. ``true``, ``1`` and ``1.0`` are equal in Python, by which a ``Literal``
and Enums of numbers go, and not in JSON. Pydantic's core does it: no code here runs for a record."""

import json
from collections.abc import Iterable
from typing import Any, Final

from streamflow.core_schema import mapped, values_of

_NUMBERS: Final[dict[type, dict[str, Any]]] = {
    bool: {"type": "bool", "strict": True},
    int: {"type": "int", "strict": True},
    float: {"type": "float", "strict": True},
}
_NO_NUMBERS: Final[dict[str, Any]] = {
    "type": "union",
    "mode": "left_to_right",
    "choices": [{"type": "str", "strict": True}, {"type": "none"}, {"type": "list"}, {"type": "dict"}],
}  # fmt: skip


def with_strict_choices(schema: Any) -> Any:
    """The schema for a validator of JSON, with each choice of values that are no texts as strict as JSON.
    Keys of dicts are always texts."""
    return mapped(schema, _strict, but=("keys_schema",))


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    values = values_of(schema)  # none if it is no choice
    if all(isinstance(value, str) for value in values):
        return schema
    return {
        "type": "custom-error",
        "schema": {"type": "union", "mode": "left_to_right", "choices": _branches(schema, values)},
        "custom_error_type": "enum" if schema["type"] == "enum" else "literal_error",
        "custom_error_context": {"expected": _listed(values)},
    }


def _branches(schema: dict[str, Any], values: list[Any]) -> list[dict[str, Any]]:
    """One for each type of numbers among the values, and one for all others."""
    branches = [
        _chain(number, _only(schema, kind))
        for kind, number in _NUMBERS.items()
        if any(type(value) is kind for value in values)
    ]
    # An Enum may find its members by other values, too (`_missing_`, or texts where types are not strict).
    if schema["type"] == "enum" or any(type(value) not in _NUMBERS for value in values):
        branches.append(_chain(_NO_NUMBERS, schema))
    return branches


def _chain(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    return {"type": "chain", "steps": [first, then]}


def _only(schema: dict[str, Any], kind: type) -> dict[str, Any]:
    """The choice of the values of one type."""
    if schema["type"] == "literal":
        return schema | {"expected": [one for one in schema["expected"] if type(one) is kind]}
    return schema | {"members": [one for one in schema["members"] if type(one.value) is kind]}


def _listed(values: Iterable[Any]) -> str:
    """As pydantic lists them, but as JSON writes them."""
    *first, last = dict.fromkeys(map(_told, values))
    return f"{', '.join(first)} or {last}" if first else last


def _told(value: Any) -> str:
    if isinstance(value, str):
        return repr(value)
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return repr(value)
