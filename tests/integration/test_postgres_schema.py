"""The schema: applied twice, at once, grown by a field, and refused where values would be lost."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, create_model

from faults import at_once
from loads import FakeRecord, Load, event, execute, rows
from services import DatabaseService
from streamflow.contract import Event, Timestamp
from streamflow.errors import ConfigurationError, StreamsRefused, Unavailable
from streamflow.names import OWN_TABLES, derives, table_fault
from streamflow.postgres import migrating, schema
from streamflow.postgres.against import changes_for
from streamflow.postgres.connections import session
from streamflow.postgres.evolution import Change, Level
from streamflow.postgres.row_counts import row_counts
from streamflow.postgres.signing_key import SigningKey
from streamflow.records import OutRecord
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.streams.user_events import USER_EVENTS

pytestmark = pytest.mark.integration


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
    assert not schema.is_newest(empty)
    assert schema.pending(empty, [USER_EVENTS]) == [
        "migration 0001",
        "migration 0002",
        "migration 0003",
        "migration 0004",
        "migration 0005",
        "migration 0006",
        "migration 0007",
        "migration 0008",
        "migration 0009",
        "migration 0010",
        "migration 0011",
        "migration 0012",
        "migration 0013",
        "migration 0014",
        "migration 0015",
        "migration 0016",
        "table events",
    ]

    assert schema.upgrade(empty, [USER_EVENTS]) == [
        "migration 0001",
        "migration 0002",
        "migration 0003",
        "migration 0004",
        "migration 0005",
        "migration 0006",
        "migration 0007",
        "migration 0008",
        "migration 0009",
        "migration 0010",
        "migration 0011",
        "migration 0012",
        "migration 0013",
        "migration 0014",
        "migration 0015",
        "migration 0016",
        "table events",
    ]

    assert schema.is_newest(empty)
    assert schema.upgrade(empty, [USER_EVENTS]) == []
    assert schema.pending(empty, [USER_EVENTS]) == []
    assert row_counts(empty, [USER_EVENTS]).rows == {
        "events": 0,
        "window_counts": 0,
        "notifications": 0,
        "dead_letters": 0,
    }


def test_what_the_migrations_make_is_taken(empty: Settings) -> None:
    """No stream may have a table of the name of one of ours: the list is complete."""
    schema.upgrade(empty, [])
    found = rows(
        empty,
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v')"
        " AND relnamespace = 'public'::regnamespace",
    )
    of_the_example = {rollup.table for rollup in USER_EVENTS.rollups}
    assert {name for (name,) in found} - of_the_example == OWN_TABLES


def test_what_a_stream_s_table_has_around_it_is_taken(database: Settings) -> None:
    schema.upgrade(database, [stream_of()])
    found = rows(database, "SELECT relname FROM pg_class WHERE relname LIKE 'things%'")
    names = {name for (name,) in found} - {"things"}
    assert len(names) > 8
    assert [name for name in names if not derives("things", name)] == []


@pytest.mark.parametrize("table", ["order", "user", "Orders", "_t" * 25])
def test_a_table_of_an_awkward_name(database: Settings, table: str) -> None:
    assert table_fault(table) is None
    schema.upgrade(database, [stream_of(table)])
    assert schema.pending(database, [stream_of(table)]) == []
    # Of today and tomorrow.
    inherited = f"SELECT count(*) FROM pg_inherits WHERE inhparent = '\"{table}\"'::regclass"
    assert rows(database, f"{inherited} AND inhrelid::regclass::text !~ 'default'") == [(2,)]


def test_one_stream_s_table_stops_no_other(database: Settings) -> None:
    schema.upgrade(database, [stream_of(size=(int, ...))])
    execute(database, "CREATE TABLE theirs (id integer)")
    streams = [
        stream_of(size=(str, ...)),
        replace(stream_of("theirs"), name="more"),
        replace(stream_of("others"), name="others"),
    ]
    with pytest.raises(StreamsRefused) as caught:
        schema.upgrade(database, streams)
    assert list(caught.value.streams) == ["things", "more"]
    assert "the field size became text, but the column" in str(caught.value)
    assert "the table theirs exists already, and StreamFlow did not create it" in str(caught.value)
    # The last one's is there; what could not be upgraded is as it was.
    assert schema.pending(database, streams[2:]) == []
    assert columns(database, "things")["size"] == ("bigint", "NO")
    assert columns(database, "theirs") == {"id": ("integer", "YES")}
    assert schema.refused(database, streams) == caught.value.streams


def test_a_table_that_postgresql_does_not_take_stops_no_other(database: Settings) -> None:
    schema.upgrade(database, [stream_of("full")])
    more = ", ".join(f"ADD own_{number} integer" for number in range(1_591))
    execute(database, f'ALTER TABLE "full" {more}')
    full = stream_of("full", first=(int | None, None), second=(int | None, None))
    with pytest.raises(StreamsRefused, match=r"54011.*give its fields other names") as caught:
        schema.upgrade(database, [full, replace(stream_of("others"), name="others")])
    assert list(caught.value.streams) == ["things"]
    assert columns(database, "others")["user"] == ("text", "NO")


def test_many_at_once(empty: Settings) -> None:
    done = at_once(4, lambda _: schema.upgrade(empty, [USER_EVENTS]))
    assert sorted(map(len, done)) == [0, 0, 0, 17]


def test_what_older_releases_believed_is_put_right(
    empty: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Origin and attempt of dead letters are those that our replay records know. Where workers may
    still run, those of the older release have a while to end."""
    upgrade = migrating.command.upgrade
    monkeypatch.setattr(migrating.command, "upgrade", lambda config, _: upgrade(config, "0004"))
    with session(empty, "test") as connection:
        migrating.migrate(empty, connection)
    monkeypatch.undo()
    with Load(empty).sink._connected() as connection:
        for source, origin, attempt in ((0, 0, 0), (1, 7, 0), (2, 2, 9), (3, 0, 1)):
            connection.execute(
                "INSERT INTO dead_letters SELECT 't', 0, %s, 't', 0, %s, 'd', 0, %s, 'INVALID_JSON',"
                " 'validator', 'g', 'E', 'm', %s, false, now(), 'open', NULL, NULL, '[]'",
                [source, origin, source, attempt],
            )
    load = Load(empty)
    load.sent("t/0/0", "t/0/3")
    load.sink.close()
    execute(
        empty, "INSERT INTO loader_positions (group_name, topic, partition) VALUES ('g', 't', 0)"
    )

    assert "migration 0005" in schema.upgrade(empty, [])

    query = "SELECT source_offset, origin_offset, attempt FROM dead_letters ORDER BY 1"
    assert rows(empty, query) == [(0, 0, 0), (1, 1, 0), (2, 2, 0), (3, 0, 1)]
    query = "SELECT length(key), unsigned_until - created_at FROM signing_key"
    assert rows(empty, query) == [(32, timedelta(minutes=15))]


def test_the_key_of_the_database(database: Settings) -> None:
    signer = SigningKey(database).signer()
    record = signer.sign(OutRecord("notifications", b"k", b"{}", []))
    read = FakeRecord(0, record.value, topic=record.topic, key=record.key, headers=record.headers)
    # Another process reads the same key, and another installation has another one.
    assert SigningKey(database).signer().verify(read)
    [(until,)] = rows(database, "SELECT extract(epoch FROM unsigned_until)::float FROM signing_key")
    for seconds, older in ((-1, True), (1, False)):
        read.appended = (2, round((until + seconds) * 1000))
        assert signer.is_older(read) is older
    execute(database, "UPDATE signing_key SET key = sha256(key)")
    assert not SigningKey(database).signer().verify(read)

    execute(database, "DELETE FROM signing_key")
    with pytest.raises(ConfigurationError, match="STREAMFLOW_SIGNING_KEY"):
        SigningKey(database).signer()


def test_a_database_that_does_not_answer_is_waited_for_to_give_the_key() -> None:
    settings = Settings(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable, match="STREAMFLOW_SIGNING_KEY"):
        SigningKey(settings).signer()
    keyed = Settings(DATABASE_URL=settings.database, STREAMFLOW_SIGNING_KEY="x" * 16)
    assert SigningKey(keyed).signer()
    with pytest.raises(ConfigurationError, match="STREAMFLOW_SIGNING_KEY or DATABASE_URL"):
        SigningKey(Settings()).signer()


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


def money(digits: int) -> Any:
    return Annotated[Decimal, Field(max_digits=digits, decimal_places=2)]


def test_a_number_with_more_digits_is_widened_in_place(database: Settings) -> None:
    schema.upgrade(database, [stream_of(size=(money(4), ...))])
    content = b'{"type":"A","timestamp":"2026-07-01T12:00:00Z","user":"a","size":"12.34"}'
    load = Load(database, [stream_of(size=(money(4), ...))])
    load.load([FakeRecord(0, content, topic="things")])
    load.sink.close()
    files = (
        "SELECT pg_relation_filenode(oid) FROM pg_class WHERE relname LIKE 'things%' ORDER BY oid"
    )
    before = rows(database, files)

    wider = stream_of(size=(money(6), ...))
    assert schema.pending(database, [wider]) == ["column things.size is numeric(6,2)"]
    assert schema.upgrade(database, [wider]) == ["column things.size is numeric(6,2)"]
    assert schema.upgrade(database, [wider]) == []

    # No table was written anew.
    assert rows(database, files) == before
    load = Load(database, [wider])
    load.load([FakeRecord(1, content.replace(b"12.34", b"1234.56"), topic="things")])
    load.sink.close()
    assert rows(database, "SELECT size::text FROM things ORDER BY 1") == [("12.34",), ("1234.56",)]

    # Back, or with a view on it: nothing is lost, and somebody has to decide.
    with pytest.raises(ConfigurationError, match=r"size became numeric\(4,2\)"):
        schema.upgrade(database, [stream_of(size=(money(4), ...))])
    execute(database, "CREATE VIEW sizes AS SELECT size FROM things")
    with pytest.raises(ConfigurationError, match=r"used by a view.*: drop what uses it, run"):
        schema.upgrade(database, [stream_of(size=(money(8), ...))])


def test_what_a_contract_changes_for_a_database_with_rows(database: Settings) -> None:
    """`streamflow check --against`."""
    before = stream_of(size=(int, ...), note=(str | None, None))
    assert changes_for(database, before) == ([Change(Level.SAFE, "the table things is new")], 0)
    schema.upgrade(database, [before])
    load = Load(database, [before])
    content = '{"type":"%s","timestamp":"2026-07-0%dT12:00:00Z","user":"a","size":%d}'
    load.load([
        FakeRecord(number, (content % ("AB"[number % 2], 1 + number % 3, number)).encode(),
                   topic="things", partition=number % 4)
        for number in range(1_200)
    ])  # fmt: skip
    load.sink.close()
    assert changes_for(database, before) == ([], 1_000)

    # The newest of each partition: 0 to 199 are not among them.
    [narrower], _ = changes_for(database, stream_of(size=(Annotated[int, Field(ge=202)], ...),
                                                    note=(str | None, None)))  # fmt: skip
    assert narrower.level is Level.BREAKING
    assert narrower.what.startswith("2 of 1,000 newest rows are no valid events any more: size: ")
    fields: dict[str, Any] = {"type": (Literal["A"], ...), "size": (int, ...), "more": (str, ...)}
    levels = {
        change.what.split(" ")[0]: change.level
        for change in changes_for(database, stream_of(**fields))[0]
    }
    assert levels == {"`more`": Level.STEP, "`note`": Level.SAFE, "500": Level.BREAKING}

    # An emptied row is no event.
    execute(database, "UPDATE things SET type = 'erased' WHERE origin_offset = 1199")
    same = stream_of(type=(Literal["A", "B"], ...), size=(int, ...), note=(str | None, None))
    [odd], _ = changes_for(database, same)
    assert odd.what.startswith("1 of 1,000")
    execute(
        database,
        "INSERT INTO erasures (kind, hashes, requested_by) VALUES ('user', '{}', 'a test');"
        'INSERT INTO erased_records (erasure_id, place, topic, partition, "offset", appended_at)'
        " SELECT id, 'events', 'things', 3, 1199, now() FROM erasures",
    )
    assert changes_for(database, same) == ([], 999)

    # A table of somebody else's.
    execute(database, "CREATE TABLE theirs (id int)")
    [foreign], looked_at = changes_for(database, stream_of("theirs"))
    assert (foreign.level, looked_at) == (Level.BREAKING, 0)
    assert "StreamFlow did not create it" in foreign.what


def test_a_retyped_field_is_refused(database: Settings) -> None:
    schema.upgrade(database, [stream_of(size=(int, ...))])

    with pytest.raises(ConfigurationError, match=r"size became text.*is bigint.*new name"):
        schema.upgrade(database, [stream_of(size=(str, ...))])

    assert columns(database, "things")["size"] == ("bigint", "NO")


def test_a_removed_field_is_refused_where_rows_must_have_a_value(database: Settings) -> None:
    schema.upgrade(database, [stream_of(size=(int, ...))])

    with pytest.raises(
        ConfigurationError, match=r"no field size, .* ALTER COLUMN size DROP NOT NULL"
    ):
        schema.upgrade(database, [stream_of()])

    # What it says helps.
    execute(database, "ALTER TABLE things ALTER COLUMN size DROP NOT NULL")
    assert schema.upgrade(database, [stream_of()]) == []


def test_columns_that_no_field_knows_are_named_and_left_alone(database: Settings) -> None:
    """Added by hand, or by a newer release that was rolled back."""
    schema.upgrade(database, [stream_of(more=(int | None, None))])
    execute(database, "ALTER TABLE things ADD COLUMN team text NOT NULL DEFAULT 'ours'")

    older = stream_of()
    assert schema.upgrade(database, [older]) == schema.pending(database, [older]) == []
    [line] = schema.surplus(database, [older])
    assert "table things has columns" in line
    assert "(more, team)" in line
    assert schema.surplus(database, [USER_EVENTS]) == []

    load = Load(database, [older])
    content = b'{"type":"A","timestamp":"2026-07-01T12:00:00Z","user":"a"}'
    load.load([FakeRecord(0, content, topic="things")])
    load.sink.close()
    assert rows(database, "SELECT more, team FROM things") == [(None, "ours")]


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
