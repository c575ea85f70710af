"""Where lines come from: a file that may grow, or a stream (pipe, terminal, standard input), read once."""

import os
import re
import select
import shlex
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from streamflow.errors import UsageError

_BLOCK: Final = 1 << 16  # bytes
_TURN: Final = 0.2  # seconds in which a signal is answered
_GROUP_SECONDS: Final = 1.0  # a line waits no longer for others

_SIGNATURES: Final = (
    (b"\x1f\x8b", "compressed with gzip", "zcat"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "zstdcat"),
    (b"\xfd7zXZ\x00", "compressed with xz", "xzcat"),
    (b"BZh", "compressed with bzip2", "bzcat"),
    (b"PK\x03\x04", "a ZIP archive", "unzip -p"),
    (b"\xff\xfe\x00\x00", "UTF-32", "iconv -f UTF-32 -t UTF-8"),
    (b"\x00\x00\xfe\xff", "UTF-32", "iconv -f UTF-32 -t UTF-8"),
    (b"\xff\xfe", "UTF-16", "iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16", "iconv -f UTF-16 -t UTF-8"),
)  # fmt: skip
_BOM: Final = "\ufeff".encode()
_ARRAY: Final = re.compile(rb"\s*\[\s*[{\n]")
_SPREAD: Final = re.compile(rb"\s*\{[ \t\r]*\n")
_LONE_RETURNS: Final = re.compile(rb"\}[ \t]*\r[ \t]*\{")


def open_source(name: str, *, complete: bool = False, stream: str | None = None) -> "Source":
    """Opens a file or, named ``-``, standard input. Never waits, not even for a pipe's writer.

    Args:
        complete: whether a last line without a newline is a whole one. That of a pipe always is.
        stream: as `--stream` names it, for the command that is proposed for a file in another format.
    """
    path = Path(name)
    try:
        if name == "-":
            return Source(
                Path("/dev/stdin"), os.dup(0), complete=True, resumable=False, stream=stream
            )
        if path.is_dir():
            raise UsageError(f"{name} is a folder: name a file with one JSON object a line")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    whole = complete or not regular
    return Source(path, descriptor, complete=whole, resumable=regular, stream=stream)


class Source:
    """An open source of lines.

    Attributes:
        file: what it is read from.
        resumable: whether it can be read again, so that a later run can go on where this one stops.
        size: in bytes; None if that is not known.
        waiting: whether the last line has no newline, so it may be half a line, and was not handed out.
    """

    def __init__(
        self,
        path: Path,
        descriptor: int,
        *,
        complete: bool,
        resumable: bool,
        stream: str | None = None,
    ) -> None:
        self.path = path
        self.resumable = resumable
        self.waiting = False
        status = os.fstat(descriptor)
        self._regular = stat.S_ISREG(status.st_mode)
        self.size = status.st_size if self._regular else None
        self._complete = complete
        self._command = f"streamflow produce{f' --stream {stream}' if stream else ''} --from -"
        self.file: IO[bytes] = open(descriptor, "rb", buffering=_BLOCK)  # noqa: SIM115 (closed by `close`)

    def close(self) -> None:
        self.file.close()

    def groups(self, stop: threading.Event, most: int) -> Iterator[list[bytes]]:
        """The lines with their ends, in groups of at most `most` and of about a second."""
        lines: list[bytes] = []
        began = time.monotonic()
        if self._regular and self.file.tell() == 0:
            self._require_lines(os.pread(self.file.fileno(), _BLOCK, 0))
        for line in self.file if self._regular else self._stream(stop):
            if line[-1:] == b"\n" or (line and self._complete):
                lines.append(line)
            elif line:
                self.waiting = True
                break
            if len(lines) >= most or time.monotonic() - began > _GROUP_SECONDS:
                if lines:
                    yield lines
                lines, began = [], time.monotonic()
            if stop.is_set():
                break
        if lines:
            yield lines

    def _stream(self, stop: threading.Event) -> Iterator[bytes]:
        """The lines of a stream until it ends or `stop` is set; nothing while none comes."""
        descriptor = self.file.fileno()
        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        first, pieces = True, list[bytes]()
        while not stop.is_set():
            if not ready.poll(_TURN * 1000):
                yield b""
                continue
            try:
                block = os.read(descriptor, _BLOCK)
            except BlockingIOError:  # another reader was faster
                continue
            if first:
                self._require_lines(block)
                first = False
            if not block:
                yield b"".join(pieces)
                return
            whole, newline, rest = block.rpartition(b"\n")
            if newline:
                pieces.append(whole)
                yield from (line + newline for line in b"".join(pieces).split(newline))
                pieces = []
            pieces.append(rest)

    def _require_lines(self, head: bytes) -> None:
        """Raises UsageError if what begins so is anything but text with one JSON document a line."""
        found = _foreign_format(head)
        if found is None:
            return
        what, command = found
        name = "standard input" if self.path == Path("/dev/stdin") else str(self.path)
        file = "FILE" if name == "standard input" else shlex.quote(name)
        raise UsageError(
            f"{name} is {what}, not one JSON object a line: send it with "
            f"`{command.replace('FILE', file)} | {self._command}`"
        )


def _foreign_format(head: bytes) -> tuple[str, str] | None:
    """What a format is called that is not ours, and the command that converts it; None for lines."""
    for signature, what, command in _SIGNATURES:
        if head.startswith(signature):
            return what, f"{command} FILE"
    if head.count(0) > len(head) // 4:
        # ASCII is the low byte of each character.
        order = "BE" if head.startswith(b"\x00") else "LE"
        return "UTF-16", f"iconv -f UTF-16{order} -t UTF-8 FILE"
    text = head.removeprefix(_BOM)
    if _ARRAY.match(text):
        return "a JSON array", "jq -c '.[]' FILE"
    if _SPREAD.match(text):
        return "JSON over several lines", "jq -c . FILE"
    if b"\n" not in text and _LONE_RETURNS.search(text):
        return "text whose lines end with CR alone", r"tr '\r' '\n' < FILE"
    return None
