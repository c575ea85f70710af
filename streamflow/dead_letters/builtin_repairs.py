"""The built-in repairs, for common causes."""

import math
import re
from collections.abc import Iterable
from typing import Any, Final

from streamflow.dead_letters.repairs import Document, repair
from streamflow.field_names import paths_of
from streamflow.postgres.tables import event_columns
from streamflow.privacy import Hasher, is_hashed
from streamflow.stream import Stream

_INTEGER: Final = re.compile(r"-?[0-9]{1,40}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_WITHOUT_ZONE: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
)


@repair("hash_address", "Hashes the clear-text value of a private field.")
def hash_address(document: Document, stream: Stream, hasher: Hasher) -> Document:
    """At any depth. Hashes stay as they are."""
    return {
        name: _hashed(value, hasher)
        if name in stream.decoder.private_fields
        else _within(value, stream, hasher)
        for name, value in document.items()
    }


def _within(value: Any, stream: Stream, hasher: Hasher) -> Any:
    if isinstance(value, list):
        return [_within(part, stream, hasher) for part in value]
    return hash_address(value, stream, hasher) if isinstance(value, dict) else value


def _hashed(value: Any, hasher: Hasher) -> Any:
    if isinstance(value, list):
        return [_hashed(part, hasher) for part in value]
    return (
        hasher.hash(value) if isinstance(value, str) and value and not is_hashed(value) else value
    )


@repair("coerce_numbers", 'Turns text into a number ("7" into 7) where the contract has a number.')
def coerce_numbers(document: Document, stream: Stream, _hasher: Hasher) -> Document:
    """Text that is not just a number stays as it is."""
    return document | {
        name: int(text)
        for name, text in _texts(document, _fields(stream, "bigint"))
        if _INTEGER.fullmatch(text)
    } | {
        name: float(text)
        for name, text in _texts(document, _fields(stream, "double precision"))
        if _NUMBER.fullmatch(text) and math.isfinite(float(text))
    }  # fmt: skip


@repair("add_zone", "Reads a time without a zone as UTC.")
def add_zone(document: Document, stream: Stream, _hasher: Hasher) -> Document:
    """Only a complete time in RFC 3339 that lacks its zone."""
    return document | {
        name: f"{text}Z"
        for name, text in _texts(document, _fields(stream, "timestamp with time zone"))
        if _WITHOUT_ZONE.fullmatch(text)
    }


def _fields(stream: Stream, kind: str) -> list[str]:
    """The names, in JSON and in Python, of the fields whose column has this type."""
    columns = {column.name for column in event_columns(stream) if column.type == kind}
    names = {
        path[0]
        for model in stream.decoder.models
        for name, field in model.model_fields.items()
        if name in columns
        for path in ((name,), *paths_of(name, field))
        if len(path) == 1
    }
    return sorted(map(str, names))


def _texts(document: Document, names: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, document[name]) for name in names if isinstance(document.get(name), str)]
