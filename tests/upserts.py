"""An upsert stream of customers, and records for it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from loads import FakeRecord
from streamflow import Event, HashedAddress, Notification, Stream, Timestamp, Topics, TumblingWindow
from streamflow.records import ORIGIN_HEADER, Headers
from streamflow.settings import Settings

ONE = Topics(
    partitions=1, analytics="up-analytics", notifications="up-notes", dead_letters="up-letters"
)


class Customer(Event):
    id: int
    name: str
    email: HashedAddress | None = None
    at: Timestamp


CUSTOMERS = Stream(
    name="customers", contract=Customer, table="customers", key="id", event_time="at",
    mode="upsert", primary_key=("id",), topics=ONE, private_fields=("email",),
    windows=TumblingWindow("10s"), notify=lambda each: Notification(f"{each.name} is new", each.id, "u"),
)  # fmt: skip
TOPIC = CUSTOMERS.topic
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def customer(key: int, name: str, second: int = 0, **more: Any) -> bytes:
    at = (NOON + timedelta(seconds=second)).isoformat(timespec="milliseconds")
    return orjson.dumps({"id": key, "name": name, "at": at.replace("+00:00", "Z")} | more)


def put(
    offset: int,
    key: int,
    name: str,
    *,
    partition: int = 0,
    appended: int | None = None,
    origin: str | None = None,
    **more: Any,
) -> FakeRecord:
    headers: Headers | None = None
    if origin is not None:
        headers = [(ORIGIN_HEADER, origin.encode()), ("__streamflow.attempt", b"1")]
    return FakeRecord(
        offset, customer(key, name, offset, **more), topic=TOPIC, partition=partition,
        key=str(key).encode(), appended=appended, headers=headers,
    )  # fmt: skip


def delete(offset: int, key: int, *, partition: int = 0, appended: int | None = None) -> FakeRecord:
    return FakeRecord(
        offset, None, topic=TOPIC, partition=partition, key=str(key).encode(), appended=appended
    )


def dead_letter(offset: int, source_offset: int) -> FakeRecord:
    headers: Headers = [
        ("__connect.errors.topic", TOPIC.encode()),
        ("__connect.errors.partition", b"0"),
        ("__connect.errors.offset", str(source_offset).encode()),
        ("__connect.errors.stage", b"validator"),
        ("__streamflow.error_code", b"SCHEMA_VIOLATION"),
        (ORIGIN_HEADER, f"{TOPIC}/0/{source_offset}".encode()),
    ]
    return FakeRecord(offset, b"{}", topic=CUSTOMERS.dead_letter_topic, headers=headers)


def bad(offset: int, key: int) -> FakeRecord:
    return FakeRecord(offset, b"{}", topic=TOPIC, key=str(key).encode())


def living(settings: Settings) -> dict[int, Any]:
    from loads import rows

    return dict(rows(settings, "SELECT id, name FROM customers"))
