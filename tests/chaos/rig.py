"""A broker and a database behind proxies, and the workers that run on them."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg

from faults import Proxy, wait_until
from folders import Folder, free_offset
from services import DatabaseService, ProxiedBrokerService
from streamflow.errors import Unavailable
from streamflow.kafka import clients, offsets
from streamflow.settings import Settings
from streamflow_stack.database import SUPERUSER

WORKERS: Final = ("validator", "analytics", "loader")
LEFT_OUT: Final = ("producer", "bridge", "dagster", "dashboard")
TOPIC: Final = "user-events"


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
        found_out = found["problems"] or found["pending"]
        kinds = ", ".join(sorted({each["kind"] for each in found_out}))
        return f"{found['verdict']}: {kinds}; {[each['message'] for each in found_out[:2]]}"

    def connect(self) -> "psycopg.Connection[Any]":
        url = self.database.database.url(role=SUPERUSER)
        return psycopg.connect(url, autocommit=True)
