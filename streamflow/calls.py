"""Calls into client libraries, by thread: what a watchdog reads (G10).

A client's own time-outs cannot be relied on: librdkafka's ``send_offsets_to_transaction`` never returns
when the connection to its coordinator breaks (librdkafka#5456, #5511). So whoever makes such a call
registers its name and how long it may take. Commands run no watchdog; there nobody reads it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

# Exit code of a process that its watchdog ended: EX_TEMPFAIL of sysexits.h, "try again later".
HUNG_EXIT_CODE: Final = 75
# Seconds that a call may take beyond the time-out that its library was given.
SLACK: Final = 3.0


@dataclass(slots=True)
class Activity:
    """What a thread is doing."""

    since: float  # monotonic: when it last entered or left a call, or its loop turned
    loop: bool = False  # must make progress outside calls, too
    # Name and limit of the calls it is in, innermost last; None is the watchdog's default.
    calls: list[tuple[str, float | None]] = field(default_factory=list)


class Calls:
    """The calls in progress in a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._activities: dict[int, Activity] = {}

    @contextmanager
    def call(self, name: str, limit: float | None = None) -> Iterator[None]:
        """Registers a call of this thread, named as in the library's documentation, while inside. It may
        take `limit` seconds; None is the watchdog's default."""
        thread = threading.get_ident()
        activity = self._activities.setdefault(thread, Activity(self._clock()))
        activity.since = self._clock()
        activity.calls.append((name, limit))
        try:
            yield
        finally:
            activity.calls.pop()
            activity.since = self._clock()
            if not activity.calls and not activity.loop:
                self._activities.pop(thread, None)

    def turned(self) -> None:
        """The loop of this thread has turned, and must keep turning from now on."""
        activity = self._activities.setdefault(threading.get_ident(), Activity(self._clock()))
        activity.loop = True
        activity.since = self._clock()

    def ended(self) -> None:
        self._activities.pop(threading.get_ident(), None)

    def activities(self) -> dict[int, Activity]:
        """Each thread's activity, by its ident. Thread-safe."""
        return self._activities.copy()


CALLS: Final = Calls()
call: Final = CALLS.call
