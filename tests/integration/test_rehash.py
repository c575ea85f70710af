"""A key of STREAMFLOW_PII_KEY is replaced: each stored hash is lifted exactly once, whatever is killed."""

import hashlib
import hmac
import json
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from faults import wait_until
from loads import TOPIC, FakeRecord, Load
from pipeline import audit, environment, produce, workers
from pipeline import event as login
from streamflow.errors import ConfigurationError, Unavailable
from streamflow.pii_keys import PiiKeys
from streamflow.postgres.connections import session
from streamflow.postgres.forgotten import ERASED_HASH
from streamflow.postgres.rehash import keys_of_some, rehash
from streamflow.producer.lines import Accepted, LineReader
from streamflow.registry import hasher_for
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS, UserEvent
from streamflow_cli.app import app
from streamflow_stack.doctor import Mark, hash_keys

pytestmark = pytest.mark.integration

FIRST = "old"
SECOND = json.dumps({"2026a": "new", "legacy": "old"})
THIRD = json.dumps({"2026b": "newest", "2026a": "new", "legacy": "old"})

_INSERT = """
INSERT INTO events (id, type, "user", user_email, timestamp, origin_topic, origin_partition, origin_offset)
SELECT number, 'USER_LOGIN', 'u' || person, hash, timestamptz '2026-11-01' + number * interval '40 s',
       'user-events', 0, number
  FROM unnest(%s::int[], %s::text[], %s::text[]) AS row (number, person, hash)
"""
# Two blocks a batch. It kills itself at one of them, within the transaction or before it has changed
# anything, or once it has done with a partition.
_COMMAND = """
import os, sys
import streamflow.postgres.rehash as module
from streamflow.registry import load_streams
from streamflow.settings import load_settings

def deadly(step, calls, when):
    def take(*arguments):
        nonlocal calls
        calls -= 1
        if calls == 0 and when == "before":
            os.kill(os.getpid(), 9)
        step(*arguments)
        if calls == 0:
            os.kill(os.getpid(), 9)
    return take

name, calls, when = sys.argv[1:]
setattr(module, name, deadly(getattr(module, name), int(calls), when))
module.BLOCKS = 2
settings = load_settings()
module.rehash(settings, load_streams(settings))
"""
KILLS = [
    ("_rehash_batch", 4, "after"),
    ("_rehash_batch", 9, "before"),
    ("remove_old_versions", 1, "before"),
]


def chain(address: str, *secrets: str) -> str:
    """A hash as docs/privacy.md describes it, by nothing of the product."""
    text = hmac.new(secrets[0].encode(), address.encode(), "sha256").hexdigest()
    tag = hmac.new(secrets[0].encode(), b"", "sha256").hexdigest()
    for secret in secrets[1:]:
        text, empty = (
            hmac.new(secret.encode(), part.encode(), "sha256").hexdigest() for part in (text, tag)
        )
        mark = "5f105f105f10" + empty[:8]
        text, tag = mark + text[:44], mark + empty[:44]
    return text


NEWEST_MARK = chain("", "old", "new", "newest")[:20]


def with_key(settings: Settings, key: str) -> Settings:
    return settings.model_copy(update={"pii_key": type(settings)(STREAMFLOW_PII_KEY=key).pii_key})


def column(settings: Settings, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(settings.database, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def lifted_rows(settings: Settings) -> int:
    [(rows,)] = column(
        settings, f"SELECT count(*) FROM events WHERE starts_with(user_email, '{NEWEST_MARK}')"
    )
    return int(str(rows))


def test_each_row_is_lifted_once_whatever_is_killed(database: Settings) -> None:
    count, chance = 3_000, random.Random(7)
    secrets = ("old", "new", "newest")
    people = [f"person-{chance.randrange(500)}@example.com" for _ in range(count)]
    known = {
        person: [chain(person, *secrets[: keys + 1]) for keys in range(3)] for person in set(people)
    }
    with session(database, "test") as connection:
        connection.execute("SELECT create_day_partition('events', '2026-11-02')")
        connection.execute(
            _INSERT,
            [list(range(count)), people, [known[person][chance.randrange(3)] for person in people]],
        )
    settings = with_key(database, THIRD)
    began = lifted_rows(settings)
    assert "run `streamflow db rehash`" in next(hash_keys(settings)).text
    assert 0 < began < count

    foreign = chain("ann@example.com", "old", "another")
    with session(database, "test") as connection:
        connection.execute(_INSERT, [[count], ["ann"], [foreign]])
    env = environment(settings, STREAMFLOW_PII_KEY=THIRD)
    reached = [began]
    for name, calls, when in KILLS:
        command = [sys.executable, "-c", _COMMAND, name, str(calls), when]
        done = subprocess.run(command, env=env, capture_output=True, check=False, timeout=120)
        assert done.returncode == -signal.SIGKILL, done.stderr
        reached.append(lifted_rows(settings))
    assert began < reached[1] < reached[2] < reached[3] < count

    last = CliRunner().invoke(app, ["db", "rehash"], env=env)
    assert last.exit_code == 1, last.output
    assert f"events.user_email: {count - reached[3]:,} rows hashed" in last.stdout
    assert f"1 row of events.user_email is under the key {foreign[:20]}" in last.stderr
    # A key that is taken out of the list is noticed, too.
    for key, mark, text in (
        (
            THIRD,
            Mark.BAD,
            f"{foreign[:20]} 1) are under keys that STREAMFLOW_PII_KEY does not list",
        ),
        ('{"2026b": "newest", "legacy": "old"}', Mark.BAD, f"({NEWEST_MARK} "),
        (FIRST, Mark.BAD, f"({NEWEST_MARK} "),
    ):
        [finding] = hash_keys(with_key(settings, key))
        assert finding.mark is mark
        assert text in finding.text
    assert Counter(column(settings, 'SELECT "user", user_email FROM events')) == Counter(
        [*((f"u{person}", known[person][2]) for person in people), ("uann", foreign)]
    )
    again = {done.column: done.lifted for done in rehash(settings, [USER_EVENTS])}
    assert again == {"user_email": 0, "value": 0}


def test_a_row_of_today_is_counted_once(database: Settings) -> None:
    with session(database, "test") as connection:
        connection.execute("SELECT create_day_partition('events', CURRENT_DATE)")
        connection.execute(_INSERT, [[1, 2], ["ann", "bob"], ["a" * 64, "b" * 64]])
        connection.execute("UPDATE events SET timestamp = now() WHERE origin_offset = 2")
        assert keys_of_some(connection, [USER_EVENTS], PiiKeys()) == {"legacy": 2}


def test_two_at_once(database: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = with_key(database, SECOND)
    with session(settings, "test") as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [0x5F10_4A54])
        monkeypatch.setattr("streamflow.postgres.connections.LOCK_TIMEOUT", 1)
        with pytest.raises(Unavailable, match="another rehash is running"):
            rehash(settings, [USER_EVENTS])
    with pytest.raises(ConfigurationError, match="no key in STREAMFLOW_PII_KEY has an id"):
        rehash(with_key(database, FIRST), [USER_EVENTS])


@pytest.mark.parametrize("keys", [SECOND, '{"2026a": "new"}'])
def test_an_erased_row_has_no_hash(database: Settings, keys: str) -> None:
    """Where the column may not be null it has a placeholder, which is under no key."""
    with session(database, "test") as connection:
        connection.execute(_INSERT, [[1], ["ann"], [ERASED_HASH]])
    settings = with_key(database, keys)
    [events, _] = rehash(settings, [USER_EVENTS])
    assert (events.lifted, events.problems()) == (0, [])
    [finding] = hash_keys(settings)
    assert finding.mark is Mark.WELL


class _Friend(BaseModel):
    note: str


class _Nested(UserEvent):
    note: str | None = None
    friends: list[_Friend] | None = None


def test_each_private_column_and_field_is_lifted_in_one_run(database: Settings) -> None:
    """A row moves to another block when its first column is lifted."""
    stream = replace(USER_EVENTS, contract=_Nested, private_fields=("user_email", "note"))
    old, new = chain("ann@example.com", "old"), chain("ann@example.com", "old", "new")
    foreign = chain("ann@example.com", "old", "another")
    with session(database, "test") as connection:
        connection.execute("ALTER TABLE events ADD COLUMN note text, ADD COLUMN friends jsonb")
        connection.execute(_INSERT, [list(range(500)), ["ann"] * 500, [old] * 500])
        connection.execute(
            "UPDATE events SET note = user_email, friends = jsonb_build_array(jsonb_build_object("
            "'note', user_email, 'id', user_email), jsonb_build_object('note', %s::text))",
            [foreign],
        )
        connection.execute("UPDATE events SET friends = NULL WHERE origin_offset = 0")
    settings = with_key(database, SECOND)
    with session(settings, "test") as connection:
        keys = keys_of_some(connection, [stream], hasher_for(settings, [stream]).keys)
    assert set(keys) == {"legacy", foreign[:20]}
    done = {done.column: (done.lifted, done.unknown) for done in rehash(settings, [stream])}
    assert done == {
        "user_email": (500, {}), "note": (500, {}), "friends": (499, {foreign[:20]: 499}),
        "value": (0, {}),
    }  # fmt: skip
    friends = [{"id": old, "note": new}, {"note": foreign}]
    assert Counter(
        (email, note, json.dumps(nested))
        for email, note, nested in column(settings, "SELECT user_email, note, friends FROM events")
    ) == {(new, new, json.dumps(nested)): count for nested, count in ((None, 1), (friends, 499))}
    assert not any(done.lifted for done in rehash(settings, [stream]))


def test_dead_letters_are_lifted_where_a_hash_is_certain(database: Settings) -> None:
    other = hashlib.sha256(b"a digest of the sender's own").hexdigest()
    old, middle, new = (chain("ann@example.com", *("old", "new", "newest")[:n]) for n in (1, 2, 3))
    value = f'{{"user_email": "{old}", "note": "{middle} and {other}", "id": "one"}}'
    letter = FakeRecord(0, value.encode(), topic="dead-letter-topic", key=middle.encode())
    load = Load(database)
    load.load([letter])
    load.sink.close()
    settings = with_key(database, THIRD)
    assert [done.lifted for done in rehash(settings, [USER_EVENTS])] == [0, 1]
    wanted = f'{{"user_email": "{new}", "note": "{new} and {other}", "id": "one"}}'
    assert column(settings, "SELECT key, value FROM dead_letters") == [
        (new.encode(), wanted.encode())
    ]
    assert [done.lifted for done in rehash(settings, [USER_EVENTS])] == [0, 0]


def test_producers_with_old_and_new_keys_side_by_side(
    stack_settings: Settings, tmp_path: Path
) -> None:
    def send(key: str) -> None:
        settings = with_key(stack_settings, key)
        reader = LineReader(USER_EVENTS, hasher_for(settings, [USER_EVENTS]))
        values: list[bytes | None] = []
        for number in range(300):
            person = {"user_email": f"person-{number % 10}@example.com"}
            line = reader.read(json.dumps(json.loads(login(number)) | person).encode())
            assert isinstance(line, Accepted)
            values.append(line.value)
        produce(settings, TOPIC, values)

    def people() -> int:
        return len(column(stack_settings, "SELECT user_email FROM events GROUP BY 1"))

    def loaded(count: int) -> bool:
        return column(stack_settings, "SELECT count(*) FROM events") == [(count,)]

    send(FIRST)
    with workers(stack_settings, tmp_path, ["loader"], STREAMFLOW_PII_KEY=FIRST):
        wait_until(lambda: loaded(300), 60)
        # A loader that has not been restarted yet.
        send(SECOND)
        wait_until(lambda: loaded(600), 60)
    assert people() == 20
    everybody = ["validator", "analytics", "loader"]
    with workers(stack_settings, tmp_path, everybody, STREAMFLOW_PII_KEY=SECOND):
        send(FIRST)
        send(SECOND)
        wait_until(lambda: loaded(1200), 60)
        assert people() == 20
        [events, _] = rehash(with_key(stack_settings, SECOND), [USER_EVENTS])
        assert (events.lifted, events.unknown) == (300, {})
        assert people() == 10
        assert audit(stack_settings).closed
