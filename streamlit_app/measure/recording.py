"""From samples to series: rates, lag and latency over time, and the verdicts on the groups."""

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from streamflow.lag.history import GroupLag, LagHistory
from streamflow.lag.measure import LagSample
from streamlit_app.measure.postgres import PostgresSample
from streamlit_app.measure.probe import ProbeSample
from streamlit_app.measure.readings import Reading
from streamlit_app.measure.series import Store

_RATE_SPAN: Final = 3.0  # seconds that the rate of now is taken over


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
        self._history = LagHistory()
        self.groups: Mapping[str, GroupLag] = {}

    def rate(self, name: str) -> float | None:
        """Per second, over the last seconds: ``appended/TOPIC`` in offsets, ``loaded/TOPIC`` and
        ``rejected/TOPIC`` in records."""
        with self._guard:
            counter = self._counters.get(name)
            return None if counter is None else counter.rate

    def take_kafka(self, reading: Reading[LagSample], now: float) -> None:
        """Takes every reading of the broker."""
        if reading.error is not None or reading.sample is None:
            return
        sample = reading.sample
        for topic in {topic for topic, _ in sample.bounds}:
            self._count(f"appended/{topic}", now, sample.end_sum(topic))
        self.groups = self._history.add(sample, now)
        for name, group in self.groups.items():
            self._store.add(f"lag/{name}", now, group.records)
            self._store.add(f"seconds/{name}", now, group.time.seconds if group.time else None)
            for (topic, number), lag in group.partitions.items():
                self._store.add(f"lag/{name}/{topic}[{number}]", now, lag.records)

    def take_postgres(self, reading: Reading[PostgresSample], now: float) -> None:
        """Takes every reading of the database."""
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
        self._store.add("letters", now, sum(sample.dead_letters.values()))

    def take_probe(self, reading: Reading[ProbeSample], now: float) -> None:
        """Takes every probe."""
        if reading.error is None and reading.sample is not None:
            self._store.add("probe", now, reading.sample.round_trip)

    def _count(self, name: str, now: float, value: int) -> None:
        with self._guard:
            rate = self._counters.setdefault(name, _Counter()).add(now, value)
        self._store.add(name, now, rate)
