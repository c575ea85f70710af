"""What audits remember stays true when proved rows are removed on purpose."""

from collections import Counter
from datetime import UTC, date, datetime

import pytest

from loads import TOPIC, FakeRecord, Load, dead_letter, event, execute, replay, rows, value
from streamflow.audit.looks import Looks
from streamflow.audit.proofs import Counts, Proof, count_earlier, keep_proof, read_proofs
from streamflow.audit.recreated import Reuse, set_aside
from streamflow.audit.report import PartitionAudit
from streamflow.postgres.connections import Connection
from streamflow.postgres.partitions import DayPartitions
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS
from streamflow_dagster.defs.retention_sql import Expired, drop_day

pytestmark = pytest.mark.integration

PARTITION = (TOPIC, 0)
LEDGER = "SELECT proved_through::int, stored::int, counted_from_zero FROM audit_ledger"


def stored(connection: Connection, through: int) -> Counts:
    """What the database has of the offsets before this one."""
    found = count_earlier(
        connection, PARTITION, proof(connection), (through, through), event_table=USER_EVENTS.table
    )
    assert found is not None
    return found.proved + found.unproved


def proof(connection: Connection) -> Proof:
    return read_proofs(connection).get(PARTITION, Proof())


def prove(connection: Connection, through: int) -> None:
    counts = stored(connection, through)
    wanted = Proof(through, "an id", counts["stored"], counts["dead_lettered"], counts["duplicate"])
    keep_proof(connection, PARTITION, proof(connection), wanted, 0)


def load_two_days(load: Load) -> None:
    """Offsets 0 to 9 of one day and 10 to 19 of the next; 20 replays a dead letter, as an event of
    the second day."""
    days = ["2026-07-01T12:00:00Z"] * 10 + ["2026-07-02T12:00:00Z"] * 10
    load.load(
        [
            FakeRecord(each, b"{}" if each == 3 else event(each, time))
            for each, time in enumerate(days)
        ]
    )
    load.load([dead_letter(0, f"{TOPIC}/0/3", 3)])
    load.sent(f"{TOPIC}/0/3", f"{TOPIC}/0/20")
    load.load([replay(20, f"{TOPIC}/0/3", 3, time=days[-1])])


@pytest.mark.parametrize("own_partition", [True, False])
def test_a_day_that_is_dropped_is_not_missed(
    own_partition: bool, load: Load, connection: Connection
) -> None:
    if own_partition:
        DayPartitions("events").prepare(connection, [date(2026, 7, 1), date(2026, 7, 2)])
    load_two_days(load)
    prove(connection, 15)
    assert proof(connection).stored == 14
    drop_day(connection, USER_EVENTS, Expired(date(2026, 7, 1), 10, own_partition, 0))
    assert proof(connection).counts == stored(connection, 15) == Counter(stored=5, dead_lettered=1)
    prove(connection, 21)
    assert proof(connection).counts == Counter(stored=11, dead_lettered=1)
    drop_day(connection, USER_EVENTS, Expired(date(2026, 7, 2), 10, own_partition, 0))
    assert proof(connection).counts == stored(connection, 21) == Counter(dead_lettered=1)


def test_an_event_that_came_by_a_replay_is_missed_too(
    database: Settings, load: Load, connection: Connection
) -> None:
    load_two_days(load)
    prove(connection, 21)
    execute(database, "DELETE FROM events WHERE origin_offset = 3")
    assert proof(connection).counts - stored(connection, 21) == Counter(stored=1)


def test_a_truncated_log_lowers_what_is_proved_and_hides_no_loss(
    database: Settings, load: Load, connection: Connection
) -> None:
    load_two_days(load)
    prove(connection, 20)
    execute(database, "DELETE FROM events WHERE origin_offset IN (1, 2, 12)")
    reuse = Reuse(TOPIC, f"{TOPIC}@old", "a new id", "truncated", {0: 10})
    with connection.transaction():
        set_aside(connection, [USER_EVENTS], reuse, "loader-group", {})
    # Seven events of offsets before 10 are there. The three that had vanished are still missed.
    assert rows(database, LEDGER) == [(10, 10, True)]
    assert stored(connection, 10) == Counter(stored=7, dead_lettered=1)


def test_numbers_of_an_older_release_are_replaced(
    database: Settings, load: Load, connection: Connection
) -> None:
    execute(
        database,
        "INSERT INTO audit_ledger (topic, partition, proved_through, records, stored, dead_lettered,"
        f" duplicates) VALUES ('{TOPIC}', 0, 5, 1, 1, 0, 0)",
    )
    load_two_days(load)
    assert not proof(connection).counted_from_zero
    prove(connection, 20)
    assert rows(database, LEDGER) == [(20, 19, True)]


def test_an_audit_that_was_overtaken_remembers_nothing(
    database: Settings, load: Load, connection: Connection
) -> None:
    load_two_days(load)
    prove(connection, 10)
    before = proof(connection)
    execute(database, "UPDATE audit_ledger SET stored = stored - 1")
    keep_proof(connection, PARTITION, before, Proof(20, "an id", 19), 0)
    assert rows(database, LEDGER) == [(10, 8, True)]
    # Nor does it compare what another audit has proved meanwhile.
    execute(database, "UPDATE audit_ledger SET proved_through = 15")
    assert (
        count_earlier(connection, PARTITION, before, (20, 20), event_table=USER_EVENTS.table)
        is None
    )
    assert value(database, "SELECT count(*) FROM audit_ledger") == 1


@pytest.mark.parametrize("full", [True, False])
def test_only_a_full_audit_lets_the_next_one_take_something_for_granted(
    full: bool, load: Load, connection: Connection
) -> None:
    """One that skips what was proved compares rows of upsert streams only from there on, though Kafka may
    hold no record before."""
    load_two_days(load)
    prove(connection, 20)
    began = datetime(2026, 7, 3, tzinfo=UTC)
    ledger = PartitionAudit(topic=TOPIC, partition=0, first=20, end=21)
    Looks(connection, began).keep(ledger, 20, 20, full=full)
    assert Looks(connection, began).has_full(PARTITION) is full
