"""No address survives redaction, in whatever bytes it hides."""

import base64
import hashlib
import hmac
import json
import time

import pytest

from streamflow.pii_keys import PiiKeys
from streamflow.privacy import Hasher

ANN = hashlib.sha256(b"ann@example.com").hexdigest().encode()


@pytest.mark.parametrize(
    ("data", "redacted"),
    [
        (b'{"user_email": "ann@example.com"}', b'{"user_email": "' + ANN + b'"}'),
        (b"ann\\u0040example.com", ANN),
        (b"\xff ann@example.com, and so on", b"\xff " + ANN + b", and so on"),
        (b"mail ann@example.com.", b"mail " + ANN + b"."),
        (b"no address @ all", b"no address @ all"),
    ],
)
def test_addresses_are_replaced_by_their_hashes(data: bytes, redacted: bytes) -> None:
    hasher = Hasher(None, ["user_email"])
    assert hasher.redact(data) == redacted
    assert hasher.redact(redacted) == redacted


def test_a_private_field_is_hashed_whatever_it_holds() -> None:
    data = Hasher(None, ["user_email"]).redact(b'{"user_email" : "ann at home"}')
    assert b"ann" not in data


def test_a_key_makes_it_a_keyed_hash() -> None:
    wanted = hmac.new(b"secret", b"ann@example.com", "sha256").hexdigest()
    assert Hasher(b"secret").hash("ann@example.com") == wanted


@pytest.mark.parametrize(
    "piece",
    [
        b"a", b"a@", b"\\u0040", b'"user_email":', b"a.b@", b"\\", b'"data_base64":"', b'"user_email":[',
        b'"user_email":{', b'"user_email":{"a":1,', b'"user_\\u0065mail"', b'"\\u0075ser_', b'"user_email"  ',
        b'{"\\/":1}',
    ],
)  # fmt: skip
def test_hostile_input_takes_linear_time(piece: bytes) -> None:
    began = time.process_time()
    Hasher(None, ["user_email"]).redact(piece * 200_000 + b"@")
    assert time.process_time() - began < 5


@pytest.mark.parametrize("limit", [0, 1, 70, 130, 131, 200, 1_000, 2_000, 100_000])
def test_a_cut_leaves_no_half_address(limit: int) -> None:
    hasher = Hasher(private_fields=("user_email",))
    data = b'{"user_email":"Ann Smith", "to": "ann@example.com", "or":"a\\u0040b.org"}\n' * 20
    kept, taken = hasher.redact_within(data, limit)
    assert len(kept) <= limit
    assert kept == hasher.redact(data[:taken])
    assert not any(each in kept for each in (b"Ann", b"ann", b"example", b"a\\u0040", b"b.org"))
    assert taken == len(data) or limit < len(hasher.redact(data)) * 4


def test_text_without_delimiters_is_cut_anywhere() -> None:
    assert Hasher().redact_within(b"x" * 10_000, 5_000) == (b"x" * 5_000, 5_000)
    assert Hasher().redact_within(b"x" * 1_000, 500) == (b"x" * 500, 500)


def _in_base64(data: bytes) -> bytes:
    return b'{"id": "1", "data_base64": "' + base64.b64encode(data) + b'", "n": 1}'


def test_the_base64_of_a_cloud_event_hides_nothing() -> None:
    hasher = Hasher(None, ["name"])
    for clear in (b'{"mail":"ann@example.com","name":"Ann"}', b"no JSON, ann@example.com, \xff"):
        # In itself, too; with characters that base64 does not have, and the escapes of JSON.
        for depth in (1, 2):
            data = clear
            for _ in range(depth):
                data = _in_base64(data)
            for form in (
                data,
                data.replace(b"=", b"").replace(b"A", b"\\n\\u0041").replace(b"/", b"\\/"),
            ):
                redacted = hasher.redact(form)
                assert hasher.redact(redacted) == redacted
                for _ in range(depth):
                    redacted = base64.b64decode(json.loads(redacted)["data_base64"], validate=True)
                assert ANN in redacted
                assert b"ann" not in redacted.lower().replace(b"ann@", b"")
    harmless = _in_base64(b'{"mail":"none"}').replace(b"=", b"")
    assert hasher.redact(harmless) == harmless


def test_base64_that_is_cut_off_is_hashed_whole() -> None:
    data = _in_base64(b"x, ann@example.com" * 100)
    for limit in (60, 200, 1_000):
        redacted, taken = Hasher().redact_within(data, limit)
        assert len(redacted) <= limit
        assert taken < len(data)
        hidden = redacted.partition(b'_base64": "')[2]
        assert b"@" not in base64.b64decode(hidden[: len(hidden) // 4 * 4], validate=False)


def test_hashes_in_base64_are_lifted() -> None:
    old = Hasher(PiiKeys.parse('{"a": "one"}'))
    new = Hasher(PiiKeys.parse('{"b": "two", "a": "one"}'))
    data = old.redact(_in_base64(b'{"mail":"ann@example.com"}'))
    assert new.hashes_within(data) == {old.hash("ann@example.com")}
    lifted = new.lift_within(data)
    assert lifted == new.redact(_in_base64(b'{"mail":"ann@example.com"}'))
    assert new.hashes_within(lifted) == {new.hash("ann@example.com")}


@pytest.mark.parametrize("key", [None, b"secret", PiiKeys([("a", b"one"), ("b", b"two")])])
def test_a_hash_is_remembered_and_a_long_text_is_not(key: bytes | PiiKeys | None) -> None:
    hasher, another = Hasher(key), Hasher(key)
    texts = [
        "ann@example.com",
        "bob@example.com",
        "ann@example.com",
        "é\ud800",
        "x" * 321,
        "x" * 321,
    ]
    assert [hasher.hash(text) for text in texts] == [
        another.hash(text) for text in reversed(texts)
    ][::-1]
    assert hasher._remembered.cache_info().hits == 1
    assert hasher._remembered.cache_info().currsize == 3
