"""From the poller's readings to the facts that the alert rules look at, once a second."""

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, Final

from streamflow.alerting.book import Alert, AlertBook
from streamflow.alerting.rules import Facts, Thresholds, conditions
from streamflow.lag.measure import offsets_behind
from streamflow.stream import Stream
from streamlit_app.measure.readings import Reading
from streamlit_app.measure.recording import Recorder
from streamlit_app.measure.workers import WorkerState

_NOT_UP: Final = frozenset({"restarting", "not ready", "hung", "stopped"})


class Watch:
    """Applies the alert rules to the readings.

    Args:
        streams: whose topics are watched.
        recorder: lag and rates.
        book: remembers what holds for how long.
        thresholds: what is too much.

    Attributes:
        expected: the workers that should do their work: those that did once, and are not left out.
    """

    def __init__(
        self, streams: Sequence[Stream], recorder: Recorder, book: AlertBook, thresholds: Thresholds
    ) -> None:
        self._streams = tuple(streams)
        self._recorder = recorder
        self.book = book
        self.thresholds = thresholds
        self._answered: set[str] = set()
        self.expected: frozenset[str] = frozenset()
        self._seen: dict[str, deque[tuple[float, int, int]]] = {}

    def look(self, readings: Mapping[str, Reading[Any]], now: float) -> list[Alert]:
        """Takes the readings of this moment; returns the alerts that changed."""
        return self.book.update(conditions(self._facts(readings, now), self.thresholds), now)

    def _facts(self, readings: Mapping[str, Reading[Any]], now: float) -> Facts:
        kafka, postgres = readings["kafka"], readings["postgres"]
        down = {
            name: trouble
            for name, reading in (("kafka", kafka), ("postgres", postgres))
            # What was not asked yet is not down.
            if (reading.measured_at or reading.error) and (trouble := reading.trouble(now))
        }
        down |= self._parts_down(readings, now, down)
        current = kafka.is_current(now)
        return Facts(
            groups=self._recorder.groups if current else {},
            rates=self._rates() if current else {},
            ratios=self._ratios(postgres, now),
            waiting=self._waiting(kafka, postgres, now),
            down=down,
        )

    def _parts_down(
        self, readings: Mapping[str, Reading[Any]], now: float, known: Mapping[str, str]
    ) -> dict[str, str]:
        """Parts and workers that do not do their work, as far as they were ever there."""
        down: dict[str, str] = {}
        stack, workers = readings["stack"], readings["workers"]
        left_out: set[str] = set()
        for part in stack.current(now) or ():
            if part.state == "off":
                left_out.add(part.name)
            elif part.state in _NOT_UP and part.name not in known:
                down[part.name] = part.detail or part.state
        states: dict[str, WorkerState] = workers.current(now) or {}
        self._answered |= {name for name, worker in states.items() if worker.answers}
        self.expected = frozenset(self._answered - left_out)
        for name, worker in states.items():
            if name in self.expected and not (worker.answers and worker.ready):
                down.setdefault(name, worker.reason or "not ready")
        return down

    def _rates(self) -> dict[str, float]:
        rates = {
            stream.topic: self._recorder.rate(f"appended/{stream.topic}")
            for stream in self._streams
        }
        return {topic: rate for topic, rate in rates.items() if rate is not None}

    def _ratios(self, postgres: Reading[Any], now: float) -> dict[str, float]:
        ratios: dict[str, float] = {}
        sample = postgres.current(now)
        if sample is None:
            return ratios
        for stream in self._streams:
            seen = self._seen.setdefault(stream.topic, deque())
            read, rejected = sample.records(stream.topic), sample.rejected(stream.topic)
            if seen and read < seen[-1][1]:
                seen.clear()
            seen.append((now, read, rejected))
            while now - seen[0][0] > 60 * self.thresholds.dead_letter_minutes:
                seen.popleft()
            records = read - seen[0][1]
            if records >= self.thresholds.dead_letter_records:
                ratios[stream.topic] = (rejected - seen[0][2]) / records
        return ratios

    def _waiting(self, kafka: Reading[Any], postgres: Reading[Any], now: float) -> dict[str, float]:
        broker, database = kafka.current(now), postgres.current(now)
        if broker is None or database is None or database.loaded_at is None:
            return {}
        since = now - database.loaded_at.astimezone(UTC).timestamp()
        return {
            stream.topic: since
            for stream in self._streams
            if any(
                offsets_behind(database.position(partition), bounds)
                for partition, bounds in broker.bounds.items()
                if partition[0] == stream.topic
            )
        }
