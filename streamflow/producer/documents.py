"""Objects of Python as the JSON documents that a contract judges. Pure."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from pydantic_core import PydanticSerializationError, to_json

from streamflow.contract import Event, epoch_number
from streamflow.core_schema import fields_of, parts_of
from streamflow.decoder import Decoder
from streamflow.errors import ErrorCode
from streamflow.field_names import json_paths
from streamflow.records import Rejection

_RECORD: Final = "the record"


class FieldKind(NamedTuple):
    """What a document may hold in a field of an event.

    Attributes:
        is_int: only whole numbers.
        must_be_there: it may be null, but not absent.
        number_of: makes its number of a time; None for a field that is not one of those.
    """

    is_int: bool
    must_be_there: bool
    number_of: Callable[[datetime], int] | None


PLAIN: Final = FieldKind(is_int=False, must_be_there=False, number_of=None)
LARGEST_EXACT: Final = 2**53  # beyond it, a float does not hold every whole number


class Documents:
    """Writes the documents of one contract."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.kinds = dict(_kinds(decoder))
        self._epochs = {name: kind.number_of for name, kind in self.kinds.items() if kind.number_of}

    def write(self, event: Event | Mapping[str, Any]) -> bytes | Rejection:
        """The document, not judged yet, or why there is none."""
        if isinstance(event, Event):
            try:
                return self._decoder.encode(event)
            except (PydanticSerializationError, ValueError, TypeError, AttributeError):
                # Of an event that was never validated (`model_construct`).
                return _violation("the event's values are not of the types that it declares")
        document = dict(event)
        for name in self._epochs.keys() & document.keys():
            if isinstance(document[name], datetime) and document[name].tzinfo is not None:
                document[name] = self._epochs[name](document[name])
        try:
            return _json(document)
        except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
            return self._explain(document, error)

    def _explain(self, document: Mapping[str, Any], error: Exception) -> Rejection:
        """Names the field, as far as the contract does: another name is input."""
        for name, value in document.items():
            try:
                _json({"": value})
            except (PydanticSerializationError, ValueError, TypeError, RecursionError) as found:
                field = name if name in self.kinds else _RECORD
                return _no_json(field, found)
        return _no_json(_RECORD, error)


def _json(document: Mapping[str, Any]) -> bytes:
    # NaN is written as such, and no contract accepts it: null would be a silent change.
    return to_json(document, inf_nan_mode="constants", fallback=_native)


def _native(value: Any) -> Any:
    """NumPy's scalars and arrays as Python's."""
    if type(value).__module__ == "numpy":
        return value.tolist()
    raise TypeError


def _no_json(field: str, error: Exception) -> Rejection:
    if "UnicodeEncodeError" in str(error):
        return Rejection(
            ErrorCode.UNSTORABLE_VALUE, "ValueError", f"{field}: holds a lone surrogate"
        )
    return _violation(f"{field}: holds a value of a type that JSON does not have")


def _violation(message: str) -> Rejection:
    return Rejection(ErrorCode.SCHEMA_VIOLATION, "TypeError", message)


def _kinds(decoder: Decoder) -> Iterator[tuple[str, FieldKind]]:
    """The fields of the contract's models, by the names that they have in JSON."""
    for part in parts_of(decoder.schema):
        if part["type"] != "model" or part["cls"] not in decoder.models:
            continue
        for name, field in fields_of(_with_fields(decoder, part)):
            schema = field["schema"]
            kind = FieldKind(
                decoder.definitions.unwrapped(schema)["type"] == "int",
                schema["type"] != "default" and decoder.definitions.is_nullable(schema),
                _number_of(decoder, schema),
            )
            for path in json_paths(name, field)[:1]:
                if len(path) == 1:
                    yield str(path[0]), kind


def _with_fields(decoder: Decoder, model: Mapping[str, Any]) -> Any:
    schema = decoder.definitions.resolved(model["schema"])
    while schema["type"] != "model-fields":
        schema = decoder.definitions.resolved(schema["schema"])
    return schema


def _number_of(decoder: Decoder, schema: Any) -> Callable[[datetime], int] | None:
    schema = decoder.definitions.resolved(schema)
    while schema["type"] in ("default", "nullable"):
        schema = decoder.definitions.resolved(schema["schema"])
    return epoch_number(schema)
