"""The shop's pipeline: workers as processes, topics, tables, and what is done to them."""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import NewPartitions

from faults import wait_until
from loads import value
from pipeline import WorkerProcess, audit, environment, streamflow
from services import BrokerService
from shop_events import Sent
from shop_streams import ORDERS, READINGS
from streamflow.kafka import clients, offsets
from streamflow.postgres.connections import session
from streamflow.postgres.sessions.tables import session_tables
from streamflow.settings import Settings
from streamflow_dagster.defs.sessions_sql import compute_sessions

FIRST: Final = ("shop_streams:ORDERS", "shop_streams:READINGS")
SECOND: Final = ("shop_streams:MORE_ORDERS", "shop_streams:READINGS")
WORKERS: Final = ("validator", "analytics", "loader")
REPLAY: Final = ("dlq", "replay", "--repair", "mend", "--apply", "--wait", "60")
PATIENCE: Final = 120.0  # seconds
HUNG: Final = 75  # the exit code that a watchdog gives
AT_ONCE: Final = 20  # events
RATE: Final = 300  # events a second, at most


class ShopRig:
    """A pipeline of its own topics and tables.

    Attributes:
        ends: of the partitions of orders, when the second release began.
    """

    def __init__(self, settings: Settings, broker: BrokerService, directory: Path) -> None:
        self.settings = settings
        self.directory = directory
        self.ends: dict[tuple[str, int], int] = {}
        self._broker = broker
        self._starts = 0
        self._admin = clients.admin(settings)
        self._workers: dict[str, WorkerProcess] = {}
        self._producer = Producer(
            {
                "bootstrap.servers": settings.bootstrap,
                "enable.idempotence": True,
                "topic.metadata.refresh.interval.ms": 1_000,
                "log_level": 0,
            }
        )

    def start(self) -> None:
        self._prepare()
        for name in WORKERS:
            self._run(name)

    def stop(self) -> None:
        for worker in self._workers.values():
            if worker.process.poll() is None:
                worker.kill()

    def _prepare(self) -> None:
        done = streamflow(self.settings, "init")
        assert done.returncode == 0, done.stdout + done.stderr

    def _run(self, name: str) -> None:
        self._starts += 1
        log = self.directory / f"{name}-{self._starts}.log"
        instance = f"{self.settings.prefix}{name}"
        self._workers[name] = WorkerProcess(self.settings, name, log, "--instance", instance)

    @contextmanager
    def sending(self, events: Sequence[Sent]) -> Iterator[None]:
        """Inside, these are sent, some after the other; afterwards all are acknowledged."""
        with ThreadPoolExecutor(1) as threads:
            sent = threads.submit(self._send, events)
            yield
            sent.result()

    def _send(self, events: Sequence[Sent]) -> None:
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failed.append(error)

        for number, each in enumerate(events):
            topic = f"{self.settings.prefix}{each.stream}"
            self._producer.produce(topic, each.value, each.key.encode(), on_delivery=delivered)
            if number % AT_ONCE == 0:
                self._producer.poll(AT_ONCE / RATE)
        assert self._producer.flush(PATIENCE) == 0
        assert not failed, failed[:3]

    def pause(self, seconds: float) -> None:
        """A fault comes at any moment."""
        threading.Event().wait(seconds)

    def inflict(self, fault: str, rng: random.Random) -> None:
        if fault == "broker":
            self._broker.kill()
            self.pause(rng.uniform(0, 2))
            self._broker.start()
        elif fault == "replay":
            self._kill_replay(rng.uniform(1, 4))
        else:
            self._workers[fault].kill()
            self._run(fault)

    def _kill_replay(self, seconds: float) -> None:
        """One is killed after a while, and two others run at once."""
        command = [sys.executable, "-m", "streamflow_cli.app", *REPLAY]
        running = [self._start(command)]
        self.pause(seconds)
        running[0].kill()
        running += [self._start(command), self._start(command)]
        for each in running:
            each.wait(PATIENCE + 60)

    def _start(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        with (self.directory / "replays.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=environment(self.settings, STREAMFLOW_REPAIRS="shop_streams"),
                stdout=log,
                stderr=log,
            )

    def add_partition(self, topic: str) -> None:
        name = f"{self.settings.prefix}{topic}"
        partitions = offsets.partitions_of(self._admin, [name])
        wanted = [NewPartitions(name, len(partitions) + 1)]
        self._admin.create_partitions(wanted)[name].result(30)

    def release(self, streams: tuple[str, ...], *, kill: bool) -> None:
        """Ends all workers, and starts those of other declarations."""
        for worker in self._workers.values():
            if kill:
                worker.kill()
            else:
                worker.wait_assigned()  # before, it may be a Python that only begins
                assert worker.stop() in (0, HUNG)
        self.settings = self.settings.model_copy(update={"streams": streams})
        self.ends = self._ends("orders")
        self._prepare()
        for name in WORKERS:
            self._run(name)

    def _ends(self, topic: str) -> dict[tuple[str, int], int]:
        partitions = offsets.partitions_of(self._admin, [f"{self.settings.prefix}{topic}"])
        return {each: end for each, (_, end) in offsets.bounds(self._admin, partitions).items()}

    def since(self) -> list[int]:
        """From which offset of each partition on the windows of the second release count, as the committed
        metadata says."""
        partitions = sorted(self._ends("orders"))
        group = self.settings.group("analytics")
        found = []
        for partition, position in sorted(
            offsets.committed(self.settings, group, partitions).items()
        ):
            blocks = (block.split(",") for block in (position.metadata or "").split(";")[2:])
            [since] = [int(block[2]) for block in blocks if block[0] == "orders_1min"]
            assert since <= self.ends.get(partition, 0)
            found.append(since)
        assert len(found) == len(partitions)
        return found

    def compute_sessions(self) -> None:
        with session(self.settings, "test") as connection:
            for stream in (ORDERS, READINGS):
                for table in session_tables(stream):
                    compute_sessions(connection, table)

    def settle(self, events: Sequence[Sent]) -> None:
        """Waits until all is read, replays what can be mended, and waits until all is counted."""
        broken = sum(each.broken for each in events)
        hopeless = sum(each.valid is None for each in events)
        valid = {
            name: sum(each.stream == name and each.valid is not None for each in events)
            for name in ("orders", "readings")
        }
        letters = "SELECT count(*) FROM dead_letters"
        stored = "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM readings)"
        self._wait(letters, broken + hopeless, "the dead letters")
        done = streamflow(
            self.settings, *REPLAY, seconds=PATIENCE + 60, STREAMFLOW_REPAIRS="shop_streams"
        )
        # Those that no repair mends fail.
        assert done.returncode in (0, 1), done.stderr
        self._wait(stored, sum(valid.values()), "all events")
        for table, stream in COUNTED.items():
            what = "count" if table == "window_counts" else "counted + too_late"
            query = f"SELECT coalesce(sum({what}), 0)::bigint FROM {table}"
            self._wait(query, valid[stream], f"all events in {table}")
        self.compute_sessions()

    def _wait(self, query: str, number: int, what: str) -> None:
        """Waits until a query counts at least so many."""

        def counted() -> bool:
            self._revive()
            return bool(value(self.settings, query) >= number)

        wait_until(counted, PATIENCE, what)

    def _revive(self) -> None:
        """Starts those again that a watchdog has ended, as `streamflow up` does."""
        for name, worker in list(self._workers.items()):
            code = worker.process.poll()
            if code is not None:
                assert code == HUNG, f"{name} has ended with {code}: {worker.log}"
                self._run(name)

    def audit(self) -> list[str]:
        """What the audit finds wrong."""
        report = audit(self.settings, PATIENCE)
        found = [str(each) for each in (*report.problems, *report.pending)]
        return found if found or report.closed else ["the audit is not closed"]


COUNTED: Final = {
    "window_counts": "orders", "orders_10s": "orders", "orders_5min_by_1min": "orders",
    "orders_overall": "orders", "orders_strict": "orders", "readings_1min": "readings",
    "readings_2min_by_30s": "readings",
}  # fmt: skip
