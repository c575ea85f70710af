"""A private field is private under each name that JSON may have for it (AliasChoices, AliasPath)."""

import json
from base64 import b64encode
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    Base64Bytes,
    Base64Str,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PlainValidator,
    TypeAdapter,
)
from pydantic.dataclasses import dataclass

from loads import FakeRecord
from streamflow import ErrorCode, Event, Hashed, Hasher, Stream, Timestamp
from streamflow.dead_letters.builtin_repairs import coerce_numbers, hash_address
from streamflow.declarations import problems
from streamflow.pii_keys import is_hashed
from streamflow.private_fields import keeps_names
from streamflow.private_texts import PrivateTexts
from streamflow.producer.lines import Accepted, LineReader
from streamflow.records import Rejection
from streamflow.streams.user_events import USER_EVENTS
from streamflow.tombstones import Deletion

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
    ("text", "whole", "hashed"),
    [
        ('{"m": "a", "x": "b"}', ["a"], ["a"]),
        (
            '{"m" :\n ["a", null, 7, ["b", true], "c"], "x": ["d"]}',
            ["a", "7", "b", "c"],
            ["a", "b", "c"],
        ),
        (
            '{"m": [{"x": "a", "m": "b", "y": ["c"]}, "d"], "x": "e"}',
            ["a", "b", "c", "d"],
            ["b", "d"],
        ),
        ('{"m": {"x": "a", "m": ["b"]}, "x": "c"}', ["a", "b"], ["b"]),
        ('{"m": {"x" : {"y": -1.5e+3}, "z": [0]}, "x": 1}', ["-1.5e+3", "0"], []),
        ('{"m": 4915, "x": 7}', ["4915"], []),
        ('{"m": ["a" : "b"], "x": 7}', ["a", "b"], ["a", "b"]),
        ('{"m": [], "x": "a"}', [], []),
        (r'{"m": ["a\"]", "b\\"], "x": "c"}', [r"a\"]", r"b\\"], [r"a\"]", r"b\\"]),
        ('{"m": ["a", "b', ["a", "b"], ["a", "b"]),
        ('{"m": {"x": "a', ["a"], []),
        ('{"m": "a', ["a"], ["a"]),
        ('{"m": 49', ["49"], []),
        ('{"m": ["a"], "n": ["b"]} {"m": ["c"]}', ["a", "c"], ["a", "c"]),
        (r'{"\u006d": ["a"], "n": "b", "\u006D": {"m": "c"}}', ["a", "c"], ["a", "c"]),
    ],
)
def test_values_of_private_fields(text: str, whole: list[str], hashed: list[str]) -> None:
    for found, all_of_it in ((whole, True), (hashed, False)):
        spans = PrivateTexts(["m"]).spans(text.encode(), whole=all_of_it)
        assert [text[begin:end] for begin, end in spans] == found
    assert list(PrivateTexts([]).spans(text.encode())) == []


SPELLINGS: list[tuple[str, bytes]] = [
    ("name", rb'"n\u0061me"'),
    ("name", rb'"\u006Eam\u0065"'),
    ("prénom", rb'"pr\u00e9nom"'),
    ("prénom", rb'"pr\u00E9n\u006fm"'),
    ("prénom", '"prénom"'.encode()),
    ("prénom", '"prénom"'.encode("latin-1")),
    ("a/b", rb'"a\/b"'),
    ('a"\\\tb', rb'"a\"\\\tb"'),
    ('a"\\\tb', rb'"a\u0022\u005c\u0009b"'),
    ("名\U0001f600", json.dumps("名\U0001f600").encode()),
]


@pytest.mark.parametrize(("name", "spelled"), SPELLINGS, ids=str)
def test_a_name_is_found_however_it_is_spelled(name: str, spelled: bytes) -> None:
    hasher = Hasher(b"key", [name])
    for form in (b'{%s : "Ann Accent"}', b'{"x": [{%s:["Ann Accent", 7]}'):
        dead = hasher.redact(form % spelled)
        assert b"Ann" not in dead
        assert b'"%s"' % HASHER.hash("Ann Accent").encode() in dead
        assert spelled in dead
        assert hasher.redact(dead) == dead
    assert hasher.redact(b'{"n\\u0061mes":"Ann"}') == b'{"n\\u0061mes":"Ann"}'


@pytest.mark.parametrize("name", ["name", "prénom", "名\U0001f600"])
@pytest.mark.parametrize("codec", ["utf-16", "utf-16-be", "utf-32-le"])
def test_a_name_is_found_in_wide_encodings(name: str, codec: str) -> None:
    text = json.dumps({name: {"first": "Ann Accent", "n": 7}}, ensure_ascii=False)
    hasher = Hasher(b"key", [name])
    dead = hasher.redact(text.encode(codec))
    hashed = {"first": HASHER.hash("Ann Accent"), "n": HASHER.hash("7")}
    assert json.loads(dead.decode(codec)) == {name: hashed}
    assert hasher.redact(dead) == dead


class Accented(Event):
    given: Annotated[Hashed, Field(alias="prénom")]
    timestamp: Timestamp


def test_the_producer_hashes_under_an_escaped_name() -> None:
    stream = stream_of(Accented)
    line = json.dumps({"prénom": "Ann Accent", "timestamp": AT}).encode()
    assert b"\\u00e9" in line
    accepted = LineReader(stream, Hasher(b"key", stream.decoder.private_fields)).read(line)
    assert isinstance(accepted, Accepted)
    assert json.loads(accepted.value)["prénom"] == HASHER.hash("Ann Accent")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"first": "Ann Dict", "at": [{"b": "Ann Deep"}]}, {"first": 1, "at": [{"b": 1}]}),
        (4915112345678, 1),
        (-1.5, 1),
        ([7, {"n": 8}, None, True, ""], [1, {"n": 1}, None, True, ""]),
        (None, None),
    ],
    ids=str,
)
def test_a_private_field_of_the_wrong_type_is_redacted(value: Any, kept: Any) -> None:
    hasher = Hasher(b"key", ["email"])
    text = json.dumps({"email": value, "x": {"n": 7, "t": "text"}})
    dead = hasher.redact(text.encode())
    document = json.loads(dead)
    assert document["x"] == {"n": 7, "t": "text"}

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shape(part) for name, part in value.items()}
        if isinstance(value, list):
            return [shape(part) for part in value]
        return 1 if isinstance(value, str) and is_hashed(value) else value

    assert shape(document["email"]) == kept
    assert hasher.redact(dead) == dead
    if isinstance(value, int):
        assert document["email"] == HASHER.hash(str(value))
    for size in range(len(text)):
        cut = hasher.redact(text.encode()[:size])
        assert b"Ann" not in cut
        assert b"4915" not in cut
        assert hasher.redact(cut) == cut


@pytest.mark.parametrize("limit", [5_000, 50_000])
def test_many_private_numbers_become_no_more_than_fits(limit: int) -> None:
    hasher = Hasher(b"key", ["email"])
    data = b'{"email":[' + b"1," * 100_000 + b"1]}"
    kept, taken = hasher.redact_within(data, limit)
    assert limit // 2 < len(kept) <= limit
    assert kept == hasher.redact(data[:taken])


class ByName(Event):
    model_config = ConfigDict(populate_by_name=True)

    name: Annotated[Hashed | None, Field(alias="fullName")] = None
    timestamp: Timestamp


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")


@dataclass(config=ConfigDict(extra="allow"))
class LooseData:
    n: int = 0


class Keeping(Event):
    email: Annotated[Hashed | Literal["unknown"] | None, Field()] = None
    inner: Loose | None = None
    data: LooseData | None = None
    texts: dict[str, str] = {}  # noqa: RUF012 (pydantic copies it)
    numbers: dict[str, int] = {}  # noqa: RUF012
    any_: Annotated[Any, Field(alias="any")] = None
    timestamp: Timestamp


class Click(Event):
    type: Literal["click"]
    email: Hashed
    timestamp: Timestamp


class View(Event):
    type: Literal["view"]
    timestamp: Timestamp


@pytest.mark.parametrize(
    ("contract", "unknown", "form"),
    [
        (ByName, "keep", {"fullName": HASH, "name": "Ann Leak"}),
        (ByName, "keep", {"fullName": HASH, "name": 4915112345678}),
        *(
            (Keeping, "forbid", form)
            for form in (
                {"inner": {"email": "Ann Inner"}},
                {"inner": {"email": 4915112345678}},
                {"inner": {"x": [{"email": {"first": ["Ann"]}}]}},
                {"data": {"email": "Ann Data"}},
                {"texts": {"email": "Ann Text"}},
                {"numbers": {"email": 4915112345678}},
                {"any": [{"email": "Ann Any"}]},
            )
        ),
        (Annotated[Click | View, Field(discriminator="type")], "keep", {"type": "view", "email": "A"}),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_kept_under_a_private_name_is_hashed(
    contract: Any, unknown: Any, form: dict[str, Any]
) -> None:
    decoder = stream_of(contract, unknown=unknown).decoder
    for escaped in (False, True):
        value = json.dumps(form | {"timestamp": AT}).encode()
        value = (
            value.replace(b"em", b"\\u0065m").replace(b"nam", b"n\\u0061m") if escaped else value
        )
        found = decoder.decode(value)
        assert isinstance(found, Rejection)
        assert found.code is ErrorCode.CLEAR_TEXT_PII
        assert "Ann" not in found.message
        redacted = json.loads(Hasher(b"key", decoder.private_fields).redact(value))
        if "numbers" not in form:  # a hash is no number
            assert isinstance(decoder.decode(json.dumps(redacted).encode()), Event)


@pytest.mark.parametrize(
    "form",
    [
        {"inner": {"email": HASH, "other": "Ann"}, "texts": {"email": HASH}},
        {"inner": {"email": None}, "any": {"email": [HASH, True, "", {"email": HASH}]}},
        {"email": "unknown", "texts": {"mail": "Ann"}},
    ],
    ids=str,
)
def test_what_is_kept_under_other_names_or_hashed_is_accepted(form: dict[str, Any]) -> None:
    decoder = stream_of(Keeping).decoder
    assert isinstance(decoder.decode(json.dumps(form | {"timestamp": AT}).encode()), Keeping)


class TakesAnything(Event):
    text: Annotated[Any, PlainValidator(lambda value: value)]
    timestamp: Timestamp


def test_only_contracts_that_keep_undeclared_names_are_searched_for_them() -> None:
    for contract, keeps in (
        (USER_EVENTS.contract, False),
        (Declared, False),
        (TakesAnything, True),
        (Keeping, True),
    ):
        assert keeps_names(TypeAdapter(contract).core_schema) is keeps


class Encoded(Event):
    note: Base64Str | None = None
    raw: Base64Bytes | None = None
    timestamp: Timestamp


class EncodedByDefault(Event):
    model_config = ConfigDict(val_json_bytes="base64")

    raw: bytes
    timestamp: Timestamp


@pytest.mark.parametrize(
    ("contract", "name"), [(Encoded, "note"), (Encoded, "raw"), (EncodedByDefault, "raw")]
)
def test_what_pydantic_decodes_is_looked_at(contract: type[Event], name: str) -> None:
    stream = stream_of(contract)
    for text, accepted in (b"bob.clear@example.com", False), (b"bob at home", True):
        value = json.dumps({name: b64encode(text).decode(), "timestamp": AT}).encode()
        found = stream.read(FakeRecord(0, value))
        assert isinstance(found, contract) is accepted
        if not accepted:
            assert isinstance(found, Rejection)
            assert found.code is ErrorCode.CLEAR_TEXT_PII
            assert "bob" not in found.message
    if name == "raw":  # which need not be a text
        value = json.dumps({name: b64encode(b"\xff\x00").decode(), "timestamp": AT}).encode()
        assert isinstance(stream.read(FakeRecord(0, value)), contract)


class Person(BaseModel):
    name: Hashed
    more: list["Person"] = []


def with_field(type_: Any, default: Any = ...) -> type[Event]:
    namespace: dict[str, Any] = {"__annotations__": {"name": type_, "timestamp": Timestamp}}
    if default is not ...:
        namespace["name"] = default
    return type("Made", (Event,), namespace | {"__module__": __name__})


@pytest.mark.parametrize(
    ("type_", "default", "refused"),
    [
        (str, "Ann Lee", True),
        (Hashed, "Ann Lee", True),
        (list[str], ["Ann Lee"], True),
        (str, HASH, False),
        (str, "", False),
        (str | None, None, False),
        (Hashed | Literal["unknown"], "unknown", False),
    ],
    ids=str,
)
def test_a_default_in_clear_is_refused(type_: Any, default: Any, refused: bool) -> None:
    found = problems(stream_of(with_field(type_, default), "name"))
    assert [each for each in found if "default of name" in each] == found
    assert bool(found) is refused
    assert "Ann" not in "".join(found)


@pytest.mark.parametrize(
    ("type_", "refused"),
    [
        (Json[Person], True),
        (Json[list[Person]] | None, True),
        (Json[dict[str, str]], True),
        (Json[Any], True),
        (Json[list[int]], False),
        (Person, False),
    ],
    ids=str,
)
def test_private_fields_within_a_text_of_json_are_refused(type_: Any, refused: bool) -> None:
    class Texts(Event):
        text: type_
        person: Person | None = None
        timestamp: Timestamp

    found = problems(stream_of(Texts))
    assert [each for each in found if each.startswith("text is a text that holds JSON")] == found
    assert bool(found) is refused
