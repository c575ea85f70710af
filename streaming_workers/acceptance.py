"""Accepting a topic that was recreated, or whose log was truncated, as a user has decided.

The workers have stopped by themselves and left their groups; they resume when this is done. It can be
killed at any moment and repeated.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Final, NamedTuple

import tenacity
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from streamflow.audit import recreated
from streamflow.audit.recreated import Reuse
from streamflow.calls import call
from streamflow.errors import Fenced, Unavailable, UsageError
from streamflow.flow import Partition
from streamflow.kafka import clients, continuity, kept_positions, offsets
from streamflow.kafka.offsets import member_counts
from streamflow.kafka.producing import produce_and_flush
from streamflow.kafka.reader import Scanner
from streamflow.kafka.topic_ids import topic_ids
from streamflow.postgres.connections import WHOLE_TABLES_TIMEOUT, Connection, session
from streamflow.postgres.gaps import import_gaps
from streamflow.postgres.signing_key import SigningKey
from streamflow.postgres.sink import positions
from streamflow.records import Log, Position, set_aside_name
from streamflow.settings import Settings
from streamflow.stream import Stream, reads
from streamflow.units import counted
from streamflow.windows.progress import Progress
from streaming_workers.drain import drain

_LEAVE: Final = 30.0  # seconds that workers may take to notice, and to leave their group
_POLL: Final = 0.5  # seconds

Positions = Mapping[Partition, Position]


class ReuseFinding(NamedTuple):
    reuse: Reuse | None  # offsets whose old rows are to be set aside; None where there are none
    rows: Mapping[str, int]  # how many, by table
    read_to: Mapping[str, Mapping[Partition, int]]  # how far each group had read, if known


class Acceptance:
    """Finds what there is to accept of a topic, by its name on the broker, and accepts it. Raises
    UsageError if none of the streams has that topic."""

    def __init__(self, settings: Settings, streams: Sequence[Stream], topic: str) -> None:
        if not any(topic in stream.topic_names for stream in streams):
            raise UsageError(f"no stream has a topic {topic}: see `streamflow topics`")
        self._settings, self._streams, self._topic = settings, streams, topic
        self._admin: AdminClient = clients.admin(settings)
        self._loaders = settings.group("loader")
        self._sources = [stream for stream in streams if stream.topic == topic]
        self._readers = [
            settings.group(name)
            for name in ("validator", "analytics")
            if topic in reads(name, streams)
        ]
        self._derived = sorted({name for one in self._sources for name in one.topic_names[1:]})

    def look(self) -> ReuseFinding:
        """Raises Unavailable if broker or database does not answer, or the topic does not exist."""
        topic_id, partitions = self._current()
        with self._session() as connection:
            before = recreated.kept_ids(connection, self._loaders, self._topic) - {topic_id}
            loaded = positions.read(connection, self._loaders, partitions)
            read = {
                group: offsets.committed(self._settings, group, partitions)
                for group in self._readers
            }
            read[self._loaders] = {
                partition: position for partition, position in loaded.items() if position
            }
            reuse: Reuse | None = None
            if before:
                since = {partition: 0 for _, partition in partitions}
                aside = set_aside_name(self._topic, *before)
                reuse = Reuse(self._topic, aside, topic_id, "recreated", since, min(before))
            elif since := self._truncated(read, topic_id):
                aside = f"{self._topic}@{topic_id}~{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
                reuse = Reuse(self._topic, aside, topic_id, "truncated", since)
            rows = recreated.affected_rows(connection, self._streams, reuse) if reuse else {}
        read_to = {
            group: {
                partition: offsets.read_position(position)
                for partition, position in committed.items()
            }
            for group, committed in read.items()
        }
        return ReuseFinding(reuse, rows, read_to)

    def _session(self) -> AbstractContextManager[Connection]:
        return session(self._settings, "recreated", statement_timeout=WHOLE_TABLES_TIMEOUT)

    def _current(self) -> tuple[str, list[Partition]]:
        topic_id = topic_ids(self._admin, [self._topic])[self._topic]
        return topic_id, offsets.partitions_of(self._admin, [self._topic])

    def _truncated(self, read: Mapping[str, Positions], topic_id: str) -> dict[int, int]:
        """By partition, where a log was truncated before the position of a group."""
        since: dict[int, int] = {}
        for group, committed in read.items():
            kept = [one for one in committed.values() if one.log.topic_id in ("", topic_id)]
            ends = continuity.ends_of_truncated(self._settings, group, kept)
            for (_, partition), end in ends.items():
                since[partition] = min(end, since.get(partition, end))
        return since

    def apply(self, finding: ReuseFinding) -> None:
        """Sets the old rows aside and moves all groups to where the new records begin.

        1. wait until the workers have left their groups;
        2. load what validator and analytics had derived from the old records;
        3. in one database transaction: rename the old rows, keep what was never read as gaps, move
           the loader's positions, and before it commits, the offsets of validator and analytics;
        4. move the loader's offsets in Kafka, for displays, which also wakes the waiting loaders.

        Raises:
            Unavailable: broker or database does not answer, or a group still has members.
        """
        reuse = finding.reuse
        topic_id, partitions = self._current()
        self._wait_until_empty(self._loaders, lambda: True)
        moves: dict[str, list[TopicPartition]] = {}
        for group in self._readers:
            find_moves = partial(self._moves, group, partitions, reuse, topic_id)
            # A worker that was started since begins by itself, and commits that in time.
            self._wait_until_empty(group, find_moves)
            moves[group] = find_moves()
        if reuse is not None:
            self._load_derived(reuse)
            with self._session() as connection, connection.transaction():
                import_gaps(connection, self._settings, self._streams)
                for stream in self._sources if reuse.cause == "recreated" else ():
                    recreated.keep_underived(connection, stream, reuse, *self._readers)
                recreated.set_aside(
                    connection, self._streams, reuse, self._loaders, finding.read_to
                )
                self._commit(moves)
        else:
            self._commit(moves)
        with self._session() as connection:
            loaded = positions.read(connection, self._loaders, partitions)
        starts = [
            offsets.as_committed(position or Position(*partition, 0), Log(topic_id))
            for partition, position in loaded.items()
        ]
        # A loader that has resumed since commits its own.
        with suppress(Fenced):
            self._commit({self._loaders: starts})

    def _moves(
        self, group: str, partitions: Sequence[Partition], reuse: Reuse | None, topic_id: str
    ) -> list[TopicPartition]:
        """What to commit for a group that has no database."""
        committed = offsets.committed(self._settings, group, partitions)
        if not committed or any(
            position.log.topic_id not in ("", topic_id) for position in committed.values()
        ):
            return [
                offsets.as_committed(Position(*partition, 0), Log(topic_id))
                for partition in partitions
            ]
        if reuse is None or reuse.cause == "recreated":
            # It began by itself: Kafka deletes a group's offsets with the topic.
            return []
        return [
            _stepped_back(position, reuse.since[partition])
            for (_, partition), position in committed.items()
            if partition in reuse.since and offsets.read_position(position) > reuse.since[partition]
        ]

    def _wait_until_empty(self, group: str, needed: Callable[[], object]) -> None:
        """Waits until a group has no members, while that is needed."""
        deadline = time.monotonic() + _LEAVE
        while (members := member_counts(self._admin, [group]).get(group, 0)) and needed():
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"group {group} still has {counted(members, 'member')}, so its offsets cannot "
                    "be moved: stop "
                    "the workers, then run this again"
                )
            time.sleep(_POLL)

    def _load_derived(self, reuse: Reuse) -> None:
        """Loads what the workers have derived from the old records, which shows how many they were:
        everything in the derived topics that was appended before the first new record.

        If that time is unknown, the id of the source topic in a derived record still says which one it
        was derived from. That of a truncated topic has not changed: there, and in records of older
        releases, the time alone decides.
        """
        if not self._derived:
            return
        partitions = offsets.partitions_of(self._admin, self._derived)
        until = self._first_append_time(reuse)
        with closing(clients.assigned_consumer(self._settings, self._loaders)) as consumer:
            ends = {} if until is None else _offsets_at(consumer, partitions, until)
        accepting = {reuse.topic: reuse.topic_id_before or reuse.topic_id}
        drain(self._settings, self._streams, self._derived, ends=ends, accepting=accepting)

    def _first_append_time(self, reuse: Reuse) -> int | None:
        """When the broker appended the first new record, in milliseconds; None without any, and where
        only their producers' clocks are known."""
        logs = {(reuse.topic, partition): since for partition, since in reuse.since.items()}
        stamps: list[int] = []
        with closing(Scanner(self._settings)) as scanner:
            for partition, (first, end) in offsets.bounds(self._admin, list(logs)).items():
                record = next(scanner.records(partition, max(first, logs[partition]), end), None)
                if record is not None and record.timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME:
                    stamps.append(record.timestamp()[1])
        return min(stamps, default=None)

    def _commit(self, moves: Mapping[str, list[TopicPartition]]) -> None:
        for group, moved in moves.items():
            if moved:
                self._forget(group, moved)
                self._move(group, moved)

    # A worker that waits for the user tries again every 15 s: for a moment it is a member, and only the
    # offsets of an empty group can be moved.
    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(Fenced),
        wait=tenacity.wait_fixed(_POLL),
        stop=tenacity.stop_after_delay(_LEAVE / 3),
        reraise=True,
    )
    def _move(self, group: str, moved: list[TopicPartition]) -> None:
        with (
            closing(clients.assigned_consumer(self._settings, group)) as consumer,
            clients.kafka_errors(),
            call("consumer.commit", _LEAVE),
        ):
            for committed in consumer.commit(offsets=moved, asynchronous=False) or ():
                if committed.error is not None:
                    raise Unavailable(
                        f"group {group}: its offset cannot be moved "
                        f"({committed.error.str()}): run this again"
                    )

    def _forget(self, group: str, moved: Sequence[TopicPartition]) -> None:
        """First: what is kept would hold instead of an offset that steps back."""
        sign = SigningKey(self._settings).signer().sign
        records = [
            kept_positions.forgetting(self._settings, group, offsets.partition_of(one))
            for one in moved
        ]
        produce_and_flush(clients.producer(self._settings), list(map(sign, records)))


def _stepped_back(position: Position, since: int) -> TopicPartition:
    """A position before the truncated part: open windows keep what they have counted."""
    progress = Progress.parse(position.offset, position.metadata)
    resume = min(position.offset, since)
    text = ""
    if progress is not None:
        text = progress._replace(resume=resume, position=since).metadata()
    moved = Position(position.topic, position.partition, resume, text)
    return offsets.as_committed(moved, Log(position.log.topic_id))


def _offsets_at(
    consumer: Consumer, partitions: Sequence[Partition], milliseconds: int
) -> dict[Partition, int]:
    with clients.kafka_errors():
        answers = consumer.offsets_for_times(
            [TopicPartition(*partition, milliseconds) for partition in partitions], timeout=10
        )
    # Without a later record: the end, which a drain goes to anyway.
    return {(one.topic, one.partition): one.offset for one in answers if one.offset >= 0}
