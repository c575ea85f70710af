"""From samples to rates, lag and latency over time, and the verdicts on the groups."""

import threading
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Final

from streamflow.lag.history import GroupLag, LagHistory
from streamflow.lag.measure import LagSample
from streamlit_app.measure.postgres import PostgresSample
from streamlit_app.measure.probe import ProbeSample
from streamlit_app.measure.ring_buffers import Store

_RATE_SPAN: Final = 3.0  # seconds that the present rate is taken over


class _Counter:
    """The last values of something that only grows."""

    def __init__(self) -> None:
        self._values: deque[tuple[float, int]] = deque()

    def add(self, time: float, value: int) -> float | None:
        """The rate since the last value; None for the first, and after a reset."""
        values = self._values
        if values and value < values[-1][1]:
            values.clear()
        values.append((time, value))
        while time - values[0][0] > _RATE_SPAN and len(values) > 2:  # noqa: PLR2004
            values.popleft()
        return self._rate_since(-2)

    @property
    def rate(self) -> float | None:
        """Over the last seconds."""
        return self._rate_since(0)

    def _rate_since(self, index: int) -> float | None:
        if len(self._values) < 2:  # noqa: PLR2004
            return None
        (start, first), (end, last) = self._values[index], self._values[-1]
        return (last - first) / (end - start) if end > start else None


class Recorder:
    """Takes the samples of broker, database and probe; keeps series, rates and verdicts.

    Args:
        store: where the series go: ``appended/TOPIC``, ``loaded/TOPIC``, ``lag/GROUP``,
            ``seconds/GROUP``, ``latency/…``, ``letters`` and ``letters/TOPIC``.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._counters: dict[str, _Counter] = defaultdict(_Counter)
        self._history = LagHistory()
        self.groups: Mapping[str, GroupLag] = {}

    def rate(self, name: str) -> float | None:
        """Per second, over the last seconds: ``appended/TOPIC`` in offsets, ``loaded/TOPIC`` and
        ``rejected/TOPIC`` in records."""
        with self._guard:
            return self._counters[name].rate

    def take_kafka(self, sample: LagSample, now: float) -> None:
        for topic in {topic for topic, _ in sample.bounds}:
            self._count(f"appended/{topic}", now, sample.end_sum(topic))
        self.groups = self._history.add(sample, now)
        for name, group in self.groups.items():
            self._store.add(f"lag/{name}", now, group.offsets)
            self._store.add(f"seconds/{name}", now, group.time.seconds if group.time else None)
            for (topic, number), lag in group.partitions.items():
                self._store.add(f"lag/{name}/{topic}[{number}]", now, lag.offsets)

    def take_postgres(self, sample: PostgresSample, now: float) -> None:
        for topic in {topic for topic, _ in sample.loaded}:
            self._count(f"loaded/{topic}", now, sample.records(topic))
            self._count(f"rejected/{topic}", now, sample.rejected(topic))
        for stream, latency in sample.latency.items():
            for name, pair in (("event", latency.event), ("append", latency.append)):
                if pair is not None:
                    self._store.add(f"latency/{stream}/{name}/p50", now, pair[0])
                    self._store.add(f"latency/{stream}/{name}/p99", now, pair[1])
        self._store.add("letters", now, sum(sample.dead_letters.values()))
        for topic in {topic for topic, *_ in sample.dead_letters}:
            self._store.add(f"letters/{topic}", now, sample.codes(topic).total())

    def take_probe(self, sample: ProbeSample, now: float) -> None:
        self._store.add("probe", now, sample.round_trip)

    def _count(self, name: str, now: float, value: int) -> None:
        with self._guard:
            rate = self._counters[name].add(now, value)
        self._store.add(name, now, rate)
