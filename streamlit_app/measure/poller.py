"""The one poller of a server: a thread per source, however many sessions there are.

Sessions only read the last `Reading` of each source, and the series. A source that hangs delays no
other; its reading grows stale and says so.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import structlog

from streamflow.errors import StreamFlowError
from streamlit_app.measure.readings import Reading

log = structlog.get_logger()

T = TypeVar("T")

_PATIENCE: Final = 3.0  # seconds to wait for a thread to end
_SHORTEST_PAUSE: Final = 0.05  # seconds


@dataclass(frozen=True)
class PollJob(Generic[T]):
    """Something to be measured again and again, always (`Poller`) or while pages show it (`Demand`).

    Attributes:
        key: what it is; sessions share the reading of the same key.
        source: what measures, in words.
        interval: seconds between two measurements.
        measure: may raise StreamFlowError or OSError.
        then: takes each sample and its time; only for a `Poller`, as `close`.
        close: called at the end, in the same thread.
    """

    key: Hashable
    source: str
    interval: float
    measure: Callable[[], T]
    then: Callable[[T, float], None] | None = None
    close: Callable[[], object] | None = None


def attempt(before: Reading[T], measure: Callable[[], T]) -> tuple[Reading[T], Exception | None]:
    """The reading after another measurement, and what that raised: the edge of a thread."""
    began = time.monotonic()
    try:
        sample = measure()
    except (StreamFlowError, OSError) as error:
        return before.failed(str(error), time.monotonic() - began), error
    except Exception as error:  # noqa: BLE001 (it is shown, logged, and tried again)
        return before.failed(f"{type(error).__name__}: {error}", time.monotonic() - began), error
    return before.succeeded(sample, time.time(), time.monotonic() - began), None


class Poller:
    """Runs jobs, each in a thread of its own, and keeps their last readings."""

    def __init__(self, jobs: list[PollJob[Any]]) -> None:
        self._readings = {str(job.key): Reading[Any](job.source, job.interval) for job in jobs}
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(job,), name=f"poll-{job.key}", daemon=True)
            for job in jobs
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends all threads; one that hangs in a client ends with the process."""
        self._ended.set()
        for thread in self._threads:
            thread.join(_PATIENCE)

    @property
    def running(self) -> bool:
        """Whether every thread is alive."""
        return all(thread.is_alive() for thread in self._threads)

    def reading(self, key: str) -> Reading[Any]:
        return self._readings[key]

    def readings(self) -> dict[str, Reading[Any]]:
        """The last reading of every job, by its key."""
        return dict(self._readings)

    def _run(self, job: PollJob[Any]) -> None:
        key = str(job.key)
        failing = False
        due = time.monotonic()
        while not self._ended.is_set():
            reading, error = attempt(self._readings[key], job.measure)
            if error is None and failing:
                log.info("source_back", source=job.source)
            elif error is not None and not failing:
                expected = isinstance(error, (StreamFlowError, OSError))
                log.warning(
                    "source_failed",
                    source=job.source,
                    reason=reading.error,
                    exc_info=None if expected else error,
                )
            failing = error is not None
            self._readings[key] = reading
            if job.then is not None and not failing:
                job.then(reading.sample, time.time())
            # By the clock, so that delays do not add up; missed measurements are not made up for.
            now = time.monotonic()
            due = max(due + job.interval, now + _SHORTEST_PAUSE)
            self._ended.wait(due - now)
        if job.close is not None:
            with contextlib.suppress(Exception):
                job.close()
