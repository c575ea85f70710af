"""Which format a file has, by its content, and its events as lines of JSON."""

import bz2
import gzip
import io
import lzma
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any, Final, NamedTuple, cast

from streamflow import extras
from streamflow.errors import UsageError
from streamflow.stream import Stream
from streaming_workers.producer import csv_rows, json_values
from streaming_workers.producer.columns import Columns

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_Open = Callable[[Any], Any]
_COMPRESSED: Final[dict[bytes, tuple[str, _Open]]] = {
    b"\x1f\x8b": ("gzip", lambda file: gzip.GzipFile(fileobj=file, mode="rb")),
    b"\x28\xb5\x2f\xfd": ("zstd", zstd.ZstdFile),
    b"\x50\x2a\x4d\x18": ("zstd", zstd.ZstdFile),  # what pzstd puts in front
    b"BZh": ("bzip2", bz2.BZ2File),
    b"\xfd7zXZ\x00": ("xz", lzma.LZMAFile),
}
_BROKEN: Final = (EOFError, OSError, zlib.error, lzma.LZMAError, zstd.ZstdError)
_PARQUET: Final = (b"PAR1", b"PARE")  # the latter is encrypted
# What is not read, and what makes something readable of it.
_FOREIGN: Final = (
    (b"PK\x03\x04", "a ZIP archive", "unzip -p FILE"),
    (b"\xff\xfe\x00\x00", "UTF-32", "iconv -f UTF-32 -t UTF-8 FILE"),
    (b"\x00\x00\xfe\xff", "UTF-32", "iconv -f UTF-32 -t UTF-8 FILE"),
    (b"\xff\xfe", "UTF-16", "iconv -f UTF-16 -t UTF-8 FILE"),
    (b"\xfe\xff", "UTF-16", "iconv -f UTF-16 -t UTF-8 FILE"),
)
_BOM: Final = "\ufeff".encode()
_ARRAY: Final = re.compile(rb"\s*\[\s*[{\n]")
_SPREAD: Final = re.compile(rb"\s*\{[ \t\r]*\n")
_LONE_RETURNS: Final = re.compile(rb"\}[ \t]*\r[ \t]*\{")
_DEEPEST: Final = 8  # some files hold themselves
_HEAD: Final = 1 << 16  # bytes
LONGEST_LINE: Final = 64 * 1024 * 1024  # bytes; no topic takes as much


class Foreign(NamedTuple):
    """A format that is not read: what it is called, and the command that makes another of FILE."""

    what: str
    command: str


def foreign(head: bytes) -> Foreign | None:
    """Of a file that begins so; None if it may be read."""
    for signature, what, command in _FOREIGN:
        if head.startswith(signature):
            return Foreign(what, command)
    if not is_binary(head) and head.count(0) > len(head) // 4:
        # ASCII is the low byte of each character.
        order = "BE" if head.startswith(b"\x00") else "LE"
        return Foreign("UTF-16", f"iconv -f UTF-16{order} -t UTF-8 FILE")
    if b"\n" not in head and _LONE_RETURNS.search(head):
        return Foreign("text whose lines end with CR alone", r"tr '\r' '\n' < FILE")
    return None


def is_binary(head: bytes) -> bool:
    """Whether a file that begins so is compressed, or Parquet."""
    return head.startswith((*_PARQUET, *_COMPRESSED))


def is_lines(head: bytes, stream: Stream) -> bool:
    """Whether a file that begins so has one JSON document a line: whatever is nothing else, since the
    contract says what is wrong with a line."""
    return _reader(head, stream) is None


def lines(file: IO[bytes], stream: Stream, depth: int = 0) -> Iterator[bytes]:
    """The events of a file as lines of JSON, whatever its format.

    Args:
        depth: how many times it is compressed.

    Raises UsageError if it cannot be read: it is damaged, or does not fit the stream.
    """
    head = _peek(file)
    reader = _reader(head, stream, depth)
    return plain_lines(file) if reader is None else reader(file)


def plain_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file. One that is longer than `LONGEST_LINE` comes in pieces of that length."""
    return iter(partial(file.readline, LONGEST_LINE), b"")


def _reader(
    head: bytes, stream: Stream, depth: int = 0
) -> Callable[[IO[bytes]], Iterator[bytes]] | None:
    """What reads a file that begins so; None for lines of JSON."""
    for signature, (name, opened) in _COMPRESSED.items():
        if head.startswith(signature):
            return lambda file: _decompressed(opened(file), name, stream, depth + 1)
    if head.startswith(_PARQUET):
        return lambda file: _parquet(file, stream)
    text = head.removeprefix(_BOM)
    if _ARRAY.match(text) or _SPREAD.match(text):
        return json_values.documents
    if text.lstrip()[:1] not in (b"{", b"[", b"\x1e", b""):
        columns = Columns(stream)
        delimiter = csv_rows.delimiter_of(head, columns)
        if delimiter is not None:
            return lambda file: csv_rows.rows(file, delimiter, columns)
    return None


def _decompressed(file: Any, name: str, stream: Stream, depth: int) -> Iterator[bytes]:
    if depth > _DEEPEST:
        raise UsageError(f"it is compressed more than {_DEEPEST} times: decompress it")
    try:
        head = _peek(file)
        if (found := foreign(head)) is not None:
            raise UsageError(
                f"what is compressed with {name} is {found.what}: decompress and convert it"
            )
        yield from lines(file, stream, depth)
    except _BROKEN as error:
        raise UsageError(
            f"it is compressed with {name}, and damaged or cut off: {error}"
        ) from error


def _parquet(file: IO[bytes], stream: Stream) -> Iterator[bytes]:
    extras.require("parquet", "reading Parquet")
    from streaming_workers.producer import parquet_rows  # noqa: PLC0415 (an extra's)

    with tempfile.TemporaryFile() as whole:
        # Its index is at its end.
        if not (isinstance(file, io.BufferedReader) and file.seekable()):
            shutil.copyfileobj(file, whole)
            file = cast("IO[bytes]", whole)
        yield from parquet_rows.rows(file, Columns(stream))


def _peek(file: Any) -> bytes:
    return bytes(file.peek(_HEAD))
