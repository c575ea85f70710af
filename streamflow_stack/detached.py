"""`up` in the background: started, watched until it is ready, then left alone."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from streamflow.errors import StackError
from streamflow.settings import Settings
from streamflow_stack.process import own_command
from streamflow_stack.state import already_running, state_of
from streamflow_stack.supervisor import Member

LOG = "up.log"
STOP_SECONDS = 40.0
# Set for the process in the background: `up --detach` waits for one of the lines below.
VARIABLE = "STREAMFLOW_DETACHED"

READY_LINE = "streamflow: ready"
NOT_READY_LINE = "streamflow: not ready: "


def up_detached(settings: Settings, arguments: list[str], echo: Callable[[str], None]) -> None:
    """Starts ``streamflow up`` in the background, echoes what it writes and waits until all is ready.
    Raises StackError, with the reason, if it does not come up."""
    state = state_of(settings)
    state.create()
    if state.supervisor_pid() is not None:
        raise StackError(already_running(state))
    log_path = state.logs / LOG
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 (our own command)
            own_command("up", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, VARIABLE: "1", "PYTHONUNBUFFERED": "1"},
        )
    lines = _follow(log_path)
    try:
        last = ""
        while True:
            ended = process.poll()
            for line in lines:
                if line is None:
                    break
                if line.startswith(READY_LINE):
                    return
                if line.startswith(NOT_READY_LINE):
                    raise StackError(line.removeprefix(NOT_READY_LINE).strip())
                last = line or last
                echo(line)
            if ended is not None:
                raise StackError(last.removeprefix("error: ") or f"it ended with code {ended}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_SECONDS)
        raise


def readiness_line(missing: Sequence[Member]) -> str:
    """What `up` prints for `up --detach`, once everything has been started."""
    if not missing:
        return READY_LINE
    reasons = "; ".join(f"{m.part.name} is {m.state} ({m.detail or 'no answer'})" for m in missing)
    return (
        f"{NOT_READY_LINE}the stack runs, but {reasons}: see `streamflow status` and the logs, "
        "`streamflow down` ends it"
    )


def _follow(path: Path) -> Iterator[str | None]:
    """The lines of a growing file; None whenever there are no more for now."""
    rest = ""
    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            piece = file.read()
            rest += piece
            *lines, rest = rest.split("\n")
            yield from lines
            if not piece:
                yield None
