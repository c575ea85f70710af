"""Protobuf with Confluent's framing, by generated classes or by the descriptors of a registry."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from streamflow import argument_types
from streamflow.argument_types import FLAG, keeps_faults, optional
from streamflow.errors import ConfigurationError, ErrorCode
from streamflow.formats.connect_types import decimal_of
from streamflow.formats.documents import broken, violation
from streamflow.formats.framing import MAX_BYTES, REGISTRY, Framed
from streamflow.formats.proto_files import described
from streamflow.formats.schema_registry import RegisteredSchema, SchemaId, SchemaRegistry
from streamflow.records import Rejection

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
    from google.protobuf.message import Message

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_INDEXES: Final = 100  # levels of messages within messages


def _message(value: Any) -> str | None:
    if isinstance(value, type) and hasattr(value, "DESCRIPTOR"):
        return None
    return f"must be a generated class of messages, not {argument_types.described(value)}"


@keeps_faults
class Protobuf(Framed["FileDescriptor"]):
    """Decodes Protobuf. Fields have their names of the ``.proto`` file.

    Args:
        message: the generated class of the messages. The registry is not asked then. None for the message
            that each record names, by its schema in the registry.
        registry: as for all framed formats; see `Framed`.
        framed_key: the same.
        max_bytes: the same.
    """

    kind = "PROTOBUF"

    def __init__(
        self,
        message: Annotated["type[Message] | None", optional(_message)] = None,
        *,
        registry: Annotated[SchemaRegistry | None, REGISTRY] = None,
        framed_key: Annotated[bool, FLAG] = False,
        max_bytes: Annotated[int, MAX_BYTES] = 1024 * 1024,
    ) -> None:
        super().__init__(registry=registry, framed_key=framed_key, max_bytes=max_bytes)
        if message is not None and framed_key:
            raise ConfigurationError(
                "Protobuf: with a class of messages framed_key cannot be read, for a key is another message"
            )
        self.message = message
        self._classes: dict[Descriptor, type[Message]] = {}

    def prepare(self) -> None:
        if self.message is None:
            super().prepare()

    def compile(self, schema: RegisteredSchema) -> "FileDescriptor":
        return described(schema)

    def _by(self, schema_id: SchemaId) -> "FileDescriptor | Rejection":
        return super()._by(schema_id) if self.message is None else self.message.DESCRIPTOR.file

    def load(self, compiled: "FileDescriptor", data: bytes) -> Any:
        from google.protobuf.message import DecodeError  # noqa: PLC0415

        split = _split_indexes(data)
        if split is None:
            return broken("Protobuf: the frame does not say which message it holds")
        indexes, payload = split
        message_class = self.message or self._class_of(compiled, indexes)
        if message_class is None:
            return violation("Protobuf: the record's schema has no such message")
        message = message_class()
        try:
            message.ParseFromString(payload)
            return _fields_of(message)
        except DecodeError:
            return broken("not Protobuf by the record's schema", "DecodeError")
        except RecursionError:
            return broken("Protobuf: nested too deeply", "RecursionError")
        except (ValueError, OverflowError) as error:
            return Rejection(ErrorCode.UNSTORABLE_VALUE, type(error).__name__, _reason(error))

    def _class_of(self, file: "FileDescriptor", indexes: list[int]) -> "type[Message] | None":
        from google.protobuf.message_factory import GetMessageClass  # noqa: PLC0415

        messages = list(file.message_types_by_name.values())
        found: Descriptor | None = None
        for index in indexes:
            if not 0 <= index < len(messages):
                return None
            found = messages[index]
            messages = list(found.nested_types)
        if found is None:
            return None
        if found not in self._classes:
            self._classes[found] = GetMessageClass(found)
        return self._classes[found]


class _NotStorable(ValueError):
    """The message is of ours."""


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, _NotStorable) else "a time or a number out of range"


def _split_indexes(data: bytes) -> tuple[list[int], bytes] | None:
    """Which message of the file it is, level by level, and the rest: a count and as many indexes, as zigzag
    numbers of variable length; a zero alone stands for the first message."""
    numbers: list[int] = []
    left, value, shift = 1, 0, 0
    counting = True
    for position, byte in enumerate(data):
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 35:  # noqa: PLR2004 (more than 32 bits)
            return None
        if byte & 0x80:
            continue
        number = (value >> 1) ^ -(value & 1)
        value = shift = 0
        if counting:
            if not 0 <= number <= _MOST_INDEXES:
                return None
            counting, left = False, number
            if number == 0:
                return [0], data[position + 1 :]
            continue
        numbers.append(number)
        left -= 1
        if left == 0:
            return numbers, data[position + 1 :]
    return None


def _fields_of(message: "Message") -> Any:
    """A message as a dict, or what a well-known type stands for. A field that may be absent and is, is left
    out."""
    known = _WELL_KNOWN.get(message.DESCRIPTOR.full_name)
    if known is not None:
        return known(message)
    return {
        field.name: _value_of(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _value_of(field: "FieldDescriptor", value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return {_key(key): _single(inner, value[key]) for key in value}
    if field.is_repeated:
        return [_single(field, part) for part in value]
    return _single(field, value)


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _single(field: "FieldDescriptor", value: Any) -> Any:
    if field.message_type is not None:
        return _fields_of(value)
    if field.enum_type is not None:
        number = field.enum_type.values_by_number.get(value)
        return value if number is None else number.name
    return _finite(value) if isinstance(value, float) else value


def _finite(value: float) -> float:
    if value - value != 0:
        raise _NotStorable("a number is NaN or infinite, which JSON does not have")
    return value


def _timestamp(message: Any) -> datetime:
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def _duration(message: Any) -> str:
    """ISO 8601, exact."""
    micros = message.seconds * 1_000_000 + int(message.nanos / 1000)
    sign = "-" if micros < 0 else ""
    seconds, fraction = divmod(abs(micros), 1_000_000)
    return f"{sign}PT{seconds}.{fraction:06d}S"


def _date(message: Any) -> str:
    return f"{message.year:04d}-{message.month:02d}-{message.day:02d}"


def _struct(message: Any) -> dict[str, Any]:
    return {key: _struct_value(message.fields[key]) for key in message.fields}


def _struct_value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind == "struct_value":
        return _struct(message.struct_value)
    if kind == "list_value":
        return [_struct_value(part) for part in message.list_value.values]
    if kind == "number_value":
        return _finite(message.number_value)
    return None if kind in (None, "null_value") else getattr(message, kind)


def _wrapped(message: Any) -> Any:
    value = message.value
    return _finite(value) if isinstance(value, float) else value


_WELL_KNOWN: Final[Mapping[str, Callable[[Any], Any]]] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    "google.protobuf.Struct": _struct,
    "google.protobuf.Value": _struct_value,
    "google.protobuf.ListValue": lambda message: [_struct_value(part) for part in message.values],
    "google.type.Date": _date,
    "confluent.type.Decimal": lambda message: decimal_of(message.value, message.scale),
} | {
    f"google.protobuf.{name}Value": _wrapped
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}
