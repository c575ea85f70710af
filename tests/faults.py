"""Faults for real processes and connections: kill, stall, cut. And waiting for what follows."""

import contextlib
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self, TypeVar

import psutil
import pytest
import requests

from streamflow_pytest.waiting import POLL_SECONDS, wait_until
from streamflow_stack.preflight import free_ports

T = TypeVar("T")

DELAY_SECONDS = 0.2

# API keys of Kafka's protocol (https://kafka.apache.org/protocol.html#protocol_api_keys).
ADD_OFFSETS_TO_TXN = 25
END_TXN = 26
TXN_OFFSET_COMMIT = 28


def kill(pid: int) -> None:
    """SIGKILL, and waits until the process is gone or a zombie."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), 10, f"the end of pid {pid}")


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def stalled(pid: int) -> Iterator[None]:
    """The process stands still inside, and goes on afterwards."""
    os.kill(pid, signal.SIGSTOP)
    try:
        # The signal reaches a process with many threads a little later.
        wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, 10, "its stop")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def assert_guarded(port: int, path: str) -> None:
    """Every response of a web server has the security headers, and a half-sent request ends soon."""
    from streamflow.origins import SECURITY_HEADERS

    address = ("127.0.0.1", port)
    with socket.create_connection(address, 10) as silent, socket.create_connection(address) as half:
        half.sendall(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nhalf")
        for status, headers in ((200, {}), (403, {"Host": "evil.example"})):
            url = f"http://127.0.0.1:{port}{path}"
            answer = requests.get(url, headers=headers, timeout=30)
            assert answer.status_code == status
            assert answer.headers["x-frame-options"] == "DENY"
            missing = {name for name, _ in SECURITY_HEADERS} - {*map(str.lower, answer.headers)}
            assert not missing
        for connection in (silent, half):
            connection.settimeout(20)
            with contextlib.suppress(ConnectionError):
                while connection.recv(65_536):
                    pass


def assert_on_loopback_only(port: int) -> None:
    """No other address of this machine answers on a port."""
    others = {
        str(found[4][0])
        for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
        if not str(found[4][0]).startswith("127.")
    }
    for address in others:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address, port), 2)


def at_once(times: int, call: Callable[[int], T]) -> list[T]:
    """What a call returns that so many threads, numbered from 0, make at the same moment; raises
    what one raised."""
    ready = threading.Barrier(times)

    def run(number: int) -> T:
        ready.wait()
        return call(number)

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(run, range(times)))


class Requests:
    """Reads the kinds of requests off a client's half of a Kafka connection.

    A request is its length (int32), then its API key (int16) and the rest
    (https://kafka.apache.org/protocol.html#protocol_messages).
    """

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    def feed(self, data: bytes) -> list[int]:
        """The API keys of the requests that begin in these bytes."""
        found = []
        while data:
            if self._left:
                skipped = min(self._left, len(data))
                data, self._left = data[skipped:], self._left - skipped
                continue
            self._head, data = self._head + data, b""
            if len(self._head) >= 6:
                data, self._head = self._head[6:], self._head[:6]
                found.append(int.from_bytes(self._head[4:6]))
                self._left = int.from_bytes(self._head[:4]) - 2
                self._head = b""
        return found


@dataclass(frozen=True)
class Trap:
    """What a proxy does when a client sends a request of some kinds.

    Attributes:
        api_keys: of Kafka's protocol, such as `TXN_OFFSET_COMMIT`.
        sender: bytes that the request must hold, such as a transactional id.
        fault: name of a method of the proxy.
        delivered: whether the request still reaches the broker; its answer never comes back.
        sprung: is set when it has happened; it happens once.
    """

    api_keys: frozenset[int]
    sender: bytes
    fault: str
    delivered: bool
    sprung: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """A TCP proxy to 127.0.0.1 whose connections can be cut, stalled and mended.

    `cut` resets what is open and refuses what is new; `reset` only resets. `half_close` ends what
    the clients read and goes on taking what they write. `stall` keeps connections open and passes
    nothing on, as a network does that loses every packet. `black_hole` does so with what is open, for
    good, as a firewall that has forgotten a connection; what is new passes. `delay` passes everything
    on late. `mend` ends the others.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._requests: dict[socket.socket, Requests] = {}
        self._trap: Trap | None = None
        self._held: list[tuple[socket.socket, bytes]] = []
        self._forgotten: list[socket.socket] = []
        self._mode = "pass"
        self._guard = threading.Lock()
        self._ended = False
        [self.port] = free_ports(1)
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        self._listen()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join()
        with self._guard:
            self._close_all()
            for each in self._forgotten:
                each.close()
            if self._listener:
                self._listener.close()
            self._selector.close()

    @property
    def connections(self) -> int:
        return len(self._peers) // 2

    def set_trap(
        self, *api_keys: int, fault: str, delivered: bool = False, sender: bytes = b""
    ) -> Trap:
        """The fault happens when the next request of these kinds comes by; without kinds, when the next
        bytes come by that hold `sender`, in any protocol."""
        made = Trap(frozenset(api_keys), sender, fault, delivered)
        with self._guard:
            self._trap = made
        return made

    def cut(self) -> None:
        with self._guard:
            self._inflict("cut")

    def reset(self) -> None:
        with self._guard:
            self._inflict("reset")

    def half_close(self) -> None:
        with self._guard:
            self._inflict("half_close")

    def stall(self) -> None:
        with self._guard:
            self._inflict("stall")

    def black_hole(self) -> None:
        with self._guard:
            self._inflict("black_hole")

    def delay(self) -> None:
        with self._guard:
            self._inflict("delay")

    def mend(self) -> None:
        with self._guard:
            if self._listener is None:
                self._listen()
            self._mode = "pass"
            self._trap = None
            held, self._held = self._held, []
            for target, data in held:
                with contextlib.suppress(OSError):
                    target.sendall(data)

    def _inflict(self, fault: str) -> None:
        if fault in ("stall", "delay"):
            self._mode = fault
            return
        if fault == "cut":
            self._mode = "cut"
            if self._listener:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
        if fault == "half_close":
            for client in self._requests:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
        elif fault == "black_hole":
            for each in self._peers:
                self._selector.unregister(each)
            self._forgotten += self._peers
            self._peers.clear()
            self._requests.clear()
        else:
            self._close_all()

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _run(self) -> None:
        while not self._ended:
            if self._mode == "stall":
                time.sleep(POLL_SECONDS)
                continue
            if self._mode == "delay":
                time.sleep(DELAY_SECONDS)
            ready = self._selector.select(POLL_SECONDS)
            with self._guard:
                for key, _ in ready:
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    if source is self._listener:
                        self._accept(source)
                    elif source in self._peers:
                        self._pass_on(source)

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target_port), 5)
        except OSError:
            client.close()
            return
        for one, other in ((client, server), (server, client)):
            one.settimeout(5)
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)
        self._requests[client] = Requests()

    def _pass_on(self, source: socket.socket) -> None:
        try:
            data = source.recv(262_144)
            if data and source in self._requests and self._springs(source, data):
                return
            if data:
                self._peers[source].sendall(data)
                return
        except OSError:
            pass
        self._close(source)

    def _springs(self, source: socket.socket, data: bytes) -> bool:
        """Whether these bytes set off the trap, which has then dealt with them."""
        keys, trap = self._requests[source].feed(data), self._trap
        if trap is None or trap.sender not in data:
            return False
        if trap.api_keys and trap.api_keys.isdisjoint(keys):
            return False
        self._trap, target = None, self._peers[source]
        if trap.delivered:
            target.sendall(data)
        elif trap.fault == "stall":
            self._held.append((target, data))
        self._inflict(trap.fault)
        trap.sprung.set()
        return True

    def _close(self, one: socket.socket) -> None:
        for each in (one, self._peers[one]):
            del self._peers[each]
            self._requests.pop(each, None)
            self._selector.unregister(each)
            # No orderly goodbye: the other side sees a reset.
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            each.close()

    def _close_all(self) -> None:
        for each in list(self._peers):
            if each in self._peers:
                self._close(each)
