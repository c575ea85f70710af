"""The workers' own readiness, and their metrics over the last seconds."""

import math
import time
from collections import deque
from collections.abc import Mapping
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

_STARTED: Final = ("process_start_time_seconds", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """A worker at one moment.

    Attributes:
        reason: why it is not ready, or does not answer.
        rate_in: records consumed per second; None before two samples.
        rate_out: records produced, or rows loaded, per second, by destination.
        latency: p99 in seconds from the broker's time to the end of processing, as the upper bound
            of a bucket of the histogram; None where nothing came.
        memory: resident bytes.
        started_at: seconds since the epoch.
        clients: how many are connected; None for a worker that has none.
        missed: records that slow clients missed since it started.
    """

    name: str
    answers: bool
    ready: bool
    reason: str = ""
    rate_in: float | None = None
    rate_out: Mapping[str, float] = field(default_factory=dict)
    latency: float | None = None
    memory: float | None = None
    started_at: float | None = None
    clients: float | None = None
    missed: float | None = None


class WorkersSource:
    """Asks every worker at its health port, given by name."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._workers = {name: _Worker(name, url) for name, url in urls.items()}

    def __call__(self) -> dict[str, WorkerState]:
        """The state of each; that one does not answer is a state, and no error."""
        return {name: worker.ask() for name, worker in self._workers.items()}


class _Worker:
    """One worker, and its metrics of the last seconds."""

    def __init__(self, name: str, url: str) -> None:
        self._name = name
        self._url = url
        self._samples: deque[tuple[float, _Counters, _Buckets]] = deque()

    def ask(self) -> WorkerState:
        try:
            readiness = http.request("GET", f"{self._url}/ready", timeout=_TIMEOUT)
            counters, buckets = _metrics(f"{self._url}/metrics")
        except Unavailable as error:
            self._samples.clear()
            reason = f"does not answer: {error}"
            return WorkerState(name=self._name, answers=False, ready=False, reason=reason)
        now = time.monotonic()
        started = counters.get(_STARTED)
        if self._samples and self._samples[-1][1].get(_STARTED) != started:
            self._samples.clear()
        self._samples.append((now, counters, buckets))
        while now - self._samples[0][0] > _SPAN:
            self._samples.popleft()
        first, earlier, earlier_buckets = self._samples[0]
        elapsed = now - first
        rates: _Counters = {}
        if elapsed > 0:
            rates = {
                key: (value - earlier.get(key, 0.0)) / elapsed for key, value in counters.items()
            }
        records_in = sum(_labelled(rates, "streamflow_records_in_total").values())
        return WorkerState(
            name=self._name,
            answers=True,
            ready=readiness.ok,
            reason="" if readiness.ok else http.first_words(readiness),
            rate_in=records_in if rates else None,
            rate_out=_labelled(rates, "streamflow_records_out_total"),
            latency=_percentile(buckets, earlier_buckets, 0.99),
            memory=counters.get(("process_resident_memory_bytes", "")),
            started_at=started,
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


def _labelled(counters: _Counters, wanted: str) -> dict[str, float]:
    return {label: value for (name, label), value in counters.items() if name == wanted}


def _percentile(now: _Buckets, earlier: _Buckets, share: float) -> float | None:
    """The upper bound of the bucket that the percentile of what came since is in."""
    counts = [(bound, now[bound] - earlier.get(bound, 0.0)) for bound in sorted(now)]
    if not counts or counts[-1][1] <= 0:
        return None
    wanted = counts[-1][1] * share
    return next((bound for bound, count in counts if count >= wanted), math.inf)
