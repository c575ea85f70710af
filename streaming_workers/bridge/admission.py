"""What a client may take of the bridge before, and after, it has shown its token."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

import socketio
import structlog
from engineio.exceptions import EngineIOError

from streamflow.settings import Settings

log = structlog.get_logger()

# Seconds that an Engine.IO connection may be without a Socket.IO client: the token comes with that.
CONNECT_SECONDS: Final = 5.0
# Requests of a client at once, and per second from then on.
_BURST: Final = 50
_PER_SECOND: Final = 10.0
_ANSWER_SECONDS: Final = 0.1


class Allowance:
    """How many requests a client may make now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(_BURST)
        self._at = clock()

    def take(self) -> bool:
        """Whether one more is allowed."""
        now = self._clock()
        self._left = min(_BURST, self._left + (now - self._at) * _PER_SECOND)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Admission:
    """Refuses Engine.IO connections beyond the limits, in total and of one address, and ends those that
    do not become a client in time."""

    def __init__(self, settings: Settings, server: socketio.AsyncServer) -> None:
        self._settings = settings
        self._engine = server.eio
        self._manager = server.manager
        self._addresses: dict[str, str] = {}  # of a connection, by its id
        self._ending: set[asyncio.Task[None]] = set()
        self._accept = self._engine.handlers["connect"]
        self._engine.on("connect", self._on_open)

    async def _on_open(self, engine_id: str, environ: dict[str, Any]) -> Any:
        client = environ["asgi.scope"].get("client")
        why = self._refusal(client[0] if client else "")
        if why is not None:
            log.warning("client refused", reason=why)
            return why
        self._addresses[engine_id] = client[0] if client else ""
        self.watch(engine_id)
        return await self._accept(engine_id, environ)

    def _refusal(self, address: str) -> str | None:
        settings, sockets = self._settings, self._engine.sockets
        self._addresses = {
            one: known
            for one, known in self._addresses.items()
            if one in sockets and not sockets[one].closed
        }
        if len(self._addresses) >= settings.bridge_clients:
            return f"the bridge has {settings.bridge_clients} clients (STREAMFLOW_BRIDGE_CLIENTS)"
        same = sum(known == address for known in self._addresses.values())
        if same >= settings.bridge_clients_per_address:
            return (
                f"{address} has {same} clients (STREAMFLOW_BRIDGE_CLIENTS_PER_ADDRESS; behind a proxy "
                "that sends no X-Forwarded-For, all have its address)"
            )
        return None

    def watch(self, engine_id: str) -> None:
        """Ends a connection that has no client by then."""
        asyncio.get_running_loop().call_later(CONNECT_SECONDS, self._expire, engine_id)

    def _expire(self, engine_id: str) -> None:
        if not self._manager.sid_from_eio_sid(engine_id, "/"):
            self._end(engine_id)

    def end_soon(self, engine_id: str) -> None:
        """Ends a connection, whether its client agrees or not, once the present answer is sent."""
        asyncio.get_running_loop().call_later(_ANSWER_SECONDS, self._end, engine_id)

    def _end(self, engine_id: str) -> None:
        task = asyncio.ensure_future(self._close(engine_id))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _close(self, engine_id: str) -> None:
        socket = self._engine.sockets.get(engine_id)
        if socket is not None and not socket.closed:
            with contextlib.suppress(EngineIOError):
                await socket.close(wait=False, reason=self._engine.reason.SERVER_DISCONNECT)
            # The library asks the client to close; this makes its own writer close the WebSocket.
            socket.queue.put_nowait(None)
