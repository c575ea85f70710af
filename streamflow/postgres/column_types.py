"""The PostgreSQL type that holds a field, from pydantic's core schema of it. Pure."""

from typing import Any, Final

from streamflow.core_schema import Definitions, choices_of, fits_bigint, values_of

JSON: Final = "jsonb"

_SCALARS: Final = {
    "str": "text",
    "url": "text",
    "multi-host-url": "text",
    "bool": "boolean",
    "bytes": "bytea",
    "float": "double precision",
    "datetime": "timestamp with time zone",
    "date": "date",
    "time": "time without time zone",
    "timedelta": "interval",
    "uuid": "uuid",
}
_MOST_DIGITS: Final = 1_000  # that a type of PostgreSQL can name; one that names none holds more
_OF_VALUES: Final[dict[type, str]] = {str: "text", int: "bigint", bool: "boolean"}
_DOCUMENTS: Final = frozenset((
    "model", "dataclass", "typed-dict", "list", "set", "frozenset", "tuple", "dict", "any", "json",
    "function-plain", "none",
))  # fmt: skip


def column_type(schema: Any, definitions: Definitions) -> str | None:
    """The type of a field's column; None if no column can hold it."""
    schema = definitions.unwrapped(schema)
    kind = schema["type"]
    if kind == "int":
        return "bigint" if fits_bigint(schema) else "numeric"
    if kind == "decimal":
        return _numeric(schema)
    if kind in ("literal", "enum"):
        types = {type(value) for value in values_of(schema)}
        return _OF_VALUES.get(types.pop(), JSON) if len(types) == 1 else JSON
    if kind in ("union", "tagged-union"):
        columns = {
            column_type(choice, definitions)
            for choice in choices_of(schema)
            if definitions.resolved(choice)["type"] != "none"
        }
        if None in columns:
            return None
        return columns.pop() if len(columns) == 1 else JSON
    if kind in _DOCUMENTS:
        return JSON
    return _SCALARS.get(kind)


def _numeric(schema: Any) -> str:
    digits, places = schema.get("max_digits"), schema.get("decimal_places")
    if digits is None or places is None or max(digits, places) > _MOST_DIGITS:
        return "numeric"
    return f"numeric({digits},{places})"
