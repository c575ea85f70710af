"""Where events come from: a file that may grow, or a stream (pipe, terminal, standard input), read once."""

import hashlib
import io
import os
import select
import shlex
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from streamflow.errors import UsageError
from streamflow.stream import Stream
from streaming_workers.producer import formats

_BLOCK: Final = 1 << 16  # bytes
_TURN: Final = 0.2  # seconds in which a signal is answered
_GROUP_SECONDS: Final = 1.0  # a line waits no longer for others
_GROUP_BYTES: Final = 64 * 1024 * 1024


def open_source(name: str, stream: Stream, *, complete: bool = False) -> "Source":
    """Opens a file or, named ``-``, standard input. Never waits, not even for a pipe's writer.

    Args:
        stream: whose events it holds.
        complete: whether a last line without a newline is a whole one. That of a pipe always is, and that
            of a file in another format.

    Raises:
        UsageError: it cannot be opened, or has a format that is not read.
    """
    path = Path(name)
    try:
        if name == "-":
            return Source(Path("/dev/stdin"), os.dup(0), stream, complete=True, resumable=False)
        if path.is_dir():
            raise UsageError(f"{name} is a folder: name a file with events")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    return Source(path, descriptor, stream, complete=complete or not regular, resumable=regular)


class Source:
    """An open source of lines: those of the file, or those that another format is turned into, always the
    same ones.

    Attributes:
        resumable: whether it can be read again, so that a later run can go on where this one stops.
        size: of all lines, in bytes; None if that is not known.
        unit: what a line is called.
        waiting: whether the last line has no newline, so it may be half a line, and was not handed out.
    """

    def __init__(
        self, path: Path, descriptor: int, stream: Stream, *, complete: bool, resumable: bool
    ) -> None:
        self.path = path
        self.resumable = resumable
        self.waiting = False
        self.unit = "line"
        self.size: int | None = None
        self._stream = stream
        self._regular = resumable
        self._complete = complete
        self._file: IO[bytes] = open(descriptor, "rb", buffering=_BLOCK)  # noqa: SIM115 (closed by `close`)
        self._lines: Iterator[bytes] | None = None
        self._damage: UsageError | None = None
        if resumable:
            try:
                self._look_at(os.pread(descriptor, _BLOCK, 0))
            except UsageError:
                self.close()
                raise
            except OSError as error:
                self.close()
                raise UsageError(f"{path} cannot be read: {error.strerror}") from error
            if self.unit == "line":
                self.size = os.fstat(descriptor).st_size

    def close(self) -> None:
        self._file.close()

    def skip(self, size: int, stop: threading.Event) -> "hashlib._Hash":
        """Passes over so many bytes of lines, as far as there are any and `stop` is not set; returns their
        SHA-256."""
        digest = hashlib.sha256()
        if self.unit == "line":
            while size > 0 and not stop.is_set() and (piece := self._file.read(min(size, 1 << 20))):
                digest.update(piece)
                size -= len(piece)
            return digest
        lines = self._opened(stop)
        while size > 0 and not stop.is_set() and (line := next(lines, b"")):
            digest.update(line)
            size -= len(line)
        return digest

    def groups(self, stop: threading.Event, most: int) -> Iterator[list[bytes]]:
        """The lines with their ends, in groups of at most `most` and of about a second."""
        lines: list[bytes] = []
        began, size = time.monotonic(), 0
        for line in self._until_damaged(stop):
            if line[-1:] != b"\n" and len(line) >= formats.LONGEST_LINE:
                longest = formats.LONGEST_LINE >> 20
                self._damage = UsageError(f"a line of {self._name} is longer than {longest} MiB")
                break
            if line[-1:] == b"\n" or (line and self._complete):
                lines.append(line)
                size += len(line)
            elif line:
                self.waiting = True
                break
            if (
                len(lines) >= most
                or size >= _GROUP_BYTES
                or time.monotonic() - began > _GROUP_SECONDS
            ):
                if lines:
                    yield lines
                lines, began, size = [], time.monotonic(), 0
            if stop.is_set():
                break
        if lines:
            yield lines
        if self._damage is not None:
            raise self._damage

    def _until_damaged(self, stop: threading.Event) -> Iterator[bytes]:
        """The lines up to where the file cannot be read any more: they are handed out all the same."""
        try:
            yield from self._opened(stop)
        except UsageError as error:
            self._damage = error
        except OSError as error:
            self._damage = UsageError(f"{self._name} cannot be read: {error.strerror or error}")

    def _opened(self, stop: threading.Event) -> Iterator[bytes]:
        if self._lines is None:
            self._lines = self._read() if self._regular else self._read_stream(stop)
        return self._lines

    def _read(self) -> Iterator[bytes]:
        if self.unit == "line":
            return formats.plain_lines(self._file)
        return self._converted(self._file)

    def _read_stream(self, stop: threading.Event) -> Iterator[bytes]:
        """The lines of a stream until it ends or `stop` is set; nothing while none comes."""
        polled = _Polled(self._file.fileno(), stop)
        try:
            head = polled.peek()
            self._look_at(head)
            if self.unit == "line":
                yield from polled.lines(head)
            else:
                yield from self._converted(io.BufferedReader(polled, _BLOCK))
        except _StoppedError:
            return

    def _look_at(self, head: bytes) -> None:
        """Finds out the format of what begins so. Raises UsageError if it is not read."""
        found = formats.foreign(head)
        if found is not None:
            file = "FILE" if self._name == "standard input" else shlex.quote(str(self.path))
            raise UsageError(
                f"{self._name} is {found.what}, which is not read: send it with "
                f"`{found.command.replace('FILE', file)} | streamflow produce --stream {self._stream.name} "
                "--from -`"
            )
        if not formats.is_lines(head, self._stream):
            self.unit = "record"
            self._complete = True

    def _converted(self, file: Any) -> Iterator[bytes]:
        try:
            yield from formats.lines(file, self._stream)
        except UsageError as error:
            raise UsageError(f"{self._name}: {error}") from error

    @property
    def _name(self) -> str:
        return "standard input" if self.path == Path("/dev/stdin") else str(self.path)


class _StoppedError(Exception):
    """Whoever reads has been told to stop."""


class _Polled(io.RawIOBase):
    """A stream that can be stopped while nothing comes."""

    def __init__(self, descriptor: int, stop: threading.Event) -> None:
        self._descriptor = descriptor
        self._stop = stop
        self._ready = select.poll()
        self._ready.register(descriptor, select.POLLIN)
        self._peeked = b""

    def readable(self) -> bool:
        return True

    def peek(self) -> bytes:
        """The beginning, which `readinto` hands out again: the first line, which a writer may send in pieces,
        as far as a format is recognised by it. Raises as `readinto` does."""
        while (
            b"\n" not in self._peeked.lstrip()
            and len(self._peeked) < _BLOCK
            and not formats.is_binary(self._peeked)
        ):
            block = self._wait(_BLOCK)
            self._peeked += block
            if not block:
                break
        return self._peeked

    def readinto(self, buffer: Any) -> int:
        """Waits for something. Raises _StoppedError if `stop` is set meanwhile."""
        most = len(buffer)
        block = self._peeked[:most] or self._wait(most)
        self._peeked = self._peeked[most:]
        buffer[: len(block)] = block
        return len(block)

    def _wait(self, most: int) -> bytes:
        while (block := self._block(most)) is None:
            pass
        return block

    def lines(self, first: bytes) -> Iterator[bytes]:
        """The lines that begin with `first`; nothing while none comes. A line does not wait for others."""
        pieces, size = list[bytes](), 0
        block: bytes | None = first
        while block != b"":
            if block is None:
                yield b""
            else:
                whole, newline, rest = block.rpartition(b"\n")
                if newline:
                    pieces.append(whole)
                    yield from (line + newline for line in b"".join(pieces).split(newline))
                    pieces, size = [], 0
                pieces.append(rest)
                size += len(rest)
                if size >= formats.LONGEST_LINE:
                    yield b"".join(pieces)
                    pieces, size = [], 0
            block = self._block()
        yield b"".join(pieces)

    def _block(self, most: int = _BLOCK) -> bytes | None:
        """What there is, nothing at the end; None if nothing came for a while."""
        if self._stop.is_set():
            raise _StoppedError
        if not self._ready.poll(_TURN * 1000):
            return None
        try:
            return os.read(self._descriptor, most)
        except BlockingIOError:  # another reader was faster
            return None
