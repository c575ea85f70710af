"""What was really sent, and what has become of it: known without a line of the product's code.

Only client libraries are used here, so that a fault of the product cannot hide itself.
"""

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

import psycopg
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

TYPES = ("USER_LOGIN", "USER_LOGIN_FAILED", "USER_LOGOUT", "USER_SIGNUP")
WINDOW_SECONDS = 10
PATIENCE = 120.0  # seconds


class Sender:
    """Produces numbered events at a steady rate, and remembers which the broker acknowledged."""

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
                "log_level": 0,
            }
        )
        self._topic = topic
        self._rate = rate
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender")
        self.sent = 0
        self.acknowledged = bytearray()
        self.failed = 0
        self.windows: Counter[tuple[int, str]] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends, and waits until every event is acknowledged or given up."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._client.flush(PATIENCE)

    def _run(self) -> None:
        began = time.monotonic()
        while not self._ended.is_set():
            due = int((time.monotonic() - began) * self._rate)
            while self.sent < due:
                self._send_one()
            self._client.poll(0.02)

    def _send_one(self) -> None:
        number, now = self.sent, time.time()
        kind = TYPES[number % len(TYPES)]
        stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        user = f"user-{number % 997}"
        body = {"id": number, "type": kind, "user": user, "timestamp": stamp[:-6] + "Z"}
        window = int(now) // WINDOW_SECONDS * WINDOW_SECONDS

        def acknowledged(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                self.acknowledged[number] = 1
                self.windows[window, kind] += 1
            else:
                self.failed += 1

        self.acknowledged.append(0)
        self._client.produce(
            self._topic, json.dumps(body).encode(), user.encode(), on_delivery=acknowledged
        )
        self.sent += 1


@dataclass(slots=True)
class Verdict:
    """What the comparison found.

    Attributes:
        acknowledged: events that the broker had acknowledged.
        lost: acknowledged, and not where they should be; by place.
        doubled: there more than once; by place.
        unknown: there, though never acknowledged; by place. None as long as no delivery failed.
    """

    acknowledged: int
    lost: dict[str, int] = field(default_factory=dict)
    doubled: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        return not any((*self.lost.values(), *self.doubled.values()))


def compare(sender: Sender, bootstrap: str, database_url: str) -> Verdict:
    """Compares the acknowledged events with tables, windows, and the topic of notifications."""
    verdict = Verdict(sum(sender.acknowledged))
    with psycopg.connect(database_url) as connection:
        for place, query in (
            ("events", "SELECT id FROM events"),
            ("notifications", "SELECT event_id FROM notifications"),
        ):
            seen = _counts(sender.sent)
            with connection.cursor(f"all_{place}") as cursor:
                cursor.itersize = 50_000
                for (number,) in cursor.execute(query):  # type: ignore[arg-type]
                    _add(seen, number)
            _judge(verdict, place, seen, sender.acknowledged)
        counted = _windows(connection)
    ours = sender.windows
    verdict.lost["windows"] = sum((ours - counted).values())
    verdict.doubled["windows"] = sum((counted - ours).values()) if not sender.failed else 0
    seen = _counts(sender.sent)
    for number in _notified(bootstrap):
        _add(seen, number)
    _judge(verdict, "topic notifications", seen, sender.acknowledged)
    return verdict


def wait_until_complete(sender: Sender, database_url: str, seconds: float = PATIENCE) -> None:
    """Waits until the tables hold as much as was acknowledged, or the time is over."""
    wanted, deadline = sum(sender.acknowledged), time.monotonic() + seconds
    queries = (
        "SELECT count(*) FROM events",
        "SELECT count(*) FROM notifications",
        "SELECT coalesce(sum(count), 0)::bigint FROM window_counts",
    )
    with psycopg.connect(database_url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            found = [connection.execute(query).fetchone() for query in queries]  # type: ignore[arg-type]
            if all(row is not None and row[0] >= wanted for row in found):
                return
            time.sleep(1)


def _counts(sent: int) -> bytearray:
    return bytearray(sent)


def _add(seen: bytearray, number: int) -> None:
    seen[number] = min(seen[number] + 1, 255)


def _judge(verdict: Verdict, place: str, seen: bytearray, acknowledged: bytearray) -> None:
    pairs = list(zip(seen, acknowledged, strict=True))
    verdict.lost[place] = sum(1 for there, ours in pairs if ours and not there)
    verdict.doubled[place] = sum(there - 1 for there, _ in pairs if there > 1)
    verdict.unknown[place] = sum(1 for there, ours in pairs if there and not ours)


def _windows(connection: "psycopg.Connection[tuple[object, ...]]") -> Counter[tuple[int, str]]:
    query = (
        "SELECT extract(epoch FROM window_start)::bigint, event_type, sum(count)::bigint"
        " FROM window_counts GROUP BY 1, 2"
    )
    return Counter(
        {(int(start), str(kind)): int(total) for start, kind, total in connection.execute(query)}  # type: ignore[call-overload]
    )


def _notified(bootstrap: str) -> list[int]:
    """The event of every committed record of the topic of notifications."""
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "oracle",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    topic = "notifications"
    partitions = sorted(reader.list_topics(topic, timeout=10).topics[topic].partitions)
    reader.assign([TopicPartition(topic, each, 0) for each in partitions])
    found: list[int] = []
    left = set(partitions)
    while left:
        for message in reader.consume(10_000, 1.0):
            error = message.error()
            if error is None:
                found.append(json.loads(message.value() or b"")["event_id"])
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(message.partition() or 0)
    reader.close()
    return found
