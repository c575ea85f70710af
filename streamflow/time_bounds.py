"""Bounds of times: ``Annotated[EpochMillis, Field(gt=datetime(2020, 1, 1, tzinfo=UTC))]``."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final

from streamflow.core_schema import EARLIEST, LATEST

_BOUNDS: Final = frozenset(("gt", "ge", "lt", "le"))


def with_native_bound(schema: dict[str, Any]) -> dict[str, Any]:
    """A part of a core schema, with a bound of a time in the schema of that time.

    Where times have a form of their own in JSON, as `Timestamp` and `EpochMillis` do, pydantic compares them
    in Python and tells the bound as Python writes it. In the ``datetime`` schema it is faster, and told in
    RFC 3339.
    """
    bounds = _bounds(schema) if schema["type"] == "function-after" else None
    bounded = None if bounds is None else _bounded(schema["schema"], bounds)
    return schema if bounded is None else bounded


def _bounds(schema: Mapping[str, Any]) -> Mapping[str, datetime] | None:
    """What pydantic's own validator compares with, if this is one."""
    function = schema["function"]["function"]
    if not (isinstance(function, partial) and _is_of_pydantic(function.func)):
        return None
    bounds = function.keywords
    are_times = all(isinstance(bound, datetime) and bound.tzinfo for bound in bounds.values())
    return bounds if bounds and bounds.keys() <= _BOUNDS and are_times else None


def _is_of_pydantic(function: object) -> bool:
    return getattr(function, "__module__", "").startswith("pydantic.")


def _bounded(schema: dict[str, Any], bounds: Mapping[str, datetime]) -> dict[str, Any] | None:
    """The schema of a time within the bounds; None if it is no such schema, or has such a bound already."""
    kind = schema["type"]
    if kind == "datetime":
        is_free = all(schema.get(name) in (None, EARLIEST, LATEST) for name in bounds)
        return {**schema, **bounds} if is_free else None
    if kind == "chain":
        *steps, last = schema["steps"]
        bounded = _bounded(last, bounds)
        return None if bounded is None else schema | {"steps": [*steps, bounded]}
    if kind == "json-or-python":
        parts = {name: _bounded(schema[name], bounds) for name in ("json_schema", "python_schema")}
        return schema | parts if all(parts.values()) else None
    return None
