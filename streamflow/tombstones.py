"""Which row a tombstone deletes: the key of the record, or what its format says. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic import create_model

from streamflow.contract import Event
from streamflow.core_schema import values_of
from streamflow.decoder import Decoder
from streamflow.errors import ErrorCode
from streamflow.field_names import paths_of
from streamflow.formats.documents import parse, violation, write
from streamflow.records import Rejection

_NUMBER: Final = re.compile(r"-?[0-9]+")
_BOOLS: Final = {"true": True, "false": False}


class Deletion(NamedTuple):
    """A row is to be deleted: that with these values of the primary key."""

    key: tuple[Any, ...]


class KeyReader:
    """Reads the keys of tombstones, and holds them to the contract.

    Args:
        contract: of the stream.
        primary_key: names of its fields.
        record_key: what makes the keys of records. If that is the only field of the primary key, a record's
            key is that field's text; else it must be a JSON object with the fields of the primary key.
    """

    def __init__(self, contract: Decoder, primary_key: Sequence[str], record_key: object) -> None:
        model = contract.models[0]
        fields: dict[str, Any] = {
            name: (model.model_fields[name].annotation, model.model_fields[name])
            for name in primary_key
        }
        self._fields = tuple(primary_key)
        # Of each field the JSON names, one of which a key has; of a path, its first step.
        self._names = [
            [str(path[0]) for path in paths_of(name, model.model_fields[name])]
            for name in primary_key
        ]
        self._decoder = contract.with_model(create_model("Key", __base__=Event, **fields))
        self._is_text = self._fields == (record_key,)
        self._kinds = _kinds(contract, primary_key[0]) if self._is_text else frozenset()

    def read(self, document: bytes | None, record_key: bytes | None) -> Deletion | Rejection:
        """The row to be deleted. Raises nothing.

        Args:
            document: JSON object with the fields of the primary key; None if only the record's key says it.
            record_key: of the tombstone.
        """
        key = self._values(document, record_key)
        if isinstance(key, Rejection):
            return _of_key(key)
        given = [next(filter(key.__contains__, names), None) for names in self._names]
        missing = [names[0] for name, names in zip(given, self._names, strict=True) if name is None]
        if missing:
            return violation(f"the key of a tombstone has no {', '.join(missing)}")
        value = write({name: key[name] for name in given if name is not None})
        found = value if isinstance(value, Rejection) else self._decoder.decode(value)
        if isinstance(found, Rejection):
            return _of_key(found)
        return Deletion(tuple(getattr(found, name) for name in self._fields))

    def _values(
        self, document: bytes | None, record_key: bytes | None
    ) -> Mapping[str, Any] | Rejection:
        if document is None and not record_key:
            return violation("missing, so no row can be deleted")
        if document is None and self._is_text:
            return self._of_text(record_key or b"")
        found = parse(document or record_key or b"")
        if isinstance(found, Rejection):
            return found
        if not isinstance(found, dict):
            return violation(
                f"not a JSON object with {', '.join(names[0] for names in self._names)}"
            )
        return found

    def _of_text(self, key: bytes) -> Mapping[str, Any] | Rejection:
        [[name, *_]] = self._names
        try:
            text = key.decode()
        except UnicodeDecodeError as error:
            reason = f"not UTF-8 from byte {error.start} on"
            return Rejection(ErrorCode.INVALID_UTF8, "UnicodeDecodeError", reason)
        if "bool" in self._kinds and text in _BOOLS:
            return {name: _BOOLS[text]}
        if "int" in self._kinds and _NUMBER.fullmatch(text):
            return {name: _integer(text)}
        return {name: text}


def _integer(text: str) -> Any:
    found = parse(b"[" + text.encode() + b"]")
    return text if isinstance(found, Rejection) else found[0]


def _kinds(contract: Decoder, name: str) -> frozenset[str]:
    """Which JSON types a field's values have that are not text: ``int``, ``bool``."""
    schema = contract.definitions.unwrapped(contract.fields_of(contract.models[0])[name])
    return frozenset((schema["type"], *(type(value).__name__ for value in values_of(schema))))


def _of_key(found: Rejection) -> Rejection:
    message = found.message.removeprefix("the record ")
    return found._replace(message=f"the key of a tombstone: {message}"[:1000])
