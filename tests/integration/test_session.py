"""A session hands over every record, and no position runs ahead of the records handed over."""

from collections.abc import Mapping, Sequence

import pytest

from pipeline import events, produce, topic_bounds
from streamflow.flow import Output, Partition
from streamflow.records import Position
from streamflow.settings import Settings
from streaming_workers.job import PlainJob
from streaming_workers.session import Session

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


def test_records_that_came_with_their_assignment_are_not_skipped(stack_settings: Settings) -> None:
    produce(stack_settings, "user-events", events(600)[0])
    ends = {each: end for each, (_, end) in topic_bounds(stack_settings, "user-events").items()}
    session = Session(stack_settings, Patient(stack_settings), lambda _consumer: Forgetful())
    handed_over = dict.fromkeys(ends, 0)
    try:
        while handed_over != ends:
            batch = session.consume()
            for record in batch.records:
                partition = (record.topic() or "", record.partition() or 0)
                assert record.offset() == handed_over[partition]
                handed_over[partition] += 1
            for topic, number, offset, _ in batch.positions:
                assert offset <= handed_over[topic, number]
    finally:
        session.close()
