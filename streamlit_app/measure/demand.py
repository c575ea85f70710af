"""Measured on demand: fetched in the background while a page shows it, once for all sessions."""

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from streamlit_app.measure.poller import attempt
from streamlit_app.measure.readings import Reading

T = TypeVar("T")

_THREADS: Final = 3
_FORGOTTEN: Final = 20.0  # seconds after the last `look`
_MOST: Final = 200  # subscriptions
_TURN: Final = 0.1  # seconds
_POLL: Final = 0.02  # seconds


@dataclass(frozen=True)
class Question(Generic[T]):
    """Something that a page shows.

    Attributes:
        key: what it is; sessions with the same one share the answer.
        source: what measures, in words.
        interval: seconds between two fetches.
        fetch: measures; may raise StreamFlowError or OSError.
    """

    key: Hashable
    source: str
    interval: float
    fetch: Callable[[], T]


@dataclass(slots=True)
class _Subscription:
    """A question that at least one page shows."""

    fetch: Callable[[], Any]
    reading: Reading[Any]
    asked_at: float
    due_at: float
    running: bool = False


class Demand:
    """Answers questions. `start` before use, `stop` at the end."""

    def __init__(self) -> None:
        self._subscriptions: dict[Hashable, _Subscription] = {}
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="demand")
        self._thread = threading.Thread(target=self._run, name="demand", daemon=True)

    def start(self) -> None:
        """Begins to fetch."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; what is being fetched ends with its own time-out."""
        self._ended.set()
        self._wake.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def running(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    @property
    def subscriptions(self) -> int:
        """How many questions are being answered."""
        return len(self._subscriptions)

    def look(self, question: Question[T]) -> Reading[T]:
        """The last answer, at once. It is fetched again and again while pages keep calling this."""
        now = time.monotonic()
        with self._guard:
            subscription = self._subscriptions.get(question.key)
            if subscription is None:
                first: Reading[T] = Reading(question.source, question.interval)
                subscription = self._subscriptions[question.key] = _Subscription(
                    question.fetch, first, now, now
                )
                self._wake.set()
            subscription.asked_at = now
            return subscription.reading

    def wait(self, question: Question[T], patience: float) -> Reading[T]:
        """As `look`, but waits up to `patience` seconds for the first answer: for a page that is
        being opened."""
        deadline = time.monotonic() + patience
        while True:
            reading = self.look(question)
            first = reading.measured_at is None and reading.error is None
            if not first or time.monotonic() > deadline:
                return reading
            time.sleep(_POLL)

    def refresh(self, key: Hashable) -> None:
        """Fetches again at once, after a change."""
        with self._guard:
            subscription = self._subscriptions.get(key)
            if subscription is not None:
                subscription.due_at = 0.0
        self._wake.set()

    def forget(self, key: Hashable) -> None:
        """Stops fetching; answers that were handed out stay valid."""
        with self._guard:
            self._subscriptions.pop(key, None)

    def _run(self) -> None:
        while not self._ended.is_set():
            now = time.monotonic()
            with self._guard:
                for key in [
                    key
                    for key, subscription in self._subscriptions.items()
                    if now - subscription.asked_at
                    > max(_FORGOTTEN, 2 * subscription.reading.interval)
                    and not subscription.running
                ]:
                    del self._subscriptions[key]
                while len(self._subscriptions) > _MOST:
                    oldest = min(
                        self._subscriptions, key=lambda key: self._subscriptions[key].asked_at
                    )
                    del self._subscriptions[oldest]
                due = [s for s in self._subscriptions.values() if not s.running and now >= s.due_at]
                for subscription in due:
                    subscription.running = True
            for subscription in due:
                self._pool.submit(self._fetch, subscription)
            # Without subscriptions it sleeps until there is one.
            self._wake.wait(_TURN if self._subscriptions else None)
            self._wake.clear()

    def _fetch(self, subscription: _Subscription) -> None:
        began = time.monotonic()
        reading, _ = attempt(subscription.reading, subscription.fetch)
        with self._guard:
            subscription.reading = reading
            # A source is busy with this for at most a fifth of the time.
            subscription.due_at = began + max(reading.interval, 5 * reading.seconds)
            subscription.running = False
        self._wake.set()
