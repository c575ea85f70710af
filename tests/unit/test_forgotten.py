"""Which records are those of a forgotten subject, and what is left of them."""

import json
from dataclasses import replace
from typing import Any

import pytest

from streamflow.errors import ConfigurationError
from streamflow.pii_keys import PiiKeys
from streamflow.postgres.forgotten import ERASED, Forgotten, Kind, event_blanks, hashes_of
from streamflow.postgres.tables import Column, event_columns
from streamflow.privacy import Hasher
from streamflow.streams.user_events import USER_EVENTS

HASHER = Hasher(b"a key", ("user_email",))
ANN = "Ann@Example.com"
HASH = HASHER.hash(ANN)
FORGOTTEN_ADDRESS_AND_USER = [
    (3, "address", hashes_of(HASHER, Kind.ADDRESS, ANN)),
    (4, "user", hashes_of(HASHER, Kind.USER, "ann")),
]
FORGOTTEN = Forgotten(HASHER, FORGOTTEN_ADDRESS_AND_USER)


@pytest.mark.parametrize("form", [ANN, "Ann@example.com", "ann@example.com"])
def test_an_address_is_known_in_several_spellings(form: str) -> None:
    assert HASHER.hash(form) in hashes_of(HASHER, Kind.ADDRESS, ANN)


def test_a_full_width_address_is_known_in_its_plain_form() -> None:
    assert HASHER.hash("ann@example.com") in hashes_of(HASHER, Kind.ADDRESS, "ann\uff20example.com")


def test_a_hash_is_its_own_only_hash() -> None:
    assert hashes_of(HASHER, Kind.ADDRESS, HASH) == (HASH,)
    assert hashes_of(HASHER, Kind.USER, HASH) != (HASH,)


def test_who_was_forgotten_under_an_older_key_stays_so() -> None:
    before = FORGOTTEN_ADDRESS_AND_USER
    newer = Hasher(PiiKeys([("2026b", b"another")], b"a key"), ("user_email",))
    known = Forgotten(newer, before)
    assert known.of_hash(HASH.encode()) == 3  # of a producer that has the old key
    assert known.of_hash((newer.lifted(HASH) or "").encode()) == 3
    assert known.of_user("ann") == 4
    # A user's name is no address: another spelling is another user.
    assert known.of_user("Ann") is None
    assert set(hashes_of(newer, Kind.ADDRESS, HASH)) == {HASH, newer.lifted(HASH)}
    assert {HASH, newer.hash(ANN)} <= set(hashes_of(newer, Kind.ADDRESS, ANN))


PIECES: list[tuple[bytes | None, int | None]] = [
    (None, None),
    (b"", None),
    (b"ann", 4),
    (b"anna", None),
    (HASH.encode(), 3),
    (b"f" * 7 + HASH.encode() + b"0" * 9, 3),
    (json.dumps({"a": [{"mail": HASH}]}).encode(), 3),
    (f"is {HASH}".encode("utf-16-be"), 3),
    (f"is {HASH}".encode("utf-32-le"), 3),
    (b'{"user" :\t"ann", broken', 4),
    (rb'{"user":"\u0061nn"}', 4),
    (b'{"user":"anna","name":"ann"}', None),
    (HASHER.hash("ann").encode(), None),
    (b"\xff\x00\xfe", None),
]


@pytest.mark.parametrize(("piece", "erasure"), PIECES)
def test_whose_a_piece_of_a_record_is(piece: bytes | None, erasure: int | None) -> None:
    assert FORGOTTEN.of_content(b"{}", piece) == erasure


def test_a_user_s_name_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Forgotten(HASHER, FORGOTTEN_ADDRESS_AND_USER)
    exact, hashed = HASHER.keys.exact, []
    monkeypatch.setattr(HASHER.keys, "exact", lambda name: hashed.append(name) or exact(name))
    for name in ("bob", "ann", "bob"):
        assert known.of_user(name) == (4 if name == "ann" else None)
    assert hashed == ["bob", "ann"]


def test_nobody_is_forgotten() -> None:
    nobody = Forgotten(HASHER, [])
    assert not nobody
    assert nobody.of_content(HASH.encode(), b"ann") is None
    # Who may be stored again stays on the list without a hash.
    assert not Forgotten(HASHER, [(1, "address", [])])


def test_an_erased_event_keeps_what_the_audit_compares() -> None:
    columns = event_columns(USER_EVENTS)
    blanks = event_blanks(USER_EVENTS, columns)
    assert blanks == {"id": 0, "user": ERASED, "user_email": None}
    required = [replace(column, nullable=False) for column in columns]
    assert event_blanks(USER_EVENTS, required)["user_email"] == "0" * 64


@pytest.mark.parametrize(
    ("kind", "blank"), [("numeric(12,2)", 0), ("character varying(2)", ""), ("jsonb", "null")]
)
def test_a_column_that_may_not_be_null_has_a_neutral_value(kind: str, blank: Any) -> None:
    assert event_blanks(USER_EVENTS, [Column("more", kind, nullable=False)]) == {"more": blank}


def test_a_column_that_cannot_be_emptied_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"events.more \(inet\) cannot be emptied"):
        event_blanks(USER_EVENTS, [Column("more", "inet", nullable=False)])
    assert event_blanks(USER_EVENTS, [Column("more", "inet", nullable=True)]) == {"more": None}
