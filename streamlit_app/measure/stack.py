"""State and restarts of the stack's parts, from the supervisor's file."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from streamflow.errors import Unavailable
from streamflow_stack.state import read_snapshot

_STALE: Final = 30.0  # seconds; it writes at least every two


class PartStatus(NamedTuple):
    """A part of the stack as its supervisor last saw it."""

    name: str
    state: str
    restarts: int
    detail: str
    address: str


class StackSource:
    """Reads the supervisor's file.

    Args:
        directory: the state directory.
    """

    name = "supervisor"

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(self) -> Sequence[PartStatus]:
        """Measures.

        Raises:
            Unavailable: no supervisor runs here, or it hangs.
        """
        content = read_snapshot(self._directory)
        age = time.time() - float(content.get("updated_at", 0))
        if not content:
            raise Unavailable(
                f"no supervisor runs in {self._directory}: restarts are only known under "
                "`streamflow up`"
            )
        if age > _STALE:
            raise Unavailable(f"the supervisor has written nothing for {age:.0f} s")
        return [
            PartStatus(
                str(part["name"]),
                str(part["state"]),
                int(part["restarts"]),
                str(part["detail"] or ""),
                str(part["address"] or ""),
            )
            for part in content.get("parts", ())
        ]
