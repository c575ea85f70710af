"""The end-to-end probe: a record a second on a topic of its own, sent and received by this process.

It shows what no worker's metric can: that the broker takes and delivers a record now.
"""

import contextlib
import time
import uuid
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streamflow.errors import Unavailable
from streamflow.kafka.clients import admin, assigned_consumer, kafka_errors, producer
from streamflow.settings import Settings

TOPIC: Final = "streamflow-probe"

_TIMEOUT: Final = 5.0  # seconds to open
_LOST_AFTER: Final = 10.0  # seconds
_LAST: Final = 60  # round trips that percentiles are taken of
_WAIT: Final = 0.7  # seconds that a probe is waited for before the next


@dataclass(frozen=True, slots=True)
class ProbeSample:
    """What became of the probes.

    Attributes:
        acknowledged: seconds until the broker acknowledged the newest one.
        round_trip: seconds until the newest one came back.
        p99: of the last round trips, in seconds.
        sent: since the start.
        lost: of those, not back within ten seconds.
    """

    acknowledged: float | None
    round_trip: float | None
    p99: float | None
    sent: int
    lost: int


class Probe:
    """Sends and receives. Use it from one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.prefix + TOPIC
        self._run = uuid.uuid4().hex
        self._clients: tuple[Producer, Consumer] | None = None
        self._waiting: dict[bytes, float] = {}
        self._trips: deque[float] = deque(maxlen=_LAST)
        self._acknowledged: float | None = None
        self._failure: str | None = None
        self._sent = self._lost = 0

    def __call__(self) -> ProbeSample:
        """Sends a record, and waits a moment for it.

        Raises:
            Unavailable: the broker did not take it, or has not delivered it yet.
        """
        if self._clients is None:
            with kafka_errors():
                self._clients = self._open()
        producing, consumer = self._clients
        key = f"{self._run}/{self._sent}".encode()
        self._send(producing, key)
        self._receive(producing, consumer, key)
        now = time.monotonic()
        overdue = [probe for probe, sent in self._waiting.items() if now - sent > _LOST_AFTER]
        for probe in overdue:
            del self._waiting[probe]
            self._lost += 1
        if key in self._waiting:
            raise Unavailable(
                self._failure
                or f"the probe of {time.strftime('%H:%M:%S', time.gmtime())} is not back"
            )
        trips = sorted(self._trips)
        return ProbeSample(
            self._acknowledged,
            self._trips[-1] if trips else None,
            trips[min(len(trips) - 1, int(len(trips) * 0.99))] if trips else None,
            self._sent,
            self._lost,
        )

    def close(self) -> None:
        if self._clients is not None:
            producing, consumer = self._clients
            consumer.close()
            producing.purge()

    def _open(self) -> tuple[Producer, Consumer]:
        self._create_topic(admin(self._settings))
        consumer = assigned_consumer(
            self._settings,
            self._settings.prefix + "streamflow-probe",
            **{
                "isolation.level": "read_uncommitted",
                "fetch.wait.max.ms": 500,
                "auto.offset.reset": "latest",
            },
        )
        _, end = consumer.get_watermark_offsets(TopicPartition(self._topic, 0), timeout=_TIMEOUT)
        consumer.assign([TopicPartition(self._topic, 0, end)])
        options = {"linger.ms": 0, "message.timeout.ms": int(_LOST_AFTER * 1000)}
        return producer(self._settings, **options), consumer

    def _create_topic(self, client: AdminClient) -> None:
        wanted = NewTopic(
            self._topic,
            num_partitions=1,
            replication_factor=self._settings.kafka_replication_factor,
            config={"retention.ms": "600000", "segment.ms": "600000"},
        )
        future = client.create_topics([wanted], operation_timeout=_TIMEOUT)[self._topic]
        try:
            future.result(_TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def _send(self, producing: Producer, key: bytes) -> None:
        sent = time.monotonic()
        self._waiting[key] = sent
        self._sent += 1

        def acknowledged(error: Any, _message: Message) -> None:
            if error is None:
                self._acknowledged = time.monotonic() - sent
                self._failure = None
            else:
                self._failure = f"Kafka: {error.str()}"

        with contextlib.suppress(BufferError):
            producing.produce(self._topic, b"", key, partition=0, on_delivery=acknowledged)

    def _receive(self, producing: Producer, consumer: Consumer, key: bytes) -> None:
        deadline = time.monotonic() + _WAIT
        while key in self._waiting and time.monotonic() < deadline:
            producing.poll(0)
            message = consumer.poll(0.05)
            if message is None or message.error() is not None:
                continue
            sent = self._waiting.pop(message.key() or b"", None)
            # The first one waits for connections to be opened: that is no round trip.
            if sent is not None and self._sent > 1:
                self._trips.append(time.monotonic() - sent)
        producing.poll(0)
