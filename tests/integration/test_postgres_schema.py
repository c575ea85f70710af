"""The schema: applied twice, at once, grown by a field, and refused where values would be lost."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, create_model

from faults import at_once
from loads import FakeRecord, Load, event, execute, rows
from services import DatabaseService
from streamflow.contract import Event, Timestamp
from streamflow.errors import ConfigurationError
from streamflow.postgres import schema
from streamflow.postgres.queries import row_counts
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.streams.user_events import USER_EVENTS

pytestmark = pytest.mark.integration


@pytest.fixture
def database(database_url: str) -> Settings:
    return Settings(DATABASE_URL=database_url)


@pytest.fixture
def empty(database_server: DatabaseService, prefix: str) -> Iterator[Settings]:
    name = prefix.replace("-", "_").strip(".")
    yield Settings(DATABASE_URL=database_server.create_database(name))
    database_server.drop_database(name)


def stream_of(table: str = "things", **fields: Any) -> Stream:
    known: dict[str, Any] = {"type": (str, ...), "timestamp": (Timestamp, ...), "user": (str, ...)}
    model: type[BaseModel] = create_model("Thing", __base__=Event, **(known | fields))
    return Stream(name="things", contract=model, table=table, key=lambda each: each.user)


def columns(settings: Settings, table: str) -> dict[str, tuple[str, str]]:
    query = (
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns"
        f" WHERE table_name = '{table}'"
    )
    return {name: (kind, nullable) for name, kind, nullable in rows(settings, query)}


def test_twice_is_once(empty: Settings) -> None:
    assert schema.pending(empty, [USER_EVENTS]) == [
        "migration 0001",
        "migration 0002",
        "migration 0003",
        "migration 0004",
        "migration 0005",
        "table events",
    ]

    assert schema.upgrade(empty, [USER_EVENTS]) == [
        "migration 0001",
        "migration 0002",
        "migration 0003",
        "migration 0004",
        "migration 0005",
        "table events",
    ]

    assert schema.upgrade(empty, [USER_EVENTS]) == []
    assert schema.pending(empty, [USER_EVENTS]) == []
    assert row_counts(empty) == {
        "events": 0,
        "window_counts": 0,
        "notifications": 0,
        "dead_letters": 0,
    }


def test_many_at_once(empty: Settings) -> None:
    done = at_once(4, lambda _: schema.upgrade(empty, [USER_EVENTS]))
    assert sorted(map(len, done)) == [0, 0, 0, 6]


def test_a_second_stream_gets_its_table(database: Settings) -> None:
    things = stream_of(size=(float, ...), note=(str | None, None))

    assert schema.upgrade(database, [USER_EVENTS, things]) == ["table things"]

    found = columns(database, "things")
    assert found["size"] == ("double precision", "NO")
    assert found["note"] == ("text", "YES")
    assert found["timestamp"] == ("timestamp with time zone", "NO")
    load = Load(database, [USER_EVENTS, things])
    content = b'{"type":"A","timestamp":"2026-07-01T12:00:00Z","user":"a","size":1.5}'
    load.load([FakeRecord(0, event(1)), FakeRecord(0, content, topic="things")])
    load.sink.close()
    assert rows(database, "SELECT size, note FROM things") == [(1.5, None)]


def test_a_new_field_becomes_a_column(database: Settings) -> None:
    schema.upgrade(database, [stream_of()])

    done = schema.upgrade(database, [stream_of(more=(int | None, None))])

    assert done == ["column things.more"]
    assert columns(database, "things")["more"] == ("bigint", "YES")


def test_a_field_that_became_optional(database: Settings) -> None:
    schema.upgrade(database, [stream_of(size=(int, ...))])

    done = schema.upgrade(database, [stream_of(size=(int | None, None))])

    assert done == ["column things.size may be null"]
    assert columns(database, "things")["size"] == ("bigint", "YES")


def test_a_retyped_field_is_refused(database: Settings) -> None:
    schema.upgrade(database, [stream_of(size=(int, ...))])

    with pytest.raises(ConfigurationError, match=r"size became text.*is bigint.*new name"):
        schema.upgrade(database, [stream_of(size=(str, ...))])

    assert columns(database, "things")["size"] == ("bigint", "NO")


def test_a_removed_field_is_refused(database: Settings) -> None:
    schema.upgrade(database, [stream_of(size=(int, ...))])

    with pytest.raises(ConfigurationError, match="no field size any more"):
        schema.upgrade(database, [stream_of()])


def test_a_database_of_a_newer_release_is_refused(database: Settings) -> None:
    execute(database, "UPDATE streamflow_schema_version SET version_num = '9999'")

    with pytest.raises(ConfigurationError, match="install the newer release"):
        schema.upgrade(database, [USER_EVENTS])


def test_a_wrong_password_says_what_to_check(database: Settings) -> None:
    url = database.database
    secret = url.split(":")[2].split("@")[0]
    wrong = Settings(DATABASE_URL=url.replace(secret, "wr0ng-secret"))

    with pytest.raises(ConfigurationError, match="DATABASE_URL") as caught:
        schema.upgrade(wrong, [USER_EVENTS])

    assert "wr0ng-secret" not in str(caught.value)
