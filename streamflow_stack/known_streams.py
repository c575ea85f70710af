"""Which streams the running stack of a folder knows: those that could work when it started."""

from collections.abc import Iterable

from streamflow.settings import Settings
from streamflow.settings.sources import read_coordinates
from streamflow_stack.state import state_of


def unknown_streams(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """Those of the streams that the running stack does not know, and what to do. None where no stack runs."""
    state = state_of(settings)
    known = read_coordinates(state.directory).get("streams")
    if known is None or state.supervisor_pid() is None:
        return {}
    return {
        name: f"stream {name} is unknown to the running stack, which knows only the streams that were "
        f"declared when it started ({', '.join(known)}): run `streamflow down`, then `streamflow up`"
        for name in names
        if name not in known
    }
