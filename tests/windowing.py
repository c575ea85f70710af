"""A partition's windows counted in tests, and what they should be, computed plainly."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cache
from operator import attrgetter
from typing import Any, Literal

import orjson
from pydantic import BaseModel

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
    Stream,
    Sum,
    Timestamp,
    TumblingWindow,
)
from streamflow.windows.counting import WindowResult
from streamflow.windows.partition import PartitionWindows
from streamflow.windows.plans import Plan, plans_of
from streamflow.windows.progress import Progress
from streamflow.windows.results import key_and_body
from streamflow.windows.specs import CountedWindows, Windows

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class Country(Enum):
    GERMANY = "DE"
    FRANCE = "FR"


class Basket(BaseModel):
    city: str | None
    items: int


class Order(Event):
    kind: Literal["placed", "cancelled"]
    country: Country | None
    customer: str
    total: Decimal | None
    weight: float
    basket: Basket | None
    placed: Timestamp


@dataclass(frozen=True)
class Sent:
    """An event in the log."""

    order: Order
    appended: int  # the broker's time, in milliseconds

    @property
    def time(self) -> int:
        return (self.order.placed - EPOCH) // _MS


ALL: dict[str, Any] = {
    "n": Count(),
    "placed_n": Count(where=lambda order: order.kind == "placed"),
    "with_total": Count("total"),
    "revenue": Sum("total"),
    "weight": Sum("weight"),
    "light": Sum("weight", where=lambda order: order.weight < 1),
    "items": Sum("basket.items"),
    "mean": Mean("total"),
    "least": Min("total"),
    "most": Max("customer"),
    "latest": Max("placed"),
    "opening": First("customer"),
    "closing": Last("basket.city"),
    "customers": Distinct("customer", lg_k=5),
    "middle": Quantiles("weight", at=(0.5, 0.9)),
}
BY_COUNTRY = TumblingWindow("10s", by="country", aggregates=ALL)
HOPPING = HoppingWindow(
    "20s", every="5s", by=("kind", "basket.city"), n=Count(), mean=Mean("weight")
)
COUNTS = TumblingWindow("10s", by="kind")
JOINING = TumblingWindow("1min", n=Count(), revenue=Sum("total"))
STRICT = TumblingWindow(
    "10s", name="strict", late_after="20s", grace="1s", n=Count(), revenue=Sum("total")
)


def stream_of(windows: Sequence[Windows]) -> Stream:
    return Stream(
        name="orders", contract=Order, table="orders", key="customer", event_time="placed", windows=windows
    )  # fmt: skip


Cells = dict[tuple[str, int, tuple[Any, ...]], list[dict[str, Any]]]


@dataclass
class Emitted:
    """The parts of each cell, as the records have them."""

    parts: Cells = field(default_factory=lambda: defaultdict(list))

    def take(self, results: Iterable[WindowResult]) -> None:
        for result in results:
            _, body = key_and_body(result, 0)
            body = orjson.loads(orjson.dumps(body))
            if "by" in body:
                assert body["window"] == result.plan.name
                group = tuple(body["by"].values())
            else:
                group = (body["event_type"],)
            self.parts[result.plan.name, result.start, group].append(body)

    def totals(self, table: str, spec: CountedWindows) -> dict[Any, dict[str, Any]]:
        """The finished values of the cells of a table."""
        found = {}
        for (name, start, group), bodies in self.parts.items():
            if name != table:
                continue
            counted = sum(body["counted"] for body in bodies)
            found[start, group] = {
                name: each.merge([(0, _read(name, body["aggregates"][name])) for body in bodies])
                for name, each in spec.aggregates.items()
            } | {"counted": counted, "too_late": sum(body["too_late"] for body in bodies)}
        return found


def _read(name: str, state: Any) -> Any:
    return Decimal(state) if name == "least" and state is not None else state


def expected(spec: CountedWindows, events: Iterable[tuple[int, Sent]]) -> dict[Any, dict[str, Any]]:
    """By window and group, the exact values of all events."""
    cells: dict[Any, list[tuple[int, Sent]]] = defaultdict(list)
    for offset, sent in events:
        start = sent.time - sent.time % spec.pane_ms
        group = tuple(_plain(_get(sent.order, path)) for path in spec.by_fields)
        cells[start, group].append((offset, sent))
    return {
        cell: {name: value_of(each, own) for name, each in spec.aggregates.items()}
        for cell, own in cells.items()
    }


def finished(spec: CountedWindows, totals: dict[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """As `expected` has them, of totals as JSON has them."""
    return {
        cell: {
            name: _comparable(each, each.finish(states[name]))
            for name, each in spec.aggregates.items()
        }
        for cell, states in totals.items()
    }


def _comparable(aggregate: Any, values: tuple[Any, ...]) -> Any:
    if isinstance(aggregate, Quantiles):
        return values
    [value] = values
    if isinstance(aggregate, Sum) and value is not None:
        return Fraction(value)
    return value


def value_of(aggregate: Any, events: Sequence[tuple[int, Sent]]) -> Any:
    chosen = [
        (sent.order.placed, offset, _plain(_get(sent.order, aggregate.field)))
        for offset, sent in events
        if aggregate.where is None or aggregate.where(sent.order)
    ]
    if aggregate.field is None:
        return len(chosen)
    entries = sorted(entry for entry in chosen if entry[-1] is not None)
    values = [value for *_, value in entries]
    compute: Callable[[list[Any]], Any] = {
        Count: len,
        Sum: lambda numbers: sum(map(Fraction, numbers)),
        Mean: lambda numbers: sum(map(Fraction, numbers)) / len(numbers),
        Min: min,
        Max: max,
        First: lambda each: each[0],
        Last: lambda each: each[-1],
        Distinct: lambda each: len({*each}),
        Quantiles: lambda each: tuple(
            sorted(each)[max(0, -(-len(each) * Fraction(str(share)) // 1) - 1)]
            for share in aggregate.at
        ),
    }[type(aggregate)]
    if not values:
        return 0 if isinstance(aggregate, Count | Distinct) else None
    value = compute(values)
    return value.isoformat(timespec="microseconds").replace("+00:00", "Z") if isinstance(
        value, datetime
    ) else value  # fmt: skip


def _get(order: Order, path: str | None) -> Any:
    if path is None:
        return None
    try:
        return attrgetter(path)(order)
    except AttributeError:
        return None


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def count(windows: PartitionWindows, offset: int, sent: Sent) -> None:
    windows.count([(offset, sent.time * 1000, sent.order, sent.appended)])


@cache
def plans(specs: tuple[Windows, ...]) -> tuple[Plan, ...]:
    return plans_of(stream_of(specs))


def restarted(specs: Sequence[Windows], committed: Progress | None) -> PartitionWindows:
    """The windows of a worker that finds what another one has committed."""
    if committed is None:
        return PartitionWindows(plans(tuple(specs)))
    metadata = committed.metadata()
    assert len(metadata) < 1_000
    progress = Progress.parse(committed.resume, metadata)
    assert progress == committed
    return PartitionWindows(plans(tuple(specs)), progress)
