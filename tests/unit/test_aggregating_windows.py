"""Several declarations at once, any order and lateness of events, any restart: each window's aggregates are
those of its events, each counted once."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow.windows.partition import PartitionWindows
from streamflow.windows.progress import Progress
from streamflow.windows.results import key_and_body
from streamflow.windows.specs import CountedWindows
from windowing import (
    ALL,
    BY_COUNTRY,
    COUNTS,
    EPOCH,
    HOPPING,
    JOINING,
    STRICT,
    Basket,
    Country,
    Emitted,
    Order,
    Sent,
    count,
    expected,
    finished,
    plans,
    restarted,
)

ORDERS = st.builds(
    Order.model_construct,
    kind=st.sampled_from(["placed", "cancelled"]),
    country=st.sampled_from([*Country, None]),
    customer=st.sampled_from([f"customer {number}" for number in range(12)]),
    total=st.none() | st.decimals("-100", "100", places=2),
    weight=st.floats(0, 2),
    basket=st.none()
    | st.builds(Basket, city=st.sampled_from(["Bonn", "Metz", None]), items=st.integers(0, 10**20)),
    placed=st.integers(-50_000_000, 900_000_000).map(lambda us: EPOCH + timedelta(microseconds=us)),
)
# How far the broker's clock is from the event's, in milliseconds.
SENT = st.builds(
    lambda order, clock: Sent(order, (order.placed - EPOCH) // timedelta(milliseconds=1) + clock),
    ORDERS,
    st.integers(-600_000, 100_000),
)
STEPS = st.lists(
    st.tuples(st.integers(1, 12), st.sampled_from(["go on", "crash", "restart", "stop", "idle"])),
    max_size=60,
)
SPANS = st.lists(st.sampled_from([timedelta(0), timedelta(seconds=5), timedelta(minutes=2)]))


class Worker:
    """One partition's worker that is killed and restarted with other releases."""

    def __init__(
        self, log: list[Sent], joins: int, graces: list[timedelta], aheads: list[timedelta]
    ) -> None:
        self.log, self.joins, self.graces, self.aheads = log, joins, graces, aheads
        self.committed: Progress | None = None
        self.emitted = Emitted()
        self.too_late: set[int] = set()  # offsets, of the strict windows
        self._judged: set[int] = set()
        self.start()

    def start(self) -> None:
        specs: list[CountedWindows] = [BY_COUNTRY, HOPPING, COUNTS, STRICT]
        self.joins -= 1
        if self.joins < 0:
            specs.insert(1, JOINING)
        grace = self.graces.pop() if self.graces else BY_COUNTRY.grace
        ahead = self.aheads.pop() if self.aheads else BY_COUNTRY.ahead
        changed = [replace(specs[0], grace=grace, ahead=ahead), *specs[1:]]
        self.windows = restarted(changed, self.committed)
        self.offset = self.windows.read_to
        self._judged = set()

    def step(self, size: int, step: str) -> None:
        [strict] = [each for each in self.windows._windows if each.plan.name == "strict"]
        for sent in self.log[self.offset : self.offset + size]:
            closed, end = strict.closed_through, sent.time - sent.time % 10_000 + 10_000
            late = closed is not None and sent.time < closed
            if late and end + 20_000 <= closed and self.offset >= self.windows._counted_to:  # type: ignore[operator]
                self._judged.add(self.offset)
            count(self.windows, self.offset, sent)
            self.offset += 1
        self.windows.advance(self.offset)
        self.windows.close_due()
        if step == "idle":
            self.windows.close_idle(10**6, 10**6)
        results = self.windows.hand_over() if step == "stop" else self.windows.take()
        if step == "crash":
            self.start()
            return
        self.emitted.take(results)
        self.committed = self.windows.progress()
        self.too_late |= self._judged
        if step in ("restart", "stop"):
            self.start()


@given(st.lists(SENT, max_size=60), STEPS, st.integers(0, 4), SPANS, SPANS)
def test_each_event_is_aggregated_exactly_once(
    log: list[Sent],
    steps: list[tuple[int, str]],
    joins: int,
    graces: list[timedelta],
    aheads: list[timedelta],
) -> None:
    worker = Worker(log, joins, graces, aheads)
    for size, step in [*steps, (len(log), "go on"), (len(log), "go on"), (1, "idle")]:
        worker.step(size, step)
    assert worker.offset == len(log)
    assert worker.committed is not None
    assert worker.committed.resume == len(log)
    numbered = list(enumerate(log))
    for spec in (BY_COUNTRY, HOPPING):
        found = worker.emitted.totals(spec.table_of("orders"), spec)
        assert finished(spec, found) == expected(spec, numbered)
        assert all(cell["counted"] == cell["n"] for cell in found.values())
        assert not any(cell["too_late"] for cell in found.values())
    counted = {
        (start, group): sum(body["count"] for body in bodies)
        for (name, start, group), bodies in worker.emitted.parts.items()
        if name == "window_counts"
    }
    assert counted == Counter((s.time - s.time % 10_000, (s.order.kind,)) for s in log)

    joined = worker.committed.windows.get("orders_1min")
    since = len(log) if joined is None else joined.since
    assert finished(JOINING, worker.emitted.totals("orders_1min", JOINING)) == expected(
        JOINING, numbered[since:]
    )
    strict = worker.emitted.totals("strict", STRICT)
    in_time = [(offset, sent) for offset, sent in numbered if offset not in worker.too_late]
    of_events = {cell: states for cell, states in finished(STRICT, strict).items() if states["n"]}
    assert of_events == expected(STRICT, in_time)
    late = Counter(log[o].time - log[o].time % 10_000 for o in worker.too_late)
    assert late == {
        start: cell["too_late"] for (start, _), cell in strict.items() if cell["too_late"]
    }


SQL = """
SELECT 10000 * (epoch_us(placed) // 10000000), country, count(*),
       count(*) FILTER (kind = 'placed'), count(total), sum(total), sum(items), min(total), max(customer),
       arg_min(customer, (placed, position)), arg_max(city, (placed, position)) FILTER (city IS NOT NULL),
       count(DISTINCT customer), quantile_disc(weight, [0.5, 0.9]), sum(weight), avg(total)
FROM orders GROUP BY 1, 2
"""
NAMES = (
    "n", "placed_n", "with_total", "revenue", "items", "least", "most", "opening", "closing", "customers",
    "middle",
)  # fmt: skip


@settings(max_examples=30)
@given(st.lists(SENT.filter(lambda sent: sent.time >= 0), min_size=1, max_size=40))
def test_duckdb_computes_the_same(log: list[Sent]) -> None:
    windows, emitted = restarted([BY_COUNTRY], None), Emitted()
    for offset, sent in enumerate(log):
        count(windows, offset, sent)
    emitted.take(windows.hand_over())
    found = finished(BY_COUNTRY, emitted.totals("orders_10s", BY_COUNTRY))
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE orders (position INT, kind TEXT, country TEXT, customer TEXT, total DECIMAL(12, 2),"
            " weight DOUBLE, city TEXT, items HUGEINT, placed TIMESTAMPTZ)"
        )
        marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * len(log))
        values = [
            value
            for offset, order in enumerate(each.order for each in log)
            for value in (
                offset, order.kind, order.country and order.country.value, order.customer, order.total,
                order.weight, order.basket and order.basket.city, order.basket and order.basket.items,
                order.placed,
            )
        ]  # fmt: skip
        connection.execute(f"INSERT INTO orders VALUES {marks}", values)
        rows = connection.execute(SQL).fetchall()
    assert len(rows) == len(found)
    for start, country, *values, weight, mean in rows:
        cell = found[start, (country,)]
        of_duckdb = dict(zip(NAMES, values, strict=True))
        of_duckdb["middle"] = tuple(of_duckdb["middle"])
        assert {name: cell[name] for name in NAMES} == of_duckdb
        # Which it rounds at each step, and we not at all.
        assert abs(float(cell["weight"]) - weight) <= 1e-9
        assert (cell["mean"] is None) == (mean is None)
        assert mean is None or abs(float(cell["mean"]) - mean) <= 1e-9


def order(at: float, total: str = "1", **changes: Any) -> Sent:
    values: dict[str, Any] = {
        "kind": "placed", "country": Country.GERMANY, "customer": "ann", "total": Decimal(total),
        "weight": 1.0, "basket": None, "placed": EPOCH + timedelta(seconds=at),
    }  # fmt: skip
    return Sent(Order.model_construct(**values | changes), round(at * 1000))


def test_too_late_events_are_counted_and_not_aggregated() -> None:
    windows, emitted = restarted([STRICT], None), Emitted()
    for offset, sent in enumerate([order(5), order(30.9)]):
        count(windows, offset, sent)
    windows.close_due()  # through 20 s, as the grace is 1 s: not 20 s after the window's end at 10 s
    assert [each.counted for each in windows.take()] == [1]
    count(windows, 2, order(6))
    emitted.take(windows.take())
    count(windows, 3, order(31))  # through 30 s
    windows.close_due()
    count(windows, 4, order(7, "5"))
    count(windows, 5, order(11, "7"))
    emitted.take(windows.take())
    [own] = [bodies for (_, start, _), bodies in emitted.parts.items() if start == 0]
    assert [(body["counted"], body["too_late"], body["aggregates"]) for body in own] == [
        (1, 0, {"n": 1, "revenue": "1"}),
        (0, 1, {"n": 0, "revenue": None}),
    ]
    assert [(body["late"], body["first_offset"]) for body in own] == [(True, 2), (True, 4)]
    assert emitted.totals("strict", STRICT)[10_000, ()]["counted"] == 1


def test_records_of_windows() -> None:
    windows = restarted([BY_COUNTRY, COUNTS], None)
    count(windows, 7, order(1, customer="x" * 300))
    of_country, of_kind = (key_and_body(each, 3) for each in windows.hand_over())
    assert of_country[0] == b"orders_10s DE"
    body = of_country[1]
    assert [*body] == [
        "window", "window_start", "window_end", "by", "aggregates", "counted", "too_late", "partition",
        "late", "first_offset", "last_offset",
    ]  # fmt: skip
    assert (body["by"], body["partition"], body["first_offset"]) == ({"country": "DE"}, 3, 7)
    assert [*body["aggregates"]] == [*ALL]
    assert len(body["aggregates"]["most"]) == 217
    assert body["aggregates"]["opening"]["time"] == "1970-01-01T00:00:01.000000Z"
    assert of_kind == (
        b"placed",
        {
            "window_start": "1970-01-01T00:00:00.000Z", "window_end": "1970-01-01T00:00:10.000Z",
            "event_type": "placed", "count": 1, "partition": 3, "late": False, "first_offset": 7,
            "last_offset": 7,
        },
    )  # fmt: skip


def test_windows_that_join_a_release_that_only_counted() -> None:
    counting = restarted([COUNTS], None)
    for offset in range(3):
        count(counting, offset, order(offset))
    counting.advance(3)
    metadata = counting.progress().metadata()
    assert metadata == "1;3;;300000"
    windows, emitted = restarted([COUNTS, JOINING], Progress.parse(0, metadata)), Emitted()
    for offset in range(5):
        count(windows, offset, order(offset))
    windows.advance(5)
    emitted.take(windows.hand_over())
    assert emitted.totals("orders_1min", JOINING)[0, ()]["n"] == 2
    assert [body["count"] for body in emitted.parts["window_counts", 0, ("placed",)]] == [5]
    # And they leave again.
    assert restarted([COUNTS], windows.progress()).progress().metadata() == "2;5;;300000;10000"


def test_windows_that_count_something_else_begin_anew() -> None:
    windows = restarted([JOINING], None)
    for offset in range(3):
        count(windows, offset, order(offset))
    windows.advance(3)
    progress = windows.progress()
    assert (progress.resume, progress.position) == (0, 3)
    changed = replace(JOINING, aggregates={"n": JOINING.aggregates["n"]})
    windows, emitted = restarted([changed, STRICT], progress), Emitted()
    for offset in range(5):
        count(windows, offset, order(offset))
    windows.advance(5)
    emitted.take(windows.hand_over())
    assert emitted.totals("orders_1min", changed)[0, ()]["n"] == 2
    assert emitted.totals("strict", STRICT)[0, ()]["n"] == 2
    assert {each.since for each in windows.progress().windows.values()} == {3}


def test_without_progress_windows_count_as_if_from_the_beginning() -> None:
    """The group was moved to offset 3 by hand. What was skipped must be compared, so `since` is 0."""
    windows, emitted = PartitionWindows(plans((COUNTS, JOINING)), None, start=3), Emitted()
    for offset in range(3, 5):
        count(windows, offset, order(offset))
    windows.advance(5)
    emitted.take(windows.hand_over())
    assert emitted.totals("orders_1min", JOINING)[0, ()]["n"] == 2
    progress = windows.progress()
    assert (progress.resume, progress.position) == (5, 5)
    assert {name: each.since for name, each in progress.windows.items()} == {
        "window_counts": 0,
        "orders_1min": 0,
    }


def test_a_limit_for_late_events_may_change() -> None:
    """It decides nothing that is judged again."""
    windows = restarted([STRICT], None)
    count(windows, 0, order(1))
    windows.advance(1)
    later = replace(STRICT, late_after=timedelta(days=1))
    successor = restarted([later], windows.progress())
    count(successor, 0, order(1))
    [part] = successor.hand_over() if not successor.catching_up else [None]
    successor.advance(1)
    assert part is None
    assert [each.counted for each in successor.hand_over()] == [1]


def test_events_are_not_kept() -> None:
    windows = restarted([BY_COUNTRY], None)
    count(windows, 0, order(1))
    windows.aggregate()
    [counter] = windows._windows
    assert [(cell.count, cell.values) for cell in counter._open.values()] == [(1, [])]
