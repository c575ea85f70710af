"""Parquet as JSON, one object a row."""

import math
from collections.abc import Iterator
from datetime import datetime
from typing import IO, Any, Final

import msgspec
import pyarrow as pa
from pyarrow import parquet

from streamflow.errors import UsageError
from streamflow.producer.documents import LARGEST_EXACT, FieldKind
from streaming_workers.producer.columns import Column, Columns

_ROWS: Final = 1_000  # made at a time
_MICROSECONDS: Final = "us"
_BUFFER: Final = 1 << 20  # bytes of a column, read at a time


def rows(file: IO[bytes], columns: Columns) -> Iterator[bytes]:
    """The rows as JSON: times in RFC 3339, decimals as numbers, binary values in base64. A null is an absent
    field, unless the contract requires it. Nanoseconds are cut off. As of a data frame, a time
    is the number that the contract has, and a whole float an integer. NaN, which JSON does not have, becomes
    the text "NaN", which the contract rejects as no number.

    Raises UsageError if it is no Parquet, or its columns do not fit the stream.
    """
    try:
        # Buffered, or a whole row group is in memory.
        table = parquet.ParquetFile(file, buffer_size=_BUFFER)
        named = columns.named(table.schema_arrow.names)
        encode = msgspec.json.Encoder(decimal_format="number").encode
        for batch in table.iter_batches(_ROWS):
            yield from (encode(each) + b"\n" for each in _documents(batch, named))
    except (pa.ArrowException, OSError, EOFError) as error:
        raise UsageError(f"it is no readable Parquet file: {error}") from error


def _documents(batch: pa.RecordBatch, named: list[Column]) -> Iterator[dict[str, Any]]:
    """Raises UsageError if Python has no such value: a year beyond 9999, text that is no UTF-8."""
    batch = _without_nanoseconds(batch)
    kinds = [field.type for field in batch.schema]
    try:
        made = [_document(row, named, kinds) for row in batch.to_pylist()]
    except (ValueError, OverflowError, KeyError) as error:
        if batch.num_rows == 1:
            raise UsageError(f"the next row has a value that cannot be sent: {error}") from error
        # What comes before that row is sent.
        for number in range(batch.num_rows):
            yield from _documents(batch.slice(number, 1), named)
    else:
        yield from made


def _document(row: dict[str, Any], named: list[Column], kinds: list[pa.DataType]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for column, value, kind in zip(named, row.values(), kinds, strict=True):
        if value is None and not column.required:
            continue
        place = members
        for name in column.path[:-1]:
            place = place.setdefault(name, {})
        place[column.path[-1]] = _fitted(value, column.kind, kind)
    return members


def _fitted(value: Any, field: FieldKind, kind: pa.DataType) -> Any:
    if field.number_of is not None and isinstance(value, datetime) and value.tzinfo is not None:
        return field.number_of(value)
    # pandas makes floats of integers where one is missing.
    if field.is_int and isinstance(value, float) and value % 1 == 0 and abs(value) <= LARGEST_EXACT:
        return int(value)
    return _as_json(value, kind)


def _as_json(value: Any, kind: pa.DataType) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if not isinstance(value, dict | list):
        return value
    while pa.types.is_dictionary(kind) or isinstance(kind, pa.BaseExtensionType):
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind.storage_type
    if isinstance(value, dict):
        kinds = {field.name: field.type for field in kind}
        return {n: _as_json(each, kinds[n]) for n, each in value.items() if each is not None}
    if pa.types.is_map(kind):
        return {str(key): _as_json(each, kind.item_type) for key, each in value}
    return [_as_json(each, kind.value_type) for each in value]


def _without_nanoseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    fields = [field.with_type(_in_microseconds(field.type)) for field in batch.schema]
    return batch.cast(pa.schema(fields), safe=False) if fields != list(batch.schema) else batch


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """A type as Python has it, whose times end with microseconds."""
    types = pa.types
    if types.is_struct(kind):
        return pa.struct([field.with_type(_in_microseconds(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(kind.key_type, _in_microseconds(kind.item_type))
    if types.is_list(kind) or types.is_large_list(kind):
        inner = kind.value_field.with_type(_in_microseconds(kind.value_type))
        return pa.list_(inner) if types.is_list(kind) else pa.large_list(inner)
    if getattr(kind, "unit", "") != "ns":
        return kind
    if types.is_timestamp(kind):
        return pa.timestamp(_MICROSECONDS, kind.tz)
    return pa.duration(_MICROSECONDS) if types.is_duration(kind) else pa.time64(_MICROSECONDS)
