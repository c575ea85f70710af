"""Measured on demand: fetched in the background while a page shows it, once for all sessions."""

import threading
import time
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from streamlit_app.measure.poller import PollJob, attempt
from streamlit_app.measure.readings import Reading

T = TypeVar("T")

_THREADS: Final = 3
_KEPT_FOR: Final = 20.0  # seconds after it was last shown
_MOST: Final = 200  # subscriptions
_TURN: Final = 0.1  # seconds
_POLL: Final = 0.02  # seconds


@dataclass(slots=True)
class _Subscription:
    """A job whose readings at least one page shows."""

    job: PollJob[Any]
    reading: Reading[Any]
    shown_at: float
    due_at: float = 0.0
    running: bool = False


class Demand:
    """Fetches what pages show."""

    def __init__(self) -> None:
        self._subscriptions: dict[Hashable, _Subscription] = {}
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="demand")
        self._thread = threading.Thread(target=self._run, name="demand", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends; what is being fetched ends with its own time-out."""
        self._ended.set()
        self._wake.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def subscriptions(self) -> int:
        """How many jobs are fetched now."""
        return len(self._subscriptions)

    def latest(self, job: PollJob[T]) -> Reading[T]:
        """The last reading, at once. It is measured again and again while pages keep calling this."""
        now = time.monotonic()
        with self._guard:
            subscription = self._subscriptions.get(job.key)
            if subscription is None:
                first: Reading[T] = Reading(job.source, job.interval)
                subscription = self._subscriptions[job.key] = _Subscription(job, first, now)
                self._wake.set()
            subscription.shown_at = now
            return subscription.reading

    def wait(self, job: PollJob[T], patience: float) -> Reading[T]:
        """As `latest`, but waits up to `patience` seconds for the first reading: for a page that is
        being opened."""
        deadline = time.monotonic() + patience
        while True:
            reading = self.latest(job)
            if not reading.is_pending or time.monotonic() > deadline:
                return reading
            time.sleep(_POLL)

    def forget(self, key: Hashable) -> None:
        """Stops fetching; readings that were handed out stay valid."""
        with self._guard:
            self._subscriptions.pop(key, None)

    def _run(self) -> None:
        while not self._ended.is_set():
            now = time.monotonic()
            with self._guard:
                self._drop_unseen(now)
                due = [s for s in self._subscriptions.values() if not s.running and now >= s.due_at]
                for subscription in due:
                    subscription.running = True
            for subscription in due:
                self._pool.submit(self._fetch, subscription)
            # Without subscriptions it sleeps until there is one.
            self._wake.wait(_TURN if self._subscriptions else None)
            self._wake.clear()

    def _drop_unseen(self, now: float) -> None:
        by_age = sorted(self._subscriptions.items(), key=lambda pair: pair[1].shown_at)
        surplus = len(by_age) - _MOST
        for number, (key, subscription) in enumerate(by_age):
            unseen = now - subscription.shown_at > max(_KEPT_FOR, 2 * subscription.job.interval)
            if number < surplus or (unseen and not subscription.running):
                del self._subscriptions[key]

    def _fetch(self, subscription: _Subscription) -> None:
        began = time.monotonic()
        reading, _ = attempt(subscription.reading, subscription.job.measure)
        # A source is busy with this for at most a fifth of the time.
        interval = max(subscription.job.interval, 5 * reading.seconds)
        with self._guard:
            subscription.reading = replace(reading, interval=interval)
            subscription.due_at = began + interval
            subscription.running = False
        self._wake.set()
