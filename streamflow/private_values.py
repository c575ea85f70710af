"""What is private wherever it stands (G7): e-mail addresses always; phone numbers, card numbers and a
team's own patterns where a stream declares them.

Contract, redaction and checks ask each kind the same three things. All are answered in time linear in the
input, whatever it is.
"""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any, ClassVar, Final

from streamflow import addresses
from streamflow.argument_types import TEXT, keeps_faults, optional
from streamflow.errors import ConfigurationError
from streamflow.spans import Spans, merged, originals

# What stands for another character: escapes of JSON, URLs and HTML, and characters beyond ASCII.
_ESCAPE: Final = (
    rb"\\u[0-9a-fA-F]{4}|\\[nrtbf/]|%(?:25)?[0-9a-fA-F]{2}|&#[0-9]{1,7};|&#[xX][0-9a-fA-F]{1,6};|"
)
_CHARACTER: Final = rb"[\xc2-\xf4][\x80-\xbf]{1,3}+"
_ESCAPES: Final = re.compile(_ESCAPE + _CHARACTER)
_RUNS: Final = re.compile(
    _ESCAPE + rb"(?:" + _CHARACTER + rb")++"
)  # all characters in a row at once
_MEANINGS_KEPT: Final = 16_384
_CONTROL: Final = {b"n": "\n", b"r": "\r", b"t": "\t", b"b": "\b", b"f": "\f", b"/": "/"}
_SEPARATORS: Final = rb"[ \t.\-]"


class Verdicts:
    """How many more candidates may be judged in one text. A verdict on a phone number takes a tenth of a
    millisecond; a text with more candidates than this is no text of people, and all that may be a number is
    taken for one."""

    def __init__(self, left: int = 500) -> None:
        self.left = left


class PrivateValue(ABC):
    """A kind of private values."""

    what: str  # as it is called in messages

    @abstractmethod
    def _find(self, text: bytes, verdicts: Verdicts) -> Iterator[tuple[int, int]]:
        """Where values begin and end in a text without escapes, in order."""

    def _may_hold(self, text: bytes) -> bool:
        return next(self._find(text, Verdicts()), None) is not None

    def _normal(self, text: str) -> str:
        """The one form of a value that is hashed, however it is written."""
        return text

    def may_hold(self, data: bytes) -> bool:
        """A quick answer, mostly no."""
        return self._may_hold(data) or bool(
            _ESCAPES.search(data) and self._may_hold(_resolved(data))
        )

    def find(self, data: bytes, verdicts: Verdicts | None = None) -> Iterable[tuple[int, int]]:
        """Where values begin and end in bytes of any kind, in order.

        Args:
            verdicts: shared by all searches of one text; None if this is the only one.
        """
        verdicts = verdicts or Verdicts()
        spans = list(self._find(data, verdicts))
        if _ESCAPES.search(data):
            spans += originals(data, self._find(_resolved(data), verdicts), _ESCAPES, _meaning)
        return merged(spans)

    def plain(self, raw: bytes) -> str:
        """A value that was found, in the form that is hashed."""
        return self._normal(_resolved(raw).decode("utf-8", "replace"))


class Address(PrivateValue):
    """E-mail addresses."""

    what = "address"

    def _find(self, text: bytes, _verdicts: Verdicts) -> Iterator[tuple[int, int]]:
        return addresses.find(text)

    # They have more forms than escapes: their scanner reads these itself.
    def may_hold(self, data: bytes) -> bool:
        return addresses.may_hold(data)

    def find(self, data: bytes, _verdicts: Verdicts | None = None) -> Iterable[tuple[int, int]]:
        return addresses.find(data)

    def plain(self, raw: bytes) -> str:
        return addresses.plain(raw)


ADDRESS: Final = Address()


@keeps_faults
@dataclass(frozen=True)
class CardNumber(PrivateValue):
    """Numbers of payment cards: 13 to 19 digits of a known issuer with the right check digit (Luhn), with
    blanks, dots or hyphens between them."""

    what: str = field(default="card number", init=False)

    _SHORTEST: ClassVar = 13
    _LONGEST: ClassVar = 19  # ISO/IEC 7812
    _ONCE: ClassVar = bytes.maketrans(b"0123456789", bytes(range(10)))
    _TWICE: ClassVar = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))
    _POSSIBLE: ClassVar = re.compile(rb"[0-9](?:" + _SEPARATORS + rb"{0,3}[0-9]){12}")
    _GROUP: ClassVar = re.compile(rb"(?<![0-9A-Za-z])[0-9]++(?![A-Za-z])")
    _BETWEEN: ClassVar = re.compile(_SEPARATORS + rb"{1,3}")
    # Visa; Mastercard; American Express; Discover; JCB; Diners Club; Maestro and UnionPay.
    _ISSUED: ClassVar = re.compile(
        rb"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})|(?:5[1-5]|2[2-7])[0-9]{14}|3[47][0-9]{13}"
        rb"|6(?:011|4[4-9]|5)[0-9]{12,16}|35[0-9]{14,17}|3(?:0[0-5]|[689])[0-9]{11,16}"
        rb"|(?:50|5[6-9]|6)[0-9]{11,17}"
    )

    def _may_hold(self, text: bytes) -> bool:
        return self._POSSIBLE.search(text) is not None

    def _find(self, text: bytes, _verdicts: Verdicts) -> Iterator[tuple[int, int]]:
        matches = self._GROUP.finditer(text)
        groups = deque(match.span() for match in islice(matches, self._LONGEST))
        done = 0
        while groups:
            begin = groups[0][0]
            if begin >= done and (end := self._end(text, groups)):
                done = end
                yield begin, end
            groups.popleft()
            groups.extend(match.span() for match in islice(matches, 1))

    def _end(self, text: bytes, groups: Iterable[tuple[int, int]]) -> int | None:
        """Where the longest number that begins with this group ends; groups that follow may be of another
        one ("… 1111 12/29")."""
        found, end, digits = None, 0, b""
        for begin, after in groups:
            if digits and not self._BETWEEN.fullmatch(text, end, begin):
                break
            digits += text[begin:after]
            end = after
            if len(digits) > self._LONGEST:
                break
            if len(digits) >= self._SHORTEST and self._is_card(digits):
                found = end
        return found

    def _is_card(self, digits: bytes) -> bool:
        total = sum(digits[::-2].translate(self._ONCE)) + sum(digits[-2::-2].translate(self._TWICE))
        return total % 10 == 0 and self._ISSUED.fullmatch(digits) is not None

    def _normal(self, text: str) -> str:
        return re.sub(r"[^0-9]", "", text)


@keeps_faults
@dataclass(frozen=True)
class PhoneNumber(PrivateValue):
    """Phone numbers that exist by the plans of their countries, as `phonenumbers` knows them.

    Args:
        region: country (``DE``) of numbers that are written without a country code; None for those that
            begin with ``+`` only.
    """

    region: Annotated[str | None, optional(TEXT)] = None
    what: str = field(default="phone number", init=False)

    _RUN: ClassVar = re.compile(
        rb"(?<![0-9A-Za-z+])[+(]{0,2}[0-9](?:[ ()./\-\t]{0,4}[0-9]){5,24}(?![0-9A-Za-z])"
    )
    # Hyphens and dots are within one number: 192.168.100.200 is no list of them.
    _FIRST: ClassVar = re.compile(rb"[+(]*[0-9.\-]++[ ()/\t]*+")
    _LAST: ClassVar = re.compile(rb"[ ()/\t]++[0-9.\-]++\Z")

    def __post_init__(self) -> None:
        if self.region is not None and self.region not in self._library.SUPPORTED_REGIONS:
            raise ConfigurationError(
                f"PhoneNumber: {self.region!r} is no region: write the country's code, as in DE"
            )

    @property
    def _library(self) -> Any:
        import phonenumbers  # noqa: PLC0415 (takes long, and most streams declare none)

        return phonenumbers

    def _may_hold(self, text: bytes) -> bool:
        return (self.region is not None or b"+" in text) and self._RUN.search(text) is not None

    def _find(self, text: bytes, verdicts: Verdicts) -> Iterator[tuple[int, int]]:
        position = 0
        while run := self._RUN.search(text, position):
            begin, end = run.span()
            position = end
            if self.region is None and b"+" not in run[0]:
                continue
            if verdicts.left <= 0:
                yield begin, end
                continue
            # The library takes numbers that only blanks separate for one that does not exist.
            found: Spans = []
            candidate: bytes | None = run[0]
            while candidate and not found:
                verdicts.left -= 1
                found = [
                    (begin + match.start, begin + match.end) for match in self._matches(candidate)
                ]
                last = self._LAST.search(candidate)
                candidate = candidate[: last.start()] if last else None
            first = self._FIRST.match(text, begin)
            position = found[-1][1] if found else first.end() if first else end
            yield from found

    def _matches(self, run: bytes) -> Iterator[Any]:
        library = self._library
        matches: Iterator[Any] = library.PhoneNumberMatcher(
            run.decode(), self.region, library.Leniency.VALID
        )
        return matches

    def _normal(self, text: str) -> str:
        library = self._library
        try:
            number = library.parse(text, self.region)
        except library.NumberParseException:
            return text
        return str(library.format_number(number, library.PhoneNumberFormat.E164))


@keeps_faults
@dataclass(frozen=True)
class PrivatePattern(PrivateValue):
    r"""What a regular expression of a team's own finds: customer numbers, names of devices.

    The syntax is that of RE2, which takes linear time for any expression and text: no backreferences, no
    look-around. Values have 5 to 512 bytes.

    Args:
        what: one of the values is called this in messages.
        pattern: matches anywhere in a text; case counts. Its ends are best marked with ``\b``.

    A pattern that is not valid, is anchored, or matches the empty text raises nothing: it is told when the
    stream is loaded.
    """

    what: Annotated[str, TEXT]
    pattern: Annotated[str, TEXT]
    _compiled: Any = field(init=False, repr=False, compare=False)

    _SHORTEST: ClassVar = 5
    _LONGEST: ClassVar = 512
    _HASH: ClassVar = re.compile(rb"(?<![0-9A-Za-z])[0-9a-f]{64}(?![0-9A-Za-z])|\Z")
    _CLASS_OR_ESCAPE: ClassVar = re.compile(r"\\[^Az]|\[\^?\]?(?:[^\]\\]|\\.)*\]", re.DOTALL)

    def __post_init__(self) -> None:
        import re2  # noqa: PLC0415 (most streams declare none)

        options = re2.Options()
        options.log_errors = False
        options.never_capture = True
        try:
            compiled = re2.compile(self.pattern, options)
        except re2.error as error:
            reason = error.args[0]
            text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
            raise ConfigurationError(
                f"PrivatePattern {self.what!r}: not a regular expression of RE2, which has no "
                f"backreferences and no look-around: {text}"
            ) from None
        if re.search(r"[\^$]|\\[Az]", self._CLASS_OR_ESCAPE.sub("", self.pattern)):
            raise ConfigurationError(
                f"PrivatePattern {self.what!r}: values stand within other text: write \\b for ^ and $"
            )
        if compiled.fullmatch(b""):
            raise ConfigurationError(f"PrivatePattern {self.what!r}: it matches an empty text")
        object.__setattr__(self, "_compiled", compiled)

    def _find(self, text: bytes, _verdicts: Verdicts) -> Iterator[tuple[int, int]]:
        begin = 0
        for hash_ in self._HASH.finditer(text):
            yield from self._within(text, begin, hash_.start())
            begin = hash_.end()

    def _within(self, text: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Searches pieces, for one search may look at all that is left, and find little."""
        while begin < end:
            match = self._compiled.search(text, begin, min(end, begin + 2 * self._LONGEST))
            if match is None:
                begin += self._LONGEST
            elif match.start() >= begin + self._LONGEST:
                begin = match.start()  # it may go on behind this piece
            else:
                if match.end() - match.start() >= self._SHORTEST:
                    yield match.span()
                begin = max(match.end(), match.start() + 1)


@lru_cache(maxsize=4096)
def _meaning(escape: bytes) -> bytes:
    """What an escape, or a character beyond ASCII, stands for: digits, hyphens and blanks of all scripts
    are those of ASCII."""
    try:
        if escape[:1] == b"\\":
            text = _CONTROL.get(escape[1:]) or chr(int(escape.removeprefix(b"\\u"), 16))
        elif escape[:1] == b"%":
            text = bytes([int(escape[-2:], 16)]).decode("ascii")
        elif escape[:1] == b"&":
            digits = escape[2:-1]
            text = chr(int(digits[1:], 16) if digits[:1] in b"xX" else int(digits))
        else:
            text = escape.decode()
        text = "".join(map(_as_ascii, unicodedata.normalize("NFKC", text)))
        return text.encode() or escape
    except (ValueError, OverflowError):  # UnicodeError is one
        return escape


def _as_ascii(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.digit(character))
    return {"Pd": "-", "Zs": " "}.get(category, character)


class _Meanings(dict[int, str]):
    """Of characters beyond ASCII, for `str.translate`."""

    def __missing__(self, code: int) -> str:
        text = _meaning(chr(code).encode()).decode()
        if len(self) < _MEANINGS_KEPT:
            self[code] = text
        return text


_MEANINGS: Final = _Meanings()


def _resolved(data: bytes) -> bytes:
    """The bytes without escapes."""
    text = bytearray()
    done = 0
    for match in _RUNS.finditer(data):
        text += data[done : match.start()]
        text += _meanings(match[0])
        done = match.end()
    text += data[done:]
    return bytes(text)


def _meanings(run: bytes) -> bytes:
    if run[0] < 0x80:  # noqa: PLR2004 (ASCII: one escape)
        return _meaning(run)
    try:
        return run.decode().translate(_MEANINGS).encode()
    except UnicodeDecodeError:
        return _ESCAPES.sub(lambda match: _meaning(match[0]), run)
