"""A stream with windows of every aggregate; records of parts of them, made by hand as the format says; and
what their totals must be, computed from the events in plain Python."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, Literal, NamedTuple

import orjson
import psycopg
from psycopg.rows import dict_row
from pydantic import BaseModel

from loads import FakeRecord
from streamflow import (
    Count,
    Distinct,
    Event,
    First,
    HoppingWindow,
    Last,
    Max,
    Mean,
    Min,
    Quantiles,
    SessionWindow,
    Stream,
    Sum,
    Timestamp,
    Topics,
    TumblingWindow,
)
from streamflow.records import ORIGIN_HEADER
from streamflow.settings import Settings

NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
EXACT: Final = 2**63 - 1  # theta of a sketch that holds all hashes
TEN_SECONDS, BY_MINUTE = timedelta(seconds=10), timedelta(minutes=1)
HOPS = 5


class Address(BaseModel):
    city: str | None


class Order(Event):
    kind: Literal["placed", "cancelled"]
    at: Timestamp
    country: str | None
    address: Address
    customer: str
    total: Decimal
    weight: float
    quantity: int | None = None


ORDERS = Stream(
    name="orders", contract=Order, table="orders", key="customer", event_time="at",
    topics=Topics(analytics="o-analytics", notifications="o-notes", dead_letters="o-letters"),
    windows=[
        TumblingWindow(
            "10s", by="country", idle="2s",
            orders=Count(), quantities=Count("quantity"), revenue=Sum("total"), weight=Sum("weight"),
            placed=Sum("total", where=lambda order: order.kind == "placed"),
            mean_total=Mean("total"), mean_weight=Mean("weight"),
            cheapest=Min("total"), heaviest=Max("weight"), first_name=Min("customer"), latest=Max("at"),
            opened_by=First("customer"), closed_by=Last("customer"),
            customers=Distinct("customer"), sizes=Quantiles("weight", at=(0.5, 0.999)),
        ),
        HoppingWindow(
            "5min", every="1min", by=("country", "address.city"), idle="2s",
            orders=Count(), revenue=Sum("total"), customers=Distinct("customer"),
            sizes=Quantiles("weight", at=(0.5,)), last_kind=Last("kind"),
        ),
    ],
)  # fmt: skip
SESSIONS = replace(
    ORDERS,
    windows=SessionWindow(
        "20s", by=("country", "address.city"),
        orders=Count(), quantities=Count("quantity"), revenue=Sum("total"), weight=Sum("weight"),
        mean_total=Mean("total"), mean_weight=Mean("weight"), cheapest=Min("total"),
        last_name=Max("customer"), opened_by=First("customer"), closed_by=Last("kind"),
        customers=Distinct("customer"), sizes=Quantiles("weight", at=(0.5, 1)),
    ),
)  # fmt: skip
TUMBLING, HOPPING = "orders_10s", "orders_5min_by_1min"


class Placed(NamedTuple):
    """An event and where its record is."""

    partition: int
    offset: int
    order: Order


def orders(number: int, seed: int = 1, partitions: int = 3) -> list[Placed]:
    """Random events within ten minutes, in no order."""
    rng = random.Random(seed)
    offsets = [0] * partitions
    made = []
    for _ in range(number):
        partition = rng.randrange(partitions)
        order = Order(
            kind=rng.choice(["placed", "cancelled"]),
            at=NOON + timedelta(milliseconds=rng.randrange(600_000)),
            country=rng.choice(["DE", "FR", "Ä\t\\N", "", None]),
            address=Address(city=rng.choice(["Köln", None])),
            customer=rng.choice(["ann", "Bob", "änne", "zoe"]) + str(rng.randrange(30)),
            total=Decimal(rng.randrange(-100, 10**6)) / 100,
            weight=rng.choice([0.1, 1e15, rng.random(), -rng.random() * 1e-9]),
            quantity=rng.choice([None, 3]),
        )
        made.append(Placed(partition, offsets[partition], order))
        offsets[partition] += 1
    return made


def hash_of(text: str) -> int:
    return random.Random(text).randrange(1, EXACT)


class Spec(NamedTuple):
    name: str
    pane: timedelta
    by: Callable[[Order], tuple[Any, ...]]
    columns: tuple[str, ...]
    state: Callable[[Sequence[Placed]], dict[str, Any]]


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _end(found: Placed, field: str) -> dict[str, Any]:
    return {
        "value": getattr(found.order, field),
        "time": _time(found.order.at),
        "offset": found.offset,
    }


def _in_time(found: Placed) -> tuple[datetime, int, int]:
    return found.order.at, found.partition, found.offset


def exact_sum(numbers: Iterable[Decimal | float]) -> str:
    """An exact sum as decimal text: every double is a decimal fraction."""
    total = sum((Fraction(number) for number in numbers), Fraction(0))
    places = max(total.denominator.bit_length(), 3)
    digits = total * 10**places
    assert digits.denominator == 1
    text = f"{abs(digits.numerator):0{places + 1}d}"
    return f"{'-' if total < 0 else ''}{text[:-places]}.{text[-places:]}"


def _state_of_ten_seconds(found: Sequence[Placed]) -> dict[str, Any]:
    events = [each.order for each in found]
    placed = [each.total for each in events if each.kind == "placed"]
    weights = [each.weight for each in events]
    return {
        "orders": len(events),
        "quantities": sum(each.quantity is not None for each in events),
        "revenue": exact_sum(each.total for each in events),
        "weight": exact_sum(weights),
        "placed": exact_sum(placed) if placed else None,
        "mean_total": {"sum": exact_sum(each.total for each in events), "count": len(events)},
        "mean_weight": {"sum": exact_sum(weights), "count": len(events)},
        "cheapest": str(min(each.total for each in events)),
        "heaviest": max(weights),
        "first_name": min(each.customer for each in events),
        "latest": _time(max(each.at for each in events)),
        "opened_by": _end(min(found, key=_in_time), "customer"),
        "closed_by": _end(max(found, key=_in_time), "customer"),
        "customers": {
            "theta": EXACT,
            "hashes": sorted({hash_of(each.customer) for each in events}),
        },
        "sizes": {"values": weights, "weights": [1] * len(weights)},
    }


def _state_of_five_minutes(found: Sequence[Placed]) -> dict[str, Any]:
    state = _state_of_ten_seconds(found)
    kept = {name: state[name] for name in ("orders", "revenue", "customers", "sizes")}
    return kept | {"last_kind": _end(max(found, key=_in_time), "kind")}


SPECS: Final = {
    TUMBLING: Spec(
        TUMBLING, TEN_SECONDS, lambda order: (order.country,), ("country",), _state_of_ten_seconds
    ),
    HOPPING: Spec(
        HOPPING, BY_MINUTE, lambda order: (order.country, order.address.city),
        ("country", "address_city"), _state_of_five_minutes,
    ),
}  # fmt: skip


def start_of(moment: datetime, pane: timedelta) -> datetime:
    return moment - (moment - NOON) % pane


def parts_of(placed: Sequence[Placed], name: str, *, seed: int = 1) -> Iterator[dict[str, Any]]:
    """The values of records that say it all, in random parts and in no order, as of late events."""
    rng, spec = random.Random(seed), SPECS[name]
    cells: dict[Any, list[Placed]] = defaultdict(list)
    for each in placed:
        key = (
            each.partition,
            start_of(each.order.at, spec.pane),
            spec.by(each.order),
            rng.randrange(2),
        )
        cells[key].append(each)
    for (partition, start, group, _), found in rng.sample(
        sorted(cells.items(), key=str), len(cells)
    ):
        offsets = [each.offset for each in found]
        yield {
            "window": name,
            "window_start": _time(start),
            "window_end": _time(start + spec.pane),
            "by": dict(zip(spec.columns, group, strict=True)),
            "aggregates": spec.state(found),
            "counted": len(found),
            "too_late": 0,
            "partition": partition,
            "late": rng.random() < 0.5,
            "first_offset": min(offsets),
            "last_offset": max(offsets),
        }


def part(offset: int = 0, **changes: Any) -> dict[str, Any]:
    """What a record says of one event."""
    [found] = parts_of(orders(1, partitions=1), TUMBLING)
    return found | {"first_offset": offset, "last_offset": offset} | changes


def record(offset: int, content: dict[str, Any], partition: int = 0) -> FakeRecord:
    origin = f"{ORDERS.topic}/{content['partition']}/{content['first_offset']}"
    return FakeRecord(
        offset, orjson.dumps(content), topic=ORDERS.analytics_topic, partition=partition,
        headers=[(ORIGIN_HEADER, origin.encode())],
    )  # fmt: skip


def totals(
    placed: Sequence[Placed], name: str, pane: timedelta | None = None
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """By window and group, what the view must show; with `pane` of tumbling windows of another size."""
    spec, cells = SPECS[name], defaultdict(list)
    for each in placed:
        start = start_of(each.order.at, pane or spec.pane)
        for hop in range(HOPS if name == HOPPING else 1):
            cells[(start - hop * spec.pane, *spec.by(each.order))].append(each)
    return {key: _finished(found, name) for key, found in cells.items()}


def _finished(found: Sequence[Placed], name: str) -> dict[str, Any]:
    events = [each.order for each in found]
    weights = sorted(each.weight for each in events)
    placed = [each.total for each in events if each.kind == "placed"]
    total = sum((Fraction(each.total) for each in events), Fraction(0))
    weight = sum(map(Fraction, weights), Fraction(0))
    every = {
        "orders": len(events),
        "revenue": Decimal(exact_sum(each.total for each in events)),
        "customers": len({each.customer for each in events}),
        "sizes_p50": weights[math.ceil(Fraction("0.5") * len(weights)) - 1],
        "counted": len(events),
        "too_late": 0,
    }
    if name == HOPPING:
        return every | {"last_kind": max(found, key=_in_time).order.kind}
    return every | {
        "quantities": sum(each.quantity is not None for each in events),
        "weight": float(weight),
        "placed": sum(placed) if placed else None,
        "mean_total": round(
            Decimal(total.numerator) / Decimal(total.denominator) / len(events), 10
        ),
        "mean_weight": float(weight / len(events)),
        "cheapest": min(each.total for each in events),
        "heaviest": weights[-1],
        "first_name": min(each.customer for each in events),
        "latest": max(each.at for each in events),
        "opened_by": min(found, key=_in_time).order.customer,
        "closed_by": max(found, key=_in_time).order.customer,
        "sizes_p99_9": weights[math.ceil(Fraction("0.999") * len(weights)) - 1],
    }


def shown(settings: Settings, name: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The view of the totals, by window and group."""
    found = {}
    with psycopg.connect(settings.database, row_factory=dict_row) as connection:
        connection.execute("SET timezone = 'UTC'")
        for row in connection.execute(f"SELECT * FROM {name}_totals".encode()):
            key = (row.pop("window_start"), *(row.pop(name) for name in SPECS[name].columns))
            length = timedelta(minutes=5) if name == HOPPING else timedelta(seconds=10)
            assert row.pop("window_end") - key[0] == length
            if row.get("mean_total") is not None:
                row["mean_total"] = round(row["mean_total"], 10)
            assert key not in found
            found[key] = row
    return found
