"""Texts: readable ones, those that match a pattern, and those that break what handles text carelessly."""

import re
import string
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from rstr import Rstr

from streamflow.privacy import Hasher
from streamflow.samples.node import Draw, SampleNode, Schema, leaf
from streamflow.samples.scalars import seeded

_LONG: Final = 10_000  # characters
_TRIES: Final = 100
_FEW_MATCHES: Final = 5
# None of them holds what is private.
_AWKWARD: Final = (
    "", " ", " padded ", '"quoted"', "it's", "back\\slash", "\\N", "\\.", "tab\tline\nreturn\r\n",
    "\x01\x1f\x7f", "null", '{"a": 1}', "12", "%s {} $1", "ä ß é", "e\u0301", "漢字", "שלום",
    "𐍈🎉👩‍💻", "\ufeffmark", "\ufffd", "\u2028\u2029",
)  # fmt: skip


def text(schema: Schema, name: str, hasher: Hasher, fits: Callable[[Any], bool]) -> SampleNode:
    """Texts of a field, the same few again and again.

    Args:
        schema: of the text.
        name: of the field, which readable texts begin with.
        hasher: makes the hashes of those that may only hold hashes.
        fits: whether a text is as the schema wants it.
    """
    known: dict[int, str] = {}

    def plain(draw: Draw) -> str:
        number = draw.few()
        if number not in known:
            candidates = _candidates(schema, name, number, hasher)
            # Without one that fits, the last is refused with the field's name.
            known[number] = next(filter(fits, candidates), f"{name}-{number}")
        return known[number]

    edges = list(_AWKWARD)
    if "pattern" in schema:
        matches = _matches(schema["pattern"], f"{name}/edges", _FEW_MATCHES)
        edges = [*filter(fits, matches), *edges]
    if schema.get("min_length"):
        edges.append("m" * schema["min_length"])
    longest = schema.get("max_length", _LONG)
    # Characters of one byte, and of four.
    edges += ["x" * min(longest, _LONG), "🎉" * min(longest, _LONG)]
    return leaf(plain, *edges)


def _candidates(schema: Schema, name: str, number: int, hasher: Hasher) -> Iterator[str]:
    if "pattern" in schema:
        yield hasher.hash(f"{name}{number}@example.com")
    readable = f"{name}-{number}"
    least, most = schema.get("min_length") or 0, schema.get("max_length")
    size = max(least, 8)
    letters = "".join(string.ascii_lowercase[(number + 7 * at) % 26] for at in range(size))
    if most is None or len(readable) <= most:
        yield readable.ljust(least, "x")
    else:
        yield letters[: max(least, min(most, 8))]
    if "pattern" in schema:
        words = (f"{name}{number}", name, str(number), *(letters[:end] for end in range(1, 9)))
        for word in words:
            yield from (word, word.upper(), word.capitalize())
        yield from _matches(schema["pattern"], f"{name}/{number}", _TRIES)


def _matches(pattern: Any, seed: str, most: int) -> Iterator[str]:
    """Texts that match a pattern, nearly always; none if its syntax is Rust's alone."""
    generator = Rstr(seeded(seed))
    source = getattr(pattern, "pattern", pattern)
    try:
        for _ in range(most):
            yield generator.xeger(source)
    except (re.error, KeyError, ValueError):
        return


def binary(schema: Schema, name: str, config: Mapping[str, Any]) -> SampleNode:
    """Bytes, as the model's configuration has them in JSON."""

    def written(data: bytes) -> str:
        form = config.get("val_json_bytes", "utf8")
        if form == "hex":
            return data.hex()
        return urlsafe_b64encode(data).decode() if form == "base64" else data.decode()

    longest = min(schema.get("max_length", _LONG), _LONG)
    shortest = schema.get("min_length") or 0
    words = (b"", b"\\x00", b"'\\N\t\n", "ÿ🎉".encode(), b"x" * longest, b"m" * shortest)

    def plain(draw: Draw) -> str:
        return written(f"{name}-{draw.few()}".encode()[:longest].ljust(shortest, b"x"))

    return leaf(plain, *map(written, words))
