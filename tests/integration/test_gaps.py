"""Records that are gone before they were read, and topics that are not what they were: noticed, told
once with range and cause, kept, and passed."""

import shutil
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import orjson
import psycopg
import pytest
from confluent_kafka import TopicPartition

from faults import stalled, wait_until
from loads import execute
from pipeline import (
    WorkerProcess,
    count,
    environment,
    events,
    folder,
    produce,
    stored_values,
    streamflow,
    topic_bounds,
    workers,
)
from services import BrokerService
from streamflow.errors import OffsetsReused, Unavailable
from streamflow.kafka import clients, offsets
from streamflow.kafka.continuity import require_whole_logs
from streamflow.kafka.topic_ids import topic_ids
from streamflow.kafka.topics import provision
from streamflow.postgres.connections import session
from streamflow.postgres.gaps import import_gaps
from streamflow.records import Gap, Log, Position
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streaming_workers.acceptance import Acceptance
from streaming_workers.drain import drain

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("exact_row_counts")]

WORKERS = ("validator", "analytics", "loader")
ONE, ALL = (1,), (0, 1, 2)


def committed(settings: Settings, name: str) -> dict[int, int]:
    """Where the worker is to go on in user-events, by partition."""
    topic = f"{settings.prefix}user-events"
    with closing(offsets.GroupOffsets(settings, settings.group(name))) as group:
        found = group.read([(topic, partition) for partition in ALL])
    return {partition: each.offset for (_, partition), each in found.items()}


def ends(settings: Settings) -> dict[int, int]:
    return {number: end for (_, number), (_, end) in topic_bounds(settings, "user-events").items()}


def wait_caught_up(settings: Settings, name: str, seconds: float = 60) -> dict[int, int]:
    """Waits until nothing is left to read, and no window is open; returns where that is."""
    wanted = ends(settings)
    wait_until(lambda: committed(settings, name) == wanted, seconds, f"{name} to catch up")
    return wanted


def remove(settings: Settings, up_to: dict[int, int]) -> None:
    topic, client = f"{settings.prefix}user-events", clients.admin(settings)
    wanted = [TopicPartition(topic, number, offset) for number, offset in up_to.items()]
    for future in client.delete_records(wanted).values():
        future.result(20)


def gaps_of(settings: Settings, name: str) -> list[Gap]:
    with session(settings, "test") as connection:
        import_gaps(connection, settings, load_streams(settings))
        rows = connection.execute(
            "SELECT topic, partition, first_offset, end_offset, cause FROM gaps"
            " WHERE reader = %s ORDER BY topic, partition, first_offset",
            [settings.group(name)],
        )
        return [Gap(*row) for row in rows]


def handled(settings: Settings, name: str) -> int:
    """How many events of user-events the worker has brought to where it brings them."""
    if name == "validator":
        return len(stored_values(settings, "notifications"))
    if name == "analytics":
        values = stored_values(settings, "analytics")
        return sum(orjson.loads(each or b"")["count"] for each in values)
    return count(settings, "SELECT count(*) FROM events")


def told(worker: WorkerProcess) -> int:
    return worker.log.read_text().count('"event": "records lost"')


@pytest.mark.parametrize(
    ("name", "partitions"),
    [
        pytest.param("validator", ALL, id="validator, all partitions"),
        pytest.param("analytics", ONE, id="analytics, one partition"),
        pytest.param("loader", ONE, id="loader, one partition"),
        pytest.param("validator", ONE, marks=pytest.mark.chaos, id="validator, one partition"),
        pytest.param("analytics", ALL, marks=pytest.mark.chaos, id="analytics, all partitions"),
        pytest.param("loader", ALL, marks=pytest.mark.chaos, id="loader, all partitions"),
    ],
)
def test_what_was_removed_while_a_worker_was_stopped(
    name: str, partitions: tuple[int, ...], stack_settings: Settings, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", events(300)[0])
    with workers(stack_settings, folder(tmp_path, "first"), [name]) as running:
        read_to = wait_caught_up(stack_settings, name)
        assert running[name].stop() == 0
    produce(stack_settings, "user-events", events(300, seed=2)[0])
    first = {number: read_to[number] + 7 for number in partitions}
    remove(stack_settings, first)
    topic = f"{stack_settings.prefix}user-events"
    with workers(stack_settings, tmp_path, [name]) as running:
        wait_caught_up(stack_settings, name)
        expected = [
            Gap(topic, number, read_to[number], first[number], "retention") for number in partitions
        ]
        assert gaps_of(stack_settings, name) == expected
        assert told(running[name]) == len(partitions)
        lost = 7 * len(partitions)
        assert running[name].metric("streamflow_records_lost_total", cause="retention") == lost
        assert handled(stack_settings, name) == 600 - lost
        # Kept with the position, so it is still there after a restart, and not told again.
        assert running[name].stop() == 0
    produce(stack_settings, "user-events", events(30, seed=3)[0])
    with workers(stack_settings, folder(tmp_path, "third"), [name]) as running:
        wait_caught_up(stack_settings, name)
        assert gaps_of(stack_settings, name) == expected
        assert told(running[name]) == 0
        assert handled(stack_settings, name) == 630 - lost


@pytest.mark.parametrize("name", WORKERS)
def test_what_was_removed_under_a_worker_that_stood_still(
    name: str, stack_settings: Settings, tmp_path: Path
) -> None:
    topic = f"{stack_settings.prefix}user-events"
    with workers(stack_settings, tmp_path, [name]) as running:
        produce(stack_settings, "user-events", events(300)[0])
        read_to = wait_caught_up(stack_settings, name)
        with stalled(running[name].pid):
            produce(stack_settings, "user-events", events(20_000, seed=2)[0])
            # More than the client can have fetched before it stood still.
            first = ends(stack_settings)
            produce(stack_settings, "user-events", events(300, seed=3)[0])
            remove(stack_settings, first)
        wait_caught_up(stack_settings, name, 90)
        found = gaps_of(stack_settings, name)
        assert [each.end for each in found] == [first[number] for number in ALL]
        assert all(read_to[each.partition] <= each.first for each in found)
        lost = sum(each.end - each.first for each in found)
        assert handled(stack_settings, name) == 20_600 - lost
        assert running[name].metric("streamflow_records_lost_total", topic=topic) == lost


def test_what_was_removed_before_a_worker_first_ran(
    stack_settings: Settings, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", events(300)[0])
    remove(stack_settings, {0: 5})
    topic = f"{stack_settings.prefix}user-events"
    with workers(stack_settings, tmp_path):
        for name in WORKERS:
            wait_caught_up(stack_settings, name)
            assert gaps_of(stack_settings, name) == [Gap(topic, 0, 0, 5, "retention")]
            assert handled(stack_settings, name) == 295


@pytest.mark.parametrize("partitions", [ONE, ALL], ids=["one partition", "all partitions"])
def test_what_was_removed_before_a_drain(
    partitions: tuple[int, ...], stack_settings: Settings
) -> None:
    streams, topic = load_streams(stack_settings), f"{stack_settings.prefix}user-events"
    produce(stack_settings, "user-events", events(300)[0])
    drain(stack_settings, streams, [topic], patience=0.1)
    read_to = ends(stack_settings)
    produce(stack_settings, "user-events", events(300, seed=2)[0])
    first = {number: read_to[number] + 7 for number in partitions}
    remove(stack_settings, first)
    assert drain(stack_settings, streams, [topic], patience=0.1).lag == 0
    expected = [
        Gap(topic, number, read_to[number], first[number], "retention") for number in partitions
    ]
    assert gaps_of(stack_settings, "loader") == expected
    assert handled(stack_settings, "loader") == 600 - 7 * len(partitions)
    # Nothing is left to read: also then the position passes what was removed.
    remove(stack_settings, ends(stack_settings))
    assert drain(stack_settings, streams, [topic], patience=0.1).lag == 0
    assert gaps_of(stack_settings, "loader") == expected


def test_a_gap_that_was_acknowledged_stays_acknowledged(
    stack_settings: Settings, tmp_path: Path
) -> None:
    produce(stack_settings, "user-events", events(300)[0])
    remove(stack_settings, {0: 5})
    with workers(stack_settings, tmp_path, ["validator"]):
        wait_caught_up(stack_settings, "validator")
    assert gaps_of(stack_settings, "validator")
    with psycopg.connect(stack_settings.database, autocommit=True) as connection:
        connection.execute("UPDATE gaps SET acknowledged_at = now(), acknowledged_by = 'ann'")
    assert gaps_of(stack_settings, "validator")
    assert count(stack_settings, "SELECT count(*) FROM gaps WHERE acknowledged_at IS NULL") == 0


def produce_to_first(settings: Settings, values: list[bytes]) -> None:
    """To partition 0, so that their offsets there are known."""
    client = clients.producer(settings)
    for value in values:
        client.produce(f"{settings.prefix}user-events", value, b"ann", 0)
    assert client.flush(30) == 0


def recreate(settings: Settings, topic: str = "user-events", *, forgotten: bool = False) -> None:
    """`forgotten`: StreamFlow's own positions are lost as well, so that validator and analytics take the
    topic for one that they have never read."""
    delete(settings, topic)
    if forgotten:
        delete(settings, "streamflow-positions")
    streams = load_streams(settings)

    def made() -> bool:
        try:
            provision(settings, streams)
        except Unavailable:  # it is still being deleted
            return False
        return len(topic_bounds(settings, topic)) == 3

    wait_until(made, 30, "the topic to be recreated")


def delete(settings: Settings, topic: str = "user-events") -> None:
    name, client = f"{settings.prefix}{topic}", clients.admin(settings)
    client.delete_topics([name])[name].result(20)


def readiness(worker: WorkerProcess) -> tuple[int, str]:
    try:
        return 200, worker.get("/ready")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def assert_waits_for_a_person(worker: WorkerProcess, settings: Settings) -> None:
    wait_until(lambda: worker.said('"offsets reused"'), 40, f"{worker.name} to notice")
    command = f"streamflow topics --accept-recreated {settings.prefix}user-events"
    assert worker.said("was deleted and recreated")
    assert worker.said(command)
    code, why = readiness(worker)
    assert code == 503
    assert command in why
    assert "the loop turns" in worker.get("/health")


def rows_by_topic(settings: Settings) -> dict[str, dict[str, int]]:
    """Events, notifications and counted events, by the topic that they are said to come from."""
    queries = {
        "events": "SELECT origin_topic, count(*) FROM events GROUP BY 1",
        "notifications": "SELECT origin_topic, count(*) FROM notifications GROUP BY 1",
        "counted": "SELECT origin_topic, sum(count)::int FROM window_counts GROUP BY 1",
    }
    with psycopg.connect(settings.database) as connection:
        return {
            name: dict(connection.execute(query.encode()).fetchall())
            for name, query in queries.items()
        }


def wait_for_rows(settings: Settings, expected: dict[str, int]) -> None:
    def there() -> bool:
        return all(found == expected for found in rows_by_topic(settings).values())

    try:
        wait_until(there, 60)
    except AssertionError:
        assert rows_by_topic(settings) == dict.fromkeys(rows_by_topic(settings), expected)


def accept(settings: Settings, **changes: str) -> str:
    done = streamflow(
        settings,
        "topics",
        "--accept-recreated",
        f"{settings.prefix}user-events",
        "--yes",
        **changes,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SLOW_UPDATE = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(8); RETURN NULL; END';
CREATE TRIGGER slow BEFORE UPDATE ON refused_events FOR EACH STATEMENT EXECUTE FUNCTION slow()
"""


def topic_id(settings: Settings) -> str:
    topic = f"{settings.prefix}user-events"
    return topic_ids(clients.admin(settings), [topic])[topic]


@pytest.mark.slow
@pytest.mark.parametrize(
    "running", [pytest.param(False, marks=pytest.mark.chaos), True], ids=["stopped", "running"]
)
def test_a_recreated_topic_is_noticed_and_accepted(
    running: bool, stack_settings: Settings, tmp_path: Path
) -> None:
    topic = f"{stack_settings.prefix}user-events"
    before = topic_id(stack_settings)
    produce_to_first(stack_settings, events(10)[0])
    with ExitStack() as stack:
        first = stack.enter_context(workers(stack_settings, folder(tmp_path, "first")))
        wait_for_rows(stack_settings, {topic: 10})
        if not running:
            assert [first[name].stop() for name in WORKERS] == [0, 0, 0]
        recreate(stack_settings)
        produce_to_first(stack_settings, events(20, seed=2)[0])
        found = (
            first
            if running
            else stack.enter_context(workers(stack_settings, folder(tmp_path, "second")))
        )
        assert_waits_for_a_person(found["loader"], stack_settings)
        if running:
            # They had read the old one; what Kafka knew of that was deleted with the topic.
            assert_waits_for_a_person(found["validator"], stack_settings)
            assert_waits_for_a_person(found["analytics"], stack_settings)
        assert rows_by_topic(stack_settings)["events"] == {topic: 10}
        said = accept(stack_settings)
        assert f"topic name {topic}@{before}" in said
        wait_for_rows(stack_settings, {f"{topic}@{before}": 10, topic: 20})
        assert count(stack_settings, "SELECT count(*) FROM duplicates") == 0
        if running:
            for worker in found.values():
                wait_until(lambda worker=worker: readiness(worker)[0] == 200, 30, worker.name)
        # Safe to repeat, and nothing is counted or set aside twice.
        assert "nothing is stored of another topic" in accept_when_stopped(stack_settings, found)
    assert set(rows_by_topic(stack_settings)["events"].items()) == {
        (f"{topic}@{before}", 10),
        (topic, 20),
    }
    with psycopg.connect(stack_settings.database) as connection:
        kept = connection.execute(
            "SELECT topic, partition, first_offset, cause, acknowledged_at FROM gaps"
            " WHERE reader = %s ORDER BY partition",
            [stack_settings.group("loader")],
        ).fetchall()
    assert (f"{topic}@{before}", 0, 10, "recreated", None) in kept


def test_workers_that_begin_by_themselves_are_not_waited_for(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """Accepted when validator and analytics have joined, but have committed nothing yet."""
    topic = f"{stack_settings.prefix}user-events"
    produce_to_first(stack_settings, events(10)[0])
    with workers(stack_settings, folder(tmp_path, "first")) as first:
        wait_for_rows(stack_settings, {topic: 10})
        assert [first[name].stop() for name in WORKERS] == [0, 0, 0]
    before = topic_id(stack_settings)
    recreate(stack_settings)
    with workers(stack_settings, folder(tmp_path, "second")) as second:
        assert_waits_for_a_person(second["loader"], stack_settings)
        for name in ("validator", "analytics"):
            second[name].wait_assigned()
        command = ("topics", "--accept-recreated", topic, "--yes")
        with subprocess.Popen(
            [sys.executable, "-m", "streamflow", *command],
            env=environment(stack_settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as accepting:
            assert accepting.stdout is not None
            assert "was deleted and recreated" in accepting.stdout.readline()
            produce_to_first(stack_settings, events(20, seed=2)[0])
            said, _ = accepting.communicate(timeout=60)
        assert accepting.returncode == 0, said
        wait_for_rows(stack_settings, {f"{topic}@{before}": 10, topic: 20})


def test_large_batches_in_every_partition_do_not_hide_that_logs_are_whole(
    stack_settings: Settings,
) -> None:
    topic = f"{stack_settings.prefix}user-events"
    produce(stack_settings, "user-events", events(20_000)[0])
    positions = {(topic, number): Position(topic, number, 1, log=Log("", 0)) for number in range(3)}
    began = time.monotonic()
    require_whole_logs(stack_settings, stack_settings.group("loader"), positions)
    assert time.monotonic() - began < 8


@pytest.mark.slow
def test_what_was_loaded_and_never_notified_or_counted_is_a_gap(
    stack_settings: Settings, tmp_path: Path
) -> None:
    topic = f"{stack_settings.prefix}user-events"
    with ExitStack() as stack:
        found = stack.enter_context(workers(stack_settings, folder(tmp_path, "first")))
        produce_to_first(stack_settings, events(10)[0])
        wait_until(lambda: rows_by_topic(stack_settings)["notifications"] == {topic: 10}, 60)
        assert [found[name].stop() for name in ("validator", "analytics")] == [0, 0]
        produce_to_first(stack_settings, events(20, seed=3)[0])
        wait_until(lambda: rows_by_topic(stack_settings)["events"] == {topic: 30}, 60)
        before = topic_id(stack_settings)
        recreate(stack_settings)
        # In one partition only: the others are idle from the beginning.
        produce_to_first(stack_settings, events(5, seed=4)[0])
        assert_waits_for_a_person(found["loader"], stack_settings)
        accept(stack_settings)
        stack.enter_context(workers(stack_settings, folder(tmp_path, "second")))
        wait_until(lambda: rows_by_topic(stack_settings)["notifications"].get(topic) == 5, 90)
        aside = f"{topic}@{before}"
        assert Gap(aside, 0, 10, 30, "recreated") in gaps_of(stack_settings, "validator")
        lost = [each for each in gaps_of(stack_settings, "analytics") if each.topic == aside]
        counted = rows_by_topic(stack_settings)["counted"].get(aside, 0)
        assert sum(each.end - each.first for each in lost) == 30 - counted
        assert streamflow(stack_settings, "audit").returncode == 1
        streamflow(stack_settings, "audit", "--acknowledge")
        done = streamflow(stack_settings, "audit")
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_worker_that_joins_for_a_moment_is_waited_for(stack_settings: Settings) -> None:
    """As those do, every 15 s, that wait for the topic to be accepted."""
    topic, group = f"{stack_settings.prefix}user-events", stack_settings.group("validator")
    acceptance = Acceptance(stack_settings, load_streams(stack_settings), topic)
    moved = [offsets.as_committed(Position(topic, 0, 7), Log(topic_id(stack_settings)))]
    member = clients.consumer(stack_settings, group)
    member.subscribe([topic])

    def joined() -> bool:
        member.poll(0.1)
        return bool(member.assignment())

    try:
        wait_until(joined, 30, "a member")
        with ThreadPoolExecutor(1) as pool:
            moving = pool.submit(acceptance._move, group, moved)
            with pytest.raises(TimeoutError):
                moving.result(2)
            member.close()
            moving.result(30)
    finally:
        member.close()
    committed = offsets.committed(stack_settings, group, [(topic, 0)])
    assert committed[(topic, 0)].offset == 7


@pytest.mark.chaos
def test_a_worker_that_slept_through_an_acceptance_goes_on(
    stack_settings: Settings, tmp_path: Path
) -> None:
    topic = f"{stack_settings.prefix}user-events"
    produce_to_first(stack_settings, events(10)[0])
    with workers(stack_settings, tmp_path) as running:
        wait_for_rows(stack_settings, {topic: 10})
        with stalled(running["validator"].process.pid):
            recreate(stack_settings)
            produce_to_first(stack_settings, events(20, seed=2)[0])
            assert_waits_for_a_person(running["loader"], stack_settings)
            accept(stack_settings)
            wait_until(lambda: rows_by_topic(stack_settings)["events"].get(topic) == 20, 60)
        wait_until(lambda: rows_by_topic(stack_settings)["notifications"].get(topic) == 20, 90)


def accept_when_stopped(settings: Settings, running: dict[str, WorkerProcess]) -> str:
    assert [worker.stop() for worker in running.values()] == [0, 0, 0]
    return accept(settings)


def test_old_records_that_were_never_read_are_a_gap(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """The validator had read 40 of them, the loader 10: what it knows of the end is kept."""
    topic = f"{stack_settings.prefix}user-events"
    before = topic_id(stack_settings)
    produce_to_first(stack_settings, events(10)[0])
    with workers(stack_settings, folder(tmp_path, "first")):
        wait_for_rows(stack_settings, {topic: 10})
    produce_to_first(stack_settings, events(30, seed=2)[0])
    with workers(stack_settings, folder(tmp_path, "second"), ["validator"]):
        wait_caught_up(stack_settings, "validator")
    recreate(stack_settings, forgotten=True)
    produce_to_first(stack_settings, events(20, seed=3)[0])
    with workers(stack_settings, folder(tmp_path, "third")) as running:
        assert_waits_for_a_person(running["loader"], stack_settings)
        wait_caught_up(stack_settings, "validator")
        # As with millions of rows: one statement takes longer than a call may hang.
        execute(stack_settings, SLOW_UPDATE)
        accept(stack_settings, STREAMFLOW_STALL_SECONDS="5")
        wait_until(
            lambda: rows_by_topic(stack_settings)["notifications"].get(topic) == 20,
            60,
            "the new notifications",
        )
        wait_until(
            lambda: rows_by_topic(stack_settings)["events"].get(topic) == 20, 60, "the new events"
        )
    # Those of the old records were still to be loaded: they are of the old ones.
    assert rows_by_topic(stack_settings)["notifications"] == {f"{topic}@{before}": 40, topic: 20}
    assert rows_by_topic(stack_settings)["events"] == {f"{topic}@{before}": 10, topic: 20}
    gap = Gap(f"{topic}@{before}", 0, 10, 40, "recreated")
    assert gap in gaps_of(stack_settings, "loader")


def emitted(settings: Settings) -> int:
    """How many events the windows count that analytics has written."""
    values = stored_values(settings, "analytics")
    return sum(orjson.loads(each or b"")["count"] for each in values)


def written(settings: Settings, notifications: int, counted: int) -> None:
    """Waits until validator and analytics have written as much, whether or not it is loaded."""
    wait_until(
        lambda: len(stored_values(settings, "notifications")) == notifications, 60, "notifications"
    )
    wait_until(lambda: emitted(settings) == counted, 60, "window counts")


def mismatched(settings: Settings) -> int:
    """How many events have the notification of another event."""
    return count(
        settings,
        "SELECT count(*) FROM notifications AS n"
        " JOIN events AS e USING (origin_topic, origin_partition, origin_offset)"
        " WHERE n.event_id <> e.id",
    )


def notified(settings: Settings, topic: str) -> int:
    """How many events of that topic have their own notification."""
    with psycopg.connect(settings.database) as connection:
        row = connection.execute(
            "SELECT count(*) FROM notifications AS n"
            " JOIN events AS e USING (origin_topic, origin_partition, origin_offset)"
            " WHERE n.event_id = e.id AND origin_topic = %s",
            [topic],
        ).fetchone()
    assert row is not None
    return int(row[0])


def old_and_new(settings: Settings, topic: str, before: str) -> dict[str, dict[str, int]]:
    """As `rows_by_topic`, and the dead letters by the topic of what failed."""
    with psycopg.connect(settings.database) as connection:
        letters = dict(
            connection.execute(
                "SELECT source_topic, count(*) FROM dead_letters GROUP BY 1"
            ).fetchall()
        )
    names = {topic: "new", f"{topic}@{before}": "old"}
    found = {**rows_by_topic(settings), "letters": letters}
    return {
        kind: {names.get(name, name): rows for name, rows in each.items()}
        for kind, each in found.items()
    }


def wait_for_old_and_new(
    settings: Settings, topic: str, before: str, expected: dict[str, dict[str, int]]
) -> None:
    try:
        wait_until(lambda: old_and_new(settings, topic, before) == expected, 60)
    except AssertionError:
        assert old_and_new(settings, topic, before) == expected


@pytest.mark.chaos
@pytest.mark.parametrize("loaded_before", ["nothing", "everything"])
def test_what_was_derived_from_a_recreated_topic_is_never_taken_for_that_of_the_new_one(
    loaded_before: str,
    stack_settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loader was down, and by time nobody knows where in the derived topics the old records end:
    acceptance may load too little or too much of them."""
    if loaded_before == "nothing":
        monkeypatch.setattr(Acceptance, "_load_derived", lambda *_: None)
    else:
        monkeypatch.setattr(Acceptance, "_first_append_time", lambda *_: None)
    topic = f"{stack_settings.prefix}user-events"
    before = topic_id(stack_settings)
    produce_to_first(stack_settings, events(10)[0])
    with workers(stack_settings, folder(tmp_path, "first")):
        wait_for_rows(stack_settings, {topic: 10})
    produce_to_first(stack_settings, [*events(30, seed=2)[0], b"{"])
    with workers(stack_settings, folder(tmp_path, "second"), ["validator", "analytics"]) as running:
        written(stack_settings, 40, 40)
        assert [each.stop() for each in running.values()] == [0, 0]
    recreate(stack_settings, forgotten=True)
    produce_to_first(stack_settings, [*events(50, seed=3)[0], b"{"])
    with workers(stack_settings, folder(tmp_path, "third"), ["validator", "analytics"]) as running:
        written(stack_settings, 90, 90)
        assert [each.stop() for each in running.values()] == [0, 0]
    streams = load_streams(stack_settings)
    with pytest.raises(OffsetsReused, match="--accept-recreated"):
        drain(stack_settings, streams, [streams[0].notifications_topic], patience=0.1)
    acceptance = Acceptance(stack_settings, streams, topic)
    acceptance.apply(acceptance.look())
    with workers(stack_settings, folder(tmp_path, "fourth")):
        wait_for_old_and_new(
            stack_settings,
            topic,
            before,
            {
                "events": {"old": 10, "new": 50},
                "notifications": {"old": 40, "new": 50},
                "counted": {"old": 40, "new": 50},
                "letters": {"old": 1, "new": 1},
            },
        )
        assert mismatched(stack_settings) == 0
        assert notified(stack_settings, topic) == 50
        assert count(stack_settings, "SELECT count(*) FROM duplicates") == 0
        assert_closed_once_acknowledged(stack_settings)


def assert_closed_once_acknowledged(settings: Settings) -> None:
    done = streamflow(settings, "audit")
    assert done.returncode == 1, done.stdout
    assert "the topic was recreated" in " ".join(done.stdout.split())
    acknowledged = streamflow(settings, "audit", "--acknowledge")
    done = streamflow(settings, "audit")
    assert done.returncode == 0, f"{acknowledged.stdout}\n{done.stdout}"


@pytest.mark.slow
def test_what_was_derived_from_a_topic_before_the_loader_first_ran(
    stack_settings: Settings, tmp_path: Path
) -> None:
    """It knows of no other topic than the one that is there now."""
    topic = f"{stack_settings.prefix}user-events"
    before = topic_id(stack_settings)
    produce_to_first(stack_settings, [*events(30, seed=2)[0], b"{"])
    with workers(stack_settings, folder(tmp_path, "first"), ["validator", "analytics"]) as running:
        written(stack_settings, 30, 30)
        assert [each.stop() for each in running.values()] == [0, 0]
    recreate(stack_settings, forgotten=True)
    produce_to_first(stack_settings, [*events(50, seed=3)[0], b"{"])
    with workers(stack_settings, folder(tmp_path, "second")):
        wait_for_old_and_new(
            stack_settings,
            topic,
            before,
            {
                "events": {"new": 50},
                "notifications": {"old": 30, "new": 50},
                "counted": {"old": 30, "new": 50},
                "letters": {"old": 1, "new": 1},
            },
        )
        assert mismatched(stack_settings) == 0
        assert notified(stack_settings, topic) == 50
        assert count(stack_settings, "SELECT count(*) FROM duplicates") == 0
        done = streamflow(stack_settings, "audit")
        assert done.returncode == 0, done.stdout


def test_workers_wait_for_a_topic_that_was_deleted(
    stack_settings: Settings, tmp_path: Path
) -> None:
    topic = f"{stack_settings.prefix}user-events"
    produce_to_first(stack_settings, events(10)[0])
    with workers(stack_settings, tmp_path) as running:
        wait_for_rows(stack_settings, {topic: 10})
        delete(stack_settings)
        for worker in running.values():
            wait_until(
                lambda worker=worker: f"topic {topic} does not exist" in readiness(worker)[1],
                60,
                f"{worker.name} to say so",
            )
            assert "the loop turns" in worker.get("/health")
        assert all(worker.process.poll() is None for worker in running.values())


def log_directory(broker: BrokerService, topic: str) -> Path:
    return broker.broker.node.data / f"{topic}-0"


def with_rows_of_truncated(settings: Settings, topic: str) -> dict[str, dict[str, int]]:
    """As `rows_by_topic`, with what was set aside under the name "aside"."""
    return {
        kind: {name if name == topic else "aside": rows for name, rows in found.items()}
        for kind, found in rows_by_topic(settings).items()
    }


@pytest.mark.slow
@pytest.mark.timeout(420)  # the broker starts three times
@pytest.mark.parametrize(
    "running", [False, pytest.param(True, marks=pytest.mark.chaos)], ids=["stopped", "running"]
)
def test_a_truncated_log_is_noticed_and_accepted(
    running: bool,
    own_broker: BrokerService,
    settings: Callable[..., Settings],
    database_url: str,
    tmp_path: Path,
) -> None:
    """A broker that loses power loses what it had not flushed, and gives the offsets out again."""
    mine = settings(KAFKA_BOOTSTRAP_SERVERS=own_broker.bootstrap, DATABASE_URL=database_url)
    provision(mine, load_streams(mine))
    topic = f"{mine.prefix}user-events"
    with ExitStack() as stack:
        produce_to_first(mine, events(10)[0])
        own_broker.stop()
        shutil.copytree(log_directory(own_broker, topic), tmp_path / "copy")
        own_broker.start()
        found = stack.enter_context(workers(mine, folder(tmp_path, "first")))
        wait_for_rows(mine, {topic: 10})
        produce_to_first(mine, events(30, seed=2)[0])
        wait_for_rows(mine, {topic: 40})
        if not running:
            assert [found[name].stop() for name in WORKERS] == [0, 0, 0]
        own_broker.stop()
        shutil.rmtree(log_directory(own_broker, topic))
        shutil.copytree(tmp_path / "copy", log_directory(own_broker, topic))
        own_broker.start()
        produce_to_first(mine, events(50, seed=3)[0])
        assert topic_bounds(mine, "user-events")[topic, 0] == (0, 60)
        if not running:
            found = stack.enter_context(workers(mine, folder(tmp_path, "second")))
        for worker in found.values():
            wait_until(lambda worker=worker: worker.said('"offsets reused"'), 60, worker.name)
            assert worker.said("the broker has lost records of")
            assert worker.said("from offset 10 on")
            assert readiness(worker)[0] == 503
        assert rows_by_topic(mine)["events"] == {topic: 40}
        assert "partition 0 from 10 on" in accept(mine)
        expected = {topic: 60, "aside": 30}
        wait_until(
            lambda: all(each == expected for each in with_rows_of_truncated(mine, topic).values()),
            60,
            f"{expected}, not {with_rows_of_truncated(mine, topic)}",
        )
        assert count(mine, "SELECT count(*) FROM duplicates") == 0
    [gap] = gaps_of(mine, "loader")
    assert gap[1:] == (0, 40, 41, "truncated")
