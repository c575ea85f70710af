"""Parquet as JSON, one object a row."""

import math
from collections.abc import Iterator
from typing import IO, Any, Final

import msgspec
import pyarrow as pa
from pyarrow import parquet

from streamflow.errors import UsageError
from streaming_workers.producer.columns import Column, Columns

_ROWS: Final = 1_000  # made at a time
_MICROSECONDS: Final = "us"


def rows(file: IO[bytes], columns: Columns) -> Iterator[bytes]:
    """The rows as JSON: times in RFC 3339, decimals as numbers, binary values in base64. A null is an absent
    field, unless the contract requires it. Nanoseconds are cut off. NaN, which JSON does not have, becomes
    the text "NaN", which the contract rejects as no number.

    Raises UsageError if it is no Parquet, or its columns do not fit the stream.
    """
    try:
        table = parquet.ParquetFile(file)
        named = columns.named(table.schema_arrow.names)
        encode = msgspec.json.Encoder(decimal_format="number").encode
        for batch in table.iter_batches(_ROWS):
            for row in _without_nanoseconds(batch).to_pylist():
                yield encode(_document(row, named)) + b"\n"
    except (pa.ArrowException, OSError, EOFError) as error:
        raise UsageError(f"it is no readable Parquet file: {error}") from error


def _document(row: dict[str, Any], named: list[Column]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for column, value in zip(named, row.values(), strict=True):
        if value is None and not column.required:
            continue
        place = members
        for name in column.path[:-1]:
            place = place.setdefault(name, {})
        place[column.path[-1]] = _as_json(value)
    return members


def _as_json(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {name: _as_json(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        if value and isinstance(value[0], tuple):  # a map
            return {str(key): _as_json(each) for key, each in value}
        return [_as_json(each) for each in value]
    return value


def _without_nanoseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Python's times end with microseconds."""
    fields = [
        field.with_type(pa.timestamp(_MICROSECONDS, field.type.tz))
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns"
        else field
        for field in batch.schema
    ]
    return batch.cast(pa.schema(fields), safe=False) if fields != list(batch.schema) else batch
