"""What one client may take of the bridge, mostly without a token: connections and memory."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest
import requests
import uvicorn
from prometheus_client import REGISTRY
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from faults import wait_until
from streamflow.privacy import Hasher
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS
from streaming_workers.bridge import admission
from streaming_workers.bridge.bridge import LONGEST_REQUEST, Bridge
from streaming_workers.bridge.server import web_config

SECONDS = 0.5
TOKEN = "a token of the tests"
CONNECT = "40" + json.dumps({"token": TOKEN})
CLOSE = "1"  # of Engine.IO
# Of a WebSocket: PING with 125 bytes, masked.
PING = bytes([0x89, 0x80 | 125]) + bytes(4) + b"x" * 125


class Web:
    """A bridge without Kafka."""

    def __init__(self, listener: socket.socket) -> None:
        settings = Settings(
            STREAMFLOW_BRIDGE_TOKEN=TOKEN,
            STREAMFLOW_BRIDGE_ORIGINS="https://app.example.com:8443",
            STREAMFLOW_BRIDGE_HOSTS="bridge.example.com",
            STREAMFLOW_HEALTH_HOSTS="metrics.example.com",
        )
        bridge = Bridge(settings, [USER_EVENTS], Hasher(b"key"))
        self.server = uvicorn.Server(web_config(settings, bridge, None))
        self.thread = threading.Thread(target=self.server.run, args=([listener],))
        self.path = f"127.0.0.1:{listener.getsockname()[1]}/socket.io/?EIO=4&transport="

    @property
    def open(self) -> list[WebSocketsSansIOProtocol]:
        connections = list(self.server.server_state.connections)
        return [one for one in connections if isinstance(one, WebSocketsSansIOProtocol)]

    @property
    def unsent(self) -> int:
        """Bytes in the buffers of this process."""
        return sum(one.transport.get_write_buffer_size() for one in self.open)

    def none_is_open(self) -> None:
        wait_until(lambda: not self.open, 10, "the end of the connections")

    @property
    def clients(self) -> float | None:
        return REGISTRY.get_sample_value("streamflow_bridge_clients")

    @contextmanager
    def websocket(self, sid: str = "", *, unread: bool = False) -> Iterator[ClientConnection]:
        host, port = self.path.partition("/")[0].split(":")
        raw = socket.socket()
        if unread:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.connect((host, int(port)))
        url = f"ws://{self.path}websocket" + (f"&sid={sid}" if sid else "")
        with connect(url, sock=raw, max_queue=1 if unread else None, close_timeout=0) as opened:
            yield opened

    @contextmanager
    def client(self, *, unread: bool = False) -> Iterator[ClientConnection]:
        with self.websocket(unread=unread) as connection:
            assert str(connection.recv()).startswith("0{")
            connection.send(CONNECT)
            assert str(connection.recv()).startswith("40{")
            yield connection


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(admission, "CONNECT_SECONDS", SECONDS)
        patch.setattr(admission, "_END_SECONDS", SECONDS, raising=False)
        made = Web(stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))))
        made.thread.start()
        wait_until(lambda: made.server.started, 10, "the server")
        yield made
        made.server.should_exit = True
        made.thread.join()


def answers(connection: ClientConnection, send: Callable[[], object]) -> list[str]:
    """All that comes until the bridge ends the connection, or nothing for a while."""
    texts = []
    try:
        send()
        while True:
            texts.append(str(connection.recv(timeout=3)))
    except TimeoutError:
        pytest.fail(f"still open after {len(texts)} answers")
    except ConnectionClosed:
        return texts


def test_an_upgrade_that_is_not_completed_ends_with_its_session(web: Web) -> None:
    opened = requests.get(f"http://{web.path}polling", timeout=10).text
    sid = json.loads(opened[1:])["sid"]
    with web.websocket(sid) as pending:
        for _ in range(3):
            with pytest.raises(InvalidStatus), web.websocket(sid):
                pass
        assert answers(pending, lambda: None) == []
    web.none_is_open()


def test_polling_goes_on_after_an_upgrade_that_failed(web: Web) -> None:
    session = requests.Session()
    polling = f"http://{web.path}polling"
    sid = json.loads(session.get(polling, timeout=10).text[1:])["sid"]
    polling += f"&sid={sid}"
    session.post(polling, CONNECT, timeout=10)
    with web.websocket(sid):
        pass
    wait_until(lambda: session.get(polling, timeout=10).text.startswith("40{"), 10, "an answer")
    with web.websocket(sid) as again:
        again.send("2probe")
        assert again.recv(timeout=10) == "3probe"
        again.send("5")
        assert again.recv(timeout=10) == "6"
        # The session has its client, and so the connection stays.
        with pytest.raises(TimeoutError):
            again.recv(timeout=4 * SECONDS)


def test_a_client_that_does_not_read_is_ended_and_fills_no_memory(web: Web) -> None:
    with web.websocket(unread=True) as opened:
        deadline, most = time.monotonic() + 60, 0
        with suppress(OSError):
            while time.monotonic() < deadline:
                opened.socket.sendall(PING * 500)
                most = max(most, web.unsent)
        assert time.monotonic() < deadline
        assert most < 1_000_000
    web.none_is_open()


def test_a_long_namespace_is_not_echoed(web: Web) -> None:
    def send() -> None:
        for _ in range(20):
            opened.send("40/" + "a" * 200_000)

    with web.websocket() as opened:
        assert sum(map(len, answers(opened, send))) < 1_000


@pytest.mark.parametrize(
    "packets",
    [(CONNECT, '421["last",0]', "41"), ("40{}",), ("5",), ('421["last",0]',), (CONNECT, "3")],
)
def test_packets_of_every_kind_are_counted(web: Web, packets: tuple[str, ...]) -> None:
    def send() -> None:
        for number in range(200):
            client.send(packets[number % len(packets)])

    with web.client() as client:
        assert len(answers(client, send)) < 60


@pytest.mark.parametrize("packet", [b"binary", '451-["last",{"_placeholder":true,"num":0}]'])
def test_attachments_are_not_collected(web: Web, packet: bytes | str) -> None:
    with web.client() as client:
        [told] = answers(client, lambda: client.send(packet))[:1]
    assert "only text is taken" in told


@pytest.mark.parametrize(
    "packet",
    [
        '42["disconnect","x"]',
        '421["connect",{},{}]',
        '42["connect",{"HTTP_AUTHORIZATION":"Bearer x"},{"last":1000}]',
        '42/,["connect",{},{}]',
        '42["\\u0063onnect",{},{}]',
        '42["*",{}]',
    ],
)
def test_handlers_of_the_server_itself_cannot_be_called(web: Web, packet: str) -> None:
    with web.client() as client:
        wait_until(lambda: web.clients == 1, 10, "the client")
        client.send(packet)
        told = str(client.recv(timeout=3))
        assert told.startswith('42["kafka-error"')
        assert "is the bridge's own" in told
        assert web.clients == 1
        assert answers(client, lambda: None) == [CLOSE]
    wait_until(lambda: web.clients == 0, 10, "the end of the client")


def test_no_event_takes_the_place_of_the_token(web: Web) -> None:
    with web.websocket() as opened:
        opened.recv()
        opened.send("421" + json.dumps(["connect", {}, {"token": TOKEN}]))
        opened.send('422["subscribe",{}]')
        assert answers(opened, lambda: None) == [CLOSE]
    with web.websocket() as opened:
        opened.recv()
        opened.send("40{}")
        assert "token is missing" in str(opened.recv(timeout=3))
        opened.send('422["subscribe",{}]')
        assert answers(opened, lambda: None) == [CLOSE]


def test_an_event_that_does_not_exist_is_answered(web: Web) -> None:
    with web.client() as client:
        client.send('421["no such event",{}]')
        error = "there is no event 'no such event': events are subscribe and last"
        assert json.loads(str(client.recv(timeout=3))[2:]) == ["kafka-error", {"message": error}]
        assert json.loads(str(client.recv(timeout=3))[3:]) == [{"ok": False, "error": error}]
        client.send('422["last",0]')
        assert str(client.recv(timeout=3)).startswith("432")


NONSENSE = [
    "",
    "x",
    "2",
    "9",
    "\u00b2",
    "b!",
    "4",
    "4nonsense",
    "4" + "[" * 50_000,
    "42",
    "42[]",
    "42{}",
    "42[[]]",
    '42"connect"',
    "40{",
    '42x["last",1]',
    "42" + "9" * 400 + '["last",1]',
    '42\u00b2["last",1]',
    '42["last",' + "9" * 5_000 + "]",
    '42["subscribe",' + "[" * 50_000 + "]" * 50_000 + "]",
    '42["subscribe",' + "[" * 300 + "]" * 300 + "]",
]


@pytest.mark.parametrize("is_polling", [False, True])
def test_nonsense_is_answered_and_logged_in_one_line(
    web: Web, is_polling: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    def told(nonsense: str) -> str:
        with web.client() as client:
            for _ in range(3):
                client.send(nonsense)
            return "".join(answers(client, lambda: None))

    def told_by_polling(nonsense: str) -> str:
        polling = f"http://{web.path}polling"
        sid = json.loads(requests.get(polling, timeout=10).text[1:])["sid"]
        polling += f"&sid={sid}"
        requests.post(polling, CONNECT, timeout=10)
        requests.get(polling, timeout=10)
        requests.post(polling, nonsense.encode(), timeout=10)
        return requests.get(polling, timeout=10).text

    # An empty request has no packets.
    polled = [*NONSENSE[1:], "d=", "\x1e".join(["3"] * 17), "3" * (LONGEST_REQUEST + 1)]
    for nonsense in polled if is_polling else NONSENSE:
        text = (told_by_polling if is_polling else told)(nonsense)
        assert text.startswith('42["kafka-error"'), nonsense[:40]
        logged = "".join(capfd.readouterr())
        assert logged.count("\n") == 1, (nonsense[:40], logged)
    web.none_is_open()


def test_before_connect_nonsense_ends_the_connection(
    web: Web, capfd: pytest.CaptureFixture[str]
) -> None:
    for nonsense in NONSENSE:
        with web.websocket() as opened:
            opened.recv()
            opened.send(nonsense)
            assert answers(opened, lambda: None) == [CLOSE]
    assert "Traceback" not in "".join(capfd.readouterr())
    web.none_is_open()


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (["10.1.2.3:3001"], 200),
        (["localhost"], 200),
        (["bridge:3001"], 200),
        (["bridge.example.com"], 200),
        (["app.example.com:443"], 200),
        (["metrics.example.com"], 200),
        (["evil.example:12001"], 403),
        (["127.0.0.1.nip.io"], 403),
        (["evil@127.0.0.1"], 403),
        (["127.0.0.1", "evil.example"], 403),
    ],
)
def test_the_bridge_is_used_under_its_own_names(web: Web, hosts: list[str], status: int) -> None:
    address, _, path = web.path.partition("/")
    host, port = address.split(":")
    fields = "".join(f"Host: {one}\r\n" for one in hosts)
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    for transport, more in (("polling", "Connection: close\r\n"), ("websocket", upgrade)):
        with socket.create_connection((host, int(port)), 10) as raw:
            raw.sendall(f"GET /{path}{transport} HTTP/1.1\r\n{fields}{more}\r\n".encode())
            text = raw.recv(4_096).decode("latin-1")
            assert int(text.split()[1]) == (101 if more is upgrade and status == 200 else status)
            if more is not upgrade:
                with raw.makefile("rb") as rest:
                    text += rest.read().decode()
                assert ("STREAMFLOW_BRIDGE_HOSTS" in text) == (status == 403)
    web.none_is_open()


def test_answers_that_are_not_read_are_bounded(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_BURST", 10_000)
    monkeypatch.setattr(admission, "_MOST_UNSENT", 5, raising=False)
    request = "421" + json.dumps(["subscribe", {"users": [f"{n:0200}" for n in range(1_000)]}])
    with web.client(unread=True) as client:
        with suppress(ConnectionClosed):
            for _ in range(200):
                client.send(request)
        web.none_is_open()
