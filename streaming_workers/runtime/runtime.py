"""The loop that all workers share: join, resume, batch, commit; after a failure, another session.

A job says what becomes of a batch. Every failure takes the same path: what is not committed is dropped,
and a new session resumes from what is durable. That is safe because a batch and its positions are
committed together, and a crash takes that path, too.
"""

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress

import structlog

from streamflow import monitoring
from streamflow.calls import call
from streamflow.errors import (
    CircuitOpen,
    Fenced,
    OffsetsReused,
    StreamFlowError,
    StreamUnavailable,
    Unavailable,
)
from streamflow.flow import Partition
from streamflow.kafka import clients, offsets
from streamflow.kafka.topic_ids import TopicWatch, topic_ids
from streamflow.kafka.transactions import TRANSACTION_CALLS
from streamflow.lineage.runs import WorkerLineage
from streamflow.records import Position
from streamflow.settings import Settings
from streaming_workers.reporting import Reporter
from streaming_workers.runtime.batch_metrics import BatchMetrics
from streaming_workers.runtime.breaker import Breaker
from streaming_workers.runtime.job import AskLeftOut, Job, LeftOut, SinkFactory
from streaming_workers.runtime.process import end_soon_after_signal, repeat_sessions
from streaming_workers.runtime.session import Session
from streaming_workers.runtime.watchdog import Watchdog
from streaming_workers.tracing import traces_of

log = structlog.get_logger()

_ASK_EVERY = 2.0  # seconds
_TRY_AGAIN = 15.0  # seconds until a worker that waits for a user tries again by itself
_ASK_LIMIT = 60.0  # seconds; of several requests, each with a time-out


class Worker:
    """Runs a job until it is stopped.

    Args:
        settings: all settings.
        job: what becomes of a batch.
        sink: makes the sink of a session.
        accept_rejects: no circuit breaker.
        ping: raises if what the sink depends on, besides Kafka, does not answer.
        left_out: what a session does not read. Asked again while there is anything.
        lineage: is told what it has written.
    """

    def __init__(
        self,
        settings: Settings,
        job: Job,
        sink: SinkFactory,
        *,
        accept_rejects: bool = False,
        ping: Callable[[], None] = lambda: None,
        left_out: AskLeftOut = lambda _client: LeftOut(),
        lineage: WorkerLineage | None = None,
    ) -> None:
        self._settings = settings
        self._job = job
        self._make_sink = sink
        # Lives as long as the process: it judges the release.
        self._breaker = None if accept_rejects else Breaker.of(settings)
        self._stop = threading.Event()
        self._watchdog = Watchdog(settings.stall_seconds, job.name)
        self._watchdog.leave = self._leave_group
        self._session: Session | None = None
        self._joined = False
        self._trouble = "starting"
        self._ping = ping
        self._ask_left_out = left_out
        self._left_out = LeftOut()
        self._asked_left_out = float("-inf")
        # Topics of streams that wait for something of their own, with what; tried again in another session.
        self._waiting: dict[str, str] = {}
        self._reads, self._sources = tuple(job.topics), tuple(job.sources)
        self._dependencies = monitoring.CachedProbe(self._probe_dependencies)
        self._admin = clients.admin(settings)
        self._topics = TopicWatch(self._admin)
        self._reporter = Reporter.of(settings, job.name)
        self._lineage = lineage or WorkerLineage(settings, (), job.name)
        self._traces = traces_of(settings, f"streamflow-{job.name}", job.group)

    def run(self, health_port: int = 0) -> None:
        """Runs until SIGTERM or SIGINT. Raises ConfigurationError for what only a user can fix."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        server = monitoring.HealthServer(
            self._settings, health_port, self._watchdog.health, self._ready
        )
        # What is not committed is read again by the next worker, so ending hard is safe; hanging on a
        # broker that is gone is not (G10).
        with (
            end_soon_after_signal(), closing(self._traces), server, self._watchdog, self._reporter,
            self._lineage,
        ):  # fmt: skip
            log.info("worker started", health_port=server.port)
            repeat_sessions(self._try_session, self._stop)
        log.info("worker stopped")

    def stop(self) -> None:
        """Ends `run` after the current batch."""
        self._stop.set()

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stop.set()

    def _ready(self) -> tuple[bool, str]:
        turns, why = self._watchdog.health()
        if not turns:
            return (False, why)
        return self._dependencies() if self._joined else (False, self._trouble)

    def _probe_dependencies(self) -> tuple[bool, str]:
        answers, why = clients.probe(self._settings, self._admin)
        if not answers:
            return (False, why)
        try:
            self._ping()
        except StreamFlowError as error:
            return (False, str(error))
        return (True, "ready")

    def _try_session(self) -> None:
        """Runs a session; waits for a user where only that helps."""
        try:
            self._run_session()
        except CircuitOpen as error:
            self._wait_for_another(error)
            self._breaker = Breaker.of(self._settings)
        except OffsetsReused as error:
            self._wait_until_accepted(error)
        except StreamUnavailable as error:
            log.warning("stream waits", topic=error.topic, why=str(error))
            self._waiting[error.topic] = str(error)
        except (Unavailable, Fenced) as error:
            self._trouble = str(error)
            log.warning("session ended", why=str(error), kind=type(error).__name__)
            # The clients of the next session are new: nothing of it waits on a connection that died
            # silently.
            self._admin = self._topics.client = clients.admin(self._settings)
            self._watchdog.turned()
            raise

    def _run_session(self) -> None:
        monitoring.SESSIONS.inc()
        self._watchdog.turned()
        self._leave_out()
        self._topics.begin()
        session = Session(
            self._settings,
            self._job,
            lambda consumer: self._make_sink(consumer, self._breaker),
            self._on_durable,
            self._topics,
        )
        self._session = session
        try:
            while not self._stop.is_set() and not self._can_run_more():
                self._watchdog.turned()
                self._turn(session)
            if session.joined:
                session.finish()
            session.flush()
        finally:
            self._session, self._joined = None, False
            session.close()

    def _turn(self, session: Session) -> None:
        batch = session.consume()
        self._joined = session.joined
        if not session.joined:
            self._trouble = f"waiting for partitions of group {self._job.group}"
        with self._traces.batch(batch) as span:
            output = self._job.process(batch)
            if output is not None and output.positions:
                span.hand_over(output)
                session.commit(batch, output)
                return
        session.flush()
        if session.joined:
            self._report({})

    def _leave_out(self) -> None:
        self._asked_left_out = time.monotonic()
        with call("asking what is left out", _ASK_LIMIT):
            left = self._left_out = self._ask_left_out(self._admin)
        for event, stream, why in left.reasons:
            log.error(event, stream=stream, why=why)
        unread = left.missing | left.unloadable | self._waiting.keys()
        self._job.topics = [topic for topic in self._reads if topic not in unread]
        self._job.sources = [topic for topic in self._sources if topic not in left.missing]
        if not self._job.topics:
            why = "; ".join(dict.fromkeys(self._waiting.values()))
            self._waiting.clear()
            raise Unavailable(why or "no stream can run")

    def _can_run_more(self) -> bool:
        """Whether another session may leave out less."""
        if not any((*self._left_out, self._waiting)):
            return False
        if time.monotonic() - self._asked_left_out < _TRY_AGAIN:
            return False
        self._asked_left_out = time.monotonic()
        if self._waiting:
            self._waiting.clear()
            return True
        with suppress(StreamFlowError), call("asking what is left out", _ASK_LIMIT):
            return self._ask_left_out(self._admin) != self._left_out
        return False

    def _leave_group(self, hanging: str) -> None:
        """Before the watchdog ends the process. Another thread must not close the consumer while a
        call of the consumer itself hangs."""
        if self._session is not None and hanging in TRANSACTION_CALLS:
            self._session.abandon()

    def _on_durable(self, batch: BatchMetrics) -> None:
        batch.publish()
        self._lineage.note(batch.records_out)
        self._report(batch.records_out)

    def _report(self, made: Mapping[str, int]) -> None:
        """Counts for Dagster. None are reported, too: the asset is up to date."""
        for name, asset in self._job.assets.items():
            self._reporter.note(asset, made.get(name, 0))

    def _wait_for_another(self, error: CircuitOpen) -> None:
        """Stays alive and not ready until a restart with --accept-rejects, or until another worker of
        the group gets past this point."""
        self._trouble = (
            f"stopped by the circuit breaker: {error}; nothing of that was committed. Fix the "
            f"release, or accept it with `streamflow worker {self._job.name} --accept-rejects`"
        )
        log.error("circuit open", why=self._trouble)
        stuck_at = self._committed()
        while not self._stop.wait(_ASK_EVERY):
            self._watchdog.turned()
            with suppress(StreamFlowError):
                if stuck_at is None:
                    stuck_at = self._committed()
                elif self._committed() not in (None, stuck_at):
                    log.info("resuming", why="another worker got past")
                    return

    def _wait_until_accepted(self, error: OffsetsReused) -> None:
        """Stays alive, not ready and out of the group until a user has decided: accepting a recreated
        topic commits new offsets for every group. A worker that was stopped meanwhile sees no change
        any more, so now and then another session tries."""
        if self._trouble != str(error):
            self._trouble = str(error)
            log.error("offsets reused", why=self._trouble)
        stuck_at = self._positions([error.topic])
        try_again_at = time.monotonic() + _TRY_AGAIN
        while not self._stop.wait(_ASK_EVERY) and time.monotonic() < try_again_at:
            self._watchdog.turned()
            committed = self._positions([error.topic])
            if stuck_at is None:
                stuck_at = committed
            elif (
                committed
                and committed != stuck_at
                and self._is_of_current_topic(committed, error.topic)
            ):
                log.info("resuming", why=f"topic {error.topic} was accepted")
                return

    def _positions(self, topics: Sequence[str]) -> dict[Partition, Position] | None:
        """What the group has committed in topics; None where Kafka does not answer."""
        try:
            with call("reading committed offsets", _ASK_LIMIT):
                partitions = offsets.partitions_of(self._admin, topics)
                return offsets.committed(self._settings, self._job.group, partitions)
        except StreamFlowError:
            return None

    def _is_of_current_topic(self, committed: Mapping[Partition, Position], topic: str) -> bool:
        try:
            current = topic_ids(self._admin, [topic])[topic]
        except StreamFlowError:
            return False
        return all(position.log.topic_id in ("", current) for position in committed.values())

    def _committed(self) -> dict[Partition, int] | None:
        committed = self._positions(self._job.topics)
        if committed is None:
            return None
        return {partition: position.offset for partition, position in committed.items()}
