"""From an event's being sent until Socket.IO clients have it, through a real bridge."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from streamflow.errors import StreamFlowError, Unavailable
from streamflow.kafka import clients
from streamflow.settings import Settings
from streamflow_bench.figures import Detail
from streamflow_bench.latency import Latencies, Pace, Sender, latencies, send_steadily
from streamflow_bench.listener import CONNECTED, NOTE_BYTES, Note, read_notes
from streamflow_bench.sandbox import Sandbox
from streamflow_bench.sources import Keyed
from streamflow_bench.watching import process, running
from streamflow_stack.probes import probe_http
from streamflow_stack.process import Child, own_command

_START_SECONDS: Final = 60.0
# An event that has not come when nothing has come for so long is lost.
_SILENCE: Final = 10.0  # seconds
_TICK: Final = 0.01  # seconds


class Listener:
    """A client that runs.

    Attributes:
        notes: all that was read of what it has noted; the first is that it is connected.
        events: how many of them are events.

    Args:
        child: its process.
        file: what it writes.
    """

    def __init__(self, child: Child, file: Path) -> None:
        self.notes: list[Note] = []
        self.events = 0
        self._child = child
        self._file = file
        self._unread = 0

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._child.pid

    def read(self) -> bool:
        """Adds what is new to `notes`; tells whether there was anything.

        Raises:
            StreamFlowError: it has ended; says how.
        """
        if self._child.poll() is not None:
            raise StreamFlowError(f"{self._child.name} {self._child.last_words()}")
        if not self._file.exists():
            return False
        with self._file.open("rb") as file:
            file.seek(self._unread)
            found = read_notes(file.read())
        self._unread += NOTE_BYTES * len(found)
        self.notes += found
        self.events += sum(number > CONNECTED for number, _ in found)
        return bool(found)


class Delivery(NamedTuple):
    """What became of events on their way to one client.

    Attributes:
        latencies: of those that came.
        lost: how many never came.
        doubled: how many came more than once.
        told: how many records the client was told to have missed.
    """

    latencies: Latencies
    lost: int
    doubled: int
    told: int

    def named(self) -> Detail:
        """Each with its unit."""
        return {
            **self.latencies.named(),
            "lost": self.lost,
            "doubled": self.doubled,
            "told_missed": self.told,
        }


def judge(sent: Sequence[float], first: int, notes: Sequence[Note], rate: float) -> Delivery:
    """What became of events whose numbers begin with `first`.

    Args:
        sent: when each was sent.
        first: number of the first of them.
        notes: of the client.
        rate: what was really sent a second.

    Raises:
        Unavailable: none of them came.
    """
    came: dict[int, float] = {}
    doubled = 0
    for number, at in notes:
        if number >= first:
            doubled += number in came
            came.setdefault(number, at)
    waits = [came[number] - at for number, at in enumerate(sent, first) if number in came]
    if not waits:
        raise Unavailable(f"the bridge delivered none of {len(sent):,} events")
    told = -sum(min(number, 0) for number, _ in notes)
    return Delivery(latencies(waits, rate), len(sent) - len(waits), doubled, told)


def measure(
    settings: Settings, topic: str, listener: Listener, records: Iterator[Keyed], pace: Pace
) -> Delivery:
    """Sends events at a steady rate to a client that listens.

    Args:
        settings: where the broker is.
        topic: that the bridge reads.
        listener: the client.
        records: with ``id`` 1, 2, 3 ...
        pace: how fast, and for how long.

    Raises:
        Unavailable: an event was not acknowledged, or none was delivered.
    """
    sender = Sender(clients.producer(settings), topic)
    # One event ahead, as for the other paths.
    sender.send(next(records))
    sender.finish()
    wait_for([listener], 1)
    sender.forget()
    rate = send_steadily(sender, records, pace)
    wait_for([listener], pace.events + 1)
    return judge(sender.times, 2, listener.notes, rate)


def wait_for(listeners: Sequence[Listener], events: int) -> None:
    """Reads notes until each client has so many events, or none has got anything for a while."""
    heard = time.monotonic()
    while time.monotonic() - heard < _SILENCE:
        if sum(map(Listener.read, listeners)):
            heard = time.monotonic()
        if all(each.events >= events for each in listeners):
            return
        time.sleep(_TICK)


@contextmanager
def bridged(
    sandbox: Sandbox, settings: Settings, count: int = 1
) -> Iterator[tuple[Child, list[Listener]]]:
    """A bridge that is ready, and so many clients connected to it, each a process of its own.

    Raises:
        Unavailable: one of them does not get ready.
    """
    url = f"http://{settings.host}:{settings.bridge}/ready"
    with ExitStack() as stack:
        bridge = stack.enter_context(running(sandbox, settings, "worker", "bridge"))
        _wait_until(lambda: probe_http(url).ready, bridge)
        listeners = []
        for number in range(1, count + 1):
            file = sandbox.directory / f"client-{number}.notes"
            file.unlink(missing_ok=True)
            name = f"client-{number}"
            command = own_command(str(file), module="streamflow_bench.listener")
            child = stack.enter_context(process(sandbox, settings, name, command))
            listener = Listener(child, file)
            _wait_until(listener.read, child)
            listeners.append(listener)
        yield bridge, listeners


def _wait_until(condition: Callable[[], bool], child: Child) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        if child.poll() is not None:
            raise StreamFlowError(f"{child.name} {child.last_words()}")
        if time.monotonic() > deadline:
            raise Unavailable(f"{child.name} was not ready within {_START_SECONDS:g} s")
        time.sleep(_TICK)
