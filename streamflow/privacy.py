"""Private values leave no process in clear text (G7): hash them, and redact what holds them."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from heapq import merge
from typing import Any, Final, Literal, NamedTuple

from streamflow import addresses
from streamflow.pii_keys import HASH_LENGTH, HASH_PATTERN, MARKED_HASH, PiiKeys, is_hashed
from streamflow.private_texts import PrivateTexts
from streamflow.private_values import ADDRESS, PrivateValue, Verdicts

__all__ = ["HASH_PATTERN", "Hasher", "is_hashed"]

_MARKED_HASH: Final = re.compile(MARKED_HASH)

# Characters of an address: 64 and 255 around the "@" (RFC 5321), each as an escape of six at most, in
# UTF-32 at most.
_LONGEST_ADDRESS: Final = 4 * 6 * 320
_WIDEST: Final = 4  # bytes of a character
# Hashes that are remembered, of texts no longer than an address: up to 20 MB.
_MOST_REMEMBERED: Final = 65_536
_LONGEST_REMEMBERED: Final = 320  # characters
# Data of a CloudEvent in which nothing private can be seen as it stands.
_BASE64_NAME: Final = b"data_base64"
_BASE64: Final = re.compile(
    rb'"' + _BASE64_NAME + rb'"\s*+:\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)("?)', re.DOTALL
)
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_NO_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/]")
_ESCAPED: Final = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_BLANKS: Final = 16  # that are expected before a number
_NUMBER_BEFORE: Final = re.compile(rb"[:,\[][ \t\r\n]*\Z")
_NUMBER_BEHIND: Final = re.compile(rb"[ \t\r\n]*+[,}\]]")
_QUOTES: Final = 2  # around the hash that replaces a number
_QUOTE: Final = ord('"')
_AT: Final = re.compile(addresses.AT)

_Spans = Iterable[tuple[int, int]]

_ORDERS: Final[tuple[Literal["little", "big"], ...]] = ("little", "big")
# What stands for an at sign or a dot.
_SIGNS: Final = {
    ord(wide): ord(sign)
    for sign, others in (("@", addresses.WIDE_ATS), (".", addresses.WIDE_DOTS))
    for wide in others
}
_BEYOND_LATIN_1: Final = bytes([0, *[255] * 255])
# An address has one of these, in whatever form; a private field's name has the last.
_FIRST_SIGNS: Final = tuple(map(ord, f'@{addresses.WIDE_ATS}\\%=&"'))


class _Encoding(NamedTuple):
    """How bytes are to be read: as ASCII and whatever extends it, or as UTF-16 or UTF-32 from `offset` on.
    A text that was split at bytes begins anywhere."""

    width: int  # bytes of a character
    order: Literal["little", "big"]
    offset: int

    def narrow(self, data: bytes) -> bytes:
        """One byte for each character: those that stand for a sign become that, others beyond Latin-1 one
        that an address may hold."""
        if self.width == 1:
            return data
        end = self.offset + (len(data) - self.offset) // self.width * self.width
        lowest, *higher = (data[self.offset + at : end : self.width] for at in range(self.width))
        if self.order == "big":
            *higher, lowest = lowest, *higher
        # Whole texts as integers: a loop over the characters takes twenty times as long.
        text = int.from_bytes(lowest)
        for each in higher:
            text |= int.from_bytes(each.translate(_BEYOND_LATIN_1))
        narrow = bytearray(text.to_bytes(len(lowest)))
        for wide, sign in _SIGNS.items() if 255 in narrow else ():  # noqa: PLR2004
            encoded, place = wide.to_bytes(self.width, self.order), self.offset - 1
            while (place := data.find(encoded, place + 1, end)) >= 0:
                if (place - self.offset) % self.width == 0:
                    narrow[(place - self.offset) // self.width] = sign
        return bytes(narrow)

    def utf8(self, raw: bytes) -> bytes:
        return raw if self.width == 1 else raw.decode(self._codec, "replace").encode()

    def encode(self, ascii_text: str) -> bytes:
        return ascii_text.encode("ascii" if self.width == 1 else self._codec)

    @property
    def _codec(self) -> str:
        return f"utf-{8 * self.width}-{self.order[0]}e"


_ASCII: Final = _Encoding(1, "little", 0)


def _encodings(data: bytes, *, of_any_text: bool) -> Iterator[_Encoding]:
    """All that could be read in some bytes; of those without signs of addresses only if asked for."""
    yield _ASCII
    if 0 in data:
        for width in (2, 4):
            for offset in range(width):
                for order in _ORDERS:
                    if of_any_text or any(
                        sign.to_bytes(width, order) in data for sign in _FIRST_SIGNS
                    ):
                        yield _Encoding(width, order, offset)


class Hasher:
    """Hashes private values with SHA-256, or HMAC-SHA-256 where there is a key.

    A bare hash can be guessed by trying addresses; set ``STREAMFLOW_PII_KEY``.

    Args:
        key: the secret, or several with ids; None for a bare hash.
        private_fields: names of the fields whose values are private whatever they look like.
        private_values: what is private besides addresses, wherever it stands.
    """

    def __init__(
        self,
        key: bytes | PiiKeys | None = None,
        private_fields: Iterable[str] = (),
        private_values: Iterable[PrivateValue] = (),
    ) -> None:
        self.keys = key if isinstance(key, PiiKeys) else PiiKeys(legacy=key)
        self._key = self.keys.legacy
        self._with_ids = bool(self.keys.named)
        self.rotates = len(self.keys.ids) > 1
        self.keyed = self._with_ids or self._key is not None
        self._declared = tuple(private_values)
        self._values = (ADDRESS, *self._declared)
        self._private = PrivateTexts(private_fields)
        # The same people come again and again.
        self._remembered = lru_cache(maxsize=_MOST_REMEMBERED)(self._digest)

    @property
    def private_names(self) -> frozenset[str]:
        """Names of the fields whose values are hashed, whatever they look like."""
        return self._private.names

    def hash(self, text: str) -> str:
        """The hash of a private value under the newest key: of its one form, if it is one that was
        declared."""
        return self._hash(self._plain(text, Verdicts()) if self._declared else text)

    def _hash(self, plain: str) -> str:
        is_short = len(plain) <= _LONGEST_REMEMBERED
        return self._remembered(plain) if is_short else self._digest(plain)

    def _digest(self, plain: str) -> str:
        if self._with_ids:
            return self.keys.hash(plain)
        data = plain.encode("utf-8", "surrogatepass")
        if self._key is None:
            return hashlib.sha256(data).hexdigest()
        return hmac.digest(self._key, data, "sha256").hex()

    def _plain(self, text: str, verdicts: Verdicts) -> str:
        data = text.encode("utf-8", "surrogatepass")
        for value in self._values if self._declared else ():
            if list(value.find(data, verdicts)) == [(0, len(data))]:
                return text if value is ADDRESS else value.plain(data)
        return text

    def hashes(self, text: str) -> tuple[str, ...]:
        """The hashes that stored values of one text may have, newest first: under each key, and of more
        than one spelling of an address where a key without an id was in use."""
        plain = self._plain(text, Verdicts())
        return tuple(dict.fromkeys(hash_(plain) for hash_ in self.keys.hash_functions()))

    def lifted(self, value: Any) -> Any:
        """A private field's value; a hash of an older key as the newest key has it."""
        return (self.keys.lifted(value) or value) if isinstance(value, str) else value

    def lift_within(self, data: bytes) -> bytes:
        """The same bytes with all hashes of older keys lifted that are certain to be hashes: in private
        fields, and under a key with an id."""
        pieces: list[bytes] = []
        done = 0
        for begin, end in self._private.spans(data):
            pieces += data[done:begin], self._lifted_bytes(data[begin:end])
            done = end
        data = b"".join((*pieces, data[done:]))
        data = _MARKED_HASH.sub(lambda match: self._lifted_bytes(match[0]), data)
        return self._within_base64(data, self.lift_within)

    def hashes_within(self, data: bytes) -> set[str]:
        """The hashes that are certain to be such, as `lift_within` has it."""
        private = self._private.spans(data)
        texts = (data[begin:end].decode("ascii", "replace") for begin, end in private)
        found = {*filter(is_hashed, texts), *(raw.decode() for raw in _MARKED_HASH.findall(data))}

        def find(decoded: bytes) -> bytes:
            found.update(self.hashes_within(decoded))
            return decoded

        self._within_base64(data, find)
        return found

    def _lifted_bytes(self, hashed: bytes) -> bytes:
        return (self.keys.lifted(hashed.decode("ascii", "replace")) or "").encode() or hashed

    def redactions(self, data: bytes) -> tuple[bytes, ...]:
        """As `redact`, with each of the `hashes`."""
        hashers = [_WithFunction(self, hash_) for hash_ in self.keys.hash_functions()]
        return tuple(dict.fromkeys(hasher.redact(data) for hasher in hashers))

    def redact(self, data: bytes) -> bytes:
        """The same bytes with each private value, and each private field's, replaced by its hash.

        Works on any bytes, valid JSON or not, in time linear in their length. Hashes stay as they are, so
        redacting twice changes nothing. So does what a CloudEvent's ``data_base64`` holds.
        """
        verdicts = Verdicts()
        data = self._within_base64(data, self.redact, self._hashed_base64)
        for encoding in self._encodings(data):
            data = self._hash_private(data, verdicts, encoding)
            for value in self._values:
                narrow = encoding.narrow(data)
                if encoding is not _ASCII and not narrow.strip(b"\0\xff"):
                    break  # no text of ours in this encoding
                if value.may_hold(narrow):
                    spans = value.find(narrow, verdicts)
                    data = self._replace(
                        data, encoding, spans, value.plain, partial(_is_number, data, encoding)
                    )
        return data

    def _encodings(self, data: bytes) -> Iterator[_Encoding]:
        return _encodings(data, of_any_text=bool(self._declared))

    def _within_base64(
        self,
        data: bytes,
        change: Callable[[bytes], bytes],
        cut: Callable[[bytes], bytes] = lambda text: text,
    ) -> bytes:
        """The same bytes with what is in base64 changed; `cut` changes base64 that has no end."""
        if _BASE64_NAME not in data:
            return data

        def changed(match: re.Match[bytes]) -> bytes:
            text, quote = match[1], match[2]
            if quote:
                decoded = _decoded(text)
                after = change(decoded)
                new = text if after == decoded else base64.b64encode(after)
            else:
                new = cut(text)
            return match[0][: match.start(1) - match.start()] + new + quote

        return _BASE64.sub(changed, data)

    def _hashed_base64(self, cut: bytes) -> bytes:
        """What was cut off may end within a value, so nothing of it stays."""
        text = cut.decode("ascii", "replace")
        return cut if is_hashed(text) else self._hash(text).encode()

    def hash_private(self, data: bytes) -> bytes:
        """The same bytes with the texts of each private field, and those in its lists, replaced by their
        hashes, at any depth: what a contract accepts then."""
        return self._hash_private(data, Verdicts(), whole=False)

    def _hash_private(
        self, data: bytes, verdicts: Verdicts, encoding: _Encoding = _ASCII, *, whole: bool = True
    ) -> bytes:
        def plain_field(raw: bytes) -> str:
            return self._plain(addresses.unescaped(raw), verdicts)

        narrow = encoding.narrow(data)
        return self._replace(
            data,
            encoding,
            self._private.spans(narrow, whole=whole),
            plain_field,
            lambda begin, _: narrow[begin - 1] != _QUOTE,
        )

    def redact_within(self, data: bytes, limit: int) -> tuple[bytes, int]:
        """As `redact`, of as much of the data as becomes at most `limit` bytes; also returns how much
        that is.

        What does not fit is cut off before it is redacted, and never within a value: neither half an
        address nor gigabytes of hashes ever exist. A private field's value may be cut: its first half is
        hashed as a whole one is.
        """
        if len(data) <= limit // 4:  # nearly always fits: it grows thirteenfold at most
            redacted = self.redact(data)
            if len(redacted) <= limit:
                return redacted, len(data)
        room = self._room(data, limit)
        while True:
            room = self._outside_values(data, room)
            redacted = self.redact(data[:room])
            if len(redacted) <= limit:
                return redacted, room
            room = min(room - 1, room * limit // len(redacted))

    def _room(self, data: bytes, limit: int) -> int:
        """How many bytes of the data become at most `limit`, whatever the hashes replace."""
        length = (HASH_LENGTH + _QUOTES) * (_WIDEST if 0 in data else 1)
        number = -1
        starts = (match.start() for match in _AT.finditer(data))
        private = (begin for begin, _ in self._private.spans(data))
        declared = ((begin for begin, _ in value.find(data)) for value in self._declared)
        for number, start in enumerate(merge(starts, private, *declared)):
            room = limit - length * number
            if start >= room:
                return max(0, room)
        return max(0, min(len(data), limit - length * (number + 1)))

    def _replace(
        self,
        data: bytes,
        encoding: _Encoding,
        spans: _Spans,
        plain: Callable[[bytes], str],
        is_number: Callable[[int, int], bool],
    ) -> bytes:
        """The data with the hashes of what is at these places of the narrow text instead of it; those of
        numbers in quotes, so that JSON stays JSON."""
        pieces: list[bytes] = []
        done = 0
        width, _, offset = encoding
        for begin, end in spans:
            start, after = offset + width * begin, offset + width * end
            text = plain(encoding.utf8(data[start:after]))
            if text and not is_hashed(text):
                hashed = self._hash(text)
                hashed = f'"{hashed}"' if is_number(begin, end) else hashed
                pieces += data[done:start], encoding.encode(hashed)
                done = after
        return b"".join((*pieces, data[done:])) if pieces else data

    def _outside_values(self, data: bytes, room: int) -> int:
        """The largest number of bytes, up to `room`, that the data can be cut to without halving a value."""
        if room >= len(data):
            return room
        first = max(0, room - _LONGEST_ADDRESS)
        near = data[first : room + _LONGEST_ADDRESS]
        verdicts = Verdicts()
        # Searched once: of a text that is all numbers, other ones would be found at each place.
        spans = [
            (offset + width * begin, offset + width * end)
            for encoding in self._encodings(near)
            for value in self._values
            for width, offset in [(encoding.width, first + encoding.offset)]
            for begin, end in value.find(encoding.narrow(near), verdicts)
        ]
        while halved := [begin for begin, end in spans if begin < room < end]:
            room = min(halved)
        return room


class _WithFunction(Hasher):
    def __init__(self, hasher: Hasher, hash_: Callable[[str], str]) -> None:
        vars(self).update(vars(hasher))
        self._hash = hash_  # type: ignore[method-assign, assignment]


def _is_number(data: bytes, encoding: _Encoding, begin: int, end: int) -> bool:
    """Whether a value is a number of a JSON document. Addresses are none."""
    return bool(
        encoding is _ASCII
        and data[begin:end].isdigit()
        and _NUMBER_BEFORE.search(data, max(0, begin - _BLANKS), begin)
        and _NUMBER_BEHIND.match(data, end)
    )


def _decoded(text: bytes) -> bytes:
    """As much of a text in base64 as can be read, whatever else is in it."""
    plain = _ESCAPED.sub(_unescaped, text).translate(_URL_SAFE)
    plain = _NO_BASE64.sub(b"", plain)
    if len(plain) % 4 == 1:  # less than a byte
        plain = plain[:-1]
    return binascii.a2b_base64(plain + b"=" * (-len(plain) % 4))


def _unescaped(match: re.Match[bytes]) -> bytes:
    if match[1]:
        return chr(int(match[1], 16)).encode("ascii", "ignore")
    return b"/" if match[2] == b"/" else b""  # a line break, or what base64 does not have
