"""Finds e-mail addresses in bytes of any kind: JSON, valid or not, headers, keys, plain text.

An address is what stands before an at sign, the at sign, and a domain with a dot. Recognised are

- the at sign as ``@`` and what has it as normal form (``WIDE_ATS``), and escaped as in JSON, URLs (``%40``,
  ``%2540``), quoted-printable (``=40``) and HTML; the dot as ``.`` and ``WIDE_DOTS``, and escaped likewise;
- before it: characters of any script, ``"quoted text"``, ``(comments)``, ``{several,names}``;
- behind it: a domain of any script, an address literal (``[192.0.2.7]``), comments;
- blanks on both sides of the at sign, or behind it, where a line may be folded (RFC 5322).

All of this as it stands, and within the texts of JSON with their escapes resolved: the contract judges what
these texts mean, and what it refuses is redacted. G7 lists what is not recognised.

Each byte is looked at a bounded number of times, whatever the input.
"""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from streamflow.spans import Spans, merged, originals, replaced

# A delimiter is never part of an address, all else may be.
_DELIMITERS: Final = rb"\x00-\x20\"'<>()\[\],;:{}=@"
# Each branch begins with a literal: only then the search for it skips all other bytes at once.
AT: Final = (
    rb"(?:@|\\u(?:0040|[fF][fF]20|[fF][eE]6[bB])|%(?:25)?40|=(?:25)?40"
    rb"|&(?:#0{0,6}64(?:;|(?![0-9]))|#[xX]0{0,6}40(?:;|(?![0-9a-fA-F]))|commat;)|\xef\xbc\xa0|\xef\xb9\xab)"
)
_DOT: Final = (
    rb"(?:\.|\\u(?:002[eE]|2024|3002|[fF][eE]52|[fF][fF](?:0[eE]|61))|[%=]2[eE]"
    rb"|&(?:#0{0,6}46(?:;|(?![0-9]))|#[xX]0{0,6}2[eE](?:;|(?![0-9a-fA-F]))|period;)"
    rb"|\xe2\x80\xa4|\xe3\x80\x82|\xef(?:\xb9\x92|\xbc\x8e|\xbd\xa1))"
)
# Each form begins with one of these.
_AT, _BACKSLASH, _PERCENT, _AMPERSAND, _EQUALS, _SEMICOLON = b"@\\%&=;"
# Characters that stand for an at sign or a dot: those whose normal form (NFKC) is one, and IDNA's dots.
WIDE_ATS: Final = "\uff20\ufe6b"
WIDE_DOTS: Final = "\u2024\u3002\ufe52\uff0e\uff61"
_FULL_AT, _SMALL_AT = (sign.encode() for sign in WIDE_ATS)

_BLANKS: Final = rb"[ \t]{0,4}+"
_BLANKS_BEHIND: Final = (
    _BLANKS + rb"(?:\r?\n[ \t]" + _BLANKS + rb")?+"
)  # a line may be folded there
_COMMENT: Final = rb"\([^()\x00-\x1f]{0,128}+\)"
_LETTER: Final = rb"%(?:[46][1-9a-fA-F]|[57][0-9aA])"
_LABELS: Final = (
    rb"(?:[^" + _DELIMITERS + rb"/?#&%\\\xef]++|(?!" + AT + rb")(?:\xef|" + _DOT + rb"|"
    rb"\\u(?:00(?:2[dD]|3[0-9]|[4-9a-fA-F][0-9a-fA-F])|(?!00)[0-9a-fA-F]{4})|"
    rb"[%=][89a-fA-F][0-9a-fA-F]|%(?:2[dD]|3[0-9])|"
    + _LETTER
    + rb"|=\r?\n(?=[a-zA-Z0-9.\x80-\xff])))"
)
_LITERAL: Final = rb"\[[^\[\]\"@\x00-\x20]{2,255}+\]"
_DOMAIN: Final = (
    rb"(?:" + _COMMENT + rb"){0,8}+(?:" + _LITERAL + rb"|" + _LABELS + rb"(?:" + _LABELS + rb"|"
    + _COMMENT + rb")*+)"
)  # fmt: skip
# From an at sign on; several in a row ("a@b@c.d") are one address. The bound keeps a rejected one from being
# read again and again.
_CHAIN: Final = re.compile(
    rb"(" + AT + rb"(" + _BLANKS_BEHIND + rb"))" + _DOMAIN + rb"(?:" + AT + _DOMAIN + rb"){0,7}+"
)
# An at sign that begins a value: x='@ann.smith', x={@ann.smith}.
_OPENING: Final = rb"'++[={]|\{++="
# What stands before it, read backwards from it.
_BACKWARDS: Final = re.compile(
    rb"(" + _BLANKS + rb")(?:\)[^()\x00-\x1f]{0,128}+\(" + _BLANKS + rb"){0,8}+"
    rb"(?:"
    rb'"\\((?:[^"]|"\\\\\\)++)"\\(?!\\)|"((?:[^"]|"\\)++)"(?!\\)|'  # quoted, within JSON and not
    rb'[}\]][^{}\[\]"@]{1,255}+[{\[]|(?!' + _OPENING + rb")['={}]*+(?=[^" + _DELIMITERS + rb"])"
    rb")[^" + _DELIMITERS + rb"]*+"
)
_NEVER_BEFORE: Final = frozenset({*range(32), *b"<>([,:;@"}) - {ord("\t")}
_LONGEST: Final = 65_536  # bytes; RFC 5321 allows 320
_NEAR: Final = 512  # bytes; a longer quoted text is no local part
_DOTTED: Final = re.compile(rb"[^.]" + _DOT + rb"[^.]|\]\Z")
_TOP_LEVEL: Final = re.compile(
    _DOT
    + rb"(?:[a-zA-Z\x80-\xff]|"
    + _LETTER
    + rb")(?:[a-zA-Z0-9\x80-\xff-]|"
    + _LETTER
    + rb")++\Z"
)
_WITH_BLANKS: Final = re.compile(rb"[ \t]*+" + AT + rb"[ \t\r\n]*+")
_ANY_DOT: Final = re.compile(_DOT)
_JSON_ESCAPE: Final = re.compile(rb'\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt])')
_SHORT: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_REST_OF_TEXT: Final = re.compile(rb'(?:\\.|[^"\\]++)*+', re.DOTALL)
_REPLACEMENT: Final = "\ufffd".encode()


def find(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the addresses in some bytes begin and end, in order."""
    spans = _scan(data)
    if _BACKSLASH in data and (hidden := _behind_escapes(data)):
        return iter(merged([*spans, *hidden]))
    return spans


def _behind_escapes(data: bytes) -> Spans:
    """Where addresses are in the texts of JSON that have escapes, when these are resolved."""
    found: Spans = []
    done = 0
    while (escape := data.find(b"\\", done)) >= 0:
        begin = max(done, data.rfind(b'"', done, escape) + 1)
        match = _REST_OF_TEXT.match(data, escape)
        done = max(escape + 1, match.end() if match else 0)
        raw = data[begin:done]
        text = replaced(raw, _JSON_ESCAPE, _meaning)
        if may_hold(text):
            places = originals(raw, _scan(text), _JSON_ESCAPE, _meaning)
            found += [(begin + start, begin + end) for start, end in places]
    return found


@lru_cache(maxsize=4096)
def _meaning(escape: bytes) -> bytes:
    kind = escape[1:2]
    if kind != b"u":
        return _SHORT.get(kind, kind)
    code = int.from_bytes(bytes.fromhex(escape[2:].decode()))
    # What no database takes is replaced, as the contract does before it looks at the rest.
    return chr(code).encode() if code and not 0xD800 <= code < 0xE000 else _REPLACEMENT  # noqa: PLR2004


def _scan(data: bytes) -> Iterator[tuple[int, int]]:
    begin, end, position = 0, -1, 0
    while match := _CHAIN.search(data, position):
        after = _end(match)
        if after is None:
            position = match.end()
            continue
        start = _start(data, match, position)
        if start is None:
            position = match.start() + 1
            continue
        position = match.end()
        if start <= end:  # "a"@b.c, and what is quoted is an address itself
            begin, end = min(begin, start), after
            continue
        if end > 0:
            yield begin, end
        begin, end = start, after
    if end > 0:
        yield begin, end


def may_hold(data: bytes) -> bool:
    """Whether some bytes may hold an at sign, in whatever form: a quick answer, nearly always no."""
    # A single byte, as a number, is found several times as fast as a piece of bytes, and `find` finds such a
    # piece faster than `in`. The signs of URLs are common, and rarely stand for an at sign.
    return (
        _AT in data
        or (_BACKSLASH in data and data.find(b"\\u") >= 0)
        or (
            (_PERCENT in data or _EQUALS in data)
            and data.find(b"40") >= 0
            and (data.find(b"%40") >= 0 or data.find(b"=40") >= 0 or data.find(b"2540") >= 0)
        )
        or (_AMPERSAND in data and (_SEMICOLON in data or data.find(b"&#") >= 0))
        or (_FULL_AT[0] in data and (_FULL_AT in data or _SMALL_AT in data))
    )


def holds(data: bytes) -> bool:
    """Whether some bytes hold what can be an e-mail address."""
    return next(find(data), None) is not None


def plain(address: bytes) -> str:
    """An address as text, with ``@`` and ``.`` for all that stands for them; what is too long for an address
    as it stands, since replacing millions of dots takes hundreds of megabytes."""
    text = unescaped(address).encode("utf-8", "surrogatepass")
    if len(text) > _LONGEST:
        return text.decode("utf-8", "surrogatepass")
    return _ANY_DOT.sub(b".", _WITH_BLANKS.sub(b"@", text)).decode("utf-8", "surrogatepass")


def unescaped(raw: bytes) -> str:
    """What a piece of JSON text stands for; the text itself where it is not JSON."""
    text = raw.decode("utf-8", "replace")
    if _BACKSLASH not in raw:
        return text
    try:
        meant = json.loads(f'"{text}"')
    except ValueError:
        return text
    return str(meant)


def _end(match: re.Match[bytes]) -> int | None:
    """Where the domain ends; None if it is none."""
    # The sentence's full stop is not part of the address before it.
    chain = match[0].rstrip(b".")
    for dot in WIDE_DOTS:
        chain = chain.removesuffix(dot.encode())
    if not _DOTTED.search(chain):
        return None
    first = chain[:1]
    if first in b"%=" and b"@" not in chain:
        # Numbers look like these ("a=4012.5").
        domain = chain[match.end(1) - match.start() :]
        if not _TOP_LEVEL.search(chain) or (first == b"=" and domain[:1].isdigit()):
            return None
    return match.start() + len(chain)


def _start(data: bytes, match: re.Match[bytes], searched: int) -> int | None:
    """Where the local part begins; None if there is none. `searched` is how far the data was searched."""
    at = match.start()
    if not at or data[at - 1] in _NEVER_BEFORE:
        return None
    near = max(0, at - _NEAR)
    before = _BACKWARDS.match(data[near:at][::-1])
    if before and before.end() == at - near and searched < near:
        before = _BACKWARDS.match(data[searched:at][::-1])
    if before is None:
        return None
    quoted = before[2] or before[3]
    # The text between two strings of a JSON document is quoted as well: ["a","@b.c"].
    if quoted and quoted[-1] in b",:]} \t\r\n" and quoted[0] in b",:[{ \t\r\n":
        return None
    # "hello @ann.smith" greets, and "tea @ 4.30" invites.
    if (before[1] or match[2]) and not (match[2] and _TOP_LEVEL.search(match[0].rstrip(b"."))):
        return None
    return at - before.end()
