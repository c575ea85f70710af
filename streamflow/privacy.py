"""Addresses leave no process in clear text (G7): hash them, and redact what holds them."""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from typing import Final

HASH_LENGTH: Final = 64
HASH_PATTERN: Final = r"^[0-9a-f]{64}$"
_HASHED = re.compile(HASH_PATTERN)

# One pattern for bytes of any encoding: a delimiter is never part of an address, all else may be. The
# possessive quantifiers and the look-behind keep it linear on hostile input (a megabyte of "a").
# JSON may escape the "@" and the ".", so those count as well.
_DELIMITERS: Final = rb"\x00-\x20\"'<>()\[\],;:{}=@"
_AT: Final = rb"(?:@|\\u0040)"
_ADDRESS = re.compile(
    rb"(?<![^" + _DELIMITERS + rb"])"
    rb"(?:(?!\\u0040)[^"
    + _DELIMITERS
    + rb"])++((?:"
    + _AT
    + rb"(?:(?!\\u0040)[^"
    + _DELIMITERS
    + rb"/?#])++)++)"
)
# Characters of one: 64 and 255 around the "@" (RFC 5321), each as an escape of six at most.
_LONGEST_ADDRESS: Final = 6 * 320
_NO_DELIMITER = re.compile(rb"[^" + _DELIMITERS.replace(b"@", b"") + rb"]*+")
_DOT = re.compile(rb"[^.]\.[^.]|[^.]\\u002[eE][^.]")


def has_address(text: str) -> bool:
    """Whether a text holds something that can be an e-mail address."""
    return "@" in text and any(
        _is_address(match) for match in _ADDRESS.finditer(text.encode("utf-8", "surrogatepass"))
    )


def is_hashed(text: str) -> bool:
    """Whether a text has the form of a hash: 64 lower-case hexadecimal digits."""
    return _HASHED.match(text) is not None


def _is_address(match: re.Match[bytes]) -> bool:
    return _DOT.search(match[1]) is not None


def _unescaped(raw: bytes) -> str:
    """What a piece of JSON text stands for; the text itself where it is not JSON."""
    text = raw.decode("utf-8", "replace")
    try:
        meant = json.loads(f'"{text}"')
    except ValueError:
        return text
    return str(meant)


class Hasher:
    """Hashes addresses with SHA-256, or HMAC-SHA-256 where there is a key.

    A bare hash can be guessed by trying addresses; set ``STREAMFLOW_PII_KEY``.

    Args:
        key: the secret; None for a bare hash.
        private_fields: names of the fields whose values are private whatever they look like.
    """

    def __init__(self, key: bytes | None = None, private_fields: Iterable[str] = ()) -> None:
        self.keyed = key is not None
        self._key = key
        names = b"|".join(re.escape(name.encode()) for name in sorted(private_fields))
        self._private = (
            re.compile(rb'("(?:' + names + rb')"\s*+:\s*+")((?:[^"\\]|\\.)*+)', re.DOTALL)
            if names
            else None
        )
        # Where a hash may be put in.
        self._markers = re.compile(
            rb"@|\\u0040" + (rb'|"(?:' + names + rb')"\s*+:' if names else b"")
        )

    def hash(self, address: str) -> str:
        data = address.encode("utf-8", "surrogatepass")
        if self._key is None:
            return hashlib.sha256(data).hexdigest()
        return hmac.digest(self._key, data, "sha256").hex()

    def redact(self, data: bytes) -> bytes:
        """The same bytes with each address, and each private field's value, replaced by its hash.

        Works on any bytes, valid JSON or not, in time linear in their length. Hashes stay as they are, so
        redacting twice changes nothing.
        """
        if self._private is not None:
            data = self._private.sub(self._hash_private, data)
        if b"@" in data or b"\\u0040" in data:
            data = _ADDRESS.sub(self._hash_address, data)
        return data

    def redact_within(self, data: bytes, limit: int) -> tuple[bytes, int]:
        """As `redact`, of as much of the data as becomes at most `limit` bytes; also returns how much
        that is.

        What does not fit is cut off before it is redacted, behind a byte that cannot be part of an
        address: neither half an address nor gigabytes of hashes ever exist. A private field's value may
        be cut: its first half is hashed as a whole one is.
        """
        if len(data) <= limit // 4:  # nearly always fits: it grows thirteenfold at most
            redacted = self.redact(data)
            if len(redacted) <= limit:
                return redacted, len(data)
        room = self._room(data, limit)
        if room < len(data):
            data = data[:room]
            tail = data[: -_LONGEST_ADDRESS - 1 : -1]
            half = _NO_DELIMITER.match(tail)
            if half and half.end() < _LONGEST_ADDRESS:
                data = data[: room - half.end()]
        return self.redact(data), len(data)

    def _room(self, data: bytes, limit: int) -> int:
        """How many bytes of the data become at most `limit` in any case."""
        number = -1
        for number, marker in enumerate(self._markers.finditer(data)):
            room = limit - HASH_LENGTH * number
            if marker.start() >= room:
                return room
        return max(0, min(len(data), limit - HASH_LENGTH * (number + 1)))

    def _hash_private(self, match: re.Match[bytes]) -> bytes:
        value = _unescaped(match[2])
        if not value or is_hashed(value):
            return match[0]
        return match[1] + self.hash(value).encode()

    def _hash_address(self, match: re.Match[bytes]) -> bytes:
        if not _is_address(match):
            return match[0]
        # The sentence's full stop is not part of the address before it.
        address = match[0].rstrip(b".")
        return self.hash(_unescaped(address)).encode() + match[0][len(address) :]
