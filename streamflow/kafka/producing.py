"""Producing records, and waiting for room in the client's queue."""

import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, Message, Producer

from streamflow.calls import SLACK, call
from streamflow.errors import Unavailable
from streamflow.kafka.clients import kafka_errors
from streamflow.records import Origin, OutRecord, Producible

# Seconds. Longer than librdkafka keeps an undelivered record (``delivery.timeout.ms``, 300 s): a full
# queue has room again when its records are delivered or given up.
ROOM_TIMEOUT: Final = 310.0
_TURN: Final = 0.1  # seconds
_ACKNOWLEDGED_TIMEOUT: Final = 30.0  # seconds


def produce(
    client: Producer, record: Producible, *, timeout: float = ROOM_TIMEOUT, **options: Any
) -> None:
    """Queues a record; waits up to `timeout` seconds for room in the client's queue, then raises
    Unavailable. Raises KafkaException if the client refuses the record."""
    topic, key, value, headers, partition = record
    deadline = time.monotonic() + timeout
    while True:
        try:
            client.produce(topic, value, key, partition, headers=headers, **options)  # type: ignore[arg-type]  # the stub's list is invariant
        except BufferError:
            if time.monotonic() > deadline:
                raise Unavailable(f"Kafka took no record for {timeout:g} s") from None
            client.poll(_TURN)
        else:
            return


def produce_all(client: Producer, records: Iterable[Producible]) -> None:
    """As `produce`, for many records: the first attempt costs no call of ours."""
    queue = client.produce
    for record in records:
        topic, key, value, headers, partition = record
        try:
            queue(topic, value, key, partition, headers=headers)  # type: ignore[arg-type]
        except BufferError:
            produce(client, record)


def produce_and_flush(client: Producer, records: Sequence[OutRecord]) -> None:
    """Produces records and returns when the broker has acknowledged each. Raises Unavailable if not all
    were in time; sending them again may duplicate them."""
    with kafka_errors():
        _, failure = produce_acknowledged(client, records)
    if failure is not None:
        raise Unavailable(f"Kafka did not take a record: {failure.str()}")


def produce_acknowledged(
    client: Producer, records: Sequence[OutRecord]
) -> tuple[list[Origin], KafkaError | None]:
    """As `produce_and_flush`, with the position of each record, and the first failure if there is one."""
    positions: dict[int, Origin] = {}
    failures: list[KafkaError] = []

    def delivered(index: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(error)
        else:
            positions[index] = Origin(
                message.topic() or "", message.partition() or 0, message.offset() or 0
            )

    for index, record in enumerate(records):
        produce(client, record, on_delivery=partial(delivered, index))
        client.poll(0)
    with call("producer.flush", _ACKNOWLEDGED_TIMEOUT + SLACK):
        left = client.flush(_ACKNOWLEDGED_TIMEOUT)
    if not failures and (left or len(positions) < len(records)):
        raise Unavailable("Kafka did not acknowledge all records in time")
    return [positions[index] for index in sorted(positions)], next(iter(failures), None)
