"""Fuzzed records through a real broker, and the workers as `streamflow up` runs them; says where each one
ended, and how much memory each worker took.

    PYTHONPATH=tests .venv/bin/python tests/fuzz/stack.py --count 300_000 --seed 7

Other than in `records.py` nothing is signed, since the audit would have to ask what such a record comes
from. Exits 1 where a record ended nowhere, twice or otherwise than it was sent, an address is in clear in
a topic that workers write to, the audit is not closed, or a worker took more than 250 MB.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import psycopg
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from folders import Folder, free_offset
from fuzz.records import ACCOUNTED, STORED, as_stored, holds_mark, say
from fuzz.shapes import DERIVED, EVENTS, Shape, Shapes
from resources import peak_memory
from services import BrokerService, DatabaseService

MOST_MEMORY: Final = 250  # MB
WORKERS: Final = ("validator", "analytics", "loader", "bridge")
LEFT_OUT: Final = ("producer", "dagster", "dashboard")
_SLICE: Final = 20_000  # records
_PATIENCE: Final = 1_800.0  # seconds until the audit must be closed


class Sender:
    """Produces fuzzed records to the partitions that they name."""

    def __init__(self, bootstrap: str) -> None:
        self._client = Producer(
            {
                "bootstrap.servers": bootstrap,
                "compression.type": "zstd",
                "batch.size": 1_000_000,
                "message.max.bytes": 64_000_000,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 0,
            }
        )
        self.refused: Counter[str] = Counter()

    def send(self, shapes: Iterator[Shape]) -> None:
        for number, shape in enumerate(shapes):
            self._client.produce(
                shape.topic,
                shape.value,
                shape.key,
                shape.partition,
                # This client cannot send names that are not UTF-8.
                headers=shape.headers or [],
                on_delivery=self._delivered,
            )
            if number % _SLICE == 0:
                self._client.flush()
        self._client.flush()

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self.refused[error.name()] += 1


def compare(bootstrap: str, url: str) -> tuple[int, list[str]]:
    """How many records the topics hold, and what is wrong with what the tables say of them."""
    problems: list[str] = []
    with psycopg.connect(url) as connection:
        accounted: defaultdict[tuple[str, int], array[int]] = defaultdict(lambda: array("q"))
        for topic, partition, offset in _rows(connection, ACCOUNTED):
            accounted[topic, partition].append(offset)
        stored = {
            (partition, offset): repr(fields)
            for partition, offset, *fields in _rows(connection, STORED)
        }
    total = 0
    for topic in (EVENTS, *DERIVED):
        held: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))
        for message in _records(bootstrap, topic):
            partition, offset = message.partition() or 0, message.offset() or 0
            held[partition].append(offset)
            if topic != EVENTS and _is_in_clear(message):
                problems.append(f"{topic}/{partition}/{offset} holds an address in clear")
            elif topic == EVENTS and (partition, offset) in stored:
                row = stored[partition, offset]
                if as_stored(message.value()) != row:
                    problems.append(f"{topic}/{partition}/{offset} is stored as {row}")
        for partition, offsets in held.items():
            total += len(offsets)
            found = accounted.pop((topic, partition), array("q"))
            ours, theirs = Counter(offsets), Counter(found)
            for what, differing in (("nowhere", ours - theirs), ("too often", theirs - ours)):
                if differing:
                    problems.append(
                        f"{topic}/{partition}: {differing.total()} {what}: {sorted(differing)[:5]}"
                    )
    problems += [f"{where}: {len(them)} that are in no topic" for where, them in accounted.items()]
    return total, problems


def _rows(connection: "psycopg.Connection[Any]", query: str) -> Iterator[tuple[Any, ...]]:
    with connection.cursor("all_rows") as cursor:
        cursor.itersize = 50_000
        yield from cursor.execute(query.encode())


def _records(bootstrap: str, topic: str) -> Iterator[Message]:
    """All committed records of a topic."""
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "fuzzer",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    left = set(reader.list_topics(topic, timeout=30).topics[topic].partitions)
    reader.assign([TopicPartition(topic, each, 0) for each in left])
    while left:
        for message in reader.consume(1_000, 1.0):
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(message.partition() or 0)
    reader.close()


def _is_in_clear(message: Message) -> bool:
    parts = [message.key() or b"", message.value() or b""]
    for name, content in message.headers() or []:
        parts += [name.encode(), content or b""]
    return holds_mark(b"\n".join(parts))


def _audited(folder: Folder) -> str:
    """The verdict of the audit, once the workers have caught up or the time is over."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        done = folder.run("audit", "--json", "--wait", "120", timeout=600)
        try:
            found = json.loads(done.stdout)
        except ValueError:
            return f"fails ({done.returncode}): {done.stderr.strip()[-300:]}"
        if found["verdict"] != "not_yet" or time.monotonic() > deadline:
            details = found["problems"][:3] or found["pending"]
            return "closed" if found["closed"] else f"{found['verdict']}: {details}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-")))
        broker, database = BrokerService(directory / "b"), DatabaseService(directory / "d")
        for service in (broker, database):
            service.start()
            cleanup.callback(service.stop)
        folder = Folder(directory / "project", free_offset())
        folder.variables |= {
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap,
            "DATABASE_URL": database.url,
            "STREAMFLOW_STREAMS": "quick_windows:USER_EVENTS",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        cleanup.callback(folder.run, "down")
        folder.up(*(part for name in LEFT_OUT for part in ("--without", name)))
        began = time.monotonic()
        sender = Sender(broker.bootstrap)
        sender.send(Shapes(options.seed).take(options.count))
        say(f"{options.count:,} sent in {time.monotonic() - began:.0f} s; {dict(sender.refused)}")
        audit = _audited(folder)
        took = time.monotonic() - began
        parts = [folder.part(name) for name in WORKERS]
        peaks = {part["name"]: peak_memory(part["pid"]) for part in parts}
        total, problems = compare(broker.bootstrap, database.url)
    problems += [f"the broker refused {number}: {why}" for why, number in sender.refused.items()]
    problems += [f"{part['name']} was restarted" for part in parts if part["restarts"]]
    problems += [f"{name} took {most} MB" for name, most in peaks.items() if most > MOST_MEMORY]
    for problem in problems[:20]:
        say(f"problem: {problem[:600]}")
    say(
        f"seed {options.seed}: {options.count:,} records fuzzed, {total:,} in Kafka with what came of "
        f"them, {'NOT as promised' if problems else 'every one accounted for'}; audit {audit}; at most "
        f"{', '.join(f'{name} {most} MB' for name, most in peaks.items())}; {took:.0f} s"
    )
    return 1 if problems or audit != "closed" else 0


if __name__ == "__main__":
    # Ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
