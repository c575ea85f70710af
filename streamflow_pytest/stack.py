"""Streams under test: their topics and tables, and running workers."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from psycopg.rows import dict_row

from streamflow.audit.ledger import run_audit
from streamflow.audit.report import AuditReport
from streamflow.contract import Event
from streamflow.errors import UsageError
from streamflow.kafka import clients
from streamflow.kafka.producing import produce_and_flush
from streamflow.kafka.topics import provision
from streamflow.postgres import schema
from streamflow.postgres.connections import session
from streamflow.postgres.owned_topics import TopicsTable
from streamflow.producer.judge import Judge
from streamflow.records import OutRecord
from streamflow.registry import load_streams, stream_named
from streamflow.settings import Settings, load_settings
from streamflow.stream import Stream
from streamflow_pytest.kafka import Kafka
from streamflow_pytest.waiting import wait_until
from streamflow_stack.process import Child, Launch, own_command

WORKERS: Final = ("validator", "analytics", "loader")
STOP_SECONDS: Final = 11.0
_LOG_CHARACTERS: Final = 2_000


class StackUnderTest:
    """Workers of some streams, which run until the test ends."""

    def __init__(self, settings: Settings, directory: Path, variables: Mapping[str, str]) -> None:
        self.settings = settings
        self.streams = load_streams(settings)
        self.logs = directory
        self._children: list[Child] = []
        self._environment = {
            **variables,
            # Where the test found its streams.
            "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), *sys.path])),
        }

    @contextmanager
    def running(self) -> Iterator["StackUnderTest"]:
        """Inside, the topics and tables are in place and the workers run."""
        try:
            schema.upgrade(self.settings, self.streams)
            provision(self.settings, self.streams, TopicsTable(self.settings))
            for name in WORKERS:
                launch = Launch(
                    own_command("worker", name, "--instance", f"{self.settings.prefix}{name}"),
                    self.logs / f"{name}.log",
                    self._environment,
                )
                self._children.append(Child(name, launch, self.logs / f"{name}.json"))
            yield self
        finally:
            for child in self._children:
                child.ask_to_stop()
            for child in self._children:
                child.stop(STOP_SECONDS)

    def stream(self, name: str | None = None) -> Stream:
        """The stream of that name; without one, the only stream."""
        if name is not None:
            return stream_named(self.streams, name)
        if len(self.streams) > 1:
            names = ", ".join(stream.name for stream in self.streams)
            raise UsageError(f"there are several streams, say which: stream= one of {names}")
        return self.streams[0]

    def produce(
        self, *events: Event | Mapping[str, Any] | bytes, stream: str | None = None
    ) -> None:
        """Sends events to a stream's topic; returns when the broker has them.

        Args:
            events: what `streamflow.Producer` takes; or bytes, which are sent as they are.
            stream: its name, if there are several.

        Raises:
            InvalidEvent: an event that is no bytes breaks the contract.
        """
        to = self.stream(stream)
        judge = Judge(to, self.settings)
        records = [
            OutRecord(to.topic, None, event, [])
            if isinstance(event, bytes)
            else judge.record(event)
            for event in events
        ]
        produce_and_flush(clients.producer(self.settings), records)

    def rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        """What a query returns, a dictionary for each row."""
        with session(self.settings, "test") as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(query.encode(), parameters or None).fetchall()

    def wait_for_rows(
        self, query: str, *parameters: Any, count: int = 1, timeout: float = 60.0
    ) -> list[dict[str, Any]]:
        """What a query returns, once it returns at least `count` rows. Fails after `timeout` seconds, or as
        soon as a worker has ended."""

        def enough() -> list[dict[str, Any]]:
            self._require_alive()
            rows = self.rows(query, *parameters)
            return rows if len(rows) >= count else []

        return wait_until(enough, timeout, f"{count} rows of {query}; logs: {self.logs}")

    def audit(self, *, timeout: float = 60.0) -> AuditReport:
        """Accounts for every record, once the workers have caught up: `closed` if none was lost."""
        return run_audit(self.settings, self.streams, patience=timeout)

    def _require_alive(self) -> None:
        for child in self._children:
            if child.poll() is not None:
                log = child.launch.log.read_text(errors="replace")[-_LOG_CHARACTERS:]
                raise AssertionError(f"the {child.name} {child.last_words()}; its log ends:\n{log}")


def stack_settings(
    kafka: Kafka, database_url: str, directory: Path, streams: str, more: Mapping[str, str]
) -> tuple[Settings, dict[str, str]]:
    """Settings of a stack under test, and the variables that give them to its workers. No streams: those
    that the project's settings name."""
    variables = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "DATABASE_URL": database_url,
        "STREAMFLOW_PREFIX": kafka.prefix,
        "STREAMFLOW_STATE_DIR": str(directory / "state"),
        **({"STREAMFLOW_STREAMS": streams} if streams else {}),
        **more,
    }
    return load_settings(**variables), variables
