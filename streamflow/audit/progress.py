"""How far the workers are, looked up in an order in which their output can be compared.

What a worker derives is in its topics before it commits its position. So the ends of these topics are
looked up after the position, and the loader's positions last of all.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from confluent_kafka.admin import AdminClient

from streamflow.audit.due import DueWindows
from streamflow.audit.report import Pending, PendingKind
from streamflow.flow import Partition
from streamflow.kafka import offsets
from streamflow.lag.measure import loader_positions, offsets_behind
from streamflow.postgres.connections import Connection
from streamflow.records import Position
from streamflow.settings import Settings
from streamflow.stream import Stream, reads
from streamflow.windows.partition import progress_of
from streamflow.windows.plans import Plan, plans_of
from streamflow.windows.progress import Progress

T = TypeVar("T")

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
        progress: of analytics, where its committed metadata can be read.
        overdue: partitions whose open windows should have been emitted.
        loaded: next offset of the loader.
        beyond: end offsets of partitions that end before the loader's next offset.
        dead_letters_behind: dead-letter topics that are not loaded as far as validator and loader have
            written to them.
        notes: end offsets of the notifications before the validator's position was looked up.
    """

    bounds: Bounds
    targets: dict[Partition, int]
    validated: Mapping[Partition, int]
    progress: dict[Partition, Progress]
    overdue: set[Partition]
    loaded: Mapping[Partition, int]
    beyond: dict[Partition, int]
    dead_letters_behind: Collection[str]
    notes: dict[Partition, int]
    pending: list[Pending] = field(default_factory=list)

    def has_loaded(self, source: Partition, through: int, derived: str) -> bool:
        """Whether a source partition is loaded up to an offset, and a derived topic up to its targets."""
        return self.loaded.get(source, 0) >= through and all(
            self.loaded.get(partition, 0) >= target
            for partition, target in self.targets.items()
            if partition[0] == derived
        )


def look_up(
    settings: Settings,
    connection: Connection,
    client: AdminClient,
    streams: Sequence[Stream],
    deadline: float,
) -> Reached:
    """Waits until the workers have read what the topics hold now, at most until `deadline`."""
    sources = reads("validator", streams)
    bounds = _bounds(client, sources)
    notification_topics = [
        stream.notifications_topic for stream in streams if stream.notify is not None
    ]
    notes = {partition: end for partition, (_, end) in _bounds(client, notification_topics).items()}

    with closing(offsets.GroupOffsets(settings, settings.group("validator"))) as group:
        validated, pending = _catch_up(
            "validator", lambda: _next(group.read(bounds)), bounds, deadline
        )

    idle = {
        stream.topic: max(each.idle.total_seconds() for each in stream.counted) + _IDLE_SLACK
        for stream in streams
        if stream.counted
    }
    plans = {stream.topic: plans_of(stream) for stream in streams if stream.counted}
    windowed = {partition: ends for partition, ends in bounds.items() if partition[0] in idle}
    by_topic = {stream.topic: stream for stream in streams}
    in_time = 1000 * (time.time() + deadline - time.monotonic())
    due = DueWindows(connection, by_topic, plans, in_time)
    with closing(offsets.GroupOffsets(settings, settings.group("analytics"))) as group:
        analytics = _wait_for(
            lambda: _analytics(client, group.read(windowed), windowed, idle, plans),
            lambda state: (
                not state.pending
                and not any(
                    due.ends_in_time(partition, state.progress[partition])
                    for partition in state.overdue
                )
            ),
            deadline,
        )
    pending += analytics.pending

    derived = _bounds(client, [topic for topic in reads("loader", streams) if topic not in sources])
    bounds |= derived
    produced = offsets.high_watermarks(client, list(derived))
    counted = {partition: progress.position for partition, progress in analytics.progress.items()}
    targets = {
        partition: (
            first,
            max(end, *(at.get(partition, 0) for at in (validated, counted, produced))),
        )
        for partition, (first, end) in bounds.items()
    }

    def loaded() -> Mapping[Partition, int]:
        return loader_positions(connection, settings.group("loader"))

    positions, behind = _catch_up("loader", loaded, targets, deadline)
    ends = offsets.high_watermarks(client, list(bounds))
    beyond = {
        partition: end for partition, end in ends.items() if positions.get(partition, 0) > end
    }
    # Dead letters of rows that the loader has refused meanwhile are past the ends looked up before.
    dead_letters = _bounds(client, {stream.dead_letter_topic for stream in streams})
    produced = offsets.high_watermarks(client, list(dead_letters))
    dead_letters = {
        partition: (first, produced[partition]) for partition, (first, _) in dead_letters.items()
    }
    _, dead_letters_behind = _catch_up("loader", loaded, dead_letters, deadline)
    known = {partition for pending in behind for partition in pending.behind}
    pending += behind
    for late in dead_letters_behind:
        pending += late.among(lambda partition: partition not in known)
    return Reached(
        bounds=bounds,
        targets={partition: end for partition, (_, end) in targets.items()},
        validated=validated,
        progress=analytics.progress,
        overdue=analytics.overdue,
        loaded=positions,
        beyond=beyond,
        dead_letters_behind={topic for late in dead_letters_behind for topic, _ in late.behind},
        notes=notes,
        pending=pending,
    )


class _Analytics(NamedTuple):
    """What analytics has committed, and what it has yet to read or to emit."""

    progress: dict[Partition, Progress]
    pending: list[Pending]
    overdue: set[Partition]


def _analytics(
    client: AdminClient,
    committed: Mapping[Partition, Position],
    bounds: Bounds,
    idle: Mapping[str, float],
    plans: Mapping[str, Sequence[Plan]],
) -> _Analytics:
    """`idle`: seconds after the last record of a partition of a topic, by which its windows are due;
    `plans`: of its windows."""
    parsed = {
        partition: Progress.parse(position.offset, position.metadata)
        for partition, position in committed.items()
    }
    known = {partition: progress for partition, progress in parsed.items() if progress is not None}
    positions = _next(committed)
    positions |= {partition: progress.position for partition, progress in known.items()}
    pending = _behind("analytics", positions, bounds)
    unreadable = dict.fromkeys(sorted(parsed.keys() - known.keys()), 0)
    if unreadable:
        kind = PendingKind.UNREADABLE_POSITION
        pending.append(Pending(kind=kind, worker="analytics", behind=unreadable))
    pending += _not_begun(known, plans)
    opened = [
        partition for partition, progress in known.items() if progress.resume < progress.position
    ]
    appended = offsets.last_appended(client, opened)
    now = time.time()
    overdue = {
        partition
        for partition in opened
        if not -_AHEAD <= now - appended.get(partition, 0) / 1000 <= idle[partition[0]]
    }
    return _Analytics(known, pending, overdue)


def _not_begun(
    progress: Mapping[Partition, Progress], plans: Mapping[str, Sequence[Plan]]
) -> list[Pending]:
    """Windows that are declared, and that analytics, of an older release, does not count yet."""
    missing: dict[str, dict[Partition, int]] = {}
    for partition, reached in sorted(progress.items()):
        for plan in plans[partition[0]]:
            if progress_of(reached, plan) is None:
                missing.setdefault(plan.name, {})[partition] = 0
    return [
        Pending(kind=PendingKind.NOT_BEGUN, worker="analytics", behind=behind, windows=(name,))
        for name, behind in missing.items()
    ]


def _bounds(client: AdminClient, topics: Iterable[str]) -> Bounds:
    return offsets.bounds(client, offsets.partitions_of(client, topics))


def _next(positions: Mapping[Partition, Position]) -> dict[Partition, int]:
    return {partition: position.offset for partition, position in positions.items()}


def _wait_for(read: Callable[[], T], is_done: Callable[[T], bool], deadline: float) -> T:
    """What was read last: it is done, or the deadline has passed."""
    while not is_done(state := read()) and time.monotonic() < deadline:
        time.sleep(_POLL)
    return state


def _catch_up(
    worker: str, read: Callable[[], Mapping[Partition, int]], bounds: Bounds, deadline: float
) -> tuple[Mapping[Partition, int], list[Pending]]:
    """Waits for a worker; returns its positions, and what it has not read yet."""
    positions = _wait_for(read, lambda positions: not _behind(worker, positions, bounds), deadline)
    return positions, _behind(worker, positions, bounds)


def _behind(worker: str, positions: Mapping[Partition, int], bounds: Bounds) -> list[Pending]:
    """What a worker has not read yet. An empty partition needs no position."""
    late = [
        partition
        for partition, (_, end) in sorted(bounds.items())
        if positions.get(partition, 0) < end
    ]
    pending = []
    for kind in (PendingKind.NO_POSITION, PendingKind.BEHIND):
        known = kind is PendingKind.BEHIND
        behind = {
            partition: offsets_behind(positions.get(partition), bounds[partition])
            for partition in late
            if (partition in positions) == known
        }
        if behind:
            pending.append(Pending(kind=kind, worker=worker, behind=behind))
    return pending
