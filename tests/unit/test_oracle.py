"""The oracle of `make chaos` knows none of the product's code: a fault in it cannot hide itself."""

import ast
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PRODUCT = {folder.name for folder in TESTS.parent.iterdir() if (folder / "__init__.py").exists()}
CLIENTS = {"confluent_kafka", "psycopg"}


def imported(file: Path) -> set[str]:
    """The top-level names of all modules that a file imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else str(node.module).split(".")[0])
    return found


def test_the_oracle_imports_only_client_libraries() -> None:
    assert imported(TESTS / "chaos" / "oracle.py") <= CLIENTS | sys.stdlib_module_names


@pytest.mark.parametrize("call", ["__import__", "import_module", "exec(", "eval(", "subprocess"])
def test_the_oracle_comes_by_no_other_code(call: str) -> None:
    assert call not in (TESTS / "chaos" / "oracle.py").read_text()


def test_an_import_of_the_product_would_be_seen() -> None:
    assert {"streamflow", "streaming_workers", "streamflow_stack"} <= PRODUCT
    assert imported(TESTS / "chaos" / "nemesis.py") & PRODUCT
