"""A session hands over every record, and no position runs ahead of the records handed over."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from faults import wait_until
from pipeline import WorkerProcess, events, produce, topic_bounds
from streamflow.errors import Unavailable
from streamflow.flow import Output, Partition
from streamflow.kafka import clients
from streamflow.kafka.clients import admin
from streamflow.kafka.offsets import assignments
from streamflow.kafka.topic_ids import TopicWatch
from streamflow.kafka.transactions import transactional_producer
from streamflow.records import Position
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streaming_workers.runtime.job import PlainJob
from streaming_workers.runtime.session import Session

pytestmark = pytest.mark.integration


class Forgetful:
    """A sink that keeps nothing."""

    in_flight = 0

    def resume(self, partitions: Sequence[Partition]) -> Mapping[Partition, Position | None]:
        return dict.fromkeys(partitions)

    def commit(self, output: Output) -> None:
        pass

    def flush(self) -> None:
        pass

    def take_durable(self) -> list[Position]:
        return []

    def close(self) -> None:
        pass


class Patient(PlainJob):
    """So patient that the assignment and all records come within one call."""

    name = "patient"
    batch_size = 600
    linger = 3.0

    def __init__(self, settings: Settings) -> None:
        self.group = f"{settings.prefix}patient"
        self.topics = [f"{settings.prefix}user-events"]

    def process(self, _batch: object) -> Output | None:
        return None


@pytest.fixture
def session(stack_settings: Settings) -> Iterator[Session]:
    """With 600 records to read."""
    produce(stack_settings, "user-events", events(600)[0])
    job, topics = Patient(stack_settings), TopicWatch(admin(stack_settings))
    with closing(
        Session(stack_settings, job, lambda _consumer: Forgetful(), print, topics)
    ) as opened:
        yield opened


def read_all(session: Session, settings: Settings) -> dict[Partition, int]:
    """Reads to the end; returns how many records of each partition were handed over."""
    ends = {each: end for each, (_, end) in topic_bounds(settings, "user-events").items()}
    handed_over = dict.fromkeys(ends, 0)
    while handed_over != ends:
        batch = session.consume()
        for record in batch.records:
            partition = (record.topic() or "", record.partition() or 0)
            assert record.offset() == handed_over[partition]
            handed_over[partition] += 1
        for topic, number, offset, *_ in batch.positions:
            assert 0 <= offset <= handed_over[topic, number]
    return handed_over


def test_records_that_came_with_their_assignment_are_not_skipped(
    session: Session, stack_settings: Settings
) -> None:
    assert sum(read_all(session, stack_settings).values()) == 600


def test_an_end_that_jumps_over_records_is_not_believed(
    session: Session, stack_settings: Settings
) -> None:
    stands_at = read_all(session, stack_settings)
    produce(stack_settings, "user-events", events(30, seed=2)[0])
    ends = {each: end for each, (_, end) in topic_bounds(stack_settings, "user-events").items()}
    # As a client would tell that lost what it had fetched.
    with pytest.raises(Unavailable, match="passed over the record at"):
        session._moved_positions([], [], ends)
    assert session._read_to == stands_at


def test_an_end_behind_an_aborted_transaction_is_believed(
    session: Session, stack_settings: Settings
) -> None:
    partition = (f"{stack_settings.prefix}user-events", 0)
    stood_at = read_all(session, stack_settings)[partition]
    client = transactional_producer(stack_settings, f"{stack_settings.prefix}aborting")
    client.begin_transaction()
    for _ in range(5):
        client.produce(partition[0], b"never mind", partition=0)
    client.flush(30)
    client.abort_transaction(30)
    # Five records and the marker that ends them.
    while session._read_to[partition] < stood_at + 6:
        assert not session.consume().records
    assert session._read_to[partition] == stood_at + 6


def test_workers_share_out_every_topic(stack_settings: Settings, tmp_path: Path) -> None:
    """The events' topic above all: by the number of partitions alone one of two loaders would get
    all of it, and the other the topics with little."""
    topics = load_streams(stack_settings)[0].topic_names
    client = clients.admin(stack_settings)
    group = stack_settings.group("loader")
    loaders = [
        WorkerProcess(stack_settings, "loader", tmp_path / f"{number}.log") for number in (1, 2)
    ]

    def shared() -> bool:
        try:
            found = assignments(client, group)
        except Unavailable:
            return False
        return len(found) == 2 and all(
            {topic for topic, _ in each} == set(topics) for each in found
        )

    try:
        wait_until(shared, 60, "each loader to have a part of each topic")
    finally:
        for loader in loaders:
            loader.kill()
