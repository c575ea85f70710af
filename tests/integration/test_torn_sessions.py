"""A session that is torn leaves nothing behind: no thread and no descriptor (C8)."""

import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer

from faults import ADD_OFFSETS_TO_TXN, wait_until
from pipeline import environment, event, stored_values, streamflow, topics_of
from services import ProxiedBrokerService
from streamflow.calls import HUNG_EXIT_CODE
from streamflow.flow import Output, Sink
from streamflow.kafka.clients import admin
from streamflow.kafka.topic_ids import TopicWatch
from streamflow.kafka.transactions import KafkaSink
from streamflow.postgres.sink.forgetting import Forgetting
from streamflow.postgres.sink.sink import PostgresSink
from streamflow.privacy import Hasher
from streamflow.settings import Settings
from streamflow.signing import Signer
from streaming_workers.producer.progress import group_of
from streaming_workers.runtime.job import PlainJob
from streaming_workers.runtime.process import PATIENCE
from streaming_workers.runtime.session import Session

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

FAULTS = ("cut", "reset", "half_close", "cut", "reset")
ROUNDS = 4
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
def settings(broker: ProxiedBrokerService, database_url: str, prefix: str) -> Iterator[Settings]:
    common = {"DATABASE_URL": database_url, "STREAMFLOW_PREFIX": prefix}
    direct = Settings(KAFKA_BOOTSTRAP_SERVERS=broker.direct, **common)
    with topics_of(direct):
        yield Settings(KAFKA_BOOTSTRAP_SERVERS=broker.proxied, **common)


def tear(
    settings: Settings,
    broker: ProxiedBrokerService,
    topics: TopicWatch,
    number: int,
    fault: str,
    *,
    of_loader: bool,
) -> float:
    """Loses the broker in the middle of a transaction; returns how long it took to let go."""
    sinks: list[KafkaSink] = []
    name = f"{settings.prefix}torn"

    def kafka_sink(consumer: Consumer) -> Sink:
        sinks.append(KafkaSink(settings, consumer, name, name, Signer(b"a secret")))
        return sinks[-1]

    def postgres_sink(_consumer: Consumer) -> Sink:
        forgetting = Forgetting((), Hasher())
        return PostgresSink(settings, name, {}, print, lambda _record, _why: None, forgetting)  # type: ignore[arg-type, return-value]

    # As a worker does after a session that was torn.
    topics.client = admin(settings)
    make = postgres_sink if of_loader else kafka_sink
    session = Session(settings, Reader(settings, number), make, print, topics)

    def joined() -> bool:
        session.consume()
        return session.joined

    wait_until(joined, 30, "the group to be joined")
    for sink in sinks:
        producer = sink._producer
        producer.begin_transaction()
        producer.produce(f"{settings.prefix}notifications", b"half of it")
        assert producer.flush(20) == 0
        del producer
    getattr(broker.proxy, fault)()
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
        for number, of_loader in enumerate((False, True)):
            tear(settings, broker, topics, number, "cut", of_loader=of_loader)
        threads, descriptors = held()
        seconds = [
            tear(settings, broker, topics, number, fault, of_loader=number % 4 == 0)
            for number, fault in enumerate(FAULTS * ROUNDS, 10)
        ]
        # What one session needs is a handful; twenty that leak would be a hundred.
        wait_until(
            lambda: held()[0] <= threads + 3 and held()[1] <= descriptors + 5,
            10,
            f"{threads} threads and {descriptors} descriptors, there are {held()}",
        )
    finally:
        gc.enable()
    assert max(seconds) < CLOSED_WITHIN


def test_produce_ends_at_a_signal_whatever_hangs_and_resumes(
    settings: Settings, broker: ProxiedBrokerService, tmp_path: Path
) -> None:
    """The call would wait for a minute, or never return (librdkafka#5456)."""
    path = tmp_path / "in.ndjson"
    lines = [event(number) + b"\n" for number in range(30)]
    path.write_bytes(b"".join(lines[:10]))
    arguments = ("produce", "--from", str(path))
    assert streamflow(settings, *arguments).returncode == 0
    path.write_bytes(b"".join(lines))
    sender = group_of(settings, path).encode()
    trap = broker.proxy.set_trap(ADD_OFFSETS_TO_TXN, fault="black_hole", sender=sender)
    with subprocess.Popen(
        [sys.executable, "-m", "streamflow_cli.app", *arguments, "--resume"],
        env=environment(settings),
        stderr=subprocess.DEVNULL,
    ) as process:
        assert trap.sprung.wait(60)
        process.terminate()
        # With some slack for a busy machine.
        assert process.wait(PATIENCE + 5) == HUNG_EXIT_CODE
    broker.proxy.mend()
    again = streamflow(settings, *arguments, "--resume")
    assert again.returncode == 0, again.stderr
    assert len(stored_values(settings, "user-events")) == len(lines)
