"""Finds e-mail addresses in bytes of any kind: JSON, valid or not, headers, keys, plain text.

An address is what stands before an at sign, the at sign, and a domain with a dot. Recognised are

- the at sign as ``@``, U+FF20, U+FE6B, and escaped as in JSON, URLs (``%40``, ``%2540``), quoted-printable
  (``=40``) and HTML; the dot as ``.``, U+3002, U+FF0E, U+FF61, and escaped likewise;
- before it: characters of any script, ``"quoted text"``, ``(comments)``, ``{several,names}``;
- behind it: a domain of any script, an address literal (``[192.0.2.7]``), comments;
- blanks on both sides of the at sign, or behind it.

Not recognised, and so not promised by G7: a domain without a dot (``ann@localhost``); a blank only before
the at sign (``hello @ann.smith``); words for signs (``ann at example dot com``, ``ann(at)example.com``); what
is compressed, encrypted or in Base64, and other encodings within encodings; behind ``%40`` and ``=40`` a
domain that ends in a number (``100%40.5``), and behind ``=40`` one that begins with a digit
(``?img=4023.jpg``).

Each byte is looked at a bounded number of times, whatever the input.
"""

import json
import re
from collections.abc import Iterator
from typing import Final

# A delimiter is never part of an address, all else may be.
_DELIMITERS: Final = rb"\x00-\x20\"'<>()\[\],;:{}=@"
# Each branch begins with a literal: only then the search for it skips all other bytes at once.
AT: Final = (
    rb"(?:@|\\u(?:0040|[fF][fF]20|[fF][eE]6[bB])|%(?:25)?40|=(?:25)?40"
    rb"|&(?:#0{0,6}64|#[xX]0{0,6}40|commat);|\xef\xbc\xa0|\xef\xb9\xab)"
)
_DOT: Final = (
    rb"(?:\.|\\u(?:002[eE]|3002|[fF][fF](?:0[eE]|61))|[%=]2[eE]"
    rb"|&(?:#0{0,6}46|#[xX]0{0,6}2[eE]|period);|\xe3\x80\x82|\xef\xbc\x8e|\xef\xbd\xa1)"
)
# Each form begins with one of these.
_AT, _BACKSLASH, _PERCENT, _AMPERSAND, _EQUALS, _SEMICOLON = b"@\\%&=;"
# Characters that stand for an at sign or a dot.
WIDE_ATS: Final = "\uff20\ufe6b"
WIDE_DOTS: Final = "\u3002\uff0e\uff61"
_FULL_AT, _SMALL_AT = (sign.encode() for sign in WIDE_ATS)

_BLANKS: Final = rb"[ \t]{0,4}+"
_COMMENT: Final = rb"\([^()\x00-\x1f]{0,128}+\)"
_LABELS: Final = (
    rb"(?:[^" + _DELIMITERS + rb"/?#&%\\\xef]++|(?!" + AT + rb")(?:\xef|" + _DOT + rb"|"
    rb"\\u(?:00(?:2[dD]|3[0-9]|[4-9a-fA-F][0-9a-fA-F])|(?!00)[0-9a-fA-F]{4})|"
    rb"[%=][89a-fA-F][0-9a-fA-F]|%2[dD]))"
)
_LITERAL: Final = rb"\[[^\[\]\"@\x00-\x20]{2,255}+\]"
_DOMAIN: Final = (
    rb"(?:" + _COMMENT + rb")?+(?:" + _LITERAL + rb"|" + _LABELS + rb"(?:" + _LABELS + rb"|"
    + _COMMENT + rb")*+)"
)  # fmt: skip
# From an at sign on; several in a row ("a@b@c.d") are one address. The bound keeps a rejected one from being
# read again and again.
_CHAIN: Final = re.compile(
    rb"(" + AT + rb"(" + _BLANKS + rb"))" + _DOMAIN + rb"(?:" + AT + _DOMAIN + rb"){0,7}+"
)
# What stands before it, read backwards from it.
_BACKWARDS: Final = re.compile(
    rb"(" + _BLANKS + rb")(?:\)[^()\x00-\x1f]{0,128}+\(" + _BLANKS + rb"){0,8}+"
    rb"(?:"
    rb'"\\((?:[^"]|"\\\\\\)++)"\\(?!\\)|"((?:[^"]|"\\)++)"(?!\\)|'  # quoted, within JSON and not
    rb'[}\]][^{}\[\]"@]{1,255}+[{\[]|(?=[^' + _DELIMITERS + rb"])"
    rb")[^" + _DELIMITERS + rb"]*+"
)
_NEVER_BEFORE: Final = frozenset({*range(32), *b"'<>([,:;{=@"}) - {ord("\t")}
_NEAR: Final = 512  # bytes; a longer quoted text is no local part
_DOTTED: Final = re.compile(rb"[^.]" + _DOT + rb"[^.]|\]\Z")
_TOP_LEVEL: Final = re.compile(_DOT + rb"[a-zA-Z\x80-\xff][a-zA-Z0-9\x80-\xff-]++\Z")
_WITH_BLANKS: Final = re.compile(rb"[ \t]*+" + AT + rb"[ \t]*+")
_ANY_DOT: Final = re.compile(_DOT)


def find(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the addresses in some bytes begin and end, in order."""
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
        or (_AMPERSAND in data and _SEMICOLON in data)
        or (_FULL_AT[0] in data and (_FULL_AT in data or _SMALL_AT in data))
    )


def holds(data: bytes) -> bool:
    """Whether some bytes hold what can be an e-mail address."""
    return next(find(data), None) is not None


def plain(address: bytes) -> str:
    """An address as text, with ``@`` and ``.`` for all that stands for them."""
    return unescaped(_ANY_DOT.sub(b".", _WITH_BLANKS.sub(b"@", address)))


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
