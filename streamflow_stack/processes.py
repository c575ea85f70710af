"""Some processes that belong together, run as one: the foreground part of a stack that has several."""

import contextlib
from collections.abc import Iterator, Sequence

import psutil

from streamflow.errors import StackError
from streamflow_stack.part import Part, Report, Stage
from streamflow_stack.process import end_leftovers
from streamflow_stack.signals import StopSignals
from streamflow_stack.state import State, StateLock
from streamflow_stack.supervisor import Supervisor

FIRST_SECONDS = 120.0  # for those that the others need
LAST_SECONDS = 3.0  # for what the processes had started themselves


def run_in_order(state: State, parts: Sequence[Part], report: Report) -> None:
    """Runs parts until a stop signal comes; starts again what dies, and leaves nothing running.

    Raises:
        StackError: one that the others need does not start, or the same runs already.
    """
    state.create()
    lock = StateLock(state)
    try:
        with StopSignals() as signals:
            for line in end_leftovers(state.run):
                report.say(line)
            supervisor = Supervisor(state, parts, report, signals)
            with contextlib.suppress(KeyboardInterrupt), _without_orphans(supervisor, report):
                supervisor.start(Stage.SERVICES)
                missing = supervisor.wait_until_up(Stage.SERVICES, FIRST_SECONDS)
                if missing:
                    raise StackError(
                        f"{missing[0].part.name} is not ready after {FIRST_SECONDS:g} s: see its "
                        f"log in {state.logs}"
                    )
                supervisor.start(Stage.WORKERS)
                supervisor.watch()
    finally:
        lock.release()


@contextlib.contextmanager
def _without_orphans(supervisor: Supervisor, report: Report) -> Iterator[None]:
    """Ends the parts, then what they had started and left: a run in progress outlives its server."""
    try:
        yield
    finally:
        started = psutil.Process().children(recursive=True)
        supervisor.stop()
        left = [each for each in started if each.is_running()]
        for process in left:
            # One that ends just now needs nothing more.
            with contextlib.suppress(psutil.Error):
                report.say(f"ending {process.name()} (pid {process.pid}), which was left")
                process.terminate()
        _, stubborn = psutil.wait_procs(left, timeout=LAST_SECONDS)
        for process in stubborn:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(stubborn, timeout=LAST_SECONDS)
