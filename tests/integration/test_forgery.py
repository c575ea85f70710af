"""What others write into StreamFlow's topics, with real processes: it takes nobody's place, counts
nothing, and is rejected by name (G3)."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from faults import wait_until
from loads import rows, value
from pipeline import (
    NOON,
    WorkerProcess,
    audit,
    environment,
    event,
    streamflow,
    topic_bounds,
    workers,
)
from streamflow.kafka import clients
from streamflow.records import Headers, OutRecord
from streamflow.settings import Settings
from streamflow.signing import Signer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

COUNTED = "SELECT coalesce(sum(count), 0)::int FROM window_counts"
FOREIGN = "SELECT count(*) FROM dead_letters WHERE error_code = 'FOREIGN_RECORD'"
KEY = "a key that only the workers know"


class Sender:
    """Somebody with write access to all topics."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._client = clients.producer(settings)

    def send(
        self, topic: str, content: bytes, headers: Headers | None = None, partition: int = 0
    ) -> None:
        topic = self.settings.prefix + topic
        self._client.produce(topic, content, b"key", partition, headers=headers or [])  # type: ignore[arg-type]
        self._client.poll(0)

    def flush(self) -> None:
        assert self._client.flush(60) == 0

    def copy(self, topic: str) -> int:
        """Appends a byte-identical copy of each record of a topic; returns how many."""
        found = records(self.settings, topic)
        for message in found:
            self._client.produce(
                self.settings.prefix + topic,
                message.value(),
                message.key(),
                0,
                headers=message.headers() or [],
            )
        self.flush()
        return len(found)


@pytest.fixture
def sender(stack_settings: Settings) -> Sender:
    return Sender(stack_settings)


def records(settings: Settings, topic: str) -> list[Any]:
    """The committed records of a topic."""
    found: list[Any] = []
    reader = clients.assigned_consumer(settings, settings.prefix + "test")
    for partition, (first, end) in topic_bounds(settings, topic).items():
        reader.assign([TopicPartition(*partition, first)])
        position = first
        while position < end:
            message = reader.poll(30)
            assert message is not None
            if message.error() is None:
                found.append(message)
                position = (message.offset() or 0) + 1
            else:
                position = end
    reader.close()
    return found


def origin(settings: Settings, offset: int) -> bytes:
    return f"{settings.prefix}user-events/0/{offset}".encode()


def letter_headers(settings: Settings, offset: int) -> Headers:
    """As the validator would write them for the record at this offset."""
    return [
        ("__connect.errors.topic", f"{settings.prefix}user-events".encode()),
        ("__connect.errors.partition", b"0"),
        ("__connect.errors.offset", str(offset).encode()),
        ("__connect.errors.stage", b"validator"),
        ("__streamflow.error_code", b"SCHEMA_VIOLATION"),
        ("__streamflow.origin", origin(settings, offset)),
    ]


def notification(number: int) -> bytes:
    return json.dumps(
        {"message": "forged", "time": "2026-03-01T12:00:00Z", "event_id": number, "user": "eve"}
    ).encode()


def window_count(first_offset: int, count: int) -> bytes:
    return json.dumps(
        {
            "window_start": "2026-03-01T12:00:00.000Z",
            "window_end": "2026-03-01T12:00:10.000Z",
            "event_type": "USER_LOGIN",
            "count": count,
            "partition": 0,
            "late": False,
            "first_offset": first_offset,
            "last_offset": first_offset + count - 1,
        }
    ).encode()


def without_zone(number: int, user: str = "mended") -> bytes:
    body = json.loads(event(number)) | {"timestamp": "2026-03-01T12:00:00", "user": user}
    return json.dumps(body).encode()


@contextmanager
def worker(settings: Settings, name: str, directory: Path, **more: Any) -> Iterator[WorkerProcess]:
    with workers(settings, directory, [name], **more) as running:
        yield running[name]


def audit_closes(settings: Settings) -> None:
    report = audit(settings)
    assert report.closed, report.problems


def wait_for_rows(settings: Settings, query: str, expected: Sequence[tuple[Any, ...]]) -> None:
    wait_until(lambda: rows(settings, query) == list(expected), 90, f"{query}: {expected}")


def replay(settings: Settings) -> None:
    done = streamflow(settings, "dlq", "replay", "--apply", "--repair", "add_zone", "--canary", "0")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_forged_replay_of_an_open_dead_letter(
    stack_settings: Settings, sender: Sender, tmp_path: Path
) -> None:
    """C5: the dead letter's event is stored by its own replay, and the forged record as itself."""
    sender.send("user-events", without_zone(0))
    sender.flush()
    with workers(stack_settings, tmp_path):
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM dead_letters") == 1, 90)
        forged = [
            ("__streamflow.origin", origin(stack_settings, 0)),
            ("__streamflow.attempt", b"1"),
        ]
        sender.send("user-events", event(9), forged)
        sender.flush()
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM events") == 1, 60)
        audit_closes(stack_settings)

        replay(stack_settings)

        for table, number in (("events", "id"), ("notifications", "event_id")):
            query = f"SELECT origin_offset, {number} FROM {table} ORDER BY 1"
            wait_for_rows(stack_settings, query, [(0, 0), (1, 9)])
        assert value(stack_settings, "SELECT count(*) FROM duplicates") == 0
        query = "SELECT origin_offset, attempt FROM replayed_events"
        assert rows(stack_settings, query) == [(0, 1)]
        audit_closes(stack_settings)


def test_a_dead_letter_s_origin_and_attempt_are_not_its_record_s_to_say(
    stack_settings: Settings, sender: Sender, tmp_path: Path
) -> None:
    sender.send("user-events", without_zone(0), [("__streamflow.attempt", b"99")])
    sender.send(
        "user-events", without_zone(1), [("__streamflow.origin", origin(stack_settings, 0))]
    )
    sender.flush()
    with workers(stack_settings, tmp_path):
        query = "SELECT source_offset, origin_offset, attempt FROM dead_letters ORDER BY 1"
        wait_for_rows(stack_settings, query, [(0, 0, 0), (1, 1, 0)])

        replay(stack_settings)

        query = "SELECT origin_offset, id FROM events ORDER BY 1"
        wait_for_rows(stack_settings, query, [(0, 0), (1, 1)])
        query = "SELECT origin_offset, attempt FROM replayed_events ORDER BY 1"
        assert rows(stack_settings, query) == [(0, 1), (1, 1)]
        audit_closes(stack_settings)


def test_forged_dead_letters_of_what_is_to_come(
    stack_settings: Settings, sender: Sender, tmp_path: Path
) -> None:
    """C6: neither the genuine dead letter nor the genuine event is displaced."""
    for offset in (0, 2):
        sender.send("dead-letter-topic", b"forged", letter_headers(stack_settings, offset))
    sender.flush()
    with worker(stack_settings, "loader", tmp_path):
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM dead_letters") == 2, 60)
        sender.send("user-events", b"{", [])
        sender.send("user-events", event(666), [("__streamflow.origin", origin(stack_settings, 2))])
        sender.send("user-events", event(2))
        sender.flush()
        with workers(stack_settings, tmp_path, ["validator", "analytics"]):
            query = "SELECT origin_offset, id FROM events ORDER BY 1"
            wait_for_rows(stack_settings, query, [(1, 666), (2, 2)])
            wait_for_rows(
                stack_settings,
                "SELECT value, source_topic LIKE '%dead-letter-topic', source_offset, stage,"
                " error_code FROM dead_letters ORDER BY value, source_offset",
                [
                    (b"forged", True, 0, "foreign", "FOREIGN_RECORD"),
                    (b"forged", True, 1, "foreign", "FOREIGN_RECORD"),
                    (b"{", False, 0, "validator", "INVALID_JSON"),
                ],
            )
            wait_until(lambda: value(stack_settings, COUNTED) == 2, 60, "the windows to close")
            audit_closes(stack_settings)


def test_forged_notifications_and_window_counts(
    stack_settings: Settings, sender: Sender, tmp_path: Path
) -> None:
    """C7: before the genuine ones, after them, signed with another key, and as copies."""
    forged = [
        [("__streamflow.origin", origin(stack_settings, 0))],
        [
            ("__streamflow.origin", origin(stack_settings, 1)),
            ("__streamflow.source", origin(stack_settings, 0)),
        ],
        [
            ("__streamflow.origin", origin(stack_settings, 2)),
            ("__streamflow.signature", b"0123456789abcdef"),
        ],
        [],
    ]

    def forge() -> None:
        for headers in forged:
            sender.send("notifications", notification(666), headers)
        sender.send("analytics", window_count(0, 7), forged[0])
        sender.send("analytics", window_count(1_000, 700), forged[0])
        sender.flush()

    def totals() -> list[tuple[Any, ...]]:
        return rows(
            stack_settings,
            "SELECT window_start, event_type, sum(count)::int FROM window_counts GROUP BY 1, 2",
        )

    with worker(stack_settings, "loader", tmp_path) as loader:
        forge()
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM dead_letters") == 6, 60)
        for number in range(20):
            at = NOON + timedelta(milliseconds=number)
            sender.send("user-events", event(number, at=at))
        sender.flush()
        with workers(stack_settings, tmp_path, ["validator", "analytics"]):
            wait_until(lambda: value(stack_settings, COUNTED) >= 20, 60, "the windows to close")
            query = "SELECT origin_offset, event_id FROM notifications ORDER BY 1"
            wait_for_rows(stack_settings, query, [(each, each) for each in range(20)])
            forge()
            wait_until(lambda: value(stack_settings, FOREIGN) == 12, 60)
            copies = sender.copy("notifications") + sender.copy("analytics")
            assert copies == 20 + 8 + 1 + 4
            audit_closes(stack_settings)
            # Half of the copies of foreign records are foreign, and all others duplicates.
            wait_until(lambda: value(stack_settings, FOREIGN) == 24, 60)
            assert value(stack_settings, "SELECT count(*) FROM duplicates") == 21
            assert totals() == [(NOON, "USER_LOGIN", 20)]
            assert rows(stack_settings, query) == [(each, each) for each in range(20)]
            # A copy of a genuine dead letter, and of a foreign record's.
            copies = sender.copy("dead-letter-topic")
            assert copies == 24
            audit_closes(stack_settings)
            assert value(stack_settings, FOREIGN) == 24
            assert loader.metric("streamflow_records_rejected_total", code="FOREIGN_RECORD") == 24
            assert loader.said('"event": "foreign records"')
            listed = streamflow(stack_settings, "dlq", "list", "--code", "FOREIGN_RECORD", "--json")
            assert len(listed.stdout.splitlines()) == 24, listed.stdout + listed.stderr
            # A forgery is not made genuine by a replay.
            done = streamflow(stack_settings, "dlq", "replay", "--apply", "--canary", "0")
            assert "NOT_REPLAYABLE" in done.stdout, done.stdout + done.stderr
            assert (
                value(stack_settings, "SELECT count(*) FROM replay_records WHERE topic > ''") == 0
            )
            audit_closes(stack_settings)


def test_a_signature_survives_the_broker(stack_settings: Settings) -> None:
    """Whatever a record holds: what is empty comes back empty, and what is not there does not."""
    signer = Signer(b"a secret")
    client = clients.producer(stack_settings)
    odd: list[Headers] = [
        [],
        [("a", b"")],
        [("a", None)],
        [("", b"x")],
        [("é", b"\xff")],
        [("a", b"1"), ("a", b"2"), ("__streamflow.origin", b"t/0/1")],
    ]
    topic = stack_settings.prefix + "notifications"
    for headers in odd:
        for part in (None, b"", b"{}"):
            made = signer.sign(OutRecord(topic, part, part, headers))
            client.produce(made.topic, made.value, made.key, 0, headers=made.headers)  # type: ignore[arg-type]
    assert client.flush(60) == 0

    found = records(stack_settings, "notifications")

    assert len(found) == 18
    assert [each.offset() for each in found if not signer.verify(each)] == []


def test_a_flood_of_forged_records_does_not_stop_the_loader(
    stack_settings: Settings, sender: Sender, tmp_path: Path
) -> None:
    for _ in range(6_000):
        sender.send("notifications", b"{")
    sender.flush()
    sender.send("user-events", event(1))
    sender.flush()
    with workers(stack_settings, tmp_path) as running:
        wait_until(lambda: value(stack_settings, FOREIGN) == 6_000, 90, "the foreign records")
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM notifications") == 1, 60)
        wait_until(lambda: value(stack_settings, COUNTED) == 1, 60)
        audit_closes(stack_settings)
        assert running["loader"].get("/ready") == "ready\n"
        lines = running["loader"].log.read_text().count('"event": "foreign records"')
        assert 1 <= lines < 60


@pytest.mark.chaos
def test_a_key_by_setting_needs_no_database(
    stack_settings: Settings, sender: Sender, tmp_path: Path
) -> None:
    """Validator and analytics without a database; and one with another key, which is foreign."""
    sender.send("user-events", event(1))
    sender.send("user-events", b"{")
    sender.flush()
    without = {"DATABASE_URL": "", "STREAMFLOW_SIGNING_KEY": KEY}
    with (
        workers(stack_settings, tmp_path, ["loader"], STREAMFLOW_SIGNING_KEY=KEY),
        workers(stack_settings, tmp_path, ["validator", "analytics"], **without),
    ):
        wait_until(lambda: value(stack_settings, COUNTED) == 1, 60)
        wait_until(lambda: value(stack_settings, "SELECT count(*) FROM notifications") == 1, 60)
        audit_closes(stack_settings)
        assert rows(stack_settings, "SELECT stage FROM dead_letters") == [("validator",)]
    with (
        workers(stack_settings, tmp_path, ["loader"], STREAMFLOW_SIGNING_KEY=KEY),
        workers(
            stack_settings,
            tmp_path,
            ["validator"],
            **without | {"STREAMFLOW_SIGNING_KEY": KEY + "?"},
        ),
    ):
        sender.send("user-events", event(2))
        sender.flush()
        wait_until(lambda: value(stack_settings, FOREIGN) == 1, 60)
        assert value(stack_settings, "SELECT count(*) FROM notifications") == 1


@pytest.mark.parametrize("name", ["validator", "analytics"])
def test_without_key_and_database_a_worker_says_what_to_set(
    stack_settings: Settings, name: str, tmp_path: Path
) -> None:
    assert environment(stack_settings)["DATABASE_URL"]
    done = streamflow(stack_settings, "worker", name, DATABASE_URL="")

    assert done.returncode == 1
    assert "STREAMFLOW_SIGNING_KEY or DATABASE_URL" in done.stdout + done.stderr
    assert not list(tmp_path.glob("*.log"))
