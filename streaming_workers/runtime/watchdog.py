"""The watchdog: ends a process whose loop hangs, after saying in which call (G9, G10).

A hung call into a client library cannot be interrupted: neither a signal nor another thread ends it,
and closing the client waits for it. What is not committed is read again, so ending the process is
safe; its supervisor restarts it.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

import structlog

from streamflow.calls import CALLS, HUNG_EXIT_CODE, Activity, Calls
from streaming_workers.runtime.process import end_after, end_soon_after_signal

log = structlog.get_logger()

# Seconds that a stall is shown by /ready and /health before the process ends.
_SHOWN: Final = 2.0
_TICK: Final = 0.25  # seconds
# A pause between two ticks that shows a stopped process or machine (SIGSTOP), in seconds.
_PAUSED: Final = 2.0
_LAST_LINE: Final = 2.0  # seconds to write the last line of the log
_LEAVING: Final = 2.0  # seconds to leave the consumer group


@dataclass(frozen=True, slots=True)
class Stall:
    """A thread that has hung in `call` for more than `limit` seconds."""

    call: str
    seconds: float
    limit: float

    def __str__(self) -> str:
        return f"hangs in {self.call} for {self.seconds:.0f} s (limit {self.limit:g} s)"


class Judge:
    """Decides what has stalled. Pure.

    Args:
        limit: seconds for calls that name no limit of their own, and for a turn of the loop.
        locate: says where a thread is that is in no named call.
    """

    def __init__(self, limit: float, locate: Callable[[int], str]) -> None:
        self._limit = limit
        self._locate = locate
        self._ticked: float | None = None
        self._resumed = float("-inf")

    def tick(self, now: float) -> None:
        """Call it several times a second. A gap means that the whole process was stopped: its calls
        were, too, and their limits start again."""
        if self._ticked is not None and now - self._ticked > _PAUSED:
            self._resumed = now
        self._ticked = now

    def find_stall(self, now: float, activities: Mapping[int, Activity]) -> Stall | None:
        """The worst of the threads that are past their limits."""
        if self._ticked is not None and now - self._ticked > _PAUSED:
            return None
        worst: Stall | None = None
        for thread, activity in activities.items():
            calls = activity.calls.copy()
            if not calls and not activity.loop:
                continue
            name, own = calls[-1] if calls else ("", None)
            limit = self._limit if own is None else own
            seconds = now - max(activity.since, self._resumed)
            past = seconds - limit
            if past > 0 and (worst is None or past > worst.seconds - worst.limit):
                worst = Stall(name or self._locate(thread), seconds, limit)
        return worst


class Watchdog:
    """Watches the calls of this process from its own thread. Use as a context manager.

    Args:
        limit: seconds; see `Judge`.
        worker: for the log.
        advice: for the log, too.
        calls: to watch.
        end: ends the process at once.
    """

    def __init__(
        self,
        limit: float,
        worker: str,
        calls: Calls = CALLS,
        end: Callable[[int], object] = os._exit,
        advice: str = "nothing is lost: what is not committed is read again after a restart",
    ) -> None:
        self._worker = worker
        self._advice = advice
        self._calls = calls
        self._end = end
        # Called in another thread with the call that hangs, two seconds before the process ends.
        self.leave: Callable[[str], object] = lambda _call: None
        self._judge = Judge(limit, _place)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def turned(self) -> None:
        self._calls.turned()

    def stall(self) -> Stall | None:
        """What hangs now, if anything. Call it from any thread."""
        return self._judge.find_stall(time.monotonic(), self._calls.activities())

    def health(self) -> tuple[bool, str]:
        stall = self.stall()
        return (True, "the loop turns") if stall is None else (False, str(stall))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._calls.ended()

    def _run(self) -> None:
        while not self._stop.wait(_TICK):
            self._judge.tick(time.monotonic())
            stall = self.stall()
            if stall is not None and stall.seconds > stall.limit + _SHOWN:
                self._give_up(stall)
                return

    def _give_up(self, stall: Stall) -> None:
        # The log may be what hangs, for instance a pipe without a reader.
        end_after(_LAST_LINE + _LEAVING, HUNG_EXIT_CODE, self._end)
        log.error(
            "stalled",
            worker=self._worker,
            call=stall.call,
            seconds=round(stall.seconds, 1),
            limit=stall.limit,
            exit_code=HUNG_EXIT_CODE,
            advice=self._advice,
        )
        leaving = threading.Thread(target=self.leave, args=(stall.call,), daemon=True)
        leaving.start()
        leaving.join(_LEAVING)
        self._end(HUNG_EXIT_CODE)


@contextmanager
def no_endless_call(limit: float, name: str, advice: str) -> Iterator[None]:
    """For commands and jobs: inside, a call that hangs ends the process, and so does a signal to end it,
    whatever hangs. `limit` is that of calls that name none."""
    with Watchdog(limit, name, advice=advice), end_soon_after_signal(HUNG_EXIT_CODE):
        yield


def _place(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "its loop"
    code = frame.f_code
    return f"{code.co_qualname} ({os.path.basename(code.co_filename)}:{frame.f_lineno})"  # noqa: PTH119
