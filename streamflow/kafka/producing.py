"""Producing records outside transactions, and waiting for room in a client's queue everywhere."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, Producer

from streamflow.calls import SLACK, call
from streamflow.errors import Unavailable
from streamflow.kafka.clients import kafka_errors
from streamflow.records import OutRecord

# Seconds. Longer than librdkafka keeps an undelivered record (``delivery.timeout.ms``, 300 s): a full
# queue has room again when its records are delivered, or given up.
ROOM_TIMEOUT: Final = 310.0
_TURN: Final = 0.1  # seconds
_ACKNOWLEDGED_TIMEOUT: Final = 30.0  # seconds


def produce(
    client: Producer, record: OutRecord, *, timeout: float = ROOM_TIMEOUT, **options: Any
) -> None:
    """Queues a record; waits for room while the client's queue is full.

    Args:
        client: sends it.
        record: to be sent.
        timeout: seconds to wait for room.
        options: further arguments of ``Producer.produce``.

    Raises:
        Unavailable: there was no room in time.
        KafkaException: the client refuses the record.
    """
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


def produce_all(client: Producer, records: Iterable[OutRecord]) -> None:
    """As `produce`, of many records: the first attempt is made without a call of ours."""
    queue = client.produce
    for record in records:
        topic, key, value, headers, partition = record
        try:
            queue(topic, value, key, partition, headers=headers)  # type: ignore[arg-type]
        except BufferError:
            produce(client, record)


def produce_and_flush(client: Producer, records: Sequence[OutRecord]) -> None:
    """Produces records and returns when the broker has acknowledged each.

    Raises:
        Unavailable: not all were acknowledged in time; sending them again may duplicate them.
    """
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: object) -> None:
        if error is not None:
            failures.append(error)

    with kafka_errors():
        for record in records:
            produce(client, record, on_delivery=delivered)
        with call("producer.flush", _ACKNOWLEDGED_TIMEOUT + SLACK):
            left = client.flush(_ACKNOWLEDGED_TIMEOUT)
        if left:
            raise Unavailable("Kafka did not acknowledge all records in time")
    if failures:
        raise Unavailable(f"Kafka did not take a record: {failures[0].str()}")
