"""Which fields of a contract are private, and whether they hold what a producer hashes."""

from collections.abc import Collection
from typing import Any, Final

from streamflow.core_schema import (
    WRAPPERS,
    Definitions,
    choices_of,
    fields_in,
    literals_in,
    parts_of,
)
from streamflow.event_values import clear_values
from streamflow.field_names import json_paths, names_of

_KEEPING: Final = ("any", "dict")
_LISTS: Final = ("list", "set", "frozenset", "tuple")


def private_in(schema: Any, hash_pattern: str, named: Collection[str]) -> frozenset[str]:
    """All names of the private fields: of those that are named, and of those that are declared to hold
    hashes, since their text has this pattern."""
    definitions = Definitions(schema)
    fields = [
        (names_of(name, field), _declares_hash(definitions, field["schema"], hash_pattern))
        for name, field in fields_in(schema)
    ]
    private = set(named)
    for _ in fields:  # an alias of the one may be the name of another
        more = {
            name
            for names, is_hash in fields
            if is_hash or not private.isdisjoint(names)
            for name in names
        }
        if more <= private:
            break
        private |= more
    return frozenset(private)


def has_spare_names(schema: Any, private: Collection[str]) -> bool:
    """Whether a document may hold a private field's value under one of its names, and be accepted with
    another under one more of them: a model that ignores or keeps unknown fields takes that for one."""
    return any(
        (part.get("config") or {}).get("extra_fields_behavior") != "forbid"
        and any(
            len(json_paths(name, field)) > 1 and not names_of(name, field).isdisjoint(private)
            for name, field in fields_in(part)
        )
        for part in parts_of(schema)
        if part["type"] in ("model", "typed-dict", "dataclass")
    )


def keeps_names(schema: Any) -> bool:
    """Whether an event may hold fields of a document that no model declares: unknown ones, those of
    dictionaries, or of values of any type."""
    return any(
        part["type"] in _KEEPING
        # A validator of any input; serializers have the same type, and no dictionary.
        or (part["type"] == "function-plain" and isinstance(part["function"], dict))
        or part.get("extra_behavior") == "allow"
        or (part.get("config") or {}).get("extra_fields_behavior") == "allow"
        for part in parts_of(schema)
    )


def clear_defaults(schema: Any, private: Collection[str]) -> set[str]:
    """The names of fields whose default holds a private text in clear."""
    literals = frozenset(literals_in(schema))
    return {
        name
        for name, field in fields_in(schema)
        for part in parts_of(field["schema"], within_models=False)
        if part["type"] == "default"
        and any(
            isinstance(text, str) and text not in literals
            for text in clear_values(
                part.get("default"),
                private,
                declared=True,
                is_private=not names_of(name, field).isdisjoint(private),
            )
        )
    }


def in_json_texts(schema: Any, private: Collection[str]) -> set[str]:
    """The names of fields that are texts which hold JSON, with private fields in it, declared or not."""
    definitions = Definitions(schema)
    return {
        name
        for name, field in fields_in(schema)
        for part in parts_of(field["schema"], within_models=False)
        if part["type"] == "json"
        and (
            not names_of(name, field).isdisjoint(private)
            or any(
                keeps_names(inner)
                or any(not names_of(*each).isdisjoint(private) for each in fields_in(inner))
                for inner in _with_references(definitions, part.get("schema", {"type": "any"}))
            )
        )
    }


def _with_references(definitions: Definitions, schema: Any) -> list[Any]:
    """A part of a schema, and all that it refers to."""
    known: set[str] = set()
    found = [schema]
    for part in found:
        for each in parts_of(part):
            ref = each["schema_ref"] if each["type"] == "definition-ref" else None
            if ref is not None and ref not in known:
                known.add(ref)
                found.append(definitions[ref])
    return found


def _declares_hash(definitions: Definitions, schema: Any, hash_pattern: str) -> bool:
    return definitions.holds(
        schema, lambda part: part["type"] == "str" and part.get("pattern") == hash_pattern
    )


def not_of_texts(schema: Any, private: Collection[str], hash_pattern: str) -> set[str]:
    """The names of the private fields that may hold something else than texts. What is declared to hold
    hashes says itself what else it holds."""
    definitions = Definitions(schema)
    return {
        name
        for name, field in fields_in(schema)
        if not names_of(name, field).isdisjoint(private)
        and not _is_of_texts(definitions, field["schema"])
        and not _declares_hash(definitions, field["schema"], hash_pattern)
    }


def _is_of_texts(definitions: Definitions, schema: Any, *, in_list: bool = False) -> bool:
    """Whether JSON's values are texts, or lists of texts, and may be null: what a producer hashes."""
    schema = definitions.resolved(schema)
    kind = schema["type"]
    if kind in ("str", "none"):
        return True
    if kind in _LISTS:
        items = schema.get("items_schema", ())
        items = items if isinstance(items, list) else [items]
        return not in_list and all(
            item and _is_of_texts(definitions, item, in_list=True) for item in items
        )
    if kind in ("union", "tagged-union"):
        return all(
            _is_of_texts(definitions, choice, in_list=in_list) for choice in choices_of(schema)
        )
    if kind == "lax-or-strict":
        parts = [schema["lax_schema"], schema["strict_schema"]]
    elif kind == "chain":
        parts = schema["steps"][:1]
    else:
        parts = [schema[WRAPPERS[kind]]] if kind in WRAPPERS else []
    return bool(parts) and all(_is_of_texts(definitions, part, in_list=in_list) for part in parts)
