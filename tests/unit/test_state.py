"""The lock of a state directory: one supervisor holds it; who asks for its pid takes nothing from it."""

import fcntl
import threading
from pathlib import Path

import pytest

from streamflow.errors import StackError
from streamflow_stack.state import StateDirectory, state_lock


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    made = StateDirectory(tmp_path)
    made.create()
    return made


def test_one_that_asks_for_the_pid_is_no_supervisor(state: StateDirectory) -> None:
    with (state.directory / "lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        release = threading.Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN))
        release.start()
        with state_lock(state):
            assert state.supervisor_pid() is not None
        release.join()


def test_a_second_supervisor_is_refused(state: StateDirectory) -> None:
    with state_lock(state), pytest.raises(StackError, match="already runs"), state_lock(state):
        pass
