"""What a field of a contract is called: in Python, and in the JSON documents that it is read from."""

from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, AliasPath
from pydantic.fields import FieldInfo

# Steps from the model's document to the value: names of objects' fields, and indexes of lists.
JsonPath = tuple[str | int, ...]


def json_paths(name: str, field: Mapping[str, Any]) -> list[JsonPath]:
    """Where a document may have the value of a field, a field of a core schema: one path for each alias
    (``AliasChoices`` are several, ``AliasPath`` has several steps), the first one first; its name in Python
    if it has no alias."""
    alias = field.get("validation_alias")
    if alias is None:
        return [(name,)]
    if isinstance(alias, str):
        return [(alias,)]
    is_choice = all(isinstance(one, list) for one in alias)
    return [tuple(path) for path in (alias if is_choice else [alias])]


def paths_of(name: str, field: FieldInfo) -> list[JsonPath]:
    """As `json_paths`, of a model's field."""
    alias = field.validation_alias
    if isinstance(alias, AliasPath | AliasChoices):
        return json_paths(name, {"validation_alias": alias.convert_to_aliases()})
    return [(alias or name,)]


def names_of(name: str, field: Mapping[str, Any]) -> set[str]:
    """All names that a field has, in Python and in JSON: where it is read from, and how it is written."""
    names = {name, *json_names(name, field)}
    written = field.get("serialization_alias")
    return names if written is None else names | {written}


def json_names(name: str, field: Mapping[str, Any]) -> set[str]:
    """The names under which a document may have the value: of a path the last one, whatever follows."""
    last = (
        next((step for step in reversed(path) if isinstance(step, str)), None)
        for path in json_paths(name, field)
    )
    return {each for each in last if each is not None}
