"""What the supervisor does about a process that lives and works no more: real processes."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from faults import free_ports, is_running, stalled, wait_until
from services import Quiet
from streamflow.errors import Unavailable
from streamflow.settings import Settings
from streamflow_stack.part import READY, Health, Part, Patience, Stage
from streamflow_stack.probes import probe_worker
from streamflow_stack.process import Launch
from streamflow_stack.signals import StopSignals
from streamflow_stack.state import state_of
from streamflow_stack.supervisor import Member, Supervisor

pytestmark = pytest.mark.integration

# Is ready for as long as its file is there, then says that it hangs, and goes on living.
WORKER = """
import sys, threading
from pathlib import Path
from streamflow.monitoring import HealthServer
from streamflow.errors import Unavailable
from streamflow.settings import Settings
well = Path(sys.argv[2]).exists
def health():
    return (well(), "hangs in send_offsets_to_transaction for 9 s (limit 8 s)")
with HealthServer(Settings(), int(sys.argv[1]), health, health):
    threading.Event().wait()
"""


@contextmanager
def supervised(
    tmp_path: Path, patience: Patience
) -> Iterator[tuple[Member, Callable[[Callable[[], bool]], None], Quiet]]:
    """A worker under a supervisor, a way to let that work until something is so, and its report."""
    [port] = free_ports(1)
    (tmp_path / "well").touch()
    command = (sys.executable, "-c", WORKER, str(port), str(tmp_path / "well"))
    part = Part(
        name="validator",
        stage=Stage.WORKERS,
        launch=lambda: Launch(command=command, log=tmp_path / "validator.log"),
        probe=partial(probe_worker, f"http://127.0.0.1:{port}"),
        patience=patience,
    )
    state = state_of(Settings(STREAMFLOW_STATE_DIR=tmp_path / "state"))
    state.create()
    report = Quiet()
    with StopSignals() as signals:
        supervisor = Supervisor(state, [part], report, signals)
        [member] = supervisor.members

        def turn(condition: Callable[[], bool]) -> bool:
            supervisor._tick()
            return condition()

        try:
            supervisor.start(Stage.WORKERS)
            wait_until(lambda: turn(lambda: str(member.state) == "up"), 30, "the first start")
            yield member, lambda condition: wait_until(lambda: turn(condition), 30) and None, report
        finally:
            supervisor.stop()


def test_a_worker_that_says_that_it_hangs_is_started_again(tmp_path: Path) -> None:
    with supervised(tmp_path, Patience(hung=1.0)) as (member, until, report):
        assert member.child is not None
        first = member.child.pid
        (tmp_path / "well").unlink()
        until(lambda: str(member.state) == "hung")
        assert member.detail == "hangs in send_offsets_to_transaction for 9 s (limit 8 s)"
        until(lambda: str(member.state) == "restarting")
        assert member.detail.startswith("hangs in send_offsets_to_transaction")
        (tmp_path / "well").touch()
        until(lambda: str(member.state) == "up")
        assert member.child.pid != first
        assert member.restarts == 1
    assert any("and was killed: starting it" in line for line in report.lines)


def test_a_worker_that_does_not_answer_at_all_is_started_again(tmp_path: Path) -> None:
    with supervised(tmp_path, Patience(silent=4.0)) as (member, until, report):
        assert member.child is not None
        with stalled(member.child.pid):
            until(lambda: str(member.state) == "restarting")
        until(lambda: str(member.state) == "up")
        assert member.restarts == 1
    assert any("has not answered for" in line for line in report.lines)


def test_a_worker_that_stands_still_for_a_while_is_left_alone(tmp_path: Path) -> None:
    with supervised(tmp_path, Patience(silent=30.0)) as (member, until, _report):
        assert member.child is not None
        first = member.child.pid
        with stalled(first):
            until(lambda: str(member.state) == "not ready")
        until(lambda: str(member.state) == "up")
        assert (member.child.pid, member.restarts) == (first, 0)


SERVER = """
import signal, subprocess, sys
from pathlib import Path
folder, name = Path(sys.argv[1]), sys.argv[2]
def end(*_):
    with (folder / "ended").open("a") as ended:
        ended.write(name + "\\n")
    sys.exit()
signal.signal(signal.SIGTERM, end)
if name == "code":
    # As a code server that executes a run: its child does not end with it.
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
else:
    (folder / name).touch()
while True:
    signal.pause()
"""


def test_a_part_starts_after_another_and_is_stopped_before_it(tmp_path: Path) -> None:
    def part(name: str, after: str | None = None) -> Part:
        def launch() -> Launch:
            command = (sys.executable, "-c", SERVER, str(tmp_path), name)
            return Launch(command, tmp_path / f"{name}.log")

        def probe() -> Health:
            return READY if (tmp_path / name).exists() else Health(answered=False, ready=False)

        return Part(name, Stage.WORKERS, launch, probe, after=after)

    state = state_of(Settings(STREAMFLOW_STATE_DIR=tmp_path / "state"))
    state.create()
    report = Quiet()
    with StopSignals() as signals:
        parts = [part("daemon", after="code"), part("code")]
        supervisor = Supervisor(state, parts, report, signals)
        daemon, code = supervisor.members

        def turn(condition: Callable[[], bool]) -> bool:
            supervisor._tick()
            return condition()

        try:
            supervisor.start(Stage.WORKERS)
            for _ in range(5):
                supervisor._tick()
            assert code.child is not None
            assert (daemon.child, str(daemon.state)) == (None, "starting")
            assert daemon.detail == "waits for code"
            wait_until(lambda: psutil.Process(code.child.pid).children(), 30, "the child")
            (tmp_path / "code").touch()
            wait_until(lambda: turn(lambda: str(daemon.state) == "up"), 30, "the other's start")
            assert (code.restarts, daemon.restarts) == (0, 0)
            [left] = psutil.Process(code.child.pid).children()
        finally:
            supervisor.stop()
    assert (tmp_path / "ended").read_text().split() == ["daemon", "code"]
    assert not is_running(left.pid)
    assert any("which its parent left behind" in line for line in report.lines)


def test_a_worker_that_cannot_be_prepared_is_tried_again(tmp_path: Path) -> None:
    refusals = iter([Unavailable("the database refuses a schema")])

    def prepare(_report: object) -> None:
        for refusal in refusals:
            raise refusal

    def launch() -> Launch:
        return Launch((sys.executable, "-c", "import time; time.sleep(60)"), tmp_path / "log")

    state = state_of(Settings(STREAMFLOW_STATE_DIR=tmp_path / "state"))
    state.create()
    with StopSignals() as signals:
        part = Part("code", Stage.WORKERS, launch, lambda: READY, prepare=prepare)
        supervisor = Supervisor(state, [part], Quiet(), signals)
        [member] = supervisor.members

        def is_up() -> bool:
            supervisor._tick()
            return str(member.state) == "up"

        try:
            supervisor.start(Stage.WORKERS)
            assert (str(member.state), member.detail) == (
                "restarting",
                "the database refuses a schema",
            )
            wait_until(is_up, 30, "the second try")
        finally:
            supervisor.stop()
