"""Who uses the processors: workers, Kafka, PostgreSQL, and all other processes of the machine."""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

import psutil
from psycopg.conninfo import conninfo_to_dict

from streamflow.settings import Settings
from streamflow_stack.preflight import owner

WORKERS: Final = "workers"
KAFKA: Final = "kafka"
POSTGRESQL: Final = "postgresql"
BENCH: Final = "bench"
MACHINE: Final = "machine"
OTHERS: Final = "others"
CLIENTS: Final = "clients"
PARTS: Final = (WORKERS, KAFKA, POSTGRESQL, CLIENTS, BENCH, OTHERS, MACHINE)

_LOCAL: Final = {"127.0.0.1", "localhost", "::1", ""}
_POSTGRESQL_PORT: Final = "5432"
# Not working time. Guests' time is part of the user's.
_IDLE: Final = {"idle", "iowait", "guest", "guest_nice"}


class Meter:
    """Measures the processor time of Kafka, PostgreSQL (on this machine) and further `parts`, by pids."""

    def __init__(self, settings: Settings, parts: Mapping[str, Iterable[int]]) -> None:
        servers = {KAFKA: settings.bootstrap.split(",")}
        if settings.database_url is not None:
            values = conninfo_to_dict(settings.database)
            address = f"{values.get('host') or ''}:{values.get('port') or _POSTGRESQL_PORT}"
            servers[POSTGRESQL] = [address]
        pids = {part: _local_pids(addresses) for part, addresses in servers.items()}
        self._parts = {
            part: [psutil.Process(pid) for pid in part_pids]
            for part, part_pids in {**pids, **parts, BENCH: [psutil.Process().pid]}.items()
        }
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        seconds = {
            # What the benchmark has started is counted in its own part.
            part: sum(_seconds(process, descendants=part != BENCH) for process in processes)
            for part, processes in self._parts.items()
            if processes
        }
        machine = psutil.cpu_times()._asdict()
        seconds[MACHINE] = sum(value for name, value in machine.items() if name not in _IDLE)
        return seconds

    def used(self, seconds: float) -> dict[str, float]:
        """How many cores each part has kept busy since this object was created, `seconds` ago; `MACHINE` is
        all of them, `OTHERS` the rest."""
        now = self._read()
        cores = {part: (now[part] - self._before[part]) / seconds for part in now}
        known = sum(value for part, value in cores.items() if part != MACHINE)
        return cores | {OTHERS: max(0.0, cores[MACHINE] - known)}


class Used(NamedTuple):
    """Seconds of processor time."""

    user: float
    system: float


class ProcessTree:
    """A process and its descendants, which are looked up once a second: that takes a look at every process
    of the machine."""

    _LOOKED_UP_EVERY: Final = 1.0  # seconds

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._processes = [self._root]
        self._looked_up = time.monotonic()

    def used(self) -> Used:
        user = system = 0.0
        for process in self._all():
            with suppress(psutil.Error):
                times = process.cpu_times()
                # Those of a child that has ended are in its parent's.
                user += times.user + getattr(times, "children_user", 0.0)
                system += times.system + getattr(times, "children_system", 0.0)
        return Used(user, system)

    def resident(self) -> int:
        """Bytes of resident memory; what processes share counts for each."""
        size = 0
        for process in self._all():
            with suppress(psutil.Error):
                size += process.memory_info().rss  # 0 for a zombie
        return size

    def _all(self) -> list[psutil.Process]:
        if time.monotonic() - self._looked_up > self._LOOKED_UP_EVERY:
            self._looked_up = time.monotonic()
            with suppress(psutil.Error):
                self._processes = [self._root, *self._root.children(recursive=True)]
        return self._processes


def _local_pids(addresses: Iterable[str]) -> list[int]:
    parts = [address.strip().rpartition(":") for address in addresses]
    owners = [owner(int(port)) for host, _, port in parts if host.strip("[]") in _LOCAL]
    return [process[1] for process in owners if process]


def _seconds(process: psutil.Process, *, descendants: bool) -> float:
    """Processor time of a process and its descendants; those that have ended are in their parents' times."""
    total = 0.0
    with suppress(psutil.Error):
        for one in [process, *(process.children(recursive=True) if descendants else [])]:
            with suppress(psutil.Error):
                times = one.cpu_times()
                total += times.user + times.system
                if descendants:
                    total += getattr(times, "children_user", 0.0)
                    total += getattr(times, "children_system", 0.0)
    return total
