"""Dagster as one part of the stack: code server, webserver and daemon under a supervisor of their own.

The part's process is ``streamflow dagster``. It owns the three, so that they start and end in order,
each is started again when it dies, and none outlives it. Their home is ``dagster`` in the state
directory:

dagster.yaml, workspace.yaml   written at each start
run/, logs/, status.json       of the three processes
storage/                       runs and events, where there is no PostgreSQL for them
"""

import json
import os
import re
import shutil
import socket
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from streamflow.errors import StackError, Unavailable, cause_of
from streamflow.postgres.connections import open_connection
from streamflow.settings import Settings
from streamflow_stack.part import READY, Health, Part, Stage
from streamflow_stack.process import Launch, own_command
from streamflow_stack.state import State, state_of, write_atomically

DATABASE: Final = "dagster"
URL_VARIABLE: Final = "STREAMFLOW_DAGSTER_DATABASE_URL"
PACKAGE: Final = "streamflow_dagster"
LOCATION: Final = "streamflow"
LOOPBACK: Final = "127.0.0.1"

PROBE_SECONDS: Final = 2.0
# The daemon says every 30 s that it lives.
HEARTBEAT_SECONDS: Final = 120.0
# Asking for it costs the webserver a query, so not with every probe.
HEARTBEAT_PAUSE_SECONDS: Final = 15.0
STOP_SECONDS: Final = 6.0

_HEALTH_QUERY: Final = (
    "{instance{daemonHealth{allDaemonStatuses{daemonType required lastHeartbeatTime}}}}"
)


@dataclass(frozen=True)
class Home:
    """The folder of a Dagster instance, and how its processes are run.

    Attributes:
        settings: ports and addresses.
        database_url: PostgreSQL for runs and events, with the password; empty for files.
    """

    settings: Settings
    database_url: str = ""

    @property
    def state(self) -> State:
        """The folder, as the supervisor of the three takes it."""
        return State(state_of(self.settings).directory / "dagster")

    @property
    def environment(self) -> Mapping[str, str]:
        """What the processes need to know besides this process's own environment."""
        home = str(self.state.directory)
        found = {
            "DAGSTER_HOME": home,
            "DAGSTER_DISABLE_TELEMETRY": "1",
            # Dagster takes what is first on the path for the folder of a script and leaves it out
            # when it imports code: that must be nothing that somebody needs.
            "PYTHONPATH": os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        return {**found, URL_VARIABLE: self.database_url} if self.database_url else found

    def write(self) -> None:
        """Puts the configuration files in place.

        Raises:
            StackError: the code is not installed, or the folder cannot be written.
        """
        self.state.create()
        spec = find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise StackError(f"{PACKAGE} is not installed: run `make setup`")
        shutil.copyfile(
            Path(spec.origin).with_name("dagster.yaml"), self.state.directory / "dagster.yaml"
        )
        server = {
            "host": LOOPBACK,
            "port": self.settings.port("dagster-code"),
            "location_name": LOCATION,
        }
        # JSON is YAML, too.
        workspace = json.dumps({"load_from": [{"grpc_server": server}]})
        write_atomically(self.state.directory / "workspace.yaml", workspace)

    def parts(self) -> tuple[Part, ...]:
        """The three processes. The other two ask the code server what there is, so it is first."""
        workspace = str(self.state.directory / "workspace.yaml")
        code, web = self.settings.port("dagster-code"), self.settings.port("dagster")
        server = ("api", "grpc", "--host", LOOPBACK, "--port", str(code))
        module = ("--module-name", f"{PACKAGE}.definitions", "--location-name", LOCATION)
        # Else it is the current folder, and what lies there comes before every library.
        folder = ("--working-directory", str(self.state.directory))
        quiet = ("--log-level", "warning")
        return (
            self._part("code", Stage.SERVICES, _listening(LOOPBACK, code))(
                "dagster", *server, *module, *folder, *quiet
            ),
            self._part("webserver", Stage.WORKERS, _listening(self.settings.host, web))(
                f"{PACKAGE}.webserver",
                *("--host", self.settings.host, "--port", str(web), "-w", workspace),
                *("--dagster-log-level", "warning"),
            ),
            self._part("daemon", Stage.WORKERS, lambda: READY)(
                "dagster._daemon", "run", "-w", workspace, *quiet
            ),
        )

    def _part(self, name: str, stage: Stage, probe: Any) -> Any:
        def of(module: str, *arguments: str) -> Part:
            launch = Launch(
                command=own_command(*arguments, module=module),
                log=self.state.logs / f"{name}.log",
                environment=self.environment,
            )
            return Part(name, stage, lambda: launch, probe, stop_seconds=STOP_SECONDS)

        return of


def _listening(host: str, port: int) -> Any:
    def probe() -> Health:
        try:
            with socket.create_connection((host, port), PROBE_SECONDS):
                return READY
        except OSError as error:
            return Health(answered=False, ready=False, detail=f"does not answer: {cause_of(error)}")

    return probe


class InstanceProbe:
    """Whether the webserver answers and the daemon has lately said that it lives.

    Args:
        url: of the webserver.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._launched = 0.0
        self._known_until = 0.0

    def launched(self) -> None:
        """Notes a start: what the daemon said before it does not count."""
        self._launched = time.time()
        self._known_until = 0.0

    def __call__(self) -> Health:
        """Asks."""
        try:
            with urllib.request.urlopen(  # noqa: S310 (our own address)
                f"{self._url}/server_info", timeout=PROBE_SECONDS
            ):
                pass
            if time.monotonic() < self._known_until:
                return READY
            silent = self._silent()
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            return Health(answered=False, ready=False, detail=f"does not answer: {error}")
        if silent:
            return Health(answered=True, ready=False, detail=f"no heartbeat of {silent}")
        self._known_until = time.monotonic() + HEARTBEAT_PAUSE_SECONDS
        return READY

    def _silent(self) -> str:
        """The daemons that have not been heard of."""
        request = urllib.request.Request(  # noqa: S310 (our own address)
            f"{self._url}/graphql",
            data=json.dumps({"query": _HEALTH_QUERY}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS) as answer:  # noqa: S310
            found = json.load(answer)["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
        since = max(self._launched, time.time() - HEARTBEAT_SECONDS)
        return ", ".join(
            str(each["daemonType"]).lower()
            for each in found
            if each["required"] and (each["lastHeartbeatTime"] or 0.0) < since
        )


def home_of(settings: Settings) -> Home:
    """The instance of these settings, its place in PostgreSQL prepared.

    ``STREAMFLOW_DAGSTER_DATABASE_URL`` says where; else it is a schema of its own in the database of
    ``DATABASE_URL``; without either, files.

    Raises:
        Unavailable: the database does not answer, or refuses a schema.
    """
    if settings.dagster_database_url is not None:
        return Home(settings, settings.dagster_database_url.get_secret_value())
    if settings.database_url is None or not settings.database_url.get_secret_value():
        return Home(settings)
    schema = re.sub(r"[^a-z0-9_]", "_", f"{settings.prefix}{DATABASE}".lower())
    return Home(settings, with_schema(settings.database, schema))


def with_schema(url: str, schema: str) -> str:
    """The URL of a schema in a database, which is made if it does not exist.

    Raises:
        Unavailable: the database does not answer, or refuses.
        ConfigurationError: the URL is none, or the database is not encoded in UTF-8.
    """
    try:
        with open_connection(url, 10, "dagster") as connection:
            connection.execute(
                sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema))
            )
    except psycopg.Error as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise Unavailable(
            f"Dagster's schema {schema} cannot be made ({reason}): allow it, or set "
            f"{URL_VARIABLE} to a database of its own"
        ) from error
    parts = urlsplit(url)
    query = [(name, value) for name, value in parse_qsl(parts.query) if name != "options"]
    query.append(("options", f"-csearch_path={schema}"))
    return urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))
