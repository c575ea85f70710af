"""From a stored row back to the event that it holds. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from streamflow.contract import Event
from streamflow.postgres.tables import UNKNOWN_FIELDS
from streamflow.records import Rejection
from streamflow.stream import Stream


def event_of(stream: Stream, row: Mapping[str, Any]) -> Event | Rejection:
    """The event of a row, by column, as psycopg reads it; or why it is no valid event any more."""
    found: Event | Rejection
    # The model that has most of the row's fields comes last: it explains best what is wrong.
    for model in sorted(stream.decoder.models, key=lambda model: _known(model, row)):
        found = stream.decoder.decode(_document(stream, model, row))
        if type(found) is model:
            break
    return found


def _known(model: type[Event], row: Mapping[str, Any]) -> int:
    return sum(row.get(name) is not None for name in model.model_fields)


def _document(stream: Stream, model: type[Event], row: Mapping[str, Any]) -> bytes:
    """The JSON of a row, if it is of this model."""
    decoder = stream.decoder
    values = {name: row.get(name) for name in model.model_fields}
    for name, schema in decoder.fields_of(model).items():
        if (
            isinstance(values[name], Decimal)
            and decoder.definitions.unwrapped(schema)["type"] == "int"
        ):
            values[name] = int(row[name])
    # By the names of columns: `model_construct` looks for aliases first, which other fields may be called.
    event = model.__new__(model)
    event.__setstate__(
        {
            "__dict__": values,
            "__pydantic_fields_set__": set(values),
            "__pydantic_extra__": row.get(UNKNOWN_FIELDS) or None,
            "__pydantic_private__": None,
        }
    )
    return decoder.encode(event)
