"""Filters of records: text, key, partition, JSON path and header, all of which must match. Pure.

No code of the user runs: a JSON path is only names, indexes and a comparison.
"""

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
_STEP: Final = re.compile(r"""([^.\[\]]+)|\[(\d+)\]|\["([^"]*)"\]|\['([^']*)'\]""")
_MISSING: Final = object()


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
        tests: list[Test] = []
        if self.partitions:
            wanted = self.partitions
            tests.append(lambda record: record.partition in wanted)
        if self.text.strip():
            tests.append(_text_test(self.text.strip().casefold()))
        if self.key.strip():
            tests.append(_key_test(self.key.strip().casefold()))
        if self.header.strip():
            tests.append(_header_test(self.header.strip()))
        if self.path.strip():
            tests.append(_path_test(self.path.strip()))
        return lambda record: all(test(record) for test in tests)


def _text_test(wanted: str) -> Test:
    return lambda record: wanted in record.value.casefold()


def _key_test(wanted: str) -> Test:
    return lambda record: record.key is not None and wanted in record.key.casefold()


def _header_test(expression: str) -> Test:
    name, separator, wanted = expression.partition("=")
    name, wanted = name.strip().casefold(), wanted.strip().casefold()

    def test(record: SeenRecord) -> bool:
        return any(
            name in held.casefold() and (not separator or wanted in (value or "").casefold())
            for held, value in record.headers
        )

    return test


def _path_test(expression: str) -> Test:
    match = _PATH.fullmatch(expression)
    if match is None:
        raise UsageError(
            f"{expression!r} is not a path: write it as type = USER_LOGIN, items[0].price > 3, "
            "user ~ ann, or only a path that must be there"
        )
    steps = _steps(match["path"])
    compare = _comparison(match["operator"], match["value"])

    def test(record: SeenRecord) -> bool:
        try:
            found: Any = orjson.loads(record.value)
        except orjson.JSONDecodeError:
            return False
        for step in steps:
            found = _step_into(found, step)
            if found is _MISSING:
                return False
        return compare(found)

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


def _step_into(found: Any, step: str | int) -> Any:
    if isinstance(step, int):
        return found[step] if isinstance(found, list) and step < len(found) else _MISSING
    return found.get(step, _MISSING) if isinstance(found, dict) else _MISSING


def _comparison(operator: str | None, raw: str | None) -> Callable[[Any], bool]:
    if operator is None or raw is None:
        return lambda _found: True
    wanted = _literal(raw.strip())
    if operator in ("=", "=="):
        return lambda found: bool(found == wanted) or str(found) == str(wanted)
    if operator == "!=":
        return lambda found: found != wanted and str(found) != str(wanted)
    if operator == "~":
        part = str(wanted).casefold()
        return lambda found: part in str(found).casefold()
    return lambda found: _ordered(operator, found, wanted)


def _ordered(operator: str, found: Any, wanted: Any) -> bool:
    numbers = isinstance(found, int | float) and isinstance(wanted, int | float)
    if not numbers and not (isinstance(found, str) and isinstance(wanted, str)):
        return False
    if operator == "<":
        return bool(found < wanted)
    if operator == ">":
        return bool(found > wanted)
    return bool(found <= wanted) if operator == "<=" else bool(found >= wanted)


def _literal(raw: str) -> Any:
    """A JSON value, or a text that needs no quotes."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw.strip("'\"")
