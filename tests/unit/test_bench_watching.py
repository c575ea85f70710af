"""How a process is followed: from the first progress seen to the end."""

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from faults import wait_until
from streamflow.errors import StreamFlowError, Unavailable
from streamflow_bench import watching
from streamflow_bench.usage import ProcessTree, Used
from streamflow_bench.watching import looks, watch
from streamflow_stack.process import Child, Launch


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    command = (sys.executable, "-c", "import time; time.sleep(600)")
    found = Child("worker", Launch(command, tmp_path / "log"), tmp_path / "pid.json")
    # A process that has just been started still has the few pages with which it begins.
    memory = psutil.Process(found.pid).memory_info
    wait_until(lambda: memory().rss > 1_000_000, 30, "Python to be loaded")
    yield found
    found.kill()


def test_the_first_step_is_where_the_time_starts(child: Child) -> None:
    course = watch(child, iter([0, 0, 100, 400, 1_000]).__next__, 1_000)
    assert course.records == 900
    assert course.seconds > 0
    assert course.rate == 900 / course.seconds
    assert course.memory.samples[0][1] > 1_000_000


def test_one_step_tells_no_rate(child: Child) -> None:
    course = watch(child, iter([0, 1_000]).__next__, 1_000)
    assert (course.records, course.rate) == (0, None)


def test_an_answer_that_fails_for_a_moment_is_asked_again(child: Child) -> None:
    answers = iter([100, None, 1_000])

    def progress() -> int:
        answer = next(answers)
        if answer is None:
            raise Unavailable("not coordinator")
        return answer

    assert watch(child, progress, 1_000).records == 900


def test_a_process_that_ends_before_it_is_done_is_an_error(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "raise SystemExit('error: no such topic')")
    child = Child("worker", Launch(command, tmp_path / "log"), tmp_path / "pid.json")
    with pytest.raises(StreamFlowError, match="worker ended with code 1: error: no such topic"):
        watch(child, lambda: 10, 1_000)


def test_a_process_that_has_done_all_may_end_before_the_answer(tmp_path: Path) -> None:
    child = Child("worker", Launch((sys.executable, "-c", ""), tmp_path / "log"), tmp_path / "pid")
    wait_until(lambda: child.poll() is not None, 30, "its end")
    # Neither asking in vain nor an answer from before its last commit tells that it failed.
    answers = iter([None, None, 400, 1_000])

    def progress() -> int:
        answer = next(answers)
        if answer is None:
            raise Unavailable("not coordinator")
        return answer

    assert [done for _, done in looks([child], progress, 1_000)] == [0, 0, 400, 1_000]


class Working:
    """A process that works for three looks after it has read all, and then no more."""

    def __init__(self, _pid: int) -> None:
        self._used = iter([0.0, 1.0, 2.0, 102.0, 202.0, 302.0])
        self._last = 0.0

    def used(self) -> Used:
        self._last = next(self._used, self._last)
        return Used(self._last, 0.0)

    def resident(self) -> int:
        return 100


def test_a_process_that_has_read_all_ends_when_it_is_idle(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "ProcessTree", Working)
    monkeypatch.setattr(watching, "_IDLE_SECONDS", 0.3)
    monkeypatch.setattr(watching, "_LOOK_EVERY", 0.01)
    course = watch(child, iter([100, 1_000]).__next__, 1_000, lambda: 7)
    assert (course.records, course.user) == (1_000, 301.0)


def test_a_process_that_still_writes_is_not_idle(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_IDLE_SECONDS", 0.3)
    monkeypatch.setattr(watching, "_LOOK_EVERY", 0.01)
    written = iter(range(50))
    watch(child, iter([100, 1_000]).__next__, 1_000, lambda: next(written, 50))
    assert next(written, None) is None


def test_a_child_of_the_process_is_counted(tmp_path: Path) -> None:
    work = "import time\nwhile time.process_time() < 2: pass"
    shell = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])"
    child = Child(
        "peer", Launch((sys.executable, "-c", shell), tmp_path / "log"), tmp_path / "pid.json"
    )
    tree = ProcessTree(child.pid)
    try:
        wait_until(lambda: sum(tree.used()) > 0.5, 60, "the child's work")
        assert psutil.Process(child.pid).cpu_times().user < 0.4
    finally:
        child.kill()
