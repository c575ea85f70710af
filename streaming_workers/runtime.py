"""The loop that all workers share: join, resume, batch, commit, and start anew when torn.

A worker's file says what becomes of a batch; everything else is here, once. There is one road for
every failure: what is in hand is dropped, and a new session resumes from what is durable. That is
safe because a batch and its positions are committed together, and it is the road of a crash too.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, cast

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from streamflow import monitoring
from streamflow.errors import (
    CircuitOpen,
    ConfigurationError,
    Fenced,
    StreamFlowError,
    Unavailable,
)
from streamflow.flow import Batch, Output, Partition, Sink
from streamflow.kafka import clients, offsets
from streamflow.records import Position, Record
from streamflow.settings import Settings
from streaming_workers.backoff import backoff
from streaming_workers.breaker import Breaker

log = structlog.get_logger()

_IDLE = 0.5  # seconds to wait for a first record
_PATIENCE = 9.0  # seconds from SIGTERM to the end, whatever hangs
_STALLED = 120.0  # seconds without a turn of the loop until it counts as stalled
_ASK_EVERY = 2.0  # seconds
_SETTLED = 30.0  # seconds that a session must last for the backoff to start anew


class Job(Protocol):
    """What a worker does."""

    name: str
    group: str
    topics: list[str]
    batch_size: int
    linger: float  # seconds to fill a batch

    def assign(self, positions: Mapping[Partition, Position | None]) -> dict[Partition, int]:
        """Takes partitions over; returns the offset to read each from."""
        ...

    def revoke(self, partitions: Sequence[Partition]) -> None:
        """Forgets partitions."""
        ...

    def process(self, batch: Batch) -> Output | None:
        """What the batch becomes; None for nothing to commit. Called with empty batches too."""
        ...


SinkFactory = Callable[[Consumer], Sink]


class PlainJob:
    """A job without state of its own: reads on from what was committed."""

    batch_size = 10_000
    linger = 0.05

    def assign(self, positions: Mapping[Partition, Position | None]) -> dict[Partition, int]:
        """Reads on from what was committed, or from the beginning."""
        return {
            partition: OFFSET_BEGINNING if position is None else position.offset
            for partition, position in positions.items()
        }

    def revoke(self, partitions: Sequence[Partition]) -> None:
        """Nothing to forget."""


class Worker:
    """Runs a job until it is told to stop.

    Args:
        settings: everything configured.
        job: what becomes of a batch.
        sink: makes the sink of a session.
        accept_rejects: go on however many records are refused.
        ping: asks what the sink depends on, besides Kafka, for a sign of life.
    """

    def __init__(
        self,
        settings: Settings,
        job: Job,
        sink: SinkFactory,
        *,
        accept_rejects: bool = False,
        ping: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._job = job
        self._make_sink = sink
        self._accept_rejects = accept_rejects
        self._stop = threading.Event()
        self._turned = time.monotonic()
        self._joined = False
        self._trouble = "starting"
        self._ping = ping
        self._dependencies = monitoring.CachedProbe(self._probe_dependencies)
        self._admin = clients.admin(settings)

    def run(self, health_port: int = 0) -> None:
        """Works until SIGTERM or SIGINT.

        Raises:
            ConfigurationError: nothing that waiting would mend.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        server = monitoring.HealthServer(
            self._settings.host, health_port, self._health, self._ready
        )
        with server:
            log.info("worker started", health_port=server.port)
            self._run_sessions()
        log.info("worker stopped")

    def stop(self) -> None:
        """Asks the worker to finish the batch in hand and end."""
        self._stop.set()

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stop.set()
        # What is not committed is read again by the next worker, so ending hard is safe; hanging
        # on a broker that is gone is not (G10).
        timer = threading.Timer(_PATIENCE, os._exit, (0,))
        timer.daemon = True
        timer.start()

    def _health(self) -> tuple[bool, str]:
        silence = time.monotonic() - self._turned
        return (silence < _STALLED, f"last turn {silence:.1f} s ago")

    def _ready(self) -> tuple[bool, str]:
        if not self._joined:
            return (False, self._trouble)
        return self._dependencies()

    def _probe_dependencies(self) -> tuple[bool, str]:
        try:
            self._admin.list_topics(timeout=2)
            self._ping()
        except KafkaException:
            return (False, f"Kafka at {self._settings.bootstrap} does not answer")
        except StreamFlowError as error:
            return (False, str(error))
        return (True, "ready")

    def _run_sessions(self) -> None:
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._run_session()
            except CircuitOpen as error:
                self._joined = False
                self._wait_for_another(error)
            except (Unavailable, Fenced) as error:
                self._joined = False
                self._trouble = str(error)
                failures = 1 if time.monotonic() - began > _SETTLED else failures + 1
                pause = backoff(failures)
                log.warning(
                    "session ended",
                    why=str(error),
                    kind=type(error).__name__,
                    again_in_s=round(pause, 2),
                )
                self._turned = time.monotonic()
                self._stop.wait(pause)

    def _run_session(self) -> None:
        monitoring.SESSIONS.inc()
        session = Session(self._settings, self._job, self._make_sink)
        breaker = Breaker(
            self._settings.breaker_window,
            self._settings.breaker_ratio,
            self._settings.breaker_consecutive,
        )
        try:
            while not self._stop.is_set():
                self._turned = time.monotonic()
                batch = session.consume()
                self._joined = session.joined
                if not session.joined:
                    self._trouble = f"waiting for partitions of group {self._job.group}"
                output = self._job.process(batch)
                if output is None or not output.positions:
                    session.idle()
                    continue
                if not self._accept_rejects:
                    breaker.check(len(batch.records), [index for index, _ in output.rejected])
                session.commit(output)
                _observe(batch, output)
            session.finish()
        finally:
            session.close()

    def _wait_for_another(self, error: CircuitOpen) -> None:
        """Stays alive and not ready until told to go on: by a restart with --accept-rejects, or by
        another worker of the group getting past this point."""
        self._trouble = (
            f"stopped by the circuit breaker: {error}; nothing of that was committed. Mend the "
            f"release, or accept it with `streamflow worker {self._job.name} --accept-rejects`"
        )
        log.error("circuit open", why=self._trouble)
        stuck_at = self._committed()
        while not self._stop.wait(_ASK_EVERY):
            self._turned = time.monotonic()
            with suppress(StreamFlowError):
                if stuck_at is None:
                    stuck_at = self._committed()
                elif self._committed() not in (None, stuck_at):
                    log.info("going on", why="another worker got past")
                    return

    def _committed(self) -> dict[Partition, int] | None:
        try:
            found = offsets.committed(self._admin, self._job.group)
        except StreamFlowError:
            return None
        return {partition: position.offset for partition, position in found.items()}


class Session:
    """One membership of the consumer group, with its sink; torn down on any error."""

    def __init__(self, settings: Settings, job: Job, make_sink: SinkFactory) -> None:
        self._job = job
        self._read_to: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}
        self._taken: dict[Partition, int] = {}
        self._failure: StreamFlowError | None = None
        self._moved = False
        self.joined = False
        self._consumer = clients.consumer(settings, job.group)
        try:
            self._require_topics()
            self._sink = make_sink(self._consumer)
            self._consumer.subscribe(
                job.topics,
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
        except BaseException:
            self._consumer.close()
            raise

    def _require_topics(self) -> None:
        with clients.kafka_errors():
            known = self._consumer.list_topics(timeout=10).topics
        missing = [topic for topic in self._job.topics if topic not in known]
        if missing:
            raise Unavailable(
                f"topic {', '.join(missing)} does not exist: run `streamflow topics --apply`"
            )

    def consume(self) -> Batch:
        """The next batch; an empty one when nothing has come.

        Raises:
            Unavailable: the broker, or a dependency while partitions were taken over.
        """
        self._moved = False
        with clients.kafka_errors():
            messages = self._consumer.consume(self._job.batch_size, self._job.linger)
        if self._failure is not None:
            raise self._failure
        records = self._sound(messages)
        positions = self._moved_positions() if messages else []
        return Batch(cast("list[Record]", records), positions, time.monotonic())

    def _moved_positions(self) -> list[Position]:
        """Where each partition now stands, for those that moved.

        Behind the last record there may be transaction markers: the end-of-partition event tells
        that they are passed, so that a worker that has read everything shows no lag.
        """
        with clients.kafka_errors():
            found = self._consumer.position(
                [TopicPartition(*partition) for partition in self._read_to]
            )
        moved: list[Position] = []
        for each in found:
            partition = (each.topic, each.partition)
            offset = max(each.offset, self._ends.get(partition, -1))
            if offset > self._read_to[partition]:
                self._read_to[partition] = offset
                moved.append(Position(*partition, offset))
        return moved

    def _sound(self, messages: list[Message]) -> list[Message]:
        if any(message.error() is not None for message in messages):
            records = []
            for message in messages:
                error = message.error()
                if error is None:
                    records.append(message)
                else:
                    self._judge(error, message)
            messages = records
        if self._moved:
            messages = self._since_moved(messages)
        return messages

    def _since_moved(self, messages: list[Message]) -> list[Message]:
        """Leaves out what may have been fetched before partitions moved.

        The records of one call can come from before and after its rebalance, and nothing tells
        them apart: so partitions taken over in this call are read again from their start.
        """
        taken, self._taken = self._taken, {}
        with clients.kafka_errors():
            for partition, start in taken.items():
                self._consumer.seek(TopicPartition(*partition, start))
                self._ends.pop(partition, None)
        return [
            message
            for message in messages
            if (message.topic(), message.partition()) in self._read_to
            and (message.topic(), message.partition()) not in taken
        ]

    def _judge(self, error: KafkaError, message: Message) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            partition = (message.topic() or "", message.partition() or 0)
            self._ends[partition] = message.offset() or 0
            return
        where = f"{message.topic()}[{message.partition()}]"
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            self._out_of_range(message)
            return
        raise clients.translated(KafkaException(error)) from Unavailable(where)

    def _out_of_range(self, message: Message) -> None:
        topic, partition = message.topic() or "", message.partition() or 0
        where = TopicPartition(topic, partition)
        with clients.kafka_errors():
            low, high = self._consumer.get_watermark_offsets(where, timeout=10)
            if (message.offset() or 0) > high:
                raise ConfigurationError(
                    f"{topic}[{partition}] ends at {high}, but group {self._job.group} had read "
                    "further: the topic was made anew; reset the group, or give it a new name"
                )
            log.error(
                "records lost to retention",
                topic=topic,
                partition=partition,
                going_on_from=low,
                advice="raise the topic's retention, or keep the worker running",
            )
            where.offset = low
            self._consumer.seek(where)

    def commit(self, output: Output) -> None:
        """Hands an output to the sink. Raises as `Sink.commit` does."""
        self._sink.commit(output)
        self._tell_kafka()

    def idle(self) -> None:
        """Lets what is on its way become durable while there is nothing else to do."""
        self._sink.flush()
        self._tell_kafka()

    def finish(self) -> None:
        """Returns when everything is durable."""
        self._sink.flush()
        self._tell_kafka()

    def _tell_kafka(self) -> None:
        """Commits positions that are kept elsewhere, for lag displays only: a failure costs nothing
        but a stale display until the next one."""
        durable = [
            TopicPartition(each.topic, each.partition, each.offset)
            for each in self._sink.take_durable()
            if (each.topic, each.partition) in self._read_to
        ]
        if durable:
            with suppress(KafkaException):
                self._consumer.commit(offsets=durable, asynchronous=True)

    def close(self) -> None:
        """Leaves the group."""
        with suppress(KafkaException, RuntimeError):
            self._consumer.unsubscribe()
        self._sink.close()
        with suppress(KafkaException, RuntimeError):
            self._consumer.close()

    # Called within `consume`. An exception must not cross librdkafka's C code, so it is kept.

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._moved = True
        wanted = [(each.topic, each.partition) for each in partitions]
        try:
            starts = self._job.assign(self._sink.resume(wanted)) if wanted else {}
        except StreamFlowError as error:
            self._failure = error
            starts = {}
        consumer.incremental_assign(
            [TopicPartition(*partition, offset) for partition, offset in starts.items()]
        )
        self._read_to.update(starts)
        self._taken.update(starts)
        self.joined = True
        log.info("assigned", partitions=_names(wanted))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._moved = True
        leaving = [(each.topic, each.partition) for each in partitions]
        try:
            self._sink.flush()
        except StreamFlowError as error:
            self._failure = error
        self._forget(leaving)
        consumer.incremental_unassign(partitions)
        log.info("revoked", partitions=_names(leaving))

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        lost = [(each.topic, each.partition) for each in partitions]
        self._forget(lost)
        self._failure = Fenced(f"group {self._job.group} gave {_names(lost)} to another worker")

    def _forget(self, partitions: list[Partition]) -> None:
        self._job.revoke(partitions)
        for partition in partitions:
            self._read_to.pop(partition, None)
            self._ends.pop(partition, None)
            self._taken.pop(partition, None)


def _names(partitions: Sequence[Partition]) -> str:
    return ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(partitions))


def _observe(batch: Batch, output: Output) -> None:
    monitoring.BATCH_SECONDS.observe(time.monotonic() - batch.now)
    if batch.records:
        counts: dict[str, int] = {}
        for record in batch.records:
            topic = record.topic() or ""
            counts[topic] = counts.get(topic, 0) + 1
        for topic, count in counts.items():
            monitoring.RECORDS_IN.labels(topic).inc(count)
        appended = batch.records[-1].timestamp()[1]
        monitoring.END_TO_END_SECONDS.observe(max(0.0, time.time() - appended / 1000))
    produced: dict[str, int] = {}
    for out in output.records:
        produced[out.topic] = produced.get(out.topic, 0) + 1
    for table, rows in output.rows.items():
        produced[table] = len(rows)
    for to, count in produced.items():
        monitoring.RECORDS_OUT.labels(to).inc(count)
    for _, code in output.rejected:
        monitoring.RECORDS_REJECTED.labels(code.value).inc()
