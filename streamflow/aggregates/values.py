"""Values as aggregates hold them, and as JSON has them. Pure.

A record of a window is small, whatever its events hold, or the broker would refuse it: long texts are
shortened, as those are that events are grouped by, and a number of more digits than anybody counts by is left
out.
"""

import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from streamflow.core_schema import LARGEST_BIGINT, SMALLEST_BIGINT
from streamflow.groups import LONGEST, decimal_text, group_text, scalar_text

# A number has at most so many digits before the point, and so many behind it.
MOST_DIGITS: Final = 1_000
LONGEST_TEXT: Final = LONGEST  # characters
_LIMIT: Final = 10**MOST_DIGITS
_ZERO: Final = Decimal()
_WHOLE: Final = 2**53  # of doubles, up to which all whole numbers are some
LARGEST_DOUBLE: Final = sys.float_info.max


def shortened(text: str) -> str:
    """As `group_text` shortens it, with a hash of the whole; an empty text stays empty."""
    return text if len(text) <= LONGEST else group_text(text)


def bounded_integer(number: int) -> int | None:
    """None for a number of more than a thousand digits."""
    return number if -_LIMIT < number < _LIMIT else None


def bounded_decimal(number: Decimal) -> Decimal | None:
    """As `bounded_integer`, of the digits before the point and behind it. Zeros at its end are none, nor are
    those of a zero: columns do not keep them all."""
    if not number:
        return _ZERO
    _, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or number.adjusted() >= MOST_DIGITS:
        return None
    if exponent < -MOST_DIGITS:
        text = "".join(map(str, digits))
        exponent += len(text) - len(text.rstrip("0"))
    return number if exponent >= -MOST_DIGITS else None


def json_value(value: Any) -> Any:
    """A scalar as JSON has it: a number or a bool as itself, all else as a text that PostgreSQL reads as a
    value of the field's type. Whole numbers beyond 64 bits are texts, too."""
    to_json = _TO_JSON.get(type(value))
    if to_json is not None:
        return to_json(value)
    if isinstance(value, Enum):
        return json_value(value.value)
    for kind, to_json in _TO_JSON.items():
        if isinstance(value, kind):
            return to_json(value)
    return str(value)


def moment_text(moment: datetime) -> str:
    """RFC 3339 in UTC, with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _span_text(span: timedelta) -> str:
    return f"{span.days} days {span.seconds}.{span.microseconds:06d} seconds"


_TO_JSON: Final[dict[type, Callable[[Any], Any]]] = {
    str: str,
    bool: bool,
    int: lambda number: number if SMALLEST_BIGINT <= number <= LARGEST_BIGINT else str(number),
    float: float,
    type(None): lambda _: None,
    Decimal: decimal_text,
    datetime: moment_text,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: _span_text,
}


def distinct_text(value: Any) -> str:
    """The same text for equal values, and only for those. No text is empty: sketches leave that out."""
    if isinstance(value, datetime):
        return moment_text(value)
    if isinstance(value, float):
        # Also of a default that is no float; and there is a negative zero.
        return str(int(value)) if value.is_integer() and abs(value) < _WHOLE else repr(value)
    # No text of an event holds NUL.
    return scalar_text(value) or "\0"


def finite_double(number: Any) -> float:
    """The nearest double; beyond their range, the last one."""
    try:
        double = float(number)
    except OverflowError:
        double = LARGEST_DOUBLE if number > 0 else -LARGEST_DOUBLE
    return max(-LARGEST_DOUBLE, min(double, LARGEST_DOUBLE))
