"""What cannot work is found in the declarations, and said so that its author knows what to change."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from streamflow import (
    DailyRollup,
    EpochMillis,
    Event,
    Stream,
    Timestamp,
    Topics,
    TumblingWindow,
)
from streamflow.declarations import problems
from streamflow.errors import ErrorCode
from streamflow.records import Rejection
from streamflow.streams.user_events import USER_EVENTS


class Order(Event):
    type: Literal["PLACED"]
    customer: str
    timestamp: Timestamp


class Refund(Event):
    type: Literal["REFUNDED"]
    customer: int
    timestamp: Timestamp


ROLLUP = DailyRollup(
    table="big_orders", description="", columns={}, query="SELECT", parameters=lambda _: {}
)
ORDERS = Stream(name="orders", contract=Order, table="orders", key=lambda order: order.customer)
WINDOWS = TumblingWindow(size=timedelta(seconds=10))


def test_a_sound_stream_has_no_problem() -> None:
    assert problems(USER_EVENTS) == []
    assert problems(replace(ORDERS, rollups=(ROLLUP,), windows=WINDOWS), [USER_EVENTS]) == []
    own = Topics(
        partitions=6, derived_partitions=6, analytics="a.1", notifications="b", dead_letters="c"
    )
    assert problems(replace(ORDERS, topics=own), [USER_EVENTS]) == []
    # They may share a rollup that they declare alike.
    shared = replace(ORDERS, rollups=(ROLLUP,))
    assert problems(replace(shared, name="more", table="more"), [USER_EVENTS, shared]) == []


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        # B13.
        (
            replace(ORDERS, name="analytics"),
            "its events and its window counts would go into one topic, analytics: rename the stream",
        ),
        (replace(ORDERS, table="replays"), "its table replays is one of StreamFlow's own"),
        (replace(ORDERS, table="streamflow_schema_version"), "is one of StreamFlow's own"),
        (replace(ORDERS, table="window_counts"), "is one of StreamFlow's own"),
        (replace(ORDERS, table="pg_class"), "looks like one of PostgreSQL's own"),
        (replace(ORDERS, table="t" * 51), "is 51 characters long, and there is room for 50"),
        (replace(ORDERS, table="my-orders"), "its table my-orders is no plain name"),
        (replace(ORDERS, table='a"b'), "is no plain name: use letters, digits and _"),
        (replace(ORDERS, table="1st"), "no digit at its beginning"),
        (replace(ORDERS, table=""), "is no plain name"),
        (replace(ORDERS, name="my orders"), "my orders, is no name of a topic: Kafka takes"),
        (replace(ORDERS, name=".."), "is no name of a topic"),
        (replace(ORDERS, name="bestellungen-ü"), "is no name of a topic"),
        (replace(ORDERS, name="__consumer_offsets"), "looks like one of Kafka's own"),
        (
            replace(ORDERS, prefix="p" * 200, name="o" * 50),
            "is 250 characters long, and Kafka takes 249",
        ),
        (
            replace(ORDERS, topics=Topics(dead_letters="dead letters")),
            (
                "the topic of its dead letters, dead letters, is no name of a topic: Kafka takes letters, "
                'digits, dots, _ and -: give it another one with Topics(dead_letters="…")'
            ),
        ),
        (replace(ORDERS, name="streamflow-positions"), "is where StreamFlow keeps the workers'"),
        (
            replace(ORDERS, prefix="x.", topics=Topics(analytics="streamflow-positions")),
            "the topic of its window counts, x.streamflow-positions, is where StreamFlow keeps",
        ),
        (
            replace(ORDERS, name="dead.letters", topics=Topics(dead_letters="dead_letters")),
            "the topics dead.letters and dead_letters differ only in dots and _",
        ),
        (
            replace(ORDERS, topics=Topics(analytics="a-1", notifications="a.1")),
            (
                "the topics a-1 and a.1 are one asset in Dagster, a_1: give it another one with "
                'Topics(analytics="…")'
            ),
        ),
        (
            replace(ORDERS, topics=Topics(analytics="x", notifications="x")),
            "its window counts and its notifications would go into one topic, x",
        ),
        (
            replace(ORDERS, topics=Topics(managed=False, analytics="orders")),
            "its events and its window counts would go into one topic",
        ),
        # B8.
        (
            replace(ORDERS, windows=replace(WINDOWS, by="custmer")),
            (
                "by of its windows names the field custmer, which Order does not have: did you mean "
                "customer?"
            ),
        ),
        (
            replace(ORDERS, windows=replace(WINDOWS, by="shop")),
            "which Order does not have: its fields are type, customer, timestamp",
        ),
        (
            replace(ORDERS, key="costumer"),  # type: ignore[arg-type]
            "key names the field costumer, which Order does not have: did you mean customer?",
        ),
        (
            replace(ORDERS, contract=Order | Refund),
            "the field customer is text in one model and bigint in another",
        ),
        (
            replace(ORDERS, rollups=(replace(ROLLUP, table="gaps"),)),
            "the table gaps of its rollup is one of StreamFlow's own",
        ),
        (
            replace(ORDERS, rollups=(replace(ROLLUP, table="orders_default"),)),
            "the table orders_default of its rollup has the name of its own table, or of a part",
        ),
    ],
)
def test_what_a_stream_cannot_have(stream: Stream, says: str) -> None:
    found = problems(stream)
    assert any(says in problem for problem in found), found


OTHER = replace(ORDERS, name="shop", table="shop")


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (replace(OTHER, name="orders"), ["another stream has the same name: rename one"]),
        (
            replace(OTHER, table="orders"),
            ["stream orders has the same table, orders: give one of them another"],
        ),
        (
            replace(OTHER, table="orders_20260131"),
            [
                (
                    "stream orders has the table orders, and orders_20260131 is a name that StreamFlow gives "
                    "to a part of orders: give one of them another"
                )
            ],
        ),
        (
            replace(OTHER, topics=Topics(analytics="orders")),
            [
                (
                    "the topic of its window counts, orders, holds the events of stream orders: give it "
                    'another one with Topics(analytics="…")'
                )
            ],
        ),
        (
            replace(OTHER, topics=Topics(analytics="or.ders", notifications="or_ders")),
            [
                (
                    "the topics or.ders and or_ders differ only in dots and _, which Kafka does not allow: "
                    'give it another one with Topics(analytics="…")'
                )
            ],
        ),
        (
            replace(OTHER, topics=Topics(partitions=6, derived_partitions=6)),
            [
                (
                    "it shares analytics, notifications, dead-letter-topic with stream orders, but declares "
                    "another number of partitions (6, there 3): declare the same, or give it topics of its "
                    'own with Topics(analytics="…", notifications="…", dead_letters="…")'
                )
            ],
        ),
        (
            replace(OTHER, topics=Topics(dead_letter_retention=timedelta(days=7))),
            [
                (
                    "it shares dead-letter-topic with stream orders, but declares another retention (168 h, "
                    "there 720 h): declare the same, or give it topics of its own with "
                    'Topics(dead_letters="…")'
                )
            ],
        ),
        (
            replace(OTHER, rollups=(replace(ROLLUP, columns={"a": "text"}),)),
            [
                (
                    "stream orders declares the rollup big_orders differently: share one declaration, or "
                    "give the table another name"
                )
            ],
        ),
        (
            replace(OTHER, table="big_orders"),
            ["its table big_orders is a rollup of stream orders: give one of them another name"],
        ),
    ],
)
def test_what_two_streams_cannot_have(stream: Stream, says: list[str]) -> None:
    assert problems(stream, [replace(ORDERS, rollups=(ROLLUP,))]) == says


def test_two_streams_are_two_assets_of_dagster() -> None:
    [problem] = problems(replace(OTHER, name="or-ders"), [replace(ORDERS, name="or_ders")])
    assert problem == (
        "the topics or-ders and or_ders are one asset in Dagster, or_ders: rename the stream"
    )


def test_largest_records_of_their_own_topics_are_up_to_each_stream() -> None:
    assert problems(replace(OTHER, topics=Topics(max_record_bytes=10)), [ORDERS]) == []


@pytest.mark.parametrize("kind", [EpochMillis, Timestamp])
def test_a_bound_of_a_time_needs_a_zone(kind: Any) -> None:
    def stream(bound: datetime) -> Stream:
        class Shift(Event):
            ends: list[Annotated[kind, Field(ge=bound)]]

        class Reading(Event):
            at: Annotated[kind, Field(ge=bound)]
            shift: Shift | None = None

        return Stream(
            name="readings", contract=Reading, table="readings", key="at", event_time="at"
        )

    assert problems(stream(datetime(2020, 1, 1, tzinfo=UTC))) == []
    assert problems(stream(datetime(2020, 1, 1))) == [  # noqa: DTZ001 (what is refused)
        f"{name} has a bound without a zone, and times of events have one: write the bound as "
        "datetime(2020, 1, 1, tzinfo=UTC)"
        for name in ("at", "ends")
    ]


def test_epoch_seconds_in_a_field_of_milliseconds_break_a_bound() -> None:
    class Reading(Event):
        at: Annotated[EpochMillis, Field(ge=datetime(2020, 1, 1, tzinfo=UTC))]

    decoder = Stream(
        name="readings", contract=Reading, table="readings", key="at", event_time="at"
    ).decoder
    seconds = decoder.decode(b'{"at":1700000000}')
    assert isinstance(seconds, Rejection)
    assert (seconds.code, seconds.message) == (
        ErrorCode.SCHEMA_VIOLATION,
        "at: must not be before 2020-01-01T00:00:00Z",
    )
    assert isinstance(decoder.decode(b'{"at":1700000000000}'), Reading)
