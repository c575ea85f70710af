"""What a contract's core schema says, and with zones for all its times: the form into which pydantic turns a
model (https://docs.pydantic.dev/latest/internals/architecture/)."""

from collections.abc import Iterator
from typing import Any, Final

# What a schema holds that is of users, and no part of it.
_VALUES: Final = frozenset(("default", "metadata", "expected", "members"))


def with_zones(schema: Any) -> Any:
    """A core schema whose times all have zones."""
    if type(schema) in (list, tuple):
        return type(schema)(map(with_zones, schema))
    if not isinstance(schema, dict):
        return schema
    zone = {"tz_constraint": "aware"} if schema.get("type") == "datetime" else {}
    return schema | {name: with_zones(part) for name, part in _parts(schema)} | zone


def _parts(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a part of a core schema consists of, without values of users, which may look like a schema.
    Where names of fields are the keys, one may be called so."""
    is_schema = isinstance(schema.get("type"), str)
    for name, part in schema.items():
        if not (is_schema and name in _VALUES):
            yield name, part


def literals_in(schema: Any) -> Iterator[str]:
    """The texts that a contract allows one by one."""
    if isinstance(schema, dict):
        if schema.get("type") == "literal":
            yield from filter(_is_text, schema["expected"])
        if schema.get("type") == "enum":
            yield from filter(_is_text, (member.value for member in schema["members"]))
        schema = [part for _, part in _parts(schema)]
    if type(schema) in (list, tuple):
        for part in schema:
            yield from literals_in(part)


def _is_text(value: object) -> bool:
    return isinstance(value, str)
