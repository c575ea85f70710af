"""The state of upsert streams, in a real database: what is the latest of a key, and that the audit knows."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from pydantic import create_model

from loads import Load, execute, forget_listed, rows, value
from services import DatabaseService
from streamflow.audit import recreated
from streamflow.audit.problems import ProblemKind
from streamflow.audit.recreated import Reuse
from streamflow.audit.states import StateAudit, compare
from streamflow.erasure import erase
from streamflow.errors import ConfigurationError, Fenced, Unavailable
from streamflow.postgres import schema, state
from streamflow.postgres.against import changes_for
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.evolution import Level
from streamflow.postgres.forgotten import Kind
from streamflow.postgres.roles import role_statements
from streamflow.postgres.rows.events import EventRows
from streamflow.postgres.sink.copy import copy
from streamflow.records import Origin, last_header
from streamflow.settings import Settings
from streamflow.tombstones import Deletion
from streamflow_dagster.catalog import catalog_of
from streamflow_dagster.defs import content_checks
from streamflow_dagster.defs.retention_sql import drop_day, expired_days
from upserts import CUSTOMERS, NOON, TOPIC, Customer, bad, dead_letter, delete, living, put

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shared(database_server: DatabaseService, database_template: str) -> Iterator[Settings]:
    """One database for all: cloning it takes longer than most of these tests."""
    url = database_server.create_database("state_tables", database_template)
    made = Settings(DATABASE_URL=url)
    schema.upgrade(made, [CUSTOMERS])
    yield made
    database_server.drop_database("state_tables")


@pytest.fixture
def database(shared: Settings) -> Settings:
    """The database, empty."""
    execute(
        shared,
        "TRUNCATE customers_changes, customers_state, loader_positions, replayed_events, replay_records,"
        " dead_letters, erasures, erased_records, refused_events, dropped_days CASCADE",
    )
    return shared


@pytest.fixture
def loading(database: Settings) -> Iterator[Load]:
    made = Load(database, [CUSTOMERS])
    yield made
    made.sink.close()


def compared(database: Settings, partition: int = 0, first: int = 0) -> StateAudit:
    with session(database, "test") as connection:
        return compare(connection, CUSTOMERS, (TOPIC, partition), first)


def differing(database: Settings) -> list[str]:
    return [str(problem) for problem in compared(database).problems]


def test_the_latest_of_a_key_is_kept(loading: Load, database: Settings) -> None:
    loading.load([put(0, 1, "a"), put(1, 2, "b"), put(2, 1, "a2"), put(3, 3, "c")])
    assert living(database) == {1: "a2", 2: "b", 3: "c"}
    loading.load([delete(4, 2), put(5, 3, "c2"), delete(6, 9)])
    assert living(database) == {1: "a2", 3: "c2"}
    loading.load([put(7, 2, "back"), delete(8, 1), put(9, 1, "a3"), delete(10, 1)])
    assert living(database) == {2: "back", 3: "c2"}
    assert value(database, "SELECT count(*) FROM customers_changes") == 11
    assert rows(database, "SELECT origin_offset, deleted FROM customers_state ORDER BY id") == [
        (10, True), (7, False), (5, False), (6, True),
    ]  # fmt: skip
    # Positions that were reset: all of it again, on the slow path.
    execute(database, "UPDATE loader_positions SET next_offset = 0")
    loading.load([put(0, 1, "a"), delete(4, 2), put(5, 3, "c2"), put(7, 2, "back"), delete(10, 1)])
    assert loading.sink.counters.slow == 1
    assert living(database) == {2: "back", 3: "c2"}
    found = compared(database)
    assert (found.living, found.deleted, found.differing) == (2, 2, 0)


def test_a_replay_of_an_older_change_displaces_nothing(loading: Load, database: Settings) -> None:
    loading.load([bad(0, 1), bad(1, 2), bad(2, 3), put(3, 1, "new"), delete(4, 2)])
    loading.load([dead_letter(0, 0), dead_letter(1, 1), dead_letter(2, 2)])
    for source in range(3):
        loading.sent(f"{TOPIC}/0/{source}", f"{TOPIC}/0/{10 + source}")
    replays = [put(10 + key, key + 1, "old", origin=f"{TOPIC}/0/{key}") for key in range(3)]
    loading.load(replays)
    assert value(database, "SELECT count(*) FROM replayed_events") == 3
    assert value(database, "SELECT count(*) FROM customers_changes WHERE name = 'old'") == 3
    # The third had no later change.
    assert living(database) == {1: "new", 3: "old"}
    assert not compared(database).differing


def test_a_key_of_several_partitions_is_the_one_appended_last(
    loading: Load, database: Settings
) -> None:
    """Partitions were added: keys have moved."""
    loading.load([put(50, 1, "before", appended=1_000), put(51, 2, "before", appended=2_000)])
    loading.load([put(0, 1, "moved", partition=1, appended=3_000)])
    loading.load([delete(1, 2, partition=1, appended=3_000)])
    assert living(database) == {1: "moved"}
    loading.load([put(2, 1, "more", partition=1, appended=4_000), put(52, 2, "no", appended=2_500)])
    assert living(database) == {1: "more"}
    assert not compared(database, 0).differing
    assert not compared(database, 1).differing


def test_a_key_that_no_index_can_hold_is_a_dead_letter(database: Settings) -> None:
    contract = create_model("Long", __base__=Customer, id=(str, ...))
    stream = replace(CUSTOMERS, contract=contract, table="long_keys")
    schema.upgrade(database, [stream])
    loading = Load(database, [stream])
    loading.load([put(0, "k" * 2001, "x"), put(1, "k" * 2000, "y"), delete(2, "k" * 3000)])  # type: ignore[arg-type]
    assert rows(database, "SELECT name FROM long_keys") == [("y",)]
    assert [record.topic for record in loading.delivered] == [CUSTOMERS.dead_letter_topic] * 2
    for record in loading.delivered:
        message = last_header(record.headers, "__connect.errors.exception.message")
        assert message == (
            b"the database refuses it: its primary key (id) has more than 2,000 bytes; SQLSTATE 23514, "
            b"constraint long_keys_changes_key"
        )
    # What the windows count of them: a tombstone is no event.
    assert rows(database, 'SELECT "offset" FROM refused_events') == [(0,)]
    loading.sink.close()


def test_a_row_that_an_index_of_the_owner_cannot_hold_says_which(
    loading: Load, database: Settings
) -> None:
    execute(database, "CREATE INDEX by_name ON customers_changes (name)")
    name = "".join(random.Random(1).choices("abcdefghijklmnop", k=8_000))  # compresses badly
    loading.load([put(0, 1, name), put(1, 2, "bob")])
    assert living(database) == {2: "bob"}
    [record] = loading.delivered
    message = last_header(record.headers, "__connect.errors.exception.message") or b""
    assert b"SQLSTATE 54000, constraint customers_changes_" in message
    assert message.endswith(b": an entry of an index can have 2,704 bytes")


def test_a_row_that_was_changed_by_hand_is_found(loading: Load, database: Settings) -> None:
    loading.load([put(0, 1, "a"), put(1, 2, "b"), put(2, 3, "c"), put(3, 3, "c2"), delete(4, 4)])
    assert differing(database) == []
    execute(database, "UPDATE customers_state SET name = 'forged' WHERE id = 1")
    execute(database, "DELETE FROM customers_state WHERE id = 2")
    execute(database, "UPDATE customers_state SET origin_offset = 2 WHERE id = 3")
    execute(database, "INSERT INTO customers_state SELECT 9, name, email, at, false, origin_topic, 0, 77,"
                      " appended_at FROM customers_state WHERE id = 1")  # fmt: skip
    found, other = compared(database), "customers_state holds another change of the key"
    assert found.differing == 4
    assert {problem.kind for problem in found.problems} == {ProblemKind.STATE_DIFFERS}
    assert [(problem.offset, problem.detail.split(";")[0]) for problem in found.problems] == [
        (0, "its row in customers_state is not what it is in customers_changes"),
        (1, "customers_state has no row of this change, the latest of its key in customers_changes"),
        (3, f"{other} than this one, the latest in customers_changes"),
        (77, "customers_state has a row of this change, and customers_changes has no change of its key"),
    ]  # fmt: skip
    # Since an offset.
    assert [problem.offset for problem in compared(database, first=3).problems] == [3, 77]
    # It is made again from the changes.
    execute(database, "DROP TABLE customers_state CASCADE")
    assert schema.upgrade(database, [CUSTOMERS]) == ["table customers_state", "view customers"]
    assert differing(database) == []
    assert living(database) == {1: "a", 2: "b", 3: "c2"}


def test_days_that_retention_drops_were_compared_before(loading: Load, database: Settings) -> None:
    loading.load([put(0, 1, "kept"), put(1, 2, "later"), put(86_400, 2, "newest")])
    with session(database, "test") as connection:
        [first] = expired_days(connection, CUSTOMERS, (NOON + timedelta(days=1)).date(), {})
        drop_day(connection, CUSTOMERS, first)
    assert value(database, "SELECT count(*) FROM customers_changes") == 1
    assert living(database) == {1: "kept", 2: "newest"}
    assert differing(database) == []


def test_a_forgotten_person_is_emptied_in_the_state(loading: Load, database: Settings) -> None:
    hashed = "a" * 64
    loading.load([put(0, 1, "ann", email=hashed), put(1, 2, "bob")])
    subject = erase.parse_subject(database, [CUSTOMERS], Kind.ADDRESS, hashed)
    with session(database, "test") as connection, connection.transaction():
        run = erase._Erasure.begin(connection, database, [CUSTOMERS], subject, "tests")
        run.erase_events()
    assert rows(database, "SELECT id, name, email FROM customers ORDER BY id") == [
        (1, None, None), (2, "bob", None),
    ]  # fmt: skip
    assert differing(database) == []
    # What comes later is emptied when it is loaded.
    forget_listed(database, Kind.ADDRESS, "b" * 64)
    loading.load([put(2, 2, "bob", email="b" * 64), put(3, 1, "ann again")])
    assert living(database) == {1: "ann again", 2: None}
    assert differing(database) == []
    # Their rows have no name any more, and break no contract by that.
    entry = catalog_of(database, [CUSTOMERS]).table("customers_changes")
    with session(database, "test") as connection:
        check = content_checks._compare(connection, entry, 1_000)
    assert (check.passed, check.metadata["rows_looked_at"]) == (True, 2), check.says


def test_a_forgotten_name_that_is_the_key_is_removed(database: Settings) -> None:
    contract = create_model("Named", __base__=Customer, user=(str, ...))
    stream = replace(
        CUSTOMERS, contract=contract, table="named", key="user", primary_key=("user",), windows=None
    )
    schema.upgrade(database, [stream])
    loading = Load(database, [stream])
    loading.load([put(0, 1, "a", user="ann"), put(1, 2, "b", user="bob")])
    subject = erase.parse_subject(database, [stream], Kind.USER, "ann")
    with session(database, "test") as connection, connection.transaction():
        erase._Erasure.begin(connection, database, [stream], subject, "tests").erase_events()
    loading.load([put(2, 3, "more", user="ann")])
    assert rows(database, 'SELECT "user", name FROM named_state') == [("bob", "b")]
    with session(database, "test") as connection:
        assert not compare(connection, stream, (TOPIC, 0), 0).problems
    loading.sink.close()


def test_a_recreated_topic_goes_on_with_the_same_rows(loading: Load, database: Settings) -> None:
    loading.load([put(7, 1, "old", appended=1_000), put(8, 2, "old", appended=1_000)])
    reuse = Reuse(TOPIC, f"{TOPIC}@old", "new", "recreated", {0: 0}, "old")
    with session(database, "test") as connection, connection.transaction():
        recreated.set_aside(connection, [CUSTOMERS], reuse, loading.loader.group, {})
    loading.load([put(0, 1, "new", appended=2_000)])
    assert living(database) == {1: "new", 2: "old"}
    assert differing(database) == []


def test_a_truncated_log_brings_earlier_changes_back(loading: Load, database: Settings) -> None:
    loading.load([put(0, 1, "first"), put(1, 1, "lost"), put(2, 2, "lost")])
    reuse = Reuse(TOPIC, f"{TOPIC}@id~1", "id", "truncated", {0: 1})
    with session(database, "test") as connection, connection.transaction():
        recreated.set_aside(connection, [CUSTOMERS], reuse, loading.loader.group, {})
    assert differing(database) == []
    loading.load([put(1, 1, "again", appended=1_900_000_000_000)])
    assert living(database) == {1: "again", 2: "lost"}
    assert differing(database) == []


def test_a_contract_grows(database: Settings) -> None:
    before = replace(CUSTOMERS, table="growing")
    grown = replace(before, contract=create_model("Grown", __base__=Customer, city=(str, ...)))
    schema.upgrade(database, [before])
    loading = Load(database, [before])
    loading.load([put(0, 1, "a")])
    assert schema.pending(database, [grown]) == [
        "column growing_changes.city", "column growing_state.city", "view growing",
    ]  # fmt: skip
    schema.upgrade(database, [grown])
    assert schema.upgrade(database, [grown]) == []
    newer = Load(database, [grown])
    newer.load([put(1, 2, "b", city="Ulm")])
    newer.sink.close()
    assert rows(database, "SELECT id, city FROM growing ORDER BY id") == [(1, None), (2, "Ulm")]
    # Rolled back.
    assert schema.upgrade(database, [before]) == []
    loading.load([put(2, 2, "b2")])
    loading.sink.close()
    assert rows(database, "SELECT id, name FROM growing ORDER BY id") == [(1, "a"), (2, "b2")]
    with session(database, "test") as connection:
        # It holds the latest change, so what that has no field for is empty.
        assert not compare(connection, before, (TOPIC, 0), 0).problems
    assert rows(database, "SELECT city FROM growing WHERE id = 2") == [(None,)]


def test_tables_of_others_are_left_alone(database: Settings) -> None:
    others = replace(CUSTOMERS, table="others")
    for statement, drop in (
        ("TABLE others (id bigint)", "TABLE"),
        ("VIEW others AS SELECT 1", "VIEW"),
    ):
        execute(database, f"CREATE {statement}")
        with pytest.raises(ConfigurationError, match="an upsert stream has a view of that name"):
            schema.upgrade(database, [others])
        execute(database, f"DROP {drop} others")
    schema.upgrade(database, [others])
    changed = replace(others, key="name", primary_key=("name",))
    with pytest.raises(
        ConfigurationError, match=r"is \(id, origin_partition, origin_topic\), and by"
    ):
        schema.upgrade(database, [changed])


def test_another_mode_is_another_stream(database: Settings) -> None:
    upserts = replace(CUSTOMERS, table="moded")
    appends = replace(upserts, mode="append", primary_key=())
    for before, now, says in (
        (upserts, appends, "its events are in moded_changes and moded_state"),
        (appends, upserts, "moded is the table of all its events"),
    ):
        schema.upgrade(database, [before])
        with pytest.raises(
            ConfigurationError, match=f'mode was "{before.mode}".*{says}'
        ) as refused:
            schema.upgrade(database, [now])
        assert f'Declare mode="{before.mode}" again, or a new stream' in str(refused.value)
        assert schema.pending(database, [before]) == []
        [change], looked_at = changes_for(database, now)
        assert (change.level, looked_at) == (Level.BREAKING, 0)
        assert "mode was" in change.what
        with session(database, "test") as connection:
            for name in before.tables:
                connection.execute(f"DROP TABLE {name} CASCADE")


def test_loaders_may_write_it_and_readers_may_not(database: Settings) -> None:
    granted = [each for each in role_statements(database, [CUSTOMERS], "own") if "_state" in each]
    [(name,)] = rows(database, "SELECT current_schema()")
    assert granted == [f'GRANT INSERT, UPDATE ON TABLE "{name}"."customers_state" TO "own_worker"']


class Change(NamedTuple):
    partition: int
    key: int
    name: str | None  # None for a tombstone
    appended: int
    replayed: bool


CHANGES = st.lists(
    st.builds(
        Change,
        st.integers(0, 1),
        st.integers(0, 3),
        st.none() | st.sampled_from("abc"),
        st.integers(1, 9),
        st.booleans(),
    ),
    max_size=25,
)


def newest(changes: Sequence[tuple[int, Change]]) -> dict[int, str | None]:
    """By key: within a partition the larger offset, of several partitions the one appended last."""
    of_log: dict[tuple[int, int], tuple[int, Change]] = {}
    for offset, change in changes:
        log = change.key, change.partition
        of_log[log] = max(
            of_log.get(log, (offset, change)), (offset, change), key=lambda each: each[0]
        )
    found: dict[int, tuple[int, int, str | None]] = {}
    for (key, partition), (_, change) in of_log.items():
        mine = (-1 if change.replayed else change.appended, partition, change.name)
        found[key] = max(found.get(key, mine), mine, key=lambda each: each[:2])
    return {key: name for key, (_, _, name) in found.items() if name is not None}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, order=st.randoms(use_true_random=False))
def test_the_state_is_the_fold_of_the_changes(
    changes: list[Change], order: Any, database: Settings
) -> None:
    """In whatever order, and in whatever batches, they are stored."""
    numbered = list(enumerate(changes))
    stored = numbered.copy()
    order.shuffle(stored)
    lines = EventRows(CUSTOMERS)
    with session(database, "test") as connection, connection.transaction(force_rollback=True):
        while stored:
            size = order.randint(1, 6)
            part, stored = stored[:size], stored[size:]
            store(connection, lines, part)
        found = connection.execute("SELECT id, name FROM customers ORDER BY id").fetchall()
        assert dict(found) == newest(numbered)
        assert len(found) == len(dict(found))
        for partition in (0, 1):
            assert not compare(connection, CUSTOMERS, (TOPIC, partition), 0).problems


def store(connection: Connection, lines: EventRows, part: Sequence[tuple[int, Change]]) -> None:
    copied = []
    for offset, change in part:
        origin, appended = Origin(TOPIC, change.partition, offset), (2, change.appended * 1000)
        moment = datetime(1970, 1, 1, tzinfo=UTC)
        copied.append(
            lines.deletion_line(Deletion((change.key,)), origin, appended)
            if change.name is None
            else lines.line(Customer(id=change.key, name=change.name, at=moment), origin, appended)
        )
        if change.replayed:
            connection.execute(
                "INSERT INTO replayed_events VALUES (%s, %s, %s, %s, %s, %s, 1)",
                [*origin, TOPIC, change.partition, offset + 1000],
            )
    copy(connection, sql.Identifier("customers_changes"), lines.table.columns, copied)
    for partition in (0, 1):
        for replayed in (False, True):
            offsets = [
                offset + 1000 * replayed
                for offset, change in part
                if change.partition == partition and change.replayed == replayed
            ]
            if offsets:
                state.bring_up_to_date(
                    connection,
                    CUSTOMERS,
                    [{"topic": TOPIC, "partition": partition, "first": min(offsets),
                      "end": max(offsets) + 1}],
                    {datetime(1970, 1, 1, tzinfo=UTC).date()},
                    replays=replayed,
                )  # fmt: skip


def test_loaders_at_once_wait_for_nobody_for_ever(loading: Load, database: Settings) -> None:
    """Two loaders, two partitions, the same keys: each has rows of its own."""
    other = Load(database, [CUSTOMERS])
    loading.resume((TOPIC, 0))
    other.resume((TOPIC, 1))
    for start in range(0, 60, 20):
        keys = range(start, start + 20)
        loading.hand_over([put(n, n % 7, f"a{n}", appended=1_000 + n) for n in keys])
        other.hand_over([put(n, 6 - n % 7, f"b{n}", partition=1, appended=2_000 + n) for n in keys])
    loading.sink.flush()
    other.sink.flush()
    assert set(living(database).values()) == {f"b{n}" for n in range(53, 60)}
    other.sink.close()


def test_a_stalled_loader_changes_nothing(loading: Load, database: Settings) -> None:
    loading.load([put(0, 1, "a")])
    other = Load(database, [CUSTOMERS])
    other.load([put(1, 1, "theirs")])
    loading.hand_over([put(1, 1, "mine")])
    with pytest.raises(Fenced, match="another loader has taken over"):
        loading.sink.flush()
    assert living(database) == {1: "theirs"}
    other.sink.close()


def test_a_batch_that_the_state_refuses_is_not_loaded(loading: Load, database: Settings) -> None:
    """They share a transaction."""
    execute(database, "ALTER TABLE customers_state ADD CONSTRAINT own CHECK (name <> 'no')")
    loading.resume((TOPIC, 0))
    loading.hand_over([put(0, 1, "no")])
    with pytest.raises(Unavailable):
        loading.sink.flush()
    assert value(database, "SELECT count(*) FROM customers_changes") == 0
    execute(database, "ALTER TABLE customers_state DROP CONSTRAINT own")
