"""What the product imports is declared in pyproject.toml and pinned in constraints.txt, the core's own apart
from that of the extras."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from streamflow.extras import DISTRIBUTION, EXTRAS

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(file.parent.name for file in ROOT.glob("stream*/__init__.py"))
# The bench of the dashboard drives a browser, as the tests do: an extra of its own, `dev`. The fixtures run
# inside of pytest. `compression` is of the standard library from Python 3.14 on. What `streamflow new` writes
# has a module of its own.
OF_OTHERS = {"playwright", "pytest", "my_streams", "compression"}
# The extra that each package may import, besides the core's own. Not `streamflow_bench`: the command asks for
# its extra before it imports it.
EXTRA_OF = {
    "streamflow": None,
    "streaming_workers": None,
    "streamflow_cli": None,
    "streamflow_stack": None,
    "streamflow_pytest": None,
    "streamflow_dagster": "dagster",
    "streamlit_app": "dashboard",
    "streaming_workers/bridge": "bridge",
    "streaming_workers/ingest": "ingest",
    "streaming_workers/runtime/web.py": "ingest",
    "streamflow/lineage": "lineage",
    "streaming_workers/spans.py": "tracing",
    "streamflow/export/parquet_files.py": "parquet",
    "streaming_workers/producer/parquet_rows.py": "parquet",
}
# Imported by parts of several extras, each of which has uvicorn.
SHARED = "streamflow/web_limits.py"


providers = cache(packages_distributions)  # it reads every installed file's name


@cache
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def name_of(requirement: str) -> str:
    [name] = re.findall(r"^[\w.-]+", requirement)
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def foreign(modules: Iterable[str]) -> set[str]:
    return {*modules} - sys.stdlib_module_names - {*PACKAGES} - OF_OTHERS


def undeclared(modules: Iterable[str], declared: set[str]) -> list[str]:
    return [
        module
        for module in sorted(modules)
        if not declared & {name_of(name) for name in providers()[module]}
    ]


def test_every_import_is_declared_and_pinned() -> None:
    optional = project()["optional-dependencies"]
    of_extras = (requirement for extra in EXTRAS for requirement in optional[extra])
    declared = {name_of(each) for each in (*project()["dependencies"], *of_extras)}
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    modules = foreign(name for file in files for name in imported(ast.walk(_tree(file))))
    assert len(modules) > 20
    assert undeclared(modules, declared) == []
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {name_of(line) for line in lines if "==" in line and not line.startswith("#")}
    assert declared - pinned == {DISTRIBUTION}


@pytest.mark.parametrize(("package", "extra"), EXTRA_OF.items())
def test_no_other_extra_is_imported_before_it_is_needed(package: str, extra: str | None) -> None:
    """Within functions it may: those ask `extras` first."""
    own = project()["optional-dependencies"][extra] if extra else []
    declared = {name_of(requirement) for requirement in (*project()["dependencies"], *own)}
    apart = [ROOT / SHARED, *(ROOT / each for each in EXTRA_OF if each.startswith(f"{package}/"))]
    path = ROOT / package
    for file in [path] if path.is_file() else path.rglob("*.py"):
        if not any(file.is_relative_to(each) for each in apart):
            modules = foreign(imported(_tree(file).body))
            assert undeclared(modules, declared) == [], file


def test_what_others_bring_is_not_taken_for_an_extra(tmp_path: Path) -> None:
    for package in ("uvicorn", "opentelemetry/context"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
    code = (
        f"import sys; sys.path += [{str(ROOT)!r}, {str(tmp_path)!r}]; from streamflow import extras; "
        "print([extra for extra in extras.EXTRAS if extras.is_installed(extra)])"
    )
    # Without what is installed here.
    command = [sys.executable, "-S", "-E", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "[]\n"


def test_all_is_every_extra_and_development_has_all() -> None:
    optional = project()["optional-dependencies"]
    assert optional["all"] == [f"{DISTRIBUTION}[{','.join(sorted(EXTRAS))}]"]
    assert f"{DISTRIBUTION}[all]" in optional["dev"]
    assert {*optional} == {*EXTRAS, "all", "dev", "docs"}


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())
