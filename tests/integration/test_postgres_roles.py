"""Loader and dashboard do their work under roles that can do nothing else."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import psycopg
import pytest

from loads import (
    TOPIC,
    FakeRecord,
    Load,
    dead_letter,
    event,
    events,
    execute,
    forget_listed,
    notification,
    replay,
    rows,
    value,
    window_count,
)
from services import DatabaseService
from streamflow.dead_letters.select import Selection
from streamflow.errors import ConfigurationError
from streamflow.postgres.connections import session
from streamflow.postgres.forgotten import ERASED, Kind
from streamflow.postgres.roles import apply_roles, role_names, role_statements
from streamflow.postgres.signing_key import SigningKey
from streamflow.records import Origin
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS
from streamflow_stack.database import SUPERUSER
from streamlit_app.measure.postgres import PostgresSource
from streamlit_app.records import queries
from streamlit_app.records.traces import trace
from streamlit_app.records.window_counts import window_counts

pytestmark = pytest.mark.integration

PREFIX = "roles_test"


class Users(NamedTuple):
    worker: Settings
    reader: Settings


@pytest.fixture
def users(database: Settings, database_server: DatabaseService) -> Iterator[Users]:
    """A user in each of the roles, for a database that has its schema."""
    name = psycopg.conninfo.conninfo_to_dict(database.database)["dbname"]
    administrator = database_server.database.url(str(name), SUPERUSER)
    with psycopg.connect(administrator, autocommit=True) as connection:
        # As in every schema `public` that a PostgreSQL before 15 has made.
        connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        for role in ("worker", "reader"):
            connection.execute(f"CREATE ROLE {PREFIX}_{role} NOLOGIN")
            connection.execute(
                f"CREATE ROLE {PREFIX}_{role}_1 LOGIN PASSWORD 'pass' IN ROLE {PREFIX}_{role}"
            )
        # As an earlier release has granted it.
        connection.execute(f"GRANT UPDATE ON notifications, replay_records TO {PREFIX}_worker")
        try:
            # As the owner, who may not create roles.
            apply_roles(database, [USER_EVENTS], PREFIX)
            assert apply_roles(database, [USER_EVENTS], PREFIX)
            yield Users(
                *(
                    Settings(
                        DATABASE_URL=f"postgresql://{PREFIX}_{role}_1:pass@127.0.0.1:"
                        f"{database_server.port}/{name}"
                    )
                    for role in ("worker", "reader")
                )
            )
        finally:
            for role in ("worker", "reader"):
                connection.execute(f"DROP OWNED BY {PREFIX}_{role}")
                connection.execute(f"DROP ROLE {PREFIX}_{role}_1, {PREFIX}_{role}")


def refused(settings: Settings, statement: str) -> bool:
    try:
        execute(settings, statement)
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


ALTERS = (
    "ALTER TABLE events ADD COLUMN more text",
    "DROP TABLE notifications",
    "TRUNCATE events",
    "CREATE TABLE mine (n int)",
    "DELETE FROM events",
    "UPDATE events SET id = 2",
    "UPDATE signing_key SET key = ''",
    "INSERT INTO topics SELECT * FROM topics",
    "UPDATE audit_ledger SET stored = 0",
    "UPDATE replay_records SET outcome = 'sent'",
    "UPDATE dead_letters SET error_code = 'NONE'",
    "UPDATE notifications SET origin_offset = 0",
    "UPDATE loader_positions SET group_name = 'other'",
    "UPDATE gaps SET first_offset = 0",
    "INSERT INTO replays (requested_by) VALUES ('me')",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
)


def test_a_loader_loads_and_alters_nothing(database: Settings, users: Users) -> None:
    load = Load(users.worker)
    # Fast and slow path, another day's partition, a refusal by the database, and a replay.
    execute(database, "ALTER TABLE events ADD CHECK (id <> 7)")
    load.load([*events([0, 1]), FakeRecord(2, b"{}"), dead_letter(0, "user-events/0/2", 2)])
    load.load([*events([0, 1]), window_count(0, 0)])
    load.load([FakeRecord(3, event(1, time="2001-01-01T00:00:00Z"))])
    load.load([FakeRecord(4, event(7)), FakeRecord(5, event(8))])
    owners = Load(database)
    owners.sent("user-events/0/2", "user-events/0/6")
    owners.sink.close()
    load.load([replay(6, "user-events/0/2")])
    load.sink.close()

    assert [record.topic for record in load.delivered]
    with session(database, "test") as connection:
        days = connection.execute(
            "SELECT tableoid::regclass::text FROM events WHERE origin_offset IN (2, 3) ORDER BY 1"
        ).fetchall()
        assert days[0] == ("events_20010101",)
    assert SigningKey(users.worker).signer()
    for statement in ALTERS:
        assert refused(users.worker, statement), statement
    # The function of the owner creates days of event tables, and nothing else.
    with pytest.raises(psycopg.errors.UndefinedTable):
        execute(users.worker, "SELECT create_day_partition('pg_class', '2026-01-01')")
    execute(
        users.worker,
        'CREATE TEMP TABLE events ("timestamp" timestamptz) PARTITION BY RANGE ("timestamp");'
        " SELECT create_day_partition('events', '2002-02-02')",
    )
    with session(database, "test") as connection:
        [(made,)] = connection.execute("SELECT to_regclass('events_20020202')::text")
        assert made == "events_20020202"


def test_a_loader_empties_what_it_has_stored_of_the_forgotten(
    database: Settings, users: Users
) -> None:
    load = Load(users.worker)
    load.load([notification(0, 0), dead_letter(0, "user-events/0/0")])
    forget_listed(database, Kind.USER, "ann")
    load.load([FakeRecord(0, event(user="ann"))])
    load.sink.close()
    assert value(database, "SELECT message FROM notifications") == ERASED
    assert rows(database, "SELECT status, value FROM dead_letters") == [("erased", None)]


def test_the_dashboard_reads_and_writes_nothing(database: Settings, users: Users) -> None:
    load = Load(database)
    load.load([*events([0, 1]), FakeRecord(2, b"{}"), window_count(0, 0)])
    load.load([dead_letter(0, "user-events/0/2", 2)])
    load.sink.close()
    reader, streams = users.reader, [USER_EVENTS]

    source = PostgresSource(reader, streams)
    assert source().codes().total() == 1
    source.close()
    assert window_counts(reader, USER_EVENTS, 900.0, datetime(2026, 7, 2, tzinfo=UTC)).end
    assert len(queries.dead_letters(reader, Selection()).rows) == 1
    assert queries.dead_letter(reader, Origin(TOPIC, 0, 2)) is not None
    assert queries.dead_letters_over_time(reader, 3600.0, streams[0]) is not None
    assert trace(reader, streams, Origin(TOPIC, 0, 0)).row is not None
    assert queries.recent_replays(reader) == ()
    for statement in (
        *ALTERS,
        "INSERT INTO events SELECT * FROM events",
        "SELECT * FROM signing_key",
    ):
        assert refused(reader, statement), statement
    assert refused(reader, "SELECT create_day_partition('events', '2001-01-01')")


@pytest.mark.usefixtures("users")
def test_a_schema_of_others_in_which_all_may_create_is_named(
    database: Settings, database_server: DatabaseService
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database.database)["dbname"]
    with psycopg.connect(database_server.database.url(str(name), SUPERUSER)) as connection:
        connection.execute(f"ALTER SCHEMA public OWNER TO {SUPERUSER}")
        connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    with pytest.raises(ConfigurationError, match="REVOKE CREATE ON SCHEMA"):
        apply_roles(database, [USER_EVENTS], PREFIX)


def test_the_statements_can_be_executed_by_hand(
    database: Settings, database_server: DatabaseService
) -> None:
    made = role_statements(database, [USER_EVENTS], 'odd "name')
    assert made[0].startswith('DO $$ BEGIN CREATE ROLE "odd ""name_worker" NOLOGIN')
    # The owner may create none: who can, and how, is one line.
    with pytest.raises(ConfigurationError) as refusal:
        apply_roles(database, [USER_EVENTS], 'odd "name')
    assert (
        'let an administrator of the database execute CREATE ROLE "odd ""name_worker" NOLOGIN; '
        'CREATE ROLE "odd ""name_reader" NOLOGIN; and run this again' in str(refusal.value)
    )
    try:
        for _ in range(2):
            database_server.database.ensure_groups(role_names('odd "name'))
            assert apply_roles(database, [USER_EVENTS], 'odd "name')
    finally:
        name = psycopg.conninfo.conninfo_to_dict(database.database)["dbname"]
        with psycopg.connect(database_server.database.url(str(name), SUPERUSER)) as connection:
            for role in ('"odd ""name_worker"', '"odd ""name_reader"'):
                connection.execute(f"DROP OWNED BY {role}")
                connection.execute(f"DROP ROLE {role}")
