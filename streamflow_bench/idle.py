"""What a stack costs while nothing happens but the simulated events: processor time and memory of each part,
as the operating system has them."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

import psutil

from streamflow.errors import UsageError
from streamflow_bench.results import MEGABYTE
from streamflow_stack.state import StateDirectory, read_snapshot

# Of the whole stack.
MOST_CORES: Final = 0.2
MOST_GB: Final = 1.2
SUPERVISOR: Final = "supervisor"
_GIGABYTE: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class PartCost:
    """A part with its child processes.

    Attributes:
        cpu_s: seconds of processor time in 60 seconds.
        pss_mb: memory at the end; pages that several processes share count by their share.
    """

    cpu_s: float
    pss_mb: float
    processes: int


@dataclass(frozen=True, slots=True)
class IdleCost:
    """A stack's parts over some time."""

    seconds: float
    parts: Mapping[str, PartCost]
    load_average: float  # of the machine, over the last minute

    @property
    def cores(self) -> float:
        return sum(part.cpu_s for part in self.parts.values()) / 60

    @property
    def gigabytes(self) -> float:
        return sum(part.pss_mb for part in self.parts.values()) * MEGABYTE / _GIGABYTE

    @property
    def met(self) -> bool:
        return self.cores <= MOST_CORES and self.gigabytes <= MOST_GB

    def as_dict(self) -> dict[str, Any]:
        return {
            "seconds": round(self.seconds, 1),
            "cores": round(self.cores, 3),
            "most_cores": MOST_CORES,
            "gigabytes": round(self.gigabytes, 3),
            "most_gigabytes": MOST_GB,
            "met": self.met,
            "load_average": round(self.load_average, 2),
            "parts": {name: asdict(part) for name, part in self.parts.items()},
        }


def measure_idle(
    state: StateDirectory, settle: float, seconds: float, say: Callable[[str], None]
) -> IdleCost:
    """Watches the stack of a state directory for `seconds`, after `settle` seconds: a young stack still
    compiles and imports.

    Raises UsageError if none runs there, or if a part is not up, before or after.
    """
    parts = _parts(state)
    say(f"waiting {settle:g} s, then measuring {len(parts)} parts for {seconds:g} s")
    time.sleep(settle)
    before = {name: _cpu_seconds(name, process) for name, process in parts.items()}
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    costs = {}
    for name, process in parts.items():
        used = _cpu_seconds(name, process) - before[name]
        family = _family(name, process)
        pss = sum(map(_pss, family)) / MEGABYTE
        costs[name] = PartCost(round(used * 60 / took, 2), round(pss, 1), len(family))
    if _parts(state) != parts:
        raise UsageError("a part was restarted while it was measured: see `streamflow status`")
    return IdleCost(took, costs, os.getloadavg()[0])


def _parts(state: StateDirectory) -> dict[str, psutil.Process]:
    snapshot = read_snapshot(state.directory)
    if state.supervisor_pid() is None or not snapshot:
        raise UsageError(f"no stack runs in {state.directory}: start one with `streamflow up`")
    away = [part["name"] for part in snapshot["parts"] if part["state"] != "up"]
    if away:
        raise UsageError(f"{', '.join(away)} not up: see `streamflow status`")
    pids = {part["name"]: part["pid"] for part in snapshot["parts"] if part["managed"]}
    return {
        name: psutil.Process(pid) for name, pid in {**pids, SUPERVISOR: snapshot["pid"]}.items()
    }


def _family(name: str, process: psutil.Process) -> list[psutil.Process]:
    """A process and its descendants; those of the supervisor are parts of their own."""
    return [process, *([] if name == SUPERVISOR else process.children(recursive=True))]


def _cpu_seconds(name: str, process: psutil.Process) -> float:
    """Of all of them, and of children that have ended, which their parents' times include."""
    total = 0.0
    for one in _family(name, process):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system
            if name != SUPERVISOR:
                total += times.children_user + times.children_system
    return total


def _pss(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return int(process.memory_full_info().pss)
    return 0
