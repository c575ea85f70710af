"""One code per cause, whatever the bytes (G6)."""

import json
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from streamflow.contract import EARLIEST, LATEST, Event, Timestamp, format_time
from streamflow.decoder import Decoder
from streamflow.errors import ErrorCode
from streamflow.records import Rejection
from streamflow.streams.user_events import USER_EVENTS, UserEvent

GOOD: dict[str, Any] = {
    "id": 1,
    "type": "USER_LOGIN",
    "user": "ann",
    "user_email": "a" * 64,
    "timestamp": "2026-03-01T12:00:00.000Z",
}


def changed(**fields: Any) -> bytes:
    return json.dumps(GOOD | fields).encode()


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, ErrorCode.EMPTY_VALUE),
        (b"", ErrorCode.EMPTY_VALUE),
        (b"\xff{}", ErrorCode.INVALID_UTF8),
        (b"{", ErrorCode.INVALID_JSON),
        (b"NaN", ErrorCode.INVALID_JSON),
        (b'{"id": Infinity}', ErrorCode.INVALID_JSON),
        (b"[" * 100_000, ErrorCode.INVALID_JSON),
        (b"[" * 100_000 + b"]" * 100_000, ErrorCode.INVALID_JSON),
        (b"[]", ErrorCode.SCHEMA_VIOLATION),
        (changed(id="1"), ErrorCode.SCHEMA_VIOLATION),
        (changed(id=2**53), ErrorCode.SCHEMA_VIOLATION),
        (b'{"id": ' + b"1" * 5_000 + b"}", ErrorCode.SCHEMA_VIOLATION),
        (changed(extra=1), ErrorCode.SCHEMA_VIOLATION),
        (changed(user=""), ErrorCode.SCHEMA_VIOLATION),
        (changed(user="x" * 257), ErrorCode.SCHEMA_VIOLATION),
        (changed(user_email=None), ErrorCode.SCHEMA_VIOLATION),
        (changed(timestamp="2026-03-01T12:00:00"), ErrorCode.SCHEMA_VIOLATION),
        (changed(timestamp=1_700_000_000), ErrorCode.SCHEMA_VIOLATION),
        (changed(timestamp="2026-02-30T12:00:00Z"), ErrorCode.SCHEMA_VIOLATION),
        (changed(type="USER_FLEW"), ErrorCode.UNKNOWN_TYPE),
        (changed(type=1), ErrorCode.SCHEMA_VIOLATION),
        (changed(user_email="ann@example.com"), ErrorCode.CLEAR_TEXT_PII),
        (changed(user="ann@example.com"), ErrorCode.CLEAR_TEXT_PII),
        (changed(user="ann%40example.com"), ErrorCode.CLEAR_TEXT_PII),
        (changed(user="ann\uff20example.com"), ErrorCode.CLEAR_TEXT_PII),
        (changed(user="ann@example.com").replace(b"@", b"\\u002540"), ErrorCode.CLEAR_TEXT_PII),
        (changed().replace(b"{", b'{"user": "ann@example.com", '), ErrorCode.CLEAR_TEXT_PII),
        (changed(extra={"ann@example.com": 1}), ErrorCode.CLEAR_TEXT_PII),
        (changed(user="a\0b"), ErrorCode.UNSTORABLE_VALUE),
        (changed(user="\ud800"), ErrorCode.UNSTORABLE_VALUE),
        (changed(timestamp="0000-01-01T00:00:00Z"), ErrorCode.UNSTORABLE_VALUE),
        (changed(timestamp="9999-12-31T23:59:59-01:00"), ErrorCode.UNSTORABLE_VALUE),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_each_cause_has_its_code(value: bytes | None, code: ErrorCode) -> None:
    found = USER_EVENTS.decoder.decode(value)
    assert isinstance(found, Rejection)
    assert found.code is code
    assert "example.com" not in found.message


def test_a_good_event_comes_through() -> None:
    found = USER_EVENTS.decoder.decode(changed(user="jörg 😀"))
    assert isinstance(found, UserEvent)
    assert found.user == "jörg 😀"
    assert json.loads(USER_EVENTS.decoder.encode(found))["timestamp"] == "2026-03-01T12:00:00.000Z"


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*GOOD, "x"]), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_an_event_or_a_rejection(value: bytes) -> None:
    assert isinstance(USER_EVENTS.decoder.decode(value), UserEvent | Rejection)


@given(
    st.datetimes(
        EARLIEST.replace(tzinfo=None),
        LATEST.replace(tzinfo=None),
        timezones=st.timezones() | st.just(UTC),
    )
)
def test_a_time_is_written_in_utc_with_milliseconds(moment: datetime) -> None:
    text = format_time(moment)
    assert text == moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
    again = USER_EVENTS.decoder.decode(changed(timestamp=text))
    assert isinstance(again, UserEvent)
    assert format_time(again.timestamp) == text


SPACES = b" " * 300_000


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (SPACES + b"{", ErrorCode.INVALID_JSON),
        (SPACES + b"\xff", ErrorCode.INVALID_UTF8),
        (SPACES + changed(id="one"), ErrorCode.SCHEMA_VIOLATION),
        (SPACES + changed(user="ann@example.com"), ErrorCode.CLEAR_TEXT_PII),
        (SPACES + changed(id="one", user="ann@example.com"), ErrorCode.CLEAR_TEXT_PII),
        (SPACES + changed(user="a\0b"), ErrorCode.UNSTORABLE_VALUE),
        (b"{" + b",".join(b'"%d":1' % each for each in range(50_000)) + b"}",
         ErrorCode.SCHEMA_VIOLATION),
        (b'{"list":[' + b"[]," * 200_000 + b"[]]}", ErrorCode.TOO_LARGE),
        (b" " * 9_000_000 + changed(), ErrorCode.TOO_LARGE),
    ],
)  # fmt: skip
@pytest.mark.timeout(20)
def test_a_large_value_is_explained_in_short(value: bytes, code: ErrorCode) -> None:
    found = USER_EVENTS.decoder.decode(value)
    assert isinstance(found, Rejection)
    assert found.code is code


class Visit(BaseModel):
    at: datetime
    by: str = ""


class Booking(Event):
    type: Literal["booked@desk.v1"]
    timestamp: Timestamp
    due: datetime | None = None
    visits: list[Visit] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)
    more: dict[str, Any] = Field(default_factory=dict)


BOOKINGS = Decoder(Booking)


def booking(**fields: Any) -> Event | Rejection:
    known = {"type": "booked@desk.v1", "timestamp": "2026-03-01T12:00:00Z"}
    return BOOKINGS.decode(json.dumps(known | fields).encode())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tags", ["one", "ann@example.com"]),
        ("more", {"ann@example.com": 1}),
        ("more", {"a": [{"b": "mail ann%40example.com"}]}),
        ("more", {"a": [{"ann\u0040example.com": None}]}),
        ("visits", [{"at": "2026-03-01T12:00:00Z", "by": "ann@example.com"}]),
    ],
)
def test_an_address_is_seen_at_any_depth(field: str, value: object) -> None:
    found = booking(**{field: value})
    assert isinstance(found, Rejection)
    assert (found.code, found.message) == (
        ErrorCode.CLEAR_TEXT_PII,
        f"{field}: holds a clear-text address",
    )


@pytest.mark.parametrize("value", [{"a\0": 1}, {"a": ["b\0"]}])
def test_nul_is_seen_at_any_depth(value: object) -> None:
    found = booking(more=value)
    assert isinstance(found, Rejection)
    assert (found.code, found.message) == (ErrorCode.UNSTORABLE_VALUE, "more: holds NUL")


def test_what_the_contract_names_itself_and_what_is_no_address_is_accepted() -> None:
    more = {"n": 12345678901234567890123, "path": "C:\\u0000", "by": "@ann.smith", "x": "a=4012.5"}
    found = booking(more=more)
    assert isinstance(found, Booking)
    assert found.more == more


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("due", "2026-11-26T18:00:00"),
        ("due", "2026-11-26"),
        ("visits", [{"at": "2026-11-26T18:00:00"}]),
    ],
)
def test_a_time_without_a_zone_is_rejected_in_every_field(field: str, value: object) -> None:
    found = booking(**{field: value})
    assert isinstance(found, Rejection)
    assert found.code is ErrorCode.SCHEMA_VIOLATION
    assert found.message.startswith(field)


def test_a_time_with_any_zone_is_accepted_in_every_field() -> None:
    due = "2026-11-26T18:00:00+05:30"
    found = booking(due=due, visits=[{"at": due}])
    assert isinstance(found, Booking)
    assert found.due == found.visits[0].at == datetime.fromisoformat(due)


class Point(NamedTuple):
    x: int
    y: int = 0


class Level(tuple[int, str], Enum):  # noqa: SLOT001
    LOW = (1, "low")


class Measured(UserEvent):
    point: Point = Point(1, 2)
    more: dict[str, Any] = Field({"type": "datetime", "schema": {"type": "literal"}})
    level: Level = Level.LOW
    default: datetime | None = None
    metadata: datetime | None = None


def test_a_default_of_any_kind_stays_as_it_is() -> None:
    decode = Decoder(Measured).decode
    found = decode(changed())
    assert isinstance(found, Measured)
    assert type(found.point) is Point
    assert found.point == (1, 2)
    assert found.more == {"type": "datetime", "schema": {"type": "literal"}}
    for name in ("default", "metadata"):
        assert isinstance(decode(changed(**{name: "2026-11-26T18:00:00"})), Rejection)


def test_a_large_event_is_an_event() -> None:
    assert isinstance(USER_EVENTS.decoder.decode(SPACES + changed()), UserEvent)
