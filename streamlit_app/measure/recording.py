"""From samples to series: rates, lag and latency over time, and the verdicts on the groups."""

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from streamflow.flow import Partition
from streamflow.lag.verdicts import (
    EndHistory,
    LagTime,
    Observation,
    Verdict,
    judge_group,
    judge_partition,
    trend,
)
from streamlit_app.measure.kafka import Group, KafkaSample
from streamlit_app.measure.postgres import PostgresSample
from streamlit_app.measure.probe import ProbeSample
from streamlit_app.measure.readings import Reading
from streamlit_app.measure.series import Store

WINDOW: Final = 30.0  # seconds that a verdict looks back
SHORTEST: Final = 10.0  # seconds that it must know of to find fault
_RATE_SPAN: Final = 3.0  # seconds that the rate of now is taken over


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far a group is behind in one partition."""

    position: int
    end: int
    time: LagTime | None
    owned: bool
    verdict: Verdict

    @property
    def records(self) -> int:
        """In offsets."""
        return max(0, self.end - self.position)


@dataclass(frozen=True, slots=True)
class GroupLag:
    """How far a group is behind.

    Attributes:
        trend: offsets a second by which its lag grows; None where too little is known.
    """

    group: Group
    partitions: Mapping[Partition, PartitionLag]
    verdict: Verdict
    trend: float | None

    @property
    def records(self) -> int | None:
        """In offsets, over all partitions; None where it never committed."""
        if not self.partitions:
            return None
        return sum(each.records for each in self.partitions.values())

    @property
    def time(self) -> LagTime | None:
        """In seconds, of the partition that is furthest behind."""
        known = [each.time for each in self.partitions.values() if each.time is not None]
        return max(known, key=lambda each: each.seconds) if known else None


@dataclass(slots=True)
class _Counter:
    """The last values of something that only grows."""

    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, time: float, value: int) -> float | None:
        """The rate since the last value; None for the first, and after a reset."""
        if self.seen and value < self.seen[-1][1]:
            self.seen.clear()
        before = self.seen[-1] if self.seen else None
        self.seen.append((time, value))
        while self.seen[-1][0] - self.seen[0][0] > _RATE_SPAN and len(self.seen) > 2:  # noqa: PLR2004
            self.seen.popleft()
        if before is None or time <= before[0]:
            return None
        return (value - before[1]) / (time - before[0])

    @property
    def rate(self) -> float | None:
        """Over the last seconds."""
        if len(self.seen) < 2:  # noqa: PLR2004
            return None
        (start, first), (end, last) = self.seen[0], self.seen[-1]
        return (last - first) / (end - start) if end > start else None


class Recorder:
    """Takes the readings of broker and database; keeps series, rates and verdicts.

    Args:
        store: where the series go: ``appended/TOPIC``, ``loaded/TOPIC``, ``lag/GROUP``,
            ``seconds/GROUP``, ``latency/…``.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._counters: dict[str, _Counter] = {}
        self._ends: dict[Partition, EndHistory] = {}
        self._windows: dict[tuple[str, Partition], deque[Observation]] = {}
        self.groups: Mapping[str, GroupLag] = {}

    def rate(self, name: str) -> float | None:
        """Per second, over the last seconds: ``appended/TOPIC`` in offsets, ``loaded/TOPIC`` and
        ``rejected/TOPIC`` in records."""
        with self._guard:
            counter = self._counters.get(name)
            return None if counter is None else counter.rate

    def take_kafka(self, reading: Reading[KafkaSample], now: float) -> None:
        """After every look at the broker."""
        if reading.error is not None or reading.sample is None:
            return
        sample = reading.sample
        for partition, (_, end) in sample.bounds.items():
            self._ends.setdefault(partition, EndHistory()).add(now, end)
        for topic in {topic for topic, _ in sample.bounds}:
            self._count(f"appended/{topic}", now, sample.end_sum(topic))
        self.groups = {
            name: self._judge(group, sample, now) for name, group in sample.groups.items()
        }
        for name, found in self.groups.items():
            self._store.add(f"lag/{name}", now, found.records)
            self._store.add(f"seconds/{name}", now, found.time.seconds if found.time else None)
            for (topic, number), each in found.partitions.items():
                self._store.add(f"lag/{name}/{topic}[{number}]", now, each.records)

    def take_postgres(self, reading: Reading[PostgresSample], now: float) -> None:
        """After every look at the database."""
        if reading.error is not None or reading.sample is None:
            return
        sample = reading.sample
        for topic in {topic for topic, _ in sample.loaded}:
            self._count(f"loaded/{topic}", now, sample.records(topic))
            self._count(f"rejected/{topic}", now, sample.rejected(topic))
        for stream, latency in sample.latency.items():
            for name, pair in (("event", latency.event), ("append", latency.append)):
                if pair is not None:
                    self._store.add(f"latency/{stream}/{name}/p50", now, pair[0])
                    self._store.add(f"latency/{stream}/{name}/p99", now, pair[1])
        self._store.add("letters", now, sum(sample.letters.values()))

    def take_probe(self, reading: Reading[ProbeSample], now: float) -> None:
        """After every probe."""
        if reading.error is None and reading.sample is not None:
            self._store.add("probe", now, reading.sample.round_trip)

    def _count(self, name: str, now: float, value: int) -> None:
        with self._guard:
            rate = self._counters.setdefault(name, _Counter()).add(now, value)
        self._store.add(name, now, rate)

    def _judge(self, group: Group, sample: KafkaSample, now: float) -> GroupLag:
        partitions = {}
        for partition, position in sorted(group.positions.items()):
            end = sample.bounds[partition][1]
            owned = partition in group.owned
            window = self._windows.setdefault((group.name, partition), deque())
            window.append(Observation(now, position, end, owned))
            while now - window[0].time > WINDOW:
                window.popleft()
            partitions[partition] = PartitionLag(
                position,
                end,
                self._ends[partition].lag(position, now),
                owned,
                judge_partition(list(window), shortest=SHORTEST),
            )
        verdict = judge_group(each.verdict for each in partitions.values())
        lags = Counter[float]()
        for partition in partitions:
            for seen in self._windows[group.name, partition]:
                lags[seen.time] += seen.lag
        return GroupLag(group, partitions, verdict, trend(sorted(lags.items()), shortest=SHORTEST))
