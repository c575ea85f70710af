"""What can go wrong, as functions that do it to a running pipeline. Each returns when it is over; what
follows from it is not its business.

Broker and database stand behind proxies that the workers know instead of them; the workers run under
`streamflow up`.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import NewPartitions
from oracle import Sender

from faults import ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT, Proxy, wait_until
from folders import Folder, free_offset
from services import DatabaseService, ProxiedBrokerService, Service
from streamflow.errors import Unavailable
from streamflow.kafka import clients, offsets
from streamflow.settings import Settings
from streamflow_stack.database import SUPERUSER

WORKERS: Final = ("validator", "analytics", "loader")
LEFT_OUT: Final = ("producer", "bridge", "dagster", "dashboard")
BREAKS: Final = ("cut", "reset", "half_close", "stall", "black_hole", "delay")
TOPIC: Final = "user-events"
TABLES: Final = "events, notifications, window_counts, dead_letters"
YEAR: Final = 365 * 86_400.0
TRAP_SECONDS: Final = 10.0

pause = threading.Event().wait


class Rig:
    """A broker and a database behind proxies, and workers that know only the proxies."""

    def __init__(self, directory: Path, left_out: Sequence[str] = LEFT_OUT) -> None:
        self._left_out = left_out
        self.broker = ProxiedBrokerService(directory / "broker")
        self.database = DatabaseService(directory / "database")
        self.database_proxy = Proxy(self.database.port)
        self.folder = Folder(directory / "project", free_offset())
        self.settings = Settings(KAFKA_BOOTSTRAP_SERVERS=self.broker.direct)
        self.admin = clients.admin(self.settings)
        self.lock_seconds = 60.0

    def start(self, cleanup: ExitStack) -> None:
        for service in (self.broker, self.database):
            service.start()
            cleanup.callback(service.stop)
        for proxy in (self.broker.proxy, self.database_proxy):
            cleanup.enter_context(proxy)
        url = self.database.url
        self.folder.variables |= {
            "KAFKA_BOOTSTRAP_SERVERS": self.broker.proxied,
            "DATABASE_URL": url.replace(f":{self.database.port}/", f":{self.database_proxy.port}/"),
            # Windows close soon after traffic stops: each round waits for that.
            "STREAMFLOW_STREAMS": "quick_windows:USER_EVENTS",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        cleanup.callback(self.folder.run, "down")
        self.up()

    def up(self) -> None:
        self.folder.up(*(part for name in self._left_out for part in ("--without", name)))

    def pid(self, worker: str) -> int:
        def known() -> int | None:
            found = self.folder.part(worker)["pid"]
            return found if found and psutil.pid_exists(found) else None

        return int(wait_until(known, 60, f"{worker} to run"))

    def ends(self) -> dict[tuple[str, int], int]:
        """The present end of each partition of events; waits until the broker answers."""

        def ask() -> dict[tuple[str, int], int] | None:
            try:
                partitions = offsets.partitions_of(self.admin, [TOPIC])
                return {
                    each: end for each, (_, end) in offsets.bounds(self.admin, partitions).items()
                }
            except Unavailable:
                return None

        return wait_until(ask, 120, "the broker to answer")

    def has_read(self, worker: str, ends: dict[tuple[str, int], int]) -> bool:
        try:
            found = offsets.committed(self.settings, self.settings.group(worker), list(ends))
        except Unavailable:  # its coordinator is still being elected
            return False
        return all(
            each in found and offsets.read_position(found[each]) >= end
            for each, end in ends.items()
            if end
        )

    def hangs(self) -> int:
        """How often a watchdog has ended a worker."""
        # Not all logs: the supervisor's quotes those of the workers.
        logs = self.folder.state / "logs"
        return sum(
            each.read_text(errors="replace").count('"event": "stalled"')
            for worker in WORKERS
            for each in logs.glob(f"{worker}.log*")
        )

    def audit(self, *arguments: str) -> str:
        done = self.folder.run("audit", "--json", "--wait", "120", *arguments, timeout=600)
        try:
            found = json.loads(done.stdout)
        except ValueError:
            return f"fails ({done.returncode}): {done.stderr.strip()[-300:]}"
        if found["closed"]:
            return "closed"
        return f"{found['verdict']}: {found['problems'][:3] or found['pending'][:3]}"

    def connect(self) -> "psycopg.Connection[Any]":
        url = self.database.database.url(role=SUPERUSER)
        return psycopg.connect(url, autocommit=True)


Fault = Callable[[Rig, random.Random, Sender], None]


def _kill(worker: str) -> Fault:
    def fault(rig: Rig, _chance: random.Random, _sender: Sender) -> None:
        os.kill(rig.pid(worker), signal.SIGKILL)

    return fault


def _stop(worker: str) -> Fault:
    def fault(rig: Rig, chance: random.Random, _sender: Sender) -> None:
        with _stopped([rig.pid(worker)]):
            pause(chance.uniform(2, 20))

    return fault


@contextmanager
def _stopped(pids: Iterable[int]) -> Iterator[None]:
    stopped = [*pids]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _tree(service: Service) -> list[int]:
    parent = psutil.Process(service.pid)
    return [parent.pid, *(child.pid for child in parent.children(recursive=True))]


def _restart(name: str) -> Fault:
    def fault(rig: Rig, chance: random.Random, _sender: Sender) -> None:
        service: Service = getattr(rig, name)
        service.kill()
        pause(chance.uniform(0, 5))
        service.start()

    return fault


def _freeze(name: str) -> Fault:
    def fault(rig: Rig, chance: random.Random, _sender: Sender) -> None:
        with _stopped(_tree(getattr(rig, name))):
            pause(chance.uniform(1, 10))

    return fault


def _fill_disk(rig: Rig, chance: random.Random, _sender: Sender) -> None:
    """No file grows, as on a full disk. PostgreSQL runs as another user: its limits are not ours to set."""
    for pid in _tree(rig.broker):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (1, psutil.RLIM_INFINITY))
    pause(chance.uniform(3, 8))
    # It gives up rather than go on; one that has not is no exception.
    rig.broker.restart()


def _break(proxy: Callable[[Rig], Proxy], how: str) -> Fault:
    def fault(rig: Rig, chance: random.Random, _sender: Sender) -> None:
        getattr(proxy(rig), how)()
        pause(chance.uniform(1, 5))
        proxy(rig).mend()

    return fault


def _trap(proxy: Callable[[Rig], Proxy], *api_keys: int, text: bytes = b"") -> Fault:
    """A connection breaks in the middle of something; whether that has arrived is chance."""

    def fault(rig: Rig, chance: random.Random, _sender: Sender) -> None:
        for _ in range(3):
            trap = proxy(rig).set_trap(
                *api_keys,
                sender=text,
                fault=chance.choice(("reset", "cut", "half_close")),
                delivered=chance.random() < 0.5,
            )
            trap.sprung.wait(TRAP_SECONDS)
            pause(chance.uniform(0, 2))
            proxy(rig).mend()

    return fault


def _to_broker(rig: Rig) -> Proxy:
    return rig.broker.proxy


def _to_database(rig: Rig) -> Proxy:
    return rig.database_proxy


def _terminate_backends(rig: Rig, chance: random.Random, _sender: Sender) -> None:
    with rig.connect() as connection:
        for _ in range(5):
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            pause(chance.uniform(0, 1))


def _exhaust_connections(rig: Rig, chance: random.Random, sender: Sender) -> None:
    _terminate_backends(rig, chance, sender)
    with ExitStack() as held:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                held.enter_context(psycopg.connect(rig.database.url))
        pause(chance.uniform(3, 10))


def _lock_tables(rig: Rig, _chance: random.Random, _sender: Sender) -> None:
    with rig.connect() as connection, connection.transaction():
        connection.execute(f"LOCK TABLE {TABLES} IN ACCESS EXCLUSIVE MODE")
        pause(rig.lock_seconds)


def _add_column(rig: Rig, _chance: random.Random, _sender: Sender) -> None:
    with rig.connect() as connection:
        connection.execute("ALTER TABLE events ADD COLUMN of_chaos integer")
        pause(3)
        connection.execute("ALTER TABLE events DROP COLUMN of_chaos")


def _rebalance_storm(rig: Rig, chance: random.Random, _sender: Sender) -> None:
    """Members come and go."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        group = rig.settings.group(chance.choice(WORKERS))
        member = clients.consumer(rig.settings, group)
        member.subscribe([TOPIC])
        member.poll(chance.uniform(0, 2))
        member.close()


def _jump(rig: Rig, chance: random.Random, sender: Sender) -> None:
    del rig
    sender.skew = chance.choice((-400 / 365, -1 / 8760, 1 / 8760, 400 / 365)) * YEAR
    pause(3)
    sender.skew = 0.0


def _kill_supervisor(rig: Rig, _chance: random.Random, _sender: Sender) -> None:
    os.kill(rig.folder.supervisor(), signal.SIGKILL)
    wait_until(lambda: _is_free(rig.folder.state / "lock"), 60, "the end of the supervisor")
    rig.up()


def _is_free(lock: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return not psutil.pid_exists(int(lock.read_text()))
    return True


def _replay(rig: Rig, chance: random.Random, _sender: Sender) -> None:
    """Killed at some moment, twice; then two at once."""
    for _ in range(2):
        running = _start_replay(rig)
        pause(chance.uniform(1, 6))
        running.kill()
        running.wait()
    for running in (_start_replay(rig), _start_replay(rig)):
        running.wait(180)


def _start_replay(rig: Rig) -> "subprocess.Popen[bytes]":
    command = (
        "dlq",
        "replay",
        "--repair",
        "coerce_numbers",
        "--apply",
        "--wait",
        "60",
        "--rate",
        "300",
    )
    return subprocess.Popen(
        [Path(sys.executable).with_name("streamflow"), *command],
        cwd=rig.folder.path,
        env=rig.folder.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _add_partition(rig: Rig, _chance: random.Random, _sender: Sender) -> None:
    wanted = len(rig.ends()) + 1
    rig.admin.create_partitions([NewPartitions(TOPIC, wanted)])[TOPIC].result(30)
    pause(6)  # the sender asks every five seconds


def _remove_records(rig: Rig, _chance: random.Random, _sender: Sender) -> None:
    """Retention is faster than the loader."""
    with _stopped([rig.pid("loader")]):
        pause(5)
        wanted = [TopicPartition(*each, end) for each, end in rig.ends().items()]
        for future in rig.admin.delete_records(wanted).values():
            with contextlib.suppress(KafkaException):
                future.result(30)


FAULTS: Final[dict[str, Fault]] = {
    **{f"SIGKILL {worker}": _kill(worker) for worker in WORKERS},
    **{f"SIGSTOP {worker}": _stop(worker) for worker in WORKERS},
    "SIGKILL broker": _restart("broker"),
    "SIGSTOP broker": _freeze("broker"),
    "disk full, broker": _fill_disk,
    "SIGKILL PostgreSQL": _restart("database"),
    "SIGSTOP PostgreSQL": _freeze("database"),
    **{f"{how}, broker": _break(_to_broker, how) for how in BREAKS},
    **{f"{how}, PostgreSQL": _break(_to_database, how) for how in BREAKS},
    "break in a transaction": _trap(
        _to_broker, ADD_OFFSETS_TO_TXN, TXN_OFFSET_COMMIT, END_TXN, text=b"group"
    ),
    "break in COPY": _trap(_to_database, text=b"COPY "),
    "break in COMMIT": _trap(_to_database, text=b"COMMIT"),
    "backends terminated": _terminate_backends,
    "connections exhausted": _exhaust_connections,
    "tables locked": _lock_tables,
    "column added": _add_column,
    "rebalance storm": _rebalance_storm,
    "producer's clock jumps": _jump,
    "SIGKILL supervisor": _kill_supervisor,
    "replay killed, and two at once": _replay,
}
# At the end, since nothing is as before.
LAST: Final[dict[str, Fault]] = {
    "partition added": _add_partition,
    "records removed": _remove_records,
}
# Of which records are lost: the audit has to say so.
LOSING: Final = frozenset({"records removed"})
