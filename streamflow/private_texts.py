"""Where the texts of private fields are in JSON, whole or in pieces, valid or not."""

import re
from collections.abc import Generator, Iterable, Iterator
from typing import Final

_TEXT: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
_QUOTE: Final = ord('"')
_OPENING: Final = (b"[", b"{")


class PrivateTexts:
    """Finds them by the fields' names, at any depth: a text, or the texts in a list, which may be in further
    lists and beside values of other types.

    Args:
        names: of the private fields, in JSON.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = b"|".join(re.escape(name.encode()) for name in sorted(names))
        field = rb'"(?:' + self.names + rb')"\s*+:\s*+'
        self._field = re.compile(field + rb"(?:(" + _TEXT + rb")|\[)", re.DOTALL)
        self._token = re.compile(
            field + rb"(?:(?P<value>" + _TEXT + rb")|(?P<list>\[))"
            rb"|(?P<text>" + _TEXT + rb")|[\[\]{}]",
            re.DOTALL,
        )  # fmt: skip

    def spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where they begin and end, without their quotes. Takes time linear in the length."""
        at = 0
        while self.names and (match := self._field.search(data, at)):
            if match[1] is None:
                at = yield from self._in_list(data, match.end())
            else:
                yield _unquoted(data, match.span(1))
                at = match.end()

    def _in_list(self, data: bytes, at: int) -> Generator[tuple[int, int], None, int]:
        """The texts of a list that has been opened before; returns where it ends."""
        open_ = [True]  # lists and objects: whether their texts are private
        for token in self._token.finditer(data, at):
            if token["value"] is not None:
                yield _unquoted(data, token.span("value"))
            elif token["text"] is not None:
                if open_[-1]:
                    yield _unquoted(data, token.span("text"))
            elif token["list"] is not None:
                open_.append(True)
            elif token[0] in _OPENING:
                open_.append(open_[-1] and token[0] == b"[")
            else:
                open_.pop()
                if not open_:
                    return token.end()
        return len(data)


def _unquoted(data: bytes, span: tuple[int, int]) -> tuple[int, int]:
    begin, end = span
    is_closed = end - begin > 1 and data[end - 1] == _QUOTE
    return begin + 1, end - is_closed
