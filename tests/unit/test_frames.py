"""From a record's bytes to what a client gets."""

import json
from dataclasses import replace
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from loads import TOPIC, FakeRecord
from pipeline import INVALID, event
from streamflow import Count
from streamflow.contract import Event, Timestamp
from streamflow.errors import Unavailable
from streamflow.privacy import Hasher
from streamflow.records import Record
from streamflow.stream_topics import Topics
from streamflow.streams.user_events import USER_EVENTS
from streamflow.windows.specs import SessionWindow, TumblingWindow
from streaming_workers.bridge.frames import Encoder, Frame, append_time, windows_of
from streaming_workers.bridge.subscriptions import parse_subscription

HASHER = Hasher(b"key", USER_EVENTS.private_fields)
ENCODER = Encoder({TOPIC: USER_EVENTS}, HASHER)
ADDRESS = "ann@example.com"


def frame(value: bytes | None, topic: str = TOPIC) -> Frame:
    return Frame(topic, FakeRecord(7, value, topic=topic), ENCODER)


def body(made: Frame) -> dict[str, Any]:
    text = made.packet.encode()
    assert text[:2] == "42"  # Engine.IO message, Socket.IO event
    name, found = json.loads(text[2:])
    assert name == "kafka-event"
    assert set(found) == {"topic", "payload", "timestamp"}
    return dict(found)


class Country(Enum):
    DE = "DE"
    FR = "FR"


class Order(Event):
    type: Literal["A"] = "A"
    timestamp: Timestamp
    land: Annotated[Country | None, Field(alias="countryCode")] = None
    paid: bool = True


ORDERS = replace(
    USER_EVENTS,
    name="orders",
    table="orders",
    contract=Order,
    private_fields=(),
    windows=TumblingWindow(size=timedelta(seconds=10), by="land"),
)
PAID = replace(ORDERS, name="paid", windows=TumblingWindow(size=timedelta(1), by="paid"))
QUIET = replace(
    ORDERS, name="quiet", windows=None, topics=Topics(dead_letters="q", analytics="counts")
)
SEVERAL = Encoder({each.topic: each for each in (USER_EVENTS, ORDERS, PAID, QUIET)}, HASHER)


@pytest.mark.parametrize(
    ("topic", "payload", "kinds"),
    [
        ("user-events", {"type": "USER_LOGIN", "countryCode": "DE"}, {"USER_LOGIN"}),
        # By the field that the windows count by, under its name in JSON; valid or not.
        ("orders", {"type": "A", "countryCode": "DE", "land": "FR"}, {"DE"}),
        ("orders", {"countryCode": None}, {"(null)"}),
        ("orders", {"countryCode": ["DE"]}, set()),
        ("orders", {"type": "DE"}, set()),
        ("orders", ["DE"], set()),
        ("paid", {"paid": True, "type": "A"}, {"true"}),
        ("quiet", {"type": "A", "countryCode": "DE"}, {"A"}),
        ("analytics", {"event_type": "DE", "type": "A"}, {"DE"}),
        ("counts", {"event_type": "A"}, {"A"}),
        # Windows with aggregates say what they group by.
        (
            "analytics",
            {"window": "w", "by": {"land": "DE", "paid": True, "n": 1}},
            {"DE", "true", "1"},
        ),
        ("analytics", {"window": "w", "by": {"land": None}, "n": 10**18}, {"(null)"}),
        ("analytics", {"window": "w", "by": {"n": 17}, "n": 10**18}, {"17"}),
        ("analytics", {"window": "w", "by": {}}, set()),
        ("analytics", {"window": "w", "by": ["DE"]}, set()),
        ("orders", {"by": {"land": "DE"}}, set()),
        # Of any stream that shares the topic.
        (
            "dead-letter-topic",
            {"type": "B", "countryCode": "DE", "paid": False},
            {"B", "DE", "false"},
        ),
        ("q", {"type": "B", "countryCode": "DE"}, {"B"}),
        ("notifications", {"type": "A", "event_type": "A"}, set()),
    ],
)
def test_a_frame_is_of_the_kind_that_its_stream_counts_by(
    topic: str, payload: object, kinds: set[str]
) -> None:
    made = Frame(topic, FakeRecord(7, orjson.dumps(payload), topic=topic), SEVERAL)
    assert made.kinds == kinds
    for wanted in ("A", "DE", "true"):
        subscribed = parse_subscription({"types": wanted}, [topic])
        assert subscribed.accepts(made) is (wanted in kinds)


@pytest.mark.parametrize(
    ("topic", "payload", "windows"),
    [
        ("analytics", {"window": "orders_10s", "by": {}}, "orders_10s"),
        ("counts", {"window": "orders_10s", "by": {}}, "orders_10s"),
        ("analytics", {"event_type": "A", "count": 1}, "window_counts"),
        ("analytics", {"window": 1}, None),
        ("analytics", ["window"], None),
        ("orders", {"window": "orders_10s"}, None),
        ("notifications", {"event_type": "A"}, None),
    ],
)
def test_a_frame_says_which_windows_it_is_of(
    topic: str, payload: object, windows: str | None
) -> None:
    made = Frame(topic, FakeRecord(7, orjson.dumps(payload), topic=topic), SEVERAL)
    assert made.windows == windows


def test_windows_that_can_be_chosen_have_records() -> None:
    hourly = TumblingWindow("1h", n=Count())
    several = [hourly, TumblingWindow("10s"), SessionWindow("5min", by="land", n=Count())]
    assert windows_of([QUIET, replace(ORDERS, windows=several)]) == {"orders_1h", "window_counts"}
    assert windows_of([QUIET]) == set()


def test_an_event_in_another_format_is_shown_as_its_contract_has_it() -> None:
    def unframed(record: Record) -> object:
        value = record.value() or b""
        if value.startswith(b"?"):
            raise Unavailable("the schema registry does not answer")
        return orjson.loads(value[5:])

    framed = replace(USER_EVENTS, name="framed", decode=unframed)
    encoder = Encoder({"framed": framed}, HASHER)
    for value, payload in (
        (b"\0\0\0\0\1" + event(3), orjson.loads(event(3))),
        (b"\0\0\0\0\1{}", "\0\0\0\0\1{}"),
        (b"?", "?"),
        (None, None),
    ):
        made = Frame("framed", FakeRecord(7, value, topic="framed"), encoder)
        assert body(made)["payload"] == payload
    made = Frame("framed", FakeRecord(7, b"\0\0\0\0\1" + event(3), topic="framed"), encoder)
    assert made.kinds == {orjson.loads(event(3))["type"]}


def test_an_event_is_parsed_and_carries_the_time_of_the_broker() -> None:
    assert body(frame(event(3))) == {
        "topic": "user-events",
        "payload": orjson.loads(event(3)),
        "timestamp": "2026-07-01T12:00:00.007Z",
    }


def test_it_is_encoded_once() -> None:
    made = frame(event(3))
    assert made.packet is made.packet


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        (None, None),
        (b"", ""),
        (b'{"id": 1,', '{"id": 1,'),
        (b'{"user": "\xff"}', '{"user": "\ufffd"}'),
        (b'"\\ud800"', '"\\ud800"'),
        (b"[NaN]", "[NaN]"),
        (b"7", 7),
        (b"[" * 300 + b"]" * 300, "[" * 300 + "]" * 300),
        (b"[" * 100_000, "[" * 100_000),
    ],
)
@pytest.mark.parametrize("topic", [TOPIC, "dead-letter-topic"])
def test_what_is_no_json_is_text(value: bytes | None, payload: object, topic: str) -> None:
    assert body(frame(value, topic))["payload"] == payload


@pytest.mark.parametrize(
    "text",
    [
        "12345678901234567890123",
        "-9999999999999999999",
        '{"user": "ann", "number": 12345678901234567890123, "share": 0.5, "many": [1, 2]}',
        '{"user": "ann", "deep": [{"number": 18446744073709551617}]}',
        "[" * 250 + "1" * 30 + "]" * 250,
    ],
)
def test_integers_keep_all_their_digits(text: str) -> None:
    assert body(frame(text.encode(), "dead-letter-topic"))["payload"] == json.loads(text)


def test_a_long_integer_changes_nothing_else() -> None:
    value = b'{"user": "ann", "number": 12345678901234567890123, "number": 1e3}'
    made = frame(value, "notifications")
    assert made.field("user") == "ann"
    assert body(made)["payload"] == {"user": "ann", "number": 1000.0}
    nested = b'{"number": 12345678901234567890123, "deep": ' + b"[" * 900 + b"]" * 900 + b"}"
    assert body(frame(nested, "dead-letter-topic"))["payload"] == nested.decode()


@pytest.mark.parametrize("topic", [TOPIC, "analytics", "notifications", "dead-letter-topic"])
@pytest.mark.parametrize(
    "value",
    [
        *INVALID.values(),
        f'{{"user_email": "{ADDRESS}", "type": '.encode(),
        f'{{"message": "mail {ADDRESS} now"}}'.encode(),
        b'{"message": "ann\\u0040example.com"}',
    ],
)
def test_no_clear_text_address_is_shown(value: bytes, topic: str) -> None:
    shown = json.dumps(body(frame(value, topic)))
    assert ADDRESS not in shown
    if b"ann" in value:
        assert HASHER.hash(ADDRESS) in shown


def test_what_was_redacted_before_stays_as_it_is() -> None:
    redacted = HASHER.redact(INVALID[next(code for code in INVALID if "CLEAR" in code)])
    assert body(frame(redacted, "dead-letter-topic"))["payload"] == orjson.loads(redacted)


def test_a_valid_event_whose_user_looks_like_a_handle_is_not_touched() -> None:
    value = event(1).replace(b"user-1", b"@ann")
    assert body(frame(value))["payload"]["user"] == "@ann"


@pytest.mark.parametrize("name", ["user_email", "user_\\u0065mail"])
def test_a_private_field_that_stands_there_twice_is_shown_as_the_one_that_was_checked(
    name: str,
) -> None:
    value = event(3).replace(b"{", f'{{"{name}":"ann at example dot com",'.encode(), 1)
    made = frame(value)
    assert "ann at" not in made.packet.encode()
    assert body(made)["payload"] == orjson.loads(event(3))


@pytest.mark.parametrize("user", [b"\xff", b"a\x1eb", b"a\nb"])
def test_a_field_that_stands_there_twice_and_is_no_text_breaks_nothing(user: bytes) -> None:
    made = frame(event(3).replace(b"{", b'{"user":"' + user + b'",', 1))
    body(made)
    # Packets of a polling client are parted by it.
    assert "\x1e" not in made.packet.encode()


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: json.dumps(text).encode()))
def test_any_bytes_become_an_event(value: bytes) -> None:
    body(frame(value))
    body(frame(value, "dead-letter-topic"))


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_782_907_200_999, "2026-07-01T12:00:00.999Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (2**62, None),
    ],
)
def test_append_time(milliseconds: int, text: str | None) -> None:
    assert append_time(milliseconds) == text
