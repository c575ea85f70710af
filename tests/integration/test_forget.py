"""A person is forgotten (G16): in every table, killed between any two steps, and after a reload."""

import io
import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from faults import wait_until
from loads import FakeRecord, Load, execute, forget_listed, notification, replay, rows, value
from loads import event as event_value
from pipeline import audit, environment, events, produce, workers
from streamflow import DailyRollup, Event, Hashed, Stream, Timestamp
from streamflow.dead_letters.plan import plan
from streamflow.dead_letters.report import ReplayOptions
from streamflow.dead_letters.selection_parser import make_selection
from streamflow.erasure import erase
from streamflow.erasure.certificate import Certificate
from streamflow.errors import ConfigurationError, Unavailable, UsageError
from streamflow.kafka import clients
from streamflow.postgres.connections import Connection
from streamflow.postgres.forgotten import Kind, hashes_of
from streamflow.postgres.schema import upgrade
from streamflow.privacy import Hasher
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS
from streamflow_cli.app import main
from streaming_workers.drain import drain

pytestmark = pytest.mark.integration

ANN = "ann@example.com"
HASH = Hasher().hash(ANN)


def places(settings: Settings, *words: str) -> list[str]:
    """The tables that hold one of these words in any form, and how many rows do."""
    tables = rows(
        settings,
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        " AND relname NOT IN ('erasures') ORDER BY 1",
    )
    forms = [form for word in words for form in (word, word.encode().hex())]
    found = []
    for (table,) in tables:
        held = " OR ".join(f"t::text LIKE '%{form}%'" for form in forms)
        # Headers are in Base64.
        if table == "dead_letters":
            held += "".join(
                " OR EXISTS (SELECT FROM jsonb_array_elements(headers) AS header"
                f" WHERE position('{word}' IN decode(header->>1, 'base64')) > 0)"
                for word in words
            )
        number = value(settings, f'SELECT count(*) FROM "{table}" AS t WHERE {held}')
        if number:
            found.append(f"{table}: {number}")
    return found


def letter(offset: int, source: int, **content: Any) -> FakeRecord:
    headers: Any = [
        ("__connect.errors.topic", b"user-events"),
        ("__connect.errors.partition", b"0"),
        ("__connect.errors.offset", str(source).encode()),
        ("__connect.errors.stage", b"validator"),
        ("__streamflow.error_code", b"SCHEMA_VIOLATION"),
        *content.pop("headers", []),
    ]
    return FakeRecord(
        offset, topic="dead-letter-topic", headers=headers, **({"value": b"{}"} | content)
    )


SUBJECTS = {Kind.ADDRESS: ANN, Kind.USER: "ann"}


@pytest.mark.parametrize("kind", SUBJECTS)
def test_nothing_more_is_stored_of_a_forgotten_subject(
    load: Load, database: Settings, kind: Kind
) -> None:
    """Whatever comes first, on the fast and on the slow path, from a replay, and read twice."""
    forget_listed(database, kind, SUBJECTS[kind])
    theirs = {"user": "ann", "user_email": HASH}
    if kind is Kind.ADDRESS:
        # One that no contract takes for a hash at first sight.
        escaped = event_value(0, **theirs).replace(
            HASH.encode(), rb"\u00%02x" % ord(HASH[0]) + HASH[1:].encode()
        )
    else:
        escaped = event_value(0, **theirs).replace(b'"ann"', rb'"\u0061nn"')
    first = FakeRecord(0, escaped)
    others = FakeRecord(1, event_value(1, user="bob", user_email="b" * 64))
    load.load([first, others])
    load.load([notification(0, 0), notification(1, 1, "bob")])
    # The notification before its event.
    load.load([notification(2, 2)])
    load.load([FakeRecord(2, event_value(2, **theirs))])
    wide = f'"user": "ann", "{HASH}"'.encode("utf-16-le")
    load.load(
        [
            letter(0, 10, value=json.dumps({**theirs, "timestamp": "noon"}).encode()),
            letter(1, 11, headers=[("who", b"ann" if kind is Kind.USER else HASH.encode())]),
            letter(2, 12, key=HASH.encode() if kind is Kind.ADDRESS else b"ann"),
            letter(3, 13, value=wide),
            letter(4, 14, value=b'{"user": "bob"}'),
        ]
    )
    load.sent("user-events/0/10", "user-events/0/3")
    load.load([replay(3, "user-events/0/10", **theirs)])
    load.load([first, others, notification(0, 0), letter(0, 10, value=b"x" + HASH.encode())])

    assert places(database, HASH, "ann") == []
    stored = rows(database, 'SELECT origin_offset, "user", user_email, type FROM events ORDER BY 1')
    assert stored == [
        (0, "erased", None, "USER_LOGIN"),
        (1, "bob", "b" * 64, "USER_LOGIN"),
        (2, "erased", None, "USER_LOGIN"),
        (10, "erased", None, "USER_LOGIN"),
    ]
    assert rows(database, 'SELECT origin_offset, "user" FROM notifications ORDER BY 1') == [
        (0, "erased"), (1, "bob"), (2, "erased"),
    ]  # fmt: skip
    assert rows(database, "SELECT source_offset, status FROM dead_letters ORDER BY 1") == [
        (10, "erased"), (11, "erased"), (12, "erased"), (13, "erased"), (14, "open"),
    ]  # fmt: skip
    assert value(database, "SELECT count(*) FROM erased_records WHERE place = 'replayed'") == 1


def test_without_a_list_nothing_is_touched(load: Load, database: Settings) -> None:
    load.load([FakeRecord(0, event_value(0, user_email=HASH)), notification(0, 0)])
    assert places(database, HASH) == ["events_20260701: 1"]
    assert value(database, "SELECT count(*) FROM erased_records") == 0


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (Kind.ADDRESS, "ann", "neither an e-mail address nor a hash"),
        (Kind.ADDRESS, " ", "the subject is empty"),
        (Kind.ADDRESS, f"Ann Lee <{ANN}>", "give the address alone"),
        (Kind.ADDRESS, f"mailto:{ANN}", "give the address alone"),
        (Kind.ADDRESS, f"{ANN}.", "give the address alone"),
        (Kind.ADDRESS, f"{ANN},bob@example.com", "give the address alone"),
        (Kind.USER, "a\0b", "valid UTF-8 without NUL"),
        (Kind.USER, "a\udcff", "valid UTF-8 without NUL"),
    ],
)
def test_what_names_nobody_is_refused(database: Settings, kind: Kind, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        erase.parse_subject(database, [USER_EVENTS], kind, text)


def test_a_user_may_have_blanks_in_the_name(database: Settings) -> None:
    subject = erase.parse_subject(database, [USER_EVENTS], Kind.USER, " ann")
    assert subject == (Kind.USER, hashes_of(Hasher(), Kind.USER, " ann"), " ann")
    of_address = erase.parse_subject(database, [USER_EVENTS], Kind.ADDRESS, f" {ANN} ")
    assert HASH in of_address.hashes


def test_a_lock_of_others_is_waited_for_and_named(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamflow.postgres.connections.LOCK_TIMEOUT", 1)
    subject = erase.parse_subject(database, [USER_EVENTS], Kind.ADDRESS, ANN)
    with psycopg.connect(database.database) as other:
        other.execute("LOCK TABLE notifications IN SHARE MODE")
        with pytest.raises(Unavailable, match=r"locked .* run it again"):
            erase.plan(database, [USER_EVENTS], subject, requested_by="tests")


def test_what_no_event_leads_to_is_erased(
    load: Load, database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notification that holds the hash, its event gone; and a name in an older certificate."""
    monkeypatch.setattr(erase, "with_kafka", lambda *given: given[-1])
    vacuumed: list[str] = []
    monkeypatch.setattr(erase, "_vacuum", lambda _, tables: vacuumed.extend(tables))
    load.load([notification(0, 0, HASH), notification(1, 1, "bob")])
    bob, ann, user = (
        erase.parse_subject(database, [USER_EVENTS], kind, text)
        for kind, text in ((Kind.USER, "bob"), (Kind.ADDRESS, ANN), (Kind.USER, "ann"))
    )
    erase.apply(database, [USER_EVENTS], bob, requested_by="ann")
    done = erase.apply(database, [USER_EVENTS], ann, requested_by="tests")
    assert done.erased["notifications"] == 1
    assert any("other spellings" in place for place in done.elsewhere)
    assert places(database, HASH) == []
    assert vacuumed.count("erasures") == 0
    done = erase.apply(database, [USER_EVENTS], user, requested_by="tests")
    assert done.erased["erasures"] == 1
    assert not any("other spellings" in place for place in done.elsewhere)
    assert "erasures" in vacuumed
    assert rows(
        database,
        "SELECT requested_by, certificate->>'requested_by' FROM erasures ORDER BY id",
    ) == [("erased", "erased"), ("tests", "tests"), ("tests", "tests")]


def test_an_erasure_is_repeated_from_the_list_and_from_certificates(
    load: Load, database: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short twin of the test below: without Kafka, of an address and of a user."""
    unknown = []
    monkeypatch.setattr(erase, "with_kafka", lambda *given: given[-1])
    with pytest.raises(UsageError, match="nobody is on the list"):
        erase.listed(database)
    streams = [USER_EVENTS]
    theirs = [
        FakeRecord(0, event_value(0, user="ann", user_email=HASH)),
        FakeRecord(1, event_value(1, user="ann")),
        FakeRecord(2, event_value(2, user="bob")),
    ]
    notes = [notification(0, 0), notification(1, 1), notification(2, 2, "bob")]
    letters = [letter(0, 10, key=HASH.encode()), letter(1, 11, value=b'{"user":"ann"}')]
    everything = [*theirs, *notes, *letters]
    load.load(everything)
    for text, by in ((ANN, ANN), ('the user "ann"', "ann"), ("bob", "bob")):
        searched_for(database, text, by)
    erased = {}
    for kind, text in SUBJECTS.items():
        subject = erase.parse_subject(database, streams, kind, text)
        done = erased_once(database, subject)
        assert not any(done.already_erased.values())
        erased[kind] = done.erased
        unknown += [at for places in done.positions.values() for _, at in places if at is None]
    # Of each history, the text and the name of who requested it.
    records = {"events": 1, "notifications": 1, "dead_letters": 1}
    history = {"replay_plans": 3, "replays": 2}
    assert erased == dict.fromkeys(SUBJECTS, records | history)
    # Until when Kafka holds a record is told the same whenever it is asked.
    assert unknown == []
    assert places(database, HASH, "ann") == []
    others = ["events_20260701: 1", "notifications: 1", "replay_plans: 2", "replays: 1"]
    assert places(database, "bob") == others

    # As an older dump has them, with the list kept.
    execute(
        database, "CREATE TABLE kept AS TABLE erased_records; CREATE TABLE list AS TABLE erasures"
    )
    as_dumped(database, load, everything)
    execute(
        database,
        "INSERT INTO erasures OVERRIDING SYSTEM VALUE TABLE list;"
        " INSERT INTO erased_records TABLE kept; DROP TABLE list; DROP TABLE kept",
    )
    assert places(database, "ann")
    certificates = tmp_path / "certificates.json"
    with certificates.open("w") as file:
        for subject in erase.listed(database):
            assert subject.name is None
            done = erased_once(database, subject)
            # What the backup has brought back; it had no plans or replays.
            assert done.erased == records
            assert done.already_erased == dict.fromkeys(records, 0) | history
            file.write(json.dumps(done.as_dict()) + "\n")
    assert places(database, HASH, "ann") == []

    # The same without the list.
    as_dumped(database, load, everything)
    assert places(database, "ann")
    for subject in erase.certified(certificates):
        assert erased_once(database, subject).erased == records
        again = erase.apply(database, streams, subject, requested_by="tests")
        assert (again.erased, again.already_erased) == (dict.fromkeys(records, 0), records)
    assert places(database, HASH, "ann") == []
    execute(database, "UPDATE loader_positions SET next_offset = 0; DELETE FROM notifications")
    load.load(everything)
    assert places(database, HASH, "ann") == []
    assert places(database, "bob") == others


def test_a_name_that_only_the_history_has_is_erased(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "with_kafka", lambda *given: given[-1])
    forget_listed(database, Kind.USER, "zoe")
    searched_for(database, "some text", "zoe")
    [zoe] = erase.listed(database)
    done = erase.apply(database, [USER_EVENTS], zoe, requested_by="tests")
    assert done.erased["replay_plans"] == 1
    assert places(database, "zoe") == []


def erased_once(settings: Settings, subject: erase.Subject) -> Certificate:
    """Erases what a plan shows; a plan afterwards shows nothing more."""
    planned = erase.plan(settings, [USER_EVENTS], subject, requested_by="tests")
    done = erase.apply(settings, [USER_EVENTS], subject, requested_by="tests")
    after = erase.plan(settings, [USER_EVENTS], subject, requested_by="tests")
    assert planned.erased == done.erased
    assert not any(after.erased.values())
    assert +(Counter(done.erased) + Counter(done.already_erased)) == +Counter(after.already_erased)
    return done


def as_dumped(settings: Settings, load: Load, records: list[FakeRecord]) -> None:
    """A database that knows of no erasure and has these records."""
    for table in ("events", "notifications", "dead_letters", "erased_records", "erasures"):
        execute(settings, f"DELETE FROM {table}")
    execute(settings, "UPDATE loader_positions SET next_offset = 0")
    load.load(records)


def test_a_locked_partition_does_not_keep_old_versions_in_others(
    load: Load, database: Settings, connection: Connection
) -> None:
    for day in (1, 2):
        load.load([FakeRecord(day, event_value(day, f"2026-07-0{day}T12:00:00Z"))])
    connection.execute("SET lock_timeout = '100ms'")
    with psycopg.connect(database.database) as other:
        other.execute("LOCK TABLE events_20260701 IN SHARE UPDATE EXCLUSIVE MODE")
        erase._vacuum(connection, ["events", "notifications", "dead_letters"])
    vacuumed = "SELECT relname FROM pg_stat_user_tables WHERE vacuum_count > 0"
    wait_until(lambda: ("notifications",) in rows(database, vacuumed), 10, "each VACUUM")
    names = {name for (name,) in rows(database, vacuumed)}
    assert {"events_20260702", "dead_letters"} <= names
    assert "events_20260701" not in names


def searched_for(settings: Settings, text: str, by: str) -> None:
    """A plan and a replay of the dead letters that hold a text; and a plan as they were kept before keys
    had ids."""
    selection = make_selection(Hasher(), text=text)
    plan(settings, [USER_EVENTS], selection, ReplayOptions(), requested_by=by)
    execute(
        settings,
        "INSERT INTO replays (transactional_id, requested_by, selection, options)"
        " SELECT id, requested_by, selection, options FROM replay_plans ORDER BY id DESC LIMIT 1;"
        " INSERT INTO replay_plans (requested_by, selection, options) VALUES"
        f" ('tests', jsonb_build_object('text', '{selection.texts[0]}'), '{{}}')",
    )


def dump(settings: Settings, *words: str) -> dict[str, list[tuple[Any, ...]]]:
    """All rows that hold none of these words."""
    tables = ("events", "notifications", "dead_letters", "window_counts", "login_failure_bursts")
    return {
        table: rows(
            settings,
            f"SELECT t::text FROM {table} AS t WHERE true"
            + "".join(f" AND t::text NOT LIKE '%{word}%'" for word in words)
            + " ORDER BY 1",
        )
        for table in (*tables, "erasures", "erased_records", "replay_plans")
    }


class Killed(BaseException):
    """Ends an erasure at a step; its connection is closed, as that of a killed process."""


STEPS = ("erase_events", "erase_derived", "_erase_history")


def interrupted(monkeypatch: pytest.MonkeyPatch, run: "Run") -> None:
    """Dies before each step of an erasure, each time further on: once for real."""

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    places: list[tuple[Any, str]] = [(erase._Erasure, step) for step in STEPS]
    for owner, step in (*places, (erase, "_vacuum"), (erase, "with_kafka")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, die)
            with pytest.raises(Killed):
                run("-", "--apply", "--yes", given=ANN)


def killed(settings: Settings) -> None:
    program = (
        "import os, signal, sys\n"
        "from streamflow_cli.app import main\n"
        "from streamflow.erasure import erase\n"
        "erase._Erasure.erase_derived = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.argv[1:] = 'forget - --apply --yes'.split()\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(settings),
        input=f"{ANN}\n".encode(),
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def run(
    stack_settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs `streamflow forget … --json`; returns its certificates."""
    for name, content in environment(stack_settings).items():
        monkeypatch.setenv(name, content)

    def call(*arguments: str, given: str = "") -> list[dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", ["streamflow", "forget", *arguments, "--json"])
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert not ended.value.code, captured.err
        assert "ann@" not in captured.out + captured.err
        return [json.loads(line) for line in captured.out.splitlines()]

    return call


def reload(settings: Settings) -> None:
    streams = load_streams(settings)
    topics = [topic for stream in streams for topic in stream.topic_names]
    drain(settings, streams, topics, patience=0.0)


BODY = {"type": "USER_LOGIN", "user": "ann", "user_email": HASH}
THEIRS = [
    json.dumps(BODY | {"id": n, "timestamp": f"2026-03-01T12:00:{n:02}Z"}).encode()
    for n in range(20)
]
BROKEN = json.dumps(BODY | {"user_email": ANN, "timestamp": "noon"}).encode()


@pytest.mark.timeout(420)
def test_a_person_is_forgotten(
    stack_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """Killed between any two steps, and run again; then all of it is loaded again."""
    settings = stack_settings
    with workers(settings, tmp_path, ["validator", "analytics"]):
        produce(settings, "user-events", [*events(60)[0], *THEIRS, *[BROKEN] * 3, b"{"])
        client = clients.producer(settings)
        client.produce(f"{settings.prefix}user-events", b"{", headers=[("from", ANN.encode())])
        assert client.flush(30) == 0
        wait_until_closed(settings)
        execute(
            settings,
            "INSERT INTO login_failure_bursts VALUES"
            " ('user-events', '2026-03-01', 'user', 'ann', now(), now(), 5, 1, 5, false),"
            " ('user-events', '2026-03-01', 'user', 'bob', now(), now(), 5, 1, 5, false);"
            " INSERT INTO replay_plans (requested_by, selection, options) VALUES"
            f" ('{HASH}', '{{\"text\": \"{HASH}\"}}', '{{}}'), ('bob', '{{\"text\": \"b\"}}', '{{}}')",
        )
        before, others = dump(settings), dump(settings, HASH, HASH.encode().hex(), "ann")

        [planned] = run("-", given=ANN)
        assert dump(settings) == before
        killed(settings)
        interrupted(monkeypatch, run)
        assert value(settings, "SELECT count(*) FROM erasures WHERE certificate IS NULL") == 1
        [done] = run("-", "--apply", "--yes", given=f"{ANN}\n")

        assert places(settings, HASH, ANN, "User ann", '"ann"') == []
        assert {
            "events": 20, "notifications": 20, "dead_letters": 4,
            "login_failure_bursts": 1, "replay_plans": 2,
        } == done["erased"] == planned["erased"]  # fmt: skip
        assert value(settings, "SELECT certificate FROM erasures") == done
        kept = dump(settings, "erased")
        for table in ("notifications", "window_counts", "login_failure_bursts"):
            assert set(others[table]) <= set(kept[table]), table
        what_kafka_holds_is_told(settings, done)
        # Analytics may have closed another window until it stopped.
        reload(settings)
        report = audit(settings)
        assert (report.closed, report.erased) == (True, 44), report.waits_for or report.problems[:5]
        for options in (("-",), ("-", "--apply", "--yes"), ("--again",)):
            [again] = run(*options, given=ANN)
            assert not any(again["erased"].values())
            assert again["already_erased"] == done["erased"]
            if "--apply" not in options:
                # With the moment of asking it would move.
                assert again["kafka"] == done["kafka"]

        nothing_comes_back(settings)
        a_user_is_forgotten_by_name(settings, run)
        a_row_that_is_gone_is_lost(settings)


def wait_until_closed(settings: Settings) -> None:
    def closed() -> bool:
        reload(settings)
        # On a busy machine the broker may need a moment to say who leads what.
        with suppress(Unavailable):
            return audit(settings, 5.0).closed
        return False

    wait_until(closed, 120, "the audit to close")


def what_kafka_holds_is_told(settings: Settings, certificate: dict[str, Any]) -> None:
    """20 events, 4 rejected records, and what was derived from them."""
    held: dict[str, int] = {}
    for part in certificate["kafka"]:
        name = part["topic"].removeprefix(settings.prefix)
        held[name] = held.get(name, 0) + part["records"]
        assert part["records"] == sum(end - first for first, end in part["offsets"])
        assert datetime.fromisoformat(part["until"]) > datetime.now(UTC)
    assert held == {"user-events": 24, "notifications": 20, "dead-letter-topic": 4}


def nothing_comes_back(settings: Settings) -> None:
    """As after restoring an older dump, and with positions moved back."""
    execute(
        settings,
        "DELETE FROM events WHERE \"user\" = 'erased'; DELETE FROM notifications;"
        " DELETE FROM dead_letters; UPDATE loader_positions SET next_offset = 0",
    )
    reload(settings)
    assert places(settings, HASH, ANN, "User ann") == []
    report = audit(settings)
    assert (report.closed, report.erased) == (True, 44), report.problems[:5]


def a_user_is_forgotten_by_name(settings: Settings, run: Run) -> None:
    """And again after that, when nothing but the hash of the name is known."""
    produce(settings, "user-events", [THEIRS[0].replace(HASH.encode(), b"c" * 64)])
    wait_until_closed(settings)
    assert places(settings, "User ann") == ["notifications: 1"]
    run("--user", "-", "--apply", "--yes", given="ann\n")
    assert places(settings, "User ann", "c" * 64) == []
    execute(
        settings,
        "UPDATE notifications SET \"user\" = 'ann', message = 'User ann' WHERE origin_offset ="
        " (SELECT max(origin_offset) FROM notifications WHERE message = 'erased')",
    )
    assert len(run("--again", "--apply", "--yes")) == 2
    assert places(settings, "User ann") == []
    assert audit(settings).closed


def a_row_that_is_gone_is_lost(settings: Settings) -> None:
    execute(
        settings,
        "DELETE FROM events WHERE origin_offset ="
        " (SELECT max(origin_offset) FROM events WHERE \"user\" = 'erased')",
    )
    report = audit(settings)
    assert not report.closed
    assert any(problem.kind == "missing" for problem in report.problems)


def test_an_erasure_waits_for_one_that_is_ending(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may notice late that a connection was closed."""
    monkeypatch.setattr(erase, "with_kafka", lambda *given: given[-1])
    subject = erase.parse_subject(database, [USER_EVENTS], Kind.USER, "ann")
    with psycopg.connect(database.database) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [erase._LOCK])
        ending = threading.Timer(0.5, other.close)
        ending.start()
        erase.plan(database, [USER_EVENTS], subject, requested_by="tests")
        ending.join()


def test_windows_that_name_whom_they_count_are_not_left_behind(database: Settings) -> None:
    assert USER_EVENTS.event_counts is not None
    stream = replace(USER_EVENTS, windows=replace(USER_EVENTS.event_counts, by="user"))
    subject = erase.parse_subject(database, [stream], Kind.USER, "ann")
    with pytest.raises(ConfigurationError, match="count by user"):
        erase.plan(database, [stream], subject, requested_by="tests")


class Sale(Event):
    customer: str
    email: Hashed
    at: Timestamp


SALES = Stream(
    name="sales", contract=Sale, table="sales", key="customer", event_time="at",
    rollups=(
        DailyRollup(
            table="best_customers", description="", columns={"user": "text not null"},
            query="SELECT customer FROM {table}",
        ),
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "text", "left"),
    [
        # Of an address, no name is known: everybody else stays.
        (Kind.ADDRESS, ANN, ["ann", "bob"]),
        (Kind.USER, "ann", ["bob"]),
    ],
)
def test_a_rollup_by_user_of_a_stream_without_users(
    kind: Kind, text: str, left: list[str], database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "with_kafka", lambda *given: given[-1])
    upgrade(database, [SALES])
    made = Load(database, [SALES])
    at = "2026-07-01T12:00:00.000Z"
    for offset, name in enumerate(("ann", "bob")):
        sale = {"customer": name, "email": Hasher().hash(f"{name}@example.com"), "at": at}
        made.load([FakeRecord(offset, json.dumps(sale).encode(), topic="sales")])
    made.sink.close()
    execute(database, 'CREATE TABLE best_customers (stream text, day date, "user" text)')
    execute(
        database,
        "INSERT INTO best_customers SELECT 'sales', at::date, customer FROM sales UNION ALL"
        " SELECT 'others', at::date, customer FROM sales",
    )
    subject = erase.parse_subject(database, [SALES], kind, text)
    done = erase.apply(database, [SALES], subject, requested_by="tests")
    assert done.erased.get("best_customers", 0) == 2 - len(left)
    kept = rows(database, "SELECT \"user\" FROM best_customers WHERE stream = 'sales' ORDER BY 1")
    assert [name for (name,) in kept] == left
    assert value(database, "SELECT count(*) FROM best_customers WHERE stream = 'others'") == 2
