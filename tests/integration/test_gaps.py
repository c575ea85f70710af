"""Records that are gone before they were read, and topics that are not what they were: noticed, told
once with range and cause, kept, and passed."""

from contextlib import closing
from pathlib import Path

import orjson
import psycopg
import pytest
from confluent_kafka import TopicPartition

from faults import stalled, wait_until
from pipeline import (
    WorkerProcess,
    count,
    events,
    produce,
    stored_values,
    topic_bounds,
    workers,
)
from streamflow.kafka import clients, offsets
from streamflow.postgres.connections import session
from streamflow.postgres.gaps import import_gaps
from streamflow.records import Gap
from streamflow.registry import load_streams
from streamflow.settings import Settings
from streaming_workers.drain import drain

pytestmark = pytest.mark.integration

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


def folder(parent: Path, name: str) -> Path:
    made = parent / name
    made.mkdir()
    return made


def told(worker: WorkerProcess) -> int:
    return worker.log.read_text().count('"event": "records lost"')


@pytest.mark.parametrize("partitions", [ONE, ALL], ids=["one partition", "all partitions"])
@pytest.mark.parametrize("name", WORKERS)
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
