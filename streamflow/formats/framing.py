"""Confluent's framing: which schema of the registry a record was written by.

A zero byte and the schema's id in four bytes stand before the data; newer serializers write a one and the
schema's GUID, mostly into a header.
"""

from abc import ABC, abstractmethod
from time import monotonic
from typing import Any, ClassVar, Final, Generic, TypeVar
from uuid import UUID

from streamflow import extras
from streamflow.argument_types import instance_of, optional, whole_number
from streamflow.errors import ConfigurationError, ErrorCode
from streamflow.formats.documents import Decoded, Tombstone, broken, violation, write
from streamflow.formats.schema_registry import (
    Lookup,
    RegisteredSchema,
    SchemaId,
    SchemaRegistry,
    lookup_in,
    registry_of_settings,
)
from streamflow.records import Record, Rejection, headers_of, last_header

VALUE_HEADER: Final = "__value_schema_id"
_KEY_HEADER: Final = "__key_schema_id"
_ID_MAGIC, _GUID_MAGIC = b"\0", b"\1"
_ID_END, _GUID_END = 5, 17
# An unknown schema is asked for again: it may have been registered since.
_UNKNOWN_SECONDS: Final = 10.0
_MOST_UNKNOWN: Final = 1_000
_MAX_BYTES: Final = 1024 * 1024

# Of arguments that all framed formats have.
REGISTRY: Final = optional(instance_of(SchemaRegistry, what='a SchemaRegistry("https://…")'))
MAX_BYTES: Final = whole_number(1, 2**31 - 1)

Compiled = TypeVar("Compiled")


class Framed(ABC, Generic[Compiled]):
    """Base of the formats with Confluent's framing.

    Args:
        registry: where the schemas are; None for the registry of the settings.
        framed_key: whether keys are written in the same format. A tombstone then says by its key which row
            is to be deleted.
        max_bytes: the longest value that is read. An object of Python takes far more than its bytes.
    """

    kind: ClassVar[str]  # as the registry calls it

    def __init__(
        self,
        *,
        registry: SchemaRegistry | None = None,
        framed_key: bool = False,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        if not extras.is_installed("registry"):
            raise ConfigurationError(extras.missing(type(self).__name__, "registry"))
        self.registry = registry
        self.framed_key = framed_key
        self.max_bytes = max_bytes
        self._compiled: dict[SchemaId, Compiled | Rejection] = {}
        self._unknown: dict[SchemaId, float] = {}

    def prepare(self) -> None:
        """Raises ConfigurationError if no registry is configured, or cannot be asked. Uses no network."""
        _ = self._lookup.client

    @property
    def _lookup(self) -> Lookup:
        if self.registry is None:
            self.registry = registry_of_settings()
        return lookup_in(self.registry)

    def __call__(self, record: Record) -> Decoded:
        """The document. Raises Unavailable while the registry does not answer."""
        if record.value() is None:
            return self.tombstone(record)
        found = self.read_value(record)
        return found if isinstance(found, Rejection) else write(found)

    def read_value(self, record: Record) -> Any:
        """The record's value as objects of Python, or a `Rejection`."""
        return self._read(record.value(), last_header(headers_of(record), VALUE_HEADER))

    def read_key(self, record: Record) -> Any:
        """As `read_value`, of the record's key."""
        return self._read(record.key(), last_header(headers_of(record), _KEY_HEADER))

    @abstractmethod
    def compile(self, schema: RegisteredSchema) -> Compiled:
        """What `load` reads by, once for each schema. Raises any exception if the schema is broken."""

    @abstractmethod
    def load(self, compiled: Compiled, data: bytes) -> Any:
        """The data as objects of Python, or a `Rejection`."""

    def tombstone(self, record: Record) -> Decoded:
        """What a record without a value is."""
        if not self.framed_key:
            return Tombstone()
        key = self.read_key(record)
        if isinstance(key, Rejection):
            return key
        document = write(key)
        return document if isinstance(document, Rejection) else Tombstone(document)

    def _read(self, data: bytes | None, header: bytes | None) -> Any:
        found = self._unframed(data, header)
        return found if isinstance(found, Rejection) else self.load(*found)

    def _unframed(
        self, data: bytes | None, header: bytes | None
    ) -> tuple[Compiled, bytes] | Rejection:
        """The schema and what was written by it."""
        if not data:
            return Rejection(ErrorCode.EMPTY_VALUE, "ValueError", "the record has no value")
        if len(data) > self.max_bytes:
            reason = f"{len(data):,} bytes; at most {self.max_bytes:,} are read (max_bytes)"
            return Rejection(ErrorCode.TOO_LARGE, "ValueError", reason)
        split = _split(data if header is None else header)
        if isinstance(split, Rejection):
            return split
        schema_id, rest = split
        compiled = self._by(schema_id)
        if isinstance(compiled, Rejection):
            return compiled
        return compiled, rest if header is None else rest + data

    def _by(self, schema_id: SchemaId) -> Compiled | Rejection:
        known = self._compiled.get(schema_id)
        if known is not None:
            return known
        if self._unknown.get(schema_id, 0.0) > monotonic():
            return _unknown_schema()
        schema = self._lookup.fetch(schema_id)
        if schema is None:
            if len(self._unknown) >= _MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[schema_id] = monotonic() + _UNKNOWN_SECONDS
            return _unknown_schema()
        self._compiled[schema_id] = found = self._compile(schema)
        return found

    def _compile(self, schema: RegisteredSchema) -> Compiled | Rejection:
        if schema.kind != self.kind:
            return violation(f"the record's schema is one of {schema.kind}, not {self.kind}")
        try:
            return self.compile(schema)
        except Exception as error:  # noqa: BLE001 (libraries raise what they like)
            return violation(
                f"the record's schema cannot be used ({type(error).__name__}): mend it in the registry"
            )


def _split(framed: bytes) -> tuple[SchemaId, bytes] | Rejection:
    if framed[:1] == _ID_MAGIC and len(framed) >= _ID_END:
        return int.from_bytes(framed[1:_ID_END], "big"), framed[_ID_END:]
    if framed[:1] == _GUID_MAGIC and len(framed) >= _GUID_END:
        return UUID(bytes=framed[1:_GUID_END]), framed[_GUID_END:]
    return broken("no frame with a schema id: it was not written by a serializer of the registry")


def _unknown_schema() -> Rejection:
    reason = "the schema registry has no schema with the id of this record"
    return Rejection(ErrorCode.UNKNOWN_SCHEMA, "ValueError", reason)
