"""Numbers with their units, for people. Pure."""

import math
from datetime import UTC, datetime
from typing import Final

UNKNOWN: Final = "—"

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_MANY: Final = 100_000
_SMALL: Final = 10
# Powers of ten of numbers that are shown without an exponent.
_LEAST_PLACE, _LARGEST_PLACE = -5, 15


def count(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def either(number: float, one: str, many: str) -> str:
    """What is said of one, or of none or several: ``either(rows, "is", "are")``."""
    return one if number == 1 else many


def counted(number: float, noun: str, one: str = "", many: str = "") -> str:
    """As "1 row" or "2 rows"; ``counted(2, "row", "is", "are")`` is "2 rows are"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    words = either(number, noun, plural), either(number, one, many)
    return " ".join(filter(None, (count(number), *words)))


def short_count(value: float | None) -> str:
    """A number that may be large, in at most six characters."""
    if value is None:
        return UNKNOWN
    for limit, unit in ((1e9, "G"), (1e6, "M"), (_MANY, "k")):
        if abs(value) >= limit:
            scaled = value / (1e3 if unit == "k" else limit)
            return f"{scaled:,.1f} {unit}" if abs(scaled) < 100 else f"{scaled:,.0f} {unit}"  # noqa: PLR2004
    return f"{value:,.0f}"


def significant(value: float, digits: int = 6) -> str:
    """A measured number to so many digits, without zeros at its end."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    place = math.floor(math.log10(abs(value)))
    if not _LEAST_PLACE <= place <= _LARGEST_PLACE:
        return f"{value:.{digits - 1}e}"
    text = f"{value:,.{max(0, digits - 1 - place)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def rate(value: float | None, unit: str = "") -> str:
    if value is None:
        return UNKNOWN
    number = f"{value:.1f}" if 0 < value < _SMALL else short_count(value)
    return f"{number} {unit}/s" if unit else f"{number}/s"


def duration(seconds: float | None) -> str:
    """A time span, to about two digits."""
    if seconds is None:
        return UNKNOWN
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _SMALL:
        return f"{seconds:.1f} s"
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds / _HOUR:.0f} h"
    return counted(round(seconds / _DAY), "day")


def size(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:  # noqa: PLR2004
            return (
                f"{value:.0f} {unit}" if unit == "B" or value >= _SMALL else f"{value:.1f} {unit}"
            )
        value /= 1000
    return f"{value:.1f} TB"


def percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value * 100:.1f} %"


def ago(seconds: float | None) -> str:
    return "never" if seconds is None else f"{duration(seconds)} ago"


def clock(time: float | None) -> str:
    """The time of day in UTC."""
    return UNKNOWN if time is None else f"{datetime.fromtimestamp(time, UTC):%H:%M:%S}"


def when(time: float | None, now: float) -> str:
    """The time of day in UTC, with the date if that is not today."""
    if time is None:
        return UNKNOWN
    then, today = datetime.fromtimestamp(time, UTC), datetime.fromtimestamp(now, UTC)
    return f"{then:%H:%M:%S}" if then.date() == today.date() else f"{then:%Y-%m-%d %H:%M}"


def moment(time: datetime | None) -> str:
    """A moment in UTC, to the millisecond."""
    if time is None:
        return UNKNOWN
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03d} UTC"
