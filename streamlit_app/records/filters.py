"""Filters of records: text, key, partition, JSON path and header, all of which must match. Pure.

No code of the user runs: a JSON path is only names, indexes and a comparison.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from streamflow.errors import UsageError
from streamlit_app.records.masking import SeenRecord

Test = Callable[[SeenRecord], bool]

_PATH: Final = re.compile(
    r"""\$?\.?(?P<path>[^\s=!<>~]+)\s*(?:(?P<operator>==|=|!=|<=|>=|<|>|~)\s*(?P<value>.+))?""",
)
_STEP: Final = re.compile(r"""([^.\[\]]+)|\[(\d{1,9})\]|\["([^"]*)"\]|\['([^']*)'\]""")
_MISSING: Final = object()
_ORDERS: Final = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What to search for; empty parts match everything.

    Attributes:
        text: in the value, whatever its case.
        key: in the key, whatever its case.
        partitions: of these only; empty for all.
        path: ``user.name = "ann"``, ``items[0].price > 3``, ``type ~ LOGIN``, or only a path that
            must be there.
        header: a name that must be there, or ``name=text`` that its value must hold.
    """

    text: str = ""
    key: str = ""
    partitions: frozenset[int] = frozenset()
    path: str = ""
    header: str = ""

    def compiled(self) -> Test:
        """One predicate for all parts.

        Raises:
            UsageError: the path cannot be understood.
        """
        parts = (
            (self.text, _text_test),
            (self.key, _key_test),
            (self.header, _header_test),
            (self.path, _path_test),
        )
        tests = [make_test(part.strip()) for part, make_test in parts if part.strip()]
        wanted = self.partitions
        if wanted:
            tests.insert(0, lambda record: record.partition in wanted)
        return lambda record: all(test(record) for test in tests)


def _text_test(wanted: str) -> Test:
    folded = wanted.casefold()
    return lambda record: folded in record.value.casefold()


def _key_test(wanted: str) -> Test:
    folded = wanted.casefold()
    return lambda record: folded in (record.key or "").casefold()


def _header_test(expression: str) -> Test:
    name, separator, wanted = expression.partition("=")
    name, wanted = name.strip().casefold(), wanted.strip().casefold()

    return lambda record: any(
        name in header.casefold() and (not separator or wanted in (value or "").casefold())
        for header, value in record.headers
    )


def _path_test(expression: str) -> Test:
    match = _PATH.fullmatch(expression)
    if match is None:
        raise UsageError(
            f"{expression!r} is not a path: write it as country = DE, items[0].price > 3, "
            "user ~ ann, or only a path that must be there"
        )
    steps = _steps(match["path"])
    compare = _comparison(match["operator"], match["value"])

    def test(record: SeenRecord) -> bool:
        try:
            value: Any = orjson.loads(record.value)
        except orjson.JSONDecodeError:
            return False
        for step in steps:
            value = _step_into(value, step)
        return value is not _MISSING and compare(value)

    return test


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    position = 0
    while position < len(path):
        if path[position] == "." and position:
            position += 1
        match = _STEP.match(path, position)
        if match is None:
            raise UsageError(
                f"the path {path!r} cannot be read from {path[position:]!r} on: write it as "
                "user, items[0].price or a['b c']"
            )
        name, index, *quoted = match.groups()
        if index is not None:
            steps.append(int(index))
        else:
            steps.append(name if name is not None else next(q for q in quoted if q is not None))
        position = match.end()
    return steps


def _step_into(value: Any, step: str | int) -> Any:
    if isinstance(step, int):
        return value[step] if isinstance(value, list) and step < len(value) else _MISSING
    return value.get(step, _MISSING) if isinstance(value, dict) else _MISSING


def _comparison(sign: str | None, raw: str | None) -> Callable[[Any], bool]:
    if sign is None or raw is None:
        return lambda _value: True
    wanted = _literal(raw.strip())
    if sign in ("=", "=="):
        return lambda value: bool(value == wanted) or str(value) == str(wanted)
    if sign == "!=":
        return lambda value: value != wanted and str(value) != str(wanted)
    if sign == "~":
        part = str(wanted).casefold()
        return lambda value: part in str(value).casefold()
    kind = str if isinstance(wanted, str) else int | float
    ordered = _ORDERS[sign]
    return lambda value: (
        isinstance(value, kind) and isinstance(wanted, kind) and bool(ordered(value, wanted))
    )


def _literal(raw: str) -> Any:
    """A JSON value, or a text without quotes."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw.strip("'\"")
