"""Sessions in a real database: what SQL computes piece by piece is what a plain loop over all rows finds."""

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import upserts
from loads import FakeRecord, Load, execute, value
from services import DatabaseService
from session_streams import (
    BY_CITY,
    CITIES,
    CUSTOMERS,
    MINUTE,
    NOON,
    PURCHASES,
    Row,
    age,
    expected,
    insert,
    purchase,
    stored,
)
from streamflow import Count, Distinct, First, Last, Quantiles, SessionWindow, Sum
from streamflow.erasure import erase
from streamflow.errors import ConfigurationError
from streamflow.postgres import schema
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.forgotten import Kind
from streamflow.postgres.partitions import DayPartitions
from streamflow.postgres.rehash import rehash
from streamflow.postgres.sessions.tables import SessionTable, session_tables
from streamflow.registry import hasher_for
from streamflow.settings import Settings
from streamflow_dagster.defs import sessions_sql
from streamflow_dagster.defs.retention_sql import drop_day, expired_days
from streamflow_dagster.defs.session_checks_sql import find_overlaps, find_uncounted, judged
from streamflow_dagster.defs.sessions_sql import compute_sessions

pytestmark = pytest.mark.integration

GAP = 30 * MINUTE
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@pytest.fixture(scope="module")
def shared(database_server: DatabaseService, database_template: str) -> Iterator[Settings]:
    """One database for all: cloning it takes longer than most of these tests."""
    made = Settings(DATABASE_URL=database_server.create_database("sessions", database_template))
    schema.upgrade(made, [PURCHASES])
    yield made
    database_server.drop_database("sessions")


@pytest.fixture
def database(shared: Settings) -> Settings:
    with session(shared, "test") as connection:
        empty(connection)
    return shared


@pytest.fixture
def connection(database: Settings) -> Iterator[Connection]:
    with session(database, "test") as made:
        yield made


def empty(connection: Connection) -> None:
    for table in (CUSTOMERS, CITIES):
        connection.execute(f"DROP TABLE IF EXISTS {table.name}".encode())
    connection.execute("TRUNCATE quality_scans, rollup_progress, window_tables")
    connection.execute("TRUNCATE purchases, erasures, erased_records, dropped_days CASCADE")


def spans(connection: Connection, key: str = "ann") -> list[tuple[float, float, int]]:
    """The sessions of a customer: seconds of the first and the last event, and how many there are."""
    return [
        (
            (row["session_start"] - NOON).total_seconds(),
            (row["session_end"] - NOON).total_seconds() - GAP,
            row["counted"],
        )
        for row in stored(connection, CUSTOMERS)
        if row["customer"] == key
    ]


def require_sound(connection: Connection, table: SessionTable = CUSTOMERS) -> None:
    for name, look in (("counted", find_uncounted), ("apart", find_overlaps)):
        result = judged(connection, table, name, look)
        assert result.passed, result.says


TEXTS = st.sampled_from([None, "ann", "bob", "", "Ä", "z", "\uffff", "\U0001f600", "x" * 3000])
DOUBLES = st.one_of(
    st.none(),
    st.sampled_from([0.1, 0.2, 0.3, -0.0, 1e308, -1e308, 5e-324, 1e16, 1.0, -1e16, 2.5e-308]),
    st.floats(allow_nan=False, allow_infinity=False),
)
DECIMALS = st.one_of(
    st.none(), st.decimals(allow_nan=False, allow_infinity=False, min_value=-10**9, max_value=10**9, places=3)
)  # fmt: skip
ADDRESSES = st.none() | st.fixed_dictionaries({
    "town name": TEXTS, "price": DECIMALS.map(lambda each: each and str(each)),
    "opened": st.none() | st.dates(date(1, 1, 2), date(9999, 12, 30)).map(str),
})  # fmt: skip
# Whole gaps, and a millisecond more or less.
SECONDS = st.builds(
    lambda gaps, more: gaps * GAP + more,
    st.integers(0, 9),
    st.sampled_from([0, 0.001, -0.001, 90, 89.999, 7 * MINUTE, 15 * MINUTE]),
)
EVENTS = st.lists(
    st.fixed_dictionaries({
        "seconds": SECONDS, "customer": TEXTS,
        "user": st.sampled_from(["Z", "a", "é", "\uffff", "\U0001f600"]),
        "weight": DOUBLES, "total": DECIMALS, "address": ADDRESSES,
    }),
    max_size=25,
)  # fmt: skip


@settings(
    max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)  # fmt: skip
@given(events=EVENTS, order=st.randoms(use_true_random=False), runs=st.integers(1, 5))
@example(events=[], order=Random(1), runs=2)
def test_sessions_are_those_of_a_plain_loop(
    connection: Connection, events: list[dict[str, Any]], order: Random, runs: int
) -> None:
    """Whatever the order in which rows are loaded, and how often sessions are computed meanwhile."""
    empty(connection)
    rows = [purchase(number, **each) for number, each in enumerate(events)]
    order.shuffle(rows)
    loaded: list[Row] = []
    for part in parts_of(rows, runs):
        for piece in parts_of(part, 2):
            insert(connection, piece)
            loaded += piece
            if order.random() < 0.5:
                # In the second before: a piece has all that was loaded in one.
                connection.execute("UPDATE purchases SET loaded_at = loaded_at - interval '1 s'")
        for table in (CUSTOMERS, CITIES):
            compute_sessions(connection, table, most=order.choice([1, 5, 1000]))
            assert close(stored(connection, table), expected(loaded, table))
            require_sound(connection, table)
        if order.random() < 0.8:
            age(connection)


def parts_of(rows: Sequence[Row], number: int) -> list[Sequence[Row]]:
    size = len(rows) // number + 1
    return [rows[start : start + size] for start in range(0, number * size, size)]


def close(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    """Exactly equal, but for means of decimals, which are fractions."""
    for one, two in zip(found, wanted, strict=True):
        mean, other = one.pop("mean_total", None), two.pop("mean_total", None)
        assert (mean is None) == (other is None)
        assert mean is None or abs(mean - other) <= abs(other) * Decimal("1e-15")
        assert one == two
    return True


def test_a_late_event_joins_two_sessions_and_only_what_it_touches_is_computed(
    connection: Connection,
) -> None:
    insert(connection, [purchase(number, number * 40 * MINUTE) for number in range(5)])
    insert(connection, [purchase(number, number, "bob") for number in range(10, 20)])
    first = compute_sessions(connection, CUSTOMERS)
    assert (first.sessions, first.events) == (6, 15)
    age(connection)
    insert(connection, [purchase(30, 60 * MINUTE)])
    again = compute_sessions(connection, CUSTOMERS)
    assert (again.sessions, again.events) == (1, 1)
    assert spans(connection) == [
        (0, 0, 1), (40 * MINUTE, 80 * MINUTE, 3), (120 * MINUTE, 120 * MINUTE, 1),
        (160 * MINUTE, 160 * MINUTE, 1),
    ]  # fmt: skip
    recent = (
        "SELECT count(*) FROM purchases_sessions_30min WHERE computed_at > now() - interval '1 min'"
    )
    [(computed,)] = connection.execute(recent)
    assert computed == 1
    age(connection)
    assert compute_sessions(connection, CUSTOMERS)[:2] == (0, 0)
    require_sound(connection)


def test_an_event_exactly_a_gap_later_begins_another_session(connection: Connection) -> None:
    insert(connection, [purchase(0, 0), purchase(1, GAP - 0.001), purchase(2, 2 * GAP - 0.001)])
    compute_sessions(connection, CUSTOMERS)
    assert [counted for *_, counted in spans(connection)] == [2, 1]


def test_a_share_is_what_it_is_written_as(connection: Connection) -> None:
    """As in other windows: to `percentile_disc`, 0.07 of 100 is more than seven."""
    shares = replace(
        CITIES.spec, by="customer", aggregates={"q": Quantiles("weight", at=(0, 0.07, 1))}
    )
    [table] = session_tables(replace(PURCHASES, windows=shares))
    insert(
        connection, [purchase(number, number, weight=101.0 - number) for number in range(1, 101)]
    )
    insert(connection, [purchase(200, 0, "bob")])
    compute_sessions(connection, table)
    found = [(row["q_p0"], row["q_p7"], row["q_p100"]) for row in stored(connection, table)]
    assert found == [(1.0, 7.0, 100.0), (None, None, None)]


def test_rows_whose_transaction_commits_late_are_found(
    database: Settings, connection: Connection
) -> None:
    with session(database, "late") as late, late.transaction():
        insert(late, [purchase(0, 0)])
        insert(connection, [purchase(1, HOUR)])
        compute_sessions(connection, CUSTOMERS)
        assert spans(connection) == [(HOUR, HOUR, 1)]
    compute_sessions(connection, CUSTOMERS)
    assert spans(connection) == [(0, 0, 1), (HOUR, HOUR, 1)]
    require_sound(connection)


def test_a_run_that_was_killed_goes_on_where_it_was(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for hours in range(4):
        insert(connection, [purchase(10 * hours + each, DAY * hours + each) for each in range(10)])
        age(connection)
    done = []

    def recompute_twice(*arguments: Any) -> int:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return recompute(*arguments)

    recompute = sessions_sql.recompute
    monkeypatch.setattr(sessions_sql, "recompute", recompute_twice)
    with pytest.raises(KeyboardInterrupt):
        compute_sessions(connection, CUSTOMERS, most=10)
    assert [counted for *_, counted in spans(connection)] == [10, 10]
    monkeypatch.undo()
    rest = compute_sessions(connection, CUSTOMERS, most=10)
    assert (rest.events, rest.pieces) == (20, 2)
    assert [counted for *_, counted in spans(connection)] == [10, 10, 10, 10]


@pytest.mark.parametrize("own_partition", [True, False])
def test_sessions_of_dropped_days_stay(connection: Connection, *, own_partition: bool) -> None:
    if own_partition:
        days = [NOON.date(), NOON.date() + timedelta(days=1)]
        DayPartitions("purchases").prepare(connection, days, today=days[1])
    midnight = 12 * HOUR
    insert(
        connection,
        [
            purchase(0, midnight - 10 * MINUTE), purchase(1, midnight + 10 * MINUTE),
            purchase(2, 0, "bob"), purchase(3, midnight + 10 * HOUR, "cid"),
        ],
    )  # fmt: skip
    compute_sessions(connection, CUSTOMERS)
    [expired] = expired_days(connection, PURCHASES, (NOON + timedelta(days=1)).date(), {})
    assert expired.own_partition == own_partition
    drop_day(connection, PURCHASES, expired)
    age(connection)
    final = (midnight - 10 * MINUTE, midnight + 10 * MINUTE, 2)
    compute_sessions(connection, CUSTOMERS)
    require_sound(connection)
    assert (spans(connection), spans(connection, "bob")) == ([final], [(0, 0, 1)])

    insert(
        connection,
        [
            # Of a dropped day, and within a final session: in none.
            purchase(10, midnight - 5 * MINUTE), purchase(11, 5, "bob"), purchase(12, midnight + 5 * MINUTE),
            # After its last event: in another one, though within the gap.
            purchase(13, midnight + 20 * MINUTE), purchase(14, midnight + 30 * MINUTE),
            purchase(15, midnight + 10 * HOUR + 1, "cid"),
        ],
    )  # fmt: skip
    for _ in range(2):
        compute_sessions(connection, CUSTOMERS)
        require_sound(connection)
        assert spans(connection) == [final, (midnight + 20 * MINUTE, midnight + 30 * MINUTE, 2)]
        assert spans(connection, "bob") == [(0, 0, 1)]
        assert spans(connection, "cid") == [(midnight + 10 * HOUR, midnight + 10 * HOUR + 1, 2)]
        age(connection)
    # What is still there goes on as if nothing had been dropped.
    insert(connection, [purchase(16, midnight + 15 * MINUTE), purchase(17, midnight + 55 * MINUTE)])
    compute_sessions(connection, CUSTOMERS)
    require_sound(connection)
    assert spans(connection) == [final, (midnight + 15 * MINUTE, midnight + 55 * MINUTE, 4)]


def test_a_final_session_parts_what_comes_before_it_from_what_comes_after(
    connection: Connection,
) -> None:
    """A day was dropped, and an earlier one was not: Kafka still has a record of that."""
    sessions = SessionWindow("2d", by="customer", name=CITIES.name, n=Count())
    [table] = session_tables(replace(PURCHASES, windows=sessions))
    insert(connection, [purchase(0, DAY)])
    compute_sessions(connection, table)
    connection.execute("DELETE FROM purchases")
    connection.execute("INSERT INTO dropped_days VALUES ('purchases', '2026-03-02', 1)")
    age(connection)
    for number, seconds in enumerate([12.5 * HOUR, 0, 2 * DAY, 11.5 * HOUR, 1.6 * DAY], 1):
        insert(connection, [purchase(number, seconds)])
        compute_sessions(connection, table)
        require_sound(connection, table)
    begun = [(row["session_start"] - NOON).total_seconds() for row in stored(connection, table)]
    # What came at half past midnight was of the dropped day.
    assert begun == [0, DAY, 1.6 * DAY]
    assert [row["n"] for row in stored(connection, table)] == [2, 1, 2]


def forget(connection: Connection, database: Settings, kind: Kind, text: str) -> None:
    subject = erase.parse_subject(database, [PURCHASES], kind, text)
    with connection.transaction():
        run = erase._Erasure.begin(connection, database, [PURCHASES], subject, "tests")
        run.erase_events()


def test_a_forgotten_person_s_events_are_in_no_session(
    database: Settings, connection: Connection
) -> None:
    hashed = "a" * 64
    rows = [purchase(number, number * 20 * MINUTE, user="ann") for number in range(5)]
    rows[2] = purchase(2, 40 * MINUTE, email=hashed, user="zoe")
    insert(connection, rows)
    for table in (CUSTOMERS, CITIES):
        compute_sessions(connection, table)
    assert spans(connection) == [(0, 80 * MINUTE, 5)]
    age(connection)
    forget(connection, database, Kind.ADDRESS, hashed)
    left = [row for row in rows if row.offset != 2]
    for table in (CUSTOMERS, CITIES):
        assert close(stored(connection, table), expected(left, table))
    assert len(spans(connection)) == 2
    for table in (CUSTOMERS, CITIES):
        # It does not come back, not even with what is loaded later.
        more = purchase(9 + (table is CITIES), 50 * MINUTE)
        insert(connection, [more])
        left.append(more)
        compute_sessions(connection, table)
        assert close(stored(connection, table), expected(left, table))
        require_sound(connection, table)
    forget(connection, database, Kind.USER, "ann")
    kept = [row for row in left if row.offset in (9, 10)]
    assert close(stored(connection, CUSTOMERS), expected(kept, CUSTOMERS))


def test_a_forgotten_person_is_removed_from_sessions_of_dropped_days(
    database: Settings, connection: Connection
) -> None:
    midnight = 12 * HOUR
    insert(
        connection,
        [
            purchase(0, 0, user="zoe"), purchase(1, 0, "bob"),
            purchase(2, midnight - MINUTE, user="zoe"), purchase(3, midnight + MINUTE, user="amy"),
        ],
    )  # fmt: skip
    compute_sessions(connection, CUSTOMERS)
    [expired] = expired_days(connection, PURCHASES, (NOON + timedelta(days=1)).date(), {})
    drop_day(connection, PURCHASES, expired)
    assert len(stored(connection, CUSTOMERS)) == 3
    forget(connection, database, Kind.USER, "zoe")
    # Of the second session, what is still there.
    assert spans(connection) == [(midnight + MINUTE, midnight + MINUTE, 1)]
    assert spans(connection, "bob") == [(0, 0, 1)]
    require_sound(connection)


def test_a_new_key_of_hashes_gives_sessions_their_new_names(
    database: Settings, connection: Connection
) -> None:
    by_email = SessionWindow(
        "30min",
        by="email",
        name=CITIES.name,
        n=Count(),
        first=First("email"),
        cities=Distinct("email"),
    )
    stream = replace(PURCHASES, windows=by_email)
    [table] = session_tables(stream)
    keyed = database.model_copy(
        update={"pii_key": Settings(STREAMFLOW_PII_KEY='{"2026a": "new", "legacy": "old"}').pii_key}
    )
    old = hmac.new(b"old", b"ann@example.com", "sha256").hexdigest()
    new = hasher_for(keyed, [stream]).hash("ann@example.com")
    midnight = 12 * HOUR
    insert(connection, [purchase(0, 0, email=old), purchase(1, midnight + 1, email=old)])
    compute_sessions(connection, table)
    [expired] = expired_days(connection, PURCHASES, (NOON + timedelta(days=1)).date(), {})
    drop_day(connection, PURCHASES, expired)
    age(connection)
    compute_sessions(connection, table)
    assert old != new
    insert(connection, [purchase(2, midnight + 60, email=new)])
    compute_sessions(connection, table)
    age(connection)
    compute_sessions(connection, table)
    rehash(keyed, [stream])
    compute_sessions(connection, table)
    require_sound(connection, table)
    found = [
        (row["email"], row["first"], row["n"], row["cities"]) for row in stored(connection, table)
    ]
    assert found == [(new, new, 1, 1), (new, new, 2, 1)]


def test_tombstones_of_an_upsert_stream_are_in_no_session(database: Settings) -> None:
    sessions = SessionWindow("30min", by="id", changes=Count(), latest=Last("name"))
    stream = replace(upserts.CUSTOMERS, windows=[sessions])
    [table] = session_tables(stream)
    assert table.name == "customers_sessions_30min"
    schema.upgrade(database, [stream])
    loading = Load(database, [stream])
    loading.load(
        [
            upserts.put(0, 1, "a"),
            upserts.put(1, 1, "b"),
            upserts.delete(2, 1),
            upserts.put(3, 2, "c"),
        ]
    )
    with session(database, "test") as connection:
        compute_sessions(connection, table)
        found = [(row["id"], row["changes"], row["latest"]) for row in stored(connection, table)]
        require_sound(connection, table)
    assert found == [(1, 2, "b"), (2, 1, "c")]
    loading.sink.close()


def test_what_a_loader_loads_is_in_sessions(database: Settings, connection: Connection) -> None:
    loading = Load(database, [PURCHASES])
    rows = [purchase(number, number * 7 * MINUTE, weight=0.1) for number in range(20)]
    records = [
        FakeRecord(row.offset, PURCHASES.decoder.encode(row.event), topic=PURCHASES.topic)
        for row in rows
    ]
    loading.load(records[10:])
    loading.sink.close()
    execute(database, "DELETE FROM loader_positions")
    compute_sessions(connection, CUSTOMERS)
    loading = Load(database, [PURCHASES])
    loading.load(records[:10])
    compute_sessions(connection, CUSTOMERS)
    assert close(stored(connection, CUSTOMERS), expected(rows, CUSTOMERS))
    loading.sink.close()


@pytest.mark.parametrize(
    ("windows", "says"),
    [
        (SessionWindow("1h", by="customer", name=CITIES.name, n=Count()), "gap was 90s and is 1h"),
        (SessionWindow("90s", by="customer", name=CITIES.name, n=Count()),
         "range, session, day and is customer"),
        (
            SessionWindow("90s", by=BY_CITY.by, name=CITIES.name, spent=Sum("total"), more=Count()),
            'spent was Sum("address.price") and is Sum("total")',
        ),
    ],
)  # fmt: skip
def test_sessions_that_are_declared_differently_are_refused(
    connection: Connection, windows: SessionWindow, says: str
) -> None:
    compute_sessions(connection, CITIES)
    [table] = session_tables(replace(PURCHASES, windows=windows))
    with pytest.raises(ConfigurationError) as refused:
        compute_sessions(connection, table)
    assert says in str(refused.value)
    assert "give the windows another name" in str(refused.value)


def test_a_table_of_others_is_not_taken(connection: Connection) -> None:
    connection.execute(f"CREATE TABLE {CITIES.name} (session_start timestamptz)".encode())
    with pytest.raises(ConfigurationError, match="StreamFlow did not create it for windows"):
        compute_sessions(connection, CITIES)


def test_a_dropped_table_is_computed_anew(connection: Connection) -> None:
    rows = [purchase(0, 0), purchase(1, HOUR)]
    insert(connection, rows)
    compute_sessions(connection, CUSTOMERS)
    require_sound(connection)
    age(connection)
    compute_sessions(connection, CUSTOMERS)
    connection.execute(f"DROP TABLE {CUSTOMERS.name}".encode())
    compute_sessions(connection, CUSTOMERS)
    assert close(stored(connection, CUSTOMERS), expected(rows, CUSTOMERS))


def test_a_session_at_the_end_of_the_calendar(connection: Connection) -> None:
    end = datetime.fromisoformat("9999-12-29T23:59:59.999+00:00")
    seconds = (end - NOON).total_seconds()
    sessions = SessionWindow("9999999d", by="customer", name=CITIES.name, n=Count())
    [table] = session_tables(replace(PURCHASES, windows=sessions))
    insert(connection, [purchase(0, 0), purchase(1, seconds)])
    compute_sessions(connection, table)
    age(connection)
    insert(connection, [purchase(2, seconds - 1)])
    compute_sessions(connection, table)
    [row] = stored(connection, table)
    assert (row["counted"], row["session_end"].year) == (3, 9999)
    require_sound(connection, table)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE {} SET counted = counted + 1", "a session from 2026-03-01 12:00:00+00 counts 3 of 2"),
        ("DELETE FROM {}", "purchases[0]@0 is in none"),
        ("UPDATE {} SET session_start = session_start + interval '1 s'", "purchases[0]@0 is in none"),
    ],
)  # fmt: skip
def test_checks_see_what_is_wrong(connection: Connection, damage: str, says: str) -> None:
    insert(connection, [purchase(0, 0), purchase(1, 1)])
    compute_sessions(connection, CUSTOMERS)
    age(connection)
    compute_sessions(connection, CUSTOMERS)  # now they are settled
    connection.execute(damage.format(CUSTOMERS.name).encode())
    result = judged(connection, CUSTOMERS, "counted", find_uncounted)
    assert not result.passed
    assert says in result.says


def test_a_check_sees_that_sessions_overlap(connection: Connection) -> None:
    insert(connection, [purchase(0, 0), purchase(1, HOUR), purchase(2, 2 * HOUR)])
    compute_sessions(connection, CUSTOMERS)
    require_sound(connection)
    connection.execute(
        f"UPDATE {CUSTOMERS.name} SET session_end = session_end + interval '30 min' + interval '1 s'"
        f" WHERE session_start = '{NOON + timedelta(hours=1)}'".encode()
    )
    result = judged(connection, CUSTOMERS, "apart", find_overlaps)
    assert not result.passed
    assert (
        "1 of 3 sessions overlap the next one of their key: first the one that begins"
        in result.says
    )


def test_a_check_looks_at_some_at_a_time(connection: Connection) -> None:
    for hours in range(3):
        insert(connection, [purchase(10 * hours + each, DAY * hours + each) for each in range(10)])
        age(connection)
    compute_sessions(connection, CUSTOMERS)
    looks = [judged(connection, CUSTOMERS, "counted", find_uncounted, most=10) for _ in range(4)]
    assert [look.metadata["events"] for look in looks] == [10, 10, 10, 0]
    assert ["next time at more" in look.says for look in looks] == [True, True, False, False]
    assert sum(look.metadata["sessions"] for look in looks[:3]) == 3
    connection.execute(f"UPDATE {CUSTOMERS.name} SET counted = 9, computed_at = now()".encode())
    assert not judged(connection, CUSTOMERS, "counted", find_uncounted).passed


def test_before_the_first_run_checks_say_not_yet(
    database: Settings, connection: Connection
) -> None:
    result = judged(connection, CUSTOMERS, "counted", find_uncounted)
    assert (result.passed, result.severe) == (False, False)
    assert value(database, "SELECT count(*) FROM quality_scans WHERE scan = 'counted'") == 0
