"""Day partitions: ready for every day, bounded for hostile ones."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from faults import at_once
from loads import FakeRecord, Load, event, execute, rows, value
from streamflow.postgres import partitions
from streamflow.postgres.connections import Connection, connect
from streamflow.postgres.partitions import DayPartitions
from streamflow.postgres.schema import upgrade
from streamflow.registry import load_streams
from streamflow.settings import Settings

pytestmark = pytest.mark.integration

COUNT = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass"
WHERE = "SELECT tableoid::regclass::text FROM events ORDER BY origin_offset"
TODAY = date(2026, 7, 1)


@pytest.fixture
def connection(database: Settings) -> Iterator[Connection]:
    opened = connect(database, "test")
    yield opened
    opened.close()


def test_today_and_tomorrow_are_ready(database: Settings) -> None:
    today = datetime.now(UTC).date()
    # The template of the tests' databases may be of yesterday: a run of the tests goes through midnight.
    upgrade(database, load_streams(database))
    names = {name for (name,) in rows(database, "SELECT relname FROM pg_class")}

    for day in (today, today + timedelta(days=1)):
        assert partitions.partition_name("events", day) in names


def test_each_row_lies_in_the_partition_of_its_day(database: Settings) -> None:
    load = Load(database)
    times = [
        "2026-07-01T23:59:59.999Z",
        "2026-07-02T00:00:00Z",
        "2026-07-02T00:30:00+01:00",
        "0001-01-02T00:00:00Z",
        "9999-12-30T00:00:00Z",
    ]
    load.load([FakeRecord(index, event(1, time=time)) for index, time in enumerate(times)])
    load.sink.close()

    assert [name for (name,) in rows(database, WHERE)] == [
        "events_20260701",
        "events_20260702",
        "events_20260701",
        "events_00010102",
        "events_99991230",
    ]


def test_hostile_days_are_bounded(database: Settings) -> None:
    load = Load(database)
    before = value(database, COUNT)
    days = [date(1, 1, 2) + timedelta(days=997 * number) for number in range(3000)]
    records = [
        FakeRecord(index, event(1, time=f"{day.isoformat()}T00:00:00Z"))
        for index, day in enumerate(days)
    ]
    load.load(records[:1500])
    load.load(records[1500:])
    load.sink.close()

    assert value(database, "SELECT count(*) FROM events") == 3000
    assert value(database, COUNT) - before == 2 * partitions.MOST_AT_ONCE


def test_days_near_the_present_always_get_theirs(
    connection: Connection, database: Settings
) -> None:
    known = DayPartitions("events", most_far=3)
    far = [date(1990, 1, 1) + timedelta(days=number) for number in range(10)]

    before = value(database, COUNT)
    known.prepare(connection, far, today=TODAY)
    full = value(database, COUNT)
    known.prepare(connection, [date(1980, 1, 1)], today=TODAY)
    unchanged = value(database, COUNT)
    known.prepare(connection, [TODAY - timedelta(days=5)], today=TODAY)

    assert full - before <= 3 + 2
    assert unchanged == full
    assert value(database, COUNT) == full + 1


def test_a_day_with_rows_in_the_default_partition_stays_there(database: Settings) -> None:
    execute(
        database,
        'INSERT INTO events (id, type, "user", "timestamp", origin_topic, origin_partition,'
        " origin_offset) VALUES (1, 'USER_LOGIN', 'a', '2001-01-01T12:00:00Z', 't', 0, 0)",
    )
    load = Load(database)

    load.load([FakeRecord(1, event(2, time="2001-01-01T13:00:00Z"))])
    load.sink.close()

    assert rows(database, WHERE) == [("events_default",), ("events_default",)]


def test_a_long_read_does_not_stop_the_loader(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_LOCK_TIMEOUT", timedelta(seconds=1))
    load = Load(database)
    with psycopg.connect(database.database) as reader:
        reader.execute("SELECT count(*) FROM events")
        load.load([FakeRecord(0, event(1, time="2001-01-01T13:00:00Z"))])
    load.sink.close()

    assert rows(database, WHERE) == [("events_default",)]


def test_many_loaders_make_the_same_days_at_once(database: Settings) -> None:
    days = [TODAY + timedelta(days=number) for number in range(-20, 0)]

    def prepare(_number: int) -> None:
        with closing(connect(database, "test")) as connection:
            DayPartitions("events").prepare(connection, days, today=TODAY)

    at_once(4, prepare)

    names = {name for (name,) in rows(database, "SELECT relname FROM pg_class")}
    assert {partitions.partition_name("events", day) for day in days} <= names
