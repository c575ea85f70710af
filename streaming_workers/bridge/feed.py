"""Every record of some topics from now on, read by a thread of its own.

All partitions are assigned without joining a group: each bridge sees all records. Its positions are
committed all the same, for lag displays only. It starts at the end of the log, after the last records
for the history, and resumes where it was after an outage of Kafka.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

import structlog
from confluent_kafka import KafkaException, TopicPartition

from streamflow.calls import call
from streamflow.errors import OffsetsReused, StreamFlowError, Unavailable
from streamflow.flow import Partition
from streamflow.kafka import clients, offsets
from streamflow.kafka.reader import Reader
from streamflow.monitoring import SESSIONS, CachedProbe
from streamflow.records import Record, position_of
from streamflow.settings import Settings
from streaming_workers.runtime.process import repeat_sessions
from streaming_workers.runtime.watchdog import Watchdog

log = structlog.get_logger()

_IDLE = 0.5  # seconds to wait for a first record
_LINGER = 0.005  # seconds to wait for more
_BATCH = 2_000
_COMMIT_EVERY = 1.0  # seconds
_COMMIT_AGAIN = 60.0  # seconds, also what has not moved
_LOOK_EVERY = 30.0  # seconds between looks for new partitions
_LOOK_SOON = 2.0  # seconds, while a topic does not exist
_LOOK_LIMIT = 60.0  # seconds; of several requests, each with a time-out
_TIMEOUT = 10.0  # seconds

# Takes records from before the start, and records from now on. Returns when they are taken: this is
# the back pressure.
Deliver = Callable[[Sequence[Record], Sequence[Record]], None]


class Feed:
    """Reads topics, by their names on the broker, until it is stopped: first the last `history` records
    of each. Positions are committed to `group`, for lag displays."""

    def __init__(
        self, settings: Settings, group: str, topics: Sequence[str], history: int, deliver: Deliver
    ) -> None:
        self._settings = settings
        self._group = group
        self._topics = list(topics)
        self._history = history
        self._deliver = deliver
        self._admin = clients.admin(settings)
        self._stop = threading.Event()
        self._watchdog = Watchdog(settings.stall_seconds, "bridge")
        self._assigned = False
        self._trouble = "starting"
        self._read_to: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}
        self._committed_at = float("-inf")
        self._looking_back: set[Partition] = set()
        self._missing: list[str] = []
        self._broker = CachedProbe(lambda: clients.probe(settings, self._admin))

    def run(self) -> None:
        """Reads until `stop`. Raises ConfigurationError for what only a user can fix."""
        with self._watchdog:
            repeat_sessions(self._try_session, self._stop)

    def _try_session(self) -> None:
        self._watchdog.turned()
        try:
            self._run_session()
        except Unavailable as error:
            self._trouble = str(error)
            log.warning("session ended", why=str(error))
            self._watchdog.turned()
            raise
        finally:
            self._assigned = False
            self._looking_back.clear()

    def stop(self) -> None:
        """Ends `run` within half a second while Kafka answers."""
        self._stop.set()

    def health(self) -> tuple[bool, str]:
        """Whether the loop makes progress; also says how Kafka is."""
        turns, why = self._watchdog.health()
        return (turns, f"{why}; Kafka: {self.ready()[1]}" if turns else why)

    def ready(self) -> tuple[bool, str]:
        """Whether new records come in, and the history has been read."""
        turns, why = self._watchdog.health()
        if not turns or not self._assigned:
            return (False, why if not turns else self._trouble)
        if self._looking_back:
            return (False, "reading the last records")
        return self._broker()

    def _run_session(self) -> None:
        SESSIONS.inc()
        reader = Reader(self._settings, self._group)
        try:
            known: dict[Partition, int] = {}
            next_look = next_commit = 0.0
            while not self._stop.is_set():
                self._watchdog.turned()
                now = time.monotonic()
                if now >= next_look:
                    with call("reading offsets", _LOOK_LIMIT):
                        known |= self._assign_new(reader, known)
                    next_look = now + (_LOOK_SOON if self._missing else _LOOK_EVERY)
                    self._assigned = True
                self._read(reader, known)
                if now >= next_commit:
                    next_commit = now + _COMMIT_EVERY
                    self._commit_for_display(reader)
        finally:
            self._commit_for_display(reader)
            with suppress(KafkaException, RuntimeError), call("consumer.close", _TIMEOUT):
                reader.close()

    def _assign_new(self, reader: Reader, known: Mapping[Partition, int]) -> dict[Partition, int]:
        """Assigns partitions that are not assigned yet; returns where the live part of each begins. One
        that appears while others are read is new, so it is read from its beginning."""
        partitions = offsets.partitions_of(self._admin, self._topics)
        self._note_missing({topic for topic, _ in partitions})
        new = [partition for partition in partitions if partition not in known]
        live: dict[Partition, int] = {}
        starts: list[TopicPartition] = []
        for partition, (low, end) in offsets.bounds(self._admin, new).items():
            share = -(-self._history // sum(topic == partition[0] for topic, _ in partitions))
            position = self._read_to.get(partition)
            if position is None:
                live[partition] = low if known else end
                start = low if known else max(low, end - share)
            else:
                if not low <= position <= end:
                    log.error(
                        "records are gone",
                        partition=f"{partition[0]}[{partition[1]}]",
                        position=position,
                        why="retention removed them, or the topic was recreated",
                        resuming_from=low,
                    )
                    position = low
                live[partition] = start = position
            starts.append(TopicPartition(*partition, start))
            if start < live[partition]:
                self._looking_back.add(partition)
        if starts:
            reader.add(starts)
            log.info("assigned", partitions=len(starts))
        return live

    def _note_missing(self, present: Collection[str]) -> None:
        """A stream without its topics stops no other (G14). Raises Unavailable if no topic exists."""
        missing = [topic for topic in self._topics if topic not in present]
        if missing == self._topics:
            offsets.require_partitions(self._admin, missing)
        if missing and missing != self._missing:
            log.error("topics not read", topics=missing, why="they do not exist")
        self._missing = missing

    def _read(self, reader: Reader, live_from: Mapping[Partition, int]) -> None:
        before = dict(reader.read_to)
        try:
            records, ends = reader.read(_BATCH, _LINGER, idle=_IDLE)
        except OffsetsReused as error:
            # No reason to stop: the next session reads what is there.
            raise Unavailable(str(error)) from error
        recalled: list[Record] = []
        live = [] if self._looking_back else records
        if self._looking_back:
            for record in records:
                topic, number, offset = position_of(record)
                (live if offset >= live_from[topic, number] else recalled).append(record)
        if records:
            with call("delivering to clients"):
                self._deliver(recalled, live)
        for partition, position in reader.read_to.items():
            if position != before.get(partition) or partition in ends:
                self._read_to[partition] = position
                if position >= live_from[partition]:
                    self._looking_back.discard(partition)

    def _commit_for_display(self, reader: Reader) -> None:
        """A failure only leaves a display stale until the next one. What has not moved is committed again
        now and then: Kafka keeps every commit, and forgets one that is old."""
        now = time.monotonic()
        if now - self._committed_at > _COMMIT_AGAIN:
            self._committed.clear()
            self._committed_at = now
        moved = {
            partition: offset
            for partition, offset in self._read_to.items()
            if offset != self._committed.get(partition)
        }
        if moved:
            positions = [TopicPartition(*partition, offset) for partition, offset in moved.items()]
            with suppress(KafkaException, StreamFlowError):
                reader.consumer.commit(offsets=positions, asynchronous=True)
            self._committed |= moved
