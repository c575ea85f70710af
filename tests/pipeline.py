"""Real workers as processes, events as bytes, and questions to ask of what they made."""

import os
import random
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import orjson
import psycopg
from confluent_kafka import KafkaError, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from faults import wait_until
from streamflow.audit.ledger import run_audit
from streamflow.audit.report import AuditReport
from streamflow.errors import ErrorCode
from streamflow.kafka import clients, offsets
from streamflow.kafka.producing import produce_all
from streamflow.kafka.topics import all_topics, provision
from streamflow.lag.measure import loader_lags
from streamflow.postgres.connections import session
from streamflow.records import OutRecord, Record
from streamflow.registry import load_streams
from streamflow.settings import Settings

TYPES = ("USER_LOGIN", "USER_LOGIN_FAILED", "USER_LOGOUT", "USER_SIGNUP")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

INVALID: dict[ErrorCode, bytes] = {
    ErrorCode.EMPTY_VALUE: b"",
    ErrorCode.INVALID_UTF8: b'{"user": "\xff"}',
    ErrorCode.INVALID_JSON: b'{"id": 1,',
    ErrorCode.SCHEMA_VIOLATION: b'{"id": "one"}',
    ErrorCode.UNKNOWN_TYPE: (
        b'{"id":1,"type":"USER_FLEW","user":"u","timestamp":"2026-03-01T12:00:00Z"}'
    ),
    ErrorCode.CLEAR_TEXT_PII: (
        b'{"id":1,"type":"USER_LOGIN","user":"u","user_email":"ann@example.com",'
        b'"timestamp":"2026-03-01T12:00:00Z"}'
    ),
    ErrorCode.UNSTORABLE_VALUE: (
        b'{"id":1,"type":"USER_LOGIN","user":"a\\u0000b","timestamp":"2026-03-01T12:00:00Z"}'
    ),
}


def event(number: int, *, at: datetime = NOON, kind: str = "USER_LOGIN") -> bytes:
    body = {
        "id": number,
        "type": kind,
        "user": f"user-{number % 997}",
        "user_email": "a" * 64,
        "timestamp": at.isoformat(timespec="milliseconds")[:-6] + "Z",
    }
    return orjson.dumps(body)


def events(
    count: int, *, invalid: float = 0.0, seed: int = 1, spacing: int = 1
) -> tuple[list[bytes], Counter[str]]:
    """Events every `spacing` milliseconds, out of order by up to 3 s, and the codes of the invalid
    ones among them."""
    chance = random.Random(seed)
    values, codes = [], Counter[str]()
    for number in range(count):
        if chance.random() < invalid:
            code, value = chance.choice(list(INVALID.items()))
            codes[code.value] += 1
            values.append(value)
        else:
            at = NOON + timedelta(milliseconds=number * spacing + chance.randrange(3000))
            values.append(event(number, at=at, kind=chance.choice(TYPES)))
    return values, codes


def produce(settings: Settings, topic: str, values: Sequence[bytes | None]) -> None:
    """Produces to a topic of these settings; returns when all are acknowledged."""
    client = clients.producer(settings)
    produce_all(
        client,
        (
            OutRecord(settings.prefix + topic, f"key-{number % 997}".encode(), value, [])
            for number, value in enumerate(values)
        ),
    )
    assert client.flush(60) == 0


def folder(parent: Path, name: str) -> Path:
    made = parent / name
    made.mkdir()
    return made


def environment(settings: Settings, **changes: str) -> dict[str, str]:
    return {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap,
        "DATABASE_URL": settings.database,
        "STREAMFLOW_PREFIX": settings.prefix,
        "STREAMFLOW_STATE_DIR": str(settings.state_dir),
        "STREAMFLOW_STREAMS": ",".join(settings.streams),
        # Where the streams of tests are.
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), *sys.path]),
        **changes,
    }


def streamflow(
    settings: Settings,
    *arguments: str,
    text: bytes = b"",
    seconds: float = 120,
    **changes: str,
) -> "subprocess.CompletedProcess[str]":
    """The command line, as a user runs it against these settings."""
    done = subprocess.run(
        [sys.executable, "-m", "streamflow_cli.app", *arguments],
        env=environment(settings, **changes) | {"COLUMNS": "160"},
        input=text,
        capture_output=True,
        timeout=seconds,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


@contextmanager
def topics_of(settings: Settings) -> Iterator[None]:
    """Inside, the declared topics are there; afterwards no more."""
    streams = load_streams(settings)
    provision(settings, streams)
    yield
    delete_topics(settings)


def delete_topics(settings: Settings) -> None:
    """Deletes the declared topics, where they are still there."""
    names = [spec.name for spec in all_topics(settings, load_streams(settings))]
    # The client has a name: one that is collected cancels its requests, or never answers them.
    client = clients.admin(settings)
    for future in client.delete_topics(names).values():
        # Waited for, not judged: a test may have deleted one itself. The request ends after 60 s.
        future.exception(70)


def topic_bounds(settings: Settings, topic: str) -> dict[tuple[str, int], tuple[int, int]]:
    """First offset and last stable offset of each partition of a topic."""
    client = clients.admin(settings)
    return offsets.bounds(client, offsets.partitions_of(client, [settings.prefix + topic]))


def stored_values(settings: Settings, topic: str) -> list[bytes | None]:
    """The values of a topic's committed records."""
    return [record.value() for record in stored_records(settings, topic)]


def stored_records(settings: Settings, topic: str) -> list[Record]:
    """A topic's committed records."""
    found: list[Record] = []
    reader = clients.assigned_consumer(settings, settings.prefix + "test")
    for partition, (first, end) in topic_bounds(settings, topic).items():
        reader.assign([TopicPartition(*partition, first)])
        position = first
        while position < end:
            message = reader.poll(30)
            assert message is not None, f"{partition} ends at {end}, read up to {position}"
            if message.error() is None:
                found.append(cast("Record", message))
                position = (message.offset() or 0) + 1
            elif message.error().code() == KafkaError._PARTITION_EOF:
                position = end
    reader.close()
    return found


class WorkerProcess:
    """One worker as `streamflow worker NAME` runs it."""

    def __init__(
        self, settings: Settings, name: str, log: Path, *arguments: str, **changes: str
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streamflow_cli.app", "worker", name, *arguments],
                env=environment(settings, **changes),
                stdout=output,
                stderr=output,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    def get(self, path: str) -> str:
        """What its health server answers."""
        started = next(
            line for line in self.log.read_text().splitlines() if "worker started" in line
        )
        with urllib.request.urlopen(
            f"http://127.0.0.1:{orjson.loads(started)['health_port']}{path}", timeout=10
        ) as answer:
            text: str = answer.read().decode()
        return text

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        families = text_string_to_metric_families(self.get("/metrics"))
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def wait_assigned(self) -> None:
        wait_until(lambda: self.said('"event": "assigned"'), 30, f"{self.name} to be assigned")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(15)


@contextmanager
def workers(
    settings: Settings,
    directory: Path,
    names: Sequence[str] = ("validator", "analytics", "loader"),
    **changes: str,
) -> Iterator[dict[str, WorkerProcess]]:
    running = {
        name: WorkerProcess(
            settings,
            name,
            directory / f"{name}.log",
            "--instance",
            f"{settings.prefix}{name}",
            **changes,
        )
        for name in names
    }
    try:
        yield running
    finally:
        for worker in running.values():
            if worker.process.poll() is None:
                worker.kill()


def audit(settings: Settings, patience: float = 60.0) -> AuditReport:
    return run_audit(settings, load_streams(settings), patience=patience)


def count(settings: Settings, query: str) -> int:
    with psycopg.connect(settings.database) as connection:
        row = connection.execute(query).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return int(row[0])


def codes(settings: Settings) -> Counter[str]:
    with psycopg.connect(settings.database) as connection:
        rows = connection.execute(
            "SELECT error_code, count(*) FROM dead_letters GROUP BY 1"
        ).fetchall()
    return Counter(dict(rows))


def loader_lag(settings: Settings) -> int:
    topics = [settings.prefix + name for name in ("user-events", "notifications", "analytics")]
    with session(settings, "test") as connection:
        return sum(
            loader_lags(
                clients.admin(settings), connection, settings.group("loader"), topics
            ).values()
        )
