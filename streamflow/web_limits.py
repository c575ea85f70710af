"""Bounds on what clients of a web server may hold open: uvicorn only bounds the time between requests
(https://github.com/Kludex/uvicorn/issues/157)."""

import asyncio
from operator import attrgetter
from typing import Any, ClassVar, Final

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

# The extension of a WebSocket's scope that aborts it, whatever its client does.
ABORT: Final = "streamflow.abort"

_EXPLANATIONS: Final = {
    408: b"the request was not complete in time\n",
    413: b"the request is too large\n",
    503: b"too many connections: close some, or try again later\n",
}


class LimitedHttp(HttpToolsProtocol):
    """HTTP of our web servers. A request is complete in time, and not too large, or its connection is
    closed; WebSockets and slow responses take as long as they need.

    When there are too many connections, the oldest makes room that has no complete request or does not
    read its response: neither keeps anybody out.
    """

    request_seconds: ClassVar[float] = 5.0
    most_bytes: ClassVar[int] = 1_048_576  # of a request
    most_connections: ClassVar[int] = 500

    _deadline: asyncio.TimerHandle | None = None
    opened: float = 0.0  # by the loop's clock
    _received: int = 0  # bytes of the request that is not complete yet

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.opened = self.loop.time()
        self._arm()
        if len(self.connections) > self.most_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._arm()
        self._received += len(data)
        super().data_received(data)
        if self._received > self.most_bytes:
            self._refuse(413)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arm()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._disarm()

    def handle_websocket_upgrade(self) -> None:
        self._disarm()
        super().handle_websocket_upgrade()

    def _make_room(self) -> None:
        # An upgraded connection has another class.
        others = (one for one in self.connections if isinstance(one, LimitedHttp))
        waiting = [one for one in others if one.is_waiting and one is not self]
        if waiting:
            oldest = min(waiting, key=attrgetter("opened"))
            self.connections.discard(oldest)
            oldest.transport.abort()
        else:
            self._refuse(503)

    @property
    def is_waiting(self) -> bool:
        """Whether there is no complete request to answer, or nobody who reads the answer."""
        return (
            self._deadline is not None
            or self.cycle is None
            or self.cycle.response_complete
            or self.flow.write_paused
        )

    def _arm(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.request_seconds, self._refuse, 408)

    def _disarm(self) -> None:
        self._received = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: int) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # The application may have begun its response.
            self.transport.abort()
            return
        body = _EXPLANATIONS[status]
        length = b"content-length: %d\r\n" % len(body)
        kind = b"content-type: text/plain; charset=utf-8\r\n"
        head = STATUS_LINE[status] + kind + length + b"connection: close\r\n\r\n"
        self.transport.write(head + body)
        self.transport.close()


class LimitedWebSocket(WebSocketsSansIOProtocol):
    """WebSockets whose application can abort them, and that end soon after it or after a time-out of its
    pings. Closing alone waits until the client has read what was sent, so for one that does not read it
    has no end."""

    close_seconds: ClassVar[float] = 2.0

    scope: Any
    _pongs: bytes = b""  # that wait until the client reads

    async def run_asgi(self) -> None:
        self.scope["extensions"][ABORT] = self.transport.abort
        try:
            await super().run_asgi()
        finally:
            self._abort_soon()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._abort_soon()

    def _abort_soon(self) -> None:
        self.loop.call_later(self.close_seconds, self.transport.abort)

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            # Pongs are not held up by flow control. The last is enough (RFC 6455, section 5.5.3).
            self._pongs = b"".join(self.conn.data_to_send()) or self._pongs

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._pongs and not self.transport.is_closing():
            self.transport.write(self._pongs)
        self._pongs = b""


def limit_uvicorn() -> None:
    """Makes servers that others start, as Dagster and Streamlit do, use these classes. They have no option
    for it, but look up uvicorn's by name."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{LimitedHttp.__name__}"
    for name in ("auto", "websockets-sansio"):
        uvicorn.config.WS_PROTOCOLS[name] = f"{__name__}:{LimitedWebSocket.__name__}"
