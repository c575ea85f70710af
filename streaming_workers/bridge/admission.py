"""What a client may take of the bridge before, and after, it has shown its token."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

import socketio
import structlog
from engineio.exceptions import EngineIOError
from engineio.packet import Packet

from streamflow.settings import Settings
from streamflow.units import counted
from streamflow.web_limits import ABORT
from streaming_workers.bridge.frames import ERROR_EVENT
from streaming_workers.bridge.packets import UNREADABLE_PACKET, flaw, readable

log = structlog.get_logger()

# Seconds that an Engine.IO connection may be without a Socket.IO client: the token comes with that.
CONNECT_SECONDS: Final = 5.0
# Packets of a client at once, and per second from then on; a large one counts as several.
_BURST: Final = 50
_PER_SECOND: Final = 10.0
_PACKET_BYTES: Final = 16_384
# Packets to a client that may wait while it sends others: a slice of records, and answers.
_MOST_UNSENT: Final = 300
_ANSWER_SECONDS: Final = 0.1
_END_SECONDS: Final = 2.0  # that the last answers have to arrive

_App = Callable[..., Awaitable[None]]


class Allowance:
    """How many packets a client may send now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(_BURST)
        self._at = clock()

    def take(self, count: int = 1) -> bool:
        """Whether so many more are allowed."""
        now = self._clock()
        self._left = min(_BURST, self._left + (now - self._at) * _PER_SECOND)
        self._at = now
        if self._left < count:
            return False
        self._left -= count
        return True


@dataclass(slots=True)
class _Session:
    """An Engine.IO connection, by polling or WebSocket."""

    address: str
    allowance: Allowance = field(default_factory=Allowance)
    has_ended: bool = False


class Admission:
    """Refuses Engine.IO connections beyond the limits, in total and of one address, and ends those that
    do not become a client in time or send too much.

    A WebSocket is aborted soon after its session has ended. The library leaves open those that were never
    completed as an upgrade, or whose client does not read.
    """

    def __init__(self, settings: Settings, server: socketio.AsyncServer) -> None:
        self._settings = settings
        self._server = server
        self._engine = server.eio
        self._manager = server.manager
        self._sessions: dict[str, _Session] = {}
        self._websockets: dict[str, Callable[[], None]] = {}  # aborts that of a session
        self._ending: set[asyncio.Task[None]] = set()
        self._accept = self._engine.handlers["connect"]
        self._leave = self._engine.handlers["disconnect"]
        self._engine.on("connect", self._on_open)
        self._engine.on("disconnect", self._on_end)

    def guard(self, app: _App) -> _App:
        """The same ASGI application, where a session has one WebSocket at a time: the library takes any
        number of upgrades until one is complete."""

        async def guarded(scope: dict[str, Any], receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                receive = readable(receive)
            engine_id = self._upgraded_session(scope)
            if engine_id is None:
                await app(scope, receive, send)
            elif engine_id in self._websockets:
                await send({"type": "websocket.close"})
            else:
                self._websockets[engine_id] = scope["extensions"][ABORT]
                try:
                    await app(scope, receive, send)
                finally:
                    self._websockets.pop(engine_id, None)
                    # Else polling gets no packets any more: not after each failure the library does this.
                    if socket := self._engine.sockets.get(engine_id):
                        socket.upgrading = False

        return guarded

    def _upgraded_session(self, scope: dict[str, Any]) -> str | None:
        if scope["type"] != "websocket":
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"))
        engine_id = query.get("sid", [""])[0]
        return engine_id if engine_id in self._sessions else None

    async def _on_open(self, engine_id: str, environ: dict[str, Any]) -> Any:
        scope = environ["asgi.scope"]
        address = scope["client"][0] if scope.get("client") else ""
        why = self._refusal(address)
        if why is not None:
            log.warning("client refused", reason=why)
            return why
        self._sessions[engine_id] = _Session(address)
        if scope["type"] == "websocket":
            self._websockets[engine_id] = scope["extensions"][ABORT]
        # Of this object, since the library has an event for messages only, but answers others too.
        socket = self._engine.sockets[engine_id]
        socket.receive = partial(self._receive, engine_id, socket.receive)
        socket.handle_post_request = partial(
            self._receive_post, engine_id, socket.handle_post_request
        )
        self.watch(engine_id)
        return await self._accept(engine_id, environ)

    async def _on_end(self, engine_id: str, reason: str = "") -> None:
        self._sessions.pop(engine_id, None)
        abort = self._websockets.pop(engine_id, None)
        if abort is not None:
            asyncio.get_running_loop().call_later(_END_SECONDS, abort)
        await self._leave(engine_id, reason)

    def _refusal(self, address: str) -> str | None:
        settings = self._settings
        if len(self._sessions) >= settings.bridge_clients:
            return f"the bridge has {counted(settings.bridge_clients, 'client')} (STREAMFLOW_BRIDGE_CLIENTS)"
        same = sum(one.address == address for one in self._sessions.values())
        if same >= settings.bridge_clients_per_address:
            return (
                f"{address} has {counted(same, 'client')} (STREAMFLOW_BRIDGE_CLIENTS_PER_ADDRESS; "
                "behind a proxy "
                "that sends no X-Forwarded-For, all have its address)"
            )
        return None

    async def _receive(
        self, engine_id: str, receive: Callable[[Packet], Awaitable[None]], packet: Packet
    ) -> None:
        """Takes a packet, or ends the connection of who sends too much, or what the library does not bear:
        answers to a client that does not read them are kept in memory."""
        session = self._sessions.get(engine_id)
        if session is None or session.has_ended:
            return
        why = self._excess(engine_id, session, packet)
        if why is None:
            await receive(packet)
            return
        session.has_ended = True
        log.warning("client ended", reason=why, address=session.address)
        if sid := self._manager.sid_from_eio_sid(engine_id, "/"):
            await self._server.emit(ERROR_EVENT, {"message": why}, to=sid)
        # Once that is sent.
        asyncio.get_running_loop().call_later(_ANSWER_SECONDS, self._end, engine_id)

    async def _receive_post(
        self, engine_id: str, receive: Callable[[Any], Awaitable[None]], environ: dict[str, Any]
    ) -> None:
        """Takes a request's packets. If it is too large, or cannot be decoded, the library logs a traceback,
        or does not answer before the client polls."""
        try:
            await receive(environ)
        except (EngineIOError, ValueError, LookupError, RecursionError):
            if socket := self._engine.sockets.get(engine_id):
                await socket.receive(UNREADABLE_PACKET)

    def _excess(self, engine_id: str, session: _Session, packet: Packet) -> str | None:
        data = packet.data
        size = len(data) if isinstance(data, str) else 0
        if not session.allowance.take(1 + size // _PACKET_BYTES):
            return f"too many requests: send at most {_PER_SECOND:.0f} per second"
        if self._engine.sockets[engine_id].queue.qsize() > _MOST_UNSENT:
            return "too many requests: read the answers"
        return flaw(packet)

    def watch(self, engine_id: str) -> None:
        """Ends a connection that has no client by then."""
        asyncio.get_running_loop().call_later(CONNECT_SECONDS, self._expire, engine_id)

    def _expire(self, engine_id: str) -> None:
        if not self._manager.sid_from_eio_sid(engine_id, "/"):
            self._end(engine_id)

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
