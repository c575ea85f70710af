"""Ingest workers as processes, and requests to them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests

import order_streams
from faults import free_ports, wait_until
from pipeline import WorkerProcess
from streamflow import CloudEvents, Hashed, Stream
from streamflow.settings import Settings
from streamflow.streams.user_events import UserEvent

URL = "/v1/streams/user-events"


class CloudLogin(UserEvent):
    """A login with an attribute of its CloudEvent, which is private."""

    subject: Hashed


CLOUDS = Stream(
    name="clouds",
    contract=CloudLogin,
    table="clouds",
    key="user",
    private_fields=("user_email",),
    decode=CloudEvents({"subject": "subject"}),
)
TICKETS = replace(order_streams.TICKETS, decode=CloudEvents())


class IngestProcess(WorkerProcess):
    """One ingest worker as `streamflow worker ingest` runs it."""

    def __init__(
        self, settings: Settings, log: Path, instance: str, port: int, **changes: str
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        arguments = ("--instance", instance)
        super().__init__(
            settings, "ingest", log, *arguments, STREAMFLOW_INGEST_PORT=str(port), **changes
        )

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return requests.get(f"{self.url}/ready", timeout=10).ok
            except requests.ConnectionError:
                return False

        wait_until(ready, 60, "the ingest worker to be ready")

    def post(
        self, body: Any = None, *, key: str | None = None, path: str = URL, **options: Any
    ) -> requests.Response:
        """Sends a body as JSON, or what the options say."""
        headers = options.pop("headers", {}) | ({} if key is None else {"Idempotency-Key": key})
        if body is not None:
            options["json"] = body
        return requests.post(
            f"{self.url}{path}", headers=headers, timeout=options.pop("timeout", 60), **options
        )


@contextmanager
def ingest_workers(
    settings: Settings, directory: Path, names: Sequence[str] = ("one",), **changes: str
) -> Iterator[list[IngestProcess]]:
    """Inside, workers of these instances are ready."""
    running = [
        IngestProcess(settings, directory / f"ingest-{name}.log", name, port, **changes)
        for name, port in zip(names, free_ports(len(names)), strict=True)
    ]
    try:
        for worker in running:
            worker.wait_ready()
        yield running
    finally:
        for worker in running:
            if worker.process.poll() is None:
                worker.kill()
