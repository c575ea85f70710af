"""The workers' own readiness, and their metrics over the last seconds."""

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from streamflow import http
from streamflow.errors import Unavailable

_TIMEOUT: Final = 1.5  # seconds
_SPAN: Final = 10.0  # seconds that rates and percentiles are taken over

# Counters by (name, label), and the cumulative counts of the end-to-end histogram by upper bound.
_Counters = dict[tuple[str, str], float]
_Buckets = dict[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """A worker at one moment.

    Attributes:
        url: of its health port.
        answers: whether it does.
        ready: whether it says so.
        reason: why it is not ready, or does not answer.
        rate_in: records consumed per second; None before two samples.
        rate_out: records produced, or rows loaded, per second, by destination.
        rejected: records rejected since it started, by code.
        latency: p50 and p99 in seconds from the broker's time to the end of processing, as upper
            bounds of the histogram's buckets; None where nothing came.
        memory: resident bytes.
        started_at: seconds since the epoch.
        sessions: how often it joined its group.
        clients: how many are connected; None for a worker that has none.
        missed: records that slow clients missed since it started.
    """

    name: str
    url: str
    answers: bool
    ready: bool
    reason: str = ""
    rate_in: float | None = None
    rate_out: Mapping[str, float] = field(default_factory=dict)
    rejected: Mapping[str, float] = field(default_factory=dict)
    latency: tuple[float, float] | None = None
    memory: float | None = None
    started_at: float | None = None
    sessions: float | None = None
    clients: float | None = None
    missed: float | None = None


class WorkersSource:
    """Asks every worker.

    Args:
        urls: base address of each worker, by name.
    """

    name = "workers"

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._workers = {name: _Worker(name, url) for name, url in urls.items()}

    def __call__(self) -> dict[str, WorkerState]:
        """Measures. A worker that does not answer is part of the answer, and no error."""
        return {name: worker.ask() for name, worker in self._workers.items()}


class _Worker:
    """One worker, and what it said over the last seconds."""

    def __init__(self, name: str, url: str) -> None:
        self._name = name
        self._url = url
        self._seen: deque[tuple[float, _Counters, _Buckets]] = deque()

    def ask(self) -> WorkerState:
        try:
            readiness = http.request("GET", f"{self._url}/ready", timeout=_TIMEOUT)
            counters, buckets = _metrics(f"{self._url}/metrics")
        except Unavailable as error:
            self._seen.clear()
            return WorkerState(
                name=self._name,
                url=self._url,
                answers=False,
                ready=False,
                reason=f"does not answer: {error}",
            )
        now = time.monotonic()
        started = counters.get(("process_start_time_seconds", ""))
        if self._seen and self._seen[-1][1].get(("process_start_time_seconds", "")) != started:
            self._seen.clear()
        self._seen.append((now, counters, buckets))
        while self._seen[-1][0] - self._seen[0][0] > _SPAN:
            self._seen.popleft()
        first, earlier, earlier_buckets = self._seen[0]
        span = now - first
        return WorkerState(
            name=self._name,
            url=self._url,
            answers=True,
            ready=readiness.ok,
            reason="" if readiness.ok else http.first_words(readiness),
            rate_in=_rate(counters, earlier, "streamflow_records_in_total", span),
            rate_out={
                label: (value - earlier.get((name, label), 0.0)) / span
                for (name, label), value in counters.items()
                if name == "streamflow_records_out_total" and span > 0
            },
            rejected=_labelled(counters, "streamflow_records_rejected_total"),
            latency=_percentiles(buckets, earlier_buckets),
            memory=counters.get(("process_resident_memory_bytes", "")),
            started_at=started,
            sessions=counters.get(("streamflow_sessions_total", "")),
            clients=counters.get(("streamflow_bridge_clients", "")),
            missed=counters.get(("streamflow_bridge_missed_total", "")),
        )


def _metrics(url: str) -> tuple[_Counters, _Buckets]:
    answer = http.request("GET", url, timeout=_TIMEOUT)
    if not answer.ok:
        raise Unavailable(f"{url} has status {answer.status_code}")
    counters: _Counters = {}
    buckets: _Buckets = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            if sample.name == "streamflow_end_to_end_seconds_bucket":
                buckets[float(sample.labels["le"])] = sample.value
            elif not sample.name.endswith(("_bucket", "_created")):
                counters[sample.name, next(iter(sample.labels.values()), "")] = sample.value
    return counters, buckets


def _rate(now: _Counters, earlier: _Counters, name: str, span: float) -> float | None:
    if span <= 0:
        return None
    return (_total(now, name) - _total(earlier, name)) / span


def _total(counters: _Counters, name: str) -> float:
    return sum(_labelled(counters, name).values())


def _labelled(counters: _Counters, wanted: str) -> dict[str, float]:
    return {label: value for (name, label), value in counters.items() if name == wanted}


def _percentiles(now: _Buckets, earlier: _Buckets) -> tuple[float, float] | None:
    counts = [(bound, now[bound] - earlier.get(bound, 0.0)) for bound in sorted(now)]
    if not counts or counts[-1][1] <= 0:
        return None
    return _percentile(counts, 0.5), _percentile(counts, 0.99)


def _percentile(cumulative: Iterable[tuple[float, float]], share: float) -> float:
    """The upper bound of the bucket that the percentile is in."""
    counts = list(cumulative)
    wanted = counts[-1][1] * share
    return next((bound for bound, count in counts if count >= wanted), math.inf)
