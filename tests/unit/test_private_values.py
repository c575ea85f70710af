"""Phone numbers, card numbers and a team's own patterns: private wherever they stand, once declared."""

import re
import time
import tracemalloc
from itertools import pairwise
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kept import kept_faults
from streamflow import (
    CardNumber,
    ErrorCode,
    Event,
    HashedAddress,
    Hasher,
    NotNull,
    PhoneNumber,
    PrivatePattern,
    Stream,
    Timestamp,
)
from streamflow.decoder import Decoder
from streamflow.privacy import _SIGNS, _Encoding
from streamflow.private_values import (
    _ESCAPES,
    PrivateValue,
    _meaning,
    _resolved,
)
from streamflow.producer.lines import Accepted, LineReader
from streamflow.records import Rejection
from streamflow.spans import originals
from streamflow_dagster.defs.content_checks import _holds_address

# What stands beside a value in logs, mails and documents.
NOISE = st.text(
    st.sampled_from(list("12ab.,;: \"'()[]{}<>@\\%=&#+-u/\n")) | st.characters(), max_size=30
)
GERMAN = PhoneNumber("DE")
CARD = CardNumber()
CUSTOMER = PrivatePattern("customer number", r"\bKD-[0-9]{6}\b")
VALUES = (GERMAN, CARD, CUSTOMER)
HASHER = Hasher(b"pepper", ["phone"], VALUES)

PHONES = [
    "+49 170 1234567", "+491701234567", "0170 1234567", "0170/1234567", "(0170) 1234567", "+49-170-1234567",
    "+1 415-555-2671", "%2B49%20170%201234567", r"\u002b49 170 1234567", "&#43;49 170 1234567",
    "+\uff14\uff19 170 1234567",
    "+49\u00a0170\u00a01234567", "+49\u2011170\u20111234567", r"\t+49 170 1234567",
]  # fmt: skip
CARDS = [
    "4111 1111 1111 1111", "4111-1111-1111-1111", "4111111111111111", "5555555555554444", "378282246310005",
    "6011 1111 1111 1117", "4111\u20111111\u20111111\u20111111", r"\n4111111111111111", "50%4111111111111111",
    r"\u00341111111\u00311111111",
]  # fmt: skip
FORMS = {**dict.fromkeys(PHONES, GERMAN), **dict.fromkeys(CARDS, CARD), "KD-123456": CUSTOMER}
NONE = [
    "2026-11-26T10:00:00.123456789+05:30", "2026-11-26 10:00", "192.168.100.200", "4111 1111 1111 1112",
    "user-events/0/1234567", "1764151200", "KD-12345", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "f" * 64,
    "a4111111111111111", "9007199254740991",
]  # fmt: skip


def clear(data: bytes) -> str:
    """What is left to read of it."""
    return re.sub(r"[0-9a-f]{64}", "", data.decode("utf-8", "replace"))


@pytest.mark.parametrize("text", FORMS)
@pytest.mark.parametrize(
    "around", ["{}", '{{"note":"{}","n":1}}', "call {}, or not.\n", "?to={}&x"]
)
def test_a_value_is_found_in_every_form(text: str, around: str) -> None:
    data = around.format(text).encode()
    assert FORMS[text].may_hold(data)
    redacted = HASHER.redact(data)
    assert not re.search("1234567|1111|4444|0005|KD-", clear(redacted))
    assert HASHER.redact(redacted) == redacted
    assert Hasher(b"pepper", ["phone"]).redact(data) == data


@pytest.mark.parametrize("text", NONE)
def test_what_is_none_stays(text: str) -> None:
    data = f'{{"note":"{text}","id":9007199254740991}}'.encode()
    assert HASHER.redact(data) == data


def test_all_forms_of_a_number_have_one_hash() -> None:
    wanted = HASHER.hash("+491701234567").encode()
    for text in ("+49 170 1234567", "0170/1234567", "%2B49%20170%201234567"):
        assert HASHER.redact(f"call {text}".encode()) == b"call " + wanted
        assert HASHER.hash_private(f'{{"phone":"{text}"}}'.encode()) == b'{"phone":"%s"}' % wanted


@settings(deadline=None)  # the library loads a country's plan when it is first asked for
@given(
    NOISE, st.sampled_from(["\n", "\t<", '{"x":"', "; ", "= "]), st.sampled_from(list(FORMS)), NOISE
)
def test_a_value_is_found_in_any_noise(before: str, start: str, text: str, after: str) -> None:
    data = f"{before}{start}{text}; {after}".encode("utf-8", "surrogatepass")
    redacted = HASHER.redact(data)
    assert text.encode() not in redacted
    assert HASHER.redact(redacted) == redacted


@settings(deadline=None)
@given(st.text(st.sampled_from(list('0123456789 +-./()\\u%KD,"ab\u00a0\uff11')), max_size=60))
def test_redacting_twice_changes_nothing(noise: str) -> None:
    redacted = HASHER.redact(noise.encode())
    assert HASHER.redact(redacted) == redacted


def test_json_stays_json() -> None:
    hashed = HASHER.hash("4111111111111111").encode()
    assert HASHER.redact(b'{"n": 4111111111111111 }') == b'{"n": "%s" }' % hashed
    assert HASHER.redact(b"[1,4111111111111111]") == b'[1,"%s"]' % hashed
    assert HASHER.redact(b'"x: 4111111111111111"') == b'"x: %s"' % hashed


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["+49 170 1234567", "4111 1111 1111 1111", "KD-123456"])
def test_a_value_is_found_in_other_encodings(codec: str, text: str) -> None:
    data = f"at {text} today".encode(codec)
    assert HASHER.redact(data) == f"at {HASHER.hash(text)} today".encode(codec)


@pytest.mark.parametrize("limit", range(0, 900, 53))
def test_a_cut_halves_no_value(limit: int) -> None:
    data = "".join(f"<{text}>" for text in FORMS).encode()
    kept, taken = HASHER.redact_within(data, limit)
    assert len(kept) <= limit
    assert kept == HASHER.redact(data[:taken])
    assert not re.search("1234567|1111|4444|0005|KD-1", clear(kept))


PIECES = [b"1", b"1 ", b"+", b"(1) ", b"4 ", b"4111 1111 1111 1112 ", b"0170 1234567 ", b"%31", b"KD-",
          b"\x00", b"\\u0031", b"1.", b"+1", "\uff11".encode(), b"KD-12345 "]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("value", [*VALUES, PrivatePattern("x", "(a|1)*b|(.*x)+|11111")], ids=str)
def test_hostile_input_takes_linear_time(piece: bytes, value: PrivateValue) -> None:
    def seconds(size: int) -> float:
        data = piece * (size // len(piece)) + b"a"
        began = time.process_time()
        list(value.find(data))
        return time.process_time() - began

    assert seconds(40_000) < 0.5 + min(seconds(10_000) for _ in range(2)) * 8


@pytest.mark.parametrize(
    "piece",
    [
        b"1 ",
        b"12 34 56 78 ",
        b'"phone":"0170 1234567",',
        b'"phone":"1 1 1 1 1 1 1 1 1 1 1 1",',
        b'"1 1 1 1 1 1 1 1 1 1 1"@b.cd, ',
        b"1\x00 \x00",
    ],
)
def test_all_of_a_text_shares_its_verdicts(piece: bytes) -> None:
    HASHER.hash("0170 1234567")  # loads the country's plan
    data = piece * (100_000 // len(piece))
    began = time.process_time()
    redacted = HASHER.redact(data)
    HASHER.redact_within(data, 50_000)
    assert time.process_time() - began < 5  # it took more than a minute
    assert HASHER.redact(redacted) == redacted


def test_the_texts_of_a_record_share_their_verdicts() -> None:
    texts = b",".join(
        [b'"9 9 9 9 9 9 9 9"', *[b'"1 1 1 1 1 1 1 1 1 1"'] * 4_000, b'"0170 1234567"']
    )
    began = time.process_time()
    assert isinstance(decoder(*VALUES).decode(CALL % (b"1", b',"tags":[%s]' % texts)), Rejection)
    assert time.process_time() - began < 1


ESCAPES = st.text(
    st.sampled_from(list("1 \u00e4\u4e00\uff11\u00bd\u2011\\u%031n&#;49\U0001f600\xff")),
    max_size=40,
)


@given(
    ESCAPES, st.binary(max_size=4), ESCAPES, st.lists(st.integers(0, 99), unique=True, max_size=6)
)
def test_a_place_without_escapes_is_that_of_the_escape(
    before: str, broken: bytes, behind: str, places: list[int]
) -> None:
    data = before.encode() + broken + behind.encode()
    pieces = [(match.start(), match.end()) for match in _ESCAPES.finditer(data)]
    text, starts, ends, done = b"", [], [], 0
    for start, end in [*pieces, (len(data), len(data))]:
        meaning = _meaning(data[start:end]) if start < end else b""
        starts += [*range(done, start), *[start] * len(meaning)]
        ends += [*range(done + 1, start + 1), *[end] * len(meaning)]
        text += data[done:start] + meaning
        done = end
    assert _resolved(data) == text
    inside = sorted(place for place in places if place <= len(text))
    spans = list(pairwise(inside))[::2]
    wanted = [(starts[begin], ends[end - 1]) for begin, end in spans]
    assert originals(data, spans, _ESCAPES, _meaning) == wanted


@pytest.mark.parametrize("piece", ["\u00e4", "a\u00e4", "\u4e00\u4e01", r"\n", "%41"])
def test_a_text_of_escapes_takes_little_memory(piece: str) -> None:
    data = piece.encode() * (262_144 // len(piece.encode()))
    tracemalloc.start()
    try:
        list(CARD.find(data))
        assert tracemalloc.get_traced_memory()[1] < 8 * len(data)  # it was 60 to 110 times as much
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=60), st.sampled_from([2, 4]), st.booleans(), st.integers(0, 3))
def test_wide_characters_are_narrowed(data: bytes, width: int, big: bool, offset: int) -> None:
    order: Literal["big", "little"] = "big" if big else "little"
    offset %= width
    wide = [
        int.from_bytes(data[at : at + width], order)
        for at in range(offset, len(data) - width + 1, width)
    ]
    wanted = bytes(one if one < 255 else _SIGNS.get(one, 255) for one in wide)
    assert _Encoding(width, order, offset).narrow(data) == wanted


def test_of_very_many_numbers_all_that_may_be_one_is_redacted() -> None:
    redacted = HASHER.redact(b"0170 1234567, 9991234567; " * 1_000)
    assert b"1234567" in redacted[:10_000]
    assert b"1234567" not in redacted[-10_000:]
    assert HASHER.redact(redacted) == redacted


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"(a+)\1", "no backreferences"),
        (r"(?=x)y", "no look-around"),
        ("[", "missing ]"),
        ("(x{1000}){1000}", "not a regular expression"),
        ("^KD-[0-9]+$", r"write \b for"),
        (r"\AKD", r"write \b for"),
        ("a*", "matches an empty text"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused(pattern: str, why: str) -> None:
    [fault] = kept_faults(PrivatePattern("customer number", pattern))
    assert why in fault


def test_signs_of_anchors_may_be_searched_for() -> None:
    assert PrivatePattern("price", r"\$[0-9^$]{5}").find(b"at $12345!") == [(3, 9)]


def test_an_unknown_region_is_refused() -> None:
    [fault] = kept_faults(PhoneNumber("Germany"))
    assert "'Germany' is no region" in fault


class Call(Event):
    id: int
    type: Literal["CALL", "+49 800 3301000"]
    note: str = ""
    tags: tuple[str, ...] = ()
    phone: Annotated[HashedAddress | None, NotNull] = None
    timestamp: Timestamp


CALL = b'{"id":%s,"type":"CALL","timestamp":"2026-11-26T10:00:00.123456789+05:30"%s}'


def decoder(*values: PrivateValue) -> Decoder:
    return Decoder(Call, ["phone"], private_values=values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (b',"note":"call 0170 1234567"', "note: holds a clear-text phone number"),
        (b',"tags":["4111 1111 1111 1111"]', "tags: holds a clear-text card number"),
        (rb',"tags":["\u00341111111 11111111"]', "tags: holds a clear-text card number"),
        (b',"note":"of KD-123456"', "note: holds a clear-text customer number"),
        (b',"note":"KD-123456","note":""',
         "an undeclared or repeated field, or a key: holds a clear-text customer number"),
        (b',"phone":"+49 170 1234567"', "phone: holds clear text, and a hash is declared"),
        (b',"more":"+49 170 1234567"', "holds a clear-text phone number"),
        (b',"note":"ann@example.com"', "note: holds a clear-text address"),
    ],
)  # fmt: skip
def test_the_contract_rejects_what_is_declared(changes: bytes, message: str) -> None:
    value = CALL % (b"1", changes)
    rejected = decoder(*VALUES).decode(value)
    assert isinstance(rejected, Rejection)
    assert (rejected.code, rejected.message) == (ErrorCode.CLEAR_TEXT_PII, message)
    not_declared = decoder().decode(value)
    assert (
        not isinstance(not_declared, Rejection)
        or b"phone" in value
        or b"more" in value
        or b"@" in value
    )


@pytest.mark.parametrize("number", [b"4111111111111111", b"491701234567"])
@pytest.mark.parametrize("changes", [b"", b',"phone":"' + b"1" * 64 + b'"'])
def test_numbers_times_and_names_of_the_contract_are_none(number: bytes, changes: bytes) -> None:
    value = CALL % (number, changes)
    for text in (value, value.replace(b"CALL", b"+49 800 3301000")):
        assert isinstance(decoder(*VALUES).decode(text), Call)


def test_the_producer_hashes_what_is_in_a_private_field() -> None:
    stream = Stream(
        name="calls",
        contract=Call,
        table="calls",
        key=lambda call: call.type,
        private_fields=("phone",),
        private_values=VALUES,
    )
    line = LineReader(stream, HASHER).read(CALL % (b"1", b',"phone":"0170 1234567"'))
    assert isinstance(line, Accepted)
    assert HASHER.hash("+49 170 1234567").encode() in line.value


def test_dagsters_check_sees_it() -> None:
    found: list[Any] = [
        _holds_address("value", text, "bytea", HASHER)
        for text in (b"call 0170 1234567", b"4111111111111111", b"of KD-123456", b"2026-11-26")
    ]
    assert found == [True, True, True, False]
