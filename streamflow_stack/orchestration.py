"""Dagster's code server, webserver and daemon as parts of a stack.

Their ``DAGSTER_HOME`` is ``dagster`` in the state directory:

dagster.yaml, workspace.yaml   written at each start
storage/                       output of runs; where there is no PostgreSQL, runs and events too
"""

import json
import os
import re
import socket
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from streamflow import extras
from streamflow.errors import Unavailable
from streamflow.http import request
from streamflow.postgres.connections import open_connection
from streamflow.settings import Settings
from streamflow_stack.part import (
    LOOPBACK,
    PROBE_SECONDS,
    READY,
    Health,
    Part,
    StackReport,
    Stage,
    prepare_nothing,
)
from streamflow_stack.part_names import DAGSTER, DAGSTER_CODE, DAGSTER_DAEMON, DAGSTER_WEBSERVER
from streamflow_stack.probes import failure_of, probe_http
from streamflow_stack.process import Launch, own_command
from streamflow_stack.state import state_of, write_atomically

DATABASE: Final = "dagster"
URL_VARIABLE: Final = "STREAMFLOW_DAGSTER_DATABASE_URL"
PACKAGE: Final = "streamflow_dagster"
LOCATION: Final = "streamflow"

# The daemon writes a heartbeat every 30 s.
HEARTBEAT_SECONDS: Final = 120.0
# Reading it costs the webserver a query, so not with every probe.
HEARTBEAT_PAUSE_SECONDS: Final = 15.0
STOP_SECONDS: Final = 6.0

_HEALTH_QUERY: Final = (
    "{instance{daemonHealth{allDaemonStatuses{daemonType required lastHeartbeatTime}}}}"
)


@dataclass(frozen=True)
class Home:
    """The ``DAGSTER_HOME`` of a stack."""

    settings: Settings
    # Prepares PostgreSQL for runs and events and returns its URL; empty for SQLite files.
    database: Callable[[], str]

    @property
    def directory(self) -> Path:
        return state_of(self.settings).directory / "dagster"

    def write(self) -> dict[str, str]:
        """Writes the configuration; returns the environment of the processes.

        Raises:
            ExtraMissing: Dagster is not installed.
            Unavailable: PostgreSQL does not answer, or refuses.
        """
        extras.require(DAGSTER, "Dagster")
        import yaml  # noqa: PLC0415 (of that extra)

        url, directory = self.database(), self.directory
        directory.mkdir(parents=True, exist_ok=True)
        config = yaml.safe_load(files(PACKAGE).joinpath("dagster.yaml").read_text())
        config["defs_state_storage"]["config"]["base_path"] = str(directory / "defs_state")
        config["storage"] = (
            {
                "custom": {
                    "module": f"{PACKAGE}.storage",
                    "class": "KeptPostgresStorage",
                    # Not the URL itself: it holds a password.
                    "config": {"postgres_url": {"env": URL_VARIABLE}},
                }
            }
            if url
            else {"sqlite": {"base_dir": str(directory / "storage")}}
        )
        # Dagster's own retention is that of ticks; those that did nothing stay for a day.
        days = self.settings.dagster_retention_days
        ticks = {"purge_after_days": {"skipped": 1, "success": days, "failure": days}}
        config["retention"] = {"sensor": ticks, "schedule": ticks}
        server = {
            "host": LOOPBACK,
            "port": self.settings.port("dagster-code"),
            "location_name": LOCATION,
        }
        workspace = {"load_from": [{"grpc_server": server}]}
        for name, content in (("dagster", config), ("workspace", workspace)):
            # JSON is YAML, too.
            write_atomically(directory / f"{name}.yaml", json.dumps(content, indent=2))
        return {
            "DAGSTER_HOME": str(directory),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            # Dagster's own connections: UTF-8 there, too, whatever the user's locale is.
            "PGCLIENTENCODING": "UTF8",
            # glibc gives threads up to 8 heaps for each processor, and what is free in one is of no use to
            # another: 11 MB of the daemon's memory after 200 ticks, with two heaps 4 MB.
            "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2"),
            # Dagster takes the first entry for the folder of a script and skips it when it imports
            # code: that must be a folder without modules.
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(directory), os.environ.get("PYTHONPATH")])
            ),
            **({URL_VARIABLE: url} if url else {}),
        }


def dagster_parts(
    home: Home, logs: Path, environment: Mapping[str, str] | None = None
) -> tuple[Part, ...]:
    """Code server, then webserver and daemon, which read definitions from it."""
    settings, workspace = home.settings, str(home.directory / "workspace.yaml")
    code, web = settings.port("dagster-code"), settings.port("dagster")
    url = dagster_url(settings)
    heartbeat = HeartbeatProbe(url)
    written: dict[str, str] = {}

    def prepare(_report: StackReport) -> None:
        written.update(home.write())

    def part(name: str, probe: Callable[[], Health], *command: str, **options: Any) -> Part:
        def launch() -> Launch:
            if name == DAGSTER_DAEMON:
                heartbeat.launched()
            return Launch(command, logs / f"{name}.log", {**(environment or {}), **written})

        options |= {
            "stop_seconds": STOP_SECONDS,
            "after": None if name == DAGSTER_CODE else DAGSTER_CODE,
        }
        return Part(name, Stage.WORKERS, launch, probe, **options)

    serve = ("api", "grpc", "--host", LOOPBACK, "--port", str(code))
    module = ("--module-name", f"{PACKAGE}.definitions", "--location-name", LOCATION)
    # Else the current folder, whose modules would take the place of libraries.
    folder = ("--working-directory", str(home.directory))
    return (
        part(
            DAGSTER_CODE,
            partial(probe_port, LOOPBACK, code),
            *own_command(
                *(*serve, *module, *folder, "--log-level", "warning"),
                module=f"{PACKAGE}.code_server",
            ),
            ports=(code,),
            address=f"{LOOPBACK}:{code} (gRPC)",
            prepare=prepare,
        ),
        part(
            DAGSTER_WEBSERVER,
            partial(probe_http, f"{url}/server_info"),
            *own_command(
                *("--host", settings.host, "--port", str(web), "-w", workspace),
                *("--dagster-log-level", "warning"),
                module=f"{PACKAGE}.webserver",
            ),
            ports=(web,),
            address=url,
            prepare=prepare_nothing,
        ),
        part(
            DAGSTER_DAEMON,
            heartbeat,
            *(sys.executable, "-P", str(Path(sysconfig.get_path("scripts")) / "dagster-daemon")),
            *("run", "-w", workspace, "--log-level", "warning"),
        ),
    )


def dagster_url(settings: Settings) -> str:
    return f"http://{settings.host}:{settings.port('dagster')}"


def probe_port(host: str, port: int) -> Health:
    try:
        with socket.create_connection((host, port), PROBE_SECONDS):
            return READY
    except OSError as error:
        return failure_of(error)


class HeartbeatProbe:
    """Asks the webserver at `url` whether the daemon has written its heartbeats lately."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._launched = 0.0
        self._known_until = 0.0

    def launched(self) -> None:
        """Notes a start: heartbeats from before it do not count."""
        self._launched = time.time()
        self._known_until = 0.0

    def __call__(self) -> Health:
        if time.monotonic() < self._known_until:
            return READY
        try:
            silent = self._silent()
        except (Unavailable, ValueError, KeyError, TypeError) as error:
            return failure_of(error)
        if silent:
            return Health(answered=True, ready=False, detail=f"no heartbeat of {silent}")
        self._known_until = time.monotonic() + HEARTBEAT_PAUSE_SECONDS
        return READY

    def _silent(self) -> str:
        query = {"query": _HEALTH_QUERY}
        url = f"{self._url}/graphql"
        answer = request("POST", url, timeout=PROBE_SECONDS, json=query)
        if not answer.ok:
            raise Unavailable(f"status {answer.status_code}")
        daemons = answer.json()["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
        since = max(self._launched, time.time() - HEARTBEAT_SECONDS)
        return ", ".join(
            str(daemon["daemonType"]).lower()
            for daemon in daemons
            if daemon["required"] and (daemon["lastHeartbeatTime"] or 0.0) < since
        )


def database_url(settings: Settings) -> str:
    """Where Dagster keeps its tables in a PostgreSQL that is not ours; empty where there is none:
    ``STREAMFLOW_DAGSTER_DATABASE_URL``, else a schema of its own in the database of ``DATABASE_URL``.

    Raises:
        Unavailable: the database does not answer, or refuses a schema.
    """
    if settings.dagster_database_url is not None:
        return settings.dagster_database_url.get_secret_value()
    if settings.database_url is None or not settings.database_url.get_secret_value():
        return ""
    schema = re.sub(r"[^a-z0-9_]", "_", f"{settings.prefix}{DATABASE}".lower())
    return with_schema(settings.database, schema)


def with_schema(url: str, schema: str) -> str:
    """The URL of a schema in a database; the schema is created if it does not exist.

    Raises:
        Unavailable: the database does not answer, or refuses.
        ConfigurationError: the URL is invalid, or the database is not encoded in UTF-8.
    """
    try:
        with open_connection(url, 10, "dagster") as connection:
            statement = sql.SQL("CREATE SCHEMA IF NOT EXISTS {}")
            connection.execute(statement.format(sql.Identifier(schema)))
    except psycopg.Error as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise Unavailable(
            f"Dagster's schema {schema} cannot be created ({reason}): allow it, or set "
            f"{URL_VARIABLE} to a database of its own"
        ) from error
    parts = urlsplit(url)
    query = [(name, value) for name, value in parse_qsl(parts.query) if name != "options"]
    query.append(("options", f"-csearch_path={schema}"))
    return urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))
