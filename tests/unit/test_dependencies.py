"""What the product imports is declared in pyproject.toml and pinned in constraints.txt."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(file.parent.name for file in ROOT.glob("stream*/__init__.py"))
# The bench of the dashboard drives a browser, as the tests do: an extra of its own, `dev`.
OF_DEVELOPMENT = {"playwright"}


def name_of(requirement: str) -> str:
    [name] = re.findall(r"^[\w.-]+", requirement)
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_every_import_is_declared_and_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][name] for name in ("lineage", "registry", "tracing")]
    declared = {name_of(requirement) for requirement in chain(project["dependencies"], *extras)}
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    modules = {name for file in files for name in imported(file)}
    foreign = modules - sys.stdlib_module_names - {*PACKAGES} - OF_DEVELOPMENT
    distributions = packages_distributions()
    undeclared = [
        module
        for module in sorted(foreign)
        if not declared & {name_of(name) for name in distributions[module]}
    ]
    assert len(foreign) > 20
    assert undeclared == []
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {name_of(line) for line in lines if "==" in line and not line.startswith("#")}
    assert declared - pinned == set()
