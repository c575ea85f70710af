"""What was really sent, and what has become of it: known without a line of the product's code.

Only client libraries are used here, so that a fault of the product cannot hide itself.
"""

import json
import threading
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

TYPES = ("USER_LOGIN", "USER_LOGIN_FAILED", "USER_LOGOUT", "USER_SIGNUP")
WINDOW_SECONDS = 10
PATIENCE = 120.0  # seconds
QUIET = 20.0  # seconds without change after which nothing more is expected
# One in so many events breaks the contract, and becomes one by a replay that repairs it.
INVALID_EVERY = 50


class Sender:
    """Produces numbered events at a steady rate, and remembers which the broker acknowledged.

    `skew` is how many seconds its clock is wrong.
    """

    def __init__(self, bootstrap: str, topic: str, rate: int) -> None:
        self._client = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "linger.ms": 5,
                "delivery.timeout.ms": 600_000,
                "queue.buffering.max.messages": 2_000_000,
                "topic.metadata.refresh.interval.ms": 5_000,
                "log_level": 0,
            }
        )
        self._topic = topic
        self._rate = rate
        self._ended = threading.Event()
        self._paused = threading.Event()
        self._idle = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender")
        self._windows = array("q")
        self.skew = 0.0
        self.sent = 0
        self.acknowledged = bytearray()
        self.failed = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._client.flush(PATIENCE)

    def pause(self) -> None:
        """Sends no more, and waits until every event is acknowledged or given up."""
        self._idle.clear()
        self._paused.set()
        self._idle.wait()
        self._client.flush(PATIENCE)

    def go_on(self) -> None:
        self._paused.clear()

    def window(self, number: int) -> tuple[int, str]:
        return self._windows[number], TYPES[number % len(TYPES)]

    def _run(self) -> None:
        began = time.monotonic()
        while not self._ended.is_set():
            if self._paused.is_set():
                began = time.monotonic() - self.sent / self._rate
                self._idle.set()
                time.sleep(0.02)
                continue
            due = int((time.monotonic() - began) * self._rate)
            while self.sent < due:
                self._send_one()
            self._client.poll(0.02)

    def _send_one(self) -> None:
        number, now = self.sent, time.time() + self.skew
        stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        body = {
            "id": number if is_valid(number) else str(number),
            "type": TYPES[number % len(TYPES)],
            "user": user(number),
            "timestamp": stamp[:-6] + "Z",
        }

        def acknowledged(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                self.acknowledged[number] = 1
            else:
                self.failed += 1

        self.acknowledged.append(0)
        self._windows.append(int(now) // WINDOW_SECONDS * WINDOW_SECONDS)
        try:
            self._client.produce(
                self._topic,
                json.dumps(body).encode(),
                user(number).encode(),
                on_delivery=acknowledged,
            )
        except KafkaException:  # the topic does not exist for a moment
            self.failed += 1
        self.sent += 1


def is_valid(number: int) -> bool:
    return number % INVALID_EVERY != 0


def user(number: int) -> str:
    return f"user-{number % 997}"


@dataclass(slots=True)
class Verdict:
    """What the comparison found, by place.

    Attributes:
        acknowledged: events that the broker had acknowledged.
        lost: acknowledged, and not where they should be.
        doubled: there more than once.
        wrong: there, though never sent, or with other content.
        unknown: there, though never acknowledged. None as long as no delivery failed.
    """

    acknowledged: int
    lost: Counter[str] = field(default_factory=Counter)
    doubled: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)

    @property
    def exact(self) -> bool:
        return not (self.lost.total() or self.doubled.total() or self.wrong.total())


class Oracle:
    """Compares what was acknowledged with tables, windows, and the topic of notifications. Only while
    nothing is sent, and all of it has arrived."""

    def __init__(self, bootstrap: str, database_url: str) -> None:
        self._bootstrap = bootstrap
        self._url = database_url
        self._read_to: dict[int, int] = {}  # of the topic of notifications
        self._notified: Counter[int] = Counter()

    def compare(self, sender: Sender) -> Verdict:
        verdict, size = Verdict(sum(sender.acknowledged)), sender.sent
        with psycopg.connect(self._url) as connection:
            stored, letters = bytearray(size), bytearray(size)
            for number, kind, name in _rows(connection, 'SELECT id, type, "user" FROM events'):
                if not 0 <= number < size or (kind, name) != (TYPES[number % 4], user(number)):
                    verdict.wrong["events"] += 1
                else:
                    _add(stored, number)
            for (value,) in _rows(connection, "SELECT value FROM dead_letters"):
                number = int(json.loads(value)["id"])
                if is_valid(number):
                    verdict.wrong["dead letters"] += 1
                else:
                    _add(letters, number)
            # One that broke the contract is an event once a replay has brought it.
            accounted = bytearray(map(max, stored, letters))
            _judge(verdict, "events", accounted, sender.acknowledged)
            wanted = bytearray(
                ours and (is_valid(number) or min(stored[number], 1))
                for number, ours in enumerate(sender.acknowledged)
            )
            verdict.lost["dead letters"] = sum(
                1
                for number in range(0, size, INVALID_EVERY)
                if sender.acknowledged[number] and not letters[number]
            )
            seen = bytearray(size)
            for (number,) in _rows(connection, "SELECT event_id FROM notifications"):
                _add(seen, number)
            _judge(verdict, "notifications", seen, wanted)
            counted = _windows(connection)
        ours = Counter(
            sender.window(number) for number in range(size) if wanted[number] or stored[number]
        )
        verdict.lost["windows"] = (ours - counted).total()
        verdict.doubled["windows"] = (counted - ours).total()
        self._read_on()
        seen = bytearray(size)
        for number, times in self._notified.items():
            seen[number] = min(times, 255)
        _judge(verdict, "topic notifications", seen, wanted)
        return verdict

    def wait_until_complete(self, sender: Sender, seconds: float = PATIENCE) -> float | None:
        """Waits until everything acknowledged is in the tables; how many seconds that took, or None where
        it was not within the time, or nothing has changed for long."""
        wanted, began = sum(sender.acknowledged), time.monotonic()
        query = (
            "SELECT (SELECT count(*) FROM events WHERE id %% %(every)s <> 0),"
            " (SELECT count(*) FROM dead_letters),"
            " (SELECT count(*) FROM notifications),"
            " (SELECT coalesce(sum(count), 0)::bigint FROM window_counts),"
            " (SELECT count(*) FROM events)"
        )
        last, changed = None, began
        while time.monotonic() < began + seconds and time.monotonic() < changed + QUIET:
            try:
                with psycopg.connect(self._url, autocommit=True) as connection:
                    found = connection.execute(query, {"every": INVALID_EVERY}).fetchone()
            except psycopg.OperationalError:
                time.sleep(1)
                continue
            assert found is not None
            valid, letters, notified, counted, stored = found
            if valid + letters >= wanted and min(notified, counted) >= stored:
                return time.monotonic() - began
            if found != last:
                last, changed = found, time.monotonic()
            time.sleep(0.5)
        return None

    def _read_on(self) -> None:
        """Counts the event of every committed record of the topic of notifications."""
        reader = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "oracle",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "log_level": 0,
            }
        )
        topic = "notifications"
        partitions = sorted(reader.list_topics(topic, timeout=10).topics[topic].partitions)
        reader.assign(
            [TopicPartition(topic, each, self._read_to.get(each, 0)) for each in partitions]
        )
        left = set(partitions)
        while left:
            for message in reader.consume(10_000, 1.0):
                error, partition = message.error(), message.partition() or 0
                if error is None:
                    self._notified[json.loads(message.value() or b"")["event_id"]] += 1
                    self._read_to[partition] = (message.offset() or 0) + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(partition)
        reader.close()


def _rows(connection: "psycopg.Connection[Any]", query: str) -> Iterator[tuple[Any, ...]]:
    with connection.cursor("all_rows") as cursor:
        cursor.itersize = 50_000
        yield from cursor.execute(query)  # type: ignore[arg-type]


def _add(seen: bytearray, number: int) -> None:
    seen[number] = min(seen[number] + 1, 255)


def _judge(verdict: Verdict, place: str, seen: bytearray, wanted: bytearray) -> None:
    pairs = list(zip(seen, wanted, strict=True))
    verdict.lost[place] = sum(1 for there, ours in pairs if ours and not there)
    verdict.doubled[place] = sum(there - 1 for there, _ in pairs if there > 1)
    verdict.unknown[place] = sum(1 for there, ours in pairs if there and not ours)


def _windows(connection: "psycopg.Connection[Any]") -> Counter[tuple[int, str]]:
    query = (
        "SELECT extract(epoch FROM window_start)::bigint, event_type, sum(count)::bigint"
        " FROM window_counts GROUP BY 1, 2"
    )
    return Counter(
        {(int(start), str(kind)): int(total) for start, kind, total in connection.execute(query)}
    )
