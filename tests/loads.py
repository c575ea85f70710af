"""Records, batches and a sink for the tests of the loader."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from streamflow.flow import Batch, Partition
from streamflow.postgres.forgotten import Kind, hashes_of
from streamflow.postgres.sink.sink import PostgresSink
from streamflow.privacy import Hasher
from streamflow.records import ORIGIN_HEADER, Headers, Origin, OutRecord, Position
from streamflow.settings import Settings
from streamflow.signing import Signer
from streamflow.streams.user_events import USER_EVENTS
from streaming_workers.loader import Loader
from streaming_workers.runtime.breaker import Breaker

TOPIC = USER_EVENTS.topic
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
# To it, records without a signature are of an older release.
TRUSTING = Signer(b"a secret of the tests", unsigned_until=2**62)


class FakeRecord:
    """A record as a consumer would hand it over."""

    def __init__(
        self,
        offset: int,
        value: bytes | None,
        *,
        topic: str = TOPIC,
        partition: int = 0,
        headers: Headers | None = None,
        key: bytes | None = None,
        appended: int | None = None,
    ) -> None:
        self._topic, self._partition, self._offset = topic, partition, offset
        self._value, self._headers, self._key = value, headers, key
        self.appended = (2, 1_782_907_200_000 + offset if appended is None else appended)

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Headers | None:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return self.appended


def event(number: int = 1, time: datetime | str | None = None, **changes: Any) -> bytes:
    """The bytes of an event, one second after the other."""
    moment = NOW + timedelta(seconds=number) if time is None else time
    text = moment if isinstance(moment, str) else moment.isoformat()
    fields = {"id": number, "type": "USER_LOGIN", "user": f"user{number}", "timestamp": text}
    return json.dumps(fields | changes).encode()


def events(offsets: Iterable[int], partition: int = 0) -> list[FakeRecord]:
    return [FakeRecord(each, event(each), partition=partition) for each in offsets]


def dead_letter(offset: int, origin: str, source_offset: int = 0) -> FakeRecord:
    headers: Headers = [
        ("__connect.errors.topic", TOPIC.encode()),
        ("__connect.errors.partition", b"0"),
        ("__connect.errors.offset", str(source_offset).encode()),
        ("__connect.errors.stage", b"validator"),
        ("__streamflow.error_code", b"SCHEMA_VIOLATION"),
        (ORIGIN_HEADER, origin.encode()),
    ]
    return FakeRecord(offset, b"{}", topic="dead-letter-topic", headers=headers)


def replay(offset: int, origin: str, number: int = 1, **more: Any) -> FakeRecord:
    headers: Headers = [(ORIGIN_HEADER, origin.encode()), ("__streamflow.attempt", b"1")]
    return FakeRecord(offset, event(number, **more), headers=headers)


def window_count(offset: int, first_offset: int, **changes: Any) -> FakeRecord:
    content = {
        "window_start": "2026-07-01T12:00:00.000Z",
        "window_end": "2026-07-01T12:00:10.000Z",
        "event_type": "USER_LOGIN",
        "count": 1,
        "partition": 0,
        "late": False,
        "first_offset": first_offset,
        "last_offset": first_offset + 5,
    }
    return FakeRecord(offset, json.dumps(content | changes).encode(), topic="analytics")


def notification(offset: int, origin: int, user: str = "ann") -> FakeRecord:
    content = {"message": f"User {user} logged in", "time": "2026-07-01T12:00:00Z"}
    return FakeRecord(
        offset,
        json.dumps(content | {"event_id": 1, "user": user}).encode(),
        topic="notifications",
        headers=[(ORIGIN_HEADER, f"user-events/0/{origin}".encode())],
    )


def batch(records: Sequence[FakeRecord]) -> Batch:
    ends: dict[Partition, int] = {}
    for record in records:
        ends[record.topic(), record.partition()] = record.offset() + 1
    return Batch(records, [Position(*partition, end) for partition, end in ends.items()])


class Load:
    """A loader with its sink: what a worker is, without Kafka."""

    def __init__(
        self,
        settings: Settings,
        streams: Sequence[Any] = (USER_EVENTS,),
        signer: Signer = TRUSTING,
        breaker: Breaker | None = None,
    ) -> None:
        self.settings = settings
        self.loader = Loader(
            settings, streams, Hasher(private_fields=("user_email",)), lambda: signer
        )
        self.delivered: list[OutRecord] = []
        self.sink = PostgresSink(
            settings,
            self.loader.group,
            self.loader.tables,
            self.deliver,
            self.loader.refuse,
            self.loader.forgetting,
            breaker,
            self.loader.upserts,
        )

    def deliver(self, records: list[OutRecord]) -> None:
        self.delivered += records

    def resume(self, *partitions: Partition) -> dict[Partition, Position | None]:
        return self.sink.resume(partitions or [(TOPIC, 0)])

    def hand_over(self, records: Sequence[FakeRecord]) -> None:
        self.sink.commit(self.loader.process(batch(records)))

    def load(self, records: Sequence[FakeRecord]) -> None:
        """Takes the partitions over, loads the records and waits."""
        found = batch(records)
        self.sink.resume([(each.topic, each.partition) for each in found.positions])
        self.sink.commit(self.loader.process(found))
        self.sink.flush()

    def sent(self, letter: str, *positions: str, attempt: int = 1) -> None:
        """Notes, as a replay does, that it has sent a dead letter's record: to these positions."""
        for position in positions:
            with psycopg.connect(self.settings.database) as connection:
                connection.execute(
                    "WITH made AS (INSERT INTO replays (transactional_id, requested_by, selection,"
                    " options) VALUES (gen_random_uuid(), 'tests', '{}', '{\"max_attempts\": 3}')"
                    " RETURNING id) INSERT INTO replay_records (replay_id, source_topic,"
                    " source_partition, source_offset, letter_status, attempt, outcome, topic,"
                    " partition, \"offset\") SELECT id, %s, %s, %s, 'open', %s, 'sent', %s, %s, %s"
                    " FROM made",
                    [*_parsed(letter), attempt, *_parsed(position)],
                )


def _parsed(text: str) -> Origin:
    origin = Origin.parse(text.encode())
    assert origin is not None, text
    return origin


def rows(settings: Settings, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(settings.database) as connection:
        return connection.execute(query.encode()).fetchall()


def value(settings: Settings, query: str) -> Any:
    return rows(settings, query)[0][0]


def execute(settings: Settings, statement: str) -> None:
    with psycopg.connect(settings.database, autocommit=True) as connection:
        connection.execute(statement.encode())


def forget_listed(settings: Settings, kind: Kind, text: str) -> None:
    """Puts a subject on the list, and nothing else."""
    hashes = ",".join(hashes_of(Hasher(), kind, text))
    execute(
        settings,
        "INSERT INTO erasures (kind, hashes, requested_by)"
        f" VALUES ('{kind}', '{{{hashes}}}', 'tests')",
    )
