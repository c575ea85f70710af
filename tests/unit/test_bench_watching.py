"""How a process is followed: from the first progress seen to the end."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from faults import wait_until
from streamflow.errors import StreamFlowError, Unavailable
from streamflow_bench.usage import ProcessTree
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


def test_a_process_that_has_read_all_ends_when_it_is_idle(tmp_path: Path) -> None:
    """It works for some seconds after the last record is read, and writes once."""
    work = "import time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass\ntime.sleep(600)"
    child = Child(
        "peer", Launch((sys.executable, "-c", work), tmp_path / "log"), tmp_path / "pid.json"
    )
    try:
        began = time.monotonic()
        course = watch(child, iter([100, 1_000]).__next__, 1_000, lambda: 7)
        assert course.records == 900
        assert 1.0 < course.seconds < time.monotonic() - began - 4
        assert course.user > 0.3
    finally:
        child.kill()


def test_a_child_of_the_process_is_counted(tmp_path: Path) -> None:
    work = "import time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass"
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
