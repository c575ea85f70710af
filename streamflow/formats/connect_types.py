"""Logical types of Kafka Connect and Debezium: what numbers and bytes of a change event mean.

A value that does not fit its declared type stays as it is: the contract judges it.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from streamflow.formats.documents import parse
from streamflow.records import Rejection

# Takes a value and the parameters of its type.
Conversion = Callable[[Any, Mapping[str, Any]], Any]

MAX_DIGITS: Final = 1_000  # of a decimal: as many as PostgreSQL lets a column declare
_MAX_DECIMAL_BYTES: Final = 416  # that such a number has
_MAX_SCALE: Final = 16_383  # of PostgreSQL's numeric
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)


def decimal_of(unscaled: bytes, scale: int, precision: int = MAX_DIGITS) -> Decimal:
    """The number of a two's-complement unscaled value. Raises ValueError if it has more digits than
    `precision` or than PostgreSQL could store."""
    # Before anything is computed: turning a megabyte into digits takes hours.
    if len(unscaled) > _MAX_DECIMAL_BYTES or abs(scale) > _MAX_SCALE:
        raise ValueError("a decimal with more digits than can be stored")
    number = int.from_bytes(unscaled, "big", signed=True)
    sign, digits = int(number < 0), tuple(map(int, str(abs(number))))
    if len(digits) > min(precision, MAX_DIGITS):
        raise ValueError("a decimal with more digits than its schema allows")
    return Decimal((sign, digits, -scale))


def _instant(**unit: int) -> Conversion:
    step = timedelta(**unit)

    def convert(value: Any, _parameters: Mapping[str, Any]) -> Any:
        if type(value) is not int:
            return value
        try:
            return (_EPOCH + value * step).isoformat().replace("+00:00", "Z")
        except OverflowError:
            return value

    return convert


def _nano_instant(value: Any, parameters: Mapping[str, Any]) -> Any:
    # Neither Python nor PostgreSQL holds nanoseconds.
    return MICROS(value // 1000, parameters) if type(value) is int else value


def _date(value: Any, _parameters: Mapping[str, Any]) -> Any:
    if type(value) is not int:
        return value
    try:
        return (_EPOCH + value * _DAY).date().isoformat()
    except OverflowError:
        return value


def _time(per_second: int) -> Conversion:
    def convert(value: Any, _parameters: Mapping[str, Any]) -> Any:
        if type(value) is not int or not 0 <= value < 86_400 * per_second:
            return value
        micros = value * 1_000_000 // per_second
        return (_EPOCH + timedelta(microseconds=micros)).time().isoformat()

    return convert


def _decimal(value: Any, parameters: Mapping[str, Any]) -> Any:
    try:
        return str(decimal_of(_unscaled(value), int(parameters.get("scale", 0))))
    except (ValueError, TypeError):
        return value


def _scaled_decimal(value: Any, _parameters: Mapping[str, Any]) -> Any:
    if not isinstance(value, Mapping) or type(value.get("scale")) is not int:
        return value
    try:
        return str(decimal_of(_unscaled(value.get("value")), value["scale"]))
    except (ValueError, TypeError):
        return value


def _unscaled(value: Any) -> bytes:
    """Raises ValueError or TypeError if it is neither bytes nor base64."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or len(value) > 2 * _MAX_DECIMAL_BYTES:
        raise TypeError("no unscaled number")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _json(value: Any, _parameters: Mapping[str, Any]) -> Any:
    if not isinstance(value, str):
        return value
    parsed = parse(value.encode("utf-8", "surrogatepass"))
    return value if isinstance(parsed, Rejection) else parsed


MICROS: Final = _instant(microseconds=1)
_MILLIS: Final = _instant(milliseconds=1)

# By the name of the type in the schema of a record.
CONVERSIONS: Final[Mapping[str, Conversion]] = {
    "io.debezium.time.Date": _date,
    "io.debezium.time.Timestamp": _MILLIS,
    "io.debezium.time.MicroTimestamp": MICROS,
    "io.debezium.time.NanoTimestamp": _nano_instant,
    "io.debezium.time.Time": _time(1_000),
    "io.debezium.time.MicroTime": _time(1_000_000),
    "io.debezium.time.NanoTime": _time(1_000_000_000),
    "io.debezium.data.Json": _json,
    "io.debezium.data.VariableScaleDecimal": _scaled_decimal,
    "org.apache.kafka.connect.data.Date": _date,
    "org.apache.kafka.connect.data.Time": _time(1_000),
    "org.apache.kafka.connect.data.Timestamp": _MILLIS,
    "org.apache.kafka.connect.data.Decimal": _decimal,
}


def convert(value: Any, schema: Any) -> Any:
    """A value of Connect's JSON converter, by the schema that travels with it."""
    if value is None or not isinstance(schema, dict):
        return value
    conversion = CONVERSIONS.get(name) if isinstance(name := schema.get("name"), str) else None
    if conversion is not None:
        parameters = schema.get("parameters")
        return conversion(value, parameters if isinstance(parameters, dict) else {})
    kind = schema.get("type")
    if kind == "struct" and isinstance(value, dict):
        schemas = _schemas_of(schema)
        return {field: convert(part, schemas.get(field)) for field, part in value.items()}
    if kind == "array" and isinstance(value, list):
        return [convert(part, schema.get("items")) for part in value]
    if kind == "map" and isinstance(value, dict):
        return {field: convert(part, schema.get("values")) for field, part in value.items()}
    return value


def _schemas_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    fields = schema.get("fields")
    return {
        field["field"]: field
        for field in (fields if isinstance(fields, list) else ())
        if isinstance(field, dict) and isinstance(field.get("field"), str)
    }
