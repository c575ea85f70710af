"""The fields that windows group by and aggregate: what kinds of values they hold, and how events give them.
Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from streamflow.aggregates.values import (
    LONGEST_TEXT,
    MOST_DIGITS,
    bounded_decimal,
    bounded_integer,
    shortened,
)
from streamflow.core_schema import choices_of, is_always_bigint, values_of
from streamflow.decoder import Decoder

_KINDS: Final = {
    "str": "text",
    "url": "text",
    "multi-host-url": "text",
    "int": "integer",
    "decimal": "decimal",
    "float": "float",
    "bool": "boolean",
    "datetime": "datetime",
    "date": "date",
    "time": "time",
    "timedelta": "timedelta",
    "uuid": "uuid",
    "bytes": "bytes",
}
_OF_VALUES: Final = {str: "text", int: "integer", bool: "boolean"}
_URLS: Final = frozenset(("url", "multi-host-url"))
DOCUMENT: Final = "document"  # what is no scalar
# What the values of each kind are; a default may be a whole number, as in ``total: Decimal = 0``. Contracts
# with code of the user's own may make other ones.
TYPES: Final[dict[str, tuple[type, ...]]] = {
    "text": (str,),
    "integer": (int,),
    "decimal": (Decimal, int),
    "float": (float, int),
    "boolean": (bool,),
    "datetime": (datetime,),
    "date": (date,),
    "time": (time,),
    "timedelta": (timedelta,),
    "uuid": (UUID,),
    "bytes": (bytes,),
}
_FEW_DIGITS: Final = 900  # of a number's text, that need no closer look


class NoField(ValueError):
    """A path leads to no field.

    Attributes:
        name: the part of the path that is not there.
        owner: the name of the model that lacks it.
        fields: that the model has.
    """

    def __init__(self, name: str, owner: str, fields: Mapping[str, Any] | None) -> None:
        super().__init__(name)
        self.name = name
        self.owner = owner
        self.fields = None if fields is None else list(fields)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the events, by its dotted path.

    Attributes:
        kind: of its values, as in `TYPES`, or `DOCUMENT`.
        nullable: whether an event may not have it.
        bounded: whether each of its values is short, as a number or as a text.
        attributes: the path of attributes that every event has and that gives its value; None if it takes a
            closer look.
        of_enum: whether events hold it as a member of an Enum.
        schemas: its core schemas, in the models that have it.
    """

    path: str
    kind: str
    nullable: bool
    bounded: bool
    attributes: str | None
    of_enum: bool
    schemas: tuple[Any, ...]

    @property
    def get(self) -> Callable[[Any], Any]:
        """Gives the value that an event has, None if it has none; the text of a URL."""
        if self.attributes is not None:
            return attrgetter(self.attributes)
        names = self.path.split(".")
        is_text = self.kind == "text" and not self.of_enum  # which a URL is not yet

        def walk(event: Any) -> Any:
            for name in names:
                event = getattr(event, name, None)
                if event is None:
                    return None
            return str(event) if is_text else event

        return walk

    @property
    def shorten(self) -> Callable[[Any], Any] | None:
        """Makes a text short, None of a number of too many digits, and a value of an Enum's member; takes no
        None. None if all values are short."""
        if self.of_enum:
            return value_of
        return None if self.bounded else _SHORTEN.get(self.kind)


def value_of(member: Any) -> Any:
    """Contracts may keep the value itself (``use_enum_values``), and defaults are not validated."""
    value = member.value if isinstance(member, Enum) else member
    return shortened(value) if isinstance(value, str) else value


def _decimal(number: Any) -> Any:
    if isinstance(number, int):  # a default
        return bounded_integer(number)
    text = str(number)
    return number if len(text) < _FEW_DIGITS and "E" not in text else bounded_decimal(number)


_SHORTEN: Final[dict[str, Callable[[Any], Any]]] = {
    "text": shortened,
    "decimal": _decimal,
    "integer": bounded_integer,
}


def field_at(decoder: Decoder, path: str, *, everywhere: bool = True) -> Field:
    """The field that a path leads to, in each model of a contract; with `everywhere`, all must have it.
    Raises NoField; of kinds that differ, the field is a document."""
    definitions, schemas = decoder.definitions, []
    missing: NoField | None = None
    # Of the way to it, and of the field itself.
    may_miss = nullable = False
    for model in decoder.models:
        try:
            schema, is_optional = _schema_at(decoder, model, path)
        except NoField as error:
            missing = missing or error
            continue
        schemas.append(schema)
        may_miss = may_miss or is_optional
        nullable = nullable or definitions.is_nullable(schema)
    if missing is not None and (everywhere or not schemas):
        raise missing
    may_miss = may_miss or missing is not None
    unwrapped = [definitions.unwrapped(schema) for schema in schemas]
    kinds = {_kind(schema, decoder) for schema in unwrapped}
    types = {schema["type"] for schema in unwrapped}
    of_enum = types == {"enum"}
    # A member of an Enum in one model, and a plain value in another.
    is_mixed = len(kinds) > 1 or ("enum" in types and not of_enum)
    is_plain = not (may_miss or types & _URLS)
    return Field(
        path,
        DOCUMENT if is_mixed else kinds.pop(),
        nullable or may_miss,
        all(map(_is_bounded, unwrapped)),
        path if is_plain else None,
        of_enum,
        tuple(schemas),
    )


def _schema_at(decoder: Decoder, model: type, path: str) -> tuple[Any, bool]:
    """The core schema of a field, and whether one on the way to it may be null."""
    definitions, owner = decoder.definitions, model.__name__
    fields, nullable = decoder.fields_of(model), False
    *steps, last = path.split(".")
    for name in steps:
        if name not in fields:
            raise NoField(name, owner, fields)
        schema = fields[name]
        nullable = nullable or definitions.is_nullable(schema)
        nested = definitions.unwrapped(schema)
        owner = f"{owner}.{name}"
        if nested["type"] != "model" or nested.get("root_model"):
            raise NoField(last, owner, None)
        fields = definitions.fields(schema)
    if last not in fields:
        raise NoField(last, owner, fields)
    return fields[last], nullable


def judge(value: Any, kind: str) -> None:
    """Raises TypeError or ValueError for a value that is none of the kind: what a validator of the user's own
    makes, or a default, may be anything."""
    if value is None:
        return
    if not isinstance(value, TYPES[kind]) or (kind == "date" and isinstance(value, datetime)):
        raise TypeError
    match value:
        case float() if not math.isfinite(value):
            raise ValueError
        case Decimal() if not value.is_finite():
            raise ValueError
        case datetime() if value.utcoffset() is None:
            raise ValueError
        case time() if value.tzinfo is not None:
            raise ValueError


def wrong_default(decoder: Decoder, path: str) -> str | None:
    """A part of the path whose default is not of its type, as pydantic does not validate defaults."""
    for model in decoder.models:
        fields, steps = decoder.fields_of(model), path.split(".")
        for number, name in enumerate(steps, 1):
            if name not in fields:
                break
            schema, kind = fields[name], _kind(decoder.definitions.unwrapped(fields[name]), decoder)
            if not _is_sound(schema, kind, steps[number:], decoder):
                return ".".join(steps[:number])
            if number < len(steps):
                fields = decoder.definitions.fields(schema)
    return None


def _is_sound(schema: Any, kind: str, rest: Sequence[str], decoder: Decoder) -> bool:
    """`rest`: the path within the default of a model."""
    inner = decoder.definitions.unwrapped(schema)
    if schema["type"] != "default" or schema.get("default") is None or inner["type"] in _URLS:
        return True
    value = schema["default"]
    if inner["type"] == "model":
        return isinstance(value, inner["cls"]) and _holds_finite(value, rest)
    value = value.value if inner["type"] == "enum" and isinstance(value, Enum) else value
    if kind not in TYPES:
        return True
    try:
        judge(value, kind)
    except (TypeError, ValueError):
        return False
    return True


def _holds_finite(value: Any, path: Sequence[str]) -> bool:
    """Whether a number within a model, of which pydantic has made what it is, is finite."""
    for name in path:
        value = getattr(value, name, None)
    return not isinstance(value, float | Decimal) or math.isfinite(value)


def _kind(schema: Any, decoder: Decoder) -> str:
    if schema["type"] in ("literal", "enum"):
        types = {type(value) for value in values_of(schema)}
        return _OF_VALUES.get(types.pop(), DOCUMENT) if len(types) == 1 else DOCUMENT
    if schema["type"] == "union":
        choices = [decoder.definitions.unwrapped(choice) for choice in choices_of(schema)]
        kinds = {_kind(choice, decoder) for choice in choices if choice["type"] != "none"}
        plain = all(choice["type"] not in {"enum", *_URLS} for choice in choices)
        return kinds.pop() if plain and len(kinds) == 1 else DOCUMENT
    return _KINDS.get(schema["type"], DOCUMENT)


def _is_bounded(schema: Any) -> bool:
    match schema["type"]:
        case "str":
            return (schema.get("max_length") or LONGEST_TEXT + 1) <= LONGEST_TEXT
        case "int":
            return is_always_bigint(schema)
        case "decimal":
            digits, places = schema.get("max_digits"), schema.get("decimal_places")
            return digits is not None and places is not None and digits <= MOST_DIGITS
        case "literal" | "enum":
            return all(len(str(value)) <= LONGEST_TEXT for value in values_of(schema))
        case kind:
            return kind not in _URLS and kind != "union"
