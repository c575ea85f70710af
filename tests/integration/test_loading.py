"""Every path of the sink, against a real database: rows and positions, both or neither."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from faults import at_once
from loads import (
    NOW,
    TOPIC,
    FakeRecord,
    Load,
    dead_letter,
    event,
    events,
    execute,
    replay,
    rows,
    value,
    window_count,
)
from streamflow import Event, Stream, Timestamp, TumblingWindow
from streamflow.errors import ConfigurationError, Fenced, Unavailable
from streamflow.flow import Partition
from streamflow.postgres import schema
from streamflow.records import (
    ORIGIN_HEADER,
    SOURCE_HEADER,
    Headers,
    OutRecord,
    Position,
    last_header,
)
from streamflow.settings import Settings
from streamflow.signing import Signer

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("exact_row_counts")]

OFFSETS = 'SELECT origin_offset FROM events ORDER BY "timestamp"'
POSITION = "SELECT next_offset FROM loader_positions WHERE topic = 'user-events' AND partition = 0"

WINDOWS = TumblingWindow("10s", by="number")

LoadFactory = Callable[..., Load]


@pytest.fixture
def make_load(database: Settings) -> Iterator[LoadFactory]:
    made: list[Load] = []

    def make(**changes: Any) -> Load:
        made.append(Load(database, **changes))
        return made[-1]

    yield make
    for load in made:
        load.sink.close()


@pytest.fixture
def load(make_load: LoadFactory) -> Load:
    return make_load()


def test_rows_and_positions_of_a_batch(load: Load, database: Settings) -> None:
    assert load.resume() == {(TOPIC, 0): None}

    load.hand_over([*events([0, 1, 2]), FakeRecord(3, b"{")])
    load.sink.flush()

    assert rows(database, 'SELECT id, "user", type FROM events ORDER BY id') == [
        (0, "user0", "USER_LOGIN"),
        (1, "user1", "USER_LOGIN"),
        (2, "user2", "USER_LOGIN"),
    ]
    query = "SELECT group_name, next_offset, records, rejected FROM loader_positions"
    assert rows(database, query) == [("db-group", 4, 4, 1)]
    assert load.resume() == {(TOPIC, 0): Position(TOPIC, 0, 4)}
    assert load.sink.take_durable() == [Position(TOPIC, 0, 4)]
    assert load.sink.take_durable() == []
    assert load.sink.counters.rows == 3


def test_all_topics_of_a_batch_in_one_transaction(load: Load, database: Settings) -> None:
    note = {"message": "m", "time": NOW.isoformat(), "event_id": 1, "user": "a"}
    load.load(
        [
            *events([0]),
            window_count(7, 0),
            FakeRecord(3, json.dumps(note).encode(), topic="notifications"),
            dead_letter(5, "user-events/0/9", 9),
        ]
    )

    for table in ("events", "window_counts", "notifications", "dead_letters"):
        assert value(database, f"SELECT count(*) FROM {table}") == 1
    assert value(database, "SELECT count(DISTINCT loaded_at) FROM loader_positions, notifications")
    assert rows(database, "SELECT headers->0->>0, value, status FROM dead_letters") == [
        ("__connect.errors.topic", b"{}", "open")
    ]


def test_hostile_text_comes_out_as_it_went_in(load: Load, database: Settings) -> None:
    texts = ["\\N", "None", "a\tb\nc\rd\\e", "'; DROP TABLE events; --", "é😀\u2028", "\x01\x7f"]
    load.load([FakeRecord(index, event(index, user=text)) for index, text in enumerate(texts)])

    assert [user for (user,) in rows(database, 'SELECT "user" FROM events ORDER BY id')] == texts


def test_a_batch_read_again_after_positions_were_set_back(load: Load, database: Settings) -> None:
    load.load(events(range(5)))
    execute(database, "UPDATE loader_positions SET next_offset = 2")

    load.load(events(range(2, 8)))

    assert [offset for (offset,) in rows(database, OFFSETS)] == list(range(8))
    assert value(database, POSITION) == 8
    # The same record twice is no second record.
    assert value(database, "SELECT count(*) FROM duplicates") == 0
    assert load.sink.counters.slow == 1


def test_a_second_record_of_one_identity_is_a_duplicate(load: Load, database: Settings) -> None:
    load.load([window_count(0, first_offset=40), window_count(1, first_offset=50)])

    load.load([window_count(2, first_offset=50), window_count(3, first_offset=60)])

    assert rows(database, "SELECT record_offset FROM window_counts ORDER BY first_offset") == [
        (0,),
        (1,),
        (3,),
    ]
    query = 'SELECT topic, "offset", origin_offset, table_name, event_type FROM duplicates'
    assert rows(database, query) == [("analytics", 2, 50, "window_counts", "USER_LOGIN")]
    assert load.sink.counters.duplicates == 1


def test_two_records_of_one_identity_in_one_batch(load: Load, database: Settings) -> None:
    load.load([window_count(0, first_offset=50), window_count(1, first_offset=50)])

    assert rows(database, "SELECT record_offset FROM window_counts") == [(0,)]
    assert rows(database, 'SELECT "offset" FROM duplicates') == [(1,)]


def test_a_refused_row_becomes_a_dead_letter_and_its_neighbours_rows(
    load: Load, database: Settings
) -> None:
    execute(database, "ALTER TABLE events ADD CONSTRAINT odd CHECK (id NOT IN (13, 77))")

    load.load(events(range(100)))

    assert value(database, "SELECT count(*) FROM events") == 98
    assert value(database, POSITION) == 100
    assert [last_header(each.headers, "__connect.errors.offset") for each in load.delivered] == [
        b"13",
        b"77",
    ]
    headers = load.delivered[0].headers
    assert last_header(headers, "__streamflow.error_code") == b"UNSTORABLE_VALUE"
    assert last_header(headers, "__connect.errors.stage") == b"loader"
    message = last_header(headers, "__connect.errors.exception.message")
    assert message is not None
    assert b"odd" in message
    assert b"user13" not in message
    assert load.sink.counters.refused == 2


def test_dead_letters_are_delivered_before_the_position_moves(
    load: Load, database: Settings
) -> None:
    seen: list[Any] = []
    load.deliver = lambda records: seen.append(  # type: ignore[method-assign]
        (len(records), rows(database, POSITION + " AND next_offset > 0"))
    )
    load.sink._deliver = load.deliver
    execute(database, "ALTER TABLE events ADD CONSTRAINT odd CHECK (id <> 1)")

    load.load(events(range(3)))

    assert seen == [(1, [])]
    assert value(database, POSITION) == 3


def test_nothing_is_kept_when_dead_letters_cannot_be_delivered(
    load: Load, database: Settings
) -> None:
    def fail(_records: list[OutRecord]) -> None:
        raise Unavailable("no broker")

    load.sink._deliver = fail
    load.resume((TOPIC, 0), ("analytics", 0))
    load.hand_over([*events([0]), FakeRecord(0, b"{", topic="analytics")])

    with pytest.raises(Unavailable, match="no broker"):
        load.sink.flush()

    assert value(database, "SELECT count(*) FROM events") == 0
    assert load.resume() == {(TOPIC, 0): None}


def test_a_refused_dead_letter_stops_the_loader(load: Load, database: Settings) -> None:
    execute(database, "ALTER TABLE dead_letters ADD CONSTRAINT none CHECK (false)")

    with pytest.raises(ConfigurationError, match="refuses a dead letter"):
        load.load([dead_letter(0, "user-events/0/1")])

    assert load.delivered == []


def test_a_loader_whose_position_was_moved_is_fenced(
    make_load: LoadFactory, database: Settings
) -> None:
    zombie, heir = make_load(), make_load()
    zombie.load(events(range(3)))
    heir.load(events(range(3, 6)))

    zombie.hand_over(events(range(3, 9)))
    with pytest.raises(Fenced, match="user-events/0 is at offset 6"):
        zombie.sink.flush()

    assert value(database, "SELECT count(*) FROM events") == 6
    assert value(database, POSITION) == 6
    # It starts anew where the heir is.
    assert zombie.resume() == {(TOPIC, 0): Position(TOPIC, 0, 6)}
    zombie.hand_over(events(range(6, 9)))
    zombie.sink.flush()
    assert value(database, "SELECT count(*) FROM events") == 9


def test_two_loaders_that_start_at_once(make_load: LoadFactory, database: Settings) -> None:
    first, second = make_load(), make_load()
    first.resume()
    second.resume()
    first.hand_over(events(range(3)))
    first.sink.flush()

    second.hand_over(events(range(3)))
    with pytest.raises(Fenced):
        second.sink.flush()

    assert value(database, "SELECT count(*) FROM events") == 3


def test_no_commit_without_taking_over(load: Load, database: Settings) -> None:
    load.hand_over(events([0]))

    with pytest.raises(Fenced, match="not taken over"):
        load.sink.flush()
    assert value(database, "SELECT count(*) FROM events") == 0


def cut(database: Settings) -> None:
    execute(
        database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'streamflow-loader' AND datname = current_database()",
    )


def test_cut_off_in_mid_transaction(load: Load, database: Settings) -> None:
    """The dead letter of the batch is delivered after its rows and before its commit."""
    load.sink._deliver = lambda _records: cut(database)
    load.resume((TOPIC, 0), ("analytics", 0))
    load.hand_over([*events(range(50)), FakeRecord(0, b"{", topic="analytics")])

    with pytest.raises(Unavailable):
        load.sink.flush()

    assert value(database, "SELECT count(*) FROM events") == 0
    # What was made meanwhile cannot slip in behind the lost batch.
    load.hand_over(events(range(50, 60)))
    with pytest.raises(Fenced, match="not taken over"):
        load.sink.flush()
    assert load.resume() == {(TOPIC, 0): None}
    load.hand_over(events(range(60)))
    load.sink.flush()
    assert value(database, "SELECT count(*) FROM events") == 60


def test_cut_off_between_batches(load: Load, database: Settings) -> None:
    load.load(events(range(3)))
    cut(database)

    load.hand_over(events(range(3, 6)))
    with pytest.raises(Unavailable):
        load.sink.flush()

    assert load.resume() == {(TOPIC, 0): Position(TOPIC, 0, 3)}
    load.hand_over(events(range(3, 6)))
    load.sink.flush()
    assert value(database, "SELECT count(*) FROM events") == 6


def test_an_error_is_raised_by_the_next_commit(load: Load, database: Settings) -> None:
    load.load(events(range(3)))
    cut(database)
    load.hand_over(events(range(3, 6)))

    with pytest.raises(Unavailable):
        load.hand_over(events(range(6, 9)))

    assert value(database, POSITION) == 3


def test_a_stopped_database_is_unavailable() -> None:
    away = Settings(DATABASE_URL="postgresql://nobody:secret@127.0.0.1:1/none")

    with pytest.raises(Unavailable) as caught:
        Load(away).resume()

    assert "secret" not in str(caught.value)


def test_a_missing_schema_says_what_to_do(load: Load, database: Settings) -> None:
    execute(database, "DROP TABLE loader_positions")

    with pytest.raises(ConfigurationError, match="streamflow db upgrade"):
        load.resume()


def test_a_deadlock_is_tried_again(load: Load, database: Settings) -> None:
    """A function that loses its first deadlock, as PostgreSQL tells it."""
    execute(
        database,
        """
        CREATE SEQUENCE tries;
        CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('tries') = 1 THEN RAISE EXCEPTION 'lost' USING ERRCODE = '40P01'; END IF;
            RETURN NEW; END $$;
        CREATE TRIGGER lose BEFORE UPDATE ON loader_positions FOR EACH ROW EXECUTE FUNCTION lose();
        """,
    )

    load.load(events(range(3)))

    assert value(database, "SELECT count(*) FROM events") == 3
    assert value(database, "SELECT last_value FROM tries") == 2


def test_a_replayed_event_is_stored_once_whatever_its_time(load: Load, database: Settings) -> None:
    load.load([FakeRecord(0, b"{}"), dead_letter(0, "user-events/0/0")])

    load.sent("user-events/0/0", "user-events/0/1", "user-events/0/3")
    load.load([replay(1, "user-events/0/0")])
    load.load([*events([2]), replay(3, "user-events/0/0", time="2020-02-29T00:00:00Z")])

    query = "SELECT origin_offset, id FROM events ORDER BY origin_offset"
    assert rows(database, query) == [(0, 1), (2, 2)]
    query = 'SELECT origin_offset, "offset", attempt FROM replayed_events'
    assert rows(database, query) == [(0, 1, 1)]
    query = 'SELECT "offset", origin_offset, event_type, table_name FROM duplicates'
    assert rows(database, query) == [(3, 0, "USER_LOGIN", "events")]


def test_two_replays_of_one_origin_in_one_batch(load: Load, database: Settings) -> None:
    load.load([FakeRecord(0, b"{}"), dead_letter(0, "user-events/0/0")])

    load.sent("user-events/0/0", "user-events/0/1", "user-events/0/2")
    load.load([replay(1, "user-events/0/0", 5), replay(2, "user-events/0/0", 6)])

    assert rows(database, "SELECT id FROM events") == [(5,)]
    assert rows(database, 'SELECT "offset" FROM duplicates') == [(2,)]


def test_a_replay_read_again_changes_nothing(load: Load, database: Settings) -> None:
    load.load([FakeRecord(0, b"{}"), dead_letter(0, "user-events/0/0")])
    load.sent("user-events/0/0", "user-events/0/1")
    load.load([replay(1, "user-events/0/0")])
    execute(database, "UPDATE loader_positions SET next_offset = 1 WHERE topic = 'user-events'")

    load.load([replay(1, "user-events/0/0")])

    assert value(database, "SELECT count(*) FROM events") == 1
    assert value(database, "SELECT count(*) FROM duplicates") == 0


def test_a_replay_of_what_never_failed_is_first_hand(load: Load, database: Settings) -> None:
    load.load([*events([0]), replay(1, "user-events/0/0", 9), replay(2, "user-events/7/7", 8)])

    query = "SELECT origin_partition, origin_offset, id FROM events ORDER BY origin_offset"
    assert rows(database, query) == [(0, 0, 0), (0, 1, 9), (0, 2, 8)]
    assert value(database, "SELECT count(*) FROM replayed_events") == 0


def test_a_claimed_origin_cannot_take_the_place_of_an_event_to_come(
    load: Load, database: Settings
) -> None:
    """Anyone can write an origin header, on what is refused and on what is not."""
    load.load([FakeRecord(0, b"{}"), dead_letter(0, "user-events/0/2", source_offset=0)])
    load.load([replay(1, "user-events/0/2", 9)])

    load.load(events([2]))

    query = "SELECT origin_offset, id FROM events ORDER BY origin_offset"
    assert rows(database, query) == [(1, 9), (2, 2)]
    assert value(database, "SELECT count(*) FROM replayed_events") == 0


def test_a_claimed_origin_is_a_notification_s_only_if_it_is_of_a_replay(
    load: Load, database: Settings
) -> None:
    def notification(offset: int, number: int, origin: bytes, source: bytes) -> FakeRecord:
        body = {"message": "m", "time": "2026-07-01T12:00:00Z", "event_id": number, "user": "u"}
        headers: Headers = [(ORIGIN_HEADER, origin), (SOURCE_HEADER, source)]
        return FakeRecord(offset, json.dumps(body).encode(), topic="notifications", headers=headers)

    load.load([dead_letter(0, "user-events/0/0", source_offset=0)])
    load.sent("user-events/0/0", "user-events/1/10")
    load.load(
        [
            notification(0, 10, b"user-events/0/0", b"user-events/1/10"),
            notification(1, 11, b"user-events/0/5", b"user-events/1/11"),
            # There is such a dead letter, but that is no replay of it.
            notification(3, 12, b"user-events/0/0", b"user-events/1/12"),
        ]
    )
    load.load([notification(2, 5, b"user-events/0/5", b"user-events/0/5")])

    query = "SELECT origin_partition, origin_offset, event_id FROM notifications ORDER BY event_id"
    assert rows(database, query) == [(0, 5, 5), (0, 0, 10), (1, 11, 11), (1, 12, 12)]
    assert value(database, "SELECT count(*) FROM duplicates") == 0


def test_a_claimed_origin_of_an_open_dead_letter_is_nothing(load: Load, database: Settings) -> None:
    """C5: neither a record that is none of our replays, nor what one says of its origin."""
    load.load([FakeRecord(0, b"{}"), dead_letter(0, "user-events/0/0")])
    load.load([replay(1, "user-events/0/0", 9)])
    load.sent("user-events/0/0", "user-events/0/3", attempt=2)

    load.load([*events([2]), replay(3, "user-events/0/2", 3)])

    query = "SELECT origin_offset, id FROM events ORDER BY origin_offset"
    assert rows(database, query) == [(0, 3), (1, 9), (2, 2)]
    assert rows(database, "SELECT origin_offset, attempt FROM replayed_events") == [(0, 2)]
    assert value(database, "SELECT count(*) FROM duplicates") == 0


def test_a_dead_letter_s_claims_are_looked_up(load: Load, database: Settings) -> None:
    """C6: origin and attempt come from the replay records, or are the failed record's own."""
    load.load([dead_letter(0, "user-events/0/0")])
    load.sent("user-events/0/0", "user-events/0/3", attempt=2)
    forged = dead_letter(1, "user-events/0/8", 4)
    forged.headers().append(("__streamflow.attempt", b"9"))  # type: ignore[union-attr]
    replayed = dead_letter(2, "user-events/0/8", 3)

    load.load([forged, replayed])

    query = "SELECT source_offset, origin_offset, attempt FROM dead_letters ORDER BY 1"
    assert rows(database, query) == [(0, 0, 0), (3, 0, 2), (4, 4, 0)]


def test_a_foreign_record_displaces_nothing(make_load: LoadFactory, database: Settings) -> None:
    """C7, with a loader that trusts signatures only."""
    signer = Signer(b"a secret of the workers")
    load = make_load(signer=signer)
    body = {"message": "m", "time": "2026-07-01T12:00:00Z", "event_id": 1, "user": "u"}
    headers: Headers = [(ORIGIN_HEADER, b"user-events/0/0")]
    genuine = signer.sign(OutRecord("notifications", b"k", json.dumps(body).encode(), headers))

    def note(offset: int, made: OutRecord) -> FakeRecord:
        return FakeRecord(
            offset, made.value, topic="notifications", headers=made.headers, key=made.key
        )

    forged = genuine._replace(value=json.dumps(body | {"event_id": 666}).encode())
    load.load([note(0, forged), note(1, genuine), note(2, forged)])
    load.load([note(3, genuine), note(4, Signer(b"another secret").sign(forged))])

    assert rows(database, "SELECT origin_offset, event_id FROM notifications") == [(0, 1)]
    assert rows(database, 'SELECT topic, "offset" FROM duplicates') == [("notifications", 3)]
    found = [last_header(each.headers, "__connect.errors.offset") for each in load.delivered]
    assert found == [b"0", b"2", b"4"]
    codes = {last_header(each.headers, "__streamflow.error_code") for each in load.delivered}
    assert codes == {b"FOREIGN_RECORD"}
    counted = "SELECT records, rejected FROM loader_positions WHERE topic = 'notifications'"
    assert rows(database, counted) == [(5, 3)]


def test_the_replay_of_a_derived_record_needs_no_signature(
    make_load: LoadFactory, database: Settings
) -> None:
    """A dead letter of a notification knows the event, and so does its replay."""
    signer = Signer(b"a secret of the workers")
    load = make_load(signer=signer)
    body = {"message": "m", "time": "2026-07-01T12:00:00Z", "event_id": 1, "user": "u"}
    headers: Headers = [(ORIGIN_HEADER, b"user-events/0/7")]
    broken = signer.sign(OutRecord("notifications", b"k", b"{", headers))
    load.load([FakeRecord(0, b"{", topic="notifications", headers=broken.headers, key=b"k")])
    [letter] = map(signer.sign, load.delivered)
    load.load(
        [FakeRecord(0, b"{", topic="dead-letter-topic", headers=letter.headers, key=letter.key)]
    )
    load.sent("notifications/0/0", "notifications/0/1", "notifications/0/2")
    replays = [
        FakeRecord(1, json.dumps(body).encode(), topic="notifications"),
        FakeRecord(2, b"[", topic="notifications", headers=[("__streamflow.attempt", b"1")]),
    ]

    load.load(replays)

    query = "SELECT origin_topic, origin_offset, event_id FROM notifications"
    assert rows(database, query) == [("user-events", 7, 1)]
    assert last_header(load.delivered[-1].headers, "__streamflow.error_code") == b"INVALID_JSON"


def test_a_first_hand_event_that_a_replay_brought_before(load: Load, database: Settings) -> None:
    """The validator dead-lettered it under an older contract; the loader reads it only now."""
    load.load([dead_letter(0, "user-events/0/0")])
    record = replay(0, "user-events/0/0", 5)
    record._partition = 1
    load.sent("user-events/0/0", "user-events/1/0")
    load.load([record])

    load.load([*events([0, 1])])

    query = "SELECT origin_partition, origin_offset, id FROM events ORDER BY id"
    assert rows(database, query) == [(0, 1, 1), (0, 0, 5)]


def test_a_refused_replay_is_dead_lettered_with_its_origin(load: Load, database: Settings) -> None:
    load.load([FakeRecord(0, b"{}"), dead_letter(0, "user-events/0/0")])
    execute(database, "ALTER TABLE events ADD CONSTRAINT odd CHECK (id <> 5)")

    load.sent("user-events/0/0", "user-events/0/1")
    load.load([replay(1, "user-events/0/0", 5), *events([2])])

    [letter] = load.delivered
    assert last_header(letter.headers, ORIGIN_HEADER) == b"user-events/0/0"
    assert value(database, "SELECT count(*) FROM events") == 1
    assert value(database, "SELECT count(*) FROM replayed_events") == 0


def test_loaders_of_different_partitions_share_a_database(
    make_load: LoadFactory, database: Settings
) -> None:
    loads = [make_load() for _ in range(3)]

    def run(number: int) -> None:
        partition: Partition = (TOPIC, number)
        loads[number].resume(partition)
        for start in range(0, 500, 50):
            loads[number].hand_over(events(range(start, start + 50), partition=number))
        loads[number].sink.flush()

    at_once(3, run)

    assert value(database, "SELECT count(*) FROM events") == 1500
    assert rows(database, "SELECT next_offset FROM loader_positions") == [(500,)] * 3


def test_sessions_do_not_hang_for_ever(load: Load, database: Settings) -> None:
    """A lock that nobody gives back ends as an outage that is waited for."""
    load.resume()
    load.sink._connected().execute("SET lock_timeout = '100ms'")
    with psycopg.connect(database.database) as other:
        other.execute("LOCK TABLE loader_positions")
        load.hand_over(events([0]))
        with pytest.raises(Unavailable, match="55P03"):
            load.sink.flush()

    assert value(database, "SELECT count(*) FROM events") == 0


class Awkward(Event):
    """Fields whose names the SQL of a loader has a use for, too."""

    number: int
    attempt: int = 0
    line: str = "l"
    state: str = "s"
    kept: str = "k"
    fresh: bool = True
    topic: str = "t"
    partition: int = 0
    offset: int = 0
    record_topic: str = "r"
    record_partition: int = 0
    record_offset: int = 0
    timestamp: Timestamp


def test_awkward_names_of_a_table_and_its_fields(
    make_load: LoadFactory, database: Settings
) -> None:
    for number, table in enumerate(("incoming", "refused", "trial", "fresh", "kept")):
        stream = Stream(name=table, contract=Awkward, table=table, key="line", windows=WINDOWS)
        schema.upgrade(database, [stream])
        execute(database, f"ALTER TABLE {table} ADD CONSTRAINT odd CHECK (number <> 2)")
        load = make_load(streams=[stream])

        load.load([awkward(table, 0, 1), awkward(table, 1, 2), awkward(table, 2, 3)])
        load.load([dead_letter(number, f"{table}/0/1", source_offset=number)])
        load.sent(f"user-events/0/{number}", f"{table}/0/3", f"{table}/0/4")
        origin: Headers = [(ORIGIN_HEADER, f"{table}/0/1".encode()), ("__streamflow.attempt", b"1")]
        load.load(
            [awkward(table, 3, 5, origin), awkward(table, 4, 6, origin), awkward(table, 5, 7)]
        )

        assert len(load.delivered) == 1
        assert rows(database, f"SELECT number FROM {table} ORDER BY 1") == [(1,), (3,), (5,), (7,)]
        of_topic = f"WHERE topic = '{table}'"
        assert rows(database, f'SELECT "offset" FROM refused_events {of_topic}') == [(1,)]
        assert rows(database, f'SELECT "offset" FROM duplicates {of_topic}') == [(4,)]


def awkward(topic: str, offset: int, number: int, headers: Headers | None = None) -> FakeRecord:
    content = json.dumps({"number": number, "timestamp": NOW.isoformat()}).encode()
    return FakeRecord(offset, content, topic=topic, headers=headers or [])
