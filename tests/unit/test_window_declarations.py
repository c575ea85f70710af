"""What declarations of windows say, and what is wrong with them, found before anything starts."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import orjson
import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl

from loads import TRUSTING, FakeRecord
from streamflow import (
    Count,
    Distinct,
    ErrorCode,
    Event,
    First,
    HoppingWindow,
    Last,
    Max,
    Mean,
    Min,
    Quantiles,
    Rejection,
    SessionWindow,
    Stream,
    Sum,
    Timestamp,
    TumblingWindow,
)
from streamflow.aggregates.base import Aggregate
from streamflow.declarations import problems
from streamflow.flow import Batch
from streamflow.privacy import Hasher
from streamflow.records import Position, last_header
from streamflow.settings import Settings
from streamflow.stream import reads
from streamflow.utc_texts import micros_of
from streamflow.windows.fields import field_at
from streamflow.windows.partition import PartitionWindows
from streamflow.windows.plans import plans_of
from streamflow.windows.progress import COUNTS, Progress, WindowProgress
from streamflow.windows.results import key_and_body
from streamflow.windows.specs import Windows
from streaming_workers.analytics import Analytics
from streaming_workers.loader import Loader
from streaming_workers.validator import Validator


class Colour(Enum):
    RED = "red"


class Address(BaseModel):
    city: str | None = None
    country: Literal["DE", "FR"] = "DE"
    lines: list[str] = []


class Order(Event):
    id: UUID = Field(default_factory=uuid4)
    kind: Literal["placed", "cancelled"]
    customer: str
    colour: Colour
    total: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
    number: int
    ratio: float
    paid: bool
    address: Address | None = None
    site: HttpUrl | None = None
    raw: bytes = b""
    timestamp: Timestamp


def declared(windows: Any = None, contract: Any = Order, key: Any = "customer") -> Stream:
    return Stream(name="orders", contract=contract, table="orders", key=key, windows=windows)


N = {"n": Count()}


def test_windows_are_none_one_or_several() -> None:
    one = TumblingWindow("10s")
    assert declared().windows == declared(()).windows == ()
    assert declared(one).windows == declared([one]).windows == (one,)
    hopping = HoppingWindow("1min", every="30s", n=Count())
    stream = declared([one, hopping, SessionWindow("5min", by="customer", n=Count())])
    assert stream.event_counts is one
    assert len(stream.counted) == 2
    assert [*stream.window_tables] == ["orders_1min_by_30s", "orders_sessions_5min"]
    assert replace(stream, prefix="x.").windows == stream.windows
    for wrong in ("10s", ["10s"], 5, TumblingWindow):
        [problem] = problems(declared(wrong))
        assert problem.startswith("windows must be a TumblingWindow")


def test_what_analytics_reads() -> None:
    sessions = declared(SessionWindow("5min", by="customer", n=Count()))
    assert reads("analytics", [sessions]) == []
    assert reads("analytics", [declared(TumblingWindow("5min", n=Count()))]) == ["orders"]


@pytest.mark.parametrize(
    ("windows", "table"),
    [
        (TumblingWindow("10s", n=Count()), "orders_10s"),
        (TumblingWindow(timedelta(minutes=60), n=Count()), "orders_1h"),
        (TumblingWindow("1500 ms", n=Count()), "orders_1500ms"),
        (TumblingWindow("10s", name="revenue", n=Count()), "revenue"),
        (HoppingWindow("5min", every="1min", n=Count()), "orders_5min_by_1min"),
        (SessionWindow("1800s", by="customer", n=Count()), "orders_sessions_30min"),
    ],
)
def test_names_of_tables(windows: Windows, table: str) -> None:
    assert windows.table_of("orders") == table
    assert problems(declared(windows)) == []


def test_every_argument_can_be_changed() -> None:
    window = TumblingWindow("10s", by=["kind", "address.city"], late_after="1d", n=Count())
    assert window.by_columns == ("kind", "address_city")
    assert replace(window, size="1min") == TumblingWindow(
        "1min", by=("kind", "address.city"), late_after="1d", aggregates=N
    )
    hopping = HoppingWindow("10s", every="5s", n=Count())
    assert (replace(hopping, by="kind").pane_ms, hopping.size_ms) == (5_000, 10_000)
    session = SessionWindow("1min", by="kind", n=Count())
    assert replace(session, gap="2min").gap == timedelta(minutes=2)
    assert hash(window) == hash(replace(window))


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda: TumblingWindow("10s", n=1), "TumblingWindow has no argument n"),
        (lambda: TumblingWindow("10s", sise="5s"), "TumblingWindow has no argument sise"),
        (lambda: TumblingWindow("0s", n=Count()), "windows: size must be from 1ms to 3650d"),
        (lambda: TumblingWindow("10s", late_after="5s"), "are for windows with aggregates"),
        (lambda: TumblingWindow("10s", name="x"), "are for windows with aggregates"),
        (lambda: TumblingWindow("10s", by=("a", "b")), "windows by several fields"),
        (lambda: TumblingWindow("10s", by=("a", 5)), "windows: by must name a field"),  # type: ignore[arg-type]
        (lambda: TumblingWindow("10s", by="a."), "windows: by must name a field"),
        (
            lambda: TumblingWindow("10s", late_after=timedelta(-1), n=Count()),
            "windows: late_after must be from 0s",
        ),
        (
            lambda: TumblingWindow("10s", late_after="-5s", n=Count()),
            "windows: late_after must not be negative",
        ),
        (
            lambda: HoppingWindow("5s", every="10s", n=Count()),
            "5s, must be a multiple of every, 10s",
        ),
        (
            lambda: TumblingWindow("10s", late_after="soon", n=Count()),
            "windows: late_after must be a duration like",
        ),
        (
            lambda: HoppingWindow("1min", every="7s", n=Count()),
            "1min, must be a multiple of every, 7s",
        ),
        (
            lambda: HoppingWindow("30d", every="1s", n=Count()),
            "30d every 1s is put together of 2,592,000 panes, and 1,440 are the most: choose a longer every",
        ),
        (
            lambda: HoppingWindow("1441min", every="1min", n=Count()),
            "is put together of 1,441 panes",
        ),
        (
            lambda: TumblingWindow("10s", aggregates={3: Count()}),  # type: ignore[dict-item]
            "windows: aggregates must have texts as names, not 3",
        ),
        (
            lambda: TumblingWindow(timedelta(microseconds=1500), n=Count()),
            "windows: size must be a number of whole milliseconds, not 0.0015s",
        ),
        (lambda: HoppingWindow("1min", every="0s", n=Count()), "windows: every must be from 1ms"),
        (lambda: HoppingWindow("1min", every="1s"), "a hopping window needs aggregates"),
        (lambda: SessionWindow("1min", by=None, n=Count()), "a session window needs by"),
        (lambda: SessionWindow("1min", by="kind"), "a session window needs aggregates"),
        (lambda: SessionWindow("0s", by="kind", n=Count()), "windows: gap must be from 1ms"),
        (
            lambda: SessionWindow("1min", by="kind", n=Count(where=bool)),
            "n: aggregates of sessions take no where=",
        ),
    ],
)
def test_wrong_arguments_say_so(declare: Callable[[], Windows], words: str) -> None:
    """And raise nothing, which would stop every other stream of the file."""
    assert words in "; ".join(problems(declared(declare())))


def test_the_most_panes_of_a_hopping_window() -> None:
    assert problems(declared(HoppingWindow("1d", every="1min", n=Count()))) == []


def tumbling(**aggregates: Aggregate) -> TumblingWindow:
    return TumblingWindow("10s", aggregates=aggregates)


@pytest.mark.parametrize(
    ("windows", "words"),
    [
        ([TumblingWindow("10s"), TumblingWindow("1min")], "only one can count into window_counts"),
        ([tumbling(n=Count())] * 2, "2 of its windows have one table, orders_10s: give one"),
        (TumblingWindow("10s", name="window_counts", n=Count()), "is one of StreamFlow's own"),
        (TumblingWindow("10s", name="x" * 51, n=Count()), "give them a name="),
        (TumblingWindow("10s", by="land", n=Count()), "Order has no field land: its fields are"),
        (TumblingWindow("10s", by="custmer", n=Count()), "did you mean customer?"),
        (TumblingWindow("10s", by="address.town", n=Count()), "Order.address has no field town"),
        (TumblingWindow("10s", by="kind.x", n=Count()), "Order.kind is no model, so it has no field x"),
        (TumblingWindow("10s", by="ratio", n=Count()), "cannot group by ratio: it must be a text"),
        (TumblingWindow("10s", by="address", n=Count()), "cannot group by address"),
        (TumblingWindow("10s", by="id", n=Count()), "id must not have a default_factory"),
        (tumbling(n=Sum("customer")), "n of the windows orders_10s: Sum takes a number"),
        (tumbling(n=Sum("paid")), "Sum takes a number"),
        (tumbling(n=Mean("timestamp")), "Mean takes a number"),
        (tumbling(n=Quantiles("colour")), "Quantiles takes a number"),
        (tumbling(n=Max("paid")), "Max takes a number, a text, or a time, and paid is none"),
        (tumbling(n=Min("address")), "Min takes"),
        (tumbling(n=First("raw")), "First takes"),
        (tumbling(n=Distinct("address.lines")), "Distinct takes"),
        (tumbling(n=Sum("totl")), "n of the windows orders_10s: Order has no field totl: did you mean"),
        (tumbling(n=Distinct("id")), "id must not have a default_factory"),
        (tumbling(late=Count()), "orders_10s needs a column late, and all windows"),
        (tumbling(xmin=Count()), "needs a column xmin, and all windows have one of that name"),
        (TumblingWindow("10s", by="kind", kind=Count()), "kind, of the field kind and the aggregate kind: "),
        (tumbling(a=Mean("total"), a_sum=Sum("total")), "a_sum, of the aggregate a and the aggregate a_sum"),
        (tumbling(last=Last("total")), "the aggregate last of the windows orders_10s needs"),
        (TumblingWindow("10s", by=("kind", "kind"), n=Count()), "names kind 2 times: once is enough"),
        (tumbling(a=Quantiles("total"), a_p50=Sum("total")), "would have two columns a_p50"),
        (tumbling(**{"x" * 57: Distinct("kind")}), "is longer than 63 bytes"),
        (tumbling(**{"a b": Count()}), "'a b' of the windows orders_10s is no plain name"),
        (tumbling(a=Distinct("kind", lg_k=14), b=Distinct("kind", lg_k=14), c=Distinct("kind", lg_k=14)),
         "may take 983,160 bytes, and there is room for 900,000"),
        ([TumblingWindow(f"{size}s", n=Count()) for size in range(1, 40)], "no room for what is kept"),
    ],
)  # fmt: skip
def test_wrong_declarations_say_so(windows: Any, words: str) -> None:
    found = problems(declared(windows))
    assert len([each for each in found if words in each]) == 1, found


def test_many_windows_fit() -> None:
    """Beside an offset there is room for twenty, however far their numbers go."""
    windows = [TumblingWindow(f"{size}s", n=Count()) for size in range(1, 31)]
    assert problems(declared(windows)) == []
    largest = WindowProgress(10**15, 10**14, 10**15, "x" * 8, 2**63 - 1)
    names = declared(windows).window_tables
    progress = Progress(2**63 - 1, 2**63 - 1, dict.fromkeys(names, largest))
    assert len(progress.metadata()) <= 3_200
    assert Progress.parse(2**63 - 1, progress.metadata()) == progress


class Other(Event):
    type: Literal["other"]
    customer: str
    timestamp: Timestamp


class Sale(Event):
    type: Literal["sale"]
    customer: str
    total: int
    timestamp: Timestamp


UNION = Annotated[Sale | Other, Field(discriminator="type")]


def test_an_aggregate_needs_its_field_in_one_model_a_group_in_all() -> None:
    assert problems(declared(tumbling(n=Sum("total")), UNION)) == []
    assert field_at(declared(contract=UNION).decoder, "total", everywhere=False).nullable
    [problem] = problems(declared(TumblingWindow("10s", by="total", n=Count()), UNION))
    assert "Other has no field total" in problem


def test_kinds_of_fields() -> None:
    decoder = declared().decoder
    kinds = {
        path: (field.kind, field.nullable)
        for path in ("colour", "kind", "total", "number", "address.city", "address.country", "site")
        for field in [field_at(decoder, path)]
    }
    assert kinds == {
        "colour": ("text", False),
        "kind": ("text", False),
        "total": ("decimal", False),
        "number": ("integer", False),
        "address.city": ("text", True),
        "address.country": ("text", True),
        "site": ("text", True),
    }


def test_the_same_is_counted_whenever_the_digest_is_the_same() -> None:
    def digest(window: TumblingWindow | HoppingWindow) -> str:
        [plan] = plans_of(declared(window))
        return plan.digest

    window = TumblingWindow("10s", by="kind", n=Sum("total"), name="x")
    same = replace(window, grace="1min", late_after="1h", idle="1s", ahead="1s", name="y")
    assert digest(same) == digest(window)
    others: list[Any] = [
        replace(window, size="20s"),
        replace(window, by="customer"),
        replace(window, aggregates={"n": Sum("number")}),
        replace(window, aggregates={"n": Mean("total")}),
        replace(window, aggregates={"m": Sum("total")}),
        replace(window, aggregates={"n": Sum("total", where=bool)}),
        HoppingWindow("20s", every="10s", by="kind", n=Sum("total")),
    ]
    assert len({digest(window), *map(digest, others)}) == len(others) + 1
    [plan] = plans_of(declared(TumblingWindow("10s")))
    assert (plan.name, plan.digest) == (COUNTS, "")


VALID: Mapping[str, Any] = {
    "kind": "placed", "customer": "ann", "colour": "red", "total": "1.50", "number": 1, "ratio": 0.5,
    "paid": True, "timestamp": "2026-01-01T00:00:00Z",
}  # fmt: skip


def record(**changes: Any) -> Any:

    return FakeRecord(0, orjson.dumps({**VALID, **changes}))


def test_an_event_that_a_where_fails_for_is_a_dead_letter() -> None:
    windows = TumblingWindow("10s", cheap=Count(where=lambda order: 1 / order.number > 0))
    stream = declared(windows)
    assert isinstance(stream.read(record()), Order)
    assert stream.read(record(number=0)) == Rejection(
        ErrorCode.PROCESSING_FAILED,
        "ZeroDivisionError",
        "where of cheap of the windows orders_10s raised ZeroDivisionError",
    )
    nested = TumblingWindow("10s", here=Count(where=lambda order: order.address.city == "Bonn"))
    found = declared(nested).read(record())
    assert isinstance(found, Rejection)
    assert (found.code, found.exception) == (ErrorCode.PROCESSING_FAILED, "AttributeError")


def test_such_an_event_is_none_at_every_stage() -> None:
    window = TumblingWindow("10s", cheap=Count(where=lambda order: 1 / order.number > 0))
    stream = declared(window)
    records = [
        FakeRecord(offset, orjson.dumps({**VALID, "number": number}), topic="orders")
        for offset, number in enumerate((1, 0))
    ]
    sent = Batch(records, [Position("orders", 0, 2, "")])
    letters = Validator(Settings(), [stream], Hasher()).process(sent)
    assert letters is not None
    assert [code for _, code in letters.rejected] == [ErrorCode.PROCESSING_FAILED]
    assert [last_header(each.headers, "__connect.errors.offset") for each in letters.records] == [
        b"1"
    ]
    analytics = Analytics(Settings(), [stream])
    analytics.assign({("orders", 0): None})
    counted, last = analytics.process(sent), analytics.finish(Batch([], []))
    assert counted is not None
    assert counted.rejected == [(1, ErrorCode.PROCESSING_FAILED)]
    assert last is not None
    assert [orjson.loads(each.value or b"")["aggregates"] for each in last.records] == [
        {"cheap": 1}
    ]
    stored = Loader(Settings(), [stream], Hasher(), lambda: TRUSTING).process(sent)
    assert [line.split(b"\t")[-4] for line in stored.tables["orders"].lines] == [b"0"]


def test_a_where_that_fails_later_does_not_stop_the_counting() -> None:
    calls: list[Any] = []

    def now_and_then(order: Any) -> bool:
        calls.append(order)
        if len(calls) > 1:
            raise RuntimeError
        return True

    [plan] = plans_of(declared(TumblingWindow("10s", n=Count(where=now_and_then))))
    [(read, _)] = plan.readers
    assert [plan.values_of(1), plan.values_of(2)] == [True, None]
    assert read([[True, None]], [0, 1]) == [True]


def broken(value: Any) -> Any:
    return {"1": "text", "2": Decimal("NaN"), "3": float("inf"), "4": datetime(2026, 1, 1)}.get(  # noqa: DTZ001
        str(value), value
    )


class Odd(Event):
    customer: Annotated[str, AfterValidator(lambda text: "\ud800" if text == "odd" else text)]
    total: Annotated[Decimal, AfterValidator(broken)]
    ratio: Annotated[float, AfterValidator(lambda number: broken(round(number)))]
    at: Annotated[Timestamp, AfterValidator(broken)] | None = None
    timestamp: Timestamp


@pytest.mark.parametrize(
    ("changes", "aggregates", "fault"),
    [
        ({"total": "1"}, {"n": Sum("total")}, "TypeError"),
        ({"total": "2"}, {"n": Max("total")}, "ValueError"),
        ({"ratio": 3.0}, {"n": Quantiles("ratio")}, "ValueError"),
        ({"customer": "odd"}, {"n": Last("customer")}, "PydanticSerializationError"),
        ({}, {"n": Last("customer"), "m": Distinct("total"), "o": Min("at")}, None),
    ],
)
def test_what_a_validator_makes_is_judged(
    changes: dict[str, Any], aggregates: dict[str, Aggregate], fault: str | None
) -> None:
    event = {
        "customer": "ann",
        "total": "7",
        "ratio": 7.0,
        "timestamp": "2026-01-01T00:00:00Z",
    } | changes

    found = declared(tumbling(**aggregates), Odd).read(FakeRecord(0, orjson.dumps(event)))
    if fault is None:
        assert isinstance(found, Odd)
    else:
        assert isinstance(found, Rejection)
        unstorable = changes.get("ratio") == 3.0
        code = ErrorCode.UNSTORABLE_VALUE if unstorable else ErrorCode.PROCESSING_FAILED
        assert (found.code, found.exception) == (code, fault)


class Defaults(Event):
    model_config = ConfigDict(use_enum_values=True)

    colour: Colour = Colour.RED
    paint: Colour | None = None
    plain: Annotated[str, AfterValidator(str)] = "x"
    total: Decimal = 0  # type: ignore[assignment]
    ratio: float = 1
    day: date = "2026-01-01"  # type: ignore[assignment]
    address: Address = {"city": "Bonn"}  # type: ignore[assignment]  # noqa: RUF012
    timestamp: Timestamp


@pytest.mark.parametrize("sent", [{}, {"colour": "red", "total": "0", "ratio": 1.0}])
def test_defaults_and_values_of_enums_are_as_others(sent: dict[str, Any]) -> None:
    aggregates = {
        "total": Sum("total"), "ratio": Sum("ratio"), "mean": Mean("ratio"), "most": Max("ratio"),
        "colours": Distinct("colour"), "ratios": Distinct("ratio"), "final": Last("colour"),
        "paints": Count("paint"), "middle": Quantiles("ratio", at=(0.5,)),
    }  # fmt: skip
    stream = declared(TumblingWindow("10s", by="colour", aggregates=aggregates), Defaults, key=str)
    assert problems(stream) == []
    windows = PartitionWindows(plans_of(stream))
    for offset, values in enumerate([sent, {"colour": "red", "total": "0.1", "ratio": 1.0}]):
        event = stream.read(
            FakeRecord(offset, orjson.dumps(values | {"timestamp": "2026-01-01T00:00:00Z"}))
        )
        assert isinstance(event, Defaults), event
        windows.count([(offset, 0, event, 0)])
    [part] = windows.hand_over()
    _, body = key_and_body(part, 0)
    assert body["by"] == {"colour": "red"}
    found = {name: each.finish(body["aggregates"][name]) for name, each in aggregates.items()}
    assert found == {
        "total": ("0.1",), "ratio": ("2",), "mean": (1,), "most": (1,), "colours": (1,), "ratios": (1,),
        "final": ("red",), "paints": (0,), "middle": (1.0,),
    }  # fmt: skip


class Point(BaseModel):
    height: float = 0.0


class Endless(Event):
    ratio: float = math.inf
    nothing: float = math.nan
    total: Decimal = Decimal("Infinity")
    opened: datetime = datetime(2026, 1, 1)  # noqa: DTZ001
    place: Point = Point(height=-math.inf)
    timestamp: Timestamp


@pytest.mark.parametrize("aggregate", [Sum, Quantiles, Max, First, Distinct])
@pytest.mark.parametrize("path", ["ratio", "nothing", "total", "opened", "place.height"])
def test_a_default_that_nothing_can_be_computed_of_is_refused(path: str, aggregate: Any) -> None:
    """A sum of it would never end."""
    [problem] = problems(declared(tumbling(n=aggregate(path)), Endless, key=str))
    if path == "opened" and aggregate in (Sum, Quantiles):
        assert "takes a number" in problem
    else:
        part = path.partition(".")[0]
        assert f"n of the windows orders_10s: the default of {part} is not of its type" in problem


def test_times_of_all_zones_are_in_one_window() -> None:
    stream = declared(tumbling(n=Count(), opened=First("timestamp"), closed=Max("timestamp")))
    windows = PartitionWindows(plans_of(stream))
    same = ("11:30:05Z", "13:30:04+02:00", "00:00:06-11:30", "17:15:07.250+05:45")
    for offset, text in enumerate(same):
        event = stream.read(record(timestamp=f"2026-03-29T{text}"))
        assert isinstance(event, Order), event
        windows.count([(offset, micros_of(event.timestamp), event, 0)])
    [part] = windows.hand_over()
    _, body = key_and_body(part, 0)
    assert (body["window_start"], body["counted"]) == ("2026-03-29T11:30:00.000Z", 4)
    assert body["aggregates"]["opened"] == {
        "value": "2026-03-29T11:30:04.000000Z", "time": "2026-03-29T11:30:04.000000Z", "offset": 1,
    }  # fmt: skip
    assert body["aggregates"]["closed"] == "2026-03-29T11:30:07.250000Z"
    assert isinstance(stream.read(record(timestamp="2026-03-29T11:30:05")), Rejection)


@pytest.mark.parametrize(
    ("aggregate", "path"), [(Max("day"), "day"), (Last("address.city"), "address")]
)
def test_a_default_of_another_type_is_refused(aggregate: Aggregate, path: str) -> None:
    [problem] = problems(declared(tumbling(n=aggregate), Defaults, key=str))
    assert f"n of the windows orders_10s: the default of {path} is not of its type" in problem
