"""From an event's being sent until somebody sees it, at a steady rate."""

import bisect
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Final, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streamflow.errors import Unavailable
from streamflow.kafka import clients
from streamflow.postgres.connections import session
from streamflow.settings import Settings
from streamflow_bench.figures import Detail
from streamflow_bench.limits import reader_of
from streamflow_bench.sources import Keyed

_TICK: Final = 0.001  # seconds
_TIMEOUT: Final = 60.0  # seconds
_LOOK_EVERY: Final = 0.002  # seconds

# When an event was seen at the latest: for each partition, times and next offsets, both ascending.
_Seen = dict[int, list[tuple[float, int]]]


class Pace(NamedTuple):
    """A steady rate: so many events a second, for so many seconds."""

    rate: int
    seconds: float

    @property
    def events(self) -> int:
        """How many events that are; at least one."""
        return max(1, round(self.rate * self.seconds))


class Latencies(NamedTuple):
    """From `produce` to being seen, in milliseconds; `rate` is what was really sent a second."""

    events: int
    rate: float
    p50: float
    p99: float
    most: float

    def named(self) -> Detail:
        """Each with its unit."""
        return {
            "events": self.events,
            "events_per_s": self.rate,
            "p50_ms": self.p50,
            "p99_ms": self.p99,
            "max_ms": self.most,
        }


class Watcher:
    """Somebody who looks for events, in a thread of their own, while entered.

    Args:
        look: looks once, and adds what is new.
    """

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
        """The next offset of a partition that is not seen yet; raises what ended the looking."""
        if self._failure is not None:
            raise self._failure
        return self.seen[partition][-1][1] if self.seen[partition] else 0


def measure(
    settings: Settings,
    topic: str,
    watcher: Watcher,
    records: Iterator[Keyed],
    pace: Pace,
) -> Latencies:
    """Sends events at a steady rate and tells how long each took to be seen.

    Raises:
        Unavailable: an event was not acknowledged, or not seen within a minute.
    """
    sender = Sender(clients.producer(settings), topic)
    # One event ahead opens connections on both sides, and is not counted.
    sender.send(next(records))
    sender.finish()
    _wait_until_seen(watcher, sender)
    sender.forget()
    rate = send_steadily(sender, records, pace)
    _wait_until_seen(watcher, sender)
    waits = [
        _seen_at(watcher.seen[partition], offset) - sent
        for partition, found in sender.sent.items()
        for offset, sent in found
    ]
    return latencies(waits, rate)


def send_steadily(sender: "Sender", records: Iterator[Keyed], pace: Pace) -> float:
    """Sends, a few events each millisecond, and returns when all are acknowledged; tells how many a
    second were really sent.

    Raises:
        Unavailable: an event was not acknowledged.
    """
    began = time.monotonic()
    for number in range(pace.events):
        while began + number / pace.rate > time.monotonic():
            sender.client.poll(0)
            time.sleep(_TICK)
        sender.send(next(records))
    took = time.monotonic() - began
    sender.finish()
    return pace.events / took


def latencies(waits: Iterable[float], rate: float) -> Latencies:
    """Of the seconds that each event took."""
    found = sorted(wait * 1000 for wait in waits)
    return Latencies(len(found), rate, _part(found, 0.5), _part(found, 0.99), found[-1])


def _seen_at(seen: list[tuple[float, int]], offset: int) -> float:
    return seen[bisect.bisect_right(seen, offset, key=lambda each: each[1])][0]


def _part(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


class Sender:
    """Produces, and notes when each event was sent and where it went.

    Attributes:
        sent: for each partition, offset and time of each event that is acknowledged.
        times: of all events, in the order in which they were sent.
    """

    def __init__(self, client: Producer, topic: str) -> None:
        self.client = client
        self.sent: dict[int, list[tuple[int, float]]] = defaultdict(list)
        self.times: list[float] = []
        self._topic = topic
        self._failure: KafkaError | None = None

    def send(self, record: Keyed) -> None:
        """Hands an event over; the clock starts before."""
        now = time.monotonic()
        self.times.append(now)
        on_delivery = partial(self._delivered, now)
        self.client.produce(self._topic, record.value, record.key, on_delivery=on_delivery)

    def _delivered(self, sent: float, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = error
        else:
            self.sent[message.partition() or 0].append((message.offset() or 0, sent))

    def forget(self) -> None:
        """Forgets what was sent so far."""
        self.sent.clear()
        self.times.clear()

    def finish(self) -> None:
        """Returns when all are acknowledged."""
        if self.client.flush(_TIMEOUT):
            raise Unavailable(f"Kafka did not acknowledge all events within {_TIMEOUT:g} s")
        if self._failure is not None:
            raise clients.translated(KafkaException(self._failure))


def _wait_until_seen(watcher: Watcher, sender: Sender) -> None:
    ends = {partition: max(found)[0] for partition, found in sender.sent.items()}
    deadline = time.monotonic() + _TIMEOUT
    while any(watcher.through(partition) <= end for partition, end in ends.items()):
        if time.monotonic() > deadline:
            raise Unavailable(f"the last event was not seen within {_TIMEOUT:g} s")
        time.sleep(_TICK)


@contextmanager
def consuming(settings: Settings, topic: str) -> Iterator[Watcher]:
    """Sees an event when a bare consumer gets it."""
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
    """Sees an event when its row is visible in PostgreSQL: the loader's position is moved in the
    transaction that stores the rows, so who sees the one sees the others."""
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
