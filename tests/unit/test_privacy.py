"""No address survives redaction, in whatever bytes it hides."""

import hashlib
import hmac
import time

import pytest

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


@pytest.mark.parametrize("piece", [b"a", b"a@", b"\\u0040", b'"user_email":', b"a.b@", b"\\"])
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
