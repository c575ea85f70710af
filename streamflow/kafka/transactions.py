"""Kafka transactions: a worker's records with its positions (G2), and batches of a sender that must know
whether they were sent."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from streamflow.calls import SLACK, call
from streamflow.errors import Unavailable
from streamflow.flow import Limit, Output, Partition
from streamflow.kafka import kept_positions
from streamflow.kafka.clients import batches_within, kafka_errors, producer, translated
from streamflow.kafka.offsets import as_committed, committed_position, partition_of
from streamflow.kafka.position_metadata import LostRange, PositionMetadata
from streamflow.kafka.producing import produce_acknowledged, produce_all
from streamflow.records import Log, Origin, OutRecord, Position
from streamflow.settings import Settings
from streamflow.signing import Signer
from streamflow.stream_topics import MAX_RECORD_BYTES

log = structlog.get_logger()

# Seconds. A broker that was killed is up again within these, or the session ends.
_TIMEOUT = 10.0  # of one call to the coordinator
# It takes milliseconds. If the connection breaks meanwhile it may never return, whatever its time-out
# (librdkafka#5456): only the watchdog's limit ends it.
_SEND_OFFSETS_TIMEOUT = 5.0
_COMMITTED_TIMEOUT = 20.0  # longer than the time-out of a transaction whose outcome is open
_COMMIT_PATIENCE = 15.0  # in which a commit is repeated
_PUBLISH_TIMEOUT = 30.0  # of one call of a publisher to the coordinator
_TRANSACTION_TIMEOUT_MS = 15_000
# Records of a batch gather into few large requests, which takes less processor time of client and broker.
# Nothing waits so long: a flush, which a commit begins with, sends at once (librdkafka#3489).
_LINGER_MS = 50

# Whatever hangs in one of these holds nothing of the consumer.
TRANSACTION_CALLS: Final = frozenset(
    {"send_offsets_to_transaction", "commit_transaction", "abort_transaction"}
)


def transactional_producer(settings: Settings, transactional_id: str, **extra: Any) -> Producer:
    """A producer that is ready for its first transaction. Raises Unavailable if the coordinator does not
    answer."""
    client = producer(
        settings,
        **{
            "transactional.id": transactional_id,
            "transaction.timeout.ms": _TRANSACTION_TIMEOUT_MS,
            "delivery.timeout.ms": 14_000,
            "linger.ms": _LINGER_MS,
            **extra,
        },
    )
    with kafka_errors(), call("init_transactions", _TIMEOUT + SLACK):
        client.init_transactions(_TIMEOUT)
    return client


class KafkaSink:
    """Commits a worker's records together with its consumer group's offsets. Implements `flow.Sink`.

    A transactional id belongs to one instance of a worker: a restarted instance at once fences what its
    predecessor left open, instead of after the transaction's time-out. Different instances are kept apart
    by the group's own generation (KIP-447).

    Args:
        consumer: whose positions are committed.
        group: of the consumer.
        transactional_id: of this instance.
        signer: signs what it writes, and recognises the positions that it kept.
        limit: of refused records; None for none.
    """

    def __init__(
        self,
        settings: Settings,
        consumer: Consumer,
        group: str,
        transactional_id: str,
        signer: Signer,
        limit: Limit | None = None,
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self._group = group
        self._signer = signer
        self._limit = limit
        self._producer = transactional_producer(settings, transactional_id)
        self._lost: dict[Partition, tuple[LostRange, ...]] = {}
        # Positions that Kafka and we keep differently until the next commit.
        self._unequal: dict[Partition, TopicPartition] = {}

    def resume(self, partitions: Sequence[Partition]) -> Mapping[Partition, Position | None]:
        """What the group has committed, or has kept itself where Kafka has lost that. Waits for
        transactions whose outcome is still open."""
        with kafka_errors(), call("consumer.committed", _COMMITTED_TIMEOUT + SLACK):
            answered = self._consumer.committed(
                [TopicPartition(*partition) for partition in partitions],
                timeout=_COMMITTED_TIMEOUT,
            )
        committed = {partition_of(stored): stored for stored in answered if stored.offset >= 0}
        kept = kept_positions.reconcile(
            self._settings, self._group, partitions, committed, self._signer.verify
        )
        positions: dict[Partition, Position | None] = dict.fromkeys(partitions)
        for partition, (stored, by_kafka, agreed) in kept.items():
            self._lost[partition] = PositionMetadata.parse(stored.metadata).lost
            positions[partition] = committed_position(stored)
            if not agreed:
                self._unequal[partition] = stored
            if stored is not committed.get(partition) and not agreed:
                log.warning(
                    "committed offset restored",
                    topic=stored.topic,
                    partition=stored.partition,
                    offset=stored.offset,
                    committed=by_kafka,
                    advice="Kafka had lost it, or it was moved back",
                )
        return positions

    def commit(self, output: Output) -> None:
        """Keeps an output in one transaction.

        1. begin;
        2. produce the records, and those that keep the positions (asynchronously: errors show at the
           commit);
        3. add the positions, with what they pass unread beside them, and with the group's generation, so
           that a zombie is refused;
        4. flush and commit.

        If the outcome of 4 is unknown, this sink cannot be used any more: the caller closes it, and the
        next one with the same transactional id settles the outcome when it starts.

        Raises:
            Unavailable: nothing was committed, or the outcome is unknown.
            Fenced: nothing was committed; the partitions are another worker's now.
            CircuitOpen: nothing was committed; too many records were refused.
        """
        if self._limit is not None:
            rejected = [index for index, _ in output.rejected]
            self._limit.check(output.batch, rejected, runs=output.runs)
        for topic, partition, first, end, cause in output.gaps:
            known = self._lost.get((topic, partition), ())
            self._lost[topic, partition] = (*known, LostRange(first, end, cause))
        moved = [self._as_committed(position, output) for position in output.positions]
        with output.around():
            self._transact(output.records, moved)
        if self._limit is not None:
            self._limit.kept()

    def _transact(self, records: Sequence[OutRecord], moved: Sequence[TopicPartition]) -> None:
        # If this fails, none of them is to be committed without its records.
        unequal, self._unequal = self._unequal, {}
        offsets = list((unequal | {partition_of(one): one for one in moved}).values())
        kept = [kept_positions.record_of(self._settings, self._group, one) for one in offsets]
        try:
            self._producer.begin_transaction()
            with call("producer.produce"):
                produce_all(self._producer, self._signer.signed(chain(records, kept)))
                self._producer.poll(0)
            if offsets:
                members = self._consumer.consumer_group_metadata()
                with call("send_offsets_to_transaction", _SEND_OFFSETS_TIMEOUT + SLACK):
                    self._producer.send_offsets_to_transaction(
                        offsets, members, _SEND_OFFSETS_TIMEOUT
                    )
            retry_while_retriable(self._commit)
        except KafkaException as error:
            self._abort(error)
            raise translated(error) from error

    def _as_committed(self, position: Position, output: Output) -> TopicPartition:
        partition = position.topic, position.partition
        log, lost = output.logs.get(partition, Log()), self._lost.get(partition, ())
        return as_committed(position, log, lost)

    def _commit(self) -> None:
        with call("commit_transaction", _TIMEOUT + SLACK):
            self._producer.commit_transaction(_TIMEOUT)

    def _abort(self, error: KafkaException) -> None:
        cause = error.args[0]
        if isinstance(cause, KafkaError) and cause.fatal():
            return
        try:
            with call("abort_transaction", _TIMEOUT + SLACK):
                self._producer.abort_transaction(_TIMEOUT)
        except KafkaException as failed:
            raise Unavailable(f"Kafka: a transaction could not be aborted: {failed}") from error

    def flush(self) -> None:
        """Commits positions that Kafka and we keep differently. Otherwise there is nothing to wait for: a
        commit is durable when it returns."""
        if self._unequal:
            self._transact((), ())

    @property
    def in_flight(self) -> int:
        return 0

    def take_durable(self) -> list[Position]:
        """Nothing: Kafka knows what it committed itself."""
        return []

    def close(self) -> None:
        """Drops what is not committed; the broker aborts an open transaction.

        Not with ``Producer.close``: that aborts an open transaction first, and waits for it without end
        while the coordinator is away. Dropping the last reference destroys the producer, with its threads
        and connections, in milliseconds.
        """
        # Closing the consumer may still revoke partitions, and flush.
        self._unequal = {}
        with call("closing the producer", _TIMEOUT):
            self._producer.purge()
            del self._producer


def retry_while_retriable(commit: Callable[[], None]) -> None:
    """Repeats a commit while librdkafka says that it may be repeated, for a limited time."""
    deadline = time.monotonic() + _COMMIT_PATIENCE
    while True:
        try:
            commit()
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            if not cause.retriable() or time.monotonic() > deadline:
                raise
        else:
            return


class Publisher:
    """Produces batches, each in a transaction, for a sender that must know even after a kill whether they
    were sent; close it.

    Opening one fences every other of the same id, and settles the transaction that it left open:
    afterwards what it had sent is in the topic, or never will be. Raises Unavailable if the broker does
    not answer.

    Args:
        record_bytes: of the largest record that each of its topics takes.
    """

    def __init__(
        self, settings: Settings, transactional_id: str, record_bytes: int = MAX_RECORD_BYTES
    ) -> None:
        self._producer = transactional_producer(
            settings, transactional_id, **batches_within(record_bytes)
        )

    def publish(
        self, records: Sequence[OutRecord], before_commit: Callable[[list[Origin]], None]
    ) -> None:
        """Sends records in one transaction.

        1. begin;
        2. produce, and wait until the broker has given each its position;
        3. `before_commit`, which writes the positions down elsewhere;
        4. commit.

        After an error in 4 the outcome may be unknown: a new publisher of the same id settles it, and
        `reader.committed_among` finds it by the positions.

        Raises:
            Unavailable: nothing was committed, or the outcome is unknown.
            Fenced: another publisher has this id; nothing was committed.
        """
        try:
            self._producer.begin_transaction()
            try:
                before_commit(self._produce(records))
            except BaseException:
                with call("abort_transaction", _PUBLISH_TIMEOUT + SLACK):
                    self._producer.abort_transaction(_PUBLISH_TIMEOUT)
                raise
            retry_while_retriable(self._commit)
        except KafkaException as error:
            raise translated(error) from error

    def _commit(self) -> None:
        with call("commit_transaction", _PUBLISH_TIMEOUT + SLACK):
            self._producer.commit_transaction(_PUBLISH_TIMEOUT)

    def _produce(self, records: Sequence[OutRecord]) -> list[Origin]:
        positions, failure = produce_acknowledged(self._producer, records)
        if failure is not None:
            raise KafkaException(failure)
        return positions

    def close(self) -> None:
        """Drops what is not committed, as `KafkaSink.close` does."""
        with call("closing the producer", _TIMEOUT):
            self._producer.purge()
            del self._producer
