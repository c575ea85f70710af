"""When a process counts as hung, and what becomes of it."""

import subprocess
import sys
import threading
import time

import pytest
import structlog

from faults import wait_until
from streamflow.calls import HUNG_EXIT_CODE, Activity, Calls
from streaming_workers.runtime.watchdog import Judge, Stall, Watchdog

LOOP, OTHER = 1, 2


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def calls(clock: Clock) -> Calls:
    return Calls(clock)


def judge(limit: float = 30) -> Judge:
    return Judge(limit, lambda thread: f"thread {thread}")


def test_a_loop_that_turns_is_well(clock: Clock, calls: Calls) -> None:
    for _ in range(5):
        calls.turned()
        clock.now += 29
        assert judge().find_stall(clock.now, calls.activities()) is None


def test_a_loop_that_does_not_turn_is_stalled_where_it_is() -> None:
    loop = {LOOP: Activity(100, loop=True)}
    assert judge().find_stall(130, loop) is None
    assert judge().find_stall(131, loop) == Stall("thread 1", 31, 30)


def test_a_call_has_its_own_limit(clock: Clock, calls: Calls) -> None:
    calls.turned()
    with calls.call("short", 10), calls.call("long", 60):
        clock.now += 59
        assert judge().find_stall(clock.now, calls.activities()) is None
        clock.now += 2
        assert judge().find_stall(clock.now, calls.activities()) == Stall("long", 61, 60)


def test_a_call_without_a_limit_has_the_default_one(clock: Clock, calls: Calls) -> None:
    with calls.call("any"):
        clock.now += 6
        assert judge(5).find_stall(clock.now, calls.activities()) == Stall("any", 6, 5)


def test_a_call_that_ended_is_a_sign_of_life(clock: Clock, calls: Calls) -> None:
    calls.turned()
    with calls.call("outer", 10):
        with calls.call("inner", 60):
            clock.now += 50
        clock.now += 9
        assert judge().find_stall(clock.now, calls.activities()) is None
        clock.now += 2
        assert judge().find_stall(clock.now, calls.activities()) == Stall("outer", 11, 10)
    clock.now += 29
    assert judge().find_stall(clock.now, calls.activities()) is None


def test_a_call_that_fails_has_ended(calls: Calls) -> None:
    with pytest.raises(ValueError, match="it"), calls.call("failing", 1):
        raise ValueError("it")
    assert calls.activities() == {}


def test_the_worst_of_several_threads_is_told() -> None:
    activities = {
        LOOP: Activity(100, loop=True, calls=[("flush", 300)]),
        OTHER: Activity(100, calls=[("COPY", 30)]),
    }
    assert judge().find_stall(140, activities) == Stall("COPY", 40, 30)


def test_a_thread_between_calls_is_nobodys_business() -> None:
    assert judge().find_stall(999, {OTHER: Activity(100)}) is None


def test_time_that_the_process_stood_still_does_not_count() -> None:
    activities = {LOOP: Activity(100, loop=True, calls=[("commit", 10)])}
    one = judge()
    one.tick(100)
    one.tick(100.5)
    # Whoever asks first after SIGCONT is not answered with the time before it.
    assert one.find_stall(160, activities) is None
    one.tick(160)
    assert one.find_stall(169, activities) is None
    for now in (161, 162, 163, 164, 165, 166, 167, 168, 169, 170, 171):
        one.tick(now)
    assert one.find_stall(171, activities) == Stall("commit", 11, 10)


def test_it_ends_the_process_with_one_line_that_names_the_call() -> None:
    calls, ended = Calls(), []
    with structlog.testing.capture_logs() as lines:
        began = time.monotonic()
        with Watchdog(0.2, "validator", calls, ended.append) as watchdog, calls.call("stuck"):
            wait_until(lambda: not watchdog.health()[0], 5)
            assert not ended, "there is time for somebody to ask"
            assert "hangs in stuck" in watchdog.health()[1]
            wait_until(lambda: ended, 5)
    assert time.monotonic() - began > 2
    assert ended[0] == HUNG_EXIT_CODE
    [line] = lines
    assert (line["event"], line["call"], line["worker"]) == ("stalled", "stuck", "validator")
    assert line["seconds"] > 2


def test_before_the_end_it_leaves_which_may_hang_as_well() -> None:
    calls, hanging, ended = Calls(), threading.Event(), []
    left: list[str] = []

    def leave(call: str) -> None:
        left.append(call)
        hanging.wait(10)

    watchdog = Watchdog(0.2, "validator", calls, ended.append)
    watchdog.leave = leave
    with watchdog, calls.call("stuck"):
        wait_until(lambda: ended, 10)
    hanging.set()
    assert left == ["stuck"]
    assert ended[0] == HUNG_EXIT_CODE


def test_a_stall_that_passes_ends_nothing() -> None:
    calls, ended = Calls(), []
    with Watchdog(0.2, "validator", calls, ended.append) as watchdog:
        with calls.call("slow"):
            wait_until(lambda: not watchdog.health()[0], 5)
        assert watchdog.health()[0]
    assert not ended


def test_threads_that_call_at_once_are_kept_apart() -> None:
    calls = Calls()
    inside, leave = threading.Barrier(3), threading.Event()

    def work(name: str) -> None:
        with calls.call(name):
            inside.wait(5)
            leave.wait(5)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for each in threads:
        each.start()
    inside.wait(5)
    names = {activity.calls[-1][0] for activity in calls.activities().values()}
    leave.set()
    for each in threads:
        each.join(5)
    assert names == {"a", "b"}
    assert calls.activities() == {}


def test_a_signal_ends_a_process_that_hangs_in_a_library() -> None:
    """Python runs no handler of its own before the call returns, which it never does."""
    program = """
import ctypes, signal
from streaming_workers.runtime.process import end_soon_after_signal
signal.signal(signal.SIGTERM, lambda *_: None)
mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
with end_soon_after_signal(75, seconds=0.1):
    lock(mutex)
    print("hangs", flush=True)
    lock(mutex)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"hangs\n"
        process.terminate()
        try:
            assert process.wait(20) == HUNG_EXIT_CODE
        finally:
            process.kill()


def test_a_process_that_has_left_in_time_goes_on() -> None:
    """As Dagster's do: they have yet to write down that a run was canceled."""
    program = """
import os, signal, threading
from streaming_workers.runtime.process import end_soon_after_signal
timers = lambda: [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
signal.signal(signal.SIGTERM, lambda *_: None)
with end_soon_after_signal(75, seconds=60):
    os.kill(os.getpid(), signal.SIGTERM)
    while not timers():
        pass
for timer in timers():
    timer.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, timeout=40
    )
    assert done.returncode == 0, done.stderr
