"""What loses records, so that oracle and audit both have to say so: faults after which nothing is as
before, and losses that are planted in what was exact, and taken back.
"""

import contextlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import NewPartitions, NewTopic
from nemesis import Fault, pause, stopped
from oracle import Sender
from rig import TOPIC, Rig

from faults import wait_until


def _add_partition(rig: Rig, _chance: random.Random, _sender: Sender) -> None:
    wanted = len(rig.ends()) + 1
    rig.admin.create_partitions([NewPartitions(TOPIC, wanted)])[TOPIC].result(30)
    pause(6)  # the sender asks every five seconds


def _remove_records(rig: Rig, _chance: random.Random, _sender: Sender) -> None:
    """Retention is faster than the loader."""
    with stopped([rig.pid("loader")]):
        pause(5)
        wanted = [TopicPartition(*each, end) for each, end in rig.ends().items()]
        for future in rig.admin.delete_records(wanted).values():
            with contextlib.suppress(KafkaException):
                future.result(30)


def _recreate_topic(rig: Rig, _chance: random.Random, _sender: Sender) -> None:
    """Deleted and recreated under load, while the loader stands still; then accepted by a user."""
    partitions = len(rig.ends())
    with stopped([rig.pid("loader")]):
        pause(3)
        rig.admin.delete_topics([TOPIC])[TOPIC].result(30)
        wait_until(lambda: _created(rig, partitions), 60, "the topic to be recreated")
        pause(6)
    done = rig.folder.run("topics", "--accept-recreated", TOPIC, "--yes", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def _created(rig: Rig, partitions: int) -> bool:
    try:
        rig.admin.create_topics([NewTopic(TOPIC, partitions, 1)])[TOPIC].result(30)
    except KafkaException:  # it is still being deleted
        return False
    return True


def _move_position(rig: Rig, _chance: random.Random, _sender: Sender) -> None:
    """What a faulty loader would do: it passes records that it has not stored."""

    def moved() -> bool:
        with stopped([rig.pid("loader")]), rig.connect() as connection:
            pause(5)
            connection.execute("SET lock_timeout = '1s'")
            try:
                with connection.transaction():
                    for (topic, partition), end in rig.ends().items():
                        connection.execute(
                            "UPDATE loader_positions SET next_offset = %s"
                            " WHERE group_name = %s AND topic = %s AND partition = %s",
                            [end, rig.settings.group("loader"), topic, partition],
                        )
            except psycopg.errors.LockNotAvailable:  # it was stopped in a transaction
                return False
        return True

    wait_until(moved, 120, "a loader that is in no transaction")


# At the end, in this order.
LAST: Final[dict[str, Fault]] = {
    "partition added": _add_partition,
    "records removed": _remove_records,
    "topic recreated": _recreate_topic,
    "position moved on": _move_position,
}
# Of which records are lost, and the kind of problem that the audit has to name.
LOSING: Final = {
    "records removed": "gap_retention",
    "topic recreated": "gap_recreated",
    "position moved on": "missing",
}

# A table, what tells its rows apart, which of them, and whether one goes or is there twice.
_EVENT: Final = "origin_topic, origin_partition, origin_offset"
PLANTED: Final = {
    "an event is gone": ("events", _EVENT, "id % 50 <> 0", True),
    "a notification is gone": ("notifications", _EVENT, "true", True),
    "a dead letter is gone": (
        "dead_letters", "source_topic, source_partition, source_offset", "true", True,
    ),
    "a window's count is gone": (
        "window_counts", "origin_topic, partition, first_offset", "true", True,
    ),
    "an event is stored twice": ("events", _EVENT, "true", False),
}  # fmt: skip


@contextmanager
def planted(connection: "psycopg.Connection[Any]", what: str) -> Iterator[None]:
    """Inside, one of the last rows is gone, or there twice; afterwards all is as it was."""
    table, identity, which, gone = PLANTED[what]
    one = f"DELETE FROM {table} WHERE ({identity}) IN (SELECT {identity} FROM kept)"
    again = f"INSERT INTO {table} SELECT * FROM kept"
    connection.execute(
        f"CREATE TEMPORARY TABLE kept AS SELECT * FROM {table} WHERE {which}"
        " ORDER BY loaded_at DESC LIMIT 1"
    )
    if not gone:
        connection.execute("UPDATE kept SET origin_offset = origin_offset + 1000000000")
    changed = connection.execute(one if gone else again)
    assert changed.rowcount == 1
    try:
        yield
    finally:
        connection.execute(again if gone else one)
