"""Measured while somebody looks: what pages ask for is fetched in the background, once for all
sessions, and no longer than it is asked for."""

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from streamflow.errors import StreamFlowError
from streamlit_app.measure.readings import Reading

T = TypeVar("T")

_THREADS: Final = 3
_FORGOTTEN: Final = 20.0  # seconds without anybody asking
_MOST: Final = 200  # readings that are kept
_TURN: Final = 0.1  # seconds
_GLANCE: Final = 0.02  # seconds


@dataclass(frozen=True)
class Question(Generic[T]):
    """Something to be looked at.

    Attributes:
        key: what it is; everybody who asks with the same one shares the answer.
        source: what measures, in words.
        interval: seconds between two fetches.
        fetch: measures; may raise StreamFlowError or OSError.
    """

    key: Hashable
    source: str
    interval: float
    fetch: Callable[[], T]


@dataclass(slots=True)
class _Wish:
    """What somebody wants to see."""

    fetch: Callable[[], Any]
    reading: Reading[Any]
    asked_at: float
    due_at: float
    running: bool = False


class Demand:
    """Fetches what is asked for. `start` before use, `stop` at the end."""

    def __init__(self) -> None:
        self._wishes: dict[Hashable, _Wish] = {}
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
    def wishes(self) -> int:
        """How many are being looked at."""
        return len(self._wishes)

    def look(self, question: Question[T]) -> Reading[T]:
        """The last answer, at once. It goes on being fetched while it is looked at."""
        now = time.monotonic()
        with self._guard:
            wish = self._wishes.get(question.key)
            if wish is None:
                first: Reading[T] = Reading(question.source, question.interval)
                wish = self._wishes[question.key] = _Wish(question.fetch, first, now, now)
                self._wake.set()
            wish.asked_at = now
            return wish.reading

    def wait(self, question: Question[T], patience: float) -> Reading[T]:
        """As `look`, but waits up to `patience` seconds for the first answer: for a page that is
        being opened."""
        deadline = time.monotonic() + patience
        while True:
            reading = self.look(question)
            first = reading.measured_at is None and reading.error is None
            if not first or time.monotonic() > deadline:
                return reading
            time.sleep(_GLANCE)

    def refresh(self, key: Hashable) -> None:
        """Fetches something anew at once: something was changed."""
        with self._guard:
            wish = self._wishes.get(key)
            if wish is not None:
                wish.due_at = 0.0
        self._wake.set()

    def forget(self, key: Hashable) -> None:
        """Ends fetching something: whoever asked keeps the answer."""
        with self._guard:
            self._wishes.pop(key, None)

    def _run(self) -> None:
        while not self._ended.is_set():
            now = time.monotonic()
            with self._guard:
                for key in [
                    key
                    for key, wish in self._wishes.items()
                    if now - wish.asked_at > max(_FORGOTTEN, 2 * wish.reading.interval)
                    and not wish.running
                ]:
                    del self._wishes[key]
                while len(self._wishes) > _MOST:
                    oldest = min(self._wishes, key=lambda key: self._wishes[key].asked_at)
                    del self._wishes[oldest]
                due = [w for w in self._wishes.values() if not w.running and now >= w.due_at]
                for wish in due:
                    wish.running = True
            for wish in due:
                self._pool.submit(self._fetch, wish)
            # Without wishes it sleeps until somebody looks.
            self._wake.wait(_TURN if self._wishes else None)
            self._wake.clear()

    def _fetch(self, wish: _Wish) -> None:
        began = time.monotonic()
        before = wish.reading
        try:
            sample = wish.fetch()
        except (StreamFlowError, OSError) as error:
            reading = before.failed(str(error), time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 (the edge of a thread: it is shown, and tried again)
            reading = before.failed(f"{type(error).__name__}: {error}", time.monotonic() - began)
        else:
            reading = before.succeeded(sample, time.time(), time.monotonic() - began)
        took = time.monotonic() - began
        with self._guard:
            wish.reading = reading
            # Nothing that is only looked at may take more than a fifth of anybody's time.
            wish.due_at = began + max(reading.interval, 5 * took)
            wish.running = False
        self._wake.set()
