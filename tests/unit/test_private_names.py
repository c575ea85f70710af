"""A private field is private under each name that JSON may have for it (AliasChoices, AliasPath)."""

import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, Field

from loads import FakeRecord
from streamflow import ErrorCode, Event, Hashed, Hasher, Stream, Timestamp
from streamflow.dead_letters.builtin_repairs import coerce_numbers, hash_address
from streamflow.declarations import problems
from streamflow.private_texts import PrivateTexts
from streamflow.records import Rejection
from streamflow.tombstones import Deletion
from streaming_workers.producer.lines import Accepted, LineReader

AT = "2026-03-01T12:00:00.000Z"
HASHER = Hasher(b"key")
HASH = HASHER.hash("Ann Smith")
NAMES = AliasChoices("email", "e-mail", AliasPath("contact", 0, "post"), AliasPath("row", 1, 0))
FORMS: list[Any] = [
    {"email": "Ann Smith"},
    {"e-mail": "Ann Smith"},
    {"contact": [{"post": "Ann Smith"}]},
    {"row": [7, ["Ann Smith"]]},
    {"row": [{"a": ["b"]}, ["Ann Smith"]]},
]


class Declared(Event):
    """By its type."""

    mail: Annotated[Hashed, Field(alias="email", validation_alias=NAMES)]
    timestamp: Timestamp


class Listed(Event):
    """By name."""

    mail: Annotated[str, Field(alias="email", validation_alias=NAMES)]
    timestamp: Timestamp


def stream_of(contract: type[Event], *private: str, unknown: Any = "forbid") -> Stream:
    return Stream(
        name="mails", contract=contract, table="mails", key=lambda _: "k", private_fields=private,
        unknown_fields=unknown,
    )  # fmt: skip


STREAMS = [
    stream_of(Declared),
    *(stream_of(Listed, name) for name in ("mail", "email", "e-mail", "post", "row")),
]


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: str(stream.private_fields))
@pytest.mark.parametrize("form", FORMS, ids=json.dumps)
def test_it_is_private_under_each_of_its_names(stream: Stream, form: dict[str, Any]) -> None:
    assert problems(stream) == []
    value = json.dumps(form | {"timestamp": AT}).encode()
    found = stream.decoder.decode(value)
    assert isinstance(found, Rejection)
    assert found.code is ErrorCode.CLEAR_TEXT_PII
    hasher = Hasher(b"key", stream.decoder.private_fields)
    # Our producer hashes it; a dead letter holds the hash; a repair mends it.
    accepted = LineReader(stream, hasher).read(value)
    assert isinstance(accepted, Accepted)
    assert json.loads(accepted.value)["email"] == HASH
    dead = hasher.redact(value)
    assert b"Ann" not in dead
    assert hasher.redact(dead) == dead
    mended = hash_address(json.loads(value), stream, hasher)
    if "row" not in form or 7 in form["row"]:
        assert not isinstance(stream.decoder.decode(json.dumps(mended).encode()), Rejection)


class Contact(BaseModel):
    post: Annotated[Hashed | None, Field(validation_alias=AliasChoices("post", "mail"))] = None


class Open(Event):
    id: Annotated[Hashed | None, Field(validation_alias=AliasChoices("id", "ident"))] = None
    contacts: list[Contact] = []  # noqa: RUF012 (pydantic copies it)
    timestamp: Timestamp


@pytest.mark.parametrize("unknown", ["ignore", "keep"])
@pytest.mark.parametrize(
    ("form", "accepted"),
    [
        ({"id": HASH, "ident": "Ann Smith"}, False),
        ({"id": HASH, "ident": HASH}, True),
        ({"id": HASH, "more": "Ann Smith"}, True),
        ({"contacts": [{"post": HASH}, {"post": HASH, "mail": "Ann Smith"}]}, False),
        ({"contacts": [{"post": HASH, "mail": None}]}, True),
    ],
)
def test_a_second_name_beside_the_first_is_no_unknown_field(
    unknown: Any, form: dict[str, Any], accepted: bool
) -> None:
    decoder = stream_of(Open, unknown=unknown).decoder
    value = json.dumps(form | {"timestamp": AT}).encode()
    found = decoder.decode(value)
    assert isinstance(found, Open) is accepted
    if not accepted:
        assert found.code is ErrorCode.CLEAR_TEXT_PII
        assert "Ann" not in found.message
        hashed = Hasher(b"key", decoder.private_fields).hash_private(value)
        assert isinstance(decoder.decode(hashed), Open)


def test_a_key_may_have_several_names() -> None:
    class Row(Event):
        id: Annotated[int, Field(validation_alias=AliasChoices("id", "customerId"))]
        kind: Annotated[Literal[1], Field(alias="of", validation_alias=AliasPath("kind"))]
        timestamp: Timestamp

    stream = Stream(
        name="rows", contract=Row, table="rows", key=lambda row: str(row.id), mode="upsert",
        primary_key=("id",),
    )  # fmt: skip
    assert problems(stream) == []
    for name in ("id", "customerId"):
        record = FakeRecord(0, None, key=json.dumps({name: 7}).encode())
        assert stream.read(record) == Deletion((7,))
    missing = stream.read(FakeRecord(0, None, key=b'{"other": 7}'))
    assert isinstance(missing, Rejection)
    assert "has no id" in missing.message
    for name in ("id", "customerId"):
        assert coerce_numbers({name: "7"}, stream, HASHER) == {name: 7}


def test_a_private_key_is_refused_under_each_of_its_names() -> None:
    stream = Stream(
        name="rows",
        contract=Declared,
        table="rows",
        key="mail",
        mode="upsert",
        primary_key=("mail",),
    )
    assert any("and a private field" in problem for problem in problems(stream))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"m": "a", "x": "b"}', ["a"]),
        ('{"m" :\n ["a", null, 7, ["b", true], "c"], "x": ["d"]}', ["a", "b", "c"]),
        ('{"m": [{"x": "a", "m": "b", "y": ["c"]}, "d"], "x": "e"}', ["b", "d"]),
        ('{"m": {"x": "a", "m": ["b"]}}', ["b"]),
        ('{"m": [], "x": "a"}', []),
        (r'{"m": ["a\"]", "b\\"], "x": "c"}', [r"a\"]", r"b\\"]),
        ('{"m": ["a", "b', ["a", "b"]),
        ('{"m": "a', ["a"]),
        ('{"m": ["a"], "n": ["b"]} {"m": ["c"]}', ["a", "c"]),
    ],
)
def test_texts_of_private_fields(text: str, found: list[str]) -> None:
    spans = PrivateTexts(["m"]).spans(text.encode())
    assert [text[begin:end] for begin, end in spans] == found
    assert list(PrivateTexts([]).spans(text.encode())) == []
