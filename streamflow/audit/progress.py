"""How far the workers are, looked up in an order in which their output can be compared.

What a worker derives is in its topics before it commits its position. So the ends of these topics are
looked up after the position, and the loader's positions last of all.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka.admin import AdminClient

from streamflow.audit.report import Pending, PendingKind
from streamflow.flow import Partition
from streamflow.kafka import offsets
from streamflow.lag.measure import loader_positions, offsets_behind
from streamflow.postgres.connections import Connection
from streamflow.records import Position
from streamflow.settings import Settings
from streamflow.stream import Stream, reads
from streamflow.windows import Progress

_POLL: Final = 0.1  # seconds
# For analytics to notice that a partition is idle and emit its windows.
_IDLE_SLACK: Final = 5.0  # seconds
# A timestamp further ahead is no append time, or the broker's clock is wrong.
_AHEAD: Final = 60.0  # seconds

Bounds = dict[Partition, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Reached:
    """How far the workers are.

    Attributes:
        bounds: first and end offset of each partition of all topics.
        targets: offsets that must be loaded before derived rows can be compared.
        validated: next offset of the validator.
        progress: what analytics has committed, if it can be read.
        overdue: partitions whose open windows should have been emitted.
        loaded: next offset of the loader.
        beyond: end offsets of partitions that end before the loader's next offset.
        dead_letters_loaded: whether all dead letters of what was validated and loaded are loaded.
        notes: end offsets of the notifications before the validator's position was looked up.
        pending: what is not done yet.
    """

    bounds: Bounds
    targets: dict[Partition, int]
    validated: dict[Partition, int]
    progress: dict[Partition, Progress]
    overdue: set[Partition]
    loaded: dict[Partition, int]
    beyond: dict[Partition, int]
    dead_letters_loaded: bool
    notes: dict[Partition, int]
    pending: list[Pending] = field(default_factory=list)

    def has_loaded(self, topic: str) -> bool:
        """Whether a topic is loaded up to its targets."""
        return all(
            self.loaded.get(partition, 0) >= target
            for partition, target in self.targets.items()
            if partition[0] == topic
        )


def look_up(
    settings: Settings,
    connection: Connection,
    client: AdminClient,
    streams: Sequence[Stream],
    deadline: float,
) -> Reached:
    """Waits until the workers have read what the topics hold now, at most until `deadline`.

    Raises:
        Unavailable: broker or database does not answer.
    """
    sources = [stream.topic for stream in streams]
    everything = list(dict.fromkeys(topic for each in streams for topic in each.topic_names))
    derived = [topic for topic in everything if topic not in sources]
    bounds = _bounds(client, sources)
    notification_topics = [
        stream.notifications_topic for stream in streams if stream.notify is not None
    ]
    notes = {partition: end for partition, (_, end) in _bounds(client, notification_topics).items()}

    validator = _of(bounds, reads("validator", streams))
    with closing(offsets.GroupOffsets(settings, settings.group("validator"))) as group:
        _wait_until(
            deadline, lambda: not _behind("validator", _next(group.read(validator)), validator)
        )
        validated = _next(group.read(validator))
    pending = _behind("validator", validated, validator)

    analytics = _Analytics(client, streams, _of(bounds, reads("analytics", streams)))
    with closing(offsets.GroupOffsets(settings, settings.group("analytics"))) as group:
        _wait_until(deadline, lambda: analytics.is_done(group.read(analytics.bounds)))
    pending += analytics.pending

    more = _bounds(client, derived)
    bounds |= more
    produced = offsets.high_watermarks(client, list(more))
    targets = {
        partition: (
            first,
            max(
                end,
                validated.get(partition, 0),
                analytics.position(partition),
                produced.get(partition, 0),
            ),
        )
        for partition, (first, end) in bounds.items()
    }
    positions = _loaded(connection, settings, targets, deadline)
    behind = _behind("loader", positions, targets)
    ends = offsets.high_watermarks(client, list(bounds))
    beyond = {each: end for each, end in ends.items() if positions.get(each, 0) > end}
    # Dead letters of rows that the loader refused on the way are behind the ends looked up before.
    dead_letters = _bounds(client, {stream.dead_letter_topic for stream in streams})
    produced = offsets.high_watermarks(client, list(dead_letters))
    dead_letters = {
        partition: (first, produced[partition]) for partition, (first, _) in dead_letters.items()
    }
    loaded_letters = _loaded(connection, settings, dead_letters, deadline)
    dead_letters_behind = _behind("loader", loaded_letters, dead_letters)
    return Reached(
        bounds=bounds,
        targets={partition: end for partition, (_, end) in targets.items()},
        validated=validated,
        progress=analytics.progress,
        overdue=analytics.overdue,
        loaded=positions,
        beyond=beyond,
        dead_letters_loaded=not dead_letters_behind,
        notes=notes,
        pending=pending + (behind or dead_letters_behind),
    )


class _Analytics:
    """What analytics has committed, and whether it has emitted all windows that are due.

    Args:
        client: for the last append time of partitions.
        streams: those without windows are ignored.
        bounds: of the partitions that analytics reads.
    """

    def __init__(self, client: AdminClient, streams: Sequence[Stream], bounds: Bounds) -> None:
        self.bounds = bounds
        self.progress: dict[Partition, Progress] = {}
        self.overdue: set[Partition] = set()
        self.pending: list[Pending] = []
        self._client = client
        self._idle = {
            stream.topic: stream.windows.idle.total_seconds() + _IDLE_SLACK
            for stream in streams
            if stream.windows is not None
        }

    def position(self, partition: Partition) -> int:
        """The next offset that it reads."""
        progress = self.progress.get(partition)
        return 0 if progress is None else progress.position

    def is_done(self, committed: Mapping[Partition, Position]) -> bool:
        """Updates the state from the committed offsets; returns whether nothing is left to do."""
        read = {
            partition: Progress.parse(each.offset, each.metadata)
            for partition, each in committed.items()
        }
        self.progress = {partition: each for partition, each in read.items() if each is not None}
        unreadable = tuple(sorted(partition for partition, each in read.items() if each is None))
        positions = {
            partition: committed[partition].offset if each is None else each.position
            for partition, each in read.items()
        }
        self.pending = _behind("analytics", positions, self.bounds)
        if unreadable:
            kind = PendingKind.UNREADABLE_POSITION
            self.pending.append(
                Pending(kind=kind, worker="analytics", records=0, partitions=unreadable)
            )
        opened = [
            partition for partition, each in self.progress.items() if each.resume < each.position
        ]
        appended = offsets.last_appended(self._client, opened)
        now = time.time()
        self.overdue = {
            partition
            for partition in opened
            if not -_AHEAD <= now - appended.get(partition, 0) / 1000 <= self._idle[partition[0]]
        }
        return not self.pending and not self.overdue


def _bounds(client: AdminClient, topics: Sequence[str] | set[str]) -> Bounds:
    return offsets.bounds(client, offsets.partitions_of(client, topics))


def _of(bounds: Bounds, topics: Sequence[str]) -> Bounds:
    return {partition: ends for partition, ends in bounds.items() if partition[0] in topics}


def _next(positions: Mapping[Partition, Position]) -> dict[Partition, int]:
    return {partition: position.offset for partition, position in positions.items()}


def _loaded(
    connection: Connection, settings: Settings, targets: Bounds, deadline: float
) -> dict[Partition, int]:
    """The loader's positions, once it has reached the targets or the deadline has passed."""

    def read() -> dict[Partition, int]:
        return loader_positions(connection, settings.group("loader"))

    _wait_until(deadline, lambda: not _behind("loader", read(), targets))
    return read()


def _behind(worker: str, positions: Mapping[Partition, int], bounds: Bounds) -> list[Pending]:
    """What a worker has not read yet. An empty partition needs no position."""
    late = {
        partition: positions.get(partition)
        for partition, (_, end) in sorted(bounds.items())
        if positions.get(partition, 0) < end
    }

    def pending(kind: PendingKind, partitions: Iterator[Partition]) -> list[Pending]:
        found = tuple(partitions)
        records = sum(offsets_behind(late[partition], bounds[partition]) for partition in found)
        return [Pending(kind=kind, worker=worker, records=records, partitions=found)] * bool(found)

    return pending(
        PendingKind.NO_POSITION, (each for each, at in late.items() if at is None)
    ) + pending(PendingKind.BEHIND, (each for each, at in late.items() if at is not None))


def _wait_until(deadline: float, condition: Callable[[], bool]) -> None:
    while not condition() and time.monotonic() < deadline:
        time.sleep(_POLL)
