"""Change events of Debezium: the row after a change, or a tombstone for a deleted one."""

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from streamflow.argument_types import described, fields_by_name, keeps_faults, one_of, optional
from streamflow.errors import ConfigurationError, ErrorCode
from streamflow.formats.connect_types import convert
from streamflow.formats.documents import (
    IGNORED,
    Decoded,
    FormatReader,
    Tombstone,
    parse,
    violation,
    write,
)
from streamflow.records import Record, Rejection

_Deletes = Literal["tombstone", "document"]

_SOURCE: Final = fields_by_name('source={"lsn": "position"}')
_ENVELOPE: Final = fields_by_name('envelope={"op": "operation"}')
_ROW_OF: Final = {"c": "after", "u": "after", "r": "after", "d": "before"}
_CLOCKS: Final = {"ts_ms", "ts_us", "ts_ns"}
_BOUNDARIES: Final = ("BEGIN", "END")
# For a value that did not change and that the database has therefore not sent.
_UNAVAILABLE: Final = "__debezium_unavailable_value"
_PLACEHOLDERS: Final = (
    _UNAVAILABLE,
    _UNAVAILABLE.encode(),
    base64.b64encode(_UNAVAILABLE.encode()).decode(),
)


def _format(value: Any) -> str | None:
    if isinstance(value, type) or not callable(getattr(value, "read_value", None)):
        return f"must be a format like Avro(), not {described(value)}"
    return None


@keeps_faults
class Debezium:
    """Decodes Debezium's envelope. The document is the row after the change.

    Args:
        format: what the connector's converters write: ``Avro()`` and other framed formats; None for its JSON
            converter, with or without a schema in each record.
        source: fields of the envelope's ``source`` that the contract judges too, with the field of each:
            ``{"lsn": "position"}``. A column of the same name is replaced.
        envelope: the same for ``op``, ``ts_ms`` and other fields of the envelope itself.
        deletes: what a deleted row is: a ``"tombstone"`` that deletes the row here, too, or a ``"document"``
            like other changes, with the row before it was deleted.
    """

    def __init__(
        self,
        *,
        format: Annotated[FormatReader | None, optional(_format)] = None,  # noqa: A002 (the word of Kafka Connect)
        source: Annotated[Mapping[str, str] | None, optional(_SOURCE)] = None,
        envelope: Annotated[Mapping[str, str] | None, optional(_ENVELOPE)] = None,
        deletes: Annotated[_Deletes, one_of(_Deletes)] = "tombstone",
    ) -> None:
        self.format = format or _JsonConverter()
        self.source = dict(source or {})
        self.envelope = dict(envelope or {})
        self.deletes = deletes
        fields = [*self.source.values(), *self.envelope.values()]
        twice = sorted({field for field in fields if fields.count(field) > 1})
        if twice:
            raise ConfigurationError(f"Debezium: two values go into field {', '.join(twice)}")

    def prepare(self) -> None:
        """As of the format within."""
        self.format.prepare()

    def __call__(self, record: Record) -> Decoded:
        if record.value() is None:
            return IGNORED  # it follows the delete, for the broker's compaction
        change = self.format.read_value(record)
        if isinstance(change, Rejection):
            return change
        if not isinstance(change, dict):
            return violation("not a JSON object, so no change event")
        operation = change.get("op")
        if not isinstance(operation, str):
            return IGNORED if _is_no_change(change) else _no_envelope()
        if operation == "m":
            return IGNORED  # a message of the application, no change of a row
        if operation == "t":
            reason = "op: the source table was truncated, which is not carried over: delete its rows here"
            return Rejection(ErrorCode.UNKNOWN_TYPE, "ValueError", reason)
        if operation not in _ROW_OF:
            reason = "op: no operation of Debezium (c, u, d, r, t or m)"
            return Rejection(ErrorCode.UNKNOWN_TYPE, "ValueError", reason)
        if operation == "d" and self.deletes == "tombstone":
            return self._tombstone(change, record)
        return self._document(change, _ROW_OF[operation])

    def _document(self, change: Mapping[str, Any], which: str) -> Decoded:
        row = change.get(which)
        if not isinstance(row, dict):
            hint = "; set REPLICA IDENTITY FULL on the source table" if which == "before" else ""
            return violation(f"{which}: not a row{hint}")
        if any(_is_placeholder(value) for value in row.values()):
            return violation(
                f"{which}: a column holds only Debezium's placeholder for an unchanged value; set REPLICA "
                "IDENTITY FULL on the source table"
            )
        source = change.get("source")
        taken = _taken(self.envelope, change)
        if isinstance(source, dict):
            taken |= _taken(self.source, source)
        return write(row | taken)

    def _tombstone(self, change: Mapping[str, Any], record: Record) -> Decoded:
        key = change.get("before")
        if not isinstance(key, dict):
            key = self.format.read_key(record) if record.key() else None
        if not isinstance(key, dict):
            return violation(
                "a delete without the row before it and without a key that is an object: give the source "
                "table a primary key, or set REPLICA IDENTITY FULL"
            )
        document = write(key)
        return document if isinstance(document, Rejection) else Tombstone(document)


class _JsonConverter:
    """Connect's JSON converter; values get their types by the schema, if a record holds one."""

    def prepare(self) -> None:
        pass

    def read_value(self, record: Record) -> Any:
        return _read(record.value() or b"")

    def read_key(self, record: Record) -> Any:
        return _read(record.key() or b"")


def _read(value: bytes) -> Any:
    found = parse(value)
    if isinstance(found, dict) and found.keys() == {"schema", "payload"}:
        try:
            return convert(found["payload"], found["schema"])
        except RecursionError:
            return violation("nested too deeply")
    return found


def _no_envelope() -> Rejection:
    return violation(
        "no field `op`, so no envelope of Debezium: without it (ExtractNewRecordState) the stream needs no "
        "decode"
    )


def _is_no_change(change: Mapping[str, Any]) -> bool:
    """Whether it is a change of a schema, a heartbeat, or where a transaction begins or ends."""
    return (
        ("ddl" in change and "source" in change)
        or ("ts_ms" in change and change.keys() <= _CLOCKS)
        or (change.get("status") in _BOUNDARIES and "event_count" in change)
    )


def _is_placeholder(value: object) -> bool:
    if isinstance(value, list) and len(value) == 1:
        [value] = value  # of a column that is an array
    return isinstance(value, str | bytes) and value in _PLACEHOLDERS


def _taken(fields: Mapping[str, str], found: Mapping[str, Any]) -> dict[str, Any]:
    return {field: found[name] for name, field in fields.items() if found.get(name) is not None}
