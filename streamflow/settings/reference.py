"""The tables of ``docs/settings.md``, made from the fields: ``python -m streamflow_cli.reference``."""

import re
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from streamflow.settings.platform import all_fields

PAGE: Final = Path("docs/settings.md")

_BLOCK: Final = re.compile(r"(<!-- settings: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_HEAD: Final = "| variable | default | meaning |\n|---|---|---|\n"


def groups() -> dict[str, dict[str, FieldInfo]]:
    """The settings by section, in the order of their declaration."""
    by_group: dict[str, dict[str, FieldInfo]] = {}
    for name, field in all_fields().items():
        by_group.setdefault(_extra(field)["group"], {})[name] = field
    return by_group


def render(page: str) -> str:
    """The page with each block between ``<!-- settings: GROUP -->`` and ``<!-- end -->`` renewed. Raises
    ValueError if it lacks a group, or names one that does not exist."""
    known = groups()
    named = [match[2] for match in _BLOCK.finditer(page)]
    if sorted(named) != sorted(known):
        odd = sorted(set(named) ^ set(known)) or sorted(named)
        raise ValueError(f"the page and the settings differ in their groups: {', '.join(odd)}")
    return _BLOCK.sub(lambda match: f"{match[1]}{_table(known[match[2]])}{match[3]}", page)


def _table(fields: dict[str, FieldInfo]) -> str:
    rows = (
        f"| `{name}` | {_default(field)} | {field.description} |\n"
        for name, field in fields.items()
    )
    return _HEAD + "".join(rows)


def _default(field: FieldInfo) -> str:
    shown = _extra(field).get("shown")
    if shown is not None:
        return str(shown)
    value = field.get_default()
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, SecretStr):
        raise TypeError("a secret has no default")
    return f"`{', '.join(map(str, value)) if isinstance(value, tuple) else value}`"


def _extra(field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    if not isinstance(extra, dict):
        raise TypeError(f"{field.alias} is not declared in a group")
    return extra
