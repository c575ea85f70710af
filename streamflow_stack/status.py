"""How the stack of a folder is, as its supervisor last saw it."""

import time
from typing import Any

from streamflow.settings import Settings
from streamflow_stack.part_names import NAMES
from streamflow_stack.state import PartState, read_snapshot, state_of

STALE_SECONDS = 30.0


def read_status(settings: Settings) -> dict[str, Any]:
    """``parts``, ``supervisor`` (pid or None) and ``problem`` (a line or None)."""
    state = state_of(settings)
    pid = state.supervisor_pid()
    snapshot = read_snapshot(state.directory) if pid else {}
    known = {part["name"]: part for part in snapshot.get("parts", ())}
    # A part that was left out on purpose is not missing.
    absent = {
        "state": str(PartState.OFF if known else PartState.STOPPED),
        "pid": None,
        "restarts": 0,
        "detail": None,
        "address": None,
        "managed": False,
    }
    # In the order of their start, then what does not run.
    names = dict.fromkeys((*known, *NAMES)) if set(known) - set(NAMES) else NAMES
    parts = [known.get(name) or {"name": name, **absent} for name in names]
    problem = None
    if known and time.time() - snapshot.get("updated_at", 0) > STALE_SECONDS:
        problem = f"the supervisor (pid {pid}) does not answer; this is what it last saw"
    return {"parts": parts, "supervisor": pid, "problem": problem}


def is_all_up(parts: list[dict[str, Any]]) -> bool:
    states = {part["state"] for part in parts}
    return PartState.UP in states and states <= {PartState.UP, PartState.OFF}
