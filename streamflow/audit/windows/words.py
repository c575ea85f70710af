"""Groups and values of windows, in words. Pure."""

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson

from streamflow.aggregates.values import moment_text
from streamflow.groups import ALL, NULL, group_text

_PLAIN: Final = re.compile(r'[^\s"=(,][^\s"=,]*')
_LONGEST: Final = 100  # characters of a value


def group_of(columns: Sequence[str], values: Sequence[Any], *, blurred: bool) -> str:
    """The words for a cell's group, such as ``country=DE address_city=(null)``; `ALL` for all of a window."""
    if not columns:
        return ""
    return ALL if blurred else _group_words(columns, values)


def _group_words(columns: Sequence[str], values: Sequence[Any]) -> str:
    """No two groups have the same words."""
    return " ".join(
        f"{column}={_group(value)}" for column, value in zip(columns, values, strict=True)
    )


def _group(value: Any) -> str:
    if value is None:
        return NULL
    text = value if isinstance(value, str) else group_text(value)
    return text if _PLAIN.fullmatch(text) else orjson.dumps(text).decode()


def shown(value: Any) -> str:
    """A value of an aggregate."""
    if value is None:
        return "null"
    if isinstance(value, Decimal):
        text = f"{value:f}"
    else:
        text = moment_text(value) if isinstance(value, datetime) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
