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
    by_kind: dict[type | None, list[Any]] = {}
    for value in values:
        by_kind.setdefault(_kind(value), []).append(value)
    others = by_kind.pop(None, [])
    # An Enum may find its members by other values, too (`_missing_`, or texts where types are not strict).
    ends = [schema] if schema["type"] == "enum" else []
    branches = []
    for kind, of_kind in by_kind.items():
        named = [] if ends and len(by_kind) == 1 else [{"type": "literal", "expected": of_kind}]
        branches.append(_chain(_NUMBERS[kind or int], *named, *ends))
    return [*branches, _chain(_NO_NUMBERS, schema)] if ends or others else branches


def _chain(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "chain", "steps": list(steps)}


def _kind(value: Any) -> type | None:
    """A bool is an int to Python: the order counts."""
    return next((kind for kind in _NUMBERS if isinstance(value, kind)), None)


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
