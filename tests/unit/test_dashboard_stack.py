"""What the dashboard knows of the stack's parts, from what the supervisor wrote."""

import json
import time
from pathlib import Path

import pytest

from streamflow.errors import Unavailable
from streamflow.settings import Settings
from streamflow_stack.state import StateDirectory, state_lock
from streamlit_app.measure.stack import StackSource

LOADER = {"name": "loader", "state": "restarting", "restarts": 3, "detail": "exit 1"}


def read(directory: Path, age: float = 0.0) -> dict[str, tuple[str, int, str]]:
    state = StateDirectory(directory)
    state.create()
    content = {"pid": 1, "updated_at": time.time() - age, "parts": [LOADER]}
    state.snapshot.write_text(json.dumps(content))
    with state_lock(state):
        parts = StackSource(Settings(STREAMFLOW_STATE_DIR=directory))()
    return {part.name: (part.state, part.restarts, part.detail) for part in parts}


def test_a_part_that_the_stack_leaves_out_is_off(tmp_path: Path) -> None:
    parts = read(tmp_path)
    assert parts["loader"] == ("restarting", 3, "exit 1")
    assert parts["bridge"] == ("off", 0, "")


def test_a_supervisor_that_hangs_says_nothing_of_now(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        read(tmp_path, age=60.0)


def test_without_a_supervisor_nothing_is_known(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no supervisor runs"):
        StackSource(Settings(STREAMFLOW_STATE_DIR=tmp_path))()
