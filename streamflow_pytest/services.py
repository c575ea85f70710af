"""The embedded broker and database, set up for the few minutes that tests take."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Final

import psutil
import psycopg
from psycopg import sql

from streamflow_pytest.waiting import wait_until
from streamflow_stack.account import Account
from streamflow_stack.broker import Broker, Node
from streamflow_stack.database import SUPERUSER, Database
from streamflow_stack.part import Health
from streamflow_stack.preflight import free_ports
from streamflow_stack.process import Child, Launch

START_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 20.0


class Quiet:
    """A report that nobody reads."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, what: str, done: int, total: int) -> None:
        pass


class Service:
    """A broker or a database that runs. Start it from the main thread: it ends with its thread."""

    def __init__(self, server: Broker | Database, directory: Path) -> None:
        self.report = Quiet()
        self.server = server
        self._pid_file = directory / "run" / "service.json"
        self._child: Child | None = None

    @property
    def _running(self) -> Child:
        if self._child is None:
            raise AssertionError("it does not run")
        return self._child

    @property
    def pid(self) -> int:
        return self._running.pid

    def start(self) -> None:
        self.begin()
        self.wait_until_ready()

    def begin(self) -> None:
        """Starts it without waiting."""
        if self._child is not None:
            self._child.kill()  # reaps one that was killed by its pid
        self.server.prepare(self.report)
        self._child = Child("service", self.server.launch(), self._pid_file)

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            if self._running.poll() is not None:
                raise AssertionError(f"it {self._running.last_words()}")
            return self.server.probe().ready

        wait_until(ready, START_SECONDS, "the server to be ready")

    def probe(self) -> Health:
        return self.server.probe()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop(_STOP_SECONDS)
            self._child = None

    def kill(self) -> None:
        """SIGKILL; for a database its backends too: one that is busy outlives the postmaster, which then
        cannot be started again."""
        backends = self._running.descendants()
        self._running.kill()
        for backend in backends:
            with contextlib.suppress(psutil.NoSuchProcess):
                backend.kill()
        psutil.wait_procs(backends, timeout=_STOP_SECONDS)
        self._child = None

    def restart(self) -> None:
        self.kill()
        self.start()


class ShortLivedBroker(Broker):
    """Without the JVM's second compiler: for the minutes that a broker of tests lives, it costs more
    time of the processor than it saves (of a start and a little work 8.6 s, without it 5.2 s)."""

    def _java(self, class_path: str) -> tuple[str, ...]:
        java, *options = super()._java(class_path)
        return (java, "-XX:TieredStopAtLevel=1", *options)


class BrokerService(Service):
    def __init__(self, directory: Path) -> None:
        port, controller = free_ports(2)
        self.broker = ShortLivedBroker(
            Node(1, port, controller, directory / "kafka"), directory / "kafka.log"
        )
        super().__init__(self.broker, directory)
        self.port = port

    @property
    def bootstrap(self) -> str:
        return self.broker.address


class _DatabaseWithoutFlushes(Database):
    """Leaves it to the system when its writes reach the disk. They survive SIGKILL as they do with flushes:
    only a crash of the machine takes them, which no test makes. Dropping a database, which flushes
    everything, takes a tenth of the time."""

    def launch(self) -> Launch:
        launch = super().launch()
        return replace(launch, command=(*launch.command, "--fsync=off"))

    def _run(self, account: Account | None, name: str, *arguments: str, commands: str = "") -> None:
        more = ("--no-sync",) if name == "initdb" else ("-c", "fsync=off")
        # Before the last one: in single-user mode that is the name of the database.
        super()._run(account, name, *arguments[:-1], *more, arguments[-1], commands=commands)


class DatabaseService(Service):
    """With `flushes`, just as `streamflow up` runs it."""

    def __init__(self, directory: Path, *, flushes: bool = False) -> None:
        [port] = free_ports(1)
        kind = Database if flushes else _DatabaseWithoutFlushes
        self.database = kind(directory / "postgres", port, directory / "postgres.log")
        super().__init__(self.database, directory)
        self.port = port

    @property
    def url(self) -> str:
        return self.database.url()

    def create_database(self, name: str, template: str | None = None) -> str:
        """A new database; returns its URL."""
        return self.database.ensure_database(name, template)

    def drop_database(self, name: str) -> None:
        administrator = self.database.url("postgres", SUPERUSER)
        with psycopg.connect(administrator, autocommit=True) as connection:
            statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(statement.format(sql.Identifier(name)))
