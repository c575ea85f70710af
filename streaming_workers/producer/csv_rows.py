"""CSV (RFC 4180) as JSON, one object a row. Pure."""

import csv
import io
import re
from collections.abc import Iterator
from functools import partial
from typing import IO, Final

from streamflow.errors import UsageError
from streaming_workers.producer.columns import Columns, cell, document

_DELIMITERS: Final = ",;\t|"
_LONGEST: Final = 16 * 1024 * 1024  # characters of a cell
_LONGEST_LINE: Final = 64 * 1024 * 1024  # characters
_LINE_END: Final = re.compile(r"[\r\n]")
_BOM: Final = "\ufeff"


def delimiter_of(head: bytes, columns: Columns) -> str | None:
    """What stands between the cells of a file that begins so: the one with which most names of its first
    line are names of fields. None if none is: it is no CSV of this stream."""
    line = head.decode(errors="replace").removeprefix(_BOM)
    line = _LINE_END.split(line, maxsplit=1)[0]
    found = {
        delimiter: sum(name in columns for name in _cells(line, delimiter))
        for delimiter in _DELIMITERS
    }
    best = max(_DELIMITERS, key=found.__getitem__)
    return best if found[best] else None


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def rows(file: IO[bytes], delimiter: str, columns: Columns) -> Iterator[bytes]:
    """The rows as JSON. Bytes that are no UTF-8 stay as they are: the contract's error code names them.

    Raises UsageError if the header does not fit the stream, a row has more or fewer cells, or a quotation
    mark is missing.
    """
    # It is the limit of the whole process, and no other part reads CSV.
    csv.field_size_limit(_LONGEST)
    # A byte order mark before a quoted name would make the quotation marks part of it.
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(_lines(text), delimiter=delimiter, strict=True)
    number = 0
    try:
        named = columns.named([name.strip() for name in next(reader, [])])
        for row in filter(None, reader):
            number += 1
            if len(row) != len(named):
                raise UsageError(
                    f"record {number} has {len(row)} cells, and the header {len(named)}: mend it, and go on "
                    "with --resume"
                )
            members = {
                column.path: value
                for column, each in zip(named, row, strict=True)
                if (value := cell(each, column)) is not None
            }
            yield document(members).encode(errors="surrogateescape") + b"\n"
    except csv.Error as error:
        raise UsageError(
            f"record {number + 1} is no CSV (line {reader.line_num} of the file): {error}; is a quotation "
            "mark missing?"
        ) from error
    finally:
        text.detach()


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    for number, line in enumerate(iter(partial(text.readline, _LONGEST_LINE), ""), 1):
        if len(line) == _LONGEST_LINE:
            raise UsageError(f"line {number} is longer than {_LONGEST_LINE >> 20} MiB: is it CSV?")
        yield line
