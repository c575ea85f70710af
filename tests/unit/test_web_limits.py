"""Half-sent requests: bounded in number and in time, on every kind of web server that we run."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
import requests
import uvicorn
from websockets.sync.client import connect

from faults import free_ports, wait_until
from streamflow import monitoring
from streamflow.monitoring import HealthServer
from streamflow.settings import Settings
from streamflow.web_limits import LimitedHttp, LimitedWebSocket, limit_uvicorn

SECONDS = 0.6
WITHOUT_READER = threading.Event()  # when a large message could not be sent


class QuickHttp(LimitedHttp):
    request_seconds = SECONDS
    most_bytes = 100_000
    most_connections = 20


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/large":
            try:
                for _ in range(100):
                    await send({"type": "websocket.send", "bytes": bytes(1_000_000)})
            except OSError:
                WITHOUT_READER.set()
        while (await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": "here"})
        return
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/large":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1_000):
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
    if scope["path"] == "/slow":
        await asyncio.sleep(3 * SECONDS)
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def web() -> Iterator[int]:
    """The port of a server of uvicorn with our limits."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=200)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=QuickHttp,
                ws=LimitedWebSocket,
                ws_ping_interval=SECONDS,
                ws_ping_timeout=2.0,
                lifespan="off",
                log_config=None,
                access_log=False,
            )
        )
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def health() -> Iterator[int]:
    """The port of a worker's health server with shorter times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monitoring, "_REQUEST_SECONDS", SECONDS)
        [port] = free_ports(1)
        with HealthServer(Settings(), port, lambda: (True, "fine"), lambda: (True, "fine")):
            yield port


@contextmanager
def connections(port: int, count: int, sent: bytes = b"") -> Iterator[Sequence[socket.socket]]:
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            raw.sendall(sent)
            opened.append(raw)
        yield opened


def is_open(raw: socket.socket) -> bool:
    """Whether the server has not closed a connection; takes what it has sent."""
    raw.setblocking(False)
    try:
        while raw.recv(65_536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def answers(port: int, path: str = "/health") -> bool:
    return requests.get(f"http://127.0.0.1:{port}{path}", timeout=10).status_code == 200


HEAD = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n"
HALVES = {
    "nothing": b"",
    "line": b"GET / HT",
    "head": HEAD,
    "body": HEAD + b"\r\nhalf",
    "chunk": HEAD.replace(b"Content-Length: 10", b"Transfer-Encoding: chunked") + b"\r\n5\r\nab",
    "upgrade": b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    "next": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET / HT",
}


def test_half_sent_requests_end_soon(web: int, health: int) -> None:
    with ExitStack() as stack:
        opened = {
            (port, name): stack.enter_context(connections(port, 1, half))[0]
            for port in (web, health)
            for name, half in HALVES.items()
        }
        wait_until(lambda: not any(map(is_open, opened.values())), 20 * SECONDS, "all to be closed")


def test_dripping_bytes_do_not_prolong_it(web: int, health: int) -> None:
    def drips(port: int, head: bytes) -> float:
        began = time.monotonic()
        with connections(port, 1, head) as [raw]:
            while is_open(raw) and time.monotonic() - began < 30 * SECONDS:
                raw.setblocking(True)
                try:
                    raw.sendall(b"X")
                except OSError:
                    break
                time.sleep(SECONDS / 10)  # the pace of the client
            return time.monotonic() - began

    for port in (web, health):
        assert drips(port, b"GET /health HTTP/1.1\r\nX-Header: ") < 15 * SECONDS
    # Empty lines are no request, also after one.
    whole = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connections(web, 1, whole) as [raw]:
        assert b"200 OK" in raw.recv(1_000)
        raw.sendall(b"\r\n")
        wait_until(lambda: not is_open(raw), 4, "the connection to be closed")


@pytest.mark.parametrize("kind", ["web", "health"])
def test_many_half_sent_requests_keep_nobody_out(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    port: int = request.getfixturevalue(kind)
    monkeypatch.setattr(QuickHttp, "request_seconds", 600.0)
    monkeypatch.setattr(monitoring, "_REQUEST_SECONDS", 600.0)
    threads = threading.active_count()
    with connections(port, 120, b"GET /health HTTP/1.1\r\nHost: 127") as opened:
        wait_until(lambda: sum(map(is_open, opened)) <= 20, 20, "the oldest to make room")
        wait_until(lambda: threading.active_count() - threads <= 20, 20, "few threads")
        assert answers(port)
    wait_until(lambda: threading.active_count() <= threads, 20, "no thread to be left")
    assert answers(port)


def test_what_is_in_use_stays_open_and_more_is_refused(web: int) -> None:
    url = f"ws://127.0.0.1:{web}/"
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(url)) for _ in range(20)]
        with connections(web, 1) as [raw]:
            raw.settimeout(5)
            assert b"503 Service Unavailable" in raw.recv(1_000)
        clients.pop().close()
        wait_until(lambda: answers_now(web), 20, "room")
        # Longer than a request may take.
        assert answers(web, "/slow")
        for client in clients:
            client.send("still there?")
            assert client.recv(timeout=5) == "here"


def test_responses_that_nobody_reads_keep_nobody_out(web: int) -> None:
    with connections(web, 20, b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"):
        wait_until(lambda: answers_now(web), 20, "the oldest to make room")


def test_a_websocket_ends_that_nobody_reads(web: int) -> None:
    url = f"ws://127.0.0.1:{web}/large"
    with connect(url, compression=None, max_queue=1, max_size=None, close_timeout=0):
        assert WITHOUT_READER.wait(10)


def answers_now(port: int) -> bool:
    try:
        return answers(port)
    except OSError:
        return False


def test_a_request_is_bounded_in_bytes(web: int) -> None:
    endless = b"GET / HTTP/1.1\r\n" + b"X: " + b"x" * 200_000
    with connections(web, 1, endless) as [raw]:
        wait_until(lambda: not is_open(raw), 20, "the connection to be closed")
    assert answers(web)


def test_servers_that_others_start_have_the_limits() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.config, "HTTP_PROTOCOLS", {**uvicorn.config.HTTP_PROTOCOLS})
        patch.setattr(uvicorn.config, "WS_PROTOCOLS", {**uvicorn.config.WS_PROTOCOLS})
        limit_uvicorn()
        # As Dagster and Streamlit ask for it.
        for name in ("auto", "websockets-sansio"):
            config = uvicorn.Config(app, ws=name)
            config.load()
            assert config.http_protocol_class is LimitedHttp
            assert config.ws_protocol_class is LimitedWebSocket
