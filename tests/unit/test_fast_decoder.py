"""The fast path only ever says yes, and only where pydantic does, with the same values."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, time
from decimal import Decimal
from enum import IntEnum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

from drawn import as_json, contracts, mutated
from streamflow import (
    Count,
    EpochMillis,
    Event,
    Hashed,
    NotNull,
    Rejection,
    Stream,
    Timestamp,
    TumblingWindow,
)
from streamflow.check import _notes
from streamflow.decoder import Decoder
from streamflow.fast_decoder import FastDecoder
from streamflow.privacy import Hasher
from streamflow.producer.lines import Accepted, LineReader
from streamflow.streams.user_events import USER_EVENTS
from streamflow.utc_texts import micros_of, micros_of_texts, moment_of

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
NOT_FAST = object()


def read_fast(fast: FastDecoder, value: bytes, event_time: str) -> Any:
    """Fields, or `NOT_FAST`; and the event time."""
    decoded = fast.read([value], event_time, lambda _: NOT_FAST)  # type: ignore[arg-type, return-value]
    return decoded.found[0], decoded.times[0]


def same(fast: Any, event: Any) -> bool:
    """Whether values are of the same type, and are the same to the last digit."""
    if isinstance(fast, msgspec.Struct):
        return isinstance(event, BaseModel) and all(
            same(getattr(fast, name), getattr(event, name)) for name in type(event).model_fields
        )
    if isinstance(fast, datetime):
        return isinstance(event, datetime) and (fast, fast.utcoffset()) == (
            event,
            event.utcoffset(),
        )
    if isinstance(fast, list | tuple):
        return type(fast) is type(event) and len(fast) == len(event) and all(map(same, fast, event))
    if isinstance(fast, dict):
        return (
            isinstance(event, dict)
            and [*fast] == [*event]
            and same([*fast.values()], [*event.values()])
        )
    return type(fast) is type(event) and repr(fast) == repr(event)


def check(decoder: Decoder, event_time: str, value: bytes) -> bool:
    """Compares both paths; returns whether the fast one said yes."""
    assert decoder.fast is not None
    fields, micros = read_fast(decoder.fast, value, event_time)
    if fields is NOT_FAST:
        assert not decoder.fast.accepts(value) or not isinstance(decoder.decode(value), Rejection)
        return False
    event = decoder._validate(value)
    assert isinstance(event, Event)
    assert decoder.fast.types[type(fields)] is type(event)
    for name in type(event).model_fields:
        given, expected = getattr(fields, name), getattr(event, name)
        if name == event_time:
            assert micros == micros_of(expected)
            if isinstance(given, str):
                continue
        assert same(given, expected), (name, given, expected)
    return True


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=contracts(), data=st.data())
def test_a_yes_is_pydantic_s_yes(
    drawn: tuple[Stream, list[dict[str, Any]]], data: st.DataObject
) -> None:
    stream, documents = drawn
    decoder = stream.decoder
    if decoder.fast is None:
        assert decoder.untranslatable
        return
    values = [data.draw(mutated(document)) for document in documents]
    for value in values:
        check(decoder, "moment", value)
    assert decoder.events(values) == [*map(decoder.decode, values)]
    # With all that is looked for in the bytes.
    decoded = decoder.decode_all(values, "moment")
    for value, found, micros in zip(values, decoded.found, decoded.times, strict=True):
        event = decoder.decode(value)
        if isinstance(event, Rejection):
            assert (found, micros) == (event, 0)
        else:
            assert isinstance(event, Event)
            assert micros == micros_of(event.moment)  # type: ignore[attr-defined]
            assert isinstance(found, msgspec.Struct | Event)


class Login(Event):
    kind: Literal["login", "logout"]
    user: Annotated[str, Field(min_length=1, max_length=10)]
    at: Timestamp
    mail: Annotated[Hashed | None, NotNull] = None


class Payment(Event):
    kind: Literal["payment"]
    total: Decimal
    at: Timestamp


KINDS = Annotated[Login | Payment, Field(discriminator="kind")]


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_a_union_of_models(data: st.DataObject) -> None:
    decoder = Decoder(KINDS, ("mail",))
    document = data.draw(
        st.sampled_from([
            {"kind": "login", "user": "a", "at": "2026-01-01T00:00:00Z", "mail": "0a" * 32},
            {"kind": "payment", "total": "1.50", "at": "2026-01-01T00:00:00.123456+00:00"},
        ])
    )  # fmt: skip
    check(decoder, "at", data.draw(mutated(document)))


def test_each_kind_is_read_as_its_model() -> None:
    decoder = Decoder(KINDS, ("mail",))
    for value in (
        b'{"kind":"logout","user":"a","at":"2026-01-01T00:00:00Z"}',
        b'{"at":"2026-01-01T00:00:00Z","total":1.5,"kind":"payment"}',
    ):
        assert check(decoder, "at", value)


@pytest.mark.parametrize("value", [
    b'{"id":1,"type":"USER_LOGIN","user":"u","timestamp":"2026-11-27T23:59:59.123Z"}',
    b'{"id":1,"type":"USER_LOGIN","user":"u","user_email":"%b","timestamp":"2026-11-27T23:59:59Z"}'
    % (b"0a" * 32),
    '{"id":1,"type":"USER_LOGIN","user":"jos\u00e9 \\"x\\"","timestamp":"2026-11-27T23:59:59+02:00"}'
    .encode(),
])  # fmt: skip
def test_ordinary_events_are_read_by_it(value: bytes) -> None:
    assert check(USER_EVENTS.decoder, "timestamp", value)


def test_addresses_nul_and_repeated_fields_are_looked_for_all_the_same() -> None:
    form = b'{"id":1,"type":"USER_LOGIN","user":"%b","timestamp":"2026-11-27T23:59:59.123Z"}'
    values = [form % user for user in (b"ann", b"a@b.de", b"a\\u0000", b"a\\u0040b.de", b"bob")]
    values.append(b'{"user":"a@b.de",' + values[0][1:])
    decoder = USER_EVENTS.decoder
    decoded = decoder.decode_all(values, "timestamp")
    assert [isinstance(each, Rejection) for each in decoded.found] == [
        False,
        True,
        True,
        True,
        False,
        True,
    ]
    assert [each for each in decoded.found if isinstance(each, Rejection)] == [
        each for each in map(decoder.decode, values) if isinstance(each, Rejection)
    ]
    for batch in (values, [values[0], None, b"", b"{", values[4]], [values[4], b"9" * 300_000]):
        assert decoder.events(batch) == [*map(decoder.decode, batch)]


class Level(IntEnum):
    LOW = 1


class Point(BaseModel):
    x: int
    y: Annotated[int | None, Field(ge=-5)] = None


class Wide(Event):
    at: Timestamp
    point: Point
    points: list[Point] = Field(default_factory=list)
    level: Level = Level.LOW
    one: Literal[1, 2] = 1
    names: dict[str, list[int]] = Field(default_factory=dict)
    seen: EpochMillis | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    total: Decimal | None = None


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_values_of_several_parts(data: st.DataObject) -> None:
    document = {
        "at": "2026-01-01T00:00:00.000Z", "point": {"x": 1}, "points": [{"x": 1, "y": 2}], "level": 1,
        "one": 2, "names": {"a": [1, 2]}, "seen": 5, "share": 1, "total": "-12.50",
    }  # fmt: skip
    decoder = Decoder(Wide)
    assert check(
        decoder, "at", as_json([(name, json.dumps(each)) for name, each in document.items()])
    )
    check(decoder, "at", data.draw(mutated(document)))


def test_a_decimal_beside_floats_is_judged_where_it_stands() -> None:
    class Reading(Event):
        at: Timestamp
        total: Decimal
        weight: float

    decoder = Decoder(Reading)
    form = '{"at":"2026-01-01T00:00:00Z","total":%s,"weight":0.8444218515250481}'
    for total, number in (("12.5", "12.5"), ('"12.50"', "12.50"), ("-3", "-3")):
        event = decoder.decode((form % total).encode())
        assert str(event.total) == number  # type: ignore[union-attr]
        assert check(decoder, "at", (form % total).encode())
    rejected = decoder.decode((form % "12345678901234567890.123").encode())
    assert isinstance(rejected, Rejection)
    assert "more digits" in rejected.message


def validated() -> type[Event]:
    class Validated(Event):
        at: Timestamp
        name: str

        @field_validator("name")
        @classmethod
        def small(cls, name: str) -> str:
            return name.lower()

    return Validated


def configured() -> type[Event]:
    class Configured(Event):
        model_config = ConfigDict(str_strip_whitespace=True)
        at: Timestamp
        name: str

    return Configured


class Timed(BaseModel):
    since: Timestamp


def nested_times() -> type[Event]:
    class Nested(Event):
        at: Timestamp
        spans: list[Timed]

    return Nested


@pytest.mark.parametrize(("contract", "why"), [
    (validated, "name: has code of its own"),
    (configured, "Configured has private attributes, or a configuration"),
    (nested_times, "spans: Timed has times or Decimals"),
])  # fmt: skip
def test_what_cannot_be_translated_says_why(contract: Callable[[], type[Event]], why: str) -> None:
    decoder = Decoder(contract())
    assert decoder.fast is None
    assert decoder.untranslatable == why
    value = b'{"at":"2026-01-01T00:00:00Z","name":" A","spans":[]}'
    assert decoder.decode_all([value], "at").found == [decoder.decode(value)]


FORMS = ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.123Z", "%Y-%m-%dT%H:%M:%S.123456+00:00")


@given(st.lists(st.tuples(
    st.datetimes(datetime(2, 1, 2), datetime(9998, 12, 30)),  # noqa: DTZ001
    st.sampled_from(FORMS),
    st.lists(st.tuples(st.integers(0, 31), st.sampled_from("0123456789-+:TZtz .,W٣")), max_size=2),
), max_size=5))  # fmt: skip
def test_times_are_read_one_by_one_as_they_are_together(
    drawn: list[tuple[datetime, str, list[tuple[int, str]]]],
) -> None:
    texts = []
    for moment, form, changes in drawn:
        text = moment.strftime(form).zfill(
            len(moment.strftime(form)) + 4 - len(str(moment.year).zfill(4))
        )
        for at, character in changes:
            text = text[:at] + character + text[at + 1 :]
        texts.append(text)
    together = micros_of_texts(texts * 32)[: len(texts)]  # of few, each is read by itself
    for text, micros in zip(texts, together, strict=True):
        moment = moment_of(text)
        assert micros == (None if moment is None else micros_of(moment))
        if moment is not None:
            assert moment == datetime.fromisoformat(text).astimezone(UTC)


def test_check_says_which_streams_are_decoded_slowly_and_why() -> None:
    class Small(Event):
        at: Timestamp
        name: str

    def stream(**more: Any) -> Stream:
        return Stream(
            name="s", table="s", key="name", event_time="at", **{"contract": Small} | more
        )

    assert stream().slow_because is None
    assert "code of its own" in str(_notes(stream(contract=validated())))
    assert "code of its own" in str(stream(contract=validated()).slow_because)
    assert "upsert" in str(stream(mode="upsert", primary_key=("name",)).slow_because)
    windows = TumblingWindow("10s", n=Count(where=lambda event: event.name == "a"))
    assert "where" in str(stream(windows=windows).slow_because)
    assert _notes(stream()) == []


class Raw(Event):
    """Its values msgspec only passes over."""

    at: Timestamp
    price: Decimal
    seen: time | None = None
    kind: int | str = 0


@pytest.mark.parametrize(
    "first", [b'"\xff"', b'"\xed\xa0\x80"', b'{"\xff":1}', b"[" * 201 + b"]" * 201, b"1" * 4301]
)
@pytest.mark.parametrize("name", [b"price", b"seen", b"kind"])
def test_a_repeated_field_is_judged_by_pydantic(name: bytes, first: bytes) -> None:
    decoder = Decoder(Raw)
    whole = b'"price":"1.5","seen":"12:00:00","kind":1,"at":"2026-01-01T00:00:00Z"}'
    for value in (b'{"%b":%b,' % (name, first) + whole, b'{"%b":1,' % name + whole):
        assert decoder.decode_all([value], "at").found == [decoder.decode(value)]


def test_an_empty_text_is_not_taken_for_an_absent_one() -> None:
    class Empty(Event):
        at: Timestamp
        mail: Hashed = ""

    value = b'{"at":"2026-01-01T00:00:00Z","mail":""}'
    decoder = Decoder(Empty)
    [found] = decoder.decode_all([value], "at").found
    assert isinstance(found, Rejection)
    assert found == decoder.decode(value)


class Bits(IntEnum):
    TOP = 2**63


class Spaced(BaseModel):
    x: Annotated[int, Field(alias='a "b"')]


@pytest.mark.parametrize("kind", [
    Bits, Literal[2**63], Annotated[float, Field(le=float("inf"))], Annotated[str, Field(max_length=2**63)],
    Spaced, create_model("Odd", **{"a b": (int, ...)}),
    create_model("Same", x=(int, Field(alias="z")), y=(int, Field(alias="z"))),
])  # fmt: skip
def test_what_msgspec_does_not_take_is_decoded_as_ever(kind: Any) -> None:
    contract = create_model(
        "Contract", __base__=Event, at=(Timestamp, ...), name=(str, ...), x=(kind, None)
    )
    stream = Stream(name="s", contract=contract, table="s", key="name", event_time="at")
    value = b'{"at":"2026-01-01T00:00:00Z","name":"a"}'
    [found] = stream.decoder.decode_all([value], "at").found
    assert found.name == "a"
    assert isinstance(LineReader(stream, Hasher()).read(value), Accepted)
