"""Where the values of private fields are in JSON, whole or in pieces, valid or not."""

import re
from collections.abc import Generator, Iterable, Iterator
from functools import cached_property
from typing import Final

_TEXT: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
_NUMBER: Final = rb"-?[0-9][0-9.eE+-]*+"
_QUOTE: Final = ord('"')
_ESCAPE: Final = ord("\\")
_SHORT_ESCAPES: Final = {
    '"': '"', "\\": "\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t",
}  # fmt: skip
_LAST_LATIN_1: Final = "\xff"


class PrivateTexts:
    """Finds them by the fields' names, at any depth, however the names are escaped.

    Args:
        names: of the private fields, in JSON.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._names = sorted(self.names)

    # Most contracts need neither, and nearly all records no escapes.
    @cached_property
    def _plain(self) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
        return self._expressions(with_escapes=False)

    @cached_property
    def _escaped(self) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
        return self._expressions(with_escapes=True)

    def _expressions(self, *, with_escapes: bool) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
        """Of a private field with its value, and of each token of JSON that matters here."""
        names = b"|".join(_spelled(name, with_escapes=with_escapes) for name in self._names)
        field = rb'"(?:' + names + rb')"\s*+:\s*+'
        return (
            re.compile(
                field + rb"(?:(?P<text>" + _TEXT + rb")|(?P<open>[\[{])|(?P<number>" + _NUMBER + rb"))",
                re.DOTALL,
            ),
            re.compile(
                rb"(?P<field>" + field + rb")?(?:(?P<text>" + _TEXT + rb")(?P<key>\s*+:)?"
                rb"|(?P<open>[\[{])|(?P<close>[\]}])|(?P<number>" + _NUMBER + rb"))",
                re.DOTALL,
            ),
        )  # fmt: skip

    def spans(self, data: bytes, *, whole: bool = True) -> Iterator[tuple[int, int]]:
        """Where they begin and end, texts without their quotes. Takes time linear in the length.

        Args:
            data: looks like JSON.
            whole: all texts and numbers that a private field holds, in lists and objects too, but not the
                names of an object's fields; False for what a producer hashes: texts, and those in lists.
        """
        if not self._names:
            return
        # Names are rarely escaped, and looking for escapes takes longer.
        field, token = self._escaped if _ESCAPE in data else self._plain
        at = 0
        while match := field.search(data, at):
            at = match.end()
            if match["text"] is not None:
                yield _unquoted(data, match.span("text"))
            elif match["number"] is not None:
                if whole:
                    yield match.span("number")
            elif whole or match["open"] == b"[":
                opened = match["open"] == b"{"
                at = yield from _within(data, token.finditer(data, at), opened, whole=whole)


def _within(
    data: bytes, tokens: Iterator[re.Match[bytes]], opened: bool, *, whole: bool
) -> Generator[tuple[int, int], None, int]:
    """The values of a list, or of an object, that has been opened before; returns where it ends."""
    open_ = [(opened, True)]  # whether it is an object, and whether its values are private
    for token in tokens:
        is_object, is_private = open_[-1]
        is_named = token["field"] is not None
        is_private = is_private or is_named
        if token["open"] is not None:
            is_object = token["open"] == b"{"
            open_.append((is_object, is_private and (whole or not is_object)))
        elif token["close"] is not None:
            open_.pop()
            if not open_:
                return token.end()
        elif token["number"] is not None:
            if whole and is_private:
                yield token.span("number")
        elif is_named or (is_private and not (is_object and token["key"])):
            yield _unquoted(data, token.span("text"))
    return len(data)


def _unquoted(data: bytes, span: tuple[int, int]) -> tuple[int, int]:
    begin, end = span
    is_closed = end - begin > 1 and data[end - 1] == _QUOTE
    return begin + 1, end - is_closed


def _spelled(name: str, *, with_escapes: bool) -> bytes:
    """An expression for a name as JSON may have it, in UTF-8, or with one byte for each character: in
    Latin-1, where 0xFF stands for others, as the hasher reads UTF-16."""
    return b"".join(_character(each, with_escapes=with_escapes) for each in name)


def _character(character: str, *, with_escapes: bool) -> bytes:
    forms = [re.escape(character.encode("utf-8", "surrogatepass"))]
    if not character.isascii():
        is_latin_1 = character <= _LAST_LATIN_1
        forms.append(re.escape(character.encode("latin-1")) if is_latin_1 else rb"\xff{1,2}")
    if with_escapes:
        if short := _SHORT_ESCAPES.get(character):
            forms.append(re.escape(f"\\{short}".encode()))
        digits = character.encode("utf-16-be", "surrogatepass").hex()
        units = (digits[at : at + 4] for at in range(0, len(digits), 4))
        forms.append(b"(?i:" + b"".join(rb"\\u" + unit.encode() for unit in units) + b")")
    return forms[0] if len(forms) == 1 else b"(?:" + b"|".join(forms) + b")"
