"""The bridge as a process: the event loop with its web server, and beside it the feed's thread."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import structlog
import uvicorn
import uvloop
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from streamflow.monitoring import HealthServer, configure_logging
from streamflow.origins import Hosts, RequestGuard, known_host
from streamflow.records import Record
from streamflow.registry import hasher_for, load_streams, log_failed
from streamflow.settings import Settings
from streamflow.settings.environment import is_loopback
from streamflow.web_limits import LimitedHttp, LimitedWebSocket
from streaming_workers.bridge.bridge import LONGEST_REQUEST, Bridge
from streaming_workers.bridge.feed import Feed
from streaming_workers.runtime.process import PATIENCE, end_after, freeze_gc
from streaming_workers.runtime.web import WebServer, listen

log = structlog.get_logger()

_GOODBYE = 3  # seconds for clients to close their connections


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
        self._failure: BaseException | None = None
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
        if self._failure is not None:
            raise self._failure
        log.info("worker stopped")

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal)
        thread = threading.Thread(target=self._run_feed, name="feed", daemon=True)
        thread.start()
        await self._server.serve(sockets=[listener])
        self._feed.stop()
        await asyncio.to_thread(thread.join)
        await self._bridge.server.shutdown()

    def _on_signal(self) -> None:
        self._server.should_exit = True
        # Ending hard loses nothing here; hanging on a broker that is gone is worse (G10).
        end_after(PATIENCE)

    def _run_feed(self) -> None:
        try:
            self._feed.run()
        except BaseException as error:  # noqa: BLE001 (raised again by `run`, in the main thread)
            self._failure = error
        finally:
            self._loop.call_soon_threadsafe(partial(setattr, self._server, "should_exit", True))

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
        probes = {"/health": self._feed.health, "/ready": self._feed.ready}
        kind = "text/plain; charset=utf-8"
        if scope["path"] == "/metrics":
            # Asks for readiness, too.
            body = await asyncio.to_thread(generate_latest)
            status, kind = 200, CONTENT_TYPE_LATEST
        elif scope["path"] in probes:
            # Asks the broker, which may take its time.
            good, why = await asyncio.to_thread(probes[scope["path"]])
            status, body = (200 if good else 503), f"{why}\n".encode()
        else:
            status, body = 404, b"Socket.IO is at /socket.io; try /health, /ready or /metrics\n"
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
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
