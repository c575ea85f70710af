"""The keys that private values are hashed under, and how one key follows another. Pure.

A hash cannot be computed again from itself, so each key with an id hashes what the key before it gave.
What an older key has hashed is *lifted*: the keys that are newer hash it, and it equals what a producer
with all keys would have sent. So no key may leave the list, and one that leaked protects nobody alone.

A hash under a key with an id says so: it begins with `_MARK` and the key's tag. The tag depends on that key
and all before it. Hashes of a key without an id (`LEGACY`) are bare digests, as they have always been.
`docs/privacy.md` has the same for clients that hash themselves.
"""

import hashlib
import hmac
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

import idna

LEGACY: Final = "legacy"
HASH_LENGTH: Final = 64
HASH_PATTERN: Final = r"^[0-9a-f]{64}$"

_HASHED: Final = re.compile(HASH_PATTERN)
# 48 bits: the chance that any of 10^9 bare digests begins with it is 1 in 280,000.
_MARK: Final = "5f105f105f10"
_TAG_LENGTH: Final = 8
_MARKED: Final = len(_MARK) + _TAG_LENGTH
_END: Final = re.compile(r"[.\u3002\s]+\Z")  # of a domain
MARKED_HASH: Final = _MARK.encode() + rb"[0-9a-f]{52}"
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")
_FORM: Final = (
    'write the key, or {"2026b": "new key", "2026a": "old key"} with the newest first, and "legacy" as the '
    "id of a key that had none (null: there was no key)"
)


def is_hashed(text: str) -> bool:
    """Whether a text has the form of a hash: 64 lower-case hexadecimal digits."""
    return _HASHED.match(text) is not None


def normal_form(address: str) -> str:
    """The one spelling of an address that keys with an id hash.

    Without white space around it, NFKC, in lower case (not case-folded: ß and ss are two mailboxes, and
    JavaScript has no such function); the domain as ASCII (IDNA, UTS 46), without a dot at its end.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", address).lower()).strip()
    local, at, domain = text.rpartition("@")
    if not at:
        return text
    domain = _END.sub("", domain)
    if not domain.isascii():
        with suppress(UnicodeError):  # no domain: any spelling will do
            domain = idna.encode(domain, uts46=True).decode()
    return f"{local}@{domain}"


class _Key(NamedTuple):
    id: str
    secret: bytes
    mark: str  # of its hashes

    def hash(self, text: str) -> str:
        return self.mark + _digest(self.secret, text)[: HASH_LENGTH - _MARKED]


class PiiKeys:
    """The keys of `STREAMFLOW_PII_KEY`.

    Args:
        named: ids and keys, oldest first.
        legacy: the key before them, which has no id; None for bare SHA-256.
        has_legacy: whether anything was hashed before there were ids.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, bytes]] = (),
        legacy: bytes | None = None,
        *,
        has_legacy: bool = True,
    ) -> None:
        self.legacy = legacy
        self.has_legacy = has_legacy
        self.named: tuple[_Key, ...] = ()
        for id_, secret in named:
            # Of the keys before; the same on every machine.
            tag = _digest(secret, self._under("", len(self.named)))[:_TAG_LENGTH]
            self.named += (_Key(id_, secret, _MARK + tag),)

    @classmethod
    def parse(cls, text: str | None) -> "PiiKeys":
        """Reads the setting. Raises ValueError, which quotes none of it, if it makes no sense."""
        if text is None or not text.lstrip().startswith("{"):
            return cls((), None if text is None else _bytes(text))
        try:
            pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
        except (ValueError, RecursionError):
            raise ValueError(f"begins with {{ and is not JSON: {_FORM}") from None
        ids = [id_ for id_, _ in pairs]
        # Ids are not quoted either: one may be a key in the wrong place.
        for number, (id_, secret) in enumerate(pairs, 1):
            if not _ID.fullmatch(id_):
                raise ValueError(
                    f"has an id that is not 1 to 32 letters, digits, dots, - or _ (entry {number})"
                )
            if ids.count(id_) > 1:
                raise ValueError(
                    f"has the id of entry {number} twice: each key has an id of its own"
                )
            if id_ == LEGACY and id_ != ids[-1]:
                raise ValueError(f"must list {LEGACY} last, for it is the oldest: {_FORM}")
            if (
                secret == ""
                or (secret is None and id_ != LEGACY)
                or not isinstance(secret, str | None)
            ):
                raise ValueError(f"has no key in entry {number}: {_FORM}")
        if not pairs:
            raise ValueError(f"lists no key: {_FORM}")
        has_legacy = ids[-1] == LEGACY
        legacy = pairs.pop()[1] if has_legacy else None
        named = [(id_, _bytes(secret)) for id_, secret in reversed(pairs)]
        return cls(named, None if legacy is None else _bytes(legacy), has_legacy=has_legacy)

    def name_of(self, hashed: str) -> str:
        """What a hash says of its key: the id, or the mark of a key that is not listed."""
        known = self._known(hashed)
        if known:
            return self.named[known - 1].id
        return hashed[:_MARKED] if hashed.startswith(_MARK) else LEGACY

    @property
    def ids(self) -> list[str]:
        """Newest first."""
        return [*(key.id for key in reversed(self.named)), *([LEGACY] if self.has_legacy else ())]

    def hash(self, address: str) -> str:
        """Under the newest key."""
        return self._under(normal_form(address) if self.named else address, len(self.named))

    def exact(self, text: str) -> list[str]:
        """The hashes of a text that is no address, as it is spelled, under each key, newest first."""
        counts = range(len(self.named), -1 if self.has_legacy else 0, -1)
        return [self._under(text, count) for count in counts]

    def hash_functions(self) -> Iterator[Callable[[str], str]]:
        """The functions that could have hashed a stored value, the one in use first. Keys without an id
        hashed each spelling as it came."""
        for count in range(len(self.named), -1 if self.has_legacy else 0, -1):
            functions = [lambda text, n=count: self._under(normal_form(text), n)]
            if self.has_legacy:
                functions.insert(1 if count else 0, partial(self._under, count=count))
            yield from functions

    def lifted(self, hashed: str) -> str | None:
        """A hash as the newest key has it; None if it is under none of the keys, or no hash."""
        known = self._known(hashed)
        return None if known is None else self._above(hashed, known, len(self.named))

    def _known(self, hashed: str) -> int | None:
        """How many of the keys with ids have made a hash."""
        if hashed.startswith(_MARK):
            mark = hashed[:_MARKED]
            return next((n for n, key in enumerate(self.named, 1) if key.mark == mark), None)
        return 0 if self.has_legacy and is_hashed(hashed) else None

    def _under(self, text: str, count: int) -> str:
        return self._above(_digest(self.legacy, text) if self.has_legacy else text, 0, count)

    def _above(self, text: str, known: int, count: int) -> str:
        for key in self.named[known:count]:
            text = key.hash(text)
        return text


def _bytes(secret: str) -> bytes:
    try:
        return secret.encode()
    except UnicodeEncodeError:
        raise ValueError("has a key that is not valid UTF-8") from None


def _digest(secret: bytes | None, text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return (
        hashlib.sha256(data).hexdigest()
        if secret is None
        else hmac.digest(secret, data, "sha256").hex()
    )
