"""What a stack's supervisor last saw of its parts: the file, for whoever shows it."""

import json
from pathlib import Path
from typing import Any

SNAPSHOT_FILE = "status.json"


def read_snapshot(directory: Path) -> dict[str, Any]:
    """What the supervisor of a state directory last wrote, or nothing.

    Returns:
        ``pid``, ``updated_at`` (seconds since the epoch) and ``parts``, a list of ``name``,
        ``state``, ``pid``, ``restarts``, ``detail``, ``address`` and ``managed``.
    """
    try:
        content = json.loads((directory / SNAPSHOT_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
