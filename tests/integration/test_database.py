"""The embedded database on its own: start, crash, restart, passwords, folders closed to others."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from faults import kill, wait_until
from loads import FakeRecord, Load, event, execute
from services import DatabaseService
from streamflow.errors import ConfigurationError, StackError
from streamflow.postgres.connections import connect
from streamflow.settings import Settings
from streamflow_stack.doctor import Mark, _database
from streamflow_stack.process import Child

pytestmark = pytest.mark.integration


@pytest.fixture
def own_database(tmp_path: Path) -> Iterator[DatabaseService]:
    service = DatabaseService(tmp_path, flushes=True)
    service.start()
    yield service
    service.stop()


def test_rows_survive_sigkill_and_restart(own_database: DatabaseService) -> None:
    with psycopg.connect(own_database.url) as connection:
        connection.execute("CREATE TABLE kept (number integer)")
        connection.execute("INSERT INTO kept SELECT generate_series(1, 1000)")

    own_database.restart()

    with psycopg.connect(own_database.url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
    assert own_database.report.lines == ["creating the database"]


def test_nobody_enters_without_the_password(database_server: DatabaseService) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(
            host="127.0.0.1", port=database_server.port, user="streamflow", dbname="streamflow"
        )
    credentials = database_server.database.directory / "credentials.json"
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600


def test_the_role_is_no_superuser(database_server: DatabaseService) -> None:
    with psycopg.connect(database_server.url) as connection:
        found = connection.execute(
            "SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert found == (False, False)


def test_settings_are_in_force(own_database: DatabaseService) -> None:
    names = ("fsync", "jit", "shared_buffers", "max_wal_size", "listen_addresses", "TimeZone")
    with psycopg.connect(own_database.url) as connection:
        found = [
            connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in names
        ]
    assert [row[0] for row in found if row] == ["on", "off", "256MB", "2GB", "127.0.0.1", "UTC"]


def test_no_secret_in_the_process_list(database_server: DatabaseService) -> None:
    password = database_server.url.split(":")[2].split("@")[0]
    command = Path(f"/proc/{database_server.pid}/cmdline").read_bytes()
    assert password.encode() not in command


def test_doctor_says_what_it_could_not_examine(database_server: DatabaseService) -> None:
    # There are no tables yet, so nobody knows under which keys the hashes are.
    found = _database(Settings(DATABASE_URL=database_server.url), running=False)
    [said] = [finding for finding in found if finding.subject == "hash keys"]
    assert said.mark is Mark.NOTE
    assert said.text.startswith("unknown (the database refuses (42P01: ")


def test_another_database_is_made_once(database_server: DatabaseService) -> None:
    urls = {database_server.create_database("another") for _ in range(2)}
    assert len(urls) == 1
    with psycopg.connect(urls.pop()) as connection:
        connection.execute("CREATE TABLE mine (number integer)")
    database_server.drop_database("another")


def test_an_interrupted_creation_is_begun_anew(tmp_path: Path) -> None:
    half_made = tmp_path / "postgres" / "data.new"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    service = DatabaseService(tmp_path)
    service.start()
    service.stop()


def test_another_version_is_refused(tmp_path: Path) -> None:
    service = DatabaseService(tmp_path)
    service.database.data.mkdir(parents=True)
    (service.database.data / "PG_VERSION").write_text("16\n")
    with pytest.raises(StackError, match="PostgreSQL 16"):
        service.begin()


def test_a_pid_file_with_the_pid_of_another_program_is_no_obstacle(tmp_path: Path) -> None:
    service = DatabaseService(tmp_path)
    service.start()
    pid_file = service.database.data / "postmaster.pid"
    lines = pid_file.read_text().split("\n")
    service.kill()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    service.start()
    service.stop()


def test_a_taken_port_is_told_by_the_log(database_server: DatabaseService, tmp_path: Path) -> None:
    other = DatabaseService(tmp_path)
    other.server = type(other.database)(
        tmp_path / "postgres", database_server.port, tmp_path / "postgres.log"
    )
    other.server.prepare(other.report)
    child = Child("postgres", other.server.launch(), tmp_path / "run" / "postgres.json")
    wait_until(lambda: child.poll() is not None, 20, "the second server's end")
    assert "address" in child.last_words().lower()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change the user")
def test_root_runs_it_as_another_user_even_in_a_closed_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    service = DatabaseService(closed)
    service.start()
    assert Path(f"/proc/{service.pid}").stat().st_uid != 0
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    service.stop()


def test_killed_database_is_refused_then_found_again(own_database: DatabaseService) -> None:
    kill(own_database.pid)
    # Its process for the connection that is kept ends when it notices.
    wait_until(lambda: not own_database.probe().ready, 10, "the killed database to be refused")
    own_database.start()
    assert own_database.probe().ready


def test_text_is_stored_as_it_came_whatever_the_environment_says(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    settings = Settings(DATABASE_URL=database_url)
    texts = [
        "José", "Jose\u0301", "\\.", "\\N", "None", "tab\there\nnl\rcr\\bs", "%s %d {} $1", "😀 \uffff",
    ]  # fmt: skip
    load = Load(settings)
    with closing(load.sink):
        load.load([FakeRecord(at, event(at, user=text)) for at, text in enumerate(texts)])
    with psycopg.connect(database_url, client_encoding="UTF8") as other:
        stored = other.execute('SELECT "user" FROM events ORDER BY origin_offset').fetchall()
    assert [text for (text,) in stored] == texts
    with closing(connect(settings, "test")) as own:
        assert own.execute('SELECT "user" FROM events ORDER BY origin_offset').fetchall() == stored


def test_values_are_read_whatever_the_database_has_as_defaults(database_url: str) -> None:
    settings = Settings(DATABASE_URL=database_url)
    name = conninfo_to_dict(database_url)["dbname"]
    for setting in (
        "datestyle = 'German'",
        "intervalstyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "timezone = 'Asia/Kolkata'",
        "extra_float_digits = -4",
        "standard_conforming_strings = off",
    ):
        execute(settings, f'ALTER DATABASE "{name}" SET {setting}')
    with closing(connect(settings, "test")) as connection:
        found = connection.execute(
            "SELECT timestamptz '2026-11-26 10:00:00+00', interval '1 day 2 hours', '\\x00ff'::bytea,"
            " 1.0::float8 / 3, timestamptz '2026-11-26 10:00:00+00'::text"
        ).fetchone()
    assert found == (
        datetime(2026, 11, 26, 10, tzinfo=UTC),
        timedelta(days=1, hours=2),
        b"\x00\xff",
        1 / 3,
        "2026-11-26 10:00:00+00",
    )


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_is_refused(
    encoding: str, database_server: DatabaseService
) -> None:
    name = f"in_{encoding.lower()}"
    administrator = database_server.database.url("postgres", "postgres")
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} OWNER streamflow ENCODING '{encoding}' TEMPLATE template0"
            " LOCALE_PROVIDER libc LOCALE 'C'"
        )
    settings = Settings(DATABASE_URL=database_server.database.url(name))
    with pytest.raises(ConfigurationError, match=f"encoded in {encoding}.*ENCODING 'UTF8'"):
        connect(settings, "test")
    database_server.drop_database(name)
