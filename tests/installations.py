"""Analytics and the loader without Kafka, with a real database."""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from loads import TRUSTING, FakeRecord, Load, execute
from streamflow import Stream
from streamflow.audit.windows.parts import TopicsOfParts
from streamflow.audit.windows.reconciliation import Reconciliation
from streamflow.audit.windows.tables import Compared, counted_tables, reconcile_table
from streamflow.flow import Batch, Partition
from streamflow.postgres import schema
from streamflow.postgres.connections import session
from streamflow.records import OutRecord, Position
from streamflow.settings import Settings
from streamflow.windows.progress import Progress
from streaming_workers.analytics import Analytics
from window_parts import NOON, ORDERS, TUMBLING, Placed

NOON_MS = int(NOON.timestamp() * 1000)


class Installation:
    """Analytics and the loader in this process, over the events of one topic."""

    def __init__(self, settings: Settings, stream: Stream = ORDERS) -> None:
        self.settings, self.stream = settings, stream
        schema.upgrade(settings, [stream])
        self.committed: dict[Partition, Position | None] = {}
        self.loaded: list[FakeRecord] = []
        self._made = 0
        self._records: dict[int, list[FakeRecord]] = defaultdict(list)

    def load(self, placed: Sequence[Placed], *, seed: int = 1) -> None:
        """Stores the events; analytics counts them in batches, and is killed and stopped now and then."""
        records = [
            FakeRecord(
                offset,
                self.stream.encode(order)[1],
                topic=self.stream.topic,
                partition=partition,
                appended=NOON_MS + 600_000 + offset,
            )
            for partition, offset, order in placed
        ]
        for record in records:
            self._records[record.partition()].append(record)
        self._store(records)
        parts = self._counted(random.Random(seed))
        self.loaded += [*records, *parts]
        self._store(parts)

    def load_again(self) -> None:
        """All records, as after an older backup was restored."""
        execute(self.settings, "UPDATE loader_positions SET next_offset = 0")
        self._store(self.loaded)

    def _counted(self, rng: random.Random) -> list[FakeRecord]:
        for partition in self._records:
            self.committed.setdefault((self.stream.topic, partition), None)
        made: list[OutRecord] = []
        while True:
            worker = Analytics(Settings(), [self.stream], clock=lambda: NOON_MS / 1000)
            starts = worker.assign(self.committed)
            for partition, start in starts.items():
                own = [each for each in self._records[partition[1]] if each.offset() >= start]
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

    def release(self, stream: Stream) -> None:
        """Another release of the stream; the one before has stopped."""
        self.stream = stream
        schema.upgrade(self.settings, [stream])

    def progress(self, partition: int) -> Progress:
        position = self.committed[self.stream.topic, partition]
        assert position is not None
        progress = Progress.parse(position.offset, position.metadata)
        assert progress is not None
        return progress

    def compare(self, name: str, partition: int = 0, **changes: Any) -> Reconciliation:
        progress = self.progress(partition)
        [table] = [each for each in counted_tables(self.stream, progress) if each.name == name]
        with session(self.settings, "test") as connection:
            compared = Compared(
                table,
                partition,
                progress.windows[name],
                progress.position,
                progress.resume,
                **(
                    {"topics": TopicsOfParts(len(self.committed), 1)} | changes
                    if partition == 0
                    else changes
                ),
            )
            return reconcile_table(connection, compared)

    def problems(self, name: str = TUMBLING, **changes: Any) -> list[str]:
        """What is wrong with the windows of all partitions."""
        return [
            problem.detail
            for _, partition in sorted(self.committed)
            for problem in self.compare(name, partition, **changes).differences
        ]
