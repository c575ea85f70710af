"""What a contract's core schema says: the form into which pydantic turns a model
(https://docs.pydantic.dev/latest/internals/architecture/)."""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

UnknownFields = Literal["forbid", "ignore", "keep"]

# The ends of the calendar, as Python's datetime and four digits of a year have it.
FIRST_MOMENT: Final = datetime(1, 1, 1, tzinfo=UTC)
LAST_MOMENT: Final = datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
# What an event may hold: with a day to spare for every offset from UTC.
EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
LATEST: Final = datetime(9999, 12, 30, tzinfo=UTC)
SMALLEST_BIGINT: Final = -(2**63)
LARGEST_BIGINT: Final = 2**63 - 1
# As pydantic tells them in the context of an error.
_OWN_BOUNDS: Final = {
    "ge": (SMALLEST_BIGINT, f"{EARLIEST:%Y-%m-%dT%H:%M:%SZ}".zfill(20)),
    "le": (LARGEST_BIGINT, f"{LATEST:%Y-%m-%dT%H:%M:%SZ}"),
}

# What a schema holds that is of users, and no part of it.
_VALUES: Final = frozenset(("default", "metadata", "expected", "members"))
# Around the schema of a value, by the name of what is in it.
WRAPPERS: Final = {
    "default": "schema",
    "nullable": "schema",
    "custom-error": "schema",
    "function-before": "schema",
    "function-after": "schema",
    "function-wrap": "schema",
    "json-or-python": "json_schema",
    "lax-or-strict": "strict_schema",
}
_MODELS: Final = ("model-fields", "typed-dict", "dataclass-args")
WITH_FIELDS: Final = (*_MODELS, "named-tuple")
_SCALARS: Final = frozenset((
    "str", "int", "float", "decimal", "bool", "bytes", "uuid", "date", "time", "datetime", "timedelta",
    "url", "multi-host-url", "literal", "enum", "none",
))  # fmt: skip
_OF_SCALARS: Final = frozenset((str, int, float, bool, bytes, type(None)))


class Definitions(dict[str, Any]):
    """The parts of a schema that others refer to, by reference."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        if schema["type"] == "definitions":
            super().__init__((part["ref"], part) for part in schema["definitions"])

    def resolved(self, schema: Any) -> Any:
        """The schema itself, if this is a reference to one."""
        while schema["type"] in ("definitions", "definition-ref"):
            is_reference = schema["type"] == "definition-ref"
            schema = self[schema["schema_ref"]] if is_reference else schema["schema"]
        return schema

    def unwrapped(self, schema: Any) -> Any:
        """The schema of the values as the event holds them."""
        while (schema := self.resolved(schema))["type"] in (*WRAPPERS, "chain"):
            last = schema["steps"][-1] if schema["type"] == "chain" else None
            schema = last or schema[WRAPPERS[schema["type"]]]
        return schema

    def is_nullable(self, schema: Any) -> bool:
        while (schema := self.resolved(schema))["type"] in WRAPPERS:
            if schema["type"] == "nullable" or schema.get("default", ...) is None:
                return True
            schema = schema[WRAPPERS[schema["type"]]]
        if schema["type"] in ("union", "tagged-union"):
            return any(map(self.is_nullable, choices_of(schema)))
        return schema["type"] == "none" or None in values_of(schema)

    def is_scalar(self, schema: Any) -> bool:
        """Whether an event holds a text, a number or the like, or None, and nothing that consists of more."""
        schema = self.unwrapped(schema)
        if schema["type"] in ("union", "tagged-union"):
            return all(map(self.is_scalar, choices_of(schema)))
        return (
            schema["type"] in _SCALARS
            and {type(value) for value in values_of(schema)} <= _OF_SCALARS
        )

    def holds(self, schema: Any, is_wanted: Callable[[Mapping[str, Any]], bool]) -> bool:
        """Whether a field itself, and no model within it, has such a part."""
        known: set[str] = set()

        def found(part: Any) -> bool:
            for each in parts_of(part, within_models=False):
                if is_wanted(each):
                    return True
                ref = each.get("schema_ref") if each["type"] == "definition-ref" else None
                if ref is not None and ref not in known:
                    known.add(ref)
                    if found(self[ref]):
                        return True
            return False

        return found(schema)

    def fields(self, schema: Any) -> Mapping[str, Any]:
        """The fields of a model, as core schemas, by their names in Python."""
        model = self.unwrapped(schema)
        while model["type"] != "model-fields":
            model = self.unwrapped(model["schema"])
        fields: Mapping[str, Any] = model["fields"]
        return {name: field["schema"] for name, field in fields.items()}


def choices_of(schema: Any) -> Iterator[Any]:
    """The alternatives of a union; some have a label, and those of a tagged union a tag."""
    choices = schema["choices"]
    for choice in choices.values() if isinstance(choices, dict) else choices:
        yield choice[0] if isinstance(choice, tuple) else choice


def values_of(schema: Any) -> list[Any]:
    """The values that a ``Literal`` or an Enum allows one by one; none of other types."""
    if schema["type"] == "literal":
        return list(schema["expected"])
    return [member.value for member in schema["members"]] if schema["type"] == "enum" else []


def fits_bigint(schema: Mapping[str, Any]) -> bool:
    """Whether the bounds that a contract names for a whole number, if any, lie within a ``bigint``."""
    lowest = schema.get("ge", schema.get("gt", SMALLEST_BIGINT - 1) + 1)
    highest = schema.get("le", schema.get("lt", LARGEST_BIGINT + 1) - 1)
    return all(SMALLEST_BIGINT <= bound <= LARGEST_BIGINT for bound in (lowest, highest))


def is_always_bigint(schema: Mapping[str, Any]) -> bool:
    """Whether a whole number is within a ``bigint`` by its bounds, and not only by the type of its column:
    that of a nested field, in a document, is within no other ones."""
    if schema["type"] in ("literal", "enum"):
        return all(SMALLEST_BIGINT <= value <= LARGEST_BIGINT for value in values_of(schema))
    has_both = bool(schema.keys() & {"ge", "gt"} and schema.keys() & {"le", "lt"})
    return schema["type"] == "int" and has_both and fits_bigint(schema)


def own_parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a part of a core schema consists of, without values of users, which may look like a schema.
    Where names of fields are the keys, one may be called so."""
    is_schema = isinstance(schema.get("type"), str)
    for name, part in schema.items():
        if not (is_schema and name in _VALUES):
            yield name, part


def parts_of(schema: Any, *, within_models: bool = True) -> Iterator[Mapping[str, Any]]:
    """The schema and all that it consists of."""
    if isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            if schema["type"] in _MODELS and not within_models:
                return
            yield schema
        schema = [part for _, part in own_parts(schema)]
    if type(schema) in (list, tuple):
        for part in schema:
            yield from parts_of(part, within_models=within_models)


def literals_in(schema: Any) -> Iterator[str]:
    """The texts that a contract allows one by one."""
    for part in parts_of(schema):
        yield from (value for value in values_of(part) if isinstance(value, str))


def fields_in(schema: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The fields of all models in a schema, at any depth: their names in Python, and the fields."""
    for part in parts_of(schema):
        if part["type"] in WITH_FIELDS:
            yield from fields_of(part)


def fields_of(schema: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The fields of one of `WITH_FIELDS`: their names in Python, and the fields."""
    fields = schema["fields"]
    if isinstance(fields, Mapping):
        yield from fields.items()
    else:
        yield from ((field["name"], field) for field in fields)


def discriminator_of(schema: Any) -> str | None:
    """The JSON name of the field that a contract of several models is told apart by."""
    union = Definitions(schema).unwrapped(schema)
    name = union.get("discriminator") if union["type"] == "tagged-union" else None
    return name if isinstance(name, str) else None


def requires_null(schema: Any) -> bool:
    """Whether a field, at any depth, must be there and may be null."""
    definitions = Definitions(schema)
    return any(
        field["schema"]["type"] != "default"
        and (
            definitions.is_nullable(field["schema"])
            or definitions.holds(field["schema"], lambda part: part["type"] == "any")
        )
        for _, field in fields_in(schema)
    )


def has_type(schema: Any, kind: str) -> bool:
    """Whether a field, at any depth, is of this type; ``any`` accepts values of any JSON type."""
    return any(part["type"] == kind for part in parts_of(schema))


def mapped(
    schema: Any, change: Callable[[dict[str, Any]], Any], *, but: Collection[str] = ()
) -> Any:
    """The schema with each part changed, innermost parts first; `but` names what stays as it is."""
    if type(schema) in (list, tuple):
        return type(schema)(mapped(part, change, but=but) for part in schema)
    if not isinstance(schema, dict):
        return schema
    is_schema = isinstance(schema.get("type"), str)
    new = schema | {
        name: mapped(part, change, but=but)
        for name, part in own_parts(schema)
        if not (is_schema and name in but)
    }
    return change(new) if is_schema else new


def is_own_bound(context: Mapping[str, Any]) -> bool:
    """Whether a value breaks a bound that no contract names: PostgreSQL cannot hold it."""
    return any(context.get(name) in bounds for name, bounds in _OWN_BOUNDS.items())
