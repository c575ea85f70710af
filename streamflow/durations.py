"""Durations as texts: ``10s``, ``5min``, ``12h``, ``7d``. Pure."""

import re
from datetime import timedelta
from typing import Final

MILLISECOND: Final = timedelta(milliseconds=1)
_DURATION: Final = re.compile(r"([0-9]+) ?(ms|s|min|m|h|d)")
_UNITS: Final = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "min": timedelta(minutes=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
EXAMPLES: Final = '"10s", "5min", "12h" or "7d"'


def parse_duration(value: timedelta | str) -> timedelta:
    """The duration that a text says; a ``timedelta`` is returned as it is. Raises ValueError if it says none,
    OverflowError if it is longer than ``timedelta.max``."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is no duration: write one like {EXAMPLES}")
    return int(match[1]) * _UNITS[match[2]]


def duration_text(value: timedelta) -> str:
    """As `parse_duration` reads it, in the largest unit that leaves no rest; seconds with a fraction if none
    does."""
    for unit, length in _UNITS.items():
        if value and value % length == timedelta(0):
            return f"{value // length}{unit}"
    return f"{value.total_seconds():g}s"
