"""The embedded database: PostgreSQL 18 from a wheel, on TCP, with passwords.

Its folder holds ``data`` (the cluster), ``credentials.json`` (mode 0600) and nothing else. As root
it runs as a user without rights, see ``streamflow_stack.account``.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from streamflow.errors import ConfigurationError, StackError, Unavailable
from streamflow.postgres.connections import Connection, Ping, open_connection
from streamflow_stack.account import Account, database_account
from streamflow_stack.embedded import environment, postgres
from streamflow_stack.part import LOOPBACK, PROBE_SECONDS, READY, Health, StackReport
from streamflow_stack.process import Launch, environment_of, last_reason, wrap
from streamflow_stack.state import passage_mode, write_atomically

INITIALISE_SECONDS = 120.0

MAJOR_VERSION = "18"
ROLE = "streamflow"
SUPERUSER = "postgres"
DATABASE = "streamflow"


@dataclass(frozen=True)
class Database:
    directory: Path
    port: int
    log: Path

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def prepare(self, report: StackReport) -> None:
        """Creates cluster, role and database, unless they exist. Raises StackError if that fails, or
        if the cluster is of another version."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.directory.is_symlink():
            self.directory.chmod(passage_mode())
        version_file = self.data / "PG_VERSION"
        if version_file.exists():
            version = version_file.read_text().strip()
            if version != MAJOR_VERSION:
                raise StackError(
                    f"the database in {self.directory} is of PostgreSQL {version}, this release "
                    f"runs {MAJOR_VERSION}: export it with the release that made it, or start "
                    "again with `streamflow down --purge`"
                )
            self._drop_foreign_pid_file()
        else:
            report.say("creating the database")
            self._initialise()

    def launch(self) -> Launch:
        options = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        program = str(postgres("postgres"))
        return Launch(
            command=(program, "-D", str(self.data), "-p", str(self.port), *options),
            log=self.log,
            environment=environment(),
            inherits=False,
            directory=self.directory,
            account=self._account(),
            # "Fast": ends sessions, writes a checkpoint. SIGTERM would wait for every client.
            stop_signal=signal.SIGINT,
        )

    @cached_property
    def probe(self) -> "DatabaseProbe":
        return DatabaseProbe(self.url)

    def url(self, database: str = DATABASE, role: str = ROLE) -> str:
        """A connection URL, with the password: never log it. Raises StackError if the database has not
        been created, or its credentials are gone."""
        path = self.directory / "credentials.json"
        try:
            password = json.loads(path.read_text())[role]
        except (OSError, ValueError, KeyError) as error:
            raise StackError(f"the database's credentials {path} cannot be read: {error}") from None
        return f"postgresql://{role}:{quote(password)}@{LOOPBACK}:{self.port}/{database}"

    def ensure_database(self, name: str, template: str | None = None) -> str:
        """Creates a database owned by StreamFlow's role unless it exists; returns its URL, with the
        password. Raises Unavailable if the server does not answer."""
        statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(
            sql.Identifier(name), sql.Identifier(ROLE)
        )
        if template:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        with self._administration() as connection:
            exists = "SELECT FROM pg_database WHERE datname = %s"
            if connection.execute(exists, (name,)).rowcount == 0:
                connection.execute(statement)
        return self.url(name)

    def ensure_groups(self, names: Iterable[str]) -> None:
        """Creates roles that cannot log in, and have no rights yet, unless they exist. Raises as
        `ensure_database`."""
        with self._administration() as connection:
            for name in names:
                with suppress(psycopg.errors.DuplicateObject):
                    connection.execute(
                        sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name))
                    )

    @contextmanager
    def _administration(self) -> Iterator[Connection]:
        try:
            with open_connection(
                self.url("postgres", SUPERUSER), 10, "administration"
            ) as connection:
                yield connection
        except psycopg.OperationalError as error:
            raise Unavailable(f"the embedded database does not answer: {error}") from error

    def _account(self) -> Account | None:
        return database_account(self.data, postgres("postgres"))

    def _initialise(self) -> None:
        """Creates the cluster beside its place and moves it there: no reader sees half of it."""
        account = self._account()
        working = self.directory / "data.new"
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir(mode=0o700)
        passwords = {name: secrets.token_urlsafe(24) for name in (SUPERUSER, ROLE)}
        write_atomically(self.directory / "credentials.json", json.dumps(passwords))
        password_file = self.directory / "password"
        write_atomically(password_file, passwords[SUPERUSER])
        if account:
            for path in (working, password_file):
                os.chown(path, account.uid, account.gid)
        try:
            self._run(
                account,
                "initdb",
                *("-D", str(working), "-U", SUPERUSER, f"--pwfile={password_file}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            )
            # Single-user mode: nobody can connect before the passwords are set. One command a line.
            self._run(
                account,
                "postgres",
                *("--single", "-D", str(working), "postgres"),
                commands=f"CREATE ROLE {ROLE} LOGIN PASSWORD '{passwords[ROLE]}'\n"
                f"CREATE DATABASE {DATABASE} OWNER {ROLE}\n",
            )
        finally:
            password_file.unlink()
        working.rename(self.data)

    def _run(self, account: Account | None, name: str, *arguments: str, commands: str = "") -> None:
        launch = Launch(
            (str(postgres(name)), *arguments),
            self.log,
            environment(),
            inherits=False,
            account=account,
        )
        try:
            done = subprocess.run(  # noqa: S603 (our own command)
                wrap(launch),
                input=commands,
                capture_output=True,
                text=True,
                check=False,
                cwd=self.directory,
                env=environment_of(launch),
                timeout=INITIALISE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise StackError(
                f"PostgreSQL has not set up {self.directory} within {INITIALISE_SECONDS:g} s: the "
                "machine is too busy, try again"
            ) from None
        if done.returncode != 0 or "ERROR:" in done.stderr:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            # What initdb prints holds no password; what single-user mode prints could.
            self.log.write_text(done.stderr if not commands else "single-user mode failed\n")
            reason = last_reason(self.log)
            raise StackError(f"PostgreSQL cannot be set up in {self.directory}: {reason}")

    def _drop_foreign_pid_file(self) -> None:
        """Removes a pid file whose pid is now another program's, as after a container's restart.

        PostgreSQL would take that program for itself and refuse to start. A pid that is dead, or
        a postgres, is left to PostgreSQL: it also looks for sessions that are still running.
        """
        path = self.data / "postmaster.pid"
        try:
            pid = int(path.read_text().split("\n", 1)[0])
            name = psutil.Process(pid).name()
        except (OSError, ValueError, psutil.Error):
            return
        if not name.startswith("postgres"):
            path.unlink(missing_ok=True)


class DatabaseProbe:
    """Asks the database at a URL, which need not be known before."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._ping = Ping(lambda: open_connection(url(), PROBE_SECONDS, "probe"), PROBE_SECONDS)

    def __call__(self) -> Health:
        try:
            self._ping()
        except StackError as error:
            return Health(answered=False, ready=False, detail=str(error))
        except ConfigurationError as error:
            return Health(answered=True, ready=False, detail=str(error))
        except psycopg.Error as error:
            detail = next(iter(str(error).strip().splitlines()), "no answer")
            return Health(answered=error.sqlstate is not None, ready=False, detail=detail)
        return READY


_SETTINGS = {
    "listen_addresses": LOOPBACK,
    # A socket's path may have 107 characters only; passwords over TCP work everywhere.
    "unix_socket_directories": "",
    "max_connections": 100,
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    # What is committed is on the disk; many short queries, so no time for compiling them.
    "fsync": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
}
