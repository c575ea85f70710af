"""From readings to facts: what the alert rules look at, once a second."""

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, Final

from streamflow.lag.verdicts import Verdict
from streamflow.stream import Stream
from streamlit_app.alerting.alerts import Alert, AlertBook, Facts, Limits, conditions
from streamlit_app.measure.readings import Reading
from streamlit_app.measure.recording import Recorder
from streamlit_app.measure.workers import WorkerState

_RATIO_SPAN: Final = 300.0  # seconds that the share of refused records is taken over
_RATIO_RECORDS: Final = 100  # records; a share of fewer says nothing
_NOT_UP: Final = frozenset({"restarting", "not ready", "hung", "stopped"})
_TROUBLE: Final = frozenset({Verdict.STALL, Verdict.STOP, Verdict.REWIND, Verdict.ERR})


class Watch:
    """Judges the readings.

    Args:
        streams: whose topics are watched.
        recorder: lag and rates.
        book: remembers what holds for how long.
        limits: what is too much.

    Attributes:
        expected: the workers that should do their work: those that did once, and are not left out.
    """

    def __init__(
        self, streams: Sequence[Stream], recorder: Recorder, book: AlertBook, limits: Limits
    ) -> None:
        self._streams = tuple(streams)
        self._recorder = recorder
        self.book = book
        self.limits = limits
        self._answered: set[str] = set()
        self.expected: frozenset[str] = frozenset()
        self._seen: dict[str, deque[tuple[float, int, int]]] = {}

    def look(self, readings: Mapping[str, Reading[Any]], now: float) -> list[Alert]:
        """Takes the readings of this moment; returns the alerts that changed."""
        return self.book.update(conditions(self._facts(readings, now), self.limits), now)

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
        groups = self._recorder.groups if current else {}
        return Facts(
            lag={
                name: (each.records, each.time.seconds if each.time else None)
                for name, each in groups.items()
            },
            verdicts={
                name: str(each.verdict) for name, each in groups.items() if each.verdict in _TROUBLE
            },
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
        found = {}
        for stream in self._streams:
            rate = self._recorder.rate(f"appended/{stream.topic}")
            if rate is not None:
                found[stream.topic] = rate
        return found

    def _ratios(self, postgres: Reading[Any], now: float) -> dict[str, float]:
        found: dict[str, float] = {}
        sample = postgres.current(now)
        if sample is None:
            return found
        for stream in self._streams:
            seen = self._seen.setdefault(stream.topic, deque())
            read, refused = (
                sample.records(stream.topic),
                sample.rejected(stream.topic),
            )
            if seen and read < seen[-1][1]:
                seen.clear()
            seen.append((now, read, refused))
            while now - seen[0][0] > _RATIO_SPAN:
                seen.popleft()
            records = read - seen[0][1]
            if records >= _RATIO_RECORDS:
                found[stream.topic] = (refused - seen[0][2]) / records
        return found

    def _waiting(self, kafka: Reading[Any], postgres: Reading[Any], now: float) -> dict[str, float]:
        broker, database = kafka.current(now), postgres.current(now)
        if broker is None or database is None or database.loaded_at is None:
            return {}
        since = now - database.loaded_at.astimezone(UTC).timestamp()
        found = {}
        for stream in self._streams:
            behind = sum(
                max(0, end - loaded.next_offset)
                for partition, (_, end) in broker.bounds.items()
                if partition[0] == stream.topic
                and (loaded := database.loaded.get(partition)) is not None
            )
            if behind:
                found[stream.topic] = since
        return found
