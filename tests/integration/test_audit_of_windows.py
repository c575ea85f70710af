"""The audit of windows with aggregates: they tell what the events tell, and each value that does not is
named."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from conftest import SettingsFactory
from faults import wait_until
from loads import TRUSTING, FakeRecord, Load, execute, rows, value
from pipeline import folder, produce, streamflow, topics_of, workers
from streamflow import (
    Count,
    Distinct,
    First,
    HoppingWindow,
    Max,
    Quantiles,
    Stream,
    Sum,
    TumblingWindow,
)
from streamflow.audit.windows.reconciliation import Reconciliation
from streamflow.audit.windows.tables import Compared, counted_tables, reconcile_table
from streamflow.flow import Batch, Partition
from streamflow.postgres import schema
from streamflow.postgres.connections import session
from streamflow.records import OutRecord, Position
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow.windows.progress import Progress
from streaming_workers.analytics import Analytics
from window_parts import HOPPING, NOON, ORDERS, TUMBLING, Placed, orders

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NOON_MS = int(NOON.timestamp() * 1000)


class Installation:
    """Analytics and the loader in this process, over the events of one topic."""

    def __init__(self, settings: Settings, stream: Stream = ORDERS) -> None:
        self.settings, self.stream = settings, stream
        schema.upgrade(settings, [stream])
        self.committed: dict[Partition, Position | None] = {}
        self._made = 0

    def load(self, placed: Sequence[Placed], *, seed: int = 1) -> None:
        """Stores the events; analytics counts them in batches, and is killed and stopped now and then."""
        records = defaultdict(list)
        for partition, offset, order in placed:
            appended = NOON_MS + 600_000 + offset
            records[partition].append(
                FakeRecord(
                    offset,
                    self.stream.encode(order)[1],
                    topic=self.stream.topic,
                    partition=partition,
                    appended=appended,
                )
            )
        everything = [each for part in records.values() for each in part]
        self._store(everything)
        self._store(self._counted(records, random.Random(seed)))

    def _counted(
        self, records: dict[int, list[FakeRecord]], rng: random.Random
    ) -> list[FakeRecord]:
        for partition in records:
            self.committed.setdefault((self.stream.topic, partition), None)
        made: list[OutRecord] = []
        while True:
            worker = Analytics(Settings(), [self.stream], clock=lambda: NOON_MS / 1000)
            starts = worker.assign(self.committed)
            for partition, start in starts.items():
                own = [each for each in records[partition[1]] if each.offset() >= start]
                while own:
                    size = rng.randrange(1, 60)
                    batch, own = own[:size], own[size:]
                    position = Position(*partition, batch[-1].offset() + 1)
                    output = worker.process(Batch(batch, [position]))
                    fate = rng.random()
                    if fate < 0.1:
                        break
                    self._keep(made, output)
                    if fate < 0.15:
                        self._keep(made, worker.finish(Batch([], [])))
                        break
                else:
                    continue
                break
            else:
                self._keep(made, worker.process(Batch([], [])))
                return [self._record(each) for each in made]

    def _keep(self, made: list[OutRecord], output: Any) -> None:
        if output is not None:
            made += output.records
            self.committed |= {position[:2]: position for position in output.positions}

    def _record(self, made: OutRecord) -> FakeRecord:
        self._made += 1
        return FakeRecord(
            self._made - 1, made.value, topic=made.topic, headers=list(made.headers or ())
        )

    def _store(self, records: Sequence[FakeRecord]) -> None:
        load = Load(self.settings, [self.stream], TRUSTING)
        try:
            load.load(records)
            assert load.delivered == []
        finally:
            load.sink.close()

    def compare(self, name: str, partition: int = 0, **changes: Any) -> Reconciliation:
        position = self.committed[self.stream.topic, partition]
        assert position is not None
        progress = Progress.parse(position.offset, position.metadata)
        assert progress is not None
        [table] = [each for each in counted_tables(self.stream, progress) if each.name == name]
        with session(self.settings, "test") as connection:
            compared = Compared(
                table, partition, progress.windows[name], progress.position, **changes
            )
            return reconcile_table(connection, compared)

    def problems(self, name: str = TUMBLING, **changes: Any) -> list[str]:
        """What is wrong with the windows of all partitions."""
        return [
            problem.detail
            for _, partition in sorted(self.committed)
            for problem in self.compare(name, partition, **changes).differences
        ]


@pytest.mark.parametrize("seed", [1, 2])
def test_windows_that_tell_what_the_events_tell(database: Settings, seed: int) -> None:
    own = Installation(database)
    placed = orders(1_500, seed, partitions=2)
    own.load(placed, seed=seed)

    for name in (TUMBLING, HOPPING):
        assert own.problems(name) == []
        compared = [own.compare(name, partition) for partition in range(2)]
        emitted = sum(each.events.total() for each in compared)
        assert emitted + sum(each.open.total() for each in compared) == len(placed)
        assert emitted > 0.8 * len(placed)
        assert sum(each.cells for each in compared) > 100


def in_order(number: int) -> list[Placed]:
    """Events of one minute, in the order of their times."""
    made = [each.order for each in orders(number)]
    placed = [
        order.model_copy(update={"at": NOON + (order.at - NOON) / 10})
        for order in sorted(made, key=lambda order: order.at)
    ]
    return [Placed(place % 2, place // 2, order) for place, order in enumerate(placed)]


ROW = "(partition, first_offset, window_start) = ({partition}, {first}, '{start}')"
# What is changed in one row, and what is said of its cell.
PLANTED = {
    "orders = orders + 1": "orders is {orders:+1}, the events give {orders}",
    "quantities = quantities + 1": "quantities is {quantities:+1}, the events give {quantities}",
    "revenue = revenue + 1": "revenue is {revenue:+1}, the events give {revenue}",
    "weight = weight + 1e-40": "weight is ",
    "placed = coalesce(placed, 0) - 1": "placed is ",
    "mean_total_sum = mean_total_sum - 0.01": "mean_total_sum is ",
    "mean_weight_count = mean_weight_count + 1": "mean_weight_count is {orders:+1}, the events give {orders}",
    "cheapest = cheapest + 1": "cheapest is {cheapest:+1}, the events give {cheapest}",
    "heaviest = NULL": "heaviest is null, the events give {heaviest}",
    "first_name = 'Zoe'": "first_name is Zoe, the events give {first_name}",
    "latest = latest + interval '1 us'": "latest is ",
    "opened_by = 'nobody'": "opened_by is nobody, the events give {opened_by}",
    "closed_by_offset = closed_by_offset + 1": (
        "closed_by_offset is {closed_by_offset:+1}, the events give {closed_by_offset}"
    ),
    "closed_by_time = closed_by_time - interval '1 us'": "closed_by_time is ",
    "customers_hashes = customers_hashes[2:]": "customers is {distinct:-1}, the events give {distinct}",
    "customers_hashes[1] = customers_hashes[1] - 1": (
        "customers is {distinct}, of other values than the events give"
    ),
    "customers_theta = 1": "customers is 0, the events give ",
    "sizes_values[1] = sizes_values[1] - 1e-3": "sizes is of other numbers than the events give",
    "sizes_weights[1] = 2": "sizes is of {orders:+1} numbers, the events give {orders}",
    "counted = counted - 1": "{orders} events, {orders:-1} counted",
    "too_late = too_late + 1": "{orders} events, {orders:+1} counted",
}


class _Number(int):
    def __format__(self, change: str) -> str:
        return str(self + int(change or 0))


class _Decimal(Decimal):
    def __format__(self, change: str) -> str:
        return f"{Decimal(self) + int(change or 0):f}"


def shown_values(row: dict[str, Any]) -> dict[str, Any]:
    row = row | {"distinct": len(row["customers_hashes"])}
    kinds: dict[type, Callable[[Any], Any]] = {int: _Number, Decimal: _Decimal}
    return {name: kinds.get(type(each), lambda same: same)(each) for name, each in row.items()}


def test_each_planted_fault_is_named(database: Settings) -> None:
    own = Installation(database)
    own.load(in_order(600))
    execute(database, "CREATE TABLE kept AS TABLE orders_10s")
    [row] = dict_rows(
        database,
        "SELECT * FROM orders_10s AS part WHERE counted > 2 AND country = 'DE' AND NOT EXISTS (SELECT"
        " FROM orders_10s AS other WHERE (other.window_start, other.country, other.partition)"
        " = (part.window_start, part.country, part.partition) AND other.first_offset <> part.first_offset)"
        " ORDER BY record_offset LIMIT 1",
    )
    assert not own.problems()
    of_row = ROW.format(
        partition=row["partition"], first=row["first_offset"], start=row["window_start"]
    )
    group = f"window orders_10s {row['window_start']:%Y-%m-%dT%H:%M:%SZ} country=DE: "
    values = shown_values(row)

    def planted(statement: str) -> list[str]:
        execute(database, statement)
        problems = own.problems()
        execute(database, "DELETE FROM orders_10s; INSERT INTO orders_10s SELECT * FROM kept")
        return problems

    for change, said in PLANTED.items():
        [problem] = planted(f"UPDATE orders_10s SET {change} WHERE {of_row}")
        assert problem.startswith(group + said.format(**values)), (change, problem)
    [problem] = planted(f"DELETE FROM orders_10s WHERE {of_row}")
    assert problem.startswith(f"{group}{row['counted']} events, 0 counted")
    copied = ", ".join(name for name in row if name != "first_offset")
    [problem] = planted(
        f"INSERT INTO orders_10s ({copied}, first_offset) SELECT {copied}, last_offset FROM orders_10s"
        f" WHERE {of_row}"
    )
    assert problem.startswith(f"{group}{row['counted']} events, {2 * row['counted']} counted")
    moved = planted(f"UPDATE orders_10s SET country = 'a b' WHERE {of_row}")
    assert [problem.split(";")[0] for problem in moved] == [
        f"{group}{row['counted']} events, 0 counted",
        f"{group.replace('DE', chr(34) + 'a b' + chr(34))}0 events, {row['counted']} counted",
    ]
    assert not own.problems()


def dict_rows(settings: Settings, query: str) -> list[dict[str, Any]]:
    with psycopg.connect(settings.database, row_factory=dict_row) as connection:
        connection.execute("SET timezone = 'UTC'")
        return connection.execute(query.encode()).fetchall()
