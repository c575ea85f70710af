"""An address is found in whatever form it is written, wherever it stands, in linear time."""

import json
import re
import time
import tracemalloc
from unicodedata import normalize

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.shapes import FORMS as SHAPES
from streamflow import addresses
from streamflow.errors import ErrorCode
from streamflow.privacy import Hasher
from streamflow.records import Rejection
from streamflow.streams.user_events import USER_EVENTS

HASHER = Hasher(None, ["user_email"])
FORMS = {
    'dora"smith': r"\"dora smith\"@example.com",
    "quoted": '"dora smith"@example.com',
    "quoted at": r"\"dora@work\"@example.com",
    "quoted address": r"\"dora@work.org\"@example.com",
    "quoted quote": r"\"do\\\"ra\"@example.com",
    "literal": "dora@[192.0.2.7]",
    "IPv6": "dora@[IPv6:2001:db8::1]",
    "IPv4": "dora@127.0.0.1",
    "in URL": "dora%40example.com",
    "in URL twice": "dora%2540example.com",
    "in URL, dot too": "dora%40example%2Ecom",
    "number's domain in URL": "dora%40163.com",
    "quoted-printable": "dora=40example=2Ecom",
    "JSON": r"dora\u0040example\u002ecom",
    "HTML": "dora&#64;example.com",
    "HTML, hexadecimal": "dora&#x40;example&#x2e;com",
    "HTML, named": "dora&commat;example&period;com",
    "full width": "dora\uff20example\uff0ecom",
    "full width in JSON": r"dora\uff20example.com",
    "small": "dora\ufe6bexample.com",
    "ideographic stop": "dora@example\u3002com",
    "half-width stop": "dora@example\uff61com",
    "several": "{dora,emil}@example.com",
    "comment": "dora(work)@example.com",
    "comment behind": "dora@(work)example.com",
    "comment within": "dora@example(work).com",
    "blanks": "dora @ example.com",
    "blank behind": "dora@ example.com",
    "comment and blanks": "dora (work) @ example.com",
    "tag": "dora+tag@example.com",
    "other scripts": "d\xf6ra@ex\xe4mple.de",
    "punycode": "dora@xn--exmple-cua.de",
    "zero width": "dora\u200b@example.com",
    "underscore": "dora@sub_domain.example",
    "apostrophe": "dora'@example.com",
    "apostrophes": "'dora'@example.com",
    "brace": "dora}@example.com",
    "opening brace": "dora{@example.com",
    "equals sign": "dora=@example.com",
    "one-dot leader": "dora@example\u2024com",
    "one-dot leader in JSON": r"dora@example\u2024com",
    "small stop": "dora@example\ufe52com",
    "letter in URL": "dora@ex%61mple.com",
    "letters in URL": "dora%40ex%61mple.c%6Fm",
    "comments behind": "dora@(at)(work)example.com",
    "folded": "dora@\n example.com",
    "folded within JSON": r"dora@\r\n\texample.com",
    "soft line break": "dora@exam=\r\nple.com",
    "soft line break within JSON": r"dora@exam=\r\nple.com",
    "HTML, no semicolon": "dora&#64example&#46com",
    "tab within JSON": r"dora@\texample.com",
    "space within JSON": r"dora\u0020@\u0020example.com",
    "HTML within JSON": r"dora\u0026#64;example.com",
    "letter within JSON": r"dora@e\u0078ample\u002e\u0063om",
    "comment within JSON": r"dora\u0028work\u0029@example.com",
    "NUL within JSON": r"dora@ex\u0000mple.com",
    "relayed": "dora@home@example.com",
}
NONE = [
    "ann@localhost",
    "no address @ all",
    "hello @dora.smith",
    "tea @ 4.30",
    "@dora.smith",
    '["a","@b.cd"]',
    '{"user":"@dora.smith"}',
    '{"a": "x", "@b.cd": 1}',
    r"{\"user\":\"@dora.smith\"}",
    "?a=4012.75&b=c.de",
    "?img=4023.jpg",
    "price=40.50",
    "100%40.5",
    "a@b. c",
    "f=40",
    "meet @ 5. ok",
    "a = b@c",
    "x @ y . z",
    "x='@dora.smith'",
    "x={@dora.smith}",
    "['a','@b.cd']",
    "{'@b.cd': 1}",
    "dora&#640example.com",
    "dora&#x40example.com",  # U+40E
    "dora@example .com",
]
SEPARATORS = [
    "\t",
    "\n",
    "\r\n ",
    " ",
    "\\",
    '"',
    "\x00",
    "/",
    "(x)",
    "'",
    "}",
    "=",
    "&",
    "\\n",
    '\\"',
    "ö",
]
# What stands beside an address in logs, mails and documents.
NOISE = st.text(
    st.sampled_from(list("ab.,;: \"'()[]{}<>@\\%=&#40u/\n")) | st.characters(), max_size=30
)


def clear(data: bytes) -> str:
    """What is left to read of it, whatever stands for the signs."""
    return re.sub(r"[0-9a-f]{64}", "", data.decode("utf-8", "replace"))


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "around", ["{}", '{{"user":"{}","n":1}}', "Mail <{}>, or call.\n", "mailto:{}?subject=x"]
)
def test_an_address_is_found_in_every_form(text: str, around: str) -> None:
    data = around.format(text).encode()
    assert addresses.may_hold(data)
    assert addresses.holds(data)
    assert not re.search("dora|emil|d\xf6ra", clear(HASHER.redact(data)))
    assert HASHER.redact(HASHER.redact(data)) == HASHER.redact(data)


@pytest.mark.parametrize(
    "form",
    [
        *("in URL", "JSON", "quoted-printable", "HTML", "HTML, named", "HTML, no semicolon"),
        *("full width", "small", "small stop", "one-dot leader", "one-dot leader in JSON"),
        *("blanks", "folded", "folded within JSON", "tab within JSON", "HTML within JSON"),
    ],
)
def test_all_forms_of_an_address_have_one_hash(form: str) -> None:
    assert HASHER.redact(FORMS[form].encode()).decode() == HASHER.hash("dora@example.com")


def test_all_characters_whose_normal_form_is_a_sign_are_known() -> None:
    for sign, known in (("@", addresses.WIDE_ATS), (".", addresses.WIDE_DOTS)):
        same = [each for each in map(chr, range(128, 0x110000)) if normalize("NFKC", each) == sign]
        assert set(same) <= set(known)
        for wide in same:
            for form in (wide, f"\\u{ord(wide):04x}", f"\\u{ord(wide):04X}"):
                assert addresses.holds("dora@example.com".replace(sign, form).encode())


@given(
    st.sampled_from([*FORMS.values(), *SHAPES.values()]),
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from(SEPARATORS)), max_size=3),
    st.integers(0, 2**60 - 1),
    st.sampled_from(["user", "extra"]),
)
@example("dora@\texample.com", [], 0, "user")
def test_what_the_contract_refuses_as_clear_text_is_redacted(
    text: str, separators: list[tuple[int, str]], escaped: int, field: str
) -> None:
    for place, separator in separators:
        text = text[:place] + separator + text[place:]
    written = "".join(
        f"\\u{ord(each):04x}" if escaped >> place % 60 & 1 else json.dumps(each)[1:-1]
        for place, each in enumerate(text)
    )
    value = (
        b'{"id":1,"type":"USER_LOGIN","timestamp":"2026-11-26T10:00:00Z","user":"x","%s":"%s"}'
        % (field.encode(), written.encode())
    )
    if refused_as_clear_text(value):
        redacted = HASHER.redact(value)
        assert not refused_as_clear_text(redacted)
        assert HASHER.redact(redacted) == redacted


def refused_as_clear_text(value: bytes) -> bool:
    found = USER_EVENTS.decoder.decode(value)
    return isinstance(found, Rejection) and found.code is ErrorCode.CLEAR_TEXT_PII


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_address_stays(text: str) -> None:
    assert not addresses.holds(text.encode())
    assert HASHER.redact(text.encode()) == text.encode()


@pytest.mark.parametrize(
    "text", ["/s?q=a%20b&page=2", "a&b", "100 % = all & more", "a==", "%2", "&", "x;y"]
)
def test_signs_of_urls_cost_no_search(text: str) -> None:
    assert not addresses.may_hold(f'{{"user":"{text}","id":40}}'.encode())


@given(
    NOISE,
    st.sampled_from(["\n", "\t<", '{"x":"', "; ", "= "]),
    st.sampled_from(list(FORMS.values())),
    NOISE,
)
def test_an_address_is_found_in_any_noise(before: str, start: str, text: str, after: str) -> None:
    data = f"{before}{start}{text} {after}".encode("utf-8", "surrogatepass")
    redacted = HASHER.redact(data)
    assert not re.search("dora|emil|d\xf6ra", clear(redacted))
    assert HASHER.redact(redacted) == redacted


@given(NOISE | st.binary(max_size=100))
def test_redacting_twice_changes_nothing(noise: str | bytes) -> None:
    data = noise if isinstance(noise, bytes) else noise.encode("utf-8", "surrogatepass")
    redacted = HASHER.redact(data)
    assert HASHER.redact(redacted) == redacted


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("shift", [b"", b"\x00", b"\n", b"abc"])
@pytest.mark.parametrize("at", ["@example.com", ""])
def test_an_address_is_found_in_other_encodings(codec: str, shift: bytes, at: str) -> None:
    text = f'{{"id":1,"user":"emil{at}","user_email":"at home: D\u043e\u0440\u0430"}}'
    data = shift + text.encode(codec)
    redacted = HASHER.redact(data)
    if at:
        assert HASHER.hash(f"emil{at}").encode(codec) in redacted
        assert "emil".encode(codec) not in redacted
    if not shift:  # else where a character begins is known of Latin-1 only
        assert HASHER.hash("at home: D\u043e\u0440\u0430").encode(codec) in redacted
    assert "\u043e\u0440\u0430".encode(codec) not in redacted
    assert HASHER.redact(redacted) == redacted
    assert len(HASHER.redact_within(data, 400)[0]) <= 400


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("shift", [b"", b"abc"])
@pytest.mark.parametrize(
    "address",
    [
        "dora@example\u3002com",
        "dora\uff20example.com",
        "dora\ufe6bexample\uff0ecom",
        "dora%40example.com",
        "dora\\u0040example\\u002ecom",
    ],
)
def test_signs_of_all_forms_are_found_in_other_encodings(
    address: str, shift: bytes, codec: str
) -> None:
    redacted = HASHER.redact(shift + f"to {address} or".encode(codec))
    hashed = HASHER.hash(addresses.plain(address.encode()))
    assert redacted == shift + f"to {hashed} or".encode(codec)


@pytest.mark.parametrize("limit", range(0, 700, 23))
@pytest.mark.parametrize("codec", ["utf-8", "utf-16-le"])
def test_a_cut_halves_no_address(limit: int, codec: str) -> None:
    data = "x".join(f"<{text}>" for text in FORMS.values()).encode(codec)
    kept, taken = HASHER.redact_within(data, limit)
    assert len(kept) <= limit
    assert kept == HASHER.redact(data[:taken])
    text = clear(kept.replace(b"\x00", b""))
    assert not re.search("dora|emil|d\xf6ra", text)


PIECES = [
    *(b"a", b"a@", b"a.b@", b".", b"a@b.", b"@a@b.c", b" @ ", b"@ a.b", b"\\", b"\xef", b"\x00"),
    *(b"\\u0040", b"a%40b/", b"a%40b.c/", b"=40", b"a=40b.c", b"&#64;", b"a\xef\xbc\xa0b.c"),
    *(b'"user_email":', b'"@', b'a"@b.c', b'"a@b.c', b'\\"@', b'\\\\\\"@b.c'),
    *(b")@", b"(a)@b.c", b"@(b)", b"@(b)c.d", b"@(", b"}@", b"{a}@b.c", b"a@[b.c]"),
    *(b"'@", b"a'@", b"='@", b"{=@b.c", b"a=@b.c", b"}@", b"\\t@", b"a@\\tb.c", b'\\"@', b"\\\\", b"a\\"),
    *(b"@(b)(c)", b"@(b)(c)d.e", b"@a=\r\n", b"=\n", b"a@b%61.", b"a@\n b.c", b"\\u0026#64;"),
    *(b"@\x00", b"\x00@", b"a\x00@\x00b\x00.\x00c\x00", b"@\x00\x00\x00"),
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_hostile_input_takes_linear_time(piece: bytes) -> None:
    def seconds(size: int) -> float:
        data = b".com,".join(piece * (size // len(piece)) + end for end in (b"", b"@", b"@a.b"))
        began = time.process_time()
        HASHER.redact(data)
        return time.process_time() - began

    assert seconds(40_000) < 0.5 + min(seconds(10_000) for _ in range(2)) * 8


@pytest.mark.parametrize("piece", [*PIECES, b"a.", b".a", b"%2e", b"\\u002e", b"\\n"])
def test_hostile_input_takes_little_memory(piece: bytes) -> None:
    """A text of 3.4 MB once took a validator 290 MB."""
    size = 200_000
    data = b"a@" + piece * (size // len(piece))
    # What it becomes, and some copies on the way.
    becomes = len(HASHER.redact(data))
    tracemalloc.start()
    try:
        HASHER.redact(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * size + 6 * becomes, f"{peak / size:.0f} times as much"
