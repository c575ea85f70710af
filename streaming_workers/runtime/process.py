"""What every worker process does: repeat sessions, end in time, and collect little garbage."""

import ctypes
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import tenacity

from streamflow.errors import Fenced, Unavailable

_PAUSES: Final = tenacity.wait_exponential_jitter(multiplier=0.2, max=5, jitter=0.3)  # seconds
# Of malloc.h, see mallopt(3).
_M_ARENA_MAX: Final = -8
_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 1_048_576  # bytes
PATIENCE: Final = 9.0  # seconds from SIGTERM to the end, whatever hangs
_SETTLED: Final = 30.0  # seconds that a session must last for earlier failures to be forgotten

# Thresholds of the three generations. A batch is tens of thousands of records that die together and
# hold no cycles: with the defaults it is walked some 70 times while it is read.
_THRESHOLDS: Final = (100_000, 20, 100)


def repeat_sessions(session: Callable[[], None], stop: threading.Event) -> None:
    """Runs session after session until `stop` is set, after a growing pause where a dependency does
    not answer or another worker has taken over. Other errors of a session are raised."""
    while not stop.is_set():
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((Unavailable, Fenced)),
            wait=_PAUSES,
            sleep=tenacity.sleep_using_event(stop),
        ):
            began = time.monotonic()
            with attempt:
                if not stop.is_set():
                    session()
            if time.monotonic() - began > _SETTLED:
                break


def end_after(
    seconds: float, code: int = 0, end: Callable[[int], object] = os._exit
) -> threading.Timer:
    """Ends the process at once when that time is over, whatever hangs, unless the timer is canceled."""
    timer = threading.Timer(seconds, end, (code,))
    timer.daemon = True
    timer.start()
    return timer


@contextmanager
def end_soon_after_signal(
    code: int = 0, end: Callable[[int], object] = os._exit, seconds: float = PATIENCE
) -> Iterator[None]:
    """Inside, SIGTERM or SIGINT ends the process soon, whatever hangs; a process that has left the block by
    then goes on. What handles them is up to the caller: but no handler of Python's runs while the main
    thread is in a call into a client library, so another thread reads from the pipe that the interpreter
    writes signals to.

    In another thread than the main one, which alone handles signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    timers: list[threading.Timer] = []

    def wait() -> None:
        while received := os.read(reading, 64):
            if before != -1:
                os.write(before, received)
            if {signal.SIGTERM, signal.SIGINT}.intersection(received):
                timers.append(end_after(seconds, code, end))
        os.close(reading)

    thread = threading.Thread(target=wait, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        thread.join()
        for timer in timers:
            timer.cancel()


def bound_arenas() -> None:
    """Keeps glibc from giving each thread of a client library its own arena: what is free in one serves
    no other thread. And from keeping large blocks once they are free, as it does after the first of their
    size. Other C libraries have no such call."""
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


def freeze_gc() -> None:
    """Call it once everything is made that lives as long as the process. What comes after is small and
    dies young, so the collector need not walk the modules, and seldom the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
