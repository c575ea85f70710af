"""What can go wrong, as functions that do it to a running pipeline. Each returns when it is over; what
follows from it is not its business.

Broker and database stand behind proxies that the workers know instead of them; the workers run under
`streamflow up`.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import psutil
import psycopg
from oracle import Sender
from rig import TOPIC, WORKERS, Rig

from faults import ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT, Proxy, wait_until
from services import Service
from streamflow.kafka import clients

BREAKS: Final = ("cut", "reset", "half_close", "stall", "black_hole", "delay")
TABLES: Final = "events, notifications, window_counts, dead_letters"
SKEWS: Final = (-400 * 86_400.0, -3_600.0, 3_600.0, 400 * 86_400.0)  # seconds
CC: Final = shutil.which("cc") or ""
JOINED: Final = '"event": "assigned"'
TRAP_SECONDS: Final = 10.0

pause = threading.Event().wait


Fault = Callable[[Rig, random.Random, Sender], None]


def _kill(worker: str) -> Fault:
    def fault(rig: Rig, _chance: random.Random, _sender: Sender) -> None:
        os.kill(rig.pid(worker), signal.SIGKILL)

    return fault


def _stop(worker: str) -> Fault:
    def fault(rig: Rig, chance: random.Random, _sender: Sender) -> None:
        with stopped([rig.pid(worker)]):
            pause(chance.uniform(2, 20))

    return fault


@contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
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
        with stopped(_tree(getattr(rig, name))):
            pause(chance.uniform(1, 10))

    return fault


def _fill_disk(name: str) -> Fault:
    """No file grows, as on a full disk: a server may only write what fits into the limit of a file's size."""

    def fault(rig: Rig, chance: random.Random, _sender: Sender) -> None:
        service: Service = getattr(rig, name)
        for pid in _tree(service):
            with contextlib.suppress(psutil.NoSuchProcess):
                _limit_files(psutil.Process(pid))
        pause(chance.uniform(3, 8))
        # Both give up rather than go on; a server that has not is no exception.
        service.restart()

    return fault


def _limit_files(process: psutil.Process) -> None:
    # PostgreSQL's belong to a user of their own where root runs it, and only its own may do that. It can
    # run the system's commands, and not always the Python of these tests.
    user, group = process.uids().real, process.gids().real
    other = {} if user == os.getuid() else {"user": user, "group": group, "extra_groups": []}
    done = subprocess.run(
        [shutil.which("prlimit") or "prlimit", "--pid", str(process.pid), "--fsize=1:"],
        cwd="/",
        check=False,
        **other,
    )
    if process.is_running():  # backends come and go
        done.check_returncode()


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


def _jump_workers(rig: Rig, chance: random.Random, _sender: Sender) -> None:
    """One more member of each group, whose clock on the wall jumps."""
    clock, library = rig.folder.path / "clock", rig.folder.path / "clock.so"
    clock.write_bytes(bytes(8))
    subprocess.run(
        [CC, "-shared", "-fPIC", "-o", library, Path(__file__).with_name("clock.c"), "-ldl"],
        check=True,
    )
    environment = rig.folder.environment | {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(clock)}
    log = rig.folder.path / "jumping.log"
    members = [
        _start(rig, "worker", name, "--instance", "jumping", log=log, environment=environment)
        for name in WORKERS
    ]
    try:
        before = log.read_text().count(JOINED)
        wait_until(lambda: log.read_text().count(JOINED) >= before + len(members), 90, "members")
        for skew in chance.sample(SKEWS, len(SKEWS)):
            with clock.open("r+b") as file:
                file.write(int(skew).to_bytes(8, sys.byteorder, signed=True))
            pause(2)
        assert [member.poll() for member in members] == [None] * len(members), "a member has ended"
    finally:
        for member in members:
            member.terminate()
        for member in members:
            with contextlib.suppress(subprocess.TimeoutExpired):
                member.wait(30)
            member.kill()


def _jump(rig: Rig, chance: random.Random, sender: Sender) -> None:
    del rig
    sender.skew = chance.choice(SKEWS)
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
    options = ("--repair", "coerce_numbers", "--apply", "--wait", "60", "--rate", "300")
    return _start(rig, "dlq", "replay", *options)


def _start(
    rig: Rig,
    *command: str,
    log: Path | str = os.devnull,
    environment: Mapping[str, str] | None = None,
) -> "subprocess.Popen[bytes]":
    with Path(log).open("ab") as output:
        return subprocess.Popen(
            [Path(sys.executable).with_name("streamflow"), *command],
            cwd=rig.folder.path,
            env=environment or rig.folder.environment,
            stdout=output,
            stderr=output,
        )


FAULTS: Final[dict[str, Fault]] = {
    **{f"SIGKILL {worker}": _kill(worker) for worker in WORKERS},
    **{f"SIGSTOP {worker}": _stop(worker) for worker in WORKERS},
    "SIGKILL broker": _restart("broker"),
    "SIGSTOP broker": _freeze("broker"),
    "disk full, broker": _fill_disk("broker"),
    "SIGKILL PostgreSQL": _restart("database"),
    "SIGSTOP PostgreSQL": _freeze("database"),
    "disk full, PostgreSQL": _fill_disk("database"),
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
    "workers' clocks jump": _jump_workers,
    "SIGKILL supervisor": _kill_supervisor,
    "replay killed, and two at once": _replay,
}
# What this machine cannot do, and why.
SKIPPED: Final = {} if CC else {"workers' clocks jump": "there is no C compiler, cc"}
