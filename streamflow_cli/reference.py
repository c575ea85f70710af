"""Pages of the documentation that the code states: ``python -m streamflow_cli.reference``.

A page has blocks between ``<!-- reference: NAME -->`` and ``<!-- end -->``; what is around them is written by
hand. The tables of the settings come from `streamflow.settings.reference`.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final

import typer
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase
from typer.core import TyperGroup
from typer.main import get_command

from streamflow import monitoring
from streamflow.settings import reference as settings_reference
from streamflow_cli.app import app

_BLOCK: Final = re.compile(r"(<!-- reference: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_PLACEHOLDERS: Final = {int: "N", float: "N", str: "TEXT", Path: "PATH"}
_EXAMPLE: Final = "Example: "


def commands() -> str:
    """Every command, from what ``--help`` shows."""
    return "\n".join(_sections(get_command(app), "streamflow"))


def metrics() -> str:
    """The catalogue of `streamflow.monitoring`."""
    rows = [
        _metric(each) for each in vars(monitoring).values() if isinstance(each, MetricWrapperBase)
    ]
    return "| metric | type | labels | meaning |\n|---|---|---|---|\n" + "".join(rows)


def _metric(metric: MetricWrapperBase) -> str:
    [described] = metric.describe()
    name = f"{described.name}_total" if isinstance(metric, Counter) else described.name
    # The client has no public way to ask for it.
    labels = ", ".join(f"`{each}`" for each in metric._labelnames)  # noqa: SLF001
    return f"| `{name}` | {described.type} | {labels} | {described.documentation} |\n"


def _sections(command: Any, path: str) -> Iterator[str]:
    paragraphs = _paragraphs(command.help or "")
    text = [each for each in paragraphs if not each.startswith(_EXAMPLE)]
    examples = [line for each in paragraphs for line in each.split(_EXAMPLE)[1:]]
    yield f"## {path}\n" if path.count(" ") < 2 else f"### {path}\n"  # noqa: PLR2004 (of a group's)
    yield "\n\n".join(map(_escaped, text)) + "\n"
    if examples:
        yield "\n".join(("```console", *(f"$ {each.strip()}" for each in examples), "```\n"))
    shown = [_row(each) for each in command.params if not each.hidden]
    if shown:
        yield "| | default | meaning |\n|---|---|---|\n" + "".join(shown)
    if isinstance(command, TyperGroup):
        context = typer.Context(command)
        for name in command.list_commands(context):
            yield from _sections(command.get_command(context, name), f"{path} {name}")


def _paragraphs(text: str) -> list[str]:
    return [" ".join(each.split()) for each in inspect.cleandoc(text).split("\n\n")]


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        value = _value(parameter)
        names = ", ".join(
            f"`{name}{value}`" for name in (*parameter.opts, *parameter.secondary_opts)
        )
    meaning, default = _split_default(getattr(parameter, "help", None) or "")
    default = default or _default(parameter)
    if parameter.envvar:
        default = ", ".join(filter(None, [f"`{parameter.envvar}`", default]))
    choices = _choices(parameter)
    cells = (names.replace("|", r"\|"), default, f"{_escaped(meaning)}{choices}")
    return f"| {' | '.join(cells)} |\n"


def _value(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return ""
    return f" {parameter.metavar or _PLACEHOLDERS.get(_kind(parameter), 'VALUE')}"


def _kind(parameter: Any) -> Any:
    kind = parameter.type_descriptor.annotation
    return kind if isinstance(kind, type) else str


def _choices(parameter: Any) -> str:
    kind = _kind(parameter)
    if not issubclass(kind, Enum):
        return ""
    return " One of " + ", ".join(f"`{each.value}`" for each in kind) + "."


def _split_default(text: str) -> tuple[str, str]:
    """A help text that states its default itself, as a default that is read from a setting does."""
    found = re.fullmatch(r"(.*?) *\[default: (.+)]", text)
    return (found[1], found[2]) if found else (text, "")


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value is False or callable(value) or value in ((), []):
        return ""
    if value is True:
        return f"`{parameter.opts[0]}`"
    return f"`{value.value if isinstance(value, Enum) else value}`"


def _escaped(text: str) -> str:
    return re.sub(r"([|<*])", r"\\\1", text)


PAGES: Final[dict[str, Callable[[], str]]] = {"cli": commands, "metrics": metrics}


def render(page: str) -> str:
    """The page with its blocks renewed."""
    return _BLOCK.sub(lambda match: f"{match[1]}{PAGES[match[2]]()}{match[3]}", page)


def main() -> None:
    """Renews the pages in `docs/` of the folder that it runs in."""
    settings = settings_reference.PAGE
    settings.write_text(settings_reference.render(settings.read_text()))
    for name in PAGES:
        page = Path(f"docs/reference/{name}.md")
        page.write_text(render(page.read_text()))


if __name__ == "__main__":
    main()
