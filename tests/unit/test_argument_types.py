"""Every wrong argument of a declaration is named, and what it must be."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from operator import attrgetter
from typing import Any

import pytest

from streamflow import (
    Avro,
    CardNumber,
    CloudEvents,
    Count,
    DailyRollup,
    Debezium,
    Distinct,
    Event,
    First,
    HoppingWindow,
    JsonSchema,
    Last,
    Mean,
    Min,
    Notification,
    PhoneNumber,
    PrivatePattern,
    Protobuf,
    Quantiles,
    SchemaRegistry,
    SessionWindow,
    Stream,
    Sum,
    Timestamp,
    Topics,
    TumblingWindow,
)
from streamflow.argument_types import argument_faults
from streamflow.declarations import problems
from streamflow.streams.user_events import USER_EVENTS


class Order(Event):
    type: str
    customer: str
    timestamp: Timestamp


def declared(**changed: Any) -> Stream:
    arguments = {"name": "orders", "contract": Order, "table": "orders", "key": "customer"}
    return Stream(**{**arguments, **changed})


def of_event(event: Order) -> str:
    return event.customer


def of_two(event: Order, other: str) -> str:
    return event.customer + other


def yielded(event: Order) -> Iterator[str]:
    yield event.customer


async def awaited(event: Order) -> str:
    return event.customer


async def yielded_later(event: Order) -> AsyncIterator[str]:
    yield event.customer


def settled(_settings: Any) -> Mapping[str, Any]:
    return {}


EVENT = "key must be a function of the event that returns a text"
KEY = "key must be the name of a field, or a function of the event that returns a text"
DURATION = 'must be a duration like "10s", "5min", "12h" or "7d"'
SIMULATE = "simulate must be a function that takes a hasher, seed= and invalid_ratio="
ROLLUP = DailyRollup(table="days", description="", columns={}, query="SELECT")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"name": 3}, "name must be a text, not 3"),
        ({"name": None}, "name must be a text, not None"),
        ({"table": Order}, "table must be a text, not the class Order"),
        ({"contract": 3}, "contract must be a subclass of Event, or a union of them, not 3"),
        ({"contract": list[Order]}, "contract must be a subclass of Event, or a union of them, not list["),
        ({"contract": Order | int}, "must be a subclass of Event, or a union of them, not the class int"),
        ({"contract": "Order"}, "not the text 'Order'"),
        ({"key": 3}, f"{KEY}, not 3"),
        ({"key": ("customer",)}, f"{KEY}, not a tuple"),
        (
            {"key": of_two},
            f"{EVENT}, and the function of_two cannot be called as one: missing a required argument: 'other'",
        ),
        ({"key": lambda: "x"}, f"{EVENT}, and the function <lambda> cannot be called as one: too many"),
        ({"key": yielded}, f"{EVENT}, and the function yielded yields: let it return instead"),
        ({"key": awaited}, f"{EVENT}, and not async, since nothing awaits it"),
        ({"key": yielded_later}, f"{EVENT}, and not async"),
        ({"key": (name for name in "ab")}, f"{KEY}, not a generator"),
        ({"event_time": b"at"}, "event_time must be a text, not a bytes"),
        (
            {"private_fields": "email"},
            'private_fields must be a tuple of names of fields, as in private_fields=("email",), not the',
        ),
        ({"private_fields": (name for name in ("a", "b"))}, '("email",), not a generator'),
        ({"private_fields": {"email"}}, '("email",), not a set'),
        ({"private_fields": ("email", 3)}, '("email",): one must be a text, not 3'),
        (
            {"private_values": (CardNumber,)},
            'one must be PhoneNumber("DE"), CardNumber() or the like, not the class CardNumber',
        ),
        ({"private_values": CardNumber()}, "(CardNumber(),), not a CardNumber"),
        ({"unknown_fields": "drop"}, 'must be "forbid", "ignore" or "keep", not the text \'drop\''),
        ({"unknown_fields": True}, 'must be "forbid", "ignore" or "keep", not True'),
        ({"windows": "10s"}, "windows must be a TumblingWindow, as in"),
        ({"windows": TumblingWindow}, "not the class TumblingWindow: write TumblingWindow(…)"),
        ({"windows": ["10s"]}, "not the text '10s'"),
        ({"notify": Notification}, "cannot be called as one: missing a required argument: 'event_id'"),
        ({"notify": Notification("x", 1, "u")}, "that returns a Notification, not a Notification"),
        ({"simulate": of_event}, f"{SIMULATE}, and the function of_event cannot be called as one: "),
        ({"simulate": yielded(None)}, "not a generator: name the function without calling it"),  # type: ignore[arg-type]
        ({"rollups": ROLLUP}, "as in rollups=(DailyRollup(…),), not a DailyRollup"),
        ({"rollups": ("days",)}, "one must be a DailyRollup, not the text 'days'"),
        ({"rollups": [replace(ROLLUP, columns="x")]}, "rollups: columns must be a dict of types"),  # type: ignore[arg-type]
        ({"rollups": (replace(ROLLUP, parameters={}),)}, "rollups: parameters must be a function"),  # type: ignore[arg-type]
        ({"decode": "avro"}, "decode must be a function of the record, or a format like CloudEvents()"),
        ({"decode": CloudEvents}, "decode must be a function of the record"),
        ({"mode": "Upsert"}, "not the text 'Upsert': did you mean \"upsert\"?"),
        ({"mode": None}, 'mode must be "append" or "upsert", not None'),
        ({"primary_key": {"id": 1}}, 'as in primary_key=("id",), not a dict'),
        ({"primary_key": (("id",),)}, 'as in primary_key=("id",): one must be a text, not a tuple'),
        ({"topics": "orders"}, "topics must be Topics, as in topics=Topics(partitions=6), not the text"),
        ({"topics": Topics}, "not the class Topics: write Topics(…)"),
        ({"topics": {"partitions": 6}}, "not a dict"),
        ({"prefix": 1}, "prefix must be a text, not 1"),
        ({"primarykey": ("id",)}, "Stream has no argument primarykey: did you mean primary_key?"),
    ],
)  # fmt: skip
def test_a_wrong_argument_of_a_stream(changed: dict[str, Any], says: str) -> None:
    [fault] = problems(declared(**changed))
    assert says in fault


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"managed": 1}, "managed must be True or False, not 1"),
        ({"replays": "no"}, "replays must be True or False, not the text 'no'"),
        ({"partitions": "6"}, "partitions must be a whole number from 1 to 9,000, not the text '6'"),
        ({"partitions": True}, "not True"),
        ({"partitions": 6.0}, "not 6.0"),
        ({"partitions": 0}, "not 0"),
        ({"derived_partitions": 9_001}, "a whole number from 1 to 9,000, not 9001"),
        ({"retention": 7}, f"retention {DURATION}, or a timedelta, not 7"),
        ({"retention": "7 weeks"}, f"retention {DURATION}, not the text '7 weeks'"),
        ({"retention": "0s"}, "retention must be from 1ms to 999999999d, not 0s"),
        ({"retention": timedelta(days=-1)}, "from 1ms to 999999999d, not -1d"),
        ({"derived_retention": "1000000000d"}, "to 999999999d, not the text '1000000000d'"),
        (
            {"dead_letter_retention": timedelta(seconds=1, microseconds=5)},
            "dead_letter_retention must be a number of whole milliseconds, not 1.00001s",
        ),
        ({"max_record_bytes": 2**31}, "max_record_bytes must be a whole number from 1 to 2,147,483,647"),
        ({"analytics": None}, "analytics must be a text, not None"),
        ({"partition": 6}, "Topics has no argument partition: did you mean partitions?"),
    ],
)  # fmt: skip
def test_a_wrong_argument_of_topics(changed: dict[str, Any], says: str) -> None:
    [fault] = problems(declared(topics=Topics(**changed)))
    assert fault.startswith("topics: ")
    assert says in fault


@pytest.mark.parametrize(
    ("arguments", "named", "says"),
    [
        ((), {}, "TumblingWindow needs size"),
        ((10,), {}, f"size {DURATION}, or a timedelta, not 10"),
        (("10 seconds",), {}, f"size {DURATION}, not the text '10 seconds'"),
        ((timedelta(0),), {}, "size must be from 1ms to 3650d, not 0s"),
        (("4000d",), {}, "size must be from 1ms to 3650d, not 4000d"),
        ((timedelta(microseconds=1500),), {}, "size must be a number of whole milliseconds, not 0.0015s"),
        (("10s",), {"by": [5]}, "by must name a field, as in"),
        (("10s",), {"grace": "-5s"}, "grace must not be negative, not the text '-5s'"),
        (("10s",), {"grace": -5}, f"grace {DURATION}, or a timedelta, not -5"),
        (("10s",), {"idle": timedelta(seconds=-1)}, "idle must be from 0s to 3650d, not -1s"),
        (("10s",), {"ahead": None}, f"ahead {DURATION}, or a timedelta, not None"),
        (("10s", "type"), {}, "TumblingWindow takes only size without a name: write by=…"),
        (("10s",), {"size": "5s"}, "size is given twice"),
        (("10s",), {"slide": "5s"}, "TumblingWindow has no argument slide, and the text"),
    ],
)  # fmt: skip
def test_a_wrong_argument_of_windows(
    arguments: tuple[Any, ...], named: dict[str, Any], says: str
) -> None:
    [fault] = problems(declared(windows=TumblingWindow(*arguments, **named)))
    assert fault.startswith("windows: ")
    assert says in fault


FIELD = 'field must be the name of a field, as in "total", or "address.city" within another'
WHERE = "where must be a function of an event that says whether it counts"
SHARES = "at must be shares from 0 to 1, each once, as in at=(0.5, 0.99)"


@pytest.mark.parametrize(
    ("aggregate", "says"),
    [
        (Sum(5), f"{FIELD}, not 5"),  # type: ignore[arg-type]
        (Sum(None), f"{FIELD}, not None"),
        (Sum(""), f"{FIELD}, not the text ''"),
        (Mean("a..b"), f"{FIELD}, not the text 'a..b'"),
        (Sum(), "Sum needs field"),  # type: ignore[call-arg]
        (Count(of_event), "the function of_event: a function says which events count with where="),  # type: ignore[arg-type]
        (Count(where=3), f"{WHERE}, not 3"),  # type: ignore[arg-type]
        (Sum("total", where="x"), f"{WHERE}, not the text 'x'"),  # type: ignore[arg-type]
        (Min("total", where=of_two), "the function of_two cannot be called as one: missing a required"),  # type: ignore[arg-type]
        (Count(where=awaited), "and not async, since nothing awaits it"),  # type: ignore[arg-type]
        (Quantiles("total", at=0.5), f"{SHARES}, not 0.5"),  # type: ignore[arg-type]
        (Quantiles("total", at=(2,)), f"{SHARES}: 2 is none"),
        (Quantiles("total", at=(float("nan"),)), f"{SHARES}: nan is none"),
        (Quantiles("total", at=[True]), f"{SHARES}: True is none"),  # type: ignore[arg-type]
        (Quantiles("total", at=("0.5",)), f"{SHARES}: the text '0.5' is none"),  # type: ignore[arg-type]
        (Quantiles("total", at=()), f"{SHARES}: it is empty"),
        (Quantiles("total", at=(Decimal("0.5"),)), f"{SHARES}: a Decimal is none, write it as a float"),  # type: ignore[arg-type]
        (Quantiles("total", at=(0.5, 0.5)), f"{SHARES}: one is there twice"),
        (Quantiles("total", k=7), "k must be a whole number from 8 to 4,096, not 7"),
        (Quantiles("total", k=True), "k must be a whole number from 8 to 4,096, not True"),
        (Distinct("total", lg_k=99), "lg_k must be a whole number from 5 to 14, not 99"),
        (Distinct("total", lg_k="11"), "lg_k must be a whole number from 5 to 14, not the text '11'"),  # type: ignore[arg-type]
        (Distinct("total", k=11), "Distinct has no argument k: its arguments are field, where, lg_k"),  # type: ignore[call-arg]
        (First("total", None, 3), "First takes only field, where"),  # type: ignore[call-arg]
        (Last("total", field="total"), "field is given twice"),  # type: ignore[misc]
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "windows", [TumblingWindow, partial(HoppingWindow, every="5s"), SessionWindow]
)
def test_a_wrong_argument_of_an_aggregate(windows: Any, aggregate: Any, says: str) -> None:
    [fault] = problems(declared(windows=windows("10s", by="type", total=aggregate)))
    assert fault.startswith("windows: total: ")
    assert says in fault


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"private_values": (PhoneNumber("UK"),)}, "private_values: PhoneNumber: 'UK' is no region"),
        ({"private_values": (PhoneNumber(49),)}, "private_values: region must be a text, not 49"),
        ({"private_values": (CardNumber("visa"),)}, "private_values: CardNumber takes no argument"),
        ({"private_values": [PrivatePattern("x", "(")]}, "private_values: PrivatePattern 'x': not a regular"),
        ({"private_values": (PrivatePattern("x"),)}, "private_values: PrivatePattern needs pattern"),
        ({"private_values": (PrivatePattern("x", b"y"),)}, "pattern must be a text, not a bytes"),
        ({"decode": CloudEvents(attributes=5)}, 'as in attributes={"id": "event_id"}, not 5'),
        ({"decode": CloudEvents({"id": 5})}, '={"id": "event_id"}: one is 5'),
        ({"decode": CloudEvents(dat="x")}, "decode: CloudEvents has no argument dat: did you mean data?"),
        ({"decode": Debezium(deletes="ignore")}, '"tombstone" or "document", not the text \'ignore\''),
        ({"decode": Debezium(format=Avro)}, "must be a format like Avro(), not the class Avro"),
        ({"decode": Debezium(format=Avro(registry=5))}, "decode: format: registry must be a SchemaRegistry("),
        ({"decode": Avro(registry="https://x")}, "registry must be a SchemaRegistry("),
        ({"decode": Avro(registry=SchemaRegistry("x:8081"))}, "decode: registry: SchemaRegistry: "),
        ({"decode": Avro(registry=SchemaRegistry())}, "decode: registry: SchemaRegistry needs url"),
        ({"decode": Avro(reader_schema=5)}, "must be an Avro schema, as a text or a dict, not 5"),
        ({"decode": Avro(max_bytes=0)}, "max_bytes must be a whole number from 1 to 2,147,483,647, not 0"),
        ({"decode": JsonSchema(validate="yes")}, "validate must be True or False, not the text 'yes'"),
        ({"decode": Protobuf("Order")}, "must be a generated class of messages, not the text 'Order'"),
        ({"decode": Protobuf(framed_key=1)}, "framed_key must be True or False, not 1"),
    ],
)  # fmt: skip
def test_a_wrong_argument_within_a_stream_s(changed: dict[str, Any], says: str) -> None:
    [fault] = problems(declared(**changed))
    assert says in fault


def test_a_list_of_shares_is_as_good_as_a_tuple() -> None:
    assert Quantiles("total", at=[0.5, 0.9]) == Quantiles("total", at=(0.5, 0.9))  # type: ignore[arg-type]
    assert hash(Quantiles("total", at=[0.5])) == hash(Quantiles("total", at=(0.5,)))  # type: ignore[arg-type]


def test_right_arguments_of_every_shape() -> None:
    for key in (
        of_event,
        str,
        partial(of_two, other="x"),
        attrgetter("customer"),
        lambda one, _two=1: one,
    ):
        assert problems(declared(key=key)) == []
    everything = declared(
        # A list is as good as a tuple.
        private_fields=["customer"], private_values=[CardNumber()],
        rollups=[replace(ROLLUP, parameters=settled)],
        notify=lambda order: Notification("x", 1, order.customer), decode=CloudEvents(),
        windows=TumblingWindow("1 min", by="type", grace=timedelta(0), idle="500ms", ahead="2h"),
        topics=Topics(partitions=9_000, derived_partitions=9_000, retention="7d", replays=False),
    )  # fmt: skip
    assert problems(everything) == []
    assert everything.private_fields == ("customer",)
    assert list(argument_faults(USER_EVENTS)) == []


def test_a_retention_is_a_text_or_a_timedelta() -> None:
    texts, spans = (
        declared(
            topics=Topics(retention=own, derived_retention=derived, dead_letter_retention=dead)
        )
        for own, derived, dead in (
            ("7d", "36h", "1ms"),
            (timedelta(days=7), timedelta(hours=36), timedelta(milliseconds=1)),
        )
    )
    assert texts.topic_specs() == spans.topic_specs()
    kept = [spec.config["retention.ms"] for spec in texts.topic_specs()]
    assert kept == ["604800000", "129600000", "129600000", "1"]


def test_a_prefix_keeps_what_is_wrong() -> None:
    stream = declared(primarykey=("id",)).prefixed("test-")
    assert len(problems(stream)) == 1
