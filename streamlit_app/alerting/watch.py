"""From the poller's readings to the facts that the alert rules look at, once a second."""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, Final

from streamflow.alerting.book import Alert, AlertBook
from streamflow.alerting.rules import Facts, Thresholds, conditions
from streamflow.stream import Stream
from streamlit_app.measure.rates import Recorder
from streamlit_app.measure.readings import Reading
from streamlit_app.measure.workers import WorkerState

_NOT_UP: Final = frozenset({"restarting", "not ready", "hung", "stopped"})


class Watch:
    """Applies the alert rules to the readings.

    Attributes:
        expected: the workers that should be ready: those that answered once and are not left out.
    """

    def __init__(
        self, streams: Sequence[Stream], recorder: Recorder, book: AlertBook, thresholds: Thresholds
    ) -> None:
        self._streams = tuple(streams)
        self._recorder = recorder
        self.book = book
        self._thresholds = thresholds
        self._answered: set[str] = set()
        self.expected: frozenset[str] = frozenset()
        self._counts: dict[str, deque[tuple[float, int, int]]] = defaultdict(deque)

    def evaluate(self, readings: Mapping[str, Reading[Any]], now: float) -> list[Alert]:
        """Applies the rules to the readings of this moment; returns the alerts that changed."""
        return self.book.update(conditions(self._facts(readings, now), self._thresholds), now)

    def _facts(self, readings: Mapping[str, Reading[Any]], now: float) -> Facts:
        kafka, postgres = readings["kafka"], readings["postgres"]
        down = {
            name: trouble
            for name, reading in (("kafka", kafka), ("postgres", postgres))
            if not reading.is_pending and (trouble := reading.trouble(now))
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
        """Why parts and workers that were there do not do their work."""
        down: dict[str, str] = {}
        left_out: set[str] = set()
        for part in readings["stack"].current(now) or ():
            if part.state == "off":
                left_out.add(part.name)
            elif part.state in _NOT_UP and part.name not in known:
                down[part.name] = part.detail or part.state
        states: dict[str, WorkerState] = readings["workers"].current(now) or {}
        answering = {name for name, worker in states.items() if worker.answers}
        self._answered |= answering
        # A worker that the stack leaves out may run by hand.
        self.expected = frozenset(self._answered - (left_out - answering))
        for name, worker in states.items():
            if name in self.expected and not (worker.answers and worker.ready):
                down.setdefault(name, worker.reason or "not ready")
        return down

    def _rates(self) -> dict[str, float]:
        topics = [stream.topic for stream in self._streams]
        rates = {topic: self._recorder.rate(f"appended/{topic}") for topic in topics}
        return {topic: rate for topic, rate in rates.items() if rate is not None}

    def _ratios(self, postgres: Reading[Any], now: float) -> dict[str, float]:
        """The share of records rejected in the last minutes, by topic."""
        ratios: dict[str, float] = {}
        sample = postgres.current(now)
        if sample is None:
            return ratios
        for stream in self._streams:
            counts = self._counts[stream.topic]
            read, rejected = sample.records(stream.topic), sample.rejected(stream.topic)
            if counts and read < counts[-1][1]:
                counts.clear()
            counts.append((now, read, rejected))
            while now - counts[0][0] > 60 * self._thresholds.dead_letter_minutes:
                counts.popleft()
            records = read - counts[0][1]
            if records >= self._thresholds.dead_letter_records:
                ratios[stream.topic] = (rejected - counts[0][2]) / records
        return ratios

    def _waiting(self, kafka: Reading[Any], postgres: Reading[Any], now: float) -> dict[str, float]:
        """Seconds since the loader moved, by topic of which records wait for it."""
        broker, database = kafka.current(now), postgres.current(now)
        if broker is None or database is None or database.loaded_at is None:
            return {}
        since = now - database.loaded_at.astimezone(UTC).timestamp()
        return {
            stream.topic: since
            for stream in self._streams
            if database.waiting(stream.topic, broker.bounds)
        }
