"""A session that is torn leaves nothing behind: no thread and no descriptor (C8)."""

import gc
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from faults import wait_until
from pipeline import topics_of
from services import DatabaseService, ProxiedBrokerService
from streamflow.flow import Output
from streamflow.kafka.clients import admin
from streamflow.kafka.topic_ids import TopicWatch
from streamflow.kafka.transactions import KafkaSink
from streamflow.settings import Settings
from streaming_workers.runtime.job import PlainJob
from streaming_workers.runtime.session import Session

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

ROUNDS = 20
WARM_UP = 2  # what is made once for a process
CLOSED_WITHIN = 10.0  # seconds


class Reader(PlainJob):
    """Each of a group of its own: a member that could not say goodbye is waited for."""

    name = "reader"

    def __init__(self, settings: Settings, number: int) -> None:
        self.group = f"{settings.prefix}torn-{number}"
        self.topics = [f"{settings.prefix}user-events"]

    def process(self, _batch: object) -> Output | None:
        return None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ProxiedBrokerService]:
    service = ProxiedBrokerService(tmp_path / "broker")
    with ExitStack() as cleanup:
        service.start()
        cleanup.callback(service.stop)
        cleanup.enter_context(service.proxy)
        yield service


@pytest.fixture
def settings(
    broker: ProxiedBrokerService, database_server: DatabaseService, prefix: str
) -> Iterator[Settings]:
    common = {"DATABASE_URL": database_server.url, "STREAMFLOW_PREFIX": prefix}
    direct = Settings(KAFKA_BOOTSTRAP_SERVERS=broker.direct, **common)
    with topics_of(direct):
        yield Settings(KAFKA_BOOTSTRAP_SERVERS=broker.proxied, **common)


def tear(
    settings: Settings, broker: ProxiedBrokerService, topics: TopicWatch, number: int
) -> float:
    """Loses the broker in the middle of a transaction; returns how long it took to let go."""
    sinks: list[KafkaSink] = []

    def make(consumer: object) -> KafkaSink:
        sinks.append(KafkaSink(settings, consumer, f"{settings.prefix}torn", lambda record: record))  # type: ignore[arg-type]
        return sinks[-1]

    session = Session(settings, Reader(settings, number), make, print, topics)

    def joined() -> bool:
        session.consume()
        return session.joined

    wait_until(joined, 30, "the group to be joined")
    producer = sinks[0]._producer
    producer.begin_transaction()
    producer.produce(f"{settings.prefix}notifications", b"half of it")
    assert producer.flush(20) == 0
    del producer
    broker.proxy.cut()
    began = time.monotonic()
    session.close()
    seconds = time.monotonic() - began
    broker.proxy.mend()
    return seconds


def test_torn_sessions_leave_no_thread_and_no_descriptor(
    settings: Settings, broker: ProxiedBrokerService
) -> None:
    process = psutil.Process()
    topics = TopicWatch(admin(settings))

    def held() -> tuple[int, int]:
        return process.num_threads(), process.num_fds()

    # As good as off in a worker: what hangs together in a circle stays.
    gc.collect()
    gc.disable()
    try:
        for number in range(WARM_UP):
            tear(settings, broker, topics, number)
        threads, descriptors = held()
        seconds = [tear(settings, broker, topics, WARM_UP + number) for number in range(ROUNDS)]
        # What one session needs is a handful; twenty that leak would be a hundred.
        wait_until(
            lambda: held()[0] <= threads + 3 and held()[1] <= descriptors + 5,
            10,
            f"{threads} threads and {descriptors} descriptors, there are {held()}",
        )
    finally:
        gc.enable()
    assert max(seconds) < CLOSED_WITHIN
