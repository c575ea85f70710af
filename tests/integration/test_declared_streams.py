"""Streams as a team could write them, through real workers: every type, aliases, nulls, any event time;
what a user's own code breaks; and a contract that becomes stricter."""

import json
import sys
from collections import Counter
from pathlib import Path

import orjson
import pytest

from faults import wait_until
from loads import rows
from pipeline import count, produce, streamflow, workers
from streamflow.settings import Settings

pytestmark = pytest.mark.integration

MODULE = """
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field

from streamflow import (
    EpochMillis, Event, Hashed, Notification, Stream, Timestamp, Topics, TumblingWindow
)

ONE = Topics(
    partitions=1, analytics="own-analytics", notifications="own-notes", dead_letters="own-letters"
)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Contact(BaseModel):
    email: Hashed


def odd(text):
    return "\\ud800" if text == "odd" else text


class Order(Event):
    kind: Literal["placed", "cancelled"]
    created_at: Timestamp
    customer: Annotated[str, Field(alias="customerId"), AfterValidator(odd)]
    colour: Colour
    total: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
    ref: UUID
    raw: bytes
    day: date
    coupon: str | None
    anything: Any
    mixed: int | str
    contacts: list[Contact] = []


def notify(order):
    if order.anything == "fail":
        raise RuntimeError("of a user's code")
    if order.anything == "exit":
        raise SystemExit("ann.exit@example.com")
    if order.anything == "address":
        return Notification("of ann@example.com", 1, "ann@example.com")
    return Notification(f"order of {order.customer}", 2**70 if order.anything == "huge" else 1, "u")


ORDERS = Stream(
    name="own-orders", contract=Order, table="own_orders", key="customer", event_time="created_at",
    windows=TumblingWindow("10s", by="colour"), notify=notify, topics=ONE,
)


class Reading(Event):
    sensor: str
    at: EpochMillis
    ok: bool
    value: float


READINGS = Stream(
    name="own-readings", contract=Reading, table="own_readings", key="sensor", event_time="at",
    windows=TumblingWindow("30d", by="ok"), topics=ONE,
)


class Visit(Event):
    shop: str | None = None
    timestamp: Timestamp


VISITS = Stream(
    name="own-visits", contract=Visit, table="own_visits", key="shop", unknown_fields="keep",
    windows=TumblingWindow("10s", by="shop", idle="1h"), topics=ONE,
)


class Offer(Event):
    price: Decimal
    timestamp: Timestamp


OFFERS = Stream(
    name="own-offers", contract=Offer, table="own_offers", key="price",
    windows=TumblingWindow("10s", by="price"), topics=ONE,
)
"""
STRICTER = MODULE.replace(
    "    shop: str | None = None\n", "    shop: str | None = None\n    size: int\n"
)
STREAMS = "own_streams:ORDERS,own_streams:READINGS,own_streams:VISITS,own_streams:OFFERS"
HASH = "a" * 64
# The first and the last moment of an event, whose windows reach beyond the calendar; from the time of
# the first reading.
ENDS = (-62_135_510_400_000 - 1_772_366_400_000, 253_402_128_000_000 - 1_772_366_400_000)
ORDER = {
    "kind": "placed", "created_at": "2026-03-01T12:00:01.000Z", "customerId": "c1", "colour": "red",
    "total": "12.50", "ref": "12345678-1234-1234-1234-123456789012", "raw": "x", "day": "2026-03-01",
    "coupon": None, "anything": "hello", "mixed": "m", "contacts": [{"email": HASH}],
}  # fmt: skip


def values(*changes: dict[str, object]) -> list[bytes]:
    return [orjson.dumps(ORDER | change) for change in changes]


def own_module(folder: Path, text: str) -> dict[str, str]:
    (folder / "own_streams.py").write_text(text)
    return {"STREAMFLOW_STREAMS": STREAMS, "PYTHONPATH": ":".join([str(folder), *sys.path])}


def test_streams_of_one_s_own(stack_settings: Settings, tmp_path: Path) -> None:
    own = own_module(tmp_path, MODULE)
    settings = stack_settings
    _require_tried(settings, own)
    done = streamflow(settings, "init", **own)
    assert done.returncode == 0, done.stderr
    tried = streamflow(settings, "check", "own_streams:READINGS", "own_streams:VISITS", **own)
    assert tried.returncode == 0, tried.stdout
    assert "own-visits is there, 1 partition" in tried.stdout
    assert "table own_visits is there" in tried.stdout
    # What anything may be: each is one row, whatever it is.
    produce(settings, "own-orders", values(
        {}, {"anything": True}, {"anything": None}, {"anything": {"a": [1, "x"]}, "colour": "blue"},
        {"anything": '"quoted"', "mixed": 7}, {"anything": "fail"}, {"anything": "huge"},
        {"colour": "mauve"}, {"kind": "lost"}, {"created_at": "2026-03-01T12:00:00"},
        {"contacts": [{"email": "ann@example.com"}]}, {"contacts": [{"email": "Ann"}]},
        {"anything": "exit"}, {"anything": "address"}, {"customerId": "odd"},
    ))  # fmt: skip
    # Late and out of order, whole milliseconds; a number that no double holds.
    readings = [
        orjson.dumps(
            {"sensor": f"s{n % 3}", "at": 1_772_366_400_000 + at, "ok": n % 2 == 0, "value": n / 7}
        )
        for n, at in enumerate((0, 65_000, 1_000, 130_000, -86_400_000, 500, *ENDS))
    ]
    produce(
        settings, "own-readings", [*readings, readings[0].replace(b"0.0", b"1e400"), b"not json"]
    )
    now = "2026-03-01T12:00:0"
    visits = [
        orjson.dumps({"timestamp": f"{now}{n}.000Z", "browser": {"name": "x"}} | {"shop": shop} if shop else {
            "timestamp": f"{now}{n}.000Z"
        })
        for n, shop in enumerate(("a", "", "b" * 300, "a", ""))
    ]  # fmt: skip
    produce(settings, "own-visits", visits)
    # The third is valid, and counted, and more than a column holds; only Python reads the fourth.
    prices = (
        "12.50",
        "1e2",
        "9" * 131_073,
        "1E9_9_9_9_9_9_9_9_9",
        "12.5",
        "0." + "0" * 17_000 + "1",
    )
    offers = [orjson.dumps({"price": price, "timestamp": f"{now}0.000Z"}) for price in prices]
    produce(settings, "own-offers", offers)
    with workers(settings, tmp_path, **own) as running:
        wait_until(lambda: count(settings, "SELECT count(*) FROM own_orders") == 9, 60)
        wait_until(lambda: count(settings, "SELECT count(*) FROM own_offers") == 3, 60)
        wait_until(lambda: sum(_counted(settings, "own-offers").values()) == 4, 60)
        wait_until(lambda: count(settings, "SELECT count(*) FROM own_readings") == 8, 60)
        wait_until(lambda: count(settings, "SELECT count(*) FROM own_visits") == 5, 60)
        wait_until(lambda: _counted(settings, "own-readings") == {"true": 4, "false": 4}, 60)
        assert [worker.stop() for worker in running.values()] == [0, 0, 0]
    codes = Counter(
        (code, stage)
        for code, stage in rows(settings, "SELECT error_code, stage FROM dead_letters")
    )
    assert codes == {
        ("PROCESSING_FAILED", "notify"): 3, ("SCHEMA_VIOLATION", "validator"): 6,
        ("CLEAR_TEXT_PII", "validator"): 2, ("CLEAR_TEXT_PII", "notify"): 1,
        ("PROCESSING_FAILED", "validator"): 1, ("INVALID_JSON", "validator"): 1,
        ("UNSTORABLE_VALUE", "loader"): 1,
    }  # fmt: skip
    assert rows(settings, "SELECT anything FROM own_orders ORDER BY origin_offset LIMIT 5") == [
        ("hello",), (True,), (None,), ({"a": [1, "x"]},), ('"quoted"',)
    ]  # fmt: skip
    assert rows(settings, "SELECT unknown_fields FROM own_visits ORDER BY origin_offset LIMIT 2") == [
        ({"browser": {"name": "x"}},), ({},)
    ]  # fmt: skip

    # The next release is stricter: its workers accept none of those visits, which are in a window that
    # was open when the others stopped.
    own = own_module(tmp_path, STRICTER)
    against = ("check", "--against", settings.database, "--allow-steps", "own_streams:VISITS")
    tried = streamflow(settings, *against, **own)
    assert tried.returncode == 0, tried.stdout
    assert "needs a step: `size` is a new required field: " in tried.stdout
    assert "the newest 5 were read with this contract" in tried.stdout
    _require_alteration(settings, own)
    done = streamflow(settings, "init", **own)
    assert done.returncode == 0, done.stderr
    later = orjson.dumps({"timestamp": "2026-03-01T12:10:00.000Z", "shop": "a", "size": 1})
    produce(settings, "own-visits", [visits[0], later])
    with workers(settings, tmp_path, **own):
        wait_until(lambda: count(settings, "SELECT count(*) FROM own_visits") == 6, 60)
        long = "b" * 200 + "…"
        wait_until(lambda: sum(_counted(settings, "own-visits").values()) == 5, 60)
        counted = _counted(settings, "own-visits")
        assert {name[:201]: number for name, number in counted.items()} == {
            "a": 2,
            "(null)": 2,
            long: 1,
        }
        audit = streamflow(settings, "audit", **own)
        assert audit.returncode == 0, audit.stdout + audit.stderr


def _counted(settings: Settings, name: str) -> dict[str, int]:
    query = (
        "SELECT event_type, sum(count)::int FROM window_counts"
        f" WHERE origin_topic = '{settings.prefix}{name}' GROUP BY 1"
    )
    return dict(rows(settings, query))


def _require_alteration(settings: Settings, own: dict[str, str]) -> None:
    tried = streamflow(settings, "check", "own-visits", **own)
    assert "table own_visits will be altered: column own_visits.size" in tried.stdout
    assert "own-offers" not in tried.stdout


def _require_tried(settings: Settings, own: dict[str, str]) -> None:
    """`streamflow check`, before anything is made: one problem, of a user's own code."""
    tried = streamflow(settings, "check", "--json", **own)
    assert tried.returncode == 1, tried.stderr
    orders, readings, visits, offers = json.loads(tried.stdout)["streams"]
    [problem] = orders["problems"]
    assert problem["part"] == "notify"
    assert readings["problems"] == visits["problems"] == offers["problems"] == []
    assert "with `customer` at a limit of its type" in problem["text"]
    assert orders["stored"]
    assert orders["samples"] > 100
    assert {topic["action"] for topic in readings["topics"]} == {"will be created"}
    assert readings["table_changes"] == ["table own_readings"]
    assert [list(table.values())[:3] for table in readings["tables"]] == [
        ["own_readings", "table", "will be created"]
    ]
