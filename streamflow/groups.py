"""Texts of scalars: of what events are counted by, and of record keys.

PostgreSQL makes the same texts of the columns (`group_sql`), so that the audit can compare window counts
with rows.
"""

import hashlib
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final, LiteralString

from streamflow.contract import format_time

# The group of events that nothing tells apart, of a field that is null, and of an empty text.
ALL: Final = "(all)"
NULL: Final = "(null)"
EMPTY: Final = "(empty)"
LONGEST: Final = 256  # characters; a longer text is shortened, with a hash of the whole
_KEPT: Final = 200
_WIDEST: Final = 131_072  # digits that PostgreSQL's numeric has before the point

# Columns that can be counted by, and the SQL of their texts. A float or a time is a measure: nearly every
# event would have a group of its own.
GROUP_TYPES: Final[dict[str, LiteralString]] = {
    "text": "{column}",
    "boolean": "{column}::text",
    "bigint": "{column}::text",
    "numeric": "trim_scale({column})::text",
    "uuid": "{column}::text",
    "date": "to_char({column}, 'YYYY-MM-DD')",
}
# Of such a text; `LONGEST` and the others are repeated in it.
GROUP_SQL: Final[LiteralString] = """
CASE WHEN {text} IS NULL THEN '(null)' WHEN {text} = '' THEN '(empty)'
     WHEN char_length({text}) > 256
     THEN left({text}, 200) || '…' || left(encode(sha256(convert_to({text}, 'UTF8')), 'hex'), 16)
     ELSE {text} END
"""


def scalar_text(value: Any) -> str:
    if isinstance(value, str) and not isinstance(value, Enum):
        return value
    if isinstance(value, Enum):
        return scalar_text(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def decimal_text(value: Decimal) -> str:
    """A finite number without trailing zeros and without an exponent. One that no column holds keeps its
    exponent: a validator of the contract may make a number of a thousand million digits."""
    text = str(value)
    if "E" in text:
        if abs(value.adjusted()) > _WIDEST:
            return text
        text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def group_text(value: Any) -> str:
    if value is None:
        return NULL
    # On the path of every event: nearly always a text.
    text = value if type(value) is str else scalar_text(value)
    if len(text) > LONGEST:
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        return f"{text[:_KEPT]}…{digest[:16]}"
    return text or EMPTY
