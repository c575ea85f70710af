"""The fields that windows group by and aggregate: what kinds of values they hold, and how events give them.
Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
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
from streamflow.core_schema import choices_of, fits_bigint, values_of
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
DOCUMENT: Final = "document"  # what is no scalar
# What the values of each kind are. Contracts with code of the user's own may make other ones.
TYPES: Final[dict[str, tuple[type, ...]]] = {
    "text": (str,),
    "integer": (int,),
    "decimal": (Decimal,),
    "float": (float,),
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
        of_enum: whether events hold it as a member of an Enum.
        schemas: its core schemas, in the models that have it.
    """

    path: str
    kind: str
    nullable: bool
    bounded: bool
    of_enum: bool
    schemas: tuple[Any, ...]

    def getter(self, *, whole: bool = False) -> Callable[[Any], Any]:
        """Gives the value that an event has, None if it has none: that of an Enum's member, a text that is
        not too long, and no number of too many digits; `whole`: whatever its length."""
        prepare = None if whole or self.bounded else _BOUNDED.get(self.kind)
        path = f"{self.path}._value_" if self.of_enum else self.path
        if not self.nullable:
            get = attrgetter(path)
            return get if prepare is None else lambda event: prepare(get(event))
        names = path.split(".")
        if len(names) == 1 and prepare is None:
            [name] = names
            return lambda event: getattr(event, name, None)

        def value_of(event: Any) -> Any:
            for name in names:
                event = getattr(event, name, None)
                if event is None:
                    return None
            return event if prepare is None else prepare(event)

        return value_of


def _text(value: Any) -> str:
    """A URL is no text yet."""
    return shortened(value if isinstance(value, str) else str(value))


def _decimal(number: Decimal) -> Decimal | None:
    text = str(number)
    return number if len(text) < _FEW_DIGITS and "E" not in text else bounded_decimal(number)


_BOUNDED: Final[dict[str, Callable[[Any], Any]]] = {
    "text": _text,
    "decimal": _decimal,
    "integer": bounded_integer,
}


def field_at(decoder: Decoder, path: str, *, everywhere: bool = True) -> Field:
    """The field that a path leads to, in each model of a contract; with `everywhere`, all must have it.
    Raises NoField; of kinds that differ, the field is a document."""
    schemas: list[Any] = []
    missing: NoField | None = None
    nullable = False
    for model in decoder.models:
        try:
            schema, may_be_null = _schema_at(decoder, model, path)
        except NoField as error:
            missing, nullable = missing or error, True
            continue
        schemas.append(schema)
        nullable = nullable or may_be_null
    if missing is not None and (everywhere or not schemas):
        raise missing
    unwrapped = [decoder.definitions.unwrapped(schema) for schema in schemas]
    kinds = {_kind(schema, decoder) for schema in unwrapped}
    of_enum = {schema["type"] == "enum" for schema in unwrapped}
    # A member of an Enum in one model, and a plain value in another.
    kind = kinds.pop() if len(kinds) == len(of_enum) == 1 else DOCUMENT
    bounded = all(map(_is_bounded, unwrapped))
    return Field(path, kind, nullable, bounded, of_enum == {True}, tuple(schemas))


def _schema_at(decoder: Decoder, model: type, path: str) -> tuple[Any, bool]:
    """The core schema of a field, and whether it or one on the way to it may be null."""
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
    return fields[last], nullable or definitions.is_nullable(fields[last])


def _kind(schema: Any, decoder: Decoder) -> str:
    if schema["type"] in ("literal", "enum"):
        types = {type(value) for value in values_of(schema)}
        return _OF_VALUES.get(types.pop(), DOCUMENT) if len(types) == 1 else DOCUMENT
    if schema["type"] == "union":
        choices = [decoder.definitions.unwrapped(choice) for choice in choices_of(schema)]
        kinds = {_kind(choice, decoder) for choice in choices if choice["type"] != "none"}
        plain = all(choice["type"] != "enum" for choice in choices)
        return kinds.pop() if plain and len(kinds) == 1 else DOCUMENT
    return _KINDS.get(schema["type"], DOCUMENT)


def _is_bounded(schema: Any) -> bool:
    match schema["type"]:
        case "str":
            return (schema.get("max_length") or LONGEST_TEXT + 1) <= LONGEST_TEXT
        case "int":
            return fits_bigint(schema)
        case "decimal":
            digits, places = schema.get("max_digits"), schema.get("decimal_places")
            return digits is not None and places is not None and digits <= MOST_DIGITS
        case "literal" | "enum":
            return all(len(str(value)) <= LONGEST_TEXT for value in values_of(schema))
        case kind:
            return kind not in ("url", "multi-host-url", "union")
