"""Records on their way to the broker: a bounded queue, and what became of each."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamflow.errors import DeliveryFailed, Unavailable, UsageError
from streamflow.kafka.clients import batches_within, producer, translated
from streamflow.kafka.producing import produce
from streamflow.records import Origin, OutRecord
from streamflow.settings import Settings
from streamflow.units import counted

# Where the broker has put the event; raises `DeliveryFailed`.
Delivery = Future[Origin]

_TURN: Final = 0.1  # seconds
_QUEUE_KBYTES: Final = 65_536
_KEPT_FAILURES: Final = 100
# The broker has refused the record, or never got it. After any other error it may have stored it, and only
# its answer is missing.
_NOT_STORED: Final = frozenset({
    KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG,
    KafkaError.INVALID_RECORD, KafkaError.POLICY_VIOLATION, KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError._PURGE_QUEUE,
})  # fmt: skip


class Outbox:
    """Sends records in the background, idempotently, and acknowledged by all replicas. Thread-safe.

    Args:
        settings: where the broker is.
        timeout: seconds that a record may wait for room, and seconds after which one is given up that the
            broker has not acknowledged.
        most: records that may be on their way; whoever sends more waits.
        record_bytes: of the largest record that the topic takes.
    """

    def __init__(self, settings: Settings, *, timeout: float, most: int, record_bytes: int) -> None:
        limits: Mapping[str, Any] = {
            "delivery.timeout.ms": int(timeout * 1000),
            "queue.buffering.max.messages": most,
            "queue.buffering.max.kbytes": _QUEUE_KBYTES,
            **batches_within(record_bytes),
        }
        self._client = producer(settings, **limits)
        self._timeout = timeout
        self._changed = threading.Condition()
        self._pending = 0
        self._failures: list[DeliveryFailed] = []
        self._failed = 0
        self._closed = False
        self._ended = threading.Event()
        # Without it nobody would learn what became of a record until the next one is sent.
        self._thread = threading.Thread(
            target=_poll, args=(self._client, self._ended), name="producer", daemon=True
        )
        self._thread.start()

    def put(self, record: OutRecord, timeout: float | None = None) -> Delivery:
        """Queues a record; waits for room, and raises Unavailable if there is none in time."""
        delivery = self.try_put(record)
        if delivery is not None:
            return delivery
        seconds = self._timeout if timeout is None else timeout
        return self._put(partial(produce, self._client, record, timeout=seconds))

    def try_put(self, record: OutRecord) -> Delivery | None:
        """As `put`, without waiting; None if there is no room."""
        topic, key, value, headers, partition = record
        try:
            return self._put(
                partial(self._client.produce, topic, value, key, partition, headers=headers)  # type: ignore[arg-type]
            )
        except BufferError:
            return None

    def _put(self, queue: Callable[..., None]) -> Delivery:
        delivery: Delivery = Future()
        # What is queued cannot be taken back.
        delivery.set_running_or_notify_cancel()
        with self._changed:
            if self._closed:
                raise UsageError("this producer is closed: make another one")
            self._pending += 1
        try:
            queue(on_delivery=partial(self._delivered, delivery))
        except BaseException as error:
            self._done(None)
            if isinstance(error, KafkaException):
                raise translated(error) from error
            raise
        return delivery

    def _delivered(self, delivery: Delivery, error: KafkaError | None, message: Message) -> None:
        if error is None:
            delivery.set_result(
                Origin(message.topic() or "", message.partition() or 0, message.offset() or 0)
            )
            self._done(None)
            return
        failure = _failure(error)
        delivery.set_exception(failure)
        self._done(failure)

    def _done(self, failure: DeliveryFailed | None) -> None:
        with self._changed:
            self._pending -= 1
            if failure is not None:
                self._failed += 1
                if len(self._failures) < _KEPT_FAILURES:
                    self._failures.append(failure)
            if not self._pending:
                self._changed.notify_all()

    def flush(self, timeout: float | None = None) -> None:
        """Waits until the broker has acknowledged all that was queued, or it was given up.

        Raises:
            DeliveryFailed: what failed since the last flush, whether or not its `Delivery` was asked.
            Unavailable: not all was acknowledged in time; it is still on its way.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self._pending:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise Unavailable(
                        f"Kafka has not acknowledged {counted(self._pending, 'event')} within "
                        f"{timeout:g} s: flush again"
                    )
                self._changed.wait(left)
            failures, self._failures = self._failures, []
            count, self._failed = self._failed, 0
        if failures:
            raise DeliveryFailed(
                f"Kafka has not stored {counted(count, 'event')}: {failures[0]}",
                may_be_stored=any(failure.may_be_stored for failure in failures),
            )

    def close(self) -> None:
        """Flushes and ends. Raises as `flush` does; a second time it does nothing."""
        # First: what another thread has begun to send is waited for, and nothing comes after it.
        with self._changed:
            if self._closed:
                return
            self._closed = True
        try:
            self.flush()
        finally:
            self._ended.set()
            self._thread.join()
            self._client.purge()
            self._client.poll(0)  # tells what was purged, if the flush was interrupted


def _poll(client: Producer, ended: threading.Event) -> None:
    while not ended.is_set():
        client.poll(_TURN)


def _failure(error: KafkaError) -> DeliveryFailed:
    unknown = error.code() not in _NOT_STORED
    advice = "it may be in the topic all the same" if unknown else "it is not in the topic"
    return DeliveryFailed(f"{error.str()}: {advice}", may_be_stored=unknown)
