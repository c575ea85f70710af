"""Waiting for a condition instead of sleeping."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

POLL_SECONDS: Final = 0.05


def wait_until(condition: Callable[[], T], timeout: float = 60.0, what: str = "") -> T:
    """Asks until the answer is true and returns it; fails with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        time.sleep(POLL_SECONDS)
