"""JSON that is not one document a line: an array, or documents over several lines. Pure."""

import re
from collections.abc import Iterator
from typing import IO, Final

from streamflow.errors import UsageError

_BLOCK: Final = 1 << 16  # bytes
_LARGEST: Final = 64 * 1024 * 1024  # bytes of one document; no topic takes as much
# A whole string, the beginning of one that ends in a later block, or what gives a document its form.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|["{}\[\],]', re.DOTALL)
_OPENING: Final = b"{["
_CLOSING: Final = b"}]"


def documents(file: IO[bytes]) -> Iterator[bytes]:
    """Each document as its bytes are in the file: the elements of an array, or what comes one after the
    other. Nothing is parsed here: what is no JSON comes out as it is.

    Raises UsageError if the array has no end, or something behind it.
    """
    return _Splitter(file).documents()


class _Splitter:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._text = b""
        self._start = 0  # in the text: where the document in hand begins
        self._at = 0  # in the text: up to where it is looked through
        self._number = 0

    def documents(self) -> Iterator[bytes]:
        while not self._rest() and self._read():
            self._text = self._text.removeprefix(b"\xef\xbb\xbf")
        if self._rest().startswith(b"["):
            yield from self._elements()
        else:
            yield from self._sequence()

    def _elements(self) -> Iterator[bytes]:
        self._cut(self._text.index(b"[") + 1)
        depth = 0
        while (token := self._token()) is not None:
            if token in _OPENING:
                depth += 1
            elif depth and token in _CLOSING:
                depth -= 1
            elif not depth and token in b",]":
                yield from self._element(is_last=token == b"]")
                if token == b"]":
                    break
        else:
            raise UsageError(f"the array has no end: it is cut off in element {self._number + 1}")
        while not self._rest() and self._read():
            pass
        if self._rest():
            raise UsageError(f"something follows the array, behind element {self._number}")

    def _element(self, *, is_last: bool) -> Iterator[bytes]:
        element = self._cut(self._at)[:-1].strip()
        self._number += 1
        if element:
            yield element + b"\n"
        elif not is_last or self._number > 1:
            raise UsageError(
                f"element {self._number} of the array is empty: there is a comma too many"
            )

    def _sequence(self) -> Iterator[bytes]:
        depth = 0
        while (token := self._token()) is not None:
            if token in _OPENING:
                depth += 1
            elif token in _CLOSING:
                depth -= 1
                if depth <= 0:
                    depth = 0
                    self._number += 1
                    yield self._cut(self._at).strip() + b"\n"
        if rest := self._rest():
            yield rest + b"\n"

    def _token(self) -> bytes | None:
        """The next one that is no string; None at the end of the file."""
        while True:
            for found in _TOKEN.finditer(self._text, self._at):
                if found[0] == b'"':  # the string ends in a later block
                    self._at = found.start()
                    break
                self._at = found.end()
                if found[0][:1] != b'"':
                    return found[0]
            else:
                self._at = len(self._text)
            if not self._read():
                return None

    def _read(self) -> bool:
        left = len(self._text) - self._start
        if left > _LARGEST:
            raise UsageError(
                f"document {self._number + 1} is larger than {_LARGEST >> 20} MiB: is a bracket or a "
                "quotation mark missing?"
            )
        # As much as is there already: a large document is not looked through again for each block.
        block = self._file.read(max(_BLOCK, left))
        self._text = self._text[self._start :] + block
        self._at -= self._start
        self._start = 0
        return bool(block)

    def _rest(self) -> bytes:
        """The text that is not cut off yet, without blanks around it."""
        return self._text[self._start :].strip()

    def _cut(self, end: int) -> bytes:
        """The text up to there, which is done."""
        done = self._text[self._start : end]
        self._start = self._at = end
        return done
