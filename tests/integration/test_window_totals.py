"""Windows with aggregates from events to totals: whatever is killed, they are those of the events."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from conftest import SettingsFactory
from faults import wait_until
from loads import FakeRecord, Load, rows, value
from pipeline import audit, folder, produce, topics_of, workers
from streamflow import Distinct, Quantiles, Stream, TumblingWindow
from streamflow.flow import Batch, Partition
from streamflow.postgres import schema
from streamflow.records import OutRecord, Position
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streaming_workers.analytics import Analytics
from window_parts import HOPPING, ORDERS, TUMBLING, Order, Placed, orders, shown, totals

pytestmark = pytest.mark.integration


class _Log:
    """Events in their topic, as analytics reads them, in batches of random sizes."""

    def __init__(self, placed: Sequence[Placed], seed: int) -> None:
        self._rng = random.Random(seed)
        self._records: dict[Partition, list[FakeRecord]] = defaultdict(list)
        for partition, offset, order in placed:
            self._records[ORDERS.topic, partition].append(
                FakeRecord(offset, ORDERS.encode(order)[1], topic=ORDERS.topic, partition=partition)
            )
        self.partitions = list(self._records)

    def batches(self, starts: dict[Partition, int]) -> Iterator[Batch]:
        positions = {each: max(start, 0) for each, start in starts.items()}
        while unread := [each for each in positions if positions[each] < len(self._records[each])]:
            partition = self._rng.choice(unread)
            begin = positions[partition]
            read = self._records[partition][begin : begin + self._rng.randrange(1, 60)]
            positions[partition] += len(read)
            yield Batch(read, [Position(*partition, positions[partition])])


def counted(placed: Sequence[Placed], seed: int, stream: Stream = ORDERS) -> list[OutRecord]:
    """What analytics commits, while it is killed and stopped now and then."""
    rng, log = random.Random(seed), _Log(placed, seed)
    committed: dict[Partition, Position | None] = dict.fromkeys(log.partitions)
    records: list[OutRecord] = []
    done = False
    while not done:
        worker = Analytics(Settings(), [stream])
        done = True
        for batch in log.batches(worker.assign(committed)):
            output = worker.process(batch)
            fate = rng.random()
            if fate < 0.1:  # killed before its transaction was committed
                done = False
                break
            outputs = [output]
            if fate < 0.2:  # stopped
                outputs.append(worker.finish(Batch([], [])))
                done = False
            for each in outputs:
                if each is not None:
                    records += each.records
                    committed |= {position[:2]: position for position in each.positions}
            if not done:
                break
    last = worker.finish(Batch([], []))
    return records if last is None else [*records, *last.records]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_parts_of_analytics_add_up_to_the_events(database: Settings, seed: int) -> None:
    schema.upgrade(database, [ORDERS])
    placed = orders(800, seed)
    records = [
        FakeRecord(offset, record.value, topic=record.topic, headers=list(record.headers))
        for offset, record in enumerate(counted(placed, seed))
    ]
    random.Random(seed).shuffle(records)  # partitions of the topic have no order among themselves
    load = Load(database, [ORDERS])
    try:
        load.load(records)
        assert load.delivered == []
    finally:
        load.sink.close()

    assert len(records) > 400
    for name in (TUMBLING, HOPPING):
        assert shown(database, name) == totals(placed, name)


@pytest.fixture
def stack(settings: SettingsFactory, database_url: str) -> Iterator[Settings]:
    made = settings(DATABASE_URL=database_url, STREAMFLOW_STREAMS="window_parts:ORDERS")
    schema.upgrade(made, load_streams(made))
    with topics_of(made):
        yield made


def stored(settings: Settings) -> list[Placed]:
    """The events, where their topic has them."""
    query = """
        SELECT origin_partition, origin_offset, kind, at, country, address, customer, total, weight, quantity
          FROM orders
    """
    found = []
    for partition, offset, *values in rows(settings, query):
        order = Order.model_construct(**dict(zip(Order.model_fields, values, strict=True)))
        order.__dict__["address"] = Order.model_fields["address"].annotation(**values[3])
        found.append(Placed(partition, offset, order))
    return found


@pytest.mark.chaos  # `test_windows_under_faults` is its short form
def test_totals_after_kills(stack: Settings, tmp_path: Path) -> None:
    made = [ORDERS.encode(each.order)[1] for each in orders(3_000)]

    def counts(name: str) -> int:
        return int(value(stack, f"SELECT coalesce(sum(counted), 0) FROM {name}"))

    produce(stack, "orders", made[:2_000])
    with workers(stack, folder(tmp_path, "first")) as running:
        wait_until(lambda: counts(TUMBLING) > 0, 60, "the first windows")
        running["analytics"].kill()
        running["loader"].kill()
    produce(stack, "orders", made[2_000:])
    with workers(stack, folder(tmp_path, "second")) as running:
        wait_until(lambda: counts(TUMBLING) >= 2_500, 60, "more windows")
        running["analytics"].kill()
    with workers(stack, folder(tmp_path, "third")):
        wait_until(
            lambda: counts(TUMBLING) == counts(HOPPING) == len(made), 60, "all events in windows"
        )
        report = audit(stack)

    assert report.closed, [str(problem) for problem in report.problems]
    placed = stored(stack)
    assert len(placed) == len(made)
    for name in (TUMBLING, HOPPING):
        assert shown(stack, name) == totals(placed, name)


SKETCHES = replace(
    ORDERS,
    windows=[
        TumblingWindow(
            "10min", by="country", some=Distinct("customer", lg_k=5), all=Distinct("customer"),
            weights=Quantiles("weight", at=(0, 0.25, 0.5, 1), k=8),
        ),
    ],
)  # fmt: skip


def test_sketches_merge_in_sql_as_in_python(database: Settings) -> None:
    """Beyond what they hold exactly, and however many parts there are."""
    schema.upgrade(database, [SKETCHES])
    rng, log = random.Random(1), orders(6_000)
    placed = [
        each._replace(order=each.order.model_copy(update={"customer": f"c{rng.randrange(4_000)}"}))
        for each in log
    ]
    records = counted(placed, 1, SKETCHES)
    load = Load(database, [SKETCHES])
    try:
        load.load(
            [
                FakeRecord(offset, each.value, topic=each.topic, headers=list(each.headers))
                for offset, each in enumerate(records)
            ]
        )
        assert load.delivered == []
    finally:
        load.sink.close()

    [windows] = SKETCHES.windows
    parts: dict[object, list[Any]] = defaultdict(list)
    for each in records:
        body = orjson.loads(each.value or b"")
        parts[body["by"]["country"]].append((body["partition"], body["aggregates"]))
    found = {}
    for country, *finished in rows(
        database,
        'SELECT country, "some", "all", weights_p0, weights_p25, weights_p50, weights_p100'
        " FROM orders_10min_totals",
    ):
        found[country] = finished
    assert found == {
        country: [
            value
            for name, aggregate in windows.aggregates.items()
            for value in aggregate.finish(
                aggregate.merge([(number, states[name]) for number, states in states_of])
            )
        ]
        for country, states_of in parts.items()
    }
    exact = {
        country: len({each.order.customer for each in placed if each.order.country == country})
        for country in parts
    }
    for country, (some, every, *_) in found.items():
        assert every == exact[country]
        assert some != every
        assert abs(some - every) < 5 * every / 2**2.5
