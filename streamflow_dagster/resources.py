"""The resource of assets, checks and sensors: settings, streams, connections."""

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

from confluent_kafka.admin import AdminClient

from streamflow.audit.ledger import run_audit
from streamflow.audit.report import AuditReport
from streamflow.errors import Unavailable
from streamflow.kafka.clients import admin
from streamflow.lag.measure import LagReader
from streamflow.postgres.connections import Connection, session
from streamflow.registry import Streams, load_streams
from streamflow.settings import Settings
from streamflow.settings.orchestration import OrchestrationSettings, load_orchestration_settings

_CONNECT_SECONDS = 0.5
# The bridge joins no group, and writes no asset.
_WORKERS = ("validator", "analytics", "loader")


class Platform:
    """Settings, streams and connections. Settings are read each time: the stack may start, stop or move
    while the code stays loaded."""

    def __init__(
        self, load: Callable[[], OrchestrationSettings] = load_orchestration_settings
    ) -> None:
        self.settings = load
        self._admin: tuple[str, AdminClient] | None = None
        self._lag: tuple[str, LagReader] | None = None
        self._streams: tuple[tuple[str, tuple[str, ...]], Streams] | None = None

    def streams(self, settings: Settings) -> Streams:
        """As they were when the code was loaded: the assets are theirs, also after a failed one is mended."""
        configured = (settings.prefix, settings.streams)
        if self._streams is None or self._streams[0] != configured:
            self._streams = (configured, load_streams(settings))
        return self._streams[1]

    def audit(self, settings: OrchestrationSettings) -> AuditReport:
        patience, most = settings.audit_patience, settings.audit_records
        return run_audit(settings, self.streams(settings), patience=patience, most=most)

    def admin(self, settings: OrchestrationSettings) -> AdminClient:
        """An admin client, kept while the broker is the same: each client has threads of its own."""
        if self._admin is None or self._admin[0] != settings.bootstrap:
            self._admin = (settings.bootstrap, admin(settings))
        return self._admin[1]

    def lag(self, settings: OrchestrationSettings) -> LagReader:
        """Kept while the broker is the same."""
        if self._lag is None or self._lag[0] != settings.bootstrap:
            if self._lag is not None:
                self._lag[1].close()
            reader = LagReader(settings, self.streams(settings), _WORKERS)
            self._lag = (settings.bootstrap, reader)
        return self._lag[1]

    def database(
        self, settings: OrchestrationSettings, *, statement_seconds: int = 300
    ) -> AbstractContextManager[Connection]:
        """Raises Unavailable if the database does not answer."""
        return session(settings, "dagster", statement_timeout=statement_seconds)

    def require_reachable(self, settings: OrchestrationSettings) -> None:
        """Raises Unavailable within a second if broker or database does not listen, where clients would
        wait for a long time; ConfigurationError if no database is configured."""
        brokers = [
            _host_and_port(f"//{address}", 9092) for address in settings.bootstrap.split(",")
        ]
        if not any(_listens(*broker) for broker in brokers):
            raise Unavailable(f"Kafka at {settings.bootstrap} does not answer: is the stack up?")
        host, port = _host_and_port(settings.database, 5432)
        # A socket directory instead of a host is left to the client library.
        if host and not _listens(host, port):
            raise Unavailable(f"the database at {host}:{port} does not answer: is the stack up?")


def _host_and_port(url: str, default: int) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or default


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), _CONNECT_SECONDS):
            return True
    except OSError:
        return False
