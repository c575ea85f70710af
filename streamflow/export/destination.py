"""Where exports are kept: a folder, or any store that fsspec knows (https://filesystem-spec.readthedocs.io)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, get_args
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from streamflow import extras
from streamflow.errors import UsageError
from streamflow.export.columns import Columns, Identity, Row
from streamflow.export.covered import SIDECAR, Covered, Format, name_of
from streamflow.export.text_files import CsvFile, NdjsonFile


class Encoding(Protocol):
    """How rows are written to a file and read back."""

    def write(self, file: IO[bytes], chunks: Iterator[list[Row]], covered: Covered) -> Covered: ...

    def comparable(self, row: Row) -> Any:
        """What `read` gives for the same row."""

    def read(self, file: IO[bytes]) -> Iterator[tuple[Identity, Any]]: ...


def encoding(kind: Format, columns: Columns) -> Encoding:
    """Raises UsageError if what it needs is not installed."""
    if kind == "csv":
        return CsvFile(columns)
    if kind == "ndjson":
        return NdjsonFile(columns)
    extras.require("parquet", "--format parquet")
    from streamflow.export.parquet_files import ParquetFile  # noqa: PLC0415 (an extra's)

    return ParquetFile(columns)


class ExportedFile(NamedTuple):
    path: str
    kind: Format
    day: date  # as the folder says
    covered: Covered | UsageError  # or why the file does not say it


class Destination:
    """A place for exports.

    Args:
        url: a folder, or the URL of one, like ``s3://bucket/exports``.

    Raises:
        UsageError: nothing is known of such URLs, or what they need is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError, OSError) as error:
            raise UsageError(f"{url} cannot be written to: {error}") from error

    @contextmanager
    def replacing(self, table: str, day: date, kind: Format) -> Iterator["NewFile"]:
        """A file that takes the place of the one that is there once all of it is written, and not before.
        Raises UsageError if the place cannot be written to."""
        path = f"{self._root}/{name_of(table, day, kind)}"
        try:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            with self._whole(path) as file:
                new = NewFile(path, file)
                yield new
                file.flush()
                # Before the file is replaced: one without it is no export. And not sooner: if writing fails,
                # the earlier file keeps its own.
                if new.beside is not None and self._files.exists(path + SIDECAR):
                    self._files.rm(path + SIDECAR)
            if new.beside is not None:
                self._files.pipe(path + SIDECAR, new.beside)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
        except NotImplementedError as error:
            raise UsageError(
                f"{path} cannot be written: {type(self._files).__name__} of fsspec only reads"
            ) from error

    @contextmanager
    def _whole(self, path: str) -> Iterator[IO[bytes]]:
        """A file that takes its place once all of it is written. In a folder it is written beside its place:
        fsspec moves it there from the folder of temporary files, which may be a copy, and half a one.
        """
        if not isinstance(self._files, LocalFileSystem):
            with self._files.transaction, self._files.open(path, "wb") as file:
                yield file
            return
        part = Path(f"{path}.{uuid4().hex}.part")
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def exported(self, table: str) -> list[ExportedFile]:
        """The files of a table, by day."""
        return [
            ExportedFile(path, kind, day, self._covered(path, kind))
            for path in sorted(self._files.glob(f"{self._root}/{table}/day=*/{table}-*.*"))
            if (kind := _kind(path)) and (day := _day(path))
        ]

    def open(self, path: str) -> Any:
        return self._files.open(path, "rb")

    def _covered(self, path: str, kind: Format) -> Covered | UsageError:
        if kind == "parquet":
            extras.require("parquet", "reading Parquet")
        try:
            return self._read_covered(path, kind)
        except UsageError as error:
            return error

    def _read_covered(self, path: str, kind: Format) -> Covered:
        if kind == "parquet":
            from streamflow.export.parquet_files import covered_by  # noqa: PLC0415 (an extra's)

            with self._files.open(path, "rb") as file:
                return covered_by(file)
        try:
            return Covered.parse(self._files.cat(path + SIDECAR))
        except FileNotFoundError:
            return Covered.parse(b"")


def _kind(path: str) -> Format | None:
    suffix = path.rpartition(".")[2]
    return next((kind for kind in get_args(Format) if kind == suffix), None)


def _day(path: str) -> date | None:
    """The day that the folder of a file says; None if it is no folder of ours."""
    try:
        return date.fromisoformat(path.rsplit("/", 2)[1].removeprefix("day="))
    except ValueError:
        return None


class NewFile:
    """A file that is being written.

    Attributes:
        beside: what is kept beside it, about it.
    """

    def __init__(self, path: str, file: IO[bytes]) -> None:
        self.path = path
        self.file = file
        self.beside: bytes | None = None
