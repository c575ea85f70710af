"""The time from sending an event until it is seen, at a steady rate."""

import bisect
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from operator import itemgetter
from typing import Final, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamflow.errors import Unavailable
from streamflow.kafka import clients
from streamflow.postgres.connections import session
from streamflow.settings import Settings
from streamflow_bench.limits import reader_of
from streamflow_bench.sources import Keyed

_TICK: Final = 0.001  # seconds
_TIMEOUT: Final = 60.0  # seconds
_LOOK_EVERY: Final = 0.002  # seconds

# When an event was seen at the latest: for each partition, times and next offsets, both ascending.
_Seen = dict[int, list[tuple[float, int]]]


class Pace(NamedTuple):
    """A steady rate, in events a second."""

    rate: int
    seconds: float

    @property
    def events(self) -> int:
        return max(1, round(self.rate * self.seconds))


class Latencies(NamedTuple):
    """From `produce` to being seen; `events_per_s` is the rate at which they were really sent."""

    events: int
    events_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float


class Watcher:
    """Looks for new events in a thread while entered; `look` looks once and adds what is new."""

    def __init__(self, look: Callable[[_Seen], None]) -> None:
        self.seen: _Seen = defaultdict(list)
        self._look = look
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._look(self.seen)
        except BaseException as failure:  # noqa: BLE001 (raised again in `through`)
            self._failure = failure

    def through(self, partition: int) -> int:
        """The first offset of a partition that is not seen yet. Raises the error that ended the thread."""
        if self._failure is not None:
            raise self._failure
        return self.seen[partition][-1][1] if self.seen[partition] else 0


def measure(
    settings: Settings, topic: str, watcher: Watcher, records: Iterator[Keyed], pace: Pace
) -> Latencies:
    """Sends events at a steady rate and measures how long each took to be seen. Raises Unavailable if one
    was not acknowledged, or not seen within a minute."""
    wait = partial(_wait_until_seen, watcher)
    sender, rate = send_steadily(settings, topic, records, pace, wait)
    waits = [
        _seen_at(watcher.seen[partition], offset) - sent_at
        for partition, sent in sender.sent.items()
        for offset, sent_at in sent
    ]
    return latencies(waits, rate)


def send_steadily(
    settings: Settings,
    topic: str,
    records: Iterator[Keyed],
    pace: Pace,
    wait: Callable[["Sender"], None],
) -> tuple["Sender", float]:
    """Sends events at a steady rate, some each millisecond; returns the sender, and the events per second
    that were really sent. One event is sent before, to open connections on both sides; it is not counted.
    `wait` returns when all events of the sender have arrived. Raises Unavailable if an event was not
    acknowledged."""
    sender = Sender(clients.producer(settings), topic)
    sender.send(next(records))
    sender.finish()
    wait(sender)
    sender.forget()
    began = time.monotonic()
    for number in range(pace.events):
        while began + number / pace.rate > time.monotonic():
            sender.client.poll(0)
            time.sleep(_TICK)
        sender.send(next(records))
    seconds = time.monotonic() - began
    sender.finish()
    wait(sender)
    return sender, pace.events / seconds


def latencies(waits: Iterable[float], rate: float) -> Latencies:
    """`waits` are in seconds."""
    sorted_ms = sorted(wait * 1000 for wait in waits)
    p50, p99 = (
        sorted_ms[min(len(sorted_ms) - 1, int(len(sorted_ms) * share))] for share in (0.5, 0.99)
    )
    return Latencies(len(sorted_ms), rate, p50, p99, sorted_ms[-1])


def _seen_at(seen: list[tuple[float, int]], offset: int) -> float:
    return seen[bisect.bisect_right(seen, offset, key=itemgetter(1))][0]


class Sender:
    """Produces, and notes when each event was sent."""

    def __init__(self, client: Producer, topic: str) -> None:
        self.client = client
        # Offset and time of the acknowledged events, by partition.
        self.sent: dict[int, list[tuple[int, float]]] = defaultdict(list)
        self.times: list[float] = []  # of all events, as they were sent
        self.total = 0  # events sent, with those that were forgotten
        self._topic = topic
        self._failure: KafkaError | None = None

    def send(self, record: Keyed) -> None:
        now = time.monotonic()
        self.times.append(now)
        self.total += 1
        on_delivery = partial(self._delivered, now)
        self.client.produce(self._topic, record.value, record.key, on_delivery=on_delivery)

    def _delivered(self, sent: float, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = error
        else:
            self.sent[message.partition() or 0].append((message.offset() or 0, sent))

    def forget(self) -> None:
        self.sent.clear()
        self.times.clear()

    def finish(self) -> None:
        """Returns when all events are acknowledged."""
        if self.client.flush(_TIMEOUT):
            raise Unavailable(f"Kafka did not acknowledge all events within {_TIMEOUT:g} s")
        if self._failure is not None:
            raise clients.translated(KafkaException(self._failure))


def _wait_until_seen(watcher: Watcher, sender: Sender) -> None:
    ends = {partition: max(sent)[0] for partition, sent in sender.sent.items()}
    deadline = time.monotonic() + _TIMEOUT
    while any(watcher.through(partition) <= end for partition, end in ends.items()):
        if time.monotonic() > deadline:
            raise Unavailable(f"the last event was not seen within {_TIMEOUT:g} s")
        time.sleep(_TICK)


@contextmanager
def consuming(settings: Settings, topic: str) -> Iterator[Watcher]:
    """Sees an event when a bare consumer receives it."""
    with closing(reader_of(settings, topic)) as consumer:

        def look(seen: _Seen) -> None:
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                now = time.monotonic()
                seen[message.partition() or 0].append((now, (message.offset() or 0) + 1))

        with Watcher(look) as watcher:
            yield watcher


@contextmanager
def querying(settings: Settings, topic: str) -> Iterator[Watcher]:
    """Sees an event when its row is visible in PostgreSQL: the loader's position advances in the
    transaction that stores the rows."""
    with session(settings, "bench") as connection:

        def look(seen: _Seen) -> None:
            rows = connection.execute(
                "SELECT partition, next_offset FROM loader_positions WHERE topic = %s", [topic]
            ).fetchall()
            now = time.monotonic()
            for partition, offset in rows:
                if not seen[partition] or seen[partition][-1][1] < offset:
                    seen[partition].append((now, offset))
            time.sleep(_LOOK_EVERY)

        with Watcher(look) as watcher:
            yield watcher
