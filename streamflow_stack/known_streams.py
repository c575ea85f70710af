"""Which streams the running stack of a folder knows: those that could work when it started."""

from collections.abc import Iterable, Sequence

from streamflow.settings import Settings
from streamflow.settings.sources import read_coordinates
from streamflow.units import either
from streamflow_stack.state import state_of


def unknown_streams(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """Those of the streams that the running stack does not know, and what to do. None where no stack runs."""
    known = _known(settings)
    return (
        {} if known is None else {name: _said([name], known) for name in names if name not in known}
    )


def unknown_note(settings: Settings, names: Iterable[str]) -> str | None:
    """As `unknown_streams`, of all of them in one sentence; None if there is none."""
    known = _known(settings)
    unknown = [] if known is None else [name for name in names if name not in known]
    return _said(unknown, known or ()) if unknown else None


def _known(settings: Settings) -> Sequence[str] | None:
    state = state_of(settings)
    known: Sequence[str] | None = read_coordinates(state.directory).get("streams")
    return None if state.supervisor_pid() is None else known


def _said(unknown: Sequence[str], known: Sequence[str]) -> str:
    which = either(len(unknown), f"stream {unknown[0]} is", f"streams {', '.join(unknown)} are")
    return (
        f"{which} unknown to the running stack, which knows only the streams that were declared when it "
        f"started ({', '.join(known)}): run `streamflow down`, then `streamflow up`"
    )
