"""Types of msgspec made from a contract's core schema, for `fast_decoder`.

What msgspec does not check exactly as pydantic does is read as something simpler and converted afterwards;
what only pydantic can judge stays the JSON that it is, and pydantic judges that value alone.
"""

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date
from enum import Enum
from types import NoneType
from typing import Annotated, Any, Final, Literal, NamedTuple, Optional
from uuid import UUID

import msgspec
from msgspec import Meta
from pydantic import ValidationError
from pydantic_core import SchemaValidator

from streamflow.contract import RFC3339
from streamflow.core_schema import EARLIEST, LATEST, Definitions, parts_of, values_of
from streamflow.exact_keys import with_exact_keys
from streamflow.own_code import has_own_code
from streamflow.pii_keys import HASH_LENGTH, HASH_PATTERN, is_hashed
from streamflow.strict_choices import with_strict_choices
from streamflow.time_texts import DATE
from streamflow.utc_texts import moment_of

# What a conversion returns for a value that pydantic must judge, with its whole record.
NO: Final = object()

# Keys of a core schema that do not change what is accepted, and those that msgspec's `Meta` knows as well.
_NEUTRAL: Final = frozenset(("type", "strict", "metadata", "ref", "serialization"))
_BOUNDS: Final = frozenset(("ge", "gt", "le", "lt"))
_LENGTHS: Final = frozenset(("min_length", "max_length"))
_PLAIN: Final[dict[str, Any]] = {"bool": bool, "none": None, "uuid": UUID}
_PLAIN_DEFAULTS: Final = (str, int, float, bool, NoneType, Enum)
_EMPTY: Final = (list, dict)  # factories of a default
_OWN_CODE: Final = ("post_init", "custom_init", "root_model")
_CONFIGURED: Final = frozenset((
    "title", "strict", "extra_fields_behavior", "from_attributes", "validate_by_name"
))  # fmt: skip
_INT64: Final = 2**63
_TIME_TEXT: Final = {"type": "str", "pattern": RFC3339, "strict": True}
_TIME: Final = {
    "type": "datetime", "strict": False, "tz_constraint": "aware", "microseconds_precision": "truncate",
    "ge": EARLIEST, "le": LATEST,
}  # fmt: skip
_DATE: Final = {
    "type": "chain",
    "steps": [
        {"type": "str", "pattern": DATE, "strict": True},
        {"type": "date", "strict": False},
    ],
}
# A number that a double keeps, or a text of as many digits.
_SHORT_DECIMAL: Final = re.compile(rb'("?)-?[0-9]{1,11}(?:\.[0-9]{1,4})?\1')
_MOST_HASHES: Final = 100_000  # 12 MB
# What pydantic can only judge with all of its record, or in another way than here.
_ONLY_WHOLE: Final = frozenset(
    ("model", "definition-ref", "decimal", "dataclass", "typed-dict", "call")
)
_WORDS: Final = {
    "model": "holds a model, in a union or a set",
    "definition-ref": "holds itself",
    "decimal": "holds Decimals, in a union, a set or a tuple",
}


class UntranslatableError(ValueError):
    """A type, or something else in a contract, that only pydantic can judge. Says why."""


class ValueType(NamedTuple):
    """How the values of one field are read."""

    type: Any  # for msgspec
    convert: Callable[[Any], Any] | None = None  # makes the event's value, or `NO`


class FieldType(NamedTuple):
    part: ValueType
    alias: str  # its name in JSON
    default: Any = msgspec.NODEFAULT  # of a field that may be absent: for `msgspec.defstruct`


class Model(NamedTuple):
    """How the fields of one model are read."""

    cls: type
    fields: Mapping[str, FieldType]

    def struct(self, **options: Any) -> type[msgspec.Struct]:
        """Raises UntranslatableError for names that msgspec does not take."""
        try:
            return msgspec.defstruct(
                self.cls.__name__,
                [(name, field.part.type, field.default) for name, field in self.fields.items()],
                rename={name: field.alias for name, field in self.fields.items()},
                forbid_unknown_fields=True,
                kw_only=True,
                gc=False,  # it refers to nothing that refers to it
                **options,
            )
        except Exception as error:  # noqa: BLE001 (of several kinds)
            raise UntranslatableError(f"msgspec does not take its fields: {error}") from None


def decoder_of(struct: type[msgspec.Struct]) -> Callable[[Any], Any]:
    """Raises UntranslatableError for types that msgspec does not know."""
    try:
        return msgspec.json.Decoder(struct).decode
    except Exception as error:  # noqa: BLE001 (of several kinds)
        raise UntranslatableError(f"msgspec does not take its types: {error}") from None


def translated(schema: Any, definitions: Definitions) -> Model:
    """How a model's fields are read. Raises UntranslatableError."""
    return _Translation(definitions).model(schema)


class _Translation:
    """Of one model and what it consists of."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        # Models, outermost first, with their configurations.
        self._within: list[tuple[type, Any]] = []

    def model(self, schema: Any) -> Model:
        schema = self._definitions.resolved(schema)
        if schema["type"] != "model":
            raise UntranslatableError("no field tells its models apart")
        cls, fields, config = schema["cls"], schema["schema"], schema.get("config", {})
        if any(cls is outer for outer, _ in self._within):
            raise UntranslatableError(f"{cls.__name__} holds itself")
        if fields["type"] != "model-fields" or any(map(schema.get, _OWN_CODE)):
            raise UntranslatableError(f"{cls.__name__} has code of its own")
        if cls.__private_attributes__ or config.keys() - _CONFIGURED:
            raise UntranslatableError(f"{cls.__name__} has private attributes, or a configuration")
        self._within.append((cls, config))
        found = {name: self._field(name, field) for name, field in fields["fields"].items()}
        self._within.pop()
        if self._within and any(field.part.convert for field in found.values()):
            raise UntranslatableError(f"{cls.__name__} has times or Decimals")
        return Model(cls, found)

    def _field(self, name: str, field: Mapping[str, Any]) -> FieldType:
        try:
            return self._translated_field(field, field.get("validation_alias", name), name)
        except UntranslatableError as error:
            raise UntranslatableError(f"{name}: {error}") from None

    def _translated_field(self, field: Mapping[str, Any], alias: Any, name: str) -> FieldType:
        schema = field["schema"]
        if self._within[1:] and field.get("serialization_alias", name) != alias:
            raise UntranslatableError("is written under another name")
        if not isinstance(alias, str):
            raise UntranslatableError("has several names, or one in another object")
        if schema["type"] != "default":
            return FieldType(self._part(schema), alias)
        if schema.get("validate_default") or schema.get("on_error", "raise") != "raise":
            raise UntranslatableError("its default is checked")
        part, factory = self._part(schema["schema"]), schema.get("default_factory")
        if factory in _EMPTY:
            return FieldType(part, alias, msgspec.field(default_factory=factory))
        if factory is not None or not isinstance(schema.get("default"), _PLAIN_DEFAULTS):
            raise UntranslatableError("its default is no plain value")
        if part.convert is not None and isinstance(schema["default"], str):
            # Python has one empty text only: it could be the document's.
            raise UntranslatableError("its default is a text that is converted")
        return FieldType(part, alias, schema["default"])

    def _part(self, schema: Any) -> ValueType:
        schema = self._definitions.resolved(schema)
        own = {
            "decimal": self._decimal,
            "nullable": self._nullable,
            "list": self._list,
            "dict": self._dict,
            "model": self._model,
        }.get(schema["type"], _plain_part)
        return own(schema) or self._raw(schema)

    def _decimal(self, schema: Any) -> ValueType:
        judge = self._judge(schema)
        # In other forms it may be another number for pydantic (`exact_decimals`).
        return ValueType(
            msgspec.Raw, lambda raw: judge(raw) if _SHORT_DECIMAL.fullmatch(raw) else NO
        )

    def _nullable(self, schema: Any) -> ValueType:
        kind, convert = self._part(schema["schema"])
        if convert is None:
            return ValueType(Optional[kind])  # noqa: UP045 (it may be None alone)
        if kind is msgspec.Raw:
            return ValueType(kind, lambda raw: None if bytes(raw) == b"null" else convert(raw))
        return ValueType(kind | None, lambda value: None if value is None else convert(value))

    def _model(self, schema: Any) -> ValueType:
        return ValueType(self.model(schema).struct())

    def _list(self, schema: Any) -> ValueType | None:
        more = schema.keys() - _NEUTRAL
        if "items_schema" not in more or not more <= {"items_schema", *_LENGTHS}:
            return None
        item = self._within_others(schema["items_schema"])
        return ValueType(_with(list[item], schema, _LENGTHS))  # type: ignore[valid-type]

    def _dict(self, schema: Any) -> ValueType | None:
        keys: Any = schema.get("keys_schema", {})
        more = schema.keys() - _NEUTRAL
        if more != {"keys_schema", "values_schema"} or keys != {"type": "str"}:
            return None
        return ValueType(dict[str, self._within_others(schema["values_schema"])])  # type: ignore[misc]

    def _within_others(self, schema: Any) -> Any:
        """The type of a value within another, where it is not converted."""
        kind, convert = self._part(schema)
        if convert is not None:
            raise UntranslatableError(f"holds {schema['type']}")
        return kind

    def _raw(self, schema: Any) -> ValueType:
        """A value that pydantic judges alone."""
        if has_own_code(schema):
            raise UntranslatableError("has code of its own")
        for part in parts_of(schema):
            if part["type"] in _ONLY_WHOLE:
                raise UntranslatableError(_WORDS.get(part["type"], f"holds {part['type']}"))
        return ValueType(msgspec.Raw, self._judge(schema))

    def _judge(self, schema: Any) -> Callable[[Any], Any]:
        strict = with_exact_keys(with_strict_choices(schema))
        config = self._within[-1][1]
        validate = SchemaValidator(strict, config, _use_prebuilt=False).validate_json

        def judge(raw: msgspec.Raw) -> Any:
            try:
                return validate(bytes(raw))
            except ValidationError:
                return NO

        return judge


def _with(kind: Any, schema: Mapping[str, Any], limits: AbstractSet[str]) -> Any:
    found = {name: schema[name] for name in limits & schema.keys()}
    try:
        return Annotated[kind, Meta(**found)] if found else kind
    except ValueError as error:
        raise UntranslatableError(f"msgspec does not take its limits: {error}") from None


def _are_sound(schema: Mapping[str, Any], *, within_int64: bool = False) -> bool:
    """Whether msgspec takes these bounds."""
    bounds = schema.keys() & _BOUNDS
    if schema.get("gt") == _INT64 - 1 or schema.get("lt") == -_INT64:
        return False  # it counts one on
    return not (bounds >= {"ge", "gt"} or bounds >= {"le", "lt"}) and all(
        type(schema[each]) is int and -_INT64 <= schema[each] < _INT64
        if within_int64
        else type(schema[each]) in (int, float)
        for each in bounds
    )


def _simple_values(schema: Any) -> list[Any]:
    """The values of a choice among texts, or among whole numbers; none for another one."""
    values = values_of(schema)
    if schema.get("missing") is not None or len({*map(type, values)}) != 1:
        return []
    return values if type(values[0]) in (str, int) else []


def _is_time(schema: Any) -> bool:
    *texts, last = schema["json_schema"].get("steps", ({},))
    return texts == [_TIME_TEXT] and {**last, "strict": False} == _TIME


def _plain_part(schema: Any) -> ValueType | None:
    """Of a single value that msgspec checks as pydantic does, or nearly; None if there is more to check."""
    kind, more = schema["type"], schema.keys() - _NEUTRAL
    match kind:
        case "str" if more <= _LENGTHS:
            return ValueType(_with(str, schema, _LENGTHS))
        case "str" if more == {"pattern"} and schema["pattern"] == HASH_PATTERN:
            return ValueType(str, KnownHashes())
        case "int" if more <= _BOUNDS and _are_sound(schema, within_int64=True):
            return ValueType(_with(int, schema, _BOUNDS))
        case "float" if more <= {*_BOUNDS, "allow_inf_nan"} and _are_sound(schema):
            return ValueType(_with(float, schema, _BOUNDS))
        case "bool" | "none" | "uuid" if not more:
            return ValueType(_PLAIN[kind])
        case "literal" | "enum" if values := _simple_values(schema):
            return ValueType(schema["cls"] if kind == "enum" else Literal[tuple(values)])
        case "json-or-python" if _is_time(schema):
            return ValueType(str, time_of_text)
        case "json-or-python" if schema["json_schema"] == _DATE:
            return ValueType(date)
    return None


class KnownHashes(set[str | None]):
    """Texts that are hashes, and None. Most have been seen before: looking them up is faster than a
    pattern."""

    def __init__(self) -> None:
        super().__init__((None,))

    def __call__(self, text: str | None) -> Any:
        if text is None or text in self:
            return text
        # Python's "$" also matches before a line break.
        if len(text) != HASH_LENGTH or not is_hashed(text):
            return NO
        if len(self) > _MOST_HASHES:
            self.clear()
            self.add(None)
        self.add(text)
        return text


def time_of_text(text: str) -> Any:
    return moment_of(text) or NO
