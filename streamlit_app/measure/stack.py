"""State and restarts of the stack's parts, from what the supervisor wrote."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from streamflow.errors import Unavailable
from streamflow.settings import Settings
from streamflow_stack.state import state_of
from streamflow_stack.status import read_status


class PartStatus(NamedTuple):
    """A part of the stack as its supervisor last saw it."""

    name: str
    state: str
    restarts: int
    detail: str


class StackSource:
    """Reads the status of the stack in this folder."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self) -> Sequence[PartStatus]:
        """The parts; one that the stack leaves out is "off".

        Raises:
            Unavailable: no supervisor runs here, or it hangs.
        """
        state = state_of(self._settings)
        status: dict[str, Any] = {"supervisor": None}
        # Without a snapshot the lock is not tried: a supervisor that starts may be taking it.
        if state.snapshot.exists():
            status = read_status(self._settings)
        if status["supervisor"] is None:
            raise Unavailable(
                f"no supervisor runs in {state.directory}: restarts are only known under "
                "`streamflow up`"
            )
        if status["problem"] is not None:
            raise Unavailable(status["problem"])
        return [
            PartStatus(part["name"], part["state"], part["restarts"], part["detail"] or "")
            for part in status["parts"]
        ]
