"""Replays of dead letters on the whole path: broker, database, and all workers as processes."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
import pytest

from faults import stalled, wait_until
from kept_counts import require_exact_kinds, require_exact_rows
from loads import execute, rows, value
from pipeline import INVALID, WorkerProcess, audit, environment, event, produce, workers
from services import BrokerService, DatabaseService
from streamflow.contract import Event, Timestamp
from streamflow.dead_letters import store
from streamflow.dead_letters.apply import apply, plan_after_recovery, plan_and_apply
from streamflow.dead_letters.plan import plan
from streamflow.dead_letters.report import ReplayOptions, ReplayReport
from streamflow.dead_letters.selection_parser import make_selection
from streamflow.errors import Fenced, Unavailable, UsageError
from streamflow.kafka import clients, offsets
from streamflow.kafka.topics import provision
from streamflow.kafka.transactions import Publisher
from streamflow.postgres.connections import session
from streamflow.privacy import Hasher
from streamflow.records import Origin
from streamflow.registry import hasher_for, load_streams
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow_cli.app import main
from streamflow_dagster.defs.replay import replay_dead_letters

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

FAST = ReplayOptions(rate=100_000.0, patience=90.0)
MENDED = "SELECT count(*) FROM events WHERE \"user\" LIKE '{}%'"

UNREAD = (
    "SELECT count(*) FROM dead_letters WHERE NOT EXISTS (SELECT FROM loader_positions"
    " WHERE topic = source_topic AND partition = source_partition AND next_offset > source_offset)"
)


@dataclass
class Stack:
    """A broker, a database and workers that all tests of this module share."""

    settings: Settings
    running: dict[str, WorkerProcess]
    streams: Sequence[Stream] = field(init=False)
    hasher: Hasher = field(init=False)

    def __post_init__(self) -> None:
        self.streams = load_streams(self.settings)
        self.hasher = hasher_for(self.settings, self.streams)

    @property
    def topic(self) -> str:
        return self.streams[0].topic

    def bury(self, mark: str, count: int, **changes: Any) -> None:
        """Sends events that their contract refuses, and waits until they are dead letters."""
        broken = {"timestamp": "2026-03-01T12:00:00"} | changes
        values = [
            json.dumps(json.loads(event(number)) | {"user": f"{mark}-{number}"} | broken).encode()
            for number in range(count)
        ]
        self.bury_values(values, f"WHERE position('{mark}' IN value) > 0")

    def bury_values(self, values: Sequence[bytes], where: str) -> None:
        count = f"SELECT count(*) FROM dead_letters {where}"
        before = value(self.settings, count)
        produce(self.settings, "user-events", values)
        wait_until(
            lambda: value(self.settings, count) == before + len(values), 60, "the dead letters"
        )
        # A letter can be loaded before the loader has passed the record that failed.
        wait_until(lambda: value(self.settings, UNREAD) == 0, 60, "the loader to pass the records")

    def audit_closes(self) -> bool:
        report = audit(self.settings)
        assert report.closed, report.problems[:5]
        return True

    def ends(self) -> dict[Any, tuple[int, int]]:
        client = clients.admin(self.settings)
        topics = [self.topic, self.streams[0].dead_letter_topic]
        return offsets.bounds(client, offsets.partitions_of(client, topics))

    def plan(
        self, text: str | None = None, options: ReplayOptions = FAST, **filters: Any
    ) -> ReplayReport:
        selection = make_selection(self.hasher, text=text, **filters)
        return plan(self.settings, self.streams, selection, options, requested_by="tests")

    def apply_plan(self, plan_id: int | None) -> ReplayReport:
        assert plan_id is not None
        return apply(self.settings, self.streams, plan_id, requested_by="tests")

    def ids(self, mark: str, status: str = "open") -> list[str]:
        found = rows(
            self.settings,
            "SELECT source_topic, source_partition, source_offset FROM dead_letters WHERE"
            f" status = '{status}' AND position('{mark}' IN value) > 0"
            " ORDER BY source_partition, source_offset",
        )
        return [str(Origin(*each)) for each in found]

    def ids_sent(self, replay_id: int | None) -> list[str]:
        """The dead letters that a replay has sent."""
        found = rows(
            self.settings,
            "SELECT source_topic, source_partition, source_offset FROM replay_records"
            f" WHERE replay_id = {replay_id} AND topic IS NOT NULL"
            " ORDER BY source_partition, source_offset",
        )
        return [str(Origin(*each)) for each in found]

    def apply(
        self, text: str | None = None, options: ReplayOptions = FAST, **more: Any
    ) -> ReplayReport:
        streams = more.pop("streams", self.streams)
        stop = more.pop("stop", None)
        on_progress = more.pop("on_progress", lambda _done, _of: None)
        return plan_and_apply(
            self.settings,
            streams,
            make_selection(self.hasher, text=text, **more),
            options,
            requested_by="tests",
            stop=stop,
            on_progress=on_progress,
        )

    def statuses(self, mark: str) -> Counter[str]:
        return Counter(
            status
            for (status,) in rows(
                self.settings,
                f"SELECT status FROM dead_letters WHERE position('{mark}' IN value) > 0",
            )
        )

    def stored(self, mark: str) -> int:
        return int(value(self.settings, MENDED.format(mark)))

    def sent(self, mark: str) -> int:
        """How many records of that mark the topic got from replays: rows and duplicates."""
        return int(
            value(
                self.settings,
                "SELECT (SELECT count(*) FROM replayed_events JOIN events USING (origin_topic,"
                f" origin_partition, origin_offset) WHERE \"user\" LIKE '{mark}%')"
                " + (SELECT count(*) FROM duplicates JOIN events USING (origin_topic,"
                f" origin_partition, origin_offset) WHERE \"user\" LIKE '{mark}%'"
                "    AND table_name = 'events')",
            )
        )


@pytest.fixture(scope="module")
def stack(
    broker: BrokerService,
    database_server: DatabaseService,
    database_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    name = f"replay_{uuid.uuid4().hex[:6]}"
    settings = Settings(
        KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap,
        DATABASE_URL=database_server.create_database(name, database_template),
        STREAMFLOW_PREFIX=f"{name}.",
        STREAMFLOW_STATE_DIR=tmp_path_factory.mktemp("state"),
    )
    provision(settings, load_streams(settings))
    with workers(settings, tmp_path_factory.mktemp("workers")) as running:
        yield Stack(settings, running)
    database_server.drop_database(name)


@pytest.fixture
def mark() -> str:
    """A word of this test's own, in the payload of its letters."""
    return f"m{uuid.uuid4().hex[:10]}"


REPAIRED = replace(FAST, repairs=("add_zone",))

IS = "source_topic || '/' || source_partition || '/' || source_offset = '{}'"
TABLES = ("dead_letters", "events", "replayed_events", "duplicates", "replays", "replay_records")


def digests(settings: Settings) -> list[str]:
    """What all tables hold."""
    return [
        hashlib.sha256(repr(rows(settings, f"SELECT t::text FROM {table} t ORDER BY 1")).encode())
        .hexdigest()
        for table in TABLES
    ]  # fmt: skip


def test_a_dry_run_changes_nothing(stack: Stack, mark: str) -> None:
    stack.bury(mark, 5)
    stack.bury(mark, 3, timestamp="noon")
    before = digests(stack.settings), stack.ends()

    report = stack.plan(mark, REPAIRED)

    assert (report.selected, report.passed, report.failed) == (8, 5, 3)
    assert report.lines()[0].reasons == {"SCHEMA_VIOLATION": 3}
    assert {sample.reason for sample in report.samples} == {"SCHEMA_VIOLATION"}
    assert stack.plan(mark).failed == 8
    assert (digests(stack.settings), stack.ends()) == before


@contextlib.contextmanager
def removed(stack: Stack, id_: str) -> Iterator[None]:
    """Inside, there is no such dead letter."""
    execute(
        stack.settings,
        f"CREATE TABLE aside AS SELECT * FROM dead_letters WHERE {IS.format(id_)};"
        f" DELETE FROM dead_letters WHERE {IS.format(id_)}",
    )
    yield
    execute(stack.settings, "INSERT INTO dead_letters SELECT * FROM aside; DROP TABLE aside")


@contextlib.contextmanager
def changed(stack: Stack, id_: str, old: str, new: str) -> Iterator[None]:
    """Inside, the payload of a dead letter is another."""
    change = (
        "UPDATE dead_letters SET value = convert_to(replace(convert_from(value, 'UTF8'), '{}', '{}'),"
        f" 'UTF8') WHERE {IS.format(id_)}"
    )
    execute(stack.settings, change.format(old, new))
    yield
    execute(stack.settings, change.format(new, old))


def test_a_plan_is_applied_to_just_its_dead_letters(stack: Stack, mark: str) -> None:
    """Between plan and apply one more arrives, one is replayed elsewhere, one is removed, and one
    that would have failed is mended: none of them is sent."""
    stack.bury(mark, 6)
    stack.bury(mark, 1, timestamp="noon")
    planned = stack.plan(mark, REPAIRED)
    assert (planned.passed, planned.failed) == (6, 1)
    every = [each for each in stack.ids(mark) if each not in {s.id for s in planned.samples}]
    [failing] = {sample.id for sample in planned.samples}

    stack.bury(mark, 2)
    assert stack.apply(options=REPAIRED, ids=every[:1]).passed == 1
    with (
        removed(stack, every[1]),
        changed(stack, every[2], "12:00:00", "12:61:00"),
        changed(stack, failing, "noon", "2026-03-01T12:00:00Z"),
    ):
        report = stack.apply_plan(planned.plan_id)

    assert stack.ids_sent(report.replay_id) == every[3:]
    assert (report.sent, report.passed, report.failed) == (3, 3, 1)
    assert report.skipped == {
        "replayed": 1, "gone": 1, "passing only since the plan was made": 1,
    }  # fmt: skip
    kept = f"SELECT plan_id FROM replays WHERE id = {report.replay_id}"
    assert value(stack.settings, kept) == planned.plan_id
    assert len(stack.ids(mark)) == 2 + 3


def test_a_plan_applied_twice_and_at_once_sends_nothing_twice(stack: Stack, mark: str) -> None:
    stack.bury(mark, 120)
    planned = stack.plan(mark, replace(REPAIRED, rate=60.0, canary=5))

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: stack.apply_plan(planned.plan_id), range(2)))
    again = stack.apply_plan(planned.plan_id)

    assert sum(report.sent for report in reports) == 120
    assert all(report.state == "finished" for report in reports)
    assert (again.sent, again.skipped, again.good) == (0, {"replayed": 120}, True)
    stack.audit_closes()
    assert stack.stored(mark) == stack.sent(mark) == 120


def test_a_plan_survives_its_process_and_a_killed_apply(stack: Stack, mark: str) -> None:
    stack.bury(mark, 40)
    made = subprocess.run(
        [
            *(sys.executable, "-m", "streamflow_cli.app", "dlq", "replay", "--text", mark),
            *("--repair", "add_zone", "--rate", "20", "--canary", "0", "--json"),
        ],
        env=environment(stack.settings),
        check=True,
        capture_output=True,
        timeout=60,
    )
    plan_id = json.loads(made.stdout)["plan_id"]
    stack.bury(mark, 3)
    process = command(stack, "--plan", str(plan_id), "--apply")
    try:
        wait_until(lambda: stack.sent(mark) >= 10, 60, "the first dead letters to be sent")
    finally:
        process.kill()
        process.wait(10)
    assert 10 <= stack.sent(mark) < 40

    report = stack.apply_plan(plan_id)

    assert (report.state, len(report.recovered)) == ("finished", 1)
    stack.audit_closes()
    assert stack.statuses(mark) == {"replayed": 40, "open": 3}
    assert stack.stored(mark) == stack.sent(mark) == 40


def test_plans_are_kept_for_a_week(stack: Stack, mark: str) -> None:
    stack.bury(mark, 1)
    old, expired, recent = (stack.plan(mark, REPAIRED).plan_id for _ in range(3))
    for plan_id, days in ((old, 9), (expired, 7.5), (recent, 6.5)):
        execute(
            stack.settings,
            f"UPDATE replay_plans SET created_at = now() - interval '{days} days'"
            f" WHERE id = {plan_id}",
        )

    stack.plan(mark)

    left = rows(stack.settings, f"SELECT id FROM replay_plans WHERE id IN ({old}, {expired})")
    assert left == [(expired,)]
    letters = f"SELECT count(*) FROM replay_plan_letters WHERE plan_id = {old}"
    assert value(stack.settings, letters) == 0
    for plan_id in (old, expired):
        with pytest.raises(UsageError, match=f"no plan {plan_id}, or it is older than 7 days"):
            stack.apply_plan(plan_id)
    assert stack.apply_plan(recent).passed == 1


def test_text_is_looked_for_in_payload_and_message_and_not_in_headers(
    stack: Stack, mark: str
) -> None:
    broken = "SELECT count(*) FROM dead_letters WHERE error_code = 'INVALID_JSON'"
    before = value(stack.settings, broken)
    client = clients.producer(stack.settings)
    client.produce(stack.topic, b"{", headers=[("trace", mark.encode())])
    assert client.flush(30) == 0
    wait_until(lambda: value(stack.settings, broken) == before + 1, 60, "the dead letter")
    stack.bury_values([b""], "WHERE error_code = 'EMPTY_VALUE'")
    stack.bury(mark, 2)
    execute(
        stack.settings,
        f"UPDATE dead_letters SET message = 'says {mark}' WHERE error_code = 'EMPTY_VALUE'",
    )
    empty = value(
        stack.settings,
        "SELECT count(*) FROM dead_letters WHERE status = 'open' AND error_code = 'EMPTY_VALUE'",
    )
    assert empty > 0
    report = stack.plan(mark)
    assert {line.error_code: line.selected for line in report.lines()} == {
        "SCHEMA_VIOLATION": 2, "EMPTY_VALUE": empty,
    }  # fmt: skip
    for text in ("a\0b", "\udcff"):
        with pytest.raises(UsageError, match="valid UTF-8 without NUL"):
            stack.plan(text)


def test_a_replay_mends_what_can_be_mended_and_leaves_the_rest(stack: Stack, mark: str) -> None:
    options = replace(FAST, repairs=("coerce_numbers", "add_zone", "hash_address"))
    others = stack.plan(options=options)
    stack.bury(mark, 3)
    stack.bury(mark, 3, id="17")
    stack.bury(mark, 3, timestamp="2026-03-01T12:00:00Z", user_email="ann@example.com")
    stack.bury(mark, 2, type="USER_FLEW")
    before = value(stack.settings, "SELECT count(*) FROM dead_letters")
    for topic in ("user-events", "analytics", "notifications", "dead-letter-topic"):
        produce(stack.settings, topic, list(INVALID.values()))
    wait_until(
        lambda: value(stack.settings, "SELECT count(*) FROM dead_letters") == before + 28, 60
    )
    wait_until(lambda: value(stack.settings, UNREAD) == 0, 60)
    planned = stack.plan(options=options)

    report = stack.apply(options=options)

    # One of the plain ones passes as well: the address in it has become a hash.
    assert planned.passed == others.passed + 10
    assert (report.passed, report.sent) == (planned.passed, planned.passed)
    assert report.failed == planned.failed == others.failed + 2 + 28 - 1
    assert stack.stored(mark) == 9
    assert stack.statuses(mark) == {"replayed": 9, "open": 2}
    codes = Counter({line.error_code: line.failed for line in report.lines()})
    assert codes["UNKNOWN_TYPE"] >= 2 + 1
    assert {code for code, number in codes.items() if number} >= {
        "EMPTY_VALUE", "INVALID_UTF8", "INVALID_JSON", "UNKNOWN_TYPE", "UNSTORABLE_VALUE",
    }  # fmt: skip
    reasons = {why for line in report.lines() for why in line.reasons}
    assert "NOT_REPLAYABLE" in reasons
    # A replayed event is itself: under its first position in table and notifications.
    assert value(
        stack.settings,
        "SELECT count(*) FROM dead_letters JOIN events USING (origin_topic, origin_partition,"
        " origin_offset) JOIN notifications USING (origin_topic, origin_partition, origin_offset)"
        f" WHERE status = 'replayed' AND position('{mark}' IN value) > 0",
    ) == 9  # fmt: skip
    assert value(stack.settings, "SELECT count(*) FROM events WHERE user_email LIKE '%@%'") == 0
    stack.audit_closes()


def test_a_second_replay_adds_nothing(stack: Stack, mark: str) -> None:
    stack.bury(mark, 20)
    assert stack.apply(mark, REPAIRED).passed == 20
    stack.audit_closes()
    ends = stack.ends()

    report = stack.apply(mark, REPAIRED)

    assert (report.selected, report.sent, report.good) == (0, 0, True)
    assert stack.ends() == ends
    assert stack.stored(mark) == stack.sent(mark) == 20


def test_windows_count_what_a_replay_brought(stack: Stack, mark: str) -> None:
    total = "SELECT coalesce(sum(count), 0)::int FROM window_counts WHERE window_start = '{}'"
    query = total.format("2021-05-05T12:00:00Z")
    stack.bury(mark, 30, timestamp="2021-05-05T12:00:01")
    assert value(stack.settings, query) == 0

    assert stack.apply(mark, REPAIRED).passed == 30

    wait_until(lambda: value(stack.settings, query) == 30, 60, "the windows to close")
    stack.audit_closes()


def command(stack: Stack, *arguments: str, **changes: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "streamflow_cli.app", "dlq", "replay", *arguments],
        env=environment(stack.settings, **changes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def are_unlocked(settings: Settings) -> bool:
    """Whether no process holds the lock of a replay that is recorded as running."""
    with session(settings, "test") as connection:
        return all(store.try_lock(connection, replay.id) for replay in store.running(connection))


def test_killed_half_way_and_started_again(stack: Stack, mark: str) -> None:
    stack.bury(mark, 60)
    process = command(
        stack, "--text", mark, "--repair", "add_zone", "--apply", "--rate", "20", "--canary", "0"
    )
    try:
        wait_until(lambda: stack.sent(mark) >= 10, 60, "the first letters to be sent")
    finally:
        process.kill()
        process.wait(10)
    assert 10 <= stack.sent(mark) < 60

    report = stack.apply(mark, REPAIRED)

    assert report.state == "finished"
    assert len(report.recovered) == 1
    stack.audit_closes()
    assert stack.statuses(mark) == {"replayed": 60}
    # Not even sent twice.
    assert stack.stored(mark) == stack.sent(mark) == 60


KILLED_AT = {
    "claimed, nothing produced": "Publisher._produce = die",
    "produced, position unknown": "store.prepare = die",
    "position known, not committed": (
        "prepare = store.prepare\nstore.prepare = lambda *given: (prepare(*given), die())"
    ),
    "committed, not confirmed": "store.confirm = die",
    "confirmed, not settled": (
        "confirm = store.confirm\nstore.confirm = lambda *given: (confirm(*given), die())"
    ),
}


@pytest.mark.parametrize("where", KILLED_AT)
def test_killed_between_any_two_steps(stack: Stack, mark: str, where: str) -> None:
    stack.bury(mark, 7)
    program = (
        "import os, signal, sys\n"
        "from streamflow_cli.app import main\n"
        "from streamflow.kafka.transactions import Publisher\n"
        "from streamflow.dead_letters import store\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{KILLED_AT[where]}\n"
        f"sys.argv[1:] = 'dlq replay --text {mark} --repair add_zone --apply'.split()\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(stack.settings),
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    committed = "confirmed" in where
    assert stack.statuses(mark) == {"replaying": 7}
    # The database may notice a little later that its client was killed.
    wait_until(lambda: are_unlocked(stack.settings), 30, "the killed replay's lock to be released")

    # A plan by command or job sees what the killed replay left, as it is.
    planned = plan_after_recovery(
        stack.settings,
        stack.streams,
        make_selection(stack.hasher, text=mark),
        REPAIRED,
        requested_by="tests",
    )
    assert len(planned.recovered) == 1
    assert planned.passed == (0 if committed else 7)
    report = stack.apply_plan(planned.plan_id)

    assert report.state == "finished"
    assert report.sent == (0 if committed else 7)
    wait_until(lambda: stack.stored(mark) == 7, 30, "all to be stored")
    assert stack.apply(mark, REPAIRED).sent == 0
    assert stack.sent(mark) == 7
    assert stack.statuses(mark) == {"replayed": 7}


def test_two_replays_at_once(stack: Stack, mark: str) -> None:
    stack.bury(mark, 300)
    slow = replace(REPAIRED, rate=40.0, canary=5)

    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda _: stack.apply(mark, slow), range(3)))

    assert sum(report.sent for report in reports) == 300
    assert all(report.state == "finished" for report in reports)
    stack.audit_closes()
    assert stack.stored(mark) == stack.sent(mark) == 300
    assert stack.statuses(mark) == {"replayed": 300}


def test_stopped_half_way_and_started_again(stack: Stack, mark: str) -> None:
    stack.bury(mark, 30)
    stop = threading.Event()

    def enough(done: int, _total: int) -> None:
        if done >= 10:
            stop.set()

    first = stack.apply(mark, replace(REPAIRED, rate=5.0, canary=0), stop=stop, on_progress=enough)
    second = stack.apply(mark, REPAIRED)

    assert first.state == "stopped"
    assert not first.good
    assert first.sent + second.sent == 30
    assert stack.stored(mark) == stack.sent(mark) == 30
    assert stack.statuses(mark) == {"replayed": 30}


class Lenient(Event):
    """A contract that takes what the workers do not: a release that is ahead of them."""

    id: Any
    type: Any
    user: Any
    user_email: Any = None
    timestamp: Timestamp


def lenient(stack: Stack) -> list[Stream]:
    return [replace(stack.streams[0], contract=Lenient)]


def letters(stack: Stack, mark: str) -> list[tuple[int, str, str]]:
    return [
        (attempt, status, origin)
        for attempt, status, origin in rows(
            stack.settings,
            "SELECT attempt, status, origin_topic || '/' || origin_partition || '/' ||"
            f" origin_offset FROM dead_letters WHERE position('{mark}' IN value) > 0"
            " ORDER BY attempt",
        )
    ]


def test_what_fails_again_is_quarantined_at_the_cap(stack: Stack, mark: str) -> None:
    stack.bury(mark, 1, timestamp="2026-03-01T12:00:00Z", id="17")
    options = replace(FAST, canary=0, max_attempts=2)

    first = stack.apply(mark, options, streams=lenient(stack))
    assert (first.sent, first.failed, first.state) == (1, 1, "finished")
    [(_, _, origin), _] = letters(stack, mark)
    assert letters(stack, mark) == [(0, "superseded", origin), (1, "open", origin)]

    second = stack.apply(mark, options, streams=lenient(stack))
    assert (second.sent, second.failed) == (1, 1)
    assert [each[:2] for each in letters(stack, mark)] == [
        (0, "superseded"), (1, "superseded"), (2, "quarantined"),
    ]  # fmt: skip
    stack.audit_closes()

    assert stack.apply(mark, options).selected == 0
    [(topic, partition, offset)] = rows(
        stack.settings,
        "SELECT source_topic, source_partition, source_offset FROM dead_letters"
        f" WHERE status = 'quarantined' AND position('{mark}' IN value) > 0",
    )
    id_ = str(Origin(topic, partition, offset))
    named = stack.apply(options=options, ids=[id_])
    assert (named.selected, named.skipped) == (0, {"quarantined": 1})
    with pytest.raises(UsageError, match="must be named by id"):
        stack.apply(mark, replace(options, force=True))

    forced = replace(options, force=True, repairs=("coerce_numbers",))
    assert stack.apply(options=forced, ids=[id_]).passed == 1
    assert letters(stack, mark)[2] == (2, "replayed", origin)
    stack.audit_closes()
    assert stack.stored(mark) == 1


def test_a_letter_at_the_cap_is_quarantined_and_not_sent(stack: Stack, mark: str) -> None:
    stack.bury(mark, 2, timestamp="2026-03-01T12:00:00Z", id="17")
    stack.apply(mark, replace(FAST, canary=0), streams=lenient(stack))
    capped = replace(FAST, max_attempts=1, repairs=("coerce_numbers",))
    ends = stack.ends()

    assert stack.plan(mark, capped).quarantined == 2
    report = stack.apply(mark, capped)

    assert (report.quarantined, report.sent, report.good) == (2, 0, False)
    assert stack.ends() == ends
    assert stack.statuses(mark) == {"superseded": 2, "quarantined": 2}


def test_a_canary_that_is_refused_stops_the_replay(stack: Stack, mark: str) -> None:
    stack.bury(mark, 12, timestamp="2026-03-01T12:00:00Z", id="17")

    report = stack.apply(mark, replace(FAST, canary=3), streams=lenient(stack))

    assert (report.state, report.sent, report.failed) == ("stopped", 3, 3)
    assert "3 of 3 dead letters of the canary were rejected" in report.note
    assert stack.statuses(mark) == {"superseded": 3, "open": 12}
    stack.audit_closes()


def test_a_canary_that_nobody_loads_stops_the_replay(stack: Stack, mark: str) -> None:
    stack.bury(mark, 5)
    with stalled(stack.running["loader"].pid):
        report = stack.apply(mark, replace(REPAIRED, canary=2, patience=0.5))
    assert (report.state, report.sent, report.pending) == ("stopped", 2, 2)
    assert "streamflow status" in report.note

    # What was sent is not sent again, and its letters learn of it.
    assert stack.apply(mark, REPAIRED).sent == 3
    stack.audit_closes()
    assert stack.apply(mark, REPAIRED).sent == 0
    assert stack.statuses(mark) == {"replayed": 5}
    assert stack.stored(mark) == stack.sent(mark) == 5


def test_a_lost_broker_leaves_it_resumable(
    stack: Stack, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.bury(mark, 5)
    commit: Callable[..., None] = Publisher.publish

    def lost(self: Publisher, records: Any, before_commit: Any) -> None:
        commit(self, records, before_commit)
        raise Unavailable("the outcome of the commit is unknown")

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "publish", lost)
        with pytest.raises(Unavailable):
            stack.apply(mark, REPAIRED)

    # Its own process has settled it: Kafka had committed.
    note = "SELECT state, note FROM replays ORDER BY id DESC LIMIT 1"
    assert rows(stack.settings, note) == [("interrupted", "the outcome of the commit is unknown")]
    assert stack.apply(mark, REPAIRED).recovered == []
    assert stack.apply(mark, REPAIRED).sent == 0
    assert stack.stored(mark) == stack.sent(mark) == 5
    assert stack.statuses(mark) == {"replayed": 5}


def test_a_stalled_replay_that_was_taken_over_is_fenced(
    stack: Stack, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has claimed its letters and stands still; its connection is cut; another one takes over,
    sends them and ends; then it goes on."""
    stack.bury(mark, 5)
    publish: Callable[..., None] = Publisher.publish
    heirs: list[ReplayReport] = []

    def stall(self: Publisher, records: Any, before_commit: Any) -> None:
        monkeypatch.setattr(Publisher, "publish", publish)
        execute(
            stack.settings,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'streamflow-replay' AND datname = current_database()",
        )
        heirs.append(stack.apply(mark, REPAIRED))
        publish(self, records, before_commit)

    monkeypatch.setattr(Publisher, "publish", stall)
    with pytest.raises(Fenced):
        stack.apply(mark, REPAIRED)

    assert [(heir.sent, heir.passed, len(heir.recovered)) for heir in heirs] == [(5, 5, 1)]
    assert stack.apply(mark, REPAIRED).sent == 0
    assert stack.stored(mark) == stack.sent(mark) == 5
    assert stack.statuses(mark) == {"replayed": 5}


def test_a_claimed_origin_takes_nobody_elses_place(stack: Stack, mark: str) -> None:
    """Headers are untrusted: a record that claims another event's identity is still itself."""
    first_hand = "SELECT count(*) FROM events WHERE \"user\" = 'user-1'"
    produce(stack.settings, "user-events", [event(1)])
    wait_until(lambda: value(stack.settings, first_hand) > 0, 60, "the first event")
    [taken] = rows(
        stack.settings,
        "SELECT origin_topic, origin_partition, origin_offset FROM events WHERE NOT EXISTS (SELECT"
        " FROM replayed_events AS other WHERE other.origin_offset = events.origin_offset AND"
        " other.origin_partition = events.origin_partition) LIMIT 1",
    )
    broken = json.dumps(json.loads(event(2)) | {"user": mark, "timestamp": "2026-03-01T12:00:00"})
    client = clients.producer(stack.settings)
    client.produce(
        stack.topic,
        broken.encode(),
        headers=[("__streamflow.origin", Origin(*taken).encode()), ("trace", b"kept")],
    )
    assert client.flush(30) == 0
    wait_until(lambda: stack.statuses(mark) == {"open": 1}, 60)
    wait_until(lambda: value(stack.settings, UNREAD) == 0, 60)

    assert stack.apply(mark, REPAIRED).passed == 1

    stack.audit_closes()
    assert stack.stored(mark) == 1


def test_filters(stack: Stack, mark: str) -> None:
    stack.bury(mark, 4)
    stack.bury(mark, 2, type="USER_FLEW")
    assert stack.plan(mark, codes=["UNKNOWN_TYPE"]).selected == 2
    assert stack.plan(mark, since="10m").selected == 6
    assert stack.plan(mark, until="10m").selected == 0
    assert stack.plan(mark, limit=3).selected == 3
    ids = [
        str(Origin(*each))
        for each in rows(
            stack.settings,
            "SELECT source_topic, source_partition, source_offset FROM dead_letters"
            f" WHERE position('{mark}' IN value) > 0 LIMIT 2",
        )
    ]
    assert stack.plan(ids=ids).selected == 2
    # Payloads are redacted, so an address is looked for by its hash, and its hash is written down.
    address = f"{mark}@example.com"
    hashed = stack.hasher.hash(address)
    value_ = json.dumps(json.loads(event(1)) | {"user": address, "timestamp": "noon"}).encode()
    stack.bury_values([value_], f"WHERE position('{hashed}' IN value) > 0")
    assert stack.plan(address).selected == 1
    stack.apply(address)
    assert stack.plan(address).selected == 1
    assert (
        value(stack.settings, "SELECT count(*) FROM replays WHERE selection::text LIKE '%@%'") == 0
    )


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `streamflow dlq …`; returns exit code, output, and errors."""
    for name, content in environment(stack.settings).items():
        monkeypatch.setenv(name, content)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["streamflow", "dlq", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_the_commands(stack: Stack, mark: str, run: Run) -> None:
    stack.bury(mark, 3)

    code, out, _ = run("list", "--text", mark, "--json", "--limit", "2")
    assert code == 0
    listed = [json.loads(line) for line in out.splitlines()]
    assert [each["error_code"] for each in listed] == ["SCHEMA_VIOLATION"] * 2
    id_ = listed[0]["id"]
    code, out, _ = run("list", "--text", mark, "--limit", "2")
    assert code == 0
    assert "2 of 3 dead letters" in out

    code, out, _ = run("show", id_)
    assert (code, mark in out, "SCHEMA_VIOLATION" in out) == (0, True, True)

    assert run("replay", "--text", mark)[0] == 1
    code, out, _ = run("replay", "--text", mark, "--repair", "add_zone")
    assert (code, "3 would pass" in out) == (0, True)
    [line] = [each for each in out.splitlines() if each.startswith("  streamflow dlq replay")]
    stack.bury(mark, 1)
    code, out, _ = run(*line.split()[2:], "--by", "ann@example.com", "--json")
    assert code == 0
    report = json.loads(out)
    assert (report["passed"], report["dry_run"], report["state"]) == (3, False, "finished")
    assert str(report["plan_id"]) in line.split()
    assert stack.statuses(mark) == {"replayed": 3, "open": 1}
    code, out, _ = run("replay", "--text", mark, "--repair", "add_zone", "--apply", "--json")
    report = json.loads(out)
    assert (code, report["passed"], report["plan_id"] is None) == (0, 1, False)

    code, out, _ = run("show", id_, "--json")
    shown = json.loads(out)
    assert shown["status"] == "replayed"
    assert shown["replays"][0]["outcome"] == "stored"
    assert "@" not in shown["replays"][0]["requested_by"]
    code, out, _ = run("list", "--text", mark, "--status", "any", "--json")
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["replayed"] * 4
    # Nothing is left to do, and that is no failure.
    assert run("replay", "--text", mark, "--apply")[0] == 0


def test_hostile_payloads_do_not_steer_the_terminal(stack: Stack, mark: str, run: Run) -> None:
    hostile = f'{{"{mark}": "\x1b[2J[red]\u202e'.encode() + b"\xff"
    stack.bury_values([hostile], f"WHERE position('{mark}' IN value) > 0")
    [id_] = [
        json.loads(line)["id"] for line in run("list", "--text", mark, "--json")[1].splitlines()
    ]
    code, out, _ = run("show", id_)
    assert code == 0
    assert "\x1b[2J" not in out
    assert "\\x1b[2J[red]" in out
    assert "base64" in run("show", id_, "--json")[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "nonsense"), "'nonsense' is not the id of a dead letter"),
        (("show", "user-events/0/999999999"), "there is no dead letter user-events/0/999999999"),
        (("replay", "--id", "user-events/0/999999999"), "there is no dead letter"),
        (("replay", "--repair", "nope"), "there is no repair nope: choose from hash_address"),
        (("replay", "--since", "yesterday"), "'yesterday' is not a time"),
        (("replay", "--since", "1h", "--until", "2h"), "since is not before until"),
        (("replay", "--code", "not a code"), "'not a code' is not an error code"),
        (("list", "--status", "lost"), "'lost' is not a status: choose from open"),
        (("replay", "--rate", "0"), "the rate must be more than 0"),
        (("replay", "--canary", "-1"), "the canary size must not be negative"),
        (("replay", "--max-attempts", "0"), "the limit of attempts must be at least 1"),
        (("replay", "--force"), "quarantined dead letters, which must be named by id"),
        (("replay", "--plan", "999999", "--apply"), "there is no plan 999999, or it is older than"),
        (("replay", "--plan", "1"), "--plan needs --apply"),
        (
            ("replay", "--plan", "1", "--apply", "--code", "EMPTY_VALUE"),
            "--code cannot be combined with --plan",
        ),
        (
            ("replay", "--plan", "1", "--apply", "--repair", "x"),
            "--repair cannot be combined with --plan",
        ),
        (
            ("replay", "--plan", "1", "--apply", "--rate", "500"),
            "--rate cannot be combined with --plan",
        ),
    ],
)
def test_wrong_use_is_one_line(run: Run, arguments: tuple[str, ...], says: str) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_no_database_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    code, _, err = run("list")
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "the database does not answer" in err


def test_ctrl_c_ends_after_the_batch_in_hand(stack: Stack, mark: str) -> None:
    stack.bury(mark, 40)
    process = command(
        stack, "--text", mark, "--repair", "add_zone", "--apply", "--rate", "10", "--canary", "0"
    )
    try:
        wait_until(lambda: stack.sent(mark) >= 5, 60, "the first letters to be sent")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 1
    finally:
        process.kill()
        process.wait(10)
    state = "SELECT state FROM replays ORDER BY id DESC LIMIT 1"
    assert value(stack.settings, state) == "stopped"
    assert stack.apply(mark, REPAIRED).state == "finished"
    assert stack.stored(mark) == stack.sent(mark) == 40


@pytest.fixture
def job(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dg.ExecuteInProcessResult]:
    for name, content in environment(stack.settings).items():
        monkeypatch.setenv(name, content)
    found = dg.Definitions(jobs=[replay_dead_letters]).get_job_def("replay_dead_letters")

    def launch(**config: Any) -> dg.ExecuteInProcessResult:
        return found.execute_in_process(
            run_config={"ops": {"replay": {"config": config}}}, raise_on_error=False
        )

    return launch


def observed(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    [told] = [
        each.asset_observation_data.asset_observation
        for each in result.all_events
        if each.event_type is dg.DagsterEventType.ASSET_OBSERVATION
    ]
    assert told.asset_key == dg.AssetKey(["postgres", "dead_letters"])
    return {name: each.value for name, each in told.metadata.items()}


def test_the_job_plans_then_applies(
    stack: Stack, mark: str, job: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    stack.bury(mark, 4)

    planned = job(text=mark, repairs=["add_zone"])
    assert planned.success
    metadata = observed(planned)
    assert (metadata["dry_run"], metadata["passed"], metadata["sent"]) == (True, 4, 0)
    assert "| SCHEMA_VIOLATION | 4 | 4 | 0 |" in metadata["by_code"]
    assert stack.statuses(mark) == {"open": 4}
    plan_id = metadata["plan_id"]
    stack.bury(mark, 1)

    applied = job(plan_id=plan_id, dry_run=False)
    assert applied.success
    metadata = observed(applied)
    assert metadata["plan_id"] == plan_id
    assert (metadata["dry_run"], metadata["passed"], metadata["sent"]) == (False, 4, 4)
    by = f"SELECT requested_by FROM replays WHERE id = {metadata['replay_id']}"
    assert value(stack.settings, by) == f"dagster run {applied.run_id}"
    assert stack.statuses(mark) == {"replayed": 4, "open": 1}

    # Without a plan it makes one, and applies it.
    in_one = job(text=mark, repairs=["add_zone"], dry_run=False)
    assert in_one.success
    assert observed(in_one)["sent"] == 1
    assert observed(in_one)["plan_id"] > plan_id
    assert stack.statuses(mark) == {"replayed": 5}
    stack.audit_closes()


def test_the_job_fails_where_letters_fail(
    stack: Stack, mark: str, job: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    stack.bury(mark, 2)
    stack.bury(mark, 1, type="USER_FLEW")

    result = job(text=mark, repairs=["add_zone"], dry_run=False)

    assert not result.success
    [failure] = [each for each in result.all_events if each.is_step_failure]
    message = str(failure.step_failure_data.user_failure_data.description)
    assert "2 stored, 0 rejected again, 1 not sent because they would fail" in message
    assert observed(result)["failed"] == 1
    # A plan of what fails is a good plan.
    assert job(text=mark).success


def test_the_job_explains_wrong_config(job: Callable[..., dg.ExecuteInProcessResult]) -> None:
    result = job(repairs=["nope"])
    assert not result.success
    [failure] = [each for each in result.all_events if each.is_step_failure]
    assert "there is no repair nope: choose from" in str(failure.step_failure_data.error)
    for config, says in (
        ({"plan_id": 1}, "plan_id needs dry_run: false"),
        ({"plan_id": 1, "dry_run": False, "text": "x"}, "text cannot be combined with plan_id"),
        (
            {"plan_id": 1, "dry_run": False, "repairs": ["add_zone"]},
            "repairs cannot be combined with plan_id",
        ),
        ({"plan_id": 999_999, "dry_run": False}, "there is no plan 999999"),
    ):
        result = job(**config)
        [failure] = [each for each in result.all_events if each.is_step_failure]
        assert says in str(failure.step_failure_data.error)


def test_ended_by_dagster_half_way_it_can_be_launched_again(
    stack: Stack, mark: str, job: Callable[..., dg.ExecuteInProcessResult]
) -> None:
    """Dagster ends a run by raising in the main thread, wherever that is, on SIGINT."""
    stack.bury(mark, 30)

    def end_it() -> None:
        wait_until(lambda: stack.sent(mark) >= 5, 60, "the first letters to be sent")
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(end_it)
        result = job(text=mark, repairs=["add_zone"], dry_run=False, rate=5.0, canary=0)
        ended.result()
    assert not result.success
    assert stack.statuses(mark)["open"] > 0

    assert job(text=mark, repairs=["add_zone"], dry_run=False).success
    stack.audit_closes()
    assert stack.stored(mark) == stack.sent(mark) == 30
    assert value(stack.settings, "SELECT count(*) FROM replays WHERE state = 'running'") == 0


def test_the_ledger_closes_over_all_of_it(stack: Stack) -> None:
    stack.audit_closes()
    assert (
        value(stack.settings, "SELECT count(*) FROM dead_letters WHERE status = 'replaying'") == 0
    )
    assert value(stack.settings, "SELECT count(*) FROM replays WHERE state = 'running'") == 0
    unsettled = (
        "SELECT count(*) FROM replay_records WHERE outcome IN ('planned', 'prepared', 'sent')"
    )
    assert value(stack.settings, unsettled) == 0
    totals = "SELECT (SELECT count(*) FROM events), (SELECT sum(count)::int FROM window_counts)"
    wait_until(lambda: len(set(rows(stack.settings, totals)[0])) == 1, 60, "all windows to close")
    require_exact_kinds(stack.settings.database)
    require_exact_rows(stack.settings.database)
