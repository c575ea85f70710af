"""The embedded broker and database as things that a test can start, kill and ask."""

import re
from pathlib import Path

import psycopg
from psycopg import sql

from faults import Proxy, free_ports, wait_until
from streamflow_stack.broker import Broker, Node
from streamflow_stack.database import SUPERUSER, Database
from streamflow_stack.part import Health
from streamflow_stack.process import Child

START_SECONDS = 90.0


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
        self.server = server
        self.report = Quiet()
        self._pid_file = directory / "run" / "service.json"
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None, "it does not run"
        return self._child.pid

    def start(self) -> None:
        self.begin()
        self.wait_until_ready()

    def begin(self) -> None:
        """Starts it without waiting."""
        if self._child is not None:
            self._child.kill()  # Reaps one that was killed by its pid.
        self.server.prepare(self.report)
        self._child = Child("service", self.server.launch(), self._pid_file)

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self._child is not None
            assert self._child.poll() is None, f"it {self._child.last_words()}"
            return self.server.probe().ready

        wait_until(ready, START_SECONDS, "the service to be ready")

    def probe(self) -> Health:
        return self.server.probe()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop(20)
            self._child = None

    def kill(self) -> None:
        """SIGKILL."""
        assert self._child is not None
        self._child.kill()
        self._child = None

    def restart(self) -> None:
        self.kill()
        self.start()


class BrokerService(Service):
    def __init__(self, directory: Path) -> None:
        port, controller = free_ports(2)
        self.broker = Broker(
            Node(1, port, controller, directory / "kafka"), directory / "kafka.log"
        )
        super().__init__(self.broker, directory)
        self.port = port

    @property
    def bootstrap(self) -> str:
        return self.broker.address


class _BrokerBehindProxy(Broker):
    """Has one more listener, whose clients are sent to the port of a proxy."""

    def __init__(self, node: Node, log: Path, listener: int, proxy: int) -> None:
        super().__init__(node, log)
        self._listener = listener
        self._proxy = proxy

    def _configuration(self) -> str:
        text = super()._configuration()
        for name, port in (("listeners", self._listener), ("advertised.listeners", self._proxy)):
            text = re.sub(rf"(?m)^{name}=.*", rf"\g<0>,PROXIED://127.0.0.1:{port}", text)
        return re.sub(r"(?m)^listener.security.protocol.map=.*", r"\g<0>,PROXIED:PLAINTEXT", text)


class ProxiedBrokerService(Service):
    """A broker with a proxy before one of its listeners. Its own requests to itself, such as the
    markers that end transactions, go past the proxy."""

    def __init__(self, directory: Path) -> None:
        port, controller, listener = free_ports(3)
        self.proxy = Proxy(listener)
        broker = _BrokerBehindProxy(
            Node(1, port, controller, directory / "kafka"),
            directory / "kafka.log",
            listener,
            self.proxy.port,
        )
        super().__init__(broker, directory)
        self.direct = broker.address
        self.proxied = f"127.0.0.1:{self.proxy.port}"


class DatabaseService(Service):
    def __init__(self, directory: Path) -> None:
        [port] = free_ports(1)
        self.database = Database(directory / "postgres", port, directory / "postgres.log")
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
