"""What the events of a consumer mean to all who read partitions."""

from contextlib import closing
from itertools import islice

import pytest
from confluent_kafka import KafkaError, Message

from streamflow.errors import OffsetsReused, StreamFlowError, Unavailable
from streamflow.kafka import reader
from streamflow.kafka.clients import assigned_consumer
from streamflow.settings import Settings

HELD = {("t", 0): 5, ("t", 1): 0}


def event(code: int, reason: str = "", partition: int = 0, offset: int = 7) -> Message:
    return Message(
        topic="t", partition=partition, offset=offset, error=KafkaError(code, reason=reason)
    )


def interpret(*messages: Message) -> reader.Fetched:
    with closing(assigned_consumer(Settings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"), "g")) as client:
        return reader.interpret(client, list(messages), HELD)


def test_records_and_ends_are_kept_apart() -> None:
    record = Message(topic="t", partition=1, offset=0, value=b"v")

    assert interpret(record) == ([record], {})
    assert interpret(record, event(KafkaError._PARTITION_EOF)) == ([record], {("t", 0): 7})


@pytest.mark.parametrize("code", [KafkaError._PARTITION_EOF, KafkaError._BAD_COMPRESSION])
def test_events_of_partitions_that_were_given_away_are_stale(code: int) -> None:
    assert interpret(event(code, partition=2)) == ([], {})


@pytest.mark.parametrize(
    ("code", "reason", "error", "text"),
    [
        (KafkaError._AUTO_OFFSET_RESET, "gone", Unavailable, r"t\[0\] has no record at 7"),
        (
            KafkaError._AUTO_OFFSET_RESET,
            "partition truncation: broker end offset is 3",
            OffsetsReused,
            r"t\[0\] from offset 3 on",
        ),
        (KafkaError._TRANSPORT, "broker down", Unavailable, "broker down"),
    ],
)
def test_errors_say_what_to_do(
    code: int, reason: str, error: type[StreamFlowError], text: str
) -> None:
    with pytest.raises(error, match=text):
        interpret(event(code, reason))


@pytest.mark.parametrize(
    ("sizes", "most"),
    [
        ([100] * 12_000, 1_000_000),
        ([40_000] * 300, 4_240_000),
        ([500_000] * 60, 4_700_000),
        # What comes behind many small ones is not known before it is read.
        ([*[100] * 300, *[500_000] * 100] * 3, 4_200_000 + 64 * 500_000),
    ],
    ids=["small", "large", "few", "mixed"],
)
def test_a_batch_is_bounded_in_records_and_bytes(sizes: list[int], most: int) -> None:
    messages = iter(
        Message(topic="t", partition=0, offset=at, key=b"key", value=b" " * size)
        for at, size in enumerate(sizes)
    )

    class Queue:
        def consume(self, most: int, _timeout: float) -> list[Message]:
            return list(islice(messages, most))

    batches: list[list[int]] = []
    while not batches or batches[-1]:
        batch = reader.consume_batch(Queue(), 10_000, 10.0)  # type: ignore[arg-type]
        batches.append([len(message) for message in batch])
    assert [size for batch in batches for size in batch] == sizes
    assert max(map(sum, batches)) <= most
    if max(sizes) == 100:
        assert len(batches[0]) == 10_000


def record(offset: int, partition: int = 0) -> Message:
    return Message(topic="t", partition=partition, offset=offset, value=b"v")


@pytest.mark.parametrize(
    ("offsets", "within"),
    [([4, 5, 6], [4, 5, 6]), ([3, 4, 6, 7], [4, 6]), ([6, 7, 8], [6]), ([1, 2], []), ([], [])],
)
def test_a_scan_brings_the_records_of_its_range(offsets: list[int], within: list[int]) -> None:
    records = [record(offset) for offset in offsets]
    found = reader._within(records, {("t", 0): (4, 7)})  # type: ignore[arg-type]
    assert [message.offset() for message in found] == within


def test_each_partition_is_read_to_its_last_record() -> None:
    with closing(reader.Reader(Settings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"), "g")) as made:
        made.read_to = {("t", 0): 0, ("t", 1): 0, ("t", 2): 0}
        records = [record(4, 1), record(7), record(5, 1), record(9, 3), record(8), record(1, 3)]
        reached = made._reached(records)  # type: ignore[arg-type]
    assert reached == {("t", 0): 9, ("t", 1): 6}


def test_after_silence_the_first_record_is_handed_over_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(reader.time, "monotonic", lambda: now)
    first, second = (Message(topic="t", partition=0, offset=at, value=b"v") for at in (0, 1))
    waits: list[float] = []

    class Queue:
        def __init__(self, *batches: list[Message], after: float) -> None:
            self._batches = list(batches)
            self._after = after

        def consume(self, _most: int, timeout: float) -> list[Message]:
            nonlocal now
            waits.append(timeout)
            now += self._after if len(waits) == 1 else 0.0
            return self._batches.pop(0) if self._batches else []

    def batch(queue: Queue) -> list[Message]:
        waits.clear()
        return reader.consume_batch(queue, 10_000, 0.05, idle=0.25)  # type: ignore[arg-type]

    assert batch(Queue([first], [second], after=0.2)) == [first, second]
    assert waits == [0.25, 0.0]
    # One that comes within `linger` is the first of a batch as any other.
    assert batch(Queue([first], [second], after=0.01)) == [first, second]
    assert waits == [0.25, pytest.approx(0.04)]
    assert batch(Queue(after=0.25)) == []
    assert waits == [0.25]
