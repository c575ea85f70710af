"""What a contract's violation says: where in the document, and what is allowed, in JSON's words."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, Union

import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Json,
    Tag,
)
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType, TypedDict

from streamflow import EpochMicros, EpochMillis, EpochSeconds, ErrorCode, Event, Hashed, Timestamp
from streamflow.decoder import Decoder
from streamflow.records import Rejection

A_TIME = (
    "should be a time, as a whole number of milliseconds since 1970, between 0001-01-02T00:00:00Z and "
    "9999-12-30T00:00:00Z"
)
SECRET = "Ann Smith"
FIRST = datetime(2020, 1, 1, tzinfo=UTC)


class Item(BaseModel):
    price: Decimal = Field(alias="unitPrice")
    number: int = Field(0, alias="int")


class Card(BaseModel):
    kind: Literal["card"] = Field("card", alias="payBy")
    digits: int


class Cash(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["cash"] = Field("cash", alias="payBy")
    paid: int = Field(0, alias="Paid")


class ByName(BaseModel):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)
    size: int = Field(0, alias="Size")


class LocatedByName(BaseModel):
    model_config = ConfigDict(loc_by_alias=False)
    size: int = Field(alias="Size")


@dataclass
class Place:
    town: int


class Plain(TypedDict):
    street: int


class Point(NamedTuple):
    x: int
    y: int


def kind_of(value: Any) -> Any:
    return value.get("q") if isinstance(value, dict) else None


def quote(value: int) -> int:
    raise PydanticCustomError("epochal", f"never {SECRET}, {value}")  # type: ignore[arg-type]


Tree = TypeAliasType("Tree", Union[int, list["Tree"], dict[str, "Tree"]])  # noqa: UP007
Even = Annotated[int, AfterValidator(lambda number: number)]


class Order(Event):
    items: list[Item] = []  # noqa: RUF012 (pydantic copies it)
    pay: Annotated[Card | Cash, Field(discriminator="kind")] | None = None
    by_function: (
        Annotated[Annotated[Card, Tag("x")] | Annotated[Cash, Tag("y")], Discriminator(kind_of)]
        | None
    ) = None
    any_of: Even | list[int] | Item | None = None
    place: Place | Plain | None = None
    only_place: Place | None = None
    point: Point | None = None
    stock: dict[str, Item] = {}  # noqa: RUF012
    counts: dict[int, int] = {}  # noqa: RUF012
    pair: tuple[int, str] = (1, "a")
    many: tuple[str, ...] = ()
    codes: set[int] = set()  # noqa: RUF012
    tree: Tree | None = None
    text: Json[list[int]] | None = None
    chosen: int = Field(0, validation_alias=AliasChoices("one", AliasPath("two", 0, "x"), "three"))
    deep: int = Field(0, validation_alias=AliasPath("at", 1))
    by_name: ByName | None = None
    located: LocatedByName | None = None
    quoting: Annotated[int, AfterValidator(quote)] | None = None
    tags: Annotated[list[str], Field(max_length=2)] = []  # noqa: RUF012
    more: Any = None


DECODER = Decoder(Order)


def reason(document: dict[str, Any], decoder: Decoder = DECODER) -> str:
    found = decoder.decode(json.dumps(document).encode())
    assert isinstance(found, Rejection)
    assert found.code in (ErrorCode.SCHEMA_VIOLATION, ErrorCode.UNKNOWN_TYPE)
    return found.message


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"items": [{"unitPrice": 1}, {"unitPrice": SECRET}]},
         "items[1].unitPrice: should be a valid decimal"),
        ({"items": [{"price": 1}]}, "items[0].unitPrice: is required"),
        ({"items": [{"unitPrice": 1, "int": SECRET}]}, "items[0].int: should be a valid integer"),
        ({"pay": {"payBy": "card", "digits": SECRET}}, "pay.digits: should be a valid integer"),
        ({"pay": {"payBy": "cash", "Paid": SECRET}}, "pay.Paid: should be a valid integer"),
        ({"pay": {"payBy": "cash", "digits": 1}}, "pay: holds a field that is not declared"),
        ({"pay": {"payBy": "cash", "paid": 1}}, "pay: holds a field that is not declared"),
        ({"pay": {"payBy": SECRET}}, "pay.payBy: should be one of 'card', 'cash'"),
        ({"pay": {"digits": 1}}, "pay.payBy: is required"),
        ({"by_function": {"q": SECRET}}, "by_function: is none of the declared kinds"),
        ({"by_function": {"q": "x", "digits": SECRET}}, "by_function.digits: should be a valid integer"),
        ({"any_of": SECRET}, "any_of: should be a valid integer or a valid array or an object"),
        ({"any_of": [1, SECRET]},
         "any_of: should be a valid integer or an object; any_of[1]: should be a valid integer"),
        ({"any_of": {"unitPrice": SECRET}},
         "any_of: should be a valid integer or a valid array; any_of.unitPrice: should be a valid decimal"),
        ({"place": {"street": 1.5}}, "place.town: is required; place.street: should be a valid integer"),
        ({"only_place": SECRET}, "only_place: should be an object"),
        ({"only_place": {"town": 1, SECRET: 1}}, None),
        ({"point": [1, SECRET]}, "point[1]: should be a valid integer"),
        ({"point": {"x": 1, "y": SECRET}}, "point.y: should be a valid integer"),
        ({"stock": {SECRET: {"unitPrice": "x"}}}, "stock[*].unitPrice: should be a valid decimal"),
        ({"counts": {SECRET: 1}}, "counts: a key should be a valid integer, without leading zeros"),
        ({"counts": {"1": SECRET}}, "counts[*]: should be a valid integer"),
        ({"pair": [1, 2]}, "pair[1]: should be a valid string"),
        ({"pair": [1]}, "pair[1]: is required"),
        ({"pair": [1, "a", "b"]}, "pair: should have at most 2 items, not 3"),
        ({"many": ["a", "b", 2]}, "many[2]: should be a valid string"),
        ({"codes": [1, SECRET]}, "codes[1]: should be a valid integer"),
        ({"text": f'[1, "{SECRET}"]'}, "text[1]: should be a valid integer"),
        ({"text": SECRET}, "text: should be a text that holds JSON"),
        ({"text": 1}, "text: should be a text that holds JSON"),
        ({"one": SECRET}, "one: should be a valid integer"),
        ({"two": [{"x": SECRET}]}, "two[0].x: should be a valid integer"),
        ({"three": SECRET}, "three: should be a valid integer"),
        ({"at": [SECRET, SECRET]}, "at[1]: should be a valid integer"),
        ({"by_name": {"size": SECRET}}, "by_name.size: should be a valid integer"),
        ({"by_name": {"Size": SECRET}}, "by_name.Size: should be a valid integer"),
        ({"located": {"Size": SECRET}}, "located.Size: should be a valid integer"),
        ({"located": {}}, "located.Size: is required"),
        ({"quoting": 1}, "quoting: is refused by a validator of the contract"),
        ({"tags": ["a", "b", "c"]}, "tags: should have at most 2 items, not 3"),
        ({SECRET: 1}, "the record: holds a field that is not declared"),
        ({"chosen": 1}, "the record: holds a field that is not declared"),
    ],
)  # fmt: skip
def test_a_fault_is_where_the_document_has_it(
    document: dict[str, Any], message: str | None
) -> None:
    if message is None:
        assert isinstance(DECODER.decode(json.dumps(document).encode()), Order)
        return
    assert reason(document) == message


def test_a_fault_in_a_type_that_refers_to_itself() -> None:
    found = reason({"tree": {SECRET: [1, [SECRET]]}})
    assert "tree[*][1][0]: should be a valid integer or a valid array or an object" in found
    assert SECRET not in found


@pytest.mark.parametrize("levels", [10, 100])
def test_a_deep_fault_is_found_in_no_time_and_says_where(levels: int) -> None:
    value: Any = SECRET
    for _ in range(levels):
        value = [value]
    found = reason({"tree": value})
    assert f"tree{'[0]' * levels}: should be a valid integer" in found or len(found) == 1_000
    assert SECRET not in found


def test_in_a_contract_of_several_models_no_tag_and_no_class_is_told() -> None:
    class Placed(Event):
        kind: Literal["placed"]
        total: int = Field(alias="sum")

    class Cancelled(Event):
        kind: Literal["cancelled"]
        why: str

    decoder = Decoder(Annotated[Placed | Cancelled, Field(discriminator="kind")])
    assert reason({"kind": "placed", "sum": "x"}, decoder) == "sum: should be a valid integer"
    assert reason({"kind": "cancelled"}, decoder) == "why: is required"
    assert reason({"kind": SECRET}, decoder) == "kind: should be one of 'placed', 'cancelled'"


def test_what_cannot_be_stored_is_told_by_the_name_in_json() -> None:
    class Noted(Event):
        note: Any = Field(alias="remark")
        path: str = Field("", validation_alias=AliasPath("where", 0, "path"))

    decoder = Decoder(Noted, unknown_fields="keep")
    for document, message in (
        ({"remark": "a\0"}, "remark: holds NUL"),
        ({"remark": "", "where": [{"path": "a\0"}]}, "where[0].path: holds NUL"),
        ({"remark": [10**400]}, None),
        ({"remark": "mail ann@example.com"}, "remark: holds a clear-text address"),
        ({"remark": "", SECRET: "a\0"}, "the record: holds NUL"),
        ({"remark": "", SECRET: "ann@example.com"}, "the record: holds a clear-text address"),
    ):
        found = decoder.decode(json.dumps(document).encode())
        assert getattr(found, "message", None) == message


class Timed(Event):
    seconds: Annotated[EpochSeconds, Field(gt=FIRST)] = FIRST
    millis: Annotated[EpochMillis, Field(ge=FIRST, lt=FIRST + timedelta(days=1))] = FIRST
    micros: Annotated[EpochMicros, Field(gt=FIRST)] | None = None
    times: list[Annotated[EpochMillis, Field(gt=FIRST)]] = []  # noqa: RUF012
    free: EpochMillis = FIRST
    text: Annotated[Timestamp, Field(le=FIRST)] = FIRST
    due: Annotated[datetime, Field(gt=FIRST)] = FIRST
    day: Annotated[date, Field(ge=date(2020, 1, 1))] = date(2020, 1, 1)
    at: Annotated[time, Field(lt=time(12))] = time(11)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"seconds": 1_577_836_800}, "seconds: must be after 2020-01-01T00:00:00Z"),
        ({"millis": 1_577_836_799_999}, "millis: must not be before 2020-01-01T00:00:00Z"),
        ({"millis": 1_577_923_200_000}, "millis: must be before 2020-01-02T00:00:00Z"),
        ({"micros": 1}, "micros: must be after 2020-01-01T00:00:00Z"),
        ({"times": [1_577_836_800_001, 0]}, "times[1]: must be after 2020-01-01T00:00:00Z"),
        ({"free": 10**20}, f"free: {A_TIME}"),
        ({"free": -(10**20)}, f"free: {A_TIME}"),
        ({"free": SECRET}, f"free: {A_TIME}"),
        ({"free": 1.5}, f"free: {A_TIME}"),
        ({"seconds": True}, f"seconds: {A_TIME}".replace("milli", "")),
        ({"text": "2020-01-01T00:00:01Z"}, "text: must not be after 2020-01-01T00:00:00Z"),
        ({"due": "2019-01-01T00:00:00Z"}, "due: must be after 2020-01-01T00:00:00Z"),
        ({"day": "2019-12-31"}, "day: must not be before 2020-01-01"),
        ({"at": "12:00:00"}, "at: must be before 12:00:00"),
    ],
)  # fmt: skip
def test_bounds_of_times_are_told_as_times(document: dict[str, Any], message: str) -> None:
    assert reason(document, Decoder(Timed)) == message


def test_times_within_their_bounds_are_accepted() -> None:
    document = {
        "seconds": 1_577_836_801, "millis": 1_577_836_800_000, "micros": 1_577_836_800_000_001,
        "text": "2020-01-01T01:00:00+01:00", "times": [1_577_836_800_001],
    }  # fmt: skip
    found = Decoder(Timed).decode(json.dumps(document).encode())
    assert isinstance(found, Timed)
    assert found.seconds == FIRST + timedelta(seconds=1)
    assert found.micros == FIRST + timedelta(microseconds=1)


def test_the_stricter_of_two_bounds_counts() -> None:
    later = FIRST + timedelta(days=1)
    inner = Annotated[EpochSeconds, Field(gt=later)]

    class Twice(Event):
        at: Annotated[inner, Field(gt=FIRST)]

    decode: Callable[[bytes], Any] = Decoder(Twice).decode
    assert isinstance(decode(b'{"at": 1577836801}'), Rejection)
    assert isinstance(decode(b'{"at": 1577923201}'), Twice)


def test_a_private_fields_place_is_told_and_not_what_it_holds() -> None:
    class Person(Event):
        mails: dict[str, list[Hashed]]

    found = Decoder(Person).decode(json.dumps({"mails": {"b" * 64: ["a" * 64, SECRET]}}).encode())
    assert isinstance(found, Rejection)
    assert (found.code, found.message) == (
        ErrorCode.CLEAR_TEXT_PII,
        "mails[*][1]: holds clear text, and a hash is declared",
    )
