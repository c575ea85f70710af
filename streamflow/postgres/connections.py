"""Connections to PostgreSQL, and what its errors mean to a worker."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict

from streamflow.calls import SLACK, call
from streamflow.database_url import EXAMPLE
from streamflow.errors import ConfigurationError, StreamFlowError, Unavailable
from streamflow.settings import Settings

_T = TypeVar("_T")

CONNECT_TIMEOUT: Final = 5  # seconds
STATEMENT_TIMEOUT: Final = 25  # seconds; no statement of a healthy worker's batch takes so long
LOCK_TIMEOUT: Final = 20  # seconds
IDLE_TIMEOUT: Final = 60  # seconds that an open transaction may do nothing

_PING_KEPT: Final = 30  # seconds

# Seconds that an answer may take beyond the statement's time-out, which the server watches.
_ANSWER_SLACK: Final = 5

# Without these a worker would wait for hours for a network that is cut.
KEEPALIVES: Final[dict[str, Any]] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

# psycopg, our SQL and COPY rely on these; a database or role may have other defaults (ALTER DATABASE … SET).
_SESSION: Final = """
SET timezone = 'UTC';
SET datestyle = 'ISO, MDY';
SET intervalstyle = 'postgres';
SET bytea_output = 'hex';
SET extra_float_digits = 1;
SET standard_conforming_strings = on
"""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which every wait for the server has a limit of ours, `answer_within` (seconds; None
    for none).

    ``statement_timeout`` is the server's: it ends nothing if the server, or a pooler before it, hangs.
    And TCP's own time-outs see nothing wrong while packets are acknowledged.
    """

    answer_within: float | None = None

    def wait(self, gen: PQGen[_T], interval: float = 0.1, timeout: float | None = None) -> _T:
        """As psycopg's. Raises psycopg.OperationalError if no answer came in time, and closes the
        connection."""
        limit = self.answer_within if timeout is None else timeout
        with call("PostgreSQL", None if limit is None else limit + SLACK):
            try:
                return super().wait(gen, interval, timeout=limit)
            except psycopg.errors._WaitTimeout:  # noqa: SLF001 (psycopg asks callers to convert it)
                if timeout is not None:
                    raise
                self.pgconn.finish()
                raise psycopg.OperationalError(f"no answer within {limit:g} s") from None


WHOLE_TABLES_TIMEOUT: Final = 6 * 3600  # seconds, of a statement that reads or changes whole tables

# Classes of SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_REFUSALS: Final = ("22", "23", "44", "54", "P0")
_CONTENTION: Final = ("40",)
_FAULTY: Final = ("22", "42", "54")
_CONFIGURATION: Final = ("28", "3D", "3F", "42")

# libpq hands over no SQLSTATE for what fails before the login, only words.
_NOT_TRUSTED: Final = re.compile(
    r"certificate|private key|sslmode|does not support SSL|SSL required|alert unknown ca"
    r"|no pg_hba\.conf entry"
)
_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'")


def connect(
    settings: Settings, name: str, *, statement_timeout: int = STATEMENT_TIMEOUT
) -> Connection:
    """Opens a connection in autocommit mode: transactions begin explicitly.

    Args:
        name: of the caller, for ``pg_stat_activity``.
        statement_timeout: in seconds; 0 for none.

    Raises:
        Unavailable: the database does not answer.
        ConfigurationError: it refuses the connection.
    """
    with translated():
        connection = open_connection(settings.database, CONNECT_TIMEOUT, name, **KEEPALIVES)
        connection.execute(
            f"SET statement_timeout = '{statement_timeout}s'; SET lock_timeout = '{LOCK_TIMEOUT}s';"
            f"SET idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}s'"
        )
        connection.answer_within = statement_timeout + _ANSWER_SLACK if statement_timeout else None
    return connection


def open_connection(url: str, timeout: int, name: str, **options: Any) -> Connection:
    """As `connect`, of any URL, with `timeout` in seconds and further parameters of libpq; reads and
    writes text the same way, whatever the environment or the database have as their defaults.

    Raises:
        ConfigurationError: the URL is invalid, or the database cannot hold every text.
        psycopg.Error: anything else; its message holds no password.
    """
    try:
        conninfo_to_dict(url)
    except (psycopg.ProgrammingError, UnicodeError):
        # Its text quotes the URL.
        raise ConfigurationError(
            f"DATABASE_URL holds a parameter that libpq does not know, or is not a URL: write {EXAMPLE}"
        ) from None
    with call("connecting to PostgreSQL"):
        connection = Connection.connect(
            url,
            autocommit=True,
            client_encoding="UTF8",
            application_name=f"streamflow-{name}",
            connect_timeout=timeout,
            **options,
        )
    connection.answer_within = timeout + _ANSWER_SLACK
    try:
        _require_utf8(connection)
        # Not as connection options: poolers refuse those.
        connection.execute(_SESSION)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_utf8(connection: Connection) -> None:
    """Raises ConfigurationError where the database holds text in another encoding."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the database {connection.info.dbname} is encoded in {encoding}, which cannot hold "
            "every text: CREATE DATABASE streamflow ENCODING 'UTF8' TEMPLATE template0, and let "
            "DATABASE_URL name that"
        )


@contextmanager
def session(settings: Settings, name: str, *, statement_timeout: int = 0) -> Iterator[Connection]:
    """A connection for some reads or changes; its errors are raised as StreamFlow's, as `connect` does."""
    connection = connect(settings, name, statement_timeout=statement_timeout)
    try:
        with translated():
            yield connection
    finally:
        connection.close()


def is_refusal(error: psycopg.Error) -> bool:
    """Whether the database refuses a row because of its content: a data error."""
    return (error.sqlstate or "").startswith(_REFUSALS)


def faulty_statement(error: psycopg.Error) -> str | None:
    """What the database says of a statement that fails as it is written, whoever runs it and however
    often; None for any other error. It holds no row's content."""
    state = error.sqlstate or ""
    if not state.startswith(_FAULTY):
        return None
    # Messages of class 22 quote values.
    reason = type(error).__name__ if state.startswith("22") else error.diag.message_primary
    return f"{state}: {reason}"


def refused_definition(error: psycopg.Error) -> str | None:
    """As `faulty_statement`, of one that makes or alters a table: rights are no fault of the table."""
    return (
        None if isinstance(error, psycopg.errors.InsufficientPrivilege) else faulty_statement(error)
    )


def is_contention(error: BaseException) -> bool:
    """Whether the transaction lost against another (deadlock, serialization): try it again."""
    return isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(_CONTENTION)


def translate(error: psycopg.Error) -> StreamFlowError:
    """What a database error means to its caller. The message holds no row's content."""
    state = error.sqlstate or ""
    if state.startswith(_CONFIGURATION) or _refused_at_login(error):
        reason = error.diag.message_primary or str(error).strip().splitlines()[-1]
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return ConfigurationError(
                f"the database refuses ({state}: {reason}): if the user of DATABASE_URL is a worker's or "
                "the dashboard's, run `streamflow db roles --apply` as the owner of the tables; it grants "
                "what this release needs"
            )
        return ConfigurationError(
            f"the database refuses ({state or 'login'}: {reason}): check DATABASE_URL and the rights "
            "of its user, and run `streamflow db upgrade`"
        )
    if not state:
        lines = str(error).strip().splitlines()
        reasons = (line.rpartition(" failed: ")[2] for line in lines)
        distrust = next(filter(_is_distrust, reasons), None)
        if distrust is not None:
            return ConfigurationError(
                f"the database refuses the connection ({distrust}): check the host, sslmode and "
                "sslrootcert in DATABASE_URL, and the server's pg_hba.conf"
            )
        return Unavailable(
            f"the database does not answer: {lines[0] if lines else type(error).__name__}"
        )
    return Unavailable(f"the database cannot do this now ({state} {type(error).__name__})")


def _is_distrust(reason: str) -> bool:
    # A host or file may be called anything.
    return _NOT_TRUSTED.search(_QUOTED.sub("", reason)) is not None


def _refused_at_login(error: psycopg.Error) -> bool:
    # libpq hands over no SQLSTATE for a failed login, only the server's words.
    if error.sqlstate or error.pgconn is None:
        return False
    text = str(error)
    return "authentication failed" in text or (
        "does not exist" in text and "FATAL" in text and ("database" in text or "role" in text)
    )


@contextmanager
def translated() -> Iterator[None]:
    """Raises the database's errors as StreamFlow's."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error


class Ping:
    """Asks whether the database answers, from one thread at a time.

    A login costs both sides several times as much as the question, so the connection is kept for a while;
    not for ever, so that a database that refuses new ones is noticed.

    Args:
        open_: opens a connection.
        answer_within: seconds.
    """

    def __init__(self, open_: Callable[[], Connection], answer_within: float) -> None:
        self._open = open_
        self._answer_within = answer_within
        self._connection: Connection | None = None
        self._opened_at = 0.0

    def __call__(self) -> None:
        """Raises as `open_` does, or psycopg.OperationalError, unless the database answers."""
        if self._connection is not None:
            began = time.monotonic()
            try:
                if began - self._opened_at < _PING_KEPT:
                    self._connection.execute("SELECT 1")
                    return
            except psycopg.Error:
                # Whoever waits for the answer has waited long enough.
                if time.monotonic() - began >= self._answer_within:
                    self._close()
                    raise
            self._close()
        self._connection = self._open()
        self._connection.answer_within = self._answer_within
        self._opened_at = time.monotonic()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        self._close()


def ping(settings: Settings) -> Callable[[], None]:
    """What asks the database of `settings`; raises Unavailable or ConfigurationError."""
    ask = Ping(lambda: connect(settings, "ping", statement_timeout=5), CONNECT_TIMEOUT)

    def translated_ask() -> None:
        with translated():
            ask()

    return translated_ask
