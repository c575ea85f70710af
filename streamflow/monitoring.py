"""What a process reports about itself: log events, metrics, and /health /ready /metrics (G9)."""

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

from streamflow.errors import ConfigurationError, ErrorCode
from streamflow.origins import SECURITY_HEADERS, host_refusal
from streamflow.settings import Settings

# The catalogue of metrics. Times in seconds; lag in offsets.
RECORDS_IN = Counter("streamflow_records_in_total", "Records consumed.", ["topic"])
RECORDS_OUT = Counter(
    "streamflow_records_out_total", "Records produced, rows loaded, events sent.", ["to"]
)
RECORDS_REJECTED = Counter("streamflow_records_rejected_total", "Records refused.", ["code"])
for _code in ErrorCode:
    # A series that begins with its first increment hides that from increase().
    RECORDS_REJECTED.labels(_code.value)
RECORDS_LOST = Counter(
    "streamflow_records_lost_total",
    "Offsets that could not be read any more (records at most), by cause.",
    ["topic", "cause"],
)
DUPLICATES = Counter(
    "streamflow_duplicates_total", "Records recognised as duplicates instead of being loaded."
)
BATCH_SECONDS = Histogram(
    "streamflow_batch_seconds",
    "From the batch in hand until it was durable.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
END_TO_END_SECONDS = Histogram(
    "streamflow_end_to_end_seconds",
    "From the broker's time stamp of a batch's last record until the batch was durable.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300),
)
LAG = Gauge(
    "streamflow_lag_offsets",
    "Offsets still to be read, as of the last fetch.",
    ["topic", "partition"],
)
SESSIONS = Counter("streamflow_sessions_total", "Times the worker joined its group.")
READY = Gauge("streamflow_ready", "Whether /ready says that the process does its job now: 1 or 0.")
BRIDGE_CLIENTS = Gauge("streamflow_bridge_clients", "Socket.IO clients that are connected.")
BRIDGE_MISSED = Counter("streamflow_bridge_missed_total", "Events that slow clients missed.")
INGEST_REQUESTS = Counter(
    "streamflow_ingest_requests_total", "Requests answered, by HTTP status.", ["status"]
)
INGEST_WAITING = Gauge("streamflow_ingest_waiting_bytes", "Bytes of requests that wait for Kafka.")

# Whether it is so, and why (not).
Probe = Callable[[], tuple[bool, str]]

_PROBE_SECONDS = 2.0
_PROBE_WAIT = 1.0  # seconds
_REQUEST_SECONDS = 10.0  # from a connection to the end of its response
_MOST_REQUESTS = 16  # at a time, each with a thread


def configure_logging(settings: Settings) -> None:
    """Sets up structlog: one line for each event on stderr, as JSON or for the eye."""
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelName(settings.log_level.upper())
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


class CachedProbe:
    """A probe that asks at most every two seconds, and waits at most one second for the answer."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._probed_at = float("-inf")
        self._answer = (False, "not probed yet")
        self._lock = threading.Lock()

    def __call__(self) -> tuple[bool, str]:
        # Another thread waits for the answer: this one must not wait as long.
        if not self._lock.acquire(timeout=_PROBE_WAIT):
            return (False, "dependencies do not answer")
        try:
            if time.monotonic() - self._probed_at > _PROBE_SECONDS:
                self._answer = self._probe()
                self._probed_at = time.monotonic()
            return self._answer
        finally:
            self._lock.release()


class _BoundedServer(ThreadingHTTPServer):
    """Ends what takes too long, and the oldest when there are too many: a half-sent request must not keep
    a thread."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._began: dict[socket.socket, float] = {}
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._began[request] = time.monotonic()
        self.service_actions()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._began.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called by the loop twice a second."""
        requests = tuple(self._began.items())
        now = time.monotonic()
        for number, (request, began) in enumerate(requests):
            if number < len(requests) - _MOST_REQUESTS or now - began > _REQUEST_SECONDS:
                self._began.pop(request, None)
                with suppress(OSError):
                    # Wakes its thread, which closes it.
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Not of a client that has gone.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class HealthServer:
    """Serves ``/health``, ``/ready`` and ``/metrics`` from a thread of its own; port 0 is any free one.
    Raises ConfigurationError if the port is taken.

    A request under a name that is not the worker's gets 403: a page that has pointed its own name at this
    machine could read the response. 503 from ``/health`` makes an orchestrator restart the process; from
    ``/ready`` it means that the process cannot do its job now, and why.
    """

    def __init__(self, settings: Settings, port: int, health: Probe, ready: Probe) -> None:
        hosts = settings.probed_hosts
        probes = {"/health": health, "/ready": ready}
        READY.set_function(lambda: float(ready()[0]))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                # Browsers always send it; some load balancers' checks, of HTTP/1.0, do not.
                given = self.headers.get_all("Host", [])
                why = host_refusal(", ".join(given), hosts) if given else None
                if why is not None:
                    self._answer(403, "text/plain", f"{why}\n".encode())
                elif self.path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest())
                elif self.path in probes:
                    good, why = probes[self.path]()
                    self._answer(200 if good else 503, "text/plain", f"{why}\n".encode())
                else:
                    self._answer(404, "text/plain", b"try /health, /ready or /metrics\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                for name, value in SECURITY_HEADERS:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Probes come every second: no events that matter."""

        try:
            self._server = _BoundedServer((settings.host, port), Handler)
        except OSError as error:
            raise ConfigurationError(
                f"port {port} for health and metrics cannot be used ({error.strerror}): choose "
                "another with --health-port, or 0 for any free one"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="health", daemon=True
        )

    @property
    def port(self) -> int:
        return self._server.server_port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
