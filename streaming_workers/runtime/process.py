"""What every worker's process does: sessions one after another, with little garbage collection."""

import gc
import threading
import time
from collections.abc import Callable
from typing import Final

import tenacity

from streamflow.errors import Fenced, Unavailable

_PAUSES: Final = tenacity.wait_exponential_jitter(multiplier=0.2, max=5, jitter=0.3)  # seconds
_SETTLED: Final = 30.0  # seconds that a session must last for earlier failures to be forgotten

# Objects more than there were, until the collector looks at the young ones. A batch is tens of
# thousands of records that die together and hold no cycles: by default it is walked some 70 times
# while it is read.
_YOUNG: Final = 100_000
# Looks at the young until one at the older, and of those until one at all.
_OLDER: Final = 20
_ALL: Final = 100


def repeat_sessions(session: Callable[[], None], stop: threading.Event) -> None:
    """Runs session after session until `stop` is set. One that fails because a dependency does not
    answer, or another worker has taken over, is followed by a pause that grows.

    Raises:
        StreamFlowError: any other error of a session.
    """
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


def freeze_gc() -> None:
    """Called once everything is made that lives as long as the process. What comes after is small and
    dies young, so that the collector need not walk the modules, and seldom the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _OLDER, _ALL)
