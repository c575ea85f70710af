"""Folders in which a user works, each with a stack of its own."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from faults import free_ports
from streamflow.settings import DEFAULT_PORTS


class Folder:
    """A folder in which a user works, with a stack of its own."""

    def __init__(self, path: Path, port_offset: int) -> None:
        self.path = path
        self.program = Path(sys.executable).with_name("streamflow")
        self.port_offset = port_offset
        self.state = path / ".streamflow"
        self.variables: dict[str, str] = {}
        path.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        own = {"STREAMFLOW_PORT_OFFSET": str(self.port_offset), "COLUMNS": "160"}
        return {**os.environ, **own, **self.variables}

    def run(self, *arguments: str, timeout: float = 150) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.program, *arguments],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def up(self, *arguments: str, timeout: float = 150) -> str:
        done = self.run("up", "--detach", *arguments, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def part(self, name: str) -> dict[str, Any]:
        snapshot = json.loads((self.state / "status.json").read_text())
        return next(part for part in snapshot["parts"] if part["name"] == name)

    def supervisor(self) -> int:
        return int((self.state / "lock").read_text())

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.supervisor()).children(recursive=True)


def free_offset() -> int:
    """An offset at which every default port is free, and below the ports that the system gives to
    outgoing connections: one of those could take it before we do."""
    while True:
        offset = free_ports(1)[0] % 13_000 + 10_000
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for port in DEFAULT_PORTS.values():
                probe = held.enter_context(socket.socket())
                probe.bind(("127.0.0.1", port + offset))
            return offset
