"""Since when the rows of a stream are judged by its contract of today.

A row was accepted under the contract of its time, and a stricter one that follows makes no fault of it. So
the database knows which contract a table has, and since when. Contracts are told apart by their JSON schema.
"""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from streamflow.postgres.connections import Connection
from streamflow.stream import Stream

_EVER: Final = datetime.min.replace(tzinfo=UTC)
_FORGET_OTHERS: Final = """
DELETE FROM quality_scans
 WHERE table_name = %(table)s AND starts_with(scan, 'contract ') AND scan <> %(contract)s
"""
# Workers of the older release may run a while longer.
_NOTE: Final = """
INSERT INTO quality_scans (scan, table_name, loaded_through)
VALUES (%(contract)s, %(table)s, coalesce(%(since)s, clock_timestamp() + interval '15 minutes'))
    ON CONFLICT DO NOTHING
"""
_READ: Final = """
SELECT loaded_through FROM quality_scans WHERE scan = %(contract)s AND table_name = %(table)s
"""


def judged_from(connection: Connection, stream: Stream, *, is_new: bool = False) -> datetime:
    """The load time from which on rows were accepted under today's contract. Notes it if the contract has
    changed; `is_new` if the table was created just now."""
    values = {
        "table": stream.event_table,
        "contract": f"contract {_digest(stream)}",
        "since": _EVER if is_new else None,
    }
    with connection.transaction():
        connection.execute(_FORGET_OTHERS, values)
        connection.execute(_NOTE, values)
        [(since,)] = connection.execute(_READ, values).fetchall()
    result: datetime = since
    return result


class _Lenient(GenerateJsonSchema):
    """Any JSON for what has no JSON schema."""

    def handle_invalid_for_json_schema(self, _schema: Any, _info: str) -> JsonSchemaValue:
        return {}

    def emit_warning(self, _kind: Any, _detail: str) -> None:
        """Defaults without a JSON form are left out."""


def _digest(stream: Stream) -> str:
    judged = [
        TypeAdapter(stream.contract).json_schema(schema_generator=_Lenient),
        stream.unknown_fields,
        sorted(stream.decoder.private_fields),
        sorted(map(repr, stream.private_values)),
    ]
    return hashlib.sha256(json.dumps(judged, sort_keys=True).encode()).hexdigest()[:16]
