"""Samples of any contract are valid, and mistakes in them get the code that is said of them."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasPath,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    Json,
    NaiveDatetime,
    PastDatetime,
    PositiveInt,
    create_model,
    model_validator,
)

from order_streams import FOREIGN, ORDERS
from streamflow import (
    EpochMicros,
    EpochMillis,
    EpochSeconds,
    Event,
    Hashed,
    HashedAddress,
    Hasher,
    NotNull,
    PhoneNumber,
    PrivatePattern,
    Stream,
    Timestamp,
)
from streamflow.errors import ConfigurationError, ErrorCode
from streamflow.records import Rejection
from streamflow.samples.factory import SampleFactory
from streamflow.samples.node import NoSample
from streamflow.samples.simulation import simulated, sources_of
from streamflow.streams.user_events import USER_EVENTS
from streamflow.streams.user_events.simulation import Simulation
from streamflow.trial import fails_at_start, samples_of

HASHER = Hasher(b"pepper")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Item(BaseModel):
    sku: str
    price: Annotated[Decimal, Field(gt=0, max_digits=8, decimal_places=2)]
    note: str | None = None


class Tree(BaseModel):
    name: str
    children: list["Tree"] = []
    parent: "Tree | None" = None


TYPES: list[Any] = [
    str, int, float, bool, bytes, Decimal, date, time, timedelta, UUID, Any, AwareDatetime,
    NaiveDatetime, PastDatetime, PositiveInt, HttpUrl, Colour, Item, Tree, Hashed, Json[list[int]],
    list[Hashed],
    Literal["a", "b"],
    Literal[1, 2],
    Annotated[str, Field(min_length=3, max_length=5)],
    Annotated[str, Field(max_length=1)],
    Annotated[str, Field(pattern=r"^[A-Z]{2}\d{3,5}-(foo|bar)$")],
    Annotated[str, Field(pattern=r"^[a-z-]+\d*$")],
    Annotated[str, Field(pattern=r"^\p{Lu}{2}$")],
    Annotated[str, AfterValidator(lambda text: text.upper())],
    Annotated[int, Field(ge=-5, lt=20, multiple_of=5)],
    Annotated[int, Field(ge=2**70, le=2**80)],
    Annotated[float, Field(gt=0, lt=1)],
    Annotated[float, Field(ge=-90, le=90)],
    Annotated[Decimal, Field(max_digits=12, decimal_places=2)],
    Annotated[Decimal, Field(max_digits=3)],
    Annotated[Decimal, Field(gt=0, lt=Decimal("0.01"))],
    Annotated[date, Field(ge=date(2030, 1, 1))],
    Annotated[timedelta, Field(ge=timedelta(0), lt=timedelta(minutes=1))],
    Annotated[time, Field(ge=time(9), le=time(17))],
    list[Item],
    set[int],
    tuple[int, str, bool],
    dict[str, Decimal],
    dict[UUID, list[int]],
    int | str,
    int | list[str] | None,
    Annotated[list[str], Field(min_length=2, max_length=2)],
    Annotated[dict[str, int], Field(min_length=1)],
]  # fmt: skip


def stream_of(contract: Any, **changes: Any) -> Stream:
    return replace(ORDERS, contract=contract, key=lambda _event: "key", **changes)


@st.composite
def contracts(draw: st.DrawFn, base: type[BaseModel] = Event, depth: int = 1) -> type[BaseModel]:
    """Models of some fields: each of any type, optional, null, with an alias or nested."""
    fields: dict[str, Any] = {}
    if base is Event:
        fields |= {"type": (Literal["A", "B"], ...), "timestamp": (Timestamp, ...)}
    # A private field's name is private at any depth: names of nested models are no private ones.
    kinds = st.sampled_from([kind for kind in TYPES if depth or "64" not in str(kind)])
    if depth:
        kinds |= contracts(BaseModel, depth - 1)
    for _ in range(draw(st.integers(1, 4))):
        kind, name = draw(kinds), f"field_{depth}_{len(fields)}"
        if draw(st.booleans()):
            kind |= None
        default = draw(st.sampled_from([..., None]))
        alias = draw(st.sampled_from([None, f"Field-{name}", f"{name}ä b"]))
        fields[name] = (kind, Field(default, alias=alias))
    return create_model("Made", __base__=base, **fields)


@settings(max_examples=25, deadline=None)
@given(contract=contracts(), seed=st.integers(0, 2**32))
def test_samples_of_any_contract_are_valid(contract: type[BaseModel], seed: int) -> None:
    stream = stream_of(contract)
    factory = SampleFactory(stream, HASHER, seed=seed)
    samples = [*islice(factory.plain(), 3), *islice(factory.edges(), 200)]
    for sample in samples:
        assert isinstance(stream.decoder.decode(sample.value), contract)
        assert json.loads(sample.value) == sample.document
        assert b"@" not in sample.value
    assert len(samples) > 3


@settings(max_examples=25, deadline=None)
@given(contract=contracts(), seed=st.integers(0, 2**32))
def test_mistakes_get_the_code_that_they_are_sent_with(
    contract: type[BaseModel], seed: int
) -> None:
    stream = stream_of(contract)
    for record in islice(simulated(stream, HASHER, seed=seed, invalid_ratio=0.5), 20):
        found = stream.decoder.decode(record.value)
        assert (found.code if isinstance(found, Rejection) else None) is record.code


def test_all_kinds_of_mistakes_are_made() -> None:
    records = islice(simulated(ORDERS, HASHER, seed=1, invalid_ratio=0.5), 1_000)
    codes = Counter(record.code for record in records)
    assert set(codes) == {
        None,
        *(ErrorCode.EMPTY_VALUE, ErrorCode.INVALID_UTF8, ErrorCode.INVALID_JSON),
        *(ErrorCode.SCHEMA_VIOLATION, ErrorCode.UNKNOWN_TYPE, ErrorCode.CLEAR_TEXT_PII),
        ErrorCode.UNSTORABLE_VALUE,
    }
    assert 400 < codes[None] < 600
    assert all(record.code is None for record in islice(simulated(ORDERS, HASHER), 100))


def test_the_same_seed_gives_the_same_records_but_for_their_times() -> None:
    def made(seed: int | None, moment: datetime) -> list[Any]:
        factory = SampleFactory(ORDERS, HASHER, seed=seed, clock=lambda: moment)
        documents = [sample.document for sample in islice(factory.plain(), 20)]
        assert {document["timestamp"] for document in documents} == {
            f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"
        }
        return [{**document, "timestamp": None} for document in documents]

    noon, later = datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2027, 3, 1, tzinfo=UTC)
    assert made(7, noon) == made(7, later)
    assert made(7, noon) != made(8, noon)
    assert made(None, noon) != made(None, noon)
    first, second = (
        [(each.key, each.code) for each in islice(simulated(ORDERS, HASHER, seed=3), 20)]
        for _ in range(2)
    )
    assert first == second


def test_plain_samples_look_alive() -> None:
    customers = Counter(
        sample.document["customer"]
        for sample in islice(SampleFactory(ORDERS, seed=1).plain(), 1_000)
    )
    assert set(customers) <= {f"customer-{number}" for number in range(1, 21)}
    assert customers.most_common(1)[0][1] > 200


class Placed(Event):
    type: Literal["placed"]
    customer: str
    timestamp: Timestamp


class Shipped(Event):
    type: Literal["shipped"]
    parcel: UUID
    timestamp: Timestamp


UNION = stream_of(Annotated[Placed | Shipped, Field(discriminator="type")])


def test_every_member_of_a_union_is_sampled() -> None:
    factory = SampleFactory(UNION, seed=1)
    assert {type(one.event) for one in islice(factory.plain(), 50)} == {Placed, Shipped}
    assert {type(one.event) for one in factory.edges()} == {Placed, Shipped}
    records = list(islice(simulated(UNION, HASHER, seed=1, invalid_ratio=1), 500))
    for record in records:
        found = UNION.decoder.decode(record.value)
        assert isinstance(found, Rejection)
        assert found.code is record.code
    assert ErrorCode.UNKNOWN_TYPE in {record.code for record in records}


class Edgy(Event):
    type: Literal["A"]
    text: str
    number: int
    price: Annotated[Decimal, Field(max_digits=6, decimal_places=2)]
    items: list[Item]
    tree: Tree
    extra: Any
    when: AwareDatetime
    maybe: str | None
    timestamp: Timestamp


def test_edges_are_the_boundaries_of_each_type() -> None:
    found: dict[str, list[Any]] = {}
    for sample in SampleFactory(stream_of(Edgy), seed=1).edges():
        top = sample.field.partition(".")[0]
        found.setdefault(sample.field, []).append(sample.document.get(top))
    texts = found["text"]
    assert {"", '"quoted"', "back\\slash", "\\N", "tab\tline\nreturn\r\n"} <= set(texts)
    assert max(map(len, texts)) == 10_000
    assert any(max(text, default="") > "\uffff" for text in texts)
    assert {2**63 - 1, -(2**63), 0} <= set(found["number"])
    assert {"9999.99", "-9999.99"} <= set(found["price"])
    assert [] in found["items"]
    assert any("quoted" in str(items) for items in found["items.sku"])
    assert None in found["maybe"]
    assert {"0001-01-02T00:00:00Z", "9999-12-30T00:00:00Z"} <= set(found["when"])
    assert {"0001-01-02T00:00:00.000Z", "9999-12-30T00:00:00.000Z"} <= set(found["timestamp"])
    assert max(str(extra).count("within") for extra in found["extra"]) == 30
    assert max(str(tree).count("children") for tree in found["tree"]) > 5


@pytest.mark.parametrize(
    "kind", [Timestamp, datetime, AwareDatetime, EpochSeconds, EpochMillis, EpochMicros]
)
def test_events_happen_now_however_the_contract_writes_times(kind: Any) -> None:
    contract = create_model("Made", __base__=Event, at=(kind, ...), note=(str, ...))
    stream = stream_of(contract, event_time="at")
    now = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)
    [sample] = islice(SampleFactory(stream, clock=lambda: now).plain(), 1)
    assert abs(stream.time_of(sample.event) - now) < timedelta(seconds=1)
    assert len([one for one in SampleFactory(stream).edges() if one.field == "at"]) == 4


def test_a_time_that_a_validator_shifts_is_said() -> None:
    hour = timedelta(hours=1)
    shifted = Annotated[Timestamp, AfterValidator(lambda moment: moment + hour)]
    contract = create_model("Shifted", __base__=Event, at=(shifted, ...))
    with pytest.raises(NoSample, match=r"sample of Shifted could be made \(at: is read as another"):
        SampleFactory(stream_of(contract, event_time="at"))


def test_keys_repeat_whatever_their_type() -> None:
    contract = create_model("Made", __base__=Event, id=(UUID, ...), timestamp=(Timestamp, ...))
    for key, few in (("id", True), (lambda _: "key", False)):
        stream = replace(ORDERS, contract=contract, key=key)
        samples = islice(SampleFactory(stream, seed=1).plain(), 200)
        ids = {sample.document["id"] for sample in samples}
        assert (len(ids) <= 20) is few


class Aliased(Event):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    type: Literal["A"]
    customer: Annotated[str, Field(alias="customerId")]
    timestamp: Annotated[Timestamp, Field(alias="createdAt")]


class Deep(Event):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    type: Literal["A"]
    sku: Annotated[str, Field(validation_alias=AliasPath("items", 0, "sku"))]
    timestamp: Timestamp


def test_documents_have_the_names_of_aliases() -> None:
    [sample] = islice(SampleFactory(stream_of(Aliased)).plain(), 1)
    assert set(sample.document) == {"type", "customerId", "createdAt"}
    [sample] = islice(SampleFactory(stream_of(Deep)).plain(), 1)
    assert sample.document["items"][0]["sku"].startswith("sku-")


class Private(Event):
    type: Literal["A"]
    email: Annotated[HashedAddress | None, NotNull] = None
    phone: str
    note: str
    timestamp: Timestamp


def test_samples_hold_nothing_private_in_clear() -> None:
    private = stream_of(
        Private,
        private_fields=("email", "phone"),
        private_values=(PhoneNumber("DE"), PrivatePattern("note", r"\bnote-[0-9]\b")),
    )
    for sample in [
        *islice(SampleFactory(private, HASHER, seed=1).plain(), 50),
        *SampleFactory(private, HASHER, seed=1).edges(),
    ]:
        assert not isinstance(private.decoder.decode(sample.value), Rejection)
        if not sample.field:
            assert len(sample.document["phone"]) == 64
    phones = {
        sample.document["phone"] for sample in islice(SampleFactory(private, HASHER).plain(), 50)
    }
    assert phones <= {HASHER.hash(f"phone{number}@example.com") for number in range(1, 21)}


def refuse(_value: Any) -> Any:
    raise ValueError


class Unmakable(Event):
    type: Literal["A"]
    signature: Annotated[str, AfterValidator(refuse)]
    timestamp: Timestamp


class Forbidden(Event):
    type: Literal["A"]
    contact: Annotated[str, Field(pattern=r"^[a-z]+@[a-z]+\.com$")]
    timestamp: Timestamp


class Related(Event):
    type: Literal["A"]
    low: int
    high: int
    timestamp: Timestamp

    @model_validator(mode="after")
    def _ordered(self) -> "Related":
        if self.high < self.low:
            raise ValueError("high is lower than low")
        return self


class Callback(Event):
    type: Literal["A"]
    call: Callable[[], int]
    timestamp: Timestamp


class Impossible(Related):
    @model_validator(mode="after")
    def _never(self) -> "Impossible":
        raise ValueError("never")


@pytest.mark.parametrize(
    ("contract", "says"),
    [
        (
            Unmakable,
            "stream orders: no valid sample of Unmakable could be made (signature: is refused by a",
        ),
        (Forbidden, "contact: holds a clear-text address"),
        (Callback, "call: callable has no form in JSON"),
        (
            Impossible,
            "no valid sample of Impossible could be made (the record: is refused",
        ),
    ],
)
def test_what_cannot_be_made_is_said_with_model_and_field(contract: Any, says: str) -> None:
    with pytest.raises(NoSample) as raised:
        simulated(stream_of(contract), HASHER)
    assert says in str(raised.value)
    assert "declare `simulate` of the stream" in str(raised.value)


def test_what_only_some_values_satisfy_is_tried() -> None:
    for sample in islice(SampleFactory(stream_of(Related), seed=1).plain(), 20):
        assert sample.document["low"] <= sample.document["high"]


def test_a_stream_s_own_simulator_comes_first() -> None:
    own = replace(ORDERS, simulate=Simulation)
    assert isinstance(simulated(own, HASHER), Simulation)


def test_a_key_that_cannot_be_made_is_said() -> None:
    broken = replace(ORDERS, key=lambda event: event.nothing)
    with pytest.raises(ConfigurationError, match="its key cannot be made of a valid event"):
        next(iter(simulated(broken, HASHER)))


def test_only_streams_that_can_be_are_simulated_together() -> None:
    unmakable = stream_of(Unmakable, name="unmakable")
    sources, without = sources_of([USER_EVENTS, ORDERS, FOREIGN, unmakable], HASHER)
    assert [stream.name for stream, _ in sources] == ["user-events", "orders"]
    assert len(without) == 2
    assert "stream foreign is not simulated, since its topic has another owner" in without[0]
    sources, _ = sources_of([FOREIGN], HASHER, not_ours=True)
    assert len(sources) == 1


def test_a_stream_of_another_format_needs_a_simulator() -> None:
    other = replace(ORDERS, decode=lambda _value, _headers: {})
    with pytest.raises(ConfigurationError, match="reads records of another format"):
        simulated(other, HASHER)


class Price(Enum):
    LOW = Decimal("1.5")
    HIGH = Decimal(20)


class Day(Enum):
    FIRST = date(2026, 1, 1)


@pytest.mark.parametrize(
    ("kind", "named"),
    [(Price, "Decimal"), (Day, "date"), (list[Price], "Decimal"), (dict[str, Day], "date")],
)
def test_an_enum_of_values_that_no_json_equals_is_named(kind: Any, named: str) -> None:
    model = create_model("Listed", __base__=Event, timestamp=(Timestamp, ...), x=(kind, ...))
    stream = Stream(name="listed", contract=model, table="listed", key=lambda _: "k")

    with pytest.raises(NoSample, match=f"x.*: no JSON is a {named}, as a value of its Enum is"):
        samples_of(stream, Hasher())
    assert fails_at_start(stream) == []
