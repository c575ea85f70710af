"""The oracle of `make chaos` knows none of the product's code: a fault in it cannot hide itself."""

import sys
from pathlib import Path

import pytest

from oracle_imports import imported

TESTS = Path(__file__).parents[1]
PRODUCT = {folder.name for folder in TESTS.parent.iterdir() if (folder / "__init__.py").exists()}
CLIENTS = {"confluent_kafka", "psycopg"}


def test_the_oracle_imports_only_client_libraries() -> None:
    assert imported(TESTS / "chaos" / "oracle.py") <= CLIENTS | sys.stdlib_module_names


@pytest.mark.parametrize("call", ["__import__", "import_module", "exec(", "eval(", "subprocess"])
def test_the_oracle_comes_by_no_other_code(call: str) -> None:
    assert call not in (TESTS / "chaos" / "oracle.py").read_text()


def test_an_import_of_the_product_would_be_seen() -> None:
    assert {"streamflow", "streaming_workers", "streamflow_stack"} <= PRODUCT
    assert imported(TESTS / "chaos" / "nemesis.py") & PRODUCT
