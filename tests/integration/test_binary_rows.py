"""Binary rows of events say what the same rows say as text, and no table misreads them."""

import json
import os
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from psycopg import sql
from structlog.testing import capture_logs

from drawn import contracts
from loads import TRUSTING, FakeRecord, Load, batch, events, rows
from payments import PAYMENTS
from streamflow import Event, Stream, Timestamp
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.creating import create_events
from streamflow.postgres.sink.copy import copy, copy_rows
from streamflow.postgres.tables import event_columns
from streamflow.privacy import Hasher
from streamflow.records import Rejection, position_of
from streamflow.settings import Settings
from streaming_workers.loader import Loader
from upserts import CUSTOMERS, delete, put

AT = "2026-07-01T12:00:00.5+02:00"
EXAMPLES = int(os.environ.get("EXAMPLES", "25"))
# Rows in one table and not in the other, as PostgreSQL writes them.
DIFFERENT = """
(SELECT drawn::text FROM drawn EXCEPT ALL SELECT as_text::text FROM as_text)
UNION ALL (SELECT as_text::text FROM as_text EXCEPT ALL SELECT drawn::text FROM drawn)
"""


def paid(**fields: Any) -> bytes:
    return json.dumps({"type": "PAID", "timestamp": AT} | fields).encode()


def refunded() -> bytes:
    return json.dumps(
        {"type": "REFUNDED", "timestamp": AT, "reason": "None", "final": False}
    ).encode()


class Far(Event):
    """What the drawn contracts hardly meet."""

    moment: Timestamp
    ratio: float
    span: timedelta = timedelta(days=-1, microseconds=1)
    exact: str = "\\N\t\n"
    none: str | None = None


FAR = Stream(name="drawn", contract=Far, table="drawn", key="exact", event_time="moment")
FAR_EVENTS: list[dict[str, Any]] = [
    {"moment": moment, "ratio": ratio, "none": text}
    for moment, ratio, text in [
        ("0001-01-02T00:00:00.000001Z", 5e-324, None),
        ("9999-12-30T00:00:00Z", 1.7976931348623157e308, ""),
        ("1999-12-31T23:59:59.999999+00:00", -0.0, "None"),
        ("2026-07-01T12:00:00.123456-23:59", 0.1, "\U0010ffff" * 300),
    ]
]


@settings(
    max_examples=EXAMPLES, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(drawn=contracts())
@example(drawn=(FAR, FAR_EVENTS))
def test_a_binary_row_is_the_row_of_its_line(
    drawn: tuple[Stream, list[dict[str, Any]]], connection: Connection
) -> None:
    stream, documents = drawn
    loader = Loader(Settings(), [stream], Hasher(), lambda: TRUSTING)
    records = [
        FakeRecord(offset, json.dumps(each).encode(), topic="drawn", partition=offset % 2)
        for offset, each in enumerate(documents)
    ]
    found = [(each, stream.read(each)) for each in records]
    events_ = [(each, event) for each, event in found if not isinstance(event, Rejection)]
    if not events_:
        return
    handler: Any = loader._handlers["drawn"]
    lines = [
        handler.rows.line(event, position_of(each), each.timestamp()) for each, event in events_
    ]

    output = loader.process(batch(records))

    made = output.tables["drawn"]
    assert made.is_binary
    assert made.sources == [each for each, _ in events_]
    with connection.transaction(force_rollback=True):
        connection.execute(create_events(stream, event_columns(stream)))
        connection.execute("CREATE TABLE as_text (LIKE drawn INCLUDING DEFAULTS)")
        copy_rows(connection, loader.tables, output)
        copy(connection, sql.Identifier("as_text"), handler.rows.table.columns, lines)
        assert connection.execute(DIFFERENT).fetchall() == []
        assert connection.execute("SELECT count(*) FROM drawn").fetchone() == (len(lines),)
    # What the slow path makes of it.
    assert made.lines == lines
    assert not made.is_binary


def test_tombstones_and_events_of_a_union_too(connection: Connection) -> None:
    union = [
        FakeRecord(0, paid(amount=0.5, colour="red"), topic="payments"),
        FakeRecord(1, refunded(), topic="payments"),
        FakeRecord(2, paid(amount=2, tags=["a\\\t", "b"]), topic="payments"),
    ]
    changes = [put(0, 7, "ann"), delete(1, 7), put(2, 8, "b\\b", email="a" * 64), delete(3, 9)]
    for stream, records in ((PAYMENTS, union), (CUSTOMERS, changes)):
        loader = Loader(Settings(), [stream], Hasher(), lambda: TRUSTING)
        output = loader.process(batch(records))
        made = output.tables[stream.event_table]
        assert made.is_binary
        with connection.transaction(force_rollback=True):
            connection.execute(create_events(stream, event_columns(stream)))
            copy_rows(connection, loader.tables, output)
            stored = stored_rows(connection, stream)
        with connection.transaction(force_rollback=True):
            connection.execute(create_events(stream, event_columns(stream)))
            handler: Any = loader._handlers[stream.topic]
            lines = [handler._line(stream.read(each), each, position_of(each)) for each in records]
            copy(connection, sql.Identifier(stream.event_table), handler.rows.table.columns, lines)
            assert stored == stored_rows(connection, stream)
        assert made.lines == lines
        assert made.sources == records


def stored_rows(connection: Connection, stream: Stream) -> list[str]:
    columns = [
        sql.Identifier(each.name) for each in event_columns(stream) if each.name != "loaded_at"
    ]
    query = sql.SQL("SELECT ROW({})::text FROM {} ORDER BY origin_offset")
    query = query.format(sql.SQL(", ").join(columns), sql.Identifier(stream.event_table))
    return [text for (text,) in connection.execute(query)]


@pytest.mark.parametrize(
    ("change", "columns"),
    [
        # PostgreSQL would read eight bytes of one type as eight of the other, and never notice.
        ("id TYPE double precision USING id::float8, ALTER id SET NOT NULL", "id"),
        # Here it notices.
        ("id TYPE integer", "id"),
        ('"user" TYPE varchar(300), ALTER type TYPE varchar(30)', "type, user"),
    ],
)
def test_a_table_of_other_types_is_loaded_as_text(
    database: Settings, change: str, columns: str
) -> None:
    with session(database, "test") as connection:
        connection.execute(f"ALTER TABLE events ALTER {change}".encode())
    load = Load(database)
    with closing(load.sink), capture_logs() as logs:
        load.load([*events(range(5)), *events([7], partition=1)])
        load.load(events(range(5, 9)))
    assert load.sink.counters.slow == 0
    assert [each["why"].partition(" have ")[0] for each in logs if "why" in each] == [columns]
    assert rows(database, 'SELECT id::int, "user" FROM events ORDER BY id, origin_partition') == [
        (each, f"user{each}") for each in (*range(8), 7, 8)
    ]  # fmt: skip


def test_a_type_that_changes_between_two_batches_is_noticed(database: Settings) -> None:
    load = Load(database)
    with closing(load.sink):
        load.load(events(range(3)))
        with session(database, "test") as connection:
            connection.execute("ALTER TABLE events ALTER id TYPE double precision")
        load.load(events(range(3, 6)))
    assert rows(database, "SELECT id::int FROM events ORDER BY id") == [
        (each,) for each in range(6)
    ]
