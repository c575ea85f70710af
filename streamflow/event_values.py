"""The values that an event holds, at any depth."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel

from streamflow.pii_keys import is_hashed


def scalars_in(value: Any) -> Iterator[Any]:
    """All values within a field's: keys too."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from scalars_in(key)
            yield from scalars_in(part)
        return
    parts = _parts_of(value)
    if parts is None:
        yield value
    else:
        for _, part, _ in parts:
            yield from scalars_in(part)


def clear_values(
    value: Any, private: Collection[str], *, declared: bool, is_private: bool = False
) -> Iterator[Any]:
    """What is held under a private name and is no hash: texts, numbers and the like.

    Args:
        value: an event, or a part of one.
        private: the names.
        declared: whether fields that a model declares count, or only what is kept beside them: unknown
            fields, and the entries of dictionaries.
        is_private: whether the value itself is.
    """
    parts = _parts_of(value)
    if parts is None:
        value = value.value if isinstance(value, Enum) else value
        is_clear = value not in (None, "") and not isinstance(value, bool)
        if is_private and is_clear and not (isinstance(value, str) and is_hashed(value)):
            yield value
        return
    for name, part, of_model in parts:
        named = name in private and (declared or not of_model)
        yield from clear_values(part, private, declared=declared, is_private=is_private or named)


def _parts_of(value: Any) -> Iterator[tuple[Any, Any, bool]] | None:
    """Names, values, and whether a model declares the name; None for a value that has no parts."""
    if isinstance(value, BaseModel):
        return _fields_of(value.__dict__, value.__pydantic_extra__ or {})
    if isinstance(value, Mapping):
        return _fields_of({}, value)
    if is_dataclass(value) and not isinstance(value, type):
        own = {field.name: getattr(value, field.name, None) for field in fields(value)}
        kept = getattr(value, "__dict__", {})
        return _fields_of(own, {name: part for name, part in kept.items() if name not in own})
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        return ((None, part, False) for part in value)
    return None


def _fields_of(own: Mapping[str, Any], kept: Mapping[Any, Any]) -> Iterator[tuple[Any, Any, bool]]:
    yield from ((name, part, True) for name, part in own.items())
    yield from ((name, part, False) for name, part in kept.items())
