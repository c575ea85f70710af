"""Parquet, with what a file covers in its metadata."""

from collections.abc import Iterable, Iterator
from typing import IO, Any, Final

import pyarrow as pa
from pyarrow import parquet

from streamflow.errors import UsageError
from streamflow.export.columns import Columns, ExportColumn, Identity, Row
from streamflow.export.covered import KEY, Covered

_ROWS: Final = 50_000  # of a row group
_TYPES: Final = {
    "bigint": pa.int64(),
    "integer": pa.int32(),
    "boolean": pa.bool_(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "double precision": pa.float64(),
    "text": pa.string(),
    "time without time zone": pa.time64("us"),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
}


def arrow_type(column: ExportColumn) -> pa.DataType:
    if column.is_text:
        return pa.string()
    if column.decimal is not None:
        digits, places = column.decimal
        return (pa.decimal128 if digits <= 38 else pa.decimal256)(digits, places)  # noqa: PLR2004 (Arrow's)
    return _TYPES[column.type]


class ParquetFile:
    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._schema = pa.schema([(each.name, arrow_type(each)) for each in columns.all])

    def write(self, file: IO[bytes], chunks: Iterable[list[Row]], covered: Covered) -> Covered:
        """Returns what it covers, with the number of rows."""
        count = 0
        with parquet.ParquetWriter(file, self._schema, compression="zstd") as writer:
            for rows in _grouped(chunks):
                values = list(zip(*rows, strict=True))
                arrays = [
                    pa.array(value, field.type)
                    for value, field in zip(values, self._schema, strict=True)
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
                count += len(rows)
            covered = covered.model_copy(update={"rows": count})
            writer.add_key_value_metadata({KEY: covered.model_dump_json(exclude_none=True)})
        return covered

    def comparable(self, row: Row) -> Any:
        return row

    def read(self, file: IO[bytes]) -> Iterator[tuple[Identity, Any]]:
        try:
            opened = parquet.ParquetFile(file)
            for batch in opened.iter_batches(_ROWS, columns=self._columns.names):
                for values in batch.to_pylist():
                    row = tuple(values.values())
                    yield self._columns.identity(row), row
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"it cannot be read: {error}") from error


def covered_by(file: IO[bytes]) -> Covered:
    """What a Parquet file says that it covers. Raises UsageError if it says nothing."""
    try:
        metadata = parquet.read_metadata(file).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise UsageError("the file is damaged: it is no readable Parquet") from error
    return Covered.parse(metadata.get(KEY.encode(), b""))


def _grouped(chunks: Iterable[list[Row]]) -> Iterator[list[Row]]:
    rows: list[Row] = []
    for chunk in chunks:
        rows += chunk
        if len(rows) >= _ROWS:
            yield rows
            rows = []
    if rows:
        yield rows
