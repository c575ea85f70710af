"""Every type that a contract may have: its column, its row, its group, and what is refused."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    HttpUrl,
    Json,
    PositiveInt,
    SecretStr,
    StringConstraints,
    create_model,
    field_validator,
)
from typing_extensions import TypeAliasType, TypedDict

from loads import FakeRecord
from streamflow import (
    ConfigurationError,
    EpochMillis,
    EpochSeconds,
    ErrorCode,
    Event,
    Hashed,
    Hasher,
    Stream,
    Timestamp,
    TumblingWindow,
)
from streamflow.declarations import problems
from streamflow.postgres.rows.events import EventRows
from streamflow.postgres.rows.read_back import event_of
from streamflow.postgres.tables import event_columns
from streamflow.producer.lines import LineReader
from streamflow.records import Origin, Rejection

HASH = "a" * 64
AT = "2026-03-01T12:00:00.000Z"


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Contact(BaseModel):
    email: Hashed | None = None
    city: str = ""


class Item(BaseModel):
    sku: str
    price: Decimal
    due: datetime | None = None


class Everything(Event):
    """Values are JSON."""

    colour: Colour
    level: Level
    kind: Literal["placed", "cancelled"]
    raw: bytes
    price: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
    factor: Decimal
    ref: UUID
    day: date
    at: time
    span: timedelta
    count: PositiveInt
    big: Annotated[int, Field(ge=0, le=2**100)]
    ratio: float
    ok: bool
    site: HttpUrl
    due: AwareDatetime
    created: datetime
    seen: EpochMillis
    anything: Any
    mixed: int | str
    tags: list[str]
    extra: dict[str, int | float | str]
    items: list[Item]
    coupon: str | None
    customer_id: Annotated[str, Field(alias="customerId")]
    contacts: list[Contact] = []  # noqa: RUF012 (pydantic copies it)
    note: str | None = None


VALUES: dict[str, Any] = {
    "colour": "red", "level": 2, "kind": "placed", "raw": "a\\b", "price": "12.50", "factor": 1e-7,
    "ref": "12345678-1234-1234-1234-123456789012", "day": "2026-03-01", "at": "12:30:00.5",
    "span": "P1DT2H", "count": 3, "big": 2**99, "ratio": 0.1, "ok": True, "site": "https://a.example/b",
    "due": "2026-03-01T13:00:00+01:00", "created": AT, "seen": 1_772_366_400_000, "anything": "hello",
    "mixed": "x\ty", "tags": ["a", '"quoted"', "\\"], "extra": {"n": 1, "t": "x"},
    "items": [{"sku": "s", "price": "1.10"}], "coupon": None, "customerId": "c\n1",
    "contacts": [{"email": HASH}],
}  # fmt: skip

EVERYTHING = Stream(
    name="everything",
    contract=Everything,
    table="everything",
    key="customer_id",
    event_time="created",
)


def decoded(stream: Stream, **changed: Any) -> Any:
    return stream.decoder.decode(json.dumps(VALUES | changed).encode())


def test_each_type_has_its_column() -> None:
    columns = {column.name: (column.type, column.nullable) for column in event_columns(EVERYTHING)}
    assert {name: columns[name] for name in Everything.model_fields} == {
        "colour": ("text", False),
        "level": ("bigint", False),
        "kind": ("text", False),
        "raw": ("bytea", False),
        "price": ("numeric(12,2)", False),
        "factor": ("numeric", False),
        "ref": ("uuid", False),
        "day": ("date", False),
        "at": ("time without time zone", False),
        "span": ("interval", False),
        "count": ("bigint", False),
        "big": ("numeric", False),
        "ratio": ("double precision", False),
        "ok": ("boolean", False),
        "site": ("text", False),
        "due": ("timestamp with time zone", False),
        "created": ("timestamp with time zone", False),
        "seen": ("timestamp with time zone", False),
        "anything": ("jsonb", False),
        "mixed": ("jsonb", False),
        "tags": ("jsonb", False),
        "extra": ("jsonb", False),
        "items": ("jsonb", False),
        "coupon": ("text", True),
        "customer_id": ("text", False),
        "contacts": ("jsonb", False),
        "note": ("text", True),
    }


def test_a_row_holds_each_value_as_its_column_reads_it() -> None:
    event = decoded(EVERYTHING)
    assert isinstance(event, Everything)
    line = EventRows(EVERYTHING).line(event, Origin("everything", 0, 7), (2, 0))
    table = EventRows(EVERYTHING).table
    row = dict(zip(table.columns, line.decode().rstrip("\n").split("\t"), strict=True))
    assert row == {
        "colour": "red", "level": "2", "kind": "placed", "raw": r"\\x615c62", "price": "12.5",
        "factor": "0.0000001", "ref": VALUES["ref"], "day": "2026-03-01", "at": "12:30:00.500000",
        "span": "1 days 7200.000000 seconds", "count": "3", "big": str(2**99), "ratio": "0.1", "ok": "true",
        "site": "https://a.example/b", "due": "2026-03-01 12:00:00+00:00",
        "created": "2026-03-01 12:00:00+00:00", "seen": "2026-03-01 12:00:00+00:00",
        "anything": '"hello"', "mixed": r'"x\\ty"', "tags": r'["a","\\"quoted\\"","\\\\"]',
        "extra": '{"n":1,"t":"x"}', "items": '[{"sku":"s","price":"1.10","due":null}]', "coupon": r"\N",
        "customer_id": r"c\n1", "contacts": f'[{{"email":"{HASH}","city":""}}]', "note": r"\N",
        "origin_offset": "7", "origin_topic": "everything", "origin_partition": "0",
        "appended_at": "1970-01-01 00:00:00+00:00",
    }  # fmt: skip


@pytest.mark.parametrize(
    "value", ["hello", True, None, 3, 2**70, 1.5, {"a": None}, [None], '"quoted"']
)
def test_any_value_is_correct_json(value: Any) -> None:
    event = decoded(EVERYTHING, anything=value)
    line = EventRows(EVERYTHING).line(event, Origin("everything", 0, 7), (2, 0)).decode()
    field = line.split("\t")[EventRows(EVERYTHING).table.columns.index("anything")]
    assert json.loads(field.replace("\\\\", "\\")) == value


def test_an_event_is_sent_as_it_was_read() -> None:
    event = decoded(EVERYTHING)
    key, value = EVERYTHING.encode(event)
    assert key == b"c\n1"
    # None is left out, unless the contract wants it.
    assert json.loads(value)["coupon"] is None
    assert "note" not in json.loads(value)
    assert EVERYTHING.decoder.decode(value) == event


@pytest.mark.parametrize(
    ("changed", "code", "message"),
    [
        ({"ratio": 10**400}, "SCHEMA_VIOLATION", "ratio: should be a finite number"),
        ({"anything": 10**400}, None, ""),
        ({"created": "2026-03-01T12:00:00"}, "SCHEMA_VIOLATION",
         "created: should be a time in RFC 3339; it needs a zone, like 2026-01-31T12:00:00Z"),
        ({"due": "2026-03-01T12:00:00"}, "SCHEMA_VIOLATION",
         "due: should be a time in RFC 3339; it needs a zone, like 2026-01-31T12:00:00Z"),
        ({"at": "12:00:00Z"}, "SCHEMA_VIOLATION", "at: must have no zone, like 12:00:00"),
        ({"count": 2**63}, "UNSTORABLE_VALUE", "count: should be less than or equal to 9223372036854775807"),
        ({"count": 0}, "SCHEMA_VIOLATION", "count: should be greater than 0"),
        ({"colour": "mauve"}, "SCHEMA_VIOLATION", "colour: should be 'red' or 'blue'"),
        ({"kind": "lost"}, "SCHEMA_VIOLATION", "kind: should be 'placed' or 'cancelled'"),
        ({"ref": "zz"}, "SCHEMA_VIOLATION", "ref: should be a valid UUID"),
        ({"customerId": 3}, "SCHEMA_VIOLATION", "customerId: should be a valid string"),
        ({"items": [{"sku": "x"}]}, "SCHEMA_VIOLATION", "items[0].price: is required"),
        ({"secret": "x"}, "SCHEMA_VIOLATION", "the record: holds a field that is not declared"),
        ({"contacts": [{"email": "Ann of X"}]}, "CLEAR_TEXT_PII",
         "contacts[0].email: holds clear text, and a hash is declared"),
        ({"price": "1.234"}, "SCHEMA_VIOLATION", "price: has more than 2 decimal places"),
        ({"price": "1234567890123"}, "SCHEMA_VIOLATION", "price: has more than 12 digits in total"),
        ({"price": "12345678901.5"}, "SCHEMA_VIOLATION", "price: has more than 10 digits before the decimal"),
        ({"price": True}, "SCHEMA_VIOLATION", "price: should be a number, or a text of one"),
        ({"seen": 2**62}, "SCHEMA_VIOLATION",
         "seen: should be a time, as a whole number of milliseconds since 1970, between 0001-01-02"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_words(changed: Any, code: str | None, message: str) -> None:
    found = decoded(EVERYTHING, **changed)
    if code is None:
        assert isinstance(found, Everything)
        return
    assert isinstance(found, Rejection)
    assert (found.code, found.message[: len(message)]) == (code, message)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity"])
@pytest.mark.parametrize("name", ["ratio", "anything", "factor", "extra"])
def test_numbers_that_no_double_holds_are_refused(name: str, number: str) -> None:
    text = json.dumps(VALUES | {name: {"n": "?"} if name == "extra" else "?"}).replace(
        '"?"', number
    )
    found = EVERYTHING.decoder.decode(text.encode())
    assert isinstance(found, Rejection)
    assert found.code in (
        ErrorCode.INVALID_JSON, ErrorCode.SCHEMA_VIOLATION, ErrorCode.UNSTORABLE_VALUE
    )  # fmt: skip


class Open(Event):
    who: str
    at: EpochSeconds


@pytest.mark.parametrize("behavior", ["forbid", "ignore", "keep"])
def test_unknown_fields(behavior: Any) -> None:
    stream = Stream(
        name="open",
        contract=Open,
        table="open",
        key="who",
        event_time="at",
        unknown_fields=behavior,
    )
    found = stream.decoder.decode(b'{"who":"x","at":1,"more":{"b":[1]},"z":null}')
    if behavior == "forbid":
        assert isinstance(found, Rejection)
        return
    rows = EventRows(stream)
    line = rows.line(found, Origin("open", 0, 0), (2, 0)).decode().split("\t")
    row = dict(zip(rows.table.columns, line, strict=True))
    kept = {"more": {"b": [1]}, "z": None} if behavior == "keep" else {}
    assert json.loads(row.get("unknown_fields", "{}")) == kept
    assert json.loads(stream.encode(found)[1]) == {"who": "x", "at": 1} | kept
    clear = stream.decoder.decode(b'{"who":"x","at":1,"more":"ann@example.com"}')
    assert isinstance(clear, Rejection)
    assert clear.code is ErrorCode.CLEAR_TEXT_PII


def test_a_private_field_by_name_holds_hashes_only() -> None:
    class Person(Event):
        name: str
        timestamp: Timestamp

    stream = Stream(
        name="people", contract=Person, table="people", key="name", private_fields=("name",)
    )
    for name, accepted in ((HASH, True), ("Ann", False), ("ann@example.com", False)):
        found = stream.decoder.decode(json.dumps({"name": name, "timestamp": AT}).encode())
        assert isinstance(found, Person) is accepted
        assert accepted or found.code is ErrorCode.CLEAR_TEXT_PII


Name = TypeAliasType("Name", str)
Secret = TypeAliasType("Secret", Hashed)


class Person(TypedDict):
    nick: str


@dataclass
class Place:
    town: str


class People(Event):
    """Fields that share a type refer to it."""

    name: Name
    other: Name
    mail: Annotated[Secret, Field(alias="eMail")]
    mail2: Secret | None = None
    full: Annotated[
        str | None, Field(validation_alias=AliasChoices("fullName", AliasPath("names", 0)))
    ] = None
    texts: list[Name] = []  # noqa: RUF012 (pydantic copies it)
    person: Person = {"nick": HASH}  # noqa: RUF012
    place: Place = Place(HASH)
    timestamp: Timestamp


PEOPLE = Stream(
    name="people", contract=People, table="people", key=lambda _: "k",
    private_fields=("name", "texts", "nick", "town", "full"),
)  # fmt: skip


@pytest.mark.parametrize(
    "clear",
    [
        {"name": "Ann"}, {"eMail": "Ann"}, {"mail2": "Ann"}, {"texts": [HASH, "Ann"]}, {"fullName": "Ann"},
        {"names": ["Ann"]}, {"person": {"nick": "Ann"}}, {"place": {"town": "Ann"}},
    ],
)  # fmt: skip
def test_a_private_field_is_private_wherever_its_type_is_declared(clear: dict[str, Any]) -> None:
    hashed = {"name": HASH, "other": "Ann", "eMail": HASH, "timestamp": AT}
    assert problems(PEOPLE) == []
    assert isinstance(PEOPLE.decoder.decode(json.dumps(hashed).encode()), People)
    value = json.dumps(hashed | clear).encode()
    found = PEOPLE.decoder.decode(value)
    assert isinstance(found, Rejection)
    assert found.code is ErrorCode.CLEAR_TEXT_PII
    # Nor does a dead letter hold it.
    dead = json.loads(Hasher(None, PEOPLE.decoder.private_fields).redact(value))
    assert dead.pop("other") == "Ann"
    assert "Ann" not in json.dumps(dead)


@pytest.mark.parametrize(
    "kind",
    [
        int, int | str, Any, bytes, float, bool, Decimal, UUID, date, datetime, HttpUrl, Json, Colour,
        Literal["ann", "bob"], Item, Contact, dict[str, str], dict[str, Any], list[int], list[list[str]],
        list[Any], tuple[str, int], Annotated[Any, BeforeValidator(str)], TypeAliasType("Number", int),
        Place, Person, list, None | int,
    ],
)  # fmt: skip
def test_a_private_field_that_is_no_text_is_refused(kind: Any) -> None:
    contract = create_model("Odd", __base__=Event, timestamp=(Timestamp, ...), name=(kind, ...))
    stream = Stream(
        name="odd", contract=contract, table="odd", key=lambda _: "k", private_fields=("name",)
    )
    [problem] = problems(stream)
    assert problem.startswith("name is a private field, so it must be a text, or a list of texts")


@pytest.mark.parametrize(
    "kind",
    [
        str, str | None, list[str], set[str | None], tuple[str, ...], Sequence[str], SecretStr,
        Annotated[str, AfterValidator(str.strip)], Annotated[str, BeforeValidator(str)], Name,
        Annotated[str, StringConstraints(strip_whitespace=True)], Hashed | int, dict[Hashed, int],
    ],
)  # fmt: skip
def test_a_private_field_that_is_text(kind: Any) -> None:
    contract = create_model("Good", __base__=Event, timestamp=(Timestamp, ...), name=(kind, ...))
    stream = Stream(
        name="good", contract=contract, table="good", key=lambda _: "k", private_fields=("name",)
    )
    assert problems(stream) == []


def declared(**changed: Any) -> Stream:
    declaration: dict[str, Any] = {
        "name": "everything", "contract": Everything, "table": "everything", "key": "customer_id",
        "event_time": "created",
    }  # fmt: skip
    return Stream(**declaration | changed)


@pytest.mark.parametrize(
    ("by", "group"),
    [
        (None, "(all)"), ("colour", "red"), ("level", "2"), ("ok", "true"), ("price", "12.5"),
        ("ref", VALUES["ref"]), ("day", "2026-03-01"), ("coupon", "(null)"), ("kind", "placed"),
    ],
)  # fmt: skip
def test_events_are_counted_by_any_scalar(by: str | None, group: str) -> None:
    stream = declared(windows=TumblingWindow("10s", by=by))
    assert stream.kind_of(decoded(stream)) == group


def test_groups_that_are_empty_or_long() -> None:
    stream = declared(windows=TumblingWindow("10s", by="customer_id"))
    assert stream.kind_of(decoded(stream, customerId="")) == "(empty)"
    long, longer = (stream.kind_of(decoded(stream, customerId="x" * n)) for n in (300, 301))
    assert len(long) == 217
    assert long != longer


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"event_time": "when"},
            "event_time names the field when, which Everything does not have",
        ),
        ({"event_time": "day"}, "Everything.day is the event time, so it must be a Timestamp"),
        (
            {"key": "customerId"},
            "key names the field customerId, which Everything does not have",
        ),
        (
            {"windows": TumblingWindow("10s", by="color")},
            "by of its windows names the field color, which Everything does not",
        ),
        ({"windows": TumblingWindow("10s", by="ratio")}, "its windows cannot count by ratio"),
        ({"windows": TumblingWindow("10s", by="items")}, "its windows cannot count by items"),
        ({"private_fields": ("phone",)}, "private_fields names the field phone"),
    ],
)
def test_a_declaration_that_cannot_work_says_why(changed: Any, message: str) -> None:
    assert [text[: len(message)] for text in problems(declared(**changed))] == [message]


def test_a_contract_that_is_no_event_is_refused() -> None:
    assert problems(declared(contract=BaseModel)) == [
        "contract must be a subclass of Event, or a union of them, not the class BaseModel"
    ]


def test_a_contract_may_be_an_alias() -> None:
    class Opened(Event):
        kind: Literal["opened"]
        timestamp: Timestamp

    class Closed(Event):
        kind: Literal["closed"]
        timestamp: Timestamp

    shop = TypeAliasType("shop", Annotated[Opened | Closed, Field(discriminator="kind")])
    stream = Stream(name="shop", contract=shop, table="shop", key="kind")
    assert stream.decoder.models == (Opened, Closed)
    assert stream.kind_field == "kind"
    assert problems(stream) == []
    found = stream.decoder.decode(f'{{"kind":"closed","timestamp":"{AT}"}}'.encode())
    assert isinstance(found, Closed)


def test_fields_that_swap_their_names_in_json() -> None:
    class Swapped(Event):
        one: Annotated[str, Field(alias="two")]
        two: Annotated[int, Field(alias="one")]
        timestamp: Timestamp

    stream = Stream(name="swapped", contract=Swapped, table="swapped", key="one")
    event = stream.decoder.decode(f'{{"one":1,"two":"a","timestamp":"{AT}"}}'.encode())
    assert isinstance(event, Swapped)
    row = {"one": event.one, "two": event.two, "timestamp": event.timestamp}
    assert event_of(stream, row) == event


def test_a_type_without_a_column_is_refused() -> None:
    class Odd(Event):
        call: Any = None
        what: type
        timestamp: Timestamp

    stream = Stream(name="odd", contract=Odd, table="odd", key=lambda _: "x")
    with pytest.raises(ConfigurationError, match=r"no column can hold Odd\.what"):
        event_columns(stream)


def test_epochs() -> None:
    event = decoded(EVERYTHING)
    assert event.seen == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert EVERYTHING.time_of(event) == datetime(2026, 3, 1, 12, tzinfo=UTC)


class Fragile(Event):
    number: int
    text: str = ""
    timestamp: Timestamp

    @field_validator("number")
    @classmethod
    def _fail(cls, number: int) -> int:
        if number > 0:
            raise (KeyError("ann"), TypeError("ann"), AttributeError("ann"), ValueError("ann"))[
                number - 1
            ]
        return number


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (1, "PROCESSING_FAILED", "a validator of the contract raised KeyError"),
        (2, "PROCESSING_FAILED", "a validator of the contract raised TypeError"),
        (3, "PROCESSING_FAILED", "a validator of the contract raised AttributeError"),
        (4, "SCHEMA_VIOLATION", "number: is refused by a validator of the contract"),
    ],
)
# With NUL it fails where the cause is looked for.
@pytest.mark.parametrize("text", ["x", "\x00", "\ud800"])
def test_a_validator_that_raises_fails_its_record(
    number: int, code: str, message: str, text: str
) -> None:
    stream = Stream(name="fragile", contract=Fragile, table="fragile", key="text")
    value = json.dumps({"number": number, "text": text, "timestamp": AT}).encode()
    found = stream.decoder.decode(value)
    assert isinstance(found, Rejection)
    assert (found.code, found.message) == (code, message)


def test_a_key_or_a_decode_that_raises_fails_its_record() -> None:
    def fail(*_: Any) -> Any:
        raise KeyError("ann@example.com")

    line = b'{"number":0,"timestamp":"2026-03-01T12:00:00.000Z"}'
    keyless = Stream(name="fragile", contract=Fragile, table="fragile", key=fail)
    found = LineReader(keyless, Hasher()).read(line)
    assert isinstance(found, Rejection)
    assert (found.code, found.message) == ("PROCESSING_FAILED", "key raised KeyError")
    # Only who sends needs the key.
    assert isinstance(keyless.read(FakeRecord(0, line)), Fragile)
    undecoded = replace(keyless, key="text", decode=fail)
    assert undecoded.read(FakeRecord(0, line)) == Rejection(
        ErrorCode.PROCESSING_FAILED, "KeyError", "decode raised KeyError"
    )


class Precise(Event):
    total: Decimal
    ratio: float = 0.0
    by_day: dict[str, Decimal | None] = {}  # noqa: RUF012 (pydantic copies it)
    items: list[Item] = []  # noqa: RUF012
    anything: Any = None
    timestamp: Timestamp


PRECISE = Stream(name="precise", contract=Precise, table="precise", key=lambda _: "k")


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ('"total":12345678901234567890.123', False),
        ('"total":0.12345678901234567890', False),
        ('"total":1234567890123456789e3', False),
        ('"total":-1e-400', False),
        ('"total":1e-99999999999999999999', False),
        ('"total":1,"by_day":{"m":0.10000000000000001}', False),
        ('"total":1,"items":[{"sku":"a","price":0.1},{"sku":"b","price":10.000000000000000001}]', False),
        ('"total":"12345678901234567890.123"', True),
        ('"total":12345678901234567890123', True),
        ('"total":1234567890.12345', True),
        ('"total":1.50000000000000000000', True),
        ('"total":0.1234567890123456', True),
        # Floats are doubles, and so are numbers of any value; a text is none of them.
        ('"total":1,"ratio":0.12345678901234567890', True),
        ('"total":1,"anything":[0.12345678901234567890,"0.12345678901234567890"]', True),
    ],
)  # fmt: skip
def test_a_decimal_is_kept_to_its_last_digit_or_refused(fields: str, kept: bool) -> None:
    found = PRECISE.decoder.decode(f'{{{fields},"timestamp":"{AT}"}}'.encode())
    if kept:
        assert isinstance(found, Precise)
        return
    assert isinstance(found, Rejection)
    assert found.code is ErrorCode.SCHEMA_VIOLATION
    field, _, why = found.message.partition(": ")
    assert field in ("total", "by_day[*]", "items[1].price")
    assert why == "has more digits than a JSON number keeps; send it as a string"


@pytest.mark.parametrize(
    "total", ["1e999999999", "-1.5E-0020000", r"1\u0065+999999999", "1e99999999999"]
)
def test_a_decimal_of_a_thousand_million_digits_is_refused(total: str) -> None:
    found = PRECISE.decoder.decode(f'{{"total":"{total}","timestamp":"{AT}"}}'.encode())
    assert isinstance(found, Rejection)
    assert found.message == "total: has an exponent, or digits behind the point, beyond 16383"
    assert isinstance(
        PRECISE.decoder.decode(f'{{"total":"1e-3000","timestamp":"{AT}"}}'.encode()), Precise
    )


@pytest.mark.parametrize(
    "total",
    [
        "1E9_9_9_9_9_9_9_9_9", "1E\uff19\uff19\uff19", "1E" + "9_" * 16 + "9", "1_000.5", "\uff11\uff12",
        " 7 ", "7 ", r"1\u005f0", r"\t7", r"\uff11", r"\ud835\udfce", "_1", "\u0967.\u096b", "\u00a07",
        "\u30007", "\U0001d7ce",
    ],
)  # fmt: skip
def test_a_decimal_that_only_python_reads_is_refused(total: str) -> None:
    value = f'{{"total":"1","by_day":{{"m":"{total}"}},"timestamp":"{AT}"}}'
    found = PRECISE.decoder.decode(value.encode())
    assert isinstance(found, Rejection)
    assert found.code is ErrorCode.SCHEMA_VIOLATION
    assert found.message.partition(": ")[2].startswith("is no plain number")


def test_every_digit_and_blank_of_python_gets_a_closer_look() -> None:
    characters = map(chr, (*range(0x80, 0xD800), *range(0xE000, 0x20000)))
    for character in (char for char in characters if char.isdecimal() or char.isspace()):
        value = f'{{"total":"1{character}","timestamp":"{AT}"}}'
        assert isinstance(PRECISE.decoder.decode(value.encode()), Rejection)


@pytest.mark.parametrize("total", ["+1", ".5", "1.", "-1.5e10", "1" * 200])
def test_plain_decimals_are_accepted(total: str) -> None:
    found = PRECISE.decoder.decode(f'{{"total":"{total}","timestamp":"{AT}"}}'.encode())
    assert isinstance(found, Precise)


def test_a_number_beyond_any_column_is_never_written_out() -> None:
    # A validator of the contract may make one.
    event = Precise(total=Decimal("1e999999999"), timestamp=datetime.now(UTC))
    stream = replace(PRECISE, key="total", windows=TumblingWindow("10s", by="total"))
    assert stream.key_of(event) == b"1E+999999999"
    assert stream.kind_of(event) == "1E+999999999"
    assert b"1E+999999999" in EventRows(stream).line(event, Origin("precise", 0, 0), (0, 0))


@pytest.mark.parametrize(
    ("bounds", "kind", "accepted", "refused"),
    [
        ({"ge": 2**70}, "numeric", 2**71, 2**69),
        ({"le": -(2**70)}, "numeric", -(2**71), 0),
        ({"gt": 2**63 - 1}, "numeric", 2**63, 2**63 - 1),
        ({"ge": -(2**70)}, "numeric", 2**80, -(2**71)),
        ({"ge": 0, "le": 2**64}, "numeric", 2**64, -1),
        ({"gt": 2**62}, "bigint", 2**63 - 1, 2**63),
        ({"lt": 2**63}, "bigint", -(2**63), -(2**63) - 1),
    ],
)
def test_whole_numbers_have_the_bounds_that_the_contract_names(
    bounds: Any, kind: str, accepted: int, refused: int
) -> None:
    class Counter(Event):
        number: Annotated[int, Field(**bounds)]
        timestamp: Timestamp

    stream = Stream(name="counters", contract=Counter, table="counters", key="number")
    assert event_columns(stream)[0].type == kind
    for number, valid in ((accepted, True), (refused, False)):
        found = stream.decoder.decode(f'{{"number":{number},"timestamp":"{AT}"}}'.encode())
        assert isinstance(found, Counter) is valid, found
