"""JSON with Confluent's framing, as its serializers for JSON Schema write it."""

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic_core import from_json

from streamflow.argument_types import FLAG, keeps_faults
from streamflow.formats.documents import Decoded, parse, violation
from streamflow.formats.framing import MAX_BYTES, REGISTRY, VALUE_HEADER, Framed
from streamflow.formats.schema_registry import RegisteredSchema, SchemaId, SchemaRegistry
from streamflow.records import Record, Rejection, headers_of, last_header

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


@keeps_faults
class JsonSchema(Framed["Validator | None"]):
    """Decodes framed JSON. The contract judges it; the registered schema only if that is asked for.

    Args:
        validate: whether the schema that a record names must allow it, too. The registry is not asked
            otherwise.
        registry: as for all framed formats; see `Framed`.
        framed_key: the same.
        max_bytes: the same.
    """

    kind = "JSON"

    def __init__(
        self,
        *,
        validate: Annotated[bool, FLAG] = False,
        registry: Annotated[SchemaRegistry | None, REGISTRY] = None,
        framed_key: Annotated[bool, FLAG] = False,
        max_bytes: Annotated[int, MAX_BYTES] = 8 * 1024 * 1024,
    ) -> None:
        super().__init__(registry=registry, framed_key=framed_key, max_bytes=max_bytes)
        self.validate = validate

    def prepare(self) -> None:
        if self.validate:
            super().prepare()

    def __call__(self, record: Record) -> Decoded:
        if record.value() is None:
            return self.tombstone(record)
        header = last_header(headers_of(record), VALUE_HEADER)
        found = self._unframed(record.value(), header)
        if isinstance(found, Rejection):
            return found
        validator, data = found
        fault = None if validator is None else _fault(validator, data)
        return fault or data  # as it is: writing it anew would only cost time

    def compile(self, schema: RegisteredSchema) -> "Validator":
        from jsonschema.validators import validator_for  # noqa: PLC0415 (an extra)
        from referencing import Registry, Resource  # noqa: PLC0415
        from referencing.jsonschema import DRAFT7  # noqa: PLC0415

        document = json.loads(schema.text)
        kind = validator_for(document)
        kind.check_schema(document)
        resources = [
            (name, Resource.from_contents(json.loads(text), DRAFT7))
            for name, text in schema.references
        ]
        return kind(document, registry=Registry().with_resources(resources))

    def _by(self, schema_id: SchemaId) -> "Validator | Rejection | None":
        return super()._by(schema_id) if self.validate else None

    def load(self, compiled: "Validator | None", data: bytes) -> Any:
        fault = None if compiled is None else _fault(compiled, data)
        return fault or parse(data)


def _fault(validator: "Validator", data: bytes) -> Rejection | None:
    """Why the registered schema does not allow some JSON. Where it says so is named, never the input."""
    parsed = parse(data)
    if isinstance(parsed, Rejection):
        return parsed
    try:
        fault = next(validator.iter_errors(from_json(data)), None)
    except RecursionError:
        return violation("nested too deeply")
    except Exception as error:  # noqa: BLE001 (a reference that leads nowhere)
        return violation(f"the registered schema cannot be applied ({type(error).__name__})")
    if fault is None:
        return None
    rule = "/".join(map(str, fault.schema_path))
    return violation(f"the registered schema does not allow it: {rule}"[:1000])
