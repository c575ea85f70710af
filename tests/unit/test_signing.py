"""Signatures of derived records: any change breaks one, and no two records share one."""

from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from loads import FakeRecord
from streamflow.records import SIGNATURE_HEADER, TOPIC_ID_HEADER, Headers, OutRecord
from streamflow.signing import Signer, _framed

SIGNER = Signer(b"a secret")
ORIGIN = ("__streamflow.origin", b"user-events/0/5")

texts = st.none() | st.binary(max_size=6)
headers = st.lists(
    st.tuples(
        st.sampled_from(["a", "ab", "b", "trace", "__streamflow.origin", TOPIC_ID_HEADER]), texts
    ),
    max_size=4,
)
records = st.builds(
    OutRecord, st.sampled_from(["t", "t1", "a.b"]), texts, texts, headers, partition=st.just(-1)
)


def read(record: OutRecord, **changes: Any) -> FakeRecord:
    """The record as a consumer hands it over; with changes that somebody made to it."""
    changed = record._replace(**changes)
    return FakeRecord(
        7, changed.value, topic=changed.topic, key=changed.key, headers=changed.headers
    )


@given(records)
def test_what_was_signed_is_known_again(record: OutRecord) -> None:
    signed = SIGNER.sign(record)

    assert SIGNER.verify(read(signed))
    assert SIGNER.signed_headers(read(signed)) == record.headers
    assert len(signed.headers[-1][1] or b"") >= 16
    assert not Signer(b"another").verify(read(signed))
    assert not SIGNER.verify(read(record))


@given(records, records)
def test_the_signature_of_one_record_fits_no_other(one: OutRecord, other: OutRecord) -> None:
    signed = SIGNER.sign(one)
    forged = other._replace(headers=[*other.headers, signed.headers[-1]])
    assume(forged != signed)

    assert not SIGNER.verify(read(forged))


Parts = tuple[bytes | None, bytes | None, Headers]
parts = st.tuples(texts, texts, headers)


@given(parts, parts)
@example((b"a", b"b", []), (b"ab", b"", []))
@example((None, b"", []), (b"", None, []))
@example((b"k", b"v", [("a", b"b")]), (b"k", b"va", [("b", b"")]))
@example((b"k", b"v", [("a", b"")]), (b"k", b"v", [("a", None)]))
@example((b"k", b"v", [("a", b"b"), ("c", b"d")]), (b"k", b"v", [("a", b"b")]))
@example((b"k", b"v", [("a", b"bc"), ("c", b"d")]), (b"k", b"v", [("a", b"b"), ("cc", b"d")]))
def test_framing_is_unambiguous(one: Parts, other: Parts) -> None:
    assert (_framed(*one) == _framed(*other)) == (one == other)


@settings(deadline=None)
@given(records, st.binary(min_size=16, max_size=16))
def test_a_guessed_signature_is_none(record: OutRecord, guess: bytes) -> None:
    assume(guess != SIGNER.sign(record).headers[-1][1])
    for signature in (guess, guess[:8], b"", None):
        changed: Headers = [*record.headers, (SIGNATURE_HEADER, signature)]
        assert not SIGNER.verify(read(record, headers=changed))


RECORD = OutRecord("notifications", b"key", b"{}", [ORIGIN])


def test_each_part_is_covered() -> None:
    signed = SIGNER.sign(RECORD)
    signature = signed.headers[-1]
    changes: list[dict[str, Any]] = [
        {"topic": "analytics"},
        {"key": b"kez"},
        {"key": None},
        {"value": b"[]"},
        {"value": None},
        {"headers": [("__streamflow.origin", b"user-events/0/6"), signature]},
        {"headers": [("__streamflow.source", b"user-events/0/5"), signature]},
        {"headers": [ORIGIN, ORIGIN, signature]},
        {"headers": [("trace", b"1"), ORIGIN, signature]},
        {"headers": [signature]},
        {"headers": []},
        # What was added last counts, so it must be covered too.
        {"headers": [*signed.headers, ORIGIN]},
        {"headers": [*signed.headers, ("__connect.errors.topic", b"t")]},
    ]
    assert SIGNER.verify(read(signed))
    for change in changes:
        assert not SIGNER.verify(read(signed, **change)), change


def test_headers_that_tracing_adds_behind_it_are_left_out() -> None:
    signed = SIGNER.sign(RECORD)

    traced = read(signed, headers=[*signed.headers, ("traceparent", b"00-1")])

    assert SIGNER.signed_headers(traced) == [ORIGIN]


def test_a_secret_may_be_long() -> None:
    long = Signer(b"x" * 1000)
    assert long.verify(read(long.sign(RECORD)))
    assert not Signer(b"x" * 999).verify(read(long.sign(RECORD)))


@pytest.mark.parametrize(
    ("appended", "older"),
    [((2, 999), True), ((2, 1_000), False), ((1, 999), False), ((0, -1), False)],
)
def test_records_from_before_there_were_signatures(appended: tuple[int, int], older: bool) -> None:
    """By the broker's clock only: a producer writes what it likes."""
    record = read(RECORD)
    record.appended = appended

    assert Signer(b"a secret", unsigned_until=1_000).is_older(record) is older
    assert not SIGNER.is_older(record)


DERIVED = OutRecord("notifications", b"ann", b"{}", [ORIGIN, (TOPIC_ID_HEADER, b"x" * 22)])
OF_DERIVED = bytes.fromhex("bd799585e440ba14ff9795dcd1865fad")


def test_readers_of_every_release_know_a_signature() -> None:
    record = OutRecord("t", None, b"v", [("a", None)])
    signature = (SIGNATURE_HEADER, bytes.fromhex("ef00ddac60f9e3d74e15d384d6dac0ac"))
    assert Signer(b"secret").sign(record).headers == [*record.headers, signature]
    [signed] = Signer(b"secret").signed([record])
    assert signed == Signer(b"secret").sign(record)


def test_the_topic_s_id_travels_behind_the_signature() -> None:
    signed = Signer(b"secret").sign(DERIVED)
    assert signed.headers == [ORIGIN, (SIGNATURE_HEADER, OF_DERIVED + b"x" * 22)]
    assert Signer(b"secret").signed_headers(read(signed)) == DERIVED.headers


def test_a_record_of_an_earlier_release_has_the_topic_s_id_as_a_header() -> None:
    headers = [*DERIVED.headers, (SIGNATURE_HEADER, OF_DERIVED)]
    assert Signer(b"secret").signed_headers(read(DERIVED, headers=headers)) == DERIVED.headers


@pytest.mark.parametrize("headers", [
    [ORIGIN, (SIGNATURE_HEADER, OF_DERIVED + b"x" * 21)],
    [ORIGIN, (SIGNATURE_HEADER, OF_DERIVED + b"x" * 21 + b"y")],
    [ORIGIN, (SIGNATURE_HEADER, OF_DERIVED)],
    [*DERIVED.headers, (SIGNATURE_HEADER, OF_DERIVED + b"x" * 22)],
    [ORIGIN, (TOPIC_ID_HEADER, b"y" * 22), (SIGNATURE_HEADER, OF_DERIVED + b"x" * 22)],
    [(SIGNATURE_HEADER, OF_DERIVED + b"x" * 22)],
    [ORIGIN, (SIGNATURE_HEADER, OF_DERIVED + b"x" * 22), (TOPIC_ID_HEADER, b"y" * 22)],
])  # fmt: skip
def test_another_id_is_not_signed(headers: Headers) -> None:
    assert Signer(b"secret").signed_headers(read(DERIVED, headers=headers)) is None


@pytest.mark.parametrize("topic_id", [b"", None])
def test_an_empty_id_stays_a_header(topic_id: bytes | None) -> None:
    record = DERIVED._replace(headers=[ORIGIN, (TOPIC_ID_HEADER, topic_id)])
    assert SIGNER.signed_headers(read(SIGNER.sign(record))) == record.headers
