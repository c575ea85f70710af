"""`streamflow bench --idle` measures the processes of a stack, and judges their sum."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from streamflow.errors import UsageError
from streamflow_bench.idle import IdleCost, PartCost, measure_idle
from streamflow_stack.state import StateDirectory, state_lock

_SLEEPS = "import sys; print(flush=True); sys.stdin.read()"
# Its child works, and it only waits for that.
_WORKS = (
    "import subprocess, sys; "
    "child = subprocess.Popen([sys.executable, '-c', 'print(flush=True)\\nwhile True: pass']); "
    "sys.stdin.read(); child.kill()"
)


def cost(*parts: PartCost) -> IdleCost:
    return IdleCost(60.0, {str(number): part for number, part in enumerate(parts)}, 0.5)


@pytest.mark.parametrize(
    ("parts", "met"),
    [
        ([PartCost(6.0, 600.0, 1), PartCost(6.0, 600.0, 2)], True),
        ([PartCost(6.0, 600.0, 1), PartCost(6.1, 600.0, 2)], False),
        ([PartCost(6.0, 600.0, 1), PartCost(6.0, 601.0, 2)], False),
    ],
    ids=["met", "processor", "memory"],
)
def test_the_bar_is_of_the_whole_stack(parts: list[PartCost], met: bool) -> None:
    assert cost(*parts).met is met
    assert json.loads(json.dumps(cost(*parts).as_dict()))["met"] is met


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    made = StateDirectory(tmp_path / "state")
    made.create()
    with state_lock(made):
        yield made


@pytest.fixture
def parts(state: StateDirectory) -> Iterator[dict[str, int]]:
    """Pids by name, of a part that works and of one that does not."""
    with ExitStack() as ends:
        pids = {}
        for name, code in (("works", _WORKS), ("sleeps", _SLEEPS)):
            process = ends.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            assert process.stdin is not None
            assert process.stdout is not None
            ends.callback(process.stdin.close)
            assert process.stdout.readline()
            pids[name] = process.pid
        show(state, pids)
        yield pids


def show(state: StateDirectory, pids: dict[str, int], part_state: str = "up") -> None:
    described = [
        {"name": name, "pid": pid, "state": part_state, "managed": True}
        for name, pid in pids.items()
    ]
    state.snapshot.write_text(json.dumps({"pid": os.getpid(), "parts": described}))


@pytest.mark.usefixtures("parts")
def test_a_part_is_measured_with_its_children(state: StateDirectory) -> None:
    found = measure_idle(state, 0.0, 1.0, lambda _text: None).parts
    assert [*found] == ["works", "sleeps", "supervisor"]
    assert [part.processes for part in found.values()] == [2, 1, 1]
    assert found["works"].cpu_s > found["sleeps"].cpu_s
    assert found["works"].pss_mb > found["sleeps"].pss_mb > 0
    # That of its parts is not its own.
    assert found["supervisor"].cpu_s < found["works"].cpu_s


def test_a_part_that_is_not_up_or_was_restarted_is_no_figure(
    state: StateDirectory, parts: dict[str, int]
) -> None:
    def restart(_text: str) -> None:
        [child] = psutil.Process(parts["works"]).children()
        show(state, {**parts, "works": child.pid})

    with pytest.raises(UsageError, match="restarted while it was measured"):
        measure_idle(state, 0.0, 0.1, restart)
    show(state, parts, "starting")
    with pytest.raises(UsageError, match="works, sleeps not up"):
        measure_idle(state, 0.0, 0.1, lambda _text: None)


def test_without_a_stack_there_is_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no stack runs in"):
        measure_idle(StateDirectory(tmp_path), 0.0, 0.1, lambda _text: None)
