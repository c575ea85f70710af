"""structlog without rich, for processes of ours. structlog imports rich wherever it is installed, for
tracebacks that we do not use: 20 ms of each command, 4 MB of each worker."""

import sys
from importlib import import_module


def import_structlog() -> None:
    """Imports structlog, unless it or rich has been imported before. Rich can be imported afterwards."""
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import_module("structlog")
    finally:
        del sys.modules["rich"]
