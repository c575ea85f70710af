"""The compose file's services as plain processes: their very commands and environment."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from faults import free_ports
from services import BrokerService, DatabaseService

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
OWN_IMAGE = "streamflow:"


def interpolated(text: str, values: Mapping[str, str]) -> str:
    """The text as compose reads it."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        found = values.get(name) or (rest if operator == "-" else "")
        assert found or operator != "?", f"{name}: {rest}"
        return found

    return VARIABLE.sub(value, text)


def services(values: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Every service of the compose file, with these values in it."""
    found = yaml.safe_load(interpolated(COMPOSE.read_text(), values))
    return dict(found["services"])


class Plain:
    """One service outside its container.

    The container has a network of its own; here names become addresses of the tests' broker and
    database, and ports become free ones.
    """

    def __init__(
        self,
        name: str,
        service: Mapping[str, Any],
        places: Mapping[str, str],
        extra: Mapping[str, str],
        log: Path,
    ) -> None:
        self.name, self.log = name, log
        self._places = dict(places)
        self._health = list(service.get("healthcheck", {}).get("test", ["CMD"]))[1:]
        self.command = [self._here(part) for part in service["command"]]
        # A name without a value is passed on from the host by compose, where it is set.
        own = {
            key: self._here(str(value))
            for key, value in service["environment"].items()
            if value is not None
        }
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **own,
            **extra,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.environment, stdout=output, stderr=output
            )

    def run(self, *command: str, timeout: float = 180) -> "subprocess.CompletedProcess[str]":
        """Runs a command where the service runs, as `docker compose exec` does."""
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def is_healthy(self) -> bool:
        """What its health check says. A service that has ended fails the test."""
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} ended: {self.log.read_text()[-2000:]}"
        return self.run(*(self._here(part) for part in self._health)).returncode == 0

    def stop(self, seconds: float) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def _here(self, text: str) -> str:
        for there, here in self._places.items():
            text = text.replace(there, here)
        return text


def places(
    broker: BrokerService, database_server: DatabaseService, database: str, dagster: int
) -> dict[str, str]:
    """What the names of the compose network are here; Dagster has the given port. The other ports are
    taken anew at each call."""
    health, dashboard = free_ports(2)
    return {
        "dagster:3000": f"127.0.0.1:{dagster}",
        "kafka:29092": broker.bootstrap,
        "@postgres:5432/streamflow": f"@127.0.0.1:{database_server.port}/{database}",
        "@postgres:5432/dagster": f"@127.0.0.1:{database_server.port}/{database}_dagster",
        "0.0.0.0": "127.0.0.1",  # noqa: S104 (what is replaced)
        "9100": str(health),
        "3000": str(dagster),
        "8501": str(dashboard),
    }


def password(database_server: DatabaseService) -> str:
    return urlsplit(database_server.url).password or ""
