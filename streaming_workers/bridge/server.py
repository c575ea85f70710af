"""The bridge as a process: the event loop with its web server, and beside it the feed's thread."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
import uvicorn
import uvloop

from streamflow.monitoring import HealthServer, configure_logging
from streamflow.origins import Hosts, RequestGuard, known_host
from streamflow.records import Record
from streamflow.registry import hasher_for, load_streams, log_failed
from streamflow.settings import Settings
from streamflow.settings.environment import is_loopback
from streamflow.web_limits import LimitedHttp, LimitedWebSocket
from streaming_workers.bridge.bridge import LONGEST_REQUEST, Bridge
from streaming_workers.bridge.feed import Feed
from streaming_workers.runtime.process import freeze_gc
from streaming_workers.runtime.web import Answer, WebServer, listen, metrics, probed

log = structlog.get_logger()

_GOODBYE = 3  # seconds for clients to close their connections
_NO_PAGE: Final[Answer] = (
    404,
    [("content-type", "text/plain; charset=utf-8")],
    b"Socket.IO is at /socket.io; try /health, /ready or /metrics\n",
)


def _limited(settings: Settings) -> type[LimitedHttp]:
    class BridgeHttp(LimitedHttp):
        most_bytes = LONGEST_REQUEST + 65_536  # with its head
        # A client that polls has two.
        most_connections = 2 * settings.bridge_clients + 50

    return BridgeHttp


def _hosts(settings: Settings) -> Hosts:
    """Under which names clients and probes reach the bridge. The hosts of pages that may connect are
    known, too: often one proxy serves both."""
    origins = filter(None, (urlsplit(one).hostname for one in settings.bridge_origins))
    return Hosts.of(
        "the bridge",
        "STREAMFLOW_BRIDGE_HOSTS",
        own=(settings.host, *origins),
        listed=(*settings.bridge_hosts, *settings.health_hosts),
        dotless=True,
    )


def web_config(settings: Settings, bridge: Bridge, others: Any) -> uvicorn.Config:
    return uvicorn.Config(
        RequestGuard(bridge.asgi_app(others), known_host(_hosts(settings))),
        http=_limited(settings),
        ws=LimitedWebSocket,
        ws_max_size=LONGEST_REQUEST,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GOODBYE,
        # Engine.IO has heartbeats of its own, and small events cost more to compress than they save.
        ws_ping_interval=None,
        ws_per_message_deflate=False,
    )


class BridgeServer:
    def __init__(self, settings: Settings, bridge: Bridge) -> None:
        self._settings = settings
        self._bridge = bridge
        self._feed = Feed(
            settings,
            settings.group("bridge"),
            bridge.topics,
            settings.bridge_history,
            self._deliver,
        )
        self._server = WebServer(web_config(settings, bridge, self._answer))

    def run(self, health_port: int = 0) -> None:
        """Runs until SIGTERM or SIGINT. Raises ConfigurationError for what only a user can fix."""
        listener = listen(self._settings.host, self._settings.bridge, "bridge")
        health = HealthServer(self._settings, health_port, self._feed.health, self._feed.ready)
        with contextlib.closing(listener), health:
            if self._settings.bridge_token is None and not is_loopback(self._settings.host):
                log.warning(
                    "anyone who can reach this port can read every record",
                    advice="set STREAMFLOW_BRIDGE_TOKEN",
                )
            log.info("worker started", port=self._settings.bridge, health_port=health.port)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(listener))
        if self._server.failure is not None:
            raise self._server.failure
        log.info("worker stopped")

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve_beside(listener, "feed", self._feed.run, self._feed.stop)
        await self._bridge.server.shutdown()

    def _deliver(self, recalled: Sequence[Record], live: Sequence[Record]) -> None:
        """Called by the feed's thread; returns when the event loop has taken the records."""
        taken = asyncio.run_coroutine_threadsafe(self._bridge.publish(recalled, live), self._loop)
        with contextlib.suppress(CancelledError):
            taken.result()

    async def _answer(self, scope: dict[str, Any], _receive: Any, send: Any) -> None:
        """What is not Socket.IO: ``/health``, ``/ready`` and ``/metrics``, as on the health port."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        pages: dict[str, Callable[[], Answer]] = {
            "/health": partial(probed, self._feed.health),
            "/ready": partial(probed, self._feed.ready),
            "/metrics": metrics,
        }
        path = scope["path"]
        # Some ask the broker, which may take its time.
        answer = await asyncio.to_thread(pages[path]) if path in pages else _NO_PAGE
        status, headers, body = answer
        raw = [(name.encode(), value.encode()) for name, value in headers]
        raw.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


def run_bridge(settings: Settings, *, health_port: int) -> None:
    """Runs a bridge until SIGTERM or SIGINT. Raises ConfigurationError for what only a user can fix."""
    configure_logging(settings)
    structlog.contextvars.bind_contextvars(worker="bridge")
    streams = load_streams(settings)
    log_failed(streams)
    bridge = Bridge(settings, streams, hasher_for(settings, streams))
    freeze_gc()
    BridgeServer(settings, bridge).run(health_port)
