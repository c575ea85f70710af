"""Socket.IO clients that note what they get, and a bridge to connect them to."""

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import requests
import socketio
from socketio.exceptions import ConnectionError as NotConnected
from websockets.sync.client import ClientConnection, connect

from faults import free_ports, wait_until
from pipeline import WorkerProcess
from streamflow.settings import Settings

PATIENCE = 30.0  # seconds


class BridgeProcess(WorkerProcess):
    """A bridge as `streamflow worker bridge` runs it."""

    def __init__(self, settings: Settings, log: Path, port: int = 0, **changes: str) -> None:
        self.port = port or free_ports(1)[0]
        changes["STREAMFLOW_BRIDGE_PORT"] = str(self.port)
        super().__init__(settings, "bridge", log, **changes)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str) -> tuple[int, str]:
        """Status and text of an HTTP answer; 0 for no answer."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def wait_ready(self) -> None:
        wait_until(lambda: self.ask("/ready")[0] == 200, PATIENCE, "the bridge to be ready")

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        lines = self.ask("/metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


@contextmanager
def bridge_process(
    settings: Settings, log: Path, port: int = 0, **changes: str
) -> Iterator[BridgeProcess]:
    """A bridge that is ready."""
    running = BridgeProcess(settings, log, port, **changes)
    try:
        running.wait_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


class Listener:
    """A python-socketio client. Use it as an asynchronous context manager."""

    def __init__(self, url: str, auth: Any = None, **options: Any) -> None:
        self.events: list[dict[str, Any]] = []
        self.missed: list[dict[str, int]] = []
        self.errors: list[str] = []
        self.connects = 0
        self._url, self._auth, self._options = url, auth, options
        self._moved = asyncio.Event()

    async def __aenter__(self) -> Self:
        # Its own session: the one that the client makes is left open when it connects again.
        self._session = aiohttp.ClientSession()
        self.client = socketio.AsyncClient(
            reconnection_delay=0.1, reconnection_delay_max=0.5, http_session=self._session
        )
        for name, handler in (
            ("connect", self._on_connect),
            ("connect_error", self._on_error),
            ("disconnect", self._on_disconnect),
            ("kafka-event", self._on_event),
            ("kafka-event-dropped", self._on_dropped),
            ("kafka-error", self._on_error),
        ):
            self.client.on(name, handler)
        try:
            await self.client.connect(self._url, auth=self._auth, **self._options)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        await self.client.shutdown()
        await self._session.close()

    @property
    def payloads(self) -> list[Any]:
        return [each["payload"] for each in self.events]

    async def call(self, event: str, request: Any = None) -> Any:
        return await self.client.call(event, request, timeout=PATIENCE)

    async def until(
        self, condition: Callable[[], object], what: str = "", patience: float = PATIENCE
    ) -> None:
        """Waits until something that came makes it true, for up to `patience` seconds."""
        async with asyncio.timeout(patience):
            while not condition():
                self._moved.clear()
                await self._moved.wait()
        assert condition(), what

    async def receives(self, count: int) -> list[dict[str, Any]]:
        """Waits for so many events."""
        try:
            await self.until(lambda: len(self.events) >= count)
        except TimeoutError:
            raise AssertionError(f"{len(self.events)} of {count} events came") from None
        return self.events

    async def _on_connect(self) -> None:
        self.connects += 1
        self._moved.set()

    async def _on_disconnect(self, _reason: str) -> None:
        self._moved.set()

    async def _on_event(self, body: dict[str, Any]) -> None:
        self.events.append(body)
        self._moved.set()

    async def _on_dropped(self, body: dict[str, int]) -> None:
        self.missed.append(body)
        self._moved.set()

    async def _on_error(self, body: Any) -> None:
        self.errors.append(body["message"] if isinstance(body, dict) else str(body))
        self._moved.set()


async def refusal(url: str, auth: Any = None, **options: Any) -> str:
    """What a client is told that may not connect; nothing for one that may."""
    listener = Listener(url, auth, retry=False, **options)
    try:
        async with listener:
            return ""
    except NotConnected:
        return " ".join(map(str, listener.errors))


@contextmanager
def raw_client(port: int, auth: dict[str, Any] | None = None) -> Iterator[ClientConnection]:
    """A WebSocket that speaks just enough Socket.IO to be a client, and reads when told to."""
    url = f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket"
    with connect(url, max_queue=4, ping_interval=None, close_timeout=1) as connection:
        assert str(connection.recv()).startswith("0{")
        connection.send("40" + json.dumps(auth or {}))
        assert str(connection.recv()).startswith("40{")
        yield connection


@contextmanager
def listening(url: str, auth: Any = None) -> Iterator[Listener]:
    """A connected client whose event loop is in a thread of its own, for tests that do something
    else for longer than a heartbeat."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="listener")
    thread.start()
    listener = Listener(url, auth)
    try:
        asyncio.run_coroutine_threadsafe(listener.__aenter__(), loop).result(PATIENCE)
        try:
            yield listener
        finally:
            closing = listener.__aexit__(None, None, None)
            asyncio.run_coroutine_threadsafe(closing, loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Poller:
    """A long-polling client, packet by packet."""

    def __init__(self, url: str, auth: dict[str, Any]) -> None:
        self._session = requests.Session()
        self._url = f"{url}/socket.io/?EIO=4&transport=polling"
        [opened] = self.poll()
        self._url += "&sid=" + json.loads(opened[1:])["sid"]
        self.post("40" + json.dumps(auth))

    def poll(self) -> list[str]:
        """The packets of one answer."""
        answer = self._session.get(self._url, timeout=PATIENCE)
        answer.raise_for_status()
        return answer.text.split("\x1e")

    def post(self, packet: str) -> None:
        self._session.post(self._url, packet, timeout=PATIENCE).raise_for_status()

    def close(self) -> None:
        self.post("1")
        self._session.close()


def next_event(connection: ClientConnection) -> tuple[str, Any]:
    """The next Socket.IO event; answers heartbeats meanwhile."""
    while True:
        text = str(connection.recv(timeout=PATIENCE))
        if text == "2":
            connection.send("3")
        elif text.startswith("42"):
            name, body = json.loads(text[2:])
            return name, body
