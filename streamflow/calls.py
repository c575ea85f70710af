"""Calls into client libraries that are under way, by thread: what a watchdog reads (G10).

A client's own time-outs cannot be relied on: librdkafka's ``send_offsets_to_transaction`` blocks for
ever when the connection to its coordinator breaks (librdkafka#5456, #5511). So whoever makes such a
call names it and says how long it may take. Where no watchdog runs, as in commands, nobody reads it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

# Of a process that a watchdog has ended: EX_TEMPFAIL of sysexits.h, "try again later".
HUNG_EXIT_CODE: Final = 75
# Seconds that a call may take beyond the time-out that its library was given.
SLACK: Final = 3.0


@dataclass(slots=True)
class Activity:
    """What a thread is doing.

    Attributes:
        since: when it last began or ended a call, or its loop turned; on the monotonic clock.
        loop: whether it must give a sign of life even outside calls.
        calls: name and limit (seconds; None for the default) of the calls it is in, innermost last.
    """

    since: float
    loop: bool = False
    calls: list[tuple[str, float | None]] = field(default_factory=list)


class Calls:
    """The calls under way in a process.

    Args:
        clock: monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._activities: dict[int, Activity] = {}

    @contextmanager
    def call(self, name: str, limit: float | None = None) -> Iterator[None]:
        """Inside, this thread is in a call.

        Args:
            name: as an operator knows it from the library's documentation.
            limit: seconds that it may take; None for the watchdog's default.
        """
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
        """The loop of this thread has turned; from now on it must go on doing so."""
        activity = self._activities.setdefault(threading.get_ident(), Activity(self._clock()))
        activity.loop = True
        activity.since = self._clock()

    def ended(self) -> None:
        """The loop of this thread has come to its end."""
        self._activities.pop(threading.get_ident(), None)

    def activities(self) -> dict[int, Activity]:
        """What each thread is doing, by its ident. Thread-safe."""
        return self._activities.copy()


CALLS: Final = Calls()
call: Final = CALLS.call
