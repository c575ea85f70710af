"""Durations as declarations write them. Pure."""

import re
from datetime import timedelta
from typing import Final

MILLISECOND: Final = timedelta(milliseconds=1)
_DURATION: Final = re.compile(r"([0-9]+) ?(ms|s|min|m|h|d)")
_UNITS: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def parse_duration(name: str, span: timedelta | str) -> timedelta:
    """Raises ValueError for a text that is no duration, with the `name` of the argument."""
    if isinstance(span, timedelta):
        return span
    match = _DURATION.fullmatch(span)
    if match is None:
        raise ValueError(f"{name}: {span!r} is no duration: write one like 10s, 5min or 1h")
    return int(match[1]) * _UNITS[match[2]]


def duration_text(span: timedelta) -> str:
    """In the largest unit that gives a whole number, such as ``10s`` or ``5min``."""
    unit = next(unit for unit in ("d", "h", "min", "s", "ms") if span % _UNITS[unit] == timedelta())
    return f"{span // _UNITS[unit]}{unit}"
