"""The time from sending an event until Socket.IO clients have it, through a real bridge."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from streamflow.errors import StreamFlowError, Unavailable
from streamflow.settings import Settings
from streamflow_bench.latency import Latencies, Pace, Sender, latencies, send_steadily
from streamflow_bench.listener import CONNECTED, NOTE_BYTES, Note, read_notes
from streamflow_bench.results import Detail
from streamflow_bench.sandbox import Sandbox
from streamflow_bench.sources import Keyed
from streamflow_bench.watching import process, running
from streamflow_stack.probes import probe_http
from streamflow_stack.process import Child, own_command

_START_SECONDS: Final = 60.0
_SILENCE: Final = 10.0  # seconds without any event after which those that are missing are lost
_TICK: Final = 0.01  # seconds


class Listener:
    """A running client, and the file that it writes."""

    def __init__(self, child: Child, file: Path) -> None:
        # What was read of the file; the first note says that it is connected.
        self.notes: list[Note] = []
        self.events = 0  # how many of the notes are events
        self.child = child
        self._file = file
        self._unread = 0

    def read(self) -> bool:
        """Adds what is new to `notes`; returns whether there was anything. Raises as `_require_running`."""
        _require_running(self.child)
        if not self._file.exists():
            return False
        with self._file.open("rb") as file:
            file.seek(self._unread)
            notes = read_notes(file.read())
        self._unread += NOTE_BYTES * len(notes)
        self.notes += notes
        self.events += sum(number > CONNECTED for number, _ in notes)
        return bool(notes)


class Delivery(NamedTuple):
    """How events arrived at one client."""

    latencies: Latencies
    lost: int
    doubled: int
    reported_missed: int  # records that the bridge told the client it had missed

    def named(self) -> Detail:
        counts = {"lost": self.lost, "doubled": self.doubled, "told_missed": self.reported_missed}
        return self.latencies._asdict() | counts


def judge(sent: Sequence[float], first: int, notes: Sequence[Note], rate: float) -> Delivery:
    """How events arrived that were sent at these times at this rate, numbered from `first` on. Raises
    Unavailable if none arrived."""
    arrived: dict[int, float] = {}
    doubled = 0
    for number, at in notes:
        if number >= first:
            doubled += number in arrived
            arrived.setdefault(number, at)
    waits = [arrived[number] - at for number, at in enumerate(sent, first) if number in arrived]
    if not waits:
        raise Unavailable(f"the bridge delivered none of {len(sent):,} events")
    missed = -sum(min(number, 0) for number, _ in notes)
    return Delivery(latencies(waits, rate), len(sent) - len(waits), doubled, missed)


def measure(
    settings: Settings, topic: str, listener: Listener, records: Iterator[Keyed], pace: Pace
) -> Delivery:
    """Sends events with ``id`` 1, 2, 3 ... at a steady rate through the bridge to a client. Raises
    Unavailable if an event was not acknowledged, or none was delivered."""

    def wait(sender: Sender) -> None:
        wait_for([listener], sender.total)

    sender, rate = send_steadily(settings, topic, records, pace, wait)
    # Number 1 was the event before.
    return judge(sender.times, 2, listener.notes, rate)


def wait_for(listeners: Sequence[Listener], events: int) -> None:
    """Reads notes until each client has so many events, or no client has received any for a while."""
    heard = time.monotonic()
    while time.monotonic() - heard < _SILENCE:
        if sum(map(Listener.read, listeners)):
            heard = time.monotonic()
        if all(listener.events >= events for listener in listeners):
            return
        time.sleep(_TICK)


@contextmanager
def bridged(
    sandbox: Sandbox, settings: Settings, count: int = 1
) -> Iterator[tuple[Child, list[Listener]]]:
    """A bridge that is ready, and so many clients connected to it, each a process of its own. Raises
    Unavailable if one of them does not become ready."""
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
        _require_running(child)
        if time.monotonic() > deadline:
            raise Unavailable(f"{child.name} was not ready within {_START_SECONDS:g} s")
        time.sleep(_TICK)


def _require_running(child: Child) -> None:
    """Raises StreamFlowError if the process has ended; the message says how."""
    if child.poll() is not None:
        raise StreamFlowError(f"{child.name} {child.last_words()}")
