"""Reads topics for the inspector: the live tail, and searches with limits.

Every record is masked before it is kept or compared. No offset is committed, so no worker is disturbed.
"""

import math
import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from confluent_kafka import TopicPartition

from streamflow.errors import UsageError
from streamflow.flow import Partition
from streamflow.kafka import offsets
from streamflow.kafka.clients import admin, kafka_errors
from streamflow.kafka.reader import Reader, Scanner
from streamflow.privacy import Hasher
from streamflow.settings import Settings
from streamlit_app.records.filters import Filter, Test
from streamlit_app.records.masking import SeenRecord, mask

KEPT: Final = 500  # records of a topic in the tail
MOST_A_TURN: Final = 400  # records of a topic that the tail takes a second

_TURN: Final = 0.5  # seconds
_KEPT_FOR: Final = 10.0  # seconds after the last `watch`
_TIMEOUT: Final = 5.0  # seconds
_SEARCHES: Final = threading.BoundedSemaphore(2)
# Of one search.
_MOST_RECORDS: Final = 100_000
_MOST_BYTES: Final = 256_000_000
_MOST_SECONDS: Final = 10.0
_MOST_KEPT: Final = 200  # records


class TailView(NamedTuple):
    """The end of a topic.

    Attributes:
        records: the newest first.
        skipped: offsets left out since it is watched, because more came than a person can read.
        error: why nothing comes.
    """

    records: tuple[SeenRecord, ...]
    skipped: int
    error: str | None


@dataclass(slots=True)
class _Watched:
    watched_at: float
    records: deque[SeenRecord] = field(default_factory=lambda: deque(maxlen=KEPT))
    skipped: int = 0
    error: str | None = None


class Tail:
    """Follows the topics that sessions watch: one thread, and one consumer a topic."""

    def __init__(self, settings: Settings, hasher: Hasher) -> None:
        self._settings = settings
        self._hasher = hasher
        self._watched: dict[str, _Watched] = {}
        self._readers: dict[str, Reader] = {}
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tail", daemon=True)

    def start(self) -> None:
        """Starts; reads nothing until a topic is watched."""
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._wake.set()
        self._thread.join(3)

    def watch(self, topic: str) -> TailView:
        """The end of a topic, which is followed for some seconds more."""
        now = time.monotonic()
        with self._guard:
            if topic not in self._watched:
                self._watched[topic] = _Watched(now)
                self._wake.set()
            watched = self._watched[topic]
            watched.watched_at = now
            return TailView(tuple(reversed(watched.records)), watched.skipped, watched.error)

    def _run(self) -> None:
        while not self._ended.is_set():
            topics = self._watched_topics()
            for topic in topics:
                try:
                    self._read(topic)
                except Exception as error:  # noqa: BLE001 (the edge of a thread: shown, and tried again)
                    self._fail(topic, str(error))
            # Sleeps while no topic is watched.
            self._wake.wait(_TURN if topics else None)
            self._wake.clear()
        for reader in self._readers.values():
            reader.close()

    def _watched_topics(self) -> list[str]:
        """The topics to follow; forgets those that nobody has watched lately."""
        since = time.monotonic() - _KEPT_FOR
        with self._guard:
            self._watched = {t: w for t, w in self._watched.items() if w.watched_at >= since}
            topics = list(self._watched)
        for topic in set(self._readers).difference(topics):
            self._readers.pop(topic).close()
        return topics

    def _fail(self, topic: str, reason: str) -> None:
        with self._guard:
            if topic in self._watched:
                self._watched[topic].error = reason
        reader = self._readers.pop(topic, None)
        if reader is not None:
            reader.close()

    def _read(self, topic: str) -> None:
        reader = self._readers.get(topic)
        if reader is None:
            reader = self._readers[topic] = self._open(topic)
        fetched, _ = reader.read(MOST_A_TURN, 0.05)
        records = [mask(record, self._hasher) for record in fetched]
        skipped = self._catch_up(reader) if len(fetched) == MOST_A_TURN else 0
        records.sort(key=_append_time)
        with self._guard:
            watched = self._watched.get(topic)
            if watched is not None:
                watched.records.extend(records)
                watched.skipped += skipped
                watched.error = None

    def _open(self, topic: str) -> Reader:
        client = admin(self._settings)
        partitions = offsets.require_partitions(client, [topic])
        reader = Reader(
            self._settings,
            self._settings.prefix + "streamflow-tail",
            **{"queued.max.messages.kbytes": 2048, "fetch.wait.max.ms": 500},
        )
        share = KEPT // (2 * len(partitions))
        reader.assign(
            [
                TopicPartition(*partition, max(first, end - share))
                for partition, (first, end) in offsets.bounds(client, partitions).items()
            ]
        )
        return reader

    def _catch_up(self, reader: Reader) -> int:
        """Goes to the end when more comes than can be read; returns how many offsets it skipped."""
        skipped = 0
        for partition, position in reader.read_to.items():
            with kafka_errors():
                _, end = reader.consumer.get_watermark_offsets(
                    TopicPartition(*partition), timeout=_TIMEOUT, cached=True
                )
            if end - position > MOST_A_TURN:
                target = end - MOST_A_TURN // 4
                reader.seek(partition, target)
                skipped += target - position
        return skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found.

    Attributes:
        records: the newest that match, the newest first.
        matches: how many match in all.
        scanned: how many records were read.
        scanned_bytes: of their values and keys.
        seconds: that it took.
        stopped_by: the limit that ended it; None where everything asked for was read.
    """

    records: tuple[SeenRecord, ...]
    matches: int
    scanned: int
    scanned_bytes: int
    seconds: float
    stopped_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a search begins: at the last records, an offset in every partition, or a time."""

    last: int = _MOST_RECORDS
    offset: int | None = None
    time: float | None = None  # seconds since the epoch


class Search:
    """Looks for records in a topic."""

    def __init__(self, settings: Settings, hasher: Hasher) -> None:
        self._settings = settings
        self._hasher = hasher

    def run(self, topic: str, start: Start, wanted: Filter) -> SearchResult:
        """Reads from `start` to the end, or to a limit.

        Raises:
            UsageError: the filter cannot be understood, or two searches run already.
            Unavailable: the broker does not answer.
        """
        test = wanted.compiled()
        if not _SEARCHES.acquire(timeout=1):
            raise UsageError("two searches are running: try again in some seconds")
        began = time.monotonic()
        try:
            client = admin(self._settings)
            partitions = [
                partition
                for partition in offsets.partitions_of(client, [topic])
                if not wanted.partitions or partition[1] in wanted.partitions
            ]
            with closing(Scanner(self._settings, "search")) as scanner:
                bounds = offsets.bounds(client, partitions)
                starts = _starts(scanner, bounds, start)
                ranges = {
                    partition: (max(first, starts[partition]), end)
                    for partition, (first, end) in bounds.items()
                }
                return self._scan(scanner, ranges, test, began)
        finally:
            _SEARCHES.release()

    def _scan(
        self,
        scanner: Scanner,
        ranges: dict[Partition, tuple[int, int]],
        test: Test,
        began: float,
    ) -> SearchResult:
        matching: list[SeenRecord] = []
        scanned = volume = matches = 0
        stopped: str | None = None
        for batch in scanner.scan(ranges):
            scanned += len(batch)
            volume += sum(len(record.value() or b"") + len(record.key() or b"") for record in batch)
            masked = (mask(record, self._hasher) for record in batch)
            found = [record for record in masked if test(record)]
            matches += len(found)
            matching = _newest([*matching, *found])
            stopped = _limit_reached(scanned, volume, time.monotonic() - began)
            if stopped is not None:
                break
        return SearchResult(
            records=tuple(matching),
            matches=matches,
            scanned=scanned,
            scanned_bytes=volume,
            seconds=time.monotonic() - began,
            stopped_by=stopped if scanner.unread else None,
        )


def _starts(
    scanner: Scanner, bounds: dict[Partition, tuple[int, int]], start: Start
) -> dict[Partition, int]:
    """The offset at which each partition is read from; one before its first counts as that."""
    if start.time is not None:
        wanted = [TopicPartition(*partition, int(start.time * 1000)) for partition in bounds]
        with kafka_errors():
            listed = scanner.consumer.offsets_for_times(wanted, timeout=_TIMEOUT)
        starts = {(place.topic, place.partition): place.offset for place in listed}
        # The offset is negative where all records are older.
        return {
            partition: offset if offset >= 0 else bounds[partition][1]
            for partition, offset in starts.items()
        }
    if start.offset is not None:
        return dict.fromkeys(bounds, start.offset)
    share = -(-start.last // max(1, len(bounds)))
    return {partition: end - share for partition, (_, end) in bounds.items()}


def _limit_reached(scanned: int, volume: int, seconds: float) -> str | None:
    if scanned >= _MOST_RECORDS:
        return f"{_MOST_RECORDS:,} records read"
    if volume >= _MOST_BYTES:
        return f"{_MOST_BYTES / 1e6:.0f} MB read"
    if seconds >= _MOST_SECONDS:
        return f"{_MOST_SECONDS:g} s"
    return None


def _append_time(record: SeenRecord) -> tuple[float, int]:
    """Orders records; those without a time stamp come first."""
    return (record.appended.timestamp() if record.appended else -math.inf), record.offset


def _newest(records: list[SeenRecord]) -> list[SeenRecord]:
    return sorted(records, key=_append_time, reverse=True)[:_MOST_KEPT]
