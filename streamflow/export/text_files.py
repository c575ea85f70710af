"""CSV (RFC 4180) and NDJSON. Pure."""

import csv
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time
from hashlib import sha256
from typing import IO, Any, Final

import msgspec

from streamflow.contract import format_time
from streamflow.errors import UsageError
from streamflow.export.columns import Columns, ExportColumn, Identity, Row
from streamflow.export.covered import Covered
from streamflow.postgres.column_types import JSON

_LARGEST_CELL: Final = 2**30  # characters; no value of PostgreSQL has more


class CsvFile:
    """With a header. NULL is an empty cell, an empty text a quoted one, as PostgreSQL's COPY has it."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def write(self, file: IO[bytes], chunks: Iterable[list[Row]], covered: Covered) -> Covered:
        """Returns what it covers, with the number of rows and the digest of the file."""
        return _written(file, _record(self._columns.names), self.comparable, chunks, covered)

    def comparable(self, row: Row) -> bytes:
        return _record([_cell(value) for value in row])

    def read(self, file: IO[bytes]) -> Iterator[tuple[Identity, bytes]]:
        # It is the limit of the whole process.
        csv.field_size_limit(_LARGEST_CELL)
        records = _records(file)
        next(records, None)
        for record in records:
            try:
                [cells] = csv.reader([record.decode()])
            except csv.Error as error:
                raise UsageError(f"it is no CSV: {error}") from error
            yield self._columns.identity(cells), record


def _cell(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, datetime):
        return _moment(value)
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _moment(value: datetime) -> str:
    """RFC 3339 in UTC, with as many digits as the database has."""
    if value.microsecond % 1_000 == 0:
        return format_time(value)
    return f"{format_time(value)[:-4]}{value.microsecond:06d}Z"


def _record(cells: Sequence[str | None]) -> bytes:
    return (",".join("" if cell is None else _quoted(cell) for cell in cells) + "\n").encode()


def _quoted(cell: str) -> str:
    if cell and not any(sign in cell for sign in ',"\r\n'):
        return cell
    doubled = cell.replace('"', '""')
    return f'"{doubled}"'


def _records(file: IO[bytes]) -> Iterator[bytes]:
    """Whole records: a line break may be part of a cell."""
    record = b""
    for line in file:
        record += line
        if record.count(b'"') % 2 == 0:
            yield record
            record = b""
    if record:
        yield record


class NdjsonFile:
    """One JSON object a line: NULL as null, times in RFC 3339, binary values in base64, jsonb as it is."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._encode = msgspec.json.Encoder(decimal_format="number").encode
        self._values = [_json_value(column) for column in columns.all]

    def write(self, file: IO[bytes], chunks: Iterable[list[Row]], covered: Covered) -> Covered:
        """As that of `CsvFile`."""
        return _written(file, b"", self.comparable, chunks, covered)

    def comparable(self, row: Row) -> bytes:
        values = (
            None if value is None else convert(value)
            for convert, value in zip(self._values, row, strict=True)
        )
        return self._encode(dict(zip(self._columns.names, values, strict=True))) + b"\n"

    def read(self, file: IO[bytes]) -> Iterator[tuple[Identity, bytes]]:
        names, decode = self._columns.names, msgspec.json.Decoder(dict[str, Any]).decode
        for line in file:
            document = decode(line)
            yield self._columns.identity([document.get(name) for name in names]), line


def _written(
    file: IO[bytes],
    head: bytes,
    encode: Callable[[Row], bytes],
    chunks: Iterable[list[Row]],
    covered: Covered,
) -> Covered:
    file.write(head)
    count, digest = 0, sha256(head)
    for rows in chunks:
        text = b"".join(map(encode, rows))
        file.write(text)
        digest.update(text)
        count += len(rows)
    return covered.model_copy(update={"rows": count, "sha256": digest.hexdigest()})


def _json_value(column: ExportColumn) -> Callable[[Any], Any]:
    if column.type == JSON:
        return msgspec.Raw
    if column.type == "timestamp with time zone":
        return _moment
    return _as_it_is


def _as_it_is(value: object) -> object:
    return value
