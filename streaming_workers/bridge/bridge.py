"""The bridge: every record of the streams' topics to Socket.IO clients, as it is appended.

The feed's thread hands batches to the event loop and waits until they are taken. There each client
has a bounded queue, and a task that empties it as fast as that client reads, so a slow client delays no
other.
"""

import asyncio
import hmac
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import socketio
import structlog
from engineio.exceptions import EngineIOError
from engineio.packet import MESSAGE, Packet
from socketio.exceptions import ConnectionRefusedError as Refused

from streamflow import monitoring
from streamflow.errors import UsageError
from streamflow.privacy import Hasher
from streamflow.records import Record
from streamflow.settings import Settings
from streamflow.stream import Stream
from streaming_workers.bridge.admission import Admission
from streaming_workers.bridge.frames import (
    DROPPED_EVENT,
    ERROR_EVENT,
    Encoder,
    Frame,
    event_text,
    windows_of,
)
from streaming_workers.bridge.subscriptions import (
    Audience,
    BoundedQueue,
    Client,
    parse_count,
    parse_subscription,
)

log = structlog.get_logger()

SENT_TO = "socket.io"  # label of a metric

# Bytes of records in the queue of one client, and in the history of one topic.
QUEUE_BYTES = 64 * 1024 * 1024
HISTORY_BYTES = 16 * 1024 * 1024
# Bytes of one request. Clients only send a few names.
LONGEST_REQUEST = 262_144
_LONGEST_SHOWN = 100  # characters of an event's name, in an error
# Packets passed to a connection at a time. Polling clients refuse more than 16 in one answer, and a
# heartbeat may be among them.
_SLICE = 256
_POLLING_SLICE = 15
# Records until the connections get their turn, and how many turns of the event loop they have to take
# them. A slice needs about five turns, so clients that read keep up with any backlog, and those that do
# not read cost the others next to nothing.
_TURN = 200
_LOOPS = 8


class Bridge:
    """The Socket.IO side. `hasher` replaces addresses in what is not a valid event."""

    def __init__(self, settings: Settings, streams: Sequence[Stream], hasher: Hasher) -> None:
        self._plain = {
            topic: topic.removeprefix(settings.prefix)
            for stream in streams
            for topic in stream.topic_names
        }
        self.topics = list(self._plain)
        self._subscription = partial(
            parse_subscription, known=self._plain.values(), known_windows=windows_of(streams)
        )
        self._settings = settings
        self._encoder = Encoder({stream.topic: stream for stream in streams}, hasher)
        self._audience = Audience[Frame](
            self._plain.values(), settings.bridge_history, HISTORY_BYTES
        )
        self._clients: dict[str, _Connection] = {}
        self.server = socketio.AsyncServer(
            async_mode="asgi",
            cors_allowed_origins=_allowed_origins(settings),
            cors_credentials=False,
            max_http_buffer_size=LONGEST_REQUEST,
        )
        self._admission = Admission(settings, self.server)
        for handler in (self._on_connect, self._on_disconnect, self._on_subscribe, self._on_last):
            self.server.on(handler.__name__.removeprefix("_on_"), handler)
        self.server.on("*", self._on_other)

    def asgi_app(self, others: Any) -> Any:
        """The bridge as an ASGI application; `others` answers what is not Socket.IO."""
        return self._admission.guard(socketio.ASGIApp(self.server, other_asgi_app=others))

    async def publish(self, recalled: Sequence[Record], live: Sequence[Record]) -> None:
        """Takes records from before the start, and live ones."""
        began = time.monotonic()
        self._audience.remember(self._framed(recalled))
        for start in range(0, len(live), _TURN):
            self._audience.publish(self._framed(live[start : start + _TURN]))
            for _ in range(_LOOPS):
                await asyncio.sleep(0)
                if not self._audience.is_waiting:
                    break
        _observe(live, time.monotonic() - began)

    def _framed(self, records: Sequence[Record]) -> list[Frame]:
        return [Frame(self._plain[one.topic() or ""], one, self._encoder) for one in records]

    async def _on_connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        request: dict[Any, Any] = auth if isinstance(auth, dict) else {}
        self._require_token(environ, request.get("token"))
        if sid in self._clients:
            raise Refused("this client is connected already")
        query = parse_qs(environ.get("QUERY_STRING", ""))
        last = request["last"] if "last" in request else query.get("last", ["0"])[0]
        try:
            subscription = self._subscription(request)
            count = parse_count(last, self._settings.bridge_history)
        except UsageError as error:
            raise Refused(str(error)) from None
        connection = _Connection(self.server, sid)
        connection.client = Client(
            subscription, BoundedQueue(self._settings.bridge_queue, QUEUE_BYTES), connection.wake
        )
        # In one turn of the loop, so that no record is missed or sent twice.
        self._audience.join(connection.client, count)
        self._clients[sid] = connection
        monitoring.BRIDGE_CLIENTS.set(len(self._audience))
        # It first runs after this handler, and so after the acceptance.
        connection.task = self.server.start_background_task(connection.pump)

    async def _on_disconnect(self, sid: str, _reason: str = "") -> None:
        connection = self._clients.pop(sid, None)
        if connection is not None:
            self._audience.leave(connection.client)
            monitoring.BRIDGE_CLIENTS.set(len(self._audience))
            connection.end()
            self._admission.watch(connection.engine_id)

    async def _on_subscribe(self, sid: str, request: object = None, *_: object) -> dict[str, Any]:
        try:
            subscription = self._subscription(request)
        except UsageError as error:
            return await self._refuse(sid, error)
        if sid in self._clients:
            self._clients[sid].client.subscription = subscription
        return {"ok": True, **subscription.as_dict()}

    async def _on_last(self, sid: str, request: object = None, *_: object) -> dict[str, Any]:
        try:
            count = parse_count(request, self._settings.bridge_history)
        except UsageError as error:
            return await self._refuse(sid, error)
        frames: list[Frame] = []
        if sid in self._clients:
            client = self._clients[sid].client
            frames = self._audience.recall(client.subscription, count)
            client.offer(frames)
        return {"ok": True, "count": len(frames)}

    async def _on_other(self, event: str, sid: str, *_: object) -> dict[str, Any]:
        shown = event[:_LONGEST_SHOWN]
        return await self._refuse(
            sid, UsageError(f"there is no event {shown!r}: events are subscribe and last")
        )

    async def _refuse(self, sid: str, error: UsageError) -> dict[str, Any]:
        """Reports an error twice: not every client asks for an acknowledgement."""
        await self.server.emit(ERROR_EVENT, {"message": str(error)}, to=sid)
        return {"ok": False, "error": str(error)}

    def _require_token(self, environ: dict[str, Any], given: object) -> None:
        wanted = self._settings.bridge_token
        if wanted is None:
            return
        if not isinstance(given, str):
            scheme, _, given = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
            given = given if scheme.lower() == "bearer" else ""
        expected = wanted.get_secret_value().encode()
        if not hmac.compare_digest(given.strip().encode("utf-8", "surrogatepass"), expected):
            raise Refused("the token is missing or wrong: send it as auth.token")


class _Connection:
    client: Client[Frame]
    task: "asyncio.Task[None]"

    def __init__(self, server: socketio.AsyncServer, sid: str) -> None:
        self._engine = server.eio
        self.engine_id: str = server.manager.eio_sid_from_sid(sid, "/")
        self._awake = asyncio.Event()

    def wake(self) -> None:
        self._awake.set()

    def end(self) -> None:
        # If the task itself has noticed it while sending, it ends by itself.
        if self.task is not asyncio.current_task():
            self.task.cancel()

    async def pump(self) -> None:
        client, socket = self.client, self._engine.sockets[self.engine_id]
        put = socket.queue.put_nowait
        sent = monitoring.RECORDS_OUT.labels(SENT_TO)
        try:
            while not socket.closed:
                await self._awake.wait()
                self._awake.clear()
                while len(client.queue) and not socket.closed:
                    missed, frames = client.queue.take(
                        _SLICE if socket.upgraded else _POLLING_SLICE
                    )
                    # As the engine's own `send` does, once for all of them.
                    if not await socket.check_ping_timeout():
                        break
                    if missed:
                        client.missed += missed
                        monitoring.BRIDGE_MISSED.inc(missed)
                        body = {"missed": missed, "total": client.missed}
                        put(Packet(MESSAGE, event_text(DROPPED_EVENT, body)))
                    for frame in frames:
                        put(frame.packet)
                    sent.inc(len(frames))
                    # Until the connection's own task has taken them. While that waits for the
                    # client, the rest waits in our bounded queue.
                    await socket.queue.join()
        except EngineIOError:
            log.debug("client disconnected while sending")


def _observe(records: Sequence[Record], seconds: float) -> None:
    if not records:
        return
    monitoring.BATCH_SECONDS.observe(seconds)
    for topic, count in Counter(record.topic() or "" for record in records).items():
        monitoring.RECORDS_IN.labels(topic).inc(count)
    kind, appended = records[-1].timestamp()
    if kind:
        monitoring.END_TO_END_SECONDS.observe(max(0.0, time.time() - appended / 1000))


def _allowed_origins(settings: Settings) -> list[str] | str:
    """Origins whose pages may connect; other programs send none. By default the bridge's own, by name:
    comparing with the Host header, as the library does, would let in any page whose name points at this
    machine."""
    chosen = settings.bridge_origins
    if "*" in chosen:
        return "*"
    hosts = dict.fromkeys(("127.0.0.1", "localhost", settings.host))
    return list(chosen) or [f"http://{host}:{settings.bridge}" for host in hosts]
