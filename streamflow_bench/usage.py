"""Who uses the processors: workers, Kafka, PostgreSQL, and whatever else runs on the machine."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

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
# What a processor does not work in. Guests' time is part of the user's.
_IDLE: Final = {"idle", "iowait", "guest", "guest_nice"}


class Meter:
    """Reads processor time of the processes of each part; those of other machines are not known.

    Args:
        settings: where Kafka and PostgreSQL are.
        parts: pids of further parts, by name.
    """

    def __init__(self, settings: Settings, parts: Mapping[str, Iterable[int]]) -> None:
        ports = {KAFKA: _local_ports(settings.bootstrap.split(","))}
        if settings.database_url is not None:
            found = conninfo_to_dict(settings.database)
            address = f"{found.get('host') or ''}:{found.get('port') or _POSTGRESQL_PORT}"
            ports[POSTGRESQL] = _local_ports([address])
        owners = {part: [owner(port) for port in each] for part, each in ports.items()}
        pids = {part: [each[1] for each in found if each] for part, found in owners.items()}
        self._parts = {
            part: [psutil.Process(pid) for pid in each]
            for part, each in {**pids, **parts, BENCH: [psutil.Process().pid]}.items()
        }
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        found = {
            # What we have started ourselves is counted where it belongs.
            part: sum(_seconds(each, descendants=part != BENCH) for each in processes)
            for part, processes in self._parts.items()
            if processes
        }
        machine = psutil.cpu_times()._asdict()
        found[MACHINE] = sum(value for name, value in machine.items() if name not in _IDLE)
        return found

    def used(self, seconds: float) -> dict[str, float]:
        """How many cores each part has kept busy since the beginning, `seconds` ago; `MACHINE` is
        all of them, and `OTHERS` those that none of the parts did."""
        now = self._read()
        cores = {part: (now[part] - self._before[part]) / seconds for part in now}
        known = sum(value for part, value in cores.items() if part != MACHINE)
        return cores | {OTHERS: max(0.0, cores[MACHINE] - known)}


def _local_ports(addresses: Iterable[str]) -> list[int]:
    parts = [address.strip().rpartition(":") for address in addresses]
    return [int(port) for host, _, port in parts if host.strip("[]") in _LOCAL]


def _seconds(process: psutil.Process, *, descendants: bool) -> float:
    """Processor time of a process and those that it has started; ended ones are in the times of
    the one that started them."""
    total = 0.0
    with suppress(psutil.Error):
        each = [process, *(process.children(recursive=True) if descendants else [])]
        for one in each:
            with suppress(psutil.Error):
                found = one.cpu_times()
                total += found.user + found.system
                if descendants:
                    total += getattr(found, "children_user", 0.0)
                    total += getattr(found, "children_system", 0.0)
    return total
