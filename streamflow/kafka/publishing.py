"""Records sent in transactions by someone who must know, even after a kill, whether they were."""

import time
from collections.abc import Callable, Collection, Sequence
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message

from streamflow.errors import Unavailable
from streamflow.flow import Partition
from streamflow.kafka import offsets
from streamflow.kafka.clients import admin, translated
from streamflow.kafka.reader import Scanner
from streamflow.kafka.transactions import persist, transactional_producer
from streamflow.records import Origin, OutRecord
from streamflow.settings import Settings

_TIMEOUT = 30.0  # seconds; of one call to the coordinator
_OPEN_TRANSACTION = 90.0  # seconds that someone else's open transaction may hide what lies behind
_POLL = 0.2  # seconds


class Publisher:
    """Produces batches, each in a transaction; close it.

    Opening one fences every other of the same id, and settles the transaction that it left open:
    afterwards what it had sent is in the topic, or will never be.

    Args:
        settings: where the broker is.
        transactional_id: of this sender and of whoever takes over from it.

    Raises:
        Unavailable: the broker does not answer.
    """

    def __init__(self, settings: Settings, transactional_id: str) -> None:
        self._producer = transactional_producer(settings, transactional_id)

    def publish(
        self, records: Sequence[OutRecord], before_commit: Callable[[list[Origin]], None]
    ) -> None:
        """Sends records in one transaction.

        1. begin;
        2. produce, and wait until the broker has given each its position;
        3. `before_commit`, which writes the positions down elsewhere;
        4. commit.

        After an error in 4 the outcome may be unknown: a new publisher of the same id settles it,
        and `present` tells it from the positions.

        Raises:
            Unavailable: nothing was committed, or the outcome is unknown.
            Fenced: another publisher has this id; nothing was committed.
        """
        try:
            self._producer.begin_transaction()
            try:
                before_commit(self._produce(records))
            except BaseException:
                self._producer.abort_transaction(_TIMEOUT)
                raise
            persist(lambda: self._producer.commit_transaction(_TIMEOUT))
        except KafkaException as error:
            raise translated(error) from error

    def _produce(self, records: Sequence[OutRecord]) -> list[Origin]:
        positions: list[Origin | None] = [None] * len(records)
        failures: list[KafkaError] = []

        def note(index: int, error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failures.append(error)
            else:
                positions[index] = Origin(
                    message.topic() or "", message.partition() or 0, message.offset() or 0
                )

        for index, (topic, key, value, headers, partition) in enumerate(records):
            self._producer.produce(
                topic,
                value,
                key,
                partition,
                headers=headers,  # type: ignore[arg-type]  # the stub's list is invariant
                on_delivery=partial(note, index),
            )
            self._producer.poll(0)
        left = self._producer.flush(_TIMEOUT)
        if failures:
            raise KafkaException(failures[0])
        known = [position for position in positions if position is not None]
        if left or len(known) < len(records):
            raise Unavailable("Kafka did not acknowledge all records in time")
        return known

    def close(self) -> None:
        """Drops what is not committed; the broker aborts an open transaction. As `KafkaSink.close`,
        by letting go of the producer."""
        self._producer.purge()
        del self._producer


def present(settings: Settings, positions: Collection[Origin]) -> set[Origin]:
    """Those of the positions at which Kafka holds a committed record.

    Call it when their transaction is settled, or the answer is good for this moment only.

    Raises:
        Unavailable: the broker does not answer, or someone else's open transaction hides them.
    """
    by_partition: dict[Partition, set[int]] = {}
    for position in positions:
        by_partition.setdefault(position[:2], set()).add(position.offset)
    found: set[Origin] = set()
    scanner = Scanner(settings)
    try:
        for where, wanted in by_partition.items():
            start = max(_visible(settings, where, max(wanted)), min(wanted))
            there = scanner.offsets(where, start, max(wanted) + 1)
            found |= {Origin(*where, offset) for offset in there if offset in wanted}
    finally:
        scanner.close()
    return found


def _visible(settings: Settings, partition: Partition, offset: int) -> int:
    """Waits until readers of committed records get past an offset; returns the first offset."""
    client = admin(settings)
    deadline = time.monotonic() + _OPEN_TRANSACTION
    while True:
        first, end = offsets.bounds(client, [partition])[partition]
        if end > offset:
            return first
        if time.monotonic() > deadline:
            raise Unavailable(
                f"an open transaction hides {partition[0]}[{partition[1]}] from offset {end} on: try "
                "again when its producer has ended"
            )
        time.sleep(_POLL)
