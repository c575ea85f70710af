"""Pages of the reference hold what the code has: all of it, and nothing else."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

import streamflow
from streamflow import records
from streamflow.errors import ErrorCode
from streamflow.names import OWN_TABLES
from streamflow_cli import reference
from streamflow_cli.app import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *DOCS.glob("**/*.md")]

_OURS = re.compile(r"(?:^|[;&|({] *|exec loader )streamflow ([^|;&<>()]+)")


def table_cells(page: str) -> set[str]:
    """What stands in backticks in the first column of a page's tables."""
    rows = re.findall(r"^\| (.+?) \|", (DOCS / page).read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize("name", reference.PAGES)
def test_pages_that_the_code_states_are_up_to_date(name: str) -> None:
    page = (DOCS / f"reference/{name}.md").read_text()
    assert f"<!-- reference: {name} -->" in page
    assert reference.render(page) == page, "run `make docs-reference`"


def test_each_error_code_is_explained() -> None:
    assert table_cells("reference/error-codes.md") == {code.value for code in ErrorCode}


def test_each_header_is_explained() -> None:
    own = {value for name, value in vars(records).items() if name.endswith("_HEADER")}
    assert table_cells("reference/headers.md") == own


def test_each_table_of_our_own_is_explained() -> None:
    page = (DOCS / "reference/tables.md").read_text()
    assert {*re.findall(r"`(\w+)`", page)} >= OWN_TABLES


def test_each_public_name_is_on_the_page() -> None:
    page = (DOCS / "reference/python.md").read_text()
    assert sorted(re.findall(r"^::: streamflow\.(\w+)$", page, re.MULTILINE)) == sorted(
        streamflow.__all__
    )


def test_each_public_name_says_what_it_is() -> None:
    """What the page shows of it is its docstring."""
    classes = [each for each in map(streamflow.__getattr__, streamflow.__all__) if callable(each)]
    assert [each for each in classes if not inspect.getdoc(each)] == []


def commands_of(page: Path) -> Iterator[list[str]]:
    """The commands of ours that a page shows in its blocks."""
    text = page.read_text().replace("\\\n", " ")
    for block in re.findall(r"```console\n(.+?)```", text, re.DOTALL):
        for line in re.findall(r"^ *\$ (.+)$", block, re.MULTILINE):
            for each in _OURS.findall(line.partition("  #")[0]):
                yield each.replace('"', "").split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_that_a_page_shows_exist(page: Path) -> None:
    for words in commands_of(page):
        command: Any = get_command(app)
        while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
            name = words.pop(0)
            command = command.get_command(typer.Context(command), name)
            assert command is not None, f"there is no command {name}"
        known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        options = {word.partition("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)}
        assert options <= known | {"--help"}, words
