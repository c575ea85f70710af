"""What screens, commands and checks show of large tables is kept, or read of a part that does not grow."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import psycopg
import pytest

import upserts
from faults import at_once, wait_until
from kept_counts import require_exact_kinds, require_exact_rows
from loads import (
    TOPIC,
    FakeRecord,
    Load,
    dead_letter,
    event,
    events,
    execute,
    notification,
    rows,
    value,
    window_count,
)
from streamflow.dead_letters import select
from streamflow.postgres import row_counts, schema
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.windows.tables import window_tables
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS
from streamflow_dagster.defs.quality_sql import last_event
from streamflow_dagster.defs.rollups_sql import roll_causes
from streamflow_dagster.defs.tables import window_figures
from streamlit_app.measure.postgres import PostgresSource
from window_parts import ORDERS, part, record

pytestmark = pytest.mark.integration

EVENTS = 600
LETTERS = 60
AHEAD = timedelta(minutes=5)

# But those of fixtures, which are idle.
_ENDING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
   AND application_name NOT IN ('streamflow-test', 'streamflow-loader')
"""

Reads = Callable[[str, Callable[[], Any]], int]


@pytest.fixture
def filled(load: Load) -> Load:
    load.load(events(range(EVENTS)))
    load.load([notification(at, at) for at in range(EVENTS)])
    load.load([window_count(at, 10 * at) for at in range(100)])
    load.load([dead_letter(at, f"{TOPIC}/0/{at}", at) for at in range(LETTERS)])
    # Seen twice: duplicates.
    load.load([notification(EVENTS + at, at) for at in range(50)])
    return load


@pytest.fixture
def reads(database: Settings) -> Iterator[Reads]:
    """How many rows of a table, with its partitions, an action reads."""
    query = (
        "SELECT pg_stat_force_next_flush();"
        " SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint"
        "   FROM pg_stat_user_tables WHERE relname ~ ('^' || '{}' || '(_default|_\\d{{8}})?$')"
    )
    with psycopg.connect(database.database, autocommit=True) as statistics:

        def are_told() -> bool:
            """Sessions that end tell what they have read before they are gone."""
            return statistics.execute(_ENDING).fetchone() == (0,)

        def read(table: str) -> int:
            wait_until(are_told, 20, "other sessions to end")
            statistics.execute("SELECT pg_stat_clear_snapshot()")
            cursor = statistics.execute(query.format(table).encode())
            cursor.nextset()
            [(number,)] = cursor.fetchall()
            return int(number)

        def during(table: str, action: Callable[[], Any]) -> int:
            before = read(table)
            action()
            return read(table) - before

        yield during


@pytest.mark.usefixtures("filled")
def test_status_counts_no_table(database: Settings, reads: Reads) -> None:
    found = row_counts.row_counts(database, [USER_EVENTS])
    assert found.rows == {
        "events": EVENTS,
        "window_counts": 100,
        "notifications": EVENTS,
        "dead_letters": LETTERS,
    }
    assert not found.estimated
    for table in found.rows:
        assert reads(table, lambda: row_counts.row_counts(database, [USER_EVENTS])) == 0
    require_exact_rows(database.database)


def test_the_dashboard_counts_no_dead_letters(
    filled: Load, database: Settings, reads: Reads
) -> None:
    execute(database, "UPDATE dead_letters SET status = 'replayed' WHERE source_offset < 10")

    def sample() -> Any:
        with closing(PostgresSource(database, [USER_EVENTS])) as source:
            return source()

    found = sample()
    assert found.statuses(TOPIC) == {"open": LETTERS - 10, "replayed": 10}
    assert found.codes(TOPIC) == {"SCHEMA_VIOLATION": LETTERS}
    assert found.rejected_from == {TOPIC: LETTERS}
    assert found.duplicates == {"notifications": 50}
    assert filled.sink.counters.duplicates == 50
    assert reads("dead_letters", sample) == 0
    assert reads("duplicates", sample) == 0


@pytest.mark.usefixtures("filled")
def test_causes_are_summed_up_from_kept_counts(
    connection: Connection, database: Settings, reads: Reads
) -> None:
    execute(database, "UPDATE dead_letters SET status = 'quarantined' WHERE source_offset < 10")

    def roll() -> None:
        assert roll_causes(connection) == 1
        connection.execute("SELECT pg_stat_force_next_flush()")

    assert reads("dead_letters", roll) == 0
    counted = rows(
        database,
        "SELECT (appended_at AT TIME ZONE 'UTC')::date, source_topic, error_code, stage, count(*),"
        " count(*) FILTER (WHERE status = 'open'), min(appended_at), max(appended_at)"
        " FROM dead_letters GROUP BY 1, 2, 3, 4",
    )
    assert counted[0][4:6] == (LETTERS, LETTERS - 10)
    rolled = "day, topic, error_code, stage, letters, open, first_at, last_at"
    assert rows(database, f"SELECT {rolled} FROM dead_letters_by_cause") == counted


def test_the_latest_event_is_looked_for_day_by_day(
    load: Load, connection: Connection, database: Settings, reads: Reads
) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert last_event(connection, USER_EVENTS, AHEAD) is None
    for offset, days in ((0, 20), (1, 3), (2, 2)):
        day = today - timedelta(days=days)
        times = [day + timedelta(seconds=each) for each in range(200)]
        load.load([FakeRecord(200 * offset + at, event(at, time)) for at, time in enumerate(times)])
    # Ahead of the clock, and long ago, in the default partition.
    load.load([FakeRecord(600, event(1, today + timedelta(days=1)))])
    load.load([FakeRecord(601, event(1, today - timedelta(days=3_000)))])
    execute(database, "UPDATE events SET loaded_at = now() - interval '2 hours'")
    execute(database, "REINDEX TABLE events")  # an index of ranges keeps what was in them

    def look() -> None:
        found = last_event(connection, USER_EVENTS, AHEAD)
        assert found == today - timedelta(days=2) + timedelta(seconds=199)
        connection.execute("SELECT pg_stat_force_next_flush()")

    connection.execute("SET enable_seqscan = off")  # as in a table that is not as small
    old = f"events_{today - timedelta(days=20):%Y%m%d}"
    assert reads(old, look) == 0
    execute(database, "DELETE FROM events WHERE origin_offset < 601")
    assert last_event(connection, USER_EVENTS, AHEAD) == today - timedelta(days=3_000)


def test_several_at_once_count_dead_letters_without_waiting(database: Settings) -> None:
    """Loaders and replays change letters of one kind at once: nobody waits for another, whoever gives up."""
    together = Barrier(4)
    insert = (
        "INSERT INTO dead_letters (source_topic, source_partition, source_offset, origin_topic,"
        " origin_partition, origin_offset, record_topic, record_partition, record_offset, error_code,"
        " stage, group_name, exception, message, attempt, redacted, headers)"
        " SELECT 'user-events', {0}, n, 'user-events', {0}, n, 'dead-letter-topic', {0}, n, 'X',"
        " 'validator', '', '', '', 0, false, '[]' FROM generate_series({1}, {1} + 9) AS n"
    )
    status = "UPDATE dead_letters SET status = 'replaying' WHERE source_partition = {} AND source_offset < 5"

    def change(number: int) -> None:
        with psycopg.connect(database.database) as connection:
            connection.execute("SET lock_timeout = '1s'")
            for turn in range(3):
                together.wait(20)
                connection.execute(insert.format(number, 10 * turn).encode())
                connection.execute(status.format(number).encode())
                together.wait(20)
                if number == turn:
                    connection.rollback()
                else:
                    connection.commit()

    at_once(4, change)
    require_exact_kinds(database.database)
    counts = "SELECT status, sum(number)::int FROM dead_letter_counts GROUP BY 1 ORDER BY 1"
    # Of four times 30 letters, three times ten were rolled back, once with those that were replaying.
    assert rows(database, counts) == [("open", 75), ("replaying", 15)]
    assert value(database, "SELECT count(*) FROM dead_letter_counts") <= 2 * 4

    execute(database, "DELETE FROM dead_letters")
    assert rows(database, f"SELECT * FROM ({counts}) AS c WHERE sum <> 0") == []


def test_a_table_is_counted_once_and_again_if_it_is_another(
    load: Load, connection: Connection, database: Settings, reads: Reads
) -> None:
    load.load(events(range(5)))
    upgrade = lambda: schema.upgrade(database, [USER_EVENTS])  # noqa: E731
    assert reads("events", upgrade) == 0
    # As before there were counts.
    connection.execute("DELETE FROM row_counts")
    assert row_counts.row_counts(database, [USER_EVENTS]).rows["events"] is None
    load.load(events(range(5, 8)))
    assert row_counts.row_counts(database, [USER_EVENTS]).rows["events"] is None
    upgrade()
    assert row_counts.row_counts(database, [USER_EVENTS]).rows["events"] == 8
    load.load(events(range(8, 10)))
    assert require_exact_rows(database.database)["events"] == 10
    # As a backup restores it, or somebody's own hands.
    connection.execute("DROP TABLE events")
    upgrade()
    assert require_exact_rows(database.database)["events"] == 0


_WAITS_FOR = "SELECT count(*) FROM pg_locks WHERE relation = %s::regclass AND NOT granted"


@pytest.fixture
def counting(load: Load, database: Settings) -> Iterator[Callable[[str], Future[None]]]:
    """Counts tables that were never counted, as an upgrade does, and waits until it waits for a table."""
    load.load(events(range(20)))
    execute(database, "DELETE FROM row_counts")

    with (
        session(database, "upgrade") as upgrade,
        psycopg.connect(database.database, autocommit=True) as watching,
        ThreadPoolExecutor(1) as thread,
    ):

        def begin(awaited: str) -> Future[None]:
            tables = row_counts.counted_tables([USER_EVENTS])
            begun = thread.submit(row_counts.begin, upgrade, tables)
            waits = lambda: watching.execute(_WAITS_FOR, [awaited]).fetchone() != (0,)  # noqa: E731
            wait_until(lambda: waits() or begun.done(), 20, f"the count of {awaited}")
            return begun

        yield begin


def test_a_first_count_does_not_miss_what_is_being_removed(
    database: Settings, counting: Callable[[str], Future[None]]
) -> None:
    """As retention does it with days in the default partition."""
    with session(database, "retention") as retention, retention.transaction():
        retention.execute("DELETE FROM events WHERE origin_offset < 5")
        row_counts.take_off(retention, "events", 5)
        begun = counting("events")
    begun.result(20)
    assert require_exact_rows(database.database)["events"] == 15


def test_loaders_wait_for_the_first_count_of_one_table_at_a_time(
    database: Settings, counting: Callable[[str], Future[None]]
) -> None:
    with psycopg.connect(database.database) as other:
        other.execute("LOCK TABLE notifications IN ACCESS EXCLUSIVE MODE")
        begun = counting("notifications")
        counted = rows(database, "SELECT table_name FROM row_counts ORDER BY 1")
    begun.result(20)
    assert counted == [("dead_letters",), ("events",)]
    assert require_exact_rows(database.database)["events"] == 20


def test_a_state_of_many_keys_is_estimated(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.upgrade(database, [upserts.CUSTOMERS])
    loading = Load(database, [upserts.CUSTOMERS])
    loading.load([upserts.put(at, at % 20, f"name {at}") for at in range(40)])
    found = row_counts.row_counts(database, [upserts.CUSTOMERS])
    assert (found.rows["customers"], found.rows["customers_changes"]) == (20, 40)
    assert not found.estimated
    monkeypatch.setattr(row_counts, "_FEW", 10)
    assert row_counts.row_counts(database, [upserts.CUSTOMERS]).rows["customers"] is None
    execute(database, "ANALYZE customers_state")
    found = row_counts.row_counts(database, [upserts.CUSTOMERS])
    assert (found.rows["customers"], found.estimated) == (20, {"customers"})
    loading.sink.close()


def test_figures_of_windows_are_read_of_one_day(
    connection: Connection, database: Settings, reads: Reads
) -> None:
    schema.upgrade(database, [ORDERS])
    loading = Load(database, [ORDERS])
    [table, *_] = window_tables(ORDERS)
    for first, day in ((0, "2026-02-20"), (100, "2026-03-01")):
        times = {"window_start": f"{day}T12:00:00.000Z", "window_end": f"{day}T12:00:10.000Z"}
        loading.load(
            [record(first + at, part(first + at, late=at % 2 == 0, **times)) for at in range(50)]
        )
    loading.sink.close()
    assert value(database, "SELECT count(DISTINCT tableoid) FROM orders_10s") == 2
    connection.execute("SET enable_seqscan = off")  # as in a table that is not as small

    def look() -> None:
        figures = window_figures(connection, table)
        assert figures["dagster/row_count"] == 100
        assert figures["corrections_of_last_day"] == 25
        connection.execute("SELECT pg_stat_force_next_flush()")

    assert reads(table.name, look) <= 52


def test_what_was_loaded_lately_is_found_by_an_index(
    connection: Connection, database: Settings
) -> None:
    """Checks look at it every five minutes."""
    schema.upgrade(database, [ORDERS])
    connection.execute("SET enable_seqscan = off")
    for table in row_counts.counted_tables([USER_EVENTS, ORDERS]):
        plan = connection.execute(
            f"EXPLAIN SELECT * FROM {table} WHERE loaded_at > now() - interval '1 min'".encode()
        )
        text = "\n".join(line for (line,) in plan)
        assert re.search(r"Bitmap Index Scan on \w+loaded", text), text
        assert "Seq Scan" not in text


@pytest.mark.usefixtures("filled")
def test_dead_letters_are_counted_up_to_a_limit(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, reads: Reads
) -> None:
    assert LETTERS > 11
    monkeypatch.setattr(select, "MOST_COUNTED", 10)

    def look() -> None:
        assert select.count(connection, select.Selection()) == 11
        connection.execute("SELECT pg_stat_force_next_flush()")

    assert reads("dead_letters", look) <= 11
