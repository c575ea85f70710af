"""What a comparison found, as the table and the chart of ``docs/performance.md``."""

from typing import Any


def write_documents(report: dict[str, Any]) -> None:
    raise NotImplementedError
