"""What every contract is held to, added to its core schema."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streamflow.core_schema import (
    EARLIEST,
    LARGEST_BIGINT,
    LATEST,
    SMALLEST_BIGINT,
    WITH_FIELDS,
    WRAPPERS,
    Definitions,
    UnknownFields,
    fits_bigint,
    mapped,
    own_parts,
)
from streamflow.field_names import names_of
from streamflow.time_bounds import with_native_bound
from streamflow.time_texts import with_time_texts

_EXTRA_BEHAVIOR: Final = {"forbid": "forbid", "ignore": "ignore", "keep": "allow"}


def checked(
    schema: Any,
    *,
    events: Collection[type],
    private: Collection[str] = (),
    hash_pattern: str = "",
    unknown_fields: UnknownFields = "forbid",
) -> Any:
    """A core schema with what every contract is held to.

    A ``datetime`` has a zone, and a ``time`` none, or it would be another one on each machine; times and
    dates are texts of RFC 3339; times lie between `EARLIEST` and `LATEST`; floats are finite; whole numbers
    of an event's own fields fit into a ``bigint`` unless the contract names other bounds; a private field's
    text, at any depth, is a hash.

    Args:
        events: the models of the events; `unknown_fields` says what becomes of fields that they lack.
        private: names of fields, as in JSON or in Python.
        hash_pattern: that the text of a private field matches.
    """
    schema = mapped(schema, with_native_bound)
    walk = _Checked(
        Definitions(schema),
        events,
        frozenset(private),
        hash_pattern,
        _EXTRA_BEHAVIOR[unknown_fields],
    )
    new = walk.of(schema, is_private=False)
    if walk.private_parts:
        new["definitions"] = [*new["definitions"], *walk.private_parts.values()]
    return with_time_texts(new)


@dataclass(slots=True)
class _Checked:
    """`checked`, part by part; `private_parts` are what private fields refer to, with what they hold being
    private, by their new references."""

    definitions: Definitions
    events: Collection[type]
    private: frozenset[str]
    hash_pattern: str
    extra_behavior: str
    private_parts: dict[str, Any] = field(default_factory=dict)

    def of(self, part: Any, *, is_private: bool) -> Any:
        if type(part) in (list, tuple):
            return type(part)(self.of(each, is_private=is_private) for each in part)
        if not isinstance(part, dict):
            return part
        kind = part.get("type")
        if kind in ("dataclass-field", "named-tuple-field"):
            is_private = is_private or self._is_named(part["name"], part)
        new = part | {
            name: self._fields(each, is_private=is_private)
            if kind in WITH_FIELDS and name == "fields" and isinstance(each, Mapping)
            else self.of(each, is_private=is_private)
            for name, each in own_parts(part)
        }
        return new | self._more(part, new, is_private=is_private)

    def _more(
        self, part: dict[str, Any], new: Mapping[str, Any], *, is_private: bool
    ) -> dict[str, Any]:
        match part.get("type"):
            case "datetime":
                return {"ge": EARLIEST, "le": LATEST, **part, "tz_constraint": "aware"}
            case "time":
                return {"tz_constraint": "naive", **part}
            case "float":
                return {"allow_inf_nan": False}
            case "str" if is_private:
                return {"pattern": self.hash_pattern}
            case "definition-ref" if is_private:
                return {"schema_ref": self._private_part(part["schema_ref"])}
            case "model" if part["cls"] in self.events:
                behavior = self.extra_behavior
                config = part.get("config", {}) | {"extra_fields_behavior": behavior}
                return {"config": config, "schema": _with_own_fields(new["schema"], behavior)}
        return {}

    def _fields(self, fields: Mapping[str, Any], *, is_private: bool) -> Mapping[str, Any]:
        return {
            name: part
            | {
                "schema": self.of(
                    part["schema"], is_private=is_private or self._is_named(name, part)
                )
            }
            for name, part in fields.items()
        }

    def _is_named(self, name: str, part: Mapping[str, Any]) -> bool:
        return not self.private.isdisjoint(names_of(name, part))

    def _private_part(self, ref: str) -> str:
        private_ref = f"{ref}:private"
        if private_ref not in self.private_parts:
            self.private_parts[private_ref] = {}  # for one that refers to itself
            part = self.of(self.definitions[ref], is_private=True)
            self.private_parts[private_ref] = part | {"ref": private_ref}
        return private_ref


def _with_own_fields(schema: Any, behavior: str) -> Any:
    """The fields of an event: with bounds for integers."""
    if schema["type"] != "model-fields":
        return schema | {"schema": _with_own_fields(schema["schema"], behavior)}
    fields = {
        name: field | {"schema": _with_bounds(field["schema"])}
        for name, field in schema["fields"].items()
    }
    return schema | {"fields": fields, "extra_behavior": behavior}


def _with_bounds(schema: Any) -> Any:
    inner = WRAPPERS.get(schema["type"])
    if inner is not None:
        return schema | {inner: _with_bounds(schema[inner])}
    if schema["type"] != "int" or not fits_bigint(schema):
        return schema
    bounds = {}
    if not schema.keys() & {"ge", "gt"}:
        bounds["ge"] = SMALLEST_BIGINT
    if not schema.keys() & {"le", "lt"}:
        bounds["le"] = LARGEST_BIGINT
    return schema | bounds
