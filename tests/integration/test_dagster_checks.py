"""Every check: green on sound data, red with the right words once the data is broken."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

import pipeline
from loads import rows, value
from orchestration import Orchestration, broken, orchestrated, stack_of_a_module
from services import BrokerService, DatabaseService
from streamflow.audit.ledger import run_audit
from streamflow.registry import load_streams
from streamflow.settings import Settings

pytestmark = pytest.mark.integration

ADDRESS = "ann@example.com"
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


@pytest.fixture(scope="module")
def filled(
    broker: BrokerService,
    database_server: DatabaseService,
    database_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """A stack whose workers have handled 400 events of just now, and stopped."""
    folder = tmp_path_factory.mktemp("checks")
    with stack_of_a_module(broker, database_server, database_template, folder) as settings:
        now = datetime.now(UTC)
        values = [pipeline.event(n, at=now - timedelta(milliseconds=20 * n)) for n in range(394)]
        pipeline.produce(settings, "user-events", [*values, *list(pipeline.INVALID.values())[:6]])
        with pipeline.workers(settings, folder):
            assert pipeline.audit(settings).closed
            counted = "SELECT coalesce(sum(count), 0)::bigint FROM window_counts"
            pipeline.wait_until(lambda: value(settings, counted) == 394, 60, "closed windows")
            assert pipeline.audit(settings).closed
        yield settings


@pytest.fixture
def one(filled: Settings) -> Iterator[Orchestration]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Orchestration(instance, orchestrated(filled))


def red(one: Orchestration, key: str, name: str) -> dg.AssetCheckEvaluation:
    found = one.check(key, name)
    assert not found.passed, found.description
    return found


def test_all_is_green_on_sound_data(one: Orchestration) -> None:
    result = one.run("data_quality")
    found = {
        f"{each.asset_key.to_user_string()}:{each.check_name}": (each.passed, each.description)
        for each in result.get_asset_check_evaluations()
    }
    # What cannot be known yet is not green.
    waiting = {name: says for name, (passed, says) in found.items() if not passed}
    assert list(waiting) == ["postgres/events:volume_as_usual"]
    assert "not yet: " in waiting["postgres/events:volume_as_usual"]
    assert result.success
    assert len(found) == len(one.definitions.resolve_asset_graph().asset_check_keys)
    assert found["postgres/events:ledger_closes"][1].startswith("the ledger closes:")


def test_a_missing_row_is_a_gap_and_opens_the_ledger(one: Orchestration) -> None:
    row = "(origin_partition, origin_offset) = (1, 3)"
    with broken(
        one.settings,
        f"CREATE TABLE kept AS SELECT * FROM events WHERE {row}",
        f"DELETE FROM events WHERE {row}",
        mend=["INSERT INTO events SELECT * FROM kept", "DROP TABLE kept"],
    ):
        found = red(one, "postgres/events", "no_gaps")
        where = f"{one.settings.prefix}user-events[1]"
        assert f"1 of 400 records is not accounted for, in {where}" in (found.description or "")
        assert f"first {where} offset 3" in (found.description or "")
        assert found.severity == ERROR
        assert found.metadata["missing"].value == 1
        assert "offset 3" in str(found.metadata["sample"].value)
        ledger = red(one, "postgres/events", "ledger_closes")
        # The row is also missing in its window, and behind its notification.
        assert "the ledger does not close, 3 problems" in (ledger.description or "")
        windows = red(one, "postgres/events", "windows_equal_events")
        assert "windows differ from events in 1 partition" in (windows.description or "")
        assert "USER_LOGIN" in (windows.description or "")
        assert one.check("postgres/notifications", "no_gaps").passed
    assert one.check("postgres/events", "no_gaps").passed


def test_a_record_with_two_outcomes_is_a_duplicate(one: Orchestration) -> None:
    topic = f"{one.settings.prefix}user-events"
    with broken(
        one.settings,
        'INSERT INTO duplicates (topic, partition, "offset", origin_topic, origin_partition,'
        f" origin_offset, table_name) VALUES ('{topic}', 2, 5, '{topic}', 2, 5, 'events')",
        mend=['DELETE FROM duplicates WHERE partition = 2 AND "offset" = 5'],
    ):
        found = red(one, "postgres/events", "no_duplicates")
    assert f"1 of 400 records is accounted for twice, in {topic}[2]" in (found.description or "")
    assert "offset 5: accounted for twice, as duplicate and stored" in (found.description or "")
    assert found.severity == ERROR


def test_what_may_only_be_late_is_no_error(one: Orchestration) -> None:
    before = value(one.settings, "SELECT count(*) FROM events")
    pipeline.produce(one.settings, "user-events", [pipeline.event(1, at=datetime.now(UTC))])
    found = red(one, "postgres/events", "no_gaps")
    assert found.severity == WARN
    assert "not yet: validator is 1 offset behind" in (found.description or "")
    assert all(
        red(one, key, name).severity == WARN
        for key, name in (
            ("postgres/events", "ledger_closes"),
            ("postgres/events", "no_duplicates"),
            ("postgres/events", "windows_equal_events"),
        )
    )
    lag = red(one, "postgres/events", "fresh_by_load_time") if _aged(one) else None
    assert lag is not None
    assert "1 offset waits; at most 1.0 s is allowed: is the loader running?" in (
        lag.description or ""
    )
    assert lag.severity == WARN
    with pipeline.workers(one.settings, one.settings.state_dir):
        counted = "SELECT sum(count)::bigint FROM window_counts"
        pipeline.wait_until(lambda: value(one.settings, counted) == before + 1, 60)
        assert pipeline.audit(one.settings).closed
    assert one.check("postgres/events", "no_gaps").passed
    assert one.check("postgres/events", "fresh_by_load_time").passed


def _aged(one: Orchestration) -> bool:
    """Whether the last load is more than a second ago, with a limit of one second."""
    one.change(alert_freshness_seconds=1)
    age = "SELECT extract(epoch FROM now() - max(updated_at)) FROM loader_positions"
    return bool(pipeline.wait_until(lambda: value(one.settings, age) > 1.2, 10))


@pytest.mark.parametrize(
    ("key", "column", "change"),
    [
        ("postgres/events", "user", f"'{ADDRESS}'"),
        ("postgres/events", "user_email", "'not a hash'"),
        ("postgres/notifications", "message", f"'User {ADDRESS} logged in'"),
        ("postgres/window_counts", "event_type", f"'{ADDRESS}'"),
        ("postgres/dead_letters", "value", f'\'{{"a": "{ADDRESS}"}}\'::bytea'),
        ("postgres/dead_letters", "value", "'ann\\\\u0040example.com'::bytea"),
        ("postgres/dead_letters", "value", "convert_to('ann\uff20example.com', 'UTF8')"),
        ("postgres/dead_letters", "value", "'ann=40example.com'::bytea"),
        ("postgres/notifications", "message", "'to ann%40example.com'"),
        ("postgres/dead_letters", "key", f"'{ADDRESS}'::bytea"),
        ("postgres/dead_letters", "message", f"'{ADDRESS}'"),
        # Base64 of the address.
        ("postgres/dead_letters", "headers", '\'[["h", "YW5uQGV4YW1wbGUuY29t"]]\''),
    ],
)
def test_an_address_at_rest_is_found_wherever_it_stands(
    one: Orchestration, key: str, column: str, change: str
) -> None:
    assert one.check(key, "no_clear_text_address").passed
    table = key.split("/")[1]
    with broken(
        one.settings,
        f"CREATE TABLE kept AS SELECT * FROM {table} LIMIT 1",
        f'UPDATE {table} SET "{column}" = {change} WHERE {_same(table)}',
        mend=[
            f"DELETE FROM {table} WHERE {_same(table)}",
            f"INSERT INTO {table} SELECT * FROM kept",
            "DROP TABLE kept",
        ],
    ):
        found = red(one, key, "no_clear_text_address")
        assert f"1 clear-text address in {table}: first " in (found.description or "")
        assert f": {column}" in (found.description or "")
        assert "ann" not in str(found)
        assert found.severity == ERROR
        # It stays red until it is mended.
        red(one, key, "no_clear_text_address")
    assert one.check(key, "no_clear_text_address").passed


def _same(table: str) -> str:
    """The row that was kept, by the columns of its key that no case changes."""
    keys = {
        "events": ("origin_topic", "origin_partition", "origin_offset"),
        "window_counts": ("record_topic", "record_partition", "record_offset"),
        "notifications": ("record_topic", "record_partition", "record_offset"),
        "dead_letters": ("record_topic", "record_partition", "record_offset"),
    }[table]
    columns = ", ".join(keys)
    return f"({columns}) = (SELECT {columns} FROM kept)"


def test_old_rows_are_not_looked_at_again_and_all_are_once(one: Orchestration) -> None:
    scan = "WHERE scan = 'no_clear_text_address'"
    sound = f"SELECT loaded_through FROM quality_scans {scan}"
    execute = f"UPDATE quality_scans SET loaded_through = now() + interval '1 hour' {scan}"
    with (
        broken(one.settings, execute, mend=[f"DELETE FROM quality_scans {scan}"]),
        broken(
            one.settings,
            f"UPDATE notifications SET message = '{ADDRESS}' WHERE record_offset = 0"
            " AND record_partition = 0",
            mend=[],
        ),
    ):
        assert one.check("postgres/notifications", "no_clear_text_address").passed
    assert rows(one.settings, sound) == []
    red(one, "postgres/notifications", "no_clear_text_address")
    with broken(
        one.settings, f"UPDATE notifications SET message = 'x' WHERE message = '{ADDRESS}'", mend=[]
    ):
        assert one.check("postgres/notifications", "no_clear_text_address").passed


@pytest.mark.parametrize(
    ("change", "mend", "words"),
    [
        ("user_email = 'short'", "user_email = repeat('a', 64)", "user_email"),
        ("id = -1", "id = 1", "id: should be greater than or equal to 0"),
        ("type = 'USER_FLEW'", "type = 'USER_LOGIN'", "UNKNOWN_TYPE"),
        ("\"user\" = ''", "\"user\" = 'user-1'", "user: should have at least 1 character"),
    ],
)
def test_a_row_that_breaks_the_contract_is_named(
    one: Orchestration, change: str, mend: str, words: str
) -> None:
    row = "(origin_partition, origin_offset) = (2, 7)"
    with broken(
        one.settings,
        f"UPDATE events SET {change} WHERE {row}",
        mend=[f"UPDATE events SET {mend} WHERE {row}"],
    ):
        found = red(one, "postgres/events", "columns_keep_contract")
    assert "events breaks the contract in 1 of" in (found.description or "")
    assert f"{one.settings.prefix}user-events/2/7: " in (found.description or "")
    assert words in (found.description or "")
    assert found.severity == ERROR


@pytest.mark.parametrize(
    ("key", "change", "mend", "words"),
    [
        (
            "postgres/events",
            'ALTER TABLE events ALTER COLUMN "user" TYPE varchar',
            'ALTER TABLE events ALTER COLUMN "user" TYPE text',
            "column user: character varying, text is declared",
        ),
        (
            "postgres/notifications",
            "ALTER TABLE notifications ADD COLUMN mine text",
            "ALTER TABLE notifications DROP COLUMN mine",
            "column mine: not declared",
        ),
        (
            "postgres/dead_letters",
            "ALTER TABLE dead_letters RENAME COLUMN stage TO step",
            "ALTER TABLE dead_letters RENAME COLUMN step TO stage",
            "column stage: missing",
        ),
    ],
)
def test_a_changed_column_is_named(
    one: Orchestration, key: str, change: str, mend: str, words: str
) -> None:
    with broken(one.settings, change, mend=[mend]):
        assert words in (red(one, key, "columns_keep_contract").description or "")


def test_old_events_and_many_dead_letters_warn(one: Orchestration) -> None:
    one.change(fresh_event_seconds=1, alert_dead_letter_records=10, alert_dead_letter_ratio=0.01)
    pipeline.wait_until(
        lambda: (
            value(one.settings, 'SELECT now() - max("timestamp") FROM events')
            > timedelta(seconds=1.5)
        ),
        20,
    )
    age = red(one, "postgres/events", "fresh_by_event_time")
    assert "at most 1.0 s is usual: do producers send?" in (age.description or "")
    rate = red(one, "postgres/events", "few_dead_letters")
    assert "6 of 40" in (rate.description or "")
    assert "1.0% are allowed: 1 CLEAR_TEXT_PII" in (rate.description or "")
    assert "user-events[" in str(rate.metadata["sample"].value)
    assert {age.severity, rate.severity} == {WARN}


def test_an_unusual_hour_warns(one: Orchestration) -> None:
    topic = f"{one.settings.prefix}user-events"
    history = (
        "INSERT INTO window_counts (window_start, window_end, event_type, count, partition, late,"
        " first_offset, last_offset, origin_topic, record_topic, record_partition, record_offset)"
        " SELECT date_trunc('hour', now()) - n * interval '1 hour',"
        " date_trunc('hour', now()) - n * interval '1 hour' + interval '10 s', 'USER_LOGIN',"
        # Far more than this module's own events, which may be of the hour before.
        f" CASE n WHEN 1 THEN 10 ELSE 1000000 END, 900 + n, false, n, n + 1000, '{topic}', 'test', 0, n"
        " FROM generate_series(1, 12) AS n"
    )
    with broken(
        one.settings, history, mend=["DELETE FROM window_counts WHERE record_topic = 'test'"]
    ):
        found = red(one, "postgres/events", "volume_as_usual")
    assert "usual are 250,000 to 4,000,000 (median 1,000,000 of 11 hours)" in (
        found.description or ""
    )
    assert found.severity == WARN


def test_a_long_topic_is_audited_from_where_an_earlier_audit_ended(one: Orchestration) -> None:
    streams = load_streams(one.settings)
    whole = run_audit(one.settings, streams, patience=5)
    again = run_audit(one.settings, streams, patience=5, most=10)
    assert whole.closed
    assert again.closed
    assert sum(each.records for each in again.partitions) == 0
    ledger = "SELECT sum(records)::bigint FROM audit_ledger"
    assert value(one.settings, ledger) == sum(each.records for each in whole.partitions)
