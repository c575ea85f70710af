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
from typing import Self, TypeVar

import psutil
import pytest

T = TypeVar("T")

POLL_SECONDS = 0.05


def wait_until(condition: Callable[[], T], timeout: float = 30.0, what: str = "") -> T:
    """Asks until the answer is true and returns it; fails with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        time.sleep(POLL_SECONDS)


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


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


class Proxy:
    """A TCP proxy to 127.0.0.1 whose connections can be cut, stalled and mended.

    `cut` resets what is open and refuses what is new. `stall` keeps connections open and passes
    nothing on, as a network does that loses every packet. `mend` ends both.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, socket.socket] = {}
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
            if self._listener:
                self._listener.close()
            self._selector.close()

    @property
    def connections(self) -> int:
        return len(self._peers) // 2

    def cut(self) -> None:
        with self._guard:
            self._mode = "cut"
            if self._listener:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
            self._close_all()

    def stall(self) -> None:
        with self._guard:
            self._mode = "stall"

    def mend(self) -> None:
        with self._guard:
            if self._listener is None:
                self._listen()
            self._mode = "pass"

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _run(self) -> None:
        while not self._ended:
            if self._mode == "stall":
                time.sleep(POLL_SECONDS)
                continue
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

    def _pass_on(self, source: socket.socket) -> None:
        try:
            data = source.recv(262_144)
            if data:
                self._peers[source].sendall(data)
                return
        except OSError:
            pass
        self._close(source)

    def _close(self, one: socket.socket) -> None:
        for each in (one, self._peers[one]):
            del self._peers[each]
            self._selector.unregister(each)
            # No orderly goodbye: the other side sees a reset.
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            each.close()

    def _close_all(self) -> None:
        for each in list(self._peers):
            if each in self._peers:
                self._close(each)
