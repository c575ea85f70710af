"""The fast path of lines, as `streamflow.fast_decoder` is of records: it only ever says yes.

msgspec reads an ordinary line of an ordinary contract into its fields; private ones are hashed, times get
their one form, and msgspec writes the record. What goes into the topic is, byte for byte, what
`LineReader.read` makes of the line; `tests/unit/test_fast_lines.py` shows that for contracts and lines
drawn at random. All else is None here, for `LineReader.read` to judge.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from operator import attrgetter
from typing import Any, Final, NamedTuple, get_args

import msgspec

from streamflow import addresses
from streamflow.contract import format_time
from streamflow.core_schema import Definitions, parts_of, requires_null
from streamflow.fast_types import (
    FieldType,
    UntranslatableError,
    decoder_of,
    time_of_text,
    translated,
)
from streamflow.pii_keys import HASH_LENGTH, HASH_PATTERN, is_hashed
from streamflow.privacy import Hasher
from streamflow.stream import Stream
from streamflow.utc_texts import micros_of_texts, moment_of

_LONGEST: Final = 65_536  # bytes of a line
_WRITTEN: Final = len("2000-01-01T00:00:00.000Z")
# Of values that msgspec writes as pydantic does.
_SIMPLE: Final = frozenset(("str", "int", "bool", "literal", "enum", "uuid"))


class Keyed(NamedTuple):
    """Key and value of a line's record."""

    key: bytes
    value: bytes


class FastLines:
    """Makes records of ordinary lines, many at once.

    Raises:
        UntranslatableError: the stream's records can only be made from events of pydantic.
    """

    def __init__(self, stream: Stream, hasher: Hasher) -> None:
        decoder = stream.decoder
        private = hasher.private_names | decoder.private_fields
        model = translated(decoder.definitions.resolved(decoder.schema), decoder.definitions)
        if stream.key not in model.fields or decoder.declares_private:
            raise UntranslatableError("its key is made of an event, or it declares private values")
        if requires_null(decoder.schema) or _has_serializers(decoder.schema):
            raise UntranslatableError("its events are not written as they are read")
        schemas = decoder.fields_of(decoder.models[0])
        kinds = {
            name: _kind(field, schemas[name], decoder.definitions, field.alias in private)
            for name, field in model.fields.items()
        }
        struct = model.struct(omit_defaults=True)  # absent fields are all None
        self._decode: Callable[[bytes], Any] = decoder_of(struct)
        self._encode = msgspec.json.Encoder().encode
        self._key = attrgetter(str(stream.key))
        self._times = [name for name, kind in kinds.items() if kind == "time"]
        self._private = [
            # A name that only the contract has as private is not hashed, but must be a hash.
            (name, model.fields[name].alias in hasher.private_names)
            for name, kind in kinds.items()
            if kind == "private"
        ]
        self._hash = hasher.hash

    def read(self, lines: Sequence[bytes]) -> list[Keyed | None]:
        """The record of each line, None where `LineReader` has to read it."""
        texts: list[str] = []  # in clear, of all lines
        found = [self._fields(line, texts) for line in lines]
        read = [line for line, fields in zip(lines, found, strict=True) if fields is not None]
        if _hold_signs(b"\n".join(read), texts):
            for index, line in enumerate(lines):
                texts = []
                if self._fields(line, texts) is None or _hold_signs(line, texts):
                    found[index] = None
        for name in self._times:
            _write_times(found, name)
        return [None if fields is None else self._record(fields) for fields in found]

    def _fields(self, line: bytes, texts: list[str]) -> Any:
        """The fields of a line, hashed; None if it is no ordinary one. Adds to the texts what was private."""
        try:
            fields = self._decode(line)
        except (msgspec.MsgspecError, ValueError):
            return None
        if len(line) > _LONGEST:
            return None
        for name, hashes in self._private:
            text = getattr(fields, name)
            if text is None:
                continue
            if len(text) >= HASH_LENGTH and is_hashed(text):
                if len(text) > HASH_LENGTH:  # with a line break behind it
                    return None
            elif text and hashes:
                texts.append(text)
                setattr(fields, name, self._hash(text))
            else:
                return None
        return fields

    def _record(self, fields: Any) -> Keyed | None:
        key = self._key(fields)
        if type(key) is not str:
            return None
        return Keyed(key.encode(), self._encode(fields))


def _hold_signs(data: bytes, texts: Sequence[str]) -> bool:
    """Whether there may be addresses in lines besides those among the texts, which are in these lines: then
    there are more at signs in them, in whatever form."""
    ats = data.count(b"@")
    if ats != "\n".join(texts).count("@"):
        return True
    return addresses.may_hold(data.replace(b"@", b" ") if ats else data)


def _write_times(found: list[Any], name: str) -> None:
    """Gives the times of a field the form in which they are written."""
    indexes = [
        index
        for index, fields in enumerate(found)
        if fields is not None and getattr(fields, name) is not None
    ]
    texts = [getattr(found[index], name) for index in indexes]
    for index, text, micros in zip(indexes, texts, micros_of_texts(texts), strict=True):
        if micros is not None and len(text) == _WRITTEN:
            continue
        moment = moment_of(text)
        if moment is None:
            found[index] = None
        else:
            setattr(found[index], name, format_time(moment))


def _kind(field: FieldType, schema: Any, definitions: Definitions, private: bool) -> str:
    """What is to be done with a field's values."""
    schema = definitions.resolved(schema)
    while schema["type"] in ("default", "nullable"):
        schema = definitions.resolved(schema["schema"])
    is_hash = schema["type"] == "str" and schema.get("pattern") == HASH_PATTERN
    if field.default not in (None, msgspec.NODEFAULT) or private != is_hash:
        raise UntranslatableError("a field has a default, or the name of a private one")
    if is_hash:
        return "private"
    is_date = date in (field.part.type, *get_args(field.part.type))
    if field.part.convert is None and (schema["type"] in _SIMPLE or is_date):
        return "simple"
    if field.part.convert is time_of_text and _is_written(schema):
        return "time"
    raise UntranslatableError(f"pydantic writes {schema['type']}")


def _is_written(schema: Mapping[str, Any]) -> bool:
    """Whether these are times that `format_time` writes."""
    serialization = schema.get("serialization", {})
    return serialization.get("function") is format_time


def _has_serializers(schema: Any) -> bool:
    """Whether code, or a name of its own for what is written, is part of how events are written."""
    return any(
        ("serialization" in part and not _is_written(part))
        or part.get("computed_fields")
        or part.get("serialization_exclude")
        or part.get("serialization_exclude_if")
        or part.get("serialization_alias", part.get("validation_alias"))
        != part.get("validation_alias")
        for part in parts_of(schema)
    )
