"""The ingest worker as a process: the event loop with its web server, and the thread that stores."""

import asyncio
import contextlib
import secrets
import socket
from functools import partial

import structlog
import uvicorn
import uvloop

from streamflow.calls import CALLS
from streamflow.errors import ConfigurationError
from streamflow.kafka import clients
from streamflow.monitoring import CachedProbe, HealthServer, configure_logging
from streamflow.origins import Hosts, OriginGuard
from streamflow.registry import Streams, load_streams, log_failed
from streamflow.settings import IngestSettings
from streamflow.settings.environment import is_loopback
from streamflow.web_limits import LimitedHttp
from streaming_workers.ingest.app import IngestApp, Page
from streaming_workers.ingest.committer import Committer
from streaming_workers.ingest.intake import Intake, takes
from streaming_workers.ingest.pages import openapi, page
from streaming_workers.ingest.submissions import Submissions
from streaming_workers.reporting import Reporter, producer_asset, topic_asset
from streaming_workers.runtime.process import freeze_gc
from streaming_workers.runtime.web import Answer, WebServer, listen, metrics, probed

log = structlog.get_logger()

_GOODBYE = 7  # seconds in which requests in hand are answered
_BODY_SECONDS = 10.0
_MOST_CONNECTIONS = 2_000
_HEAD_BYTES = 65_536
_TURN = 1.0  # seconds


class IngestServer:
    def __init__(self, settings: IngestSettings, streams: Streams, instance: str) -> None:
        self._settings = settings
        self._submissions = Submissions()
        self._reporter = Reporter.of(settings, "ingest")
        self._taken = [stream for stream in streams if takes(stream)]
        if not self._taken:
            raise ConfigurationError(
                "no stream takes events by HTTP: its records must be JSON or CloudEvents, and its topic "
                "must be StreamFlow's"
            )
        smallest = min(stream.topics.max_record_bytes for stream in self._taken)
        self._committer = Committer(settings, instance, self._submissions, self._report, smallest)
        self._broker = CachedProbe(partial(clients.probe, settings, clients.admin(settings)))
        self._server = WebServer(_web_config(settings, self._app(streams)))

    def _app(self, streams: Streams) -> IngestApp:
        taken = self._taken
        others = {stream.name: _why_not(stream.topics.managed) for stream in streams} | {
            failed.name: "it does not start" for failed in streams.failed if failed.name
        }
        intakes = {stream.name: Intake(stream, self._settings) for stream in taken}
        has_token = self._settings.ingest_token is not None
        html = "text/html; charset=utf-8"
        pages: dict[str, Page] = {
            "/openapi.json": _constant("application/json", openapi(taken, has_token=has_token)),
            "/docs": _constant(html, page(taken, has_token=has_token)),
            "/health": (partial(probed, self._committer.health), False),
            "/ready": (partial(probed, self.ready), False),
            "/metrics": (metrics, False),
        }
        return IngestApp(self._settings, intakes, others, self._submissions, pages)

    def _report(self, topic: str, records: int) -> None:
        for asset in (producer_asset, topic_asset):
            self._reporter.note(asset(topic, self._settings.prefix), records)

    def ready(self) -> tuple[bool, str]:
        """Whether events can be stored now."""
        turns, why = self._committer.health()
        if not turns or self._committer.trouble:
            return (False, self._committer.trouble or why)
        return self._broker()

    def run(self, health_port: int) -> None:
        """Runs until SIGTERM or SIGINT. Raises ConfigurationError for what only a user can fix."""
        settings = self._settings
        listener = listen(settings.host, settings.ingest, "ingest")
        health = HealthServer(settings, health_port, self._committer.health, self.ready)
        with contextlib.closing(listener), health, self._reporter:
            if settings.ingest_token is None and not is_loopback(settings.host):
                log.warning(
                    "anyone who can reach this port can send events",
                    advice="set STREAMFLOW_INGEST_TOKEN",
                )
            log.info("worker started", port=settings.ingest, health_port=health.port)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(listener))
        if self._server.failure is not None:
            raise self._server.failure
        log.info("worker stopped")

    async def _serve(self, listener: socket.socket) -> None:
        self._turn()
        committer = self._committer
        await self._server.serve_beside(listener, "committer", committer.run, committer.stop)
        CALLS.ended()

    def _turn(self) -> None:
        """Tells the watchdog that the event loop turns."""
        CALLS.turned()
        asyncio.get_running_loop().call_later(_TURN, self._turn)


def run_ingest(settings: IngestSettings, *, instance: str | None, health_port: int) -> None:
    """Runs an ingest worker until SIGTERM or SIGINT. Raises ConfigurationError for what only a user can
    fix."""
    configure_logging(settings)
    structlog.contextvars.bind_contextvars(worker="ingest")
    streams = load_streams(settings)
    log_failed(streams)
    server = IngestServer(settings, streams, instance or secrets.token_hex(4))
    freeze_gc()
    server.run(health_port)


def _web_config(settings: IngestSettings, app: IngestApp) -> uvicorn.Config:
    class IngestHttp(LimitedHttp):
        request_seconds = _BODY_SECONDS
        # The application says what is too large, in its own words, unless that goes on.
        most_bytes = settings.ingest_max_bytes + _HEAD_BYTES
        most_connections = _MOST_CONNECTIONS

    hosts = Hosts.of(
        "ingest",
        "STREAMFLOW_INGEST_HOSTS",
        own=(settings.host,),
        listed=(*settings.ingest_hosts, *settings.health_hosts),
        dotless=True,
    )
    return uvicorn.Config(
        OriginGuard(app, hosts),
        http=IngestHttp,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GOODBYE,
    )


def _why_not(is_managed: bool) -> str:
    if not is_managed:
        return "its topic belongs to another owner"
    return "its records have a format of their own (decode=): send them with a Kafka client"


def _constant(kind: str, body: bytes) -> Page:
    answer: Answer = (200, [("content-type", kind)], body)
    return (lambda: answer, True)
