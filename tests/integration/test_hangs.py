"""No silent hang: connections that break in the middle of a transaction (G9, G10).

Real workers under the real supervisor, with a proxy before the broker that acts when a worker sends a
given request. Some of librdkafka's calls then never return, whatever time-out they were given.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Self

import pytest

from faults import ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT, wait_until
from folders import Folder, free_offset
from pipeline import audit, count, event, topic_bounds, topics_of
from services import DatabaseService, ProxiedBrokerService
from streamflow.kafka import clients, offsets
from streamflow.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

PREFIX = "hangs."
WORKERS = ("validator", "analytics", "loader")
LEFT_OUT = ("producer", "bridge", "dagster", "dashboard")
FAULTS = ("reset", "cut", "black_hole", "half_close", "stall")
# The worker, its request, and whether the broker still gets that: the worker cannot know.
MOMENTS = (
    ("validator", ADD_OFFSETS_TO_TXN, False),
    ("analytics", ADD_OFFSETS_TO_TXN, True),
    ("validator", TXN_OFFSET_COMMIT, True),
    ("analytics", END_TXN, False),
    ("validator", END_TXN, True),
)
RATE = 200  # events a second
FAULT_SECONDS = 2.0
RECOVERY_SECONDS = 30.0


class Traffic:
    """Produces events, past the proxy, until it is left."""

    def __init__(self, settings: Settings) -> None:
        self._client = clients.producer(settings)
        self._topic = f"{settings.prefix}user-events"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic")
        self.sent = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        assert self._client.flush(60) == 0

    def _run(self) -> None:
        while not self._ended.wait(0.1):
            for _ in range(RATE // 10):
                value = event(self.sent, at=datetime.now(UTC))
                self._client.produce(self._topic, value, f"key-{self.sent % 97}".encode())
                self.sent += 1
            self._client.poll(0)


class Stack:
    """Three workers that reach the broker through a proxy only, and a supervisor."""

    def __init__(self, broker: ProxiedBrokerService, database_url: str, folder: Folder) -> None:
        self.broker = broker
        self.folder = folder
        self.settings = Settings(
            KAFKA_BOOTSTRAP_SERVERS=broker.direct,
            DATABASE_URL=database_url,
            STREAMFLOW_PREFIX=PREFIX,
            STREAMFLOW_STATE_DIR=folder.state,
        )
        folder.variables |= {
            "KAFKA_BOOTSTRAP_SERVERS": broker.proxied,
            "DATABASE_URL": database_url,
            "STREAMFLOW_PREFIX": PREFIX,
        }

    def read_on(self, ends: dict[tuple[str, int], int]) -> bool:
        """Whether every group has read everything that was there."""
        return all(
            position >= ends[partition]
            for worker in WORKERS
            for partition, position in self._positions(worker, list(ends)).items()
        )

    def _positions(
        self, worker: str, partitions: list[tuple[str, int]]
    ) -> dict[tuple[str, int], int]:
        found = offsets.committed(self.settings, self.settings.group(worker), partitions)
        return {
            each: offsets.read_position(found[each]) if each in found else -1 for each in partitions
        }

    def ends(self) -> dict[tuple[str, int], int]:
        return {each: end for each, (_, end) in topic_bounds(self.settings, "user-events").items()}

    def break_at(self, worker: str, fault: str, request: int, *, delivered: bool) -> None:
        """Breaks the connections when a worker sends this request; returns when every group has read
        what was there when they were mended."""
        sender = f"{self.settings.group(worker)}-{worker}-0".encode()
        trap = self.broker.proxy.set_trap(request, fault=fault, delivered=delivered, sender=sender)
        assert trap.sprung.wait(60), f"{worker} sent no request {request}"
        threading.Event().wait(FAULT_SECONDS)
        self.broker.proxy.mend()
        ends = self.ends()
        what = f"all groups to read on after {fault} at {worker}'s request {request}"
        wait_until(lambda: self.read_on(ends), RECOVERY_SECONDS, what)


@pytest.fixture(scope="module")
def stack(
    database_server: DatabaseService,
    database_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("hangs")
    broker = ProxiedBrokerService(directory / "broker")
    url = database_server.create_database("hangs", database_template)
    made = Stack(broker, url, Folder(directory / "project", free_offset()))
    with ExitStack() as cleanup:
        broker.start()
        cleanup.callback(broker.stop)
        cleanup.enter_context(broker.proxy)
        cleanup.enter_context(topics_of(made.settings))
        cleanup.callback(made.folder.run, "down")
        made.folder.up(*(part for name in LEFT_OUT for part in ("--without", name)))
        yield made


@pytest.fixture(scope="module")
def traffic(stack: Stack) -> Iterator[Traffic]:
    with Traffic(stack.settings) as going:
        yield going


@pytest.mark.usefixtures("traffic")
def test_groups_read_on_when_connections_are_reset_in_a_transaction(stack: Stack) -> None:
    """One moment of each worker; all of them, and all faults, are `make chaos`."""
    for worker, request, delivered in (MOMENTS[0], MOMENTS[3]):
        stack.break_at(worker, "reset", request, delivered=delivered)


@pytest.mark.chaos
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("traffic")
def test_groups_read_on_whatever_breaks_in_a_transaction(fault: str, stack: Stack) -> None:
    for worker, request, delivered in MOMENTS:
        stack.break_at(worker, fault, request, delivered=delivered)


def test_nothing_was_lost_or_doubled(stack: Stack, traffic: Traffic) -> None:
    """The last of this file: what all that breaking has left behind."""
    traffic.__exit__()
    report = audit(stack.settings, patience=60)
    assert report.closed, report.problems[:5]
    assert report.caught_up
    for table in ("events", "notifications"):
        assert count(stack.settings, f"SELECT count(*) FROM {table}") == traffic.sent
    # Idle partitions close their windows after ten seconds.
    query = "SELECT coalesce(sum(count), 0)::bigint FROM window_counts"
    wait_until(lambda: count(stack.settings, query) == traffic.sent, 40, "all windows to close")
