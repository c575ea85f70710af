"""The hand loops do the work that they stand for, and stored rows are compared by what they hold."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import orjson
import psycopg
import pytest

from pipeline import stored_values
from streamflow.registry import hasher_for, load_streams
from streamflow.settings import Settings
from streamflow_bench import sources, watching
from streamflow_bench.figures import PathName
from streamflow_bench.limits import bare_produce
from streamflow_bench.paths import Paths
from streamflow_bench.peers.catalog import hand_loop
from streamflow_bench.peers.place import Place
from streamflow_bench.peers.rows import rows_of
from streamflow_bench.peers.running import progress_of
from streamflow_bench.sandbox import Sandbox
from streamflow_bench.sources import Sources

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

EVENTS = 2_500
INVALID = 2
RATE = 50  # events a second of event time: several windows end


class Peer:
    """Runs the hand loop of a path in a test's own topics."""

    def __init__(self, settings: Settings, sandbox: Sandbox, events: Sources) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._events = events
        [self.stream] = load_streams(settings)

    def run(self, path: PathName, output: str, directory: Path) -> None:
        place = Place(
            settings=self._settings,
            topic=self.stream.topic,
            group=self._settings.prefix + "hand",
            output=output,
            dead_letters=self.stream.dead_letter_topic,
            lines=self._events.lines,
            directory=directory,
        )
        if path is not PathName.PRODUCE:
            bare_produce(self._settings, place.topic, self._events.records())
        peer = hand_loop(path)
        command, variables = peer.program.command(place), place.environment()
        with (
            progress_of(peer, place) as done,
            watching.process(self._sandbox, self._settings, "hand", command, variables) as child,
        ):
            watching.watch(child, done, EVENTS)

    def written(self, topic: str) -> list[dict[str, object]]:
        values = stored_values(self._settings, topic.removeprefix(self._settings.prefix))
        return [orjson.loads(value or b"{}") for value in values]


@pytest.fixture
def sandbox(stack_settings: Settings) -> Iterator[Sandbox]:
    made = Sandbox(stack_settings)
    yield made
    made.close()


@pytest.fixture
def events(stack_settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sources:
    monkeypatch.setattr(sources, "RATE", RATE)
    hasher = hasher_for(stack_settings, load_streams(stack_settings))
    return Sources(sandbox.directory, EVENTS, hasher)


@pytest.fixture
def peer(stack_settings: Settings, sandbox: Sandbox, events: Sources) -> Peer:
    return Peer(stack_settings, sandbox, events)


def test_the_hand_loop_stores_the_rows_that_the_loader_stores(
    sandbox: Sandbox, events: Sources
) -> None:
    run = Paths(sandbox, events, 1.0).measure(PathName.LOADER)
    assert run.rows is not None
    assert run.rows.number == EVENTS - INVALID
    assert run.hand_rows == run.rows


def test_a_worker_begins_again_in_each_run(sandbox: Sandbox, events: Sources) -> None:
    paths = Paths(sandbox, events, 1.0)
    for _ in range(2):
        paths.measure(PathName.VALIDATOR)
    topic = load_streams(paths.filled)[0].notifications_topic
    values = stored_values(paths.filled, topic.removeprefix(paths.filled.prefix))
    assert len(values) == 2 * (EVENTS - INVALID)


def test_rows_are_compared_by_what_they_hold(stack_settings: Settings) -> None:
    with psycopg.connect(stack_settings.database, autocommit=True) as connection:

        def insert(number: int, email: str | None) -> None:
            connection.execute(
                'INSERT INTO events (id, type, "user", user_email, timestamp, origin_topic, '
                "origin_partition, origin_offset) VALUES (%s, 'USER_LOGIN', 'u', %s, "
                "'2026-03-01T12:00:00Z', 't', 0, %s)",
                [number, email, number],
            )

        empty = rows_of(stack_settings)
        insert(1, "a" * 64)
        insert(2, None)
        both = rows_of(stack_settings)
        assert (empty, both.number) == ((0, 0), 2)
        connection.execute("DELETE FROM events")
        insert(2, None)
        insert(1, "a" * 64)
        connection.execute("UPDATE events SET loaded_at = now() - interval '1 hour'")
        assert rows_of(stack_settings) == both
        connection.execute("UPDATE events SET user_email = NULL WHERE id = 1")
        assert rows_of(stack_settings).number == both.number
        assert rows_of(stack_settings) != both


def test_the_hand_loop_notifies_and_sets_invalid_events_aside(peer: Peer, tmp_path: Path) -> None:
    topic = peer.stream.notifications_topic
    peer.run(PathName.VALIDATOR, topic, tmp_path)
    notifications = peer.written(topic)
    assert len({each["event_id"] for each in notifications}) == EVENTS - INVALID
    assert len(notifications) == EVENTS - INVALID
    dead = peer.written(peer.stream.dead_letter_topic)
    assert [each["type"] for each in dead] == ["USER_TELEPORTED"] * INVALID


def test_the_hand_loop_counts_the_windows_that_have_ended(peer: Peer, tmp_path: Path) -> None:
    topic = peer.stream.analytics_topic
    peer.run(PathName.ANALYTICS, topic, tmp_path)
    counted = Counter[tuple[object, object]]()
    records = peer.written(topic)
    windows = {(each["partition"], each["window_start"], each["event_type"]) for each in records}
    assert len(windows) == len(records)
    for record in records:
        counted[record["window_start"], record["event_type"]] += int(str(record["count"]))
    expected = Counter[tuple[object, object]]()
    for event in peer.written(peer.stream.topic):
        at = datetime.fromisoformat(str(event["timestamp"])).timestamp()
        expected[at // 10 * 10, event["type"]] += 1
    assert len(counted) > 8
    assert counted.items() <= expected.items()


def test_the_hand_loop_hashes_every_address_that_it_sends(peer: Peer, tmp_path: Path) -> None:
    peer.run(PathName.PRODUCE, peer.stream.notifications_topic, tmp_path)
    sent = peer.written(peer.stream.topic)
    assert sorted(int(str(each["id"])) for each in sent) == list(range(1, EVENTS + 1))
    assert {len(str(each.get("user_email", ""))) for each in sent} == {0, 64}
