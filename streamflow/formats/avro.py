"""Avro with Confluent's framing.

Schemas are written anew before they are used: decimals that are too long, NaN, and types of Kafka Connect
are read by functions of ours.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import cache
from types import ModuleType
from typing import Annotated, Any, Final, NamedTuple

from streamflow.argument_types import FLAG, instance_of, keeps_faults, optional
from streamflow.errors import ConfigurationError, ErrorCode
from streamflow.formats.connect_types import CONVERSIONS, decimal_of
from streamflow.formats.documents import broken, violation
from streamflow.formats.framing import MAX_BYTES, REGISTRY, Framed
from streamflow.formats.schema_registry import RegisteredSchema, SchemaRegistry
from streamflow.records import Rejection

_SCHEMA: Final = instance_of(str, Mapping, what="an Avro schema, as a text or a dict")
_FINITE: Final = "streamflow-finite"
_DECIMAL: Final = "streamflow-decimal"
_CONNECT: Final = "streamflow-connect"


class _Reader(NamedTuple):
    writer: Any
    reader: Any
    read: Callable[..., Any]


@keeps_faults
class Avro(Framed[_Reader]):
    """Decodes Avro with the schemas of a registry.

    Args:
        reader_schema: Avro schema that records are read by, as JSON text or a dict: what it does not have is
            left out, and its defaults stand for what a record lacks. None for each record's own schema.
        registry: as for all framed formats; see `Framed`.
        framed_key: the same.
        max_bytes: the same.
    """

    kind = "AVRO"

    def __init__(
        self,
        *,
        reader_schema: Annotated[str | Mapping[str, Any] | None, optional(_SCHEMA)] = None,
        registry: Annotated[SchemaRegistry | None, REGISTRY] = None,
        framed_key: Annotated[bool, FLAG] = False,
        max_bytes: Annotated[int, MAX_BYTES] = 1024 * 1024,
    ) -> None:
        super().__init__(registry=registry, framed_key=framed_key, max_bytes=max_bytes)
        self._reader_schema: Any = None
        if reader_schema is not None:
            try:
                schema = (
                    json.loads(reader_schema) if isinstance(reader_schema, str) else reader_schema
                )
                self._reader_schema = _parsed(schema, {})
            except Exception as error:
                raise ConfigurationError(
                    f"Avro: reader_schema is no Avro schema ({type(error).__name__})"
                ) from error

    def compile(self, schema: RegisteredSchema) -> _Reader:
        named: dict[str, Any] = {}
        for _, text in schema.references:
            _parsed(json.loads(text), named)
        writer = _parsed(json.loads(schema.text), named)
        recursive = any(
            _is_recursive(part) for part in (writer, *named.values(), self._reader_schema)
        )
        module = _python_reader() if recursive else _fast_reader()
        return _Reader(writer, self._reader_schema, module.schemaless_reader)

    def load(self, compiled: _Reader, data: bytes) -> Any:
        buffer = io.BytesIO(data)
        try:
            found = compiled.read(buffer, compiled.writer, compiled.reader, False)
        except RecursionError:
            return broken("Avro: nested too deeply", "RecursionError")
        except _NotStorable as error:
            return Rejection(ErrorCode.UNSTORABLE_VALUE, "ValueError", str(error))
        except UnicodeDecodeError:
            reason = "a text is not UTF-8"
            return Rejection(ErrorCode.INVALID_UTF8, "UnicodeDecodeError", reason)
        except (OverflowError, ValueError) as error:
            reason = "a date, time or UUID that there is not"
            return Rejection(ErrorCode.UNSTORABLE_VALUE, type(error).__name__, reason)
        except Exception as error:  # noqa: BLE001 (any bytes; it raises what Python raises)
            if type(error).__name__ == "SchemaResolutionError":
                return violation("reader_schema cannot read what the record's schema describes")
            return broken("not Avro by the record's schema", type(error).__name__)
        if buffer.tell() != len(data):
            return broken("bytes are left after what the record's Avro schema describes")
        return found


class _NotStorable(ValueError):
    """A well-formed value that neither JSON nor PostgreSQL has; the message is of ours."""


@cache
def _fast_reader() -> ModuleType:
    import fastavro  # noqa: PLC0415 (an extra)
    from fastavro.read import LOGICAL_READERS  # noqa: PLC0415

    _install(LOGICAL_READERS)
    return fastavro


@cache
def _python_reader() -> ModuleType:
    """The library without its compiled part, for schemas that refer to themselves: that has no limit of
    depth, so that a hostile record of a few kilobytes ends the process."""
    from fastavro import _read_py  # noqa: PLC0415

    _install(_read_py.LOGICAL_READERS)  # type: ignore[attr-defined]
    return _read_py


def _install(readers: dict[str, Any]) -> None:
    for kind in ("float", "double"):
        readers[f"{kind}-{_FINITE}"] = _finite
    for kind in ("bytes", "fixed"):
        readers[f"{kind}-{_DECIMAL}"] = _decimal
    for kind in ("int", "long", "string", "bytes", "record"):
        readers[f"{kind}-{_CONNECT}"] = _connect


def _finite(value: float, *_schemas: Any) -> float:
    if value - value != 0:
        raise _NotStorable("a number is NaN or infinite, which JSON does not have")
    return value


def _decimal(value: bytes, writer: Mapping[str, Any], *_reader: Any) -> Decimal:
    try:
        return decimal_of(value, writer.get("scale", 0), writer["precision"])
    except ValueError as error:
        raise _NotStorable(str(error)) from None


def _connect(value: Any, writer: Mapping[str, Any], *_reader: Any) -> Any:
    return CONVERSIONS[writer["connect.name"]](value, writer.get("connect.parameters") or {})


def _parsed(schema: Any, named: dict[str, Any]) -> Any:
    """A schema as fastavro wants it. Raises any exception if it is broken or not to be read."""
    from fastavro import parse_schema  # noqa: PLC0415

    parsed = parse_schema(_rewritten(schema), named)
    for part in _parts(parsed):
        if part.get("type") == "array" and _takes_no_bytes(part["items"], named):
            raise ValueError(
                "an array of items without bytes: a record of ten bytes fills all memory"
            )
    return parsed


def _rewritten(schema: Any) -> Any:
    """The schema with the logical types that `_install` knows."""
    if isinstance(schema, list):
        return [_rewritten(part) for part in schema]
    if schema in ("float", "double"):
        return {"type": schema, "logicalType": _FINITE}
    if not isinstance(schema, dict):
        return schema
    kind, made = schema.get("type"), dict(schema)
    if isinstance(kind, dict | list):
        made["type"] = _rewritten(kind)
    for name in ("items", "values"):
        if name in made:
            made[name] = _rewritten(made[name])
    if kind in ("record", "error"):
        made["fields"] = [field | {"type": _rewritten(field["type"])} for field in schema["fields"]]
    logical = _logical_type(schema)
    return made if logical is None else made | {"logicalType": logical}


def _logical_type(schema: Mapping[str, Any]) -> str | None:
    kind, declared = schema.get("type"), schema.get("logicalType")
    if kind in ("float", "double"):
        return _FINITE
    if declared == "decimal" and kind in ("bytes", "fixed"):
        return _DECIMAL
    if declared is None and schema.get("connect.name") in CONVERSIONS:
        return _CONNECT
    return None


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """The dicts that a parsed schema consists of."""
    if isinstance(schema, list):
        for part in schema:
            yield from _parts(part)
    elif isinstance(schema, dict):
        yield schema
        for field in schema.get("fields", ()):
            yield from _parts(field["type"])
        for name in ("type", "items", "values"):
            yield from _parts(schema.get(name))


def _is_recursive(schema: Any, around: tuple[str, ...] = ()) -> bool:
    if isinstance(schema, str):
        return schema in around
    if isinstance(schema, list):
        return any(_is_recursive(part, around) for part in schema)
    if not isinstance(schema, dict):
        return False
    if schema.get("fields") is not None:
        inner = (*around, schema["name"])
        return any(_is_recursive(field["type"], inner) for field in schema["fields"])
    return any(_is_recursive(schema.get(name), around) for name in ("type", "items", "values"))


def _takes_no_bytes(schema: Any, named: Mapping[str, Any], around: tuple[str, ...] = ()) -> bool:
    if isinstance(schema, str):
        if schema in around:
            return True  # then the record around it decides
        return schema == "null" or (
            schema in named and _takes_no_bytes(named[schema], named, (*around, schema))
        )
    if not isinstance(schema, dict):
        return False  # a union has the index of its member
    kind = schema.get("type")
    if kind in ("record", "error"):
        inner = (*around, schema["name"])
        return all(_takes_no_bytes(field["type"], named, inner) for field in schema["fields"])
    if kind == "fixed":
        return not schema["size"]
    return _takes_no_bytes(kind, named, around) if isinstance(kind, dict | str) else False
