"""What oracles import: nothing of the product, so that a fault of it cannot hide itself."""

import ast
from pathlib import Path


def imported(file: Path) -> set[str]:
    """The top-level names of all modules that a file imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else str(node.module).split(".")[0])
    return found
