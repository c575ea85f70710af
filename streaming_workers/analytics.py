"""Analytics: events counted and aggregated in windows, each exactly once (G4)."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import orjson
import structlog
from confluent_kafka import OFFSET_BEGINNING

from streamflow.errors import ErrorCode
from streamflow.flow import Batch, Output, Partition
from streamflow.formats.documents import Ignored
from streamflow.records import (
    ORIGIN_HEADER,
    Headers,
    Origin,
    OutRecord,
    Position,
    Record,
    Rejection,
    topic_id_header,
)
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.tombstones import Deletion
from streamflow.windows.counting import WindowResult
from streamflow.windows.partition import PartitionWindows, progress_of
from streamflow.windows.plans import plans_of
from streamflow.windows.progress import Progress
from streamflow.windows.results import key_and_body
from streaming_workers.reporting import topic_asset

# Events whose values are kept before they are aggregated together: of more that takes memory, and as long.
_AT_ONCE: Final = 10_000
_NO_EVENT: Final = frozenset((Rejection, Ignored, Deletion))

log = structlog.get_logger()


class Analytics:
    """Counts the events of all streams that declare windows."""

    name = "analytics"
    sources: Sequence[str] = ()
    batch_size = 50_000
    # A larger batch makes fewer corrections out of a file of old events; a window of ten
    # seconds may be some milliseconds late.
    linger = 0.2
    # A batch of small events, and some more.
    prefetch_kb = 16_384

    def __init__(
        self,
        settings: Settings,
        streams: Sequence[Stream],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self.group = settings.group(self.name)
        self._streams = {stream.topic: stream for stream in streams if stream.counted}
        self._plans = {topic: plans_of(stream) for topic, stream in self._streams.items()}
        self._with_times = {
            topic for topic, plans in self._plans.items() if any(plan.takes_times for plan in plans)
        }
        self.topics = list(self._streams)
        self.assets: Mapping[str, str] = {
            stream.analytics_topic: topic_asset(stream.analytics_topic, settings.prefix)
            for stream in self._streams.values()
        }
        # The tables of windows that have rows, as far as the database has said so.
        self.windows_with_parts: AbstractSet[str] = frozenset()
        self._windows: dict[Partition, PartitionWindows] = {}
        self._seen: dict[Partition, float] = {}
        self._committed: dict[Partition, Position] = {}
        # Whose committed offset holds no progress of windows: the group was moved by hand.
        self._without_progress: set[Partition] = set()
        # How many records that an earlier worker had read were rejected, until all are read again.
        self._rejected_again: Counter[Partition] = Counter()

    def assign(self, positions: Mapping[Partition, Position | None]) -> dict[Partition, int]:
        """Resumes from the progress in the committed offsets' metadata."""
        starts: dict[Partition, int] = {}
        for partition, position in positions.items():
            progress = position and Progress.parse(position.offset, position.metadata)
            self.revoke([partition])
            start = 0 if position is None else position.offset
            self._windows[partition] = PartitionWindows(self._plans[partition[0]], progress, start)
            self._without_progress.discard(partition)
            if position is not None and progress is None:
                self._without_progress.add(partition)
            self._warn_of_holes(partition, start, progress)
            starts[partition] = OFFSET_BEGINNING if position is None else position.offset
        return starts

    def _warn_of_holes(self, partition: Partition, start: int, progress: Progress | None) -> None:
        """Says where windows miss events: the group was moved by hand, or a release had given them up."""
        where = {"topic": partition[0], "partition": partition[1]}
        if progress is None:
            if start:
                log.warning(
                    "windows count from where the group was moved",
                    **where,
                    offset=start,
                    why="the committed offset is without their progress: events before it that were not "
                    "counted are missing; see `streamflow audit`",
                )
            return
        for plan in self._plans[partition[0]]:
            if progress_of(progress, plan) is not None:
                continue
            begun = where | {"windows": plan.name, "offset": progress.position}
            if plan.name not in self.windows_with_parts:
                log.info("windows begin", **begun)
                continue
            log.warning(
                "windows begin anew",
                **begun,
                why="their table has rows, and the last release did not count them: events that came in "
                "between are in none of them; see `streamflow audit`",
            )

    def revoke(self, partitions: Sequence[Partition]) -> None:
        """Forgets what is open: the committed offsets hold it."""
        for partition in partitions:
            self._windows.pop(partition, None)
            self._seen.pop(partition, None)
            self._committed.pop(partition, None)
            self._rejected_again.pop(partition, None)

    def process(self, batch: Batch) -> Output | None:
        rejected: list[tuple[int, ErrorCode]] = []
        for topic, number, first, end in batch.runs:
            windows = self._windows[topic, number]
            for start in range(first, end, _AT_ONCE):
                records = batch.records[start : min(start + _AT_ONCE, end)]
                rejected += self._count(windows, (topic, number), records, start)
                windows.aggregate()
        for position in batch.positions:
            partition = (position.topic, position.partition)
            if partition in self._windows:
                windows = self._windows[partition]
                if position.offset > windows.read_to:
                    self._seen[partition] = batch.now
                windows.advance(position.offset)
        self._warn_of_rejected_again()
        return self._emit(batch, rejected, PartitionWindows.take)

    def _warn_of_rejected_again(self) -> None:
        """Once for each partition that has caught up: an earlier release may have taken them as events."""
        for partition, number in list(self._rejected_again.items()):
            if not self._windows[partition].catching_up:
                del self._rejected_again[partition]
                log.warning(
                    "records that were read again were rejected",
                    topic=partition[0],
                    partition=partition[1],
                    records=number,
                    why="an earlier worker had read them before it was killed: if the contract is stricter "
                    "now, events among them are stored and not counted; see `streamflow audit`",
                )

    def finish(self, batch: Batch) -> Output | None:
        """Hands over open windows, so that another release need not judge their events again."""
        return self._emit(batch, [], PartitionWindows.hand_over)

    def _emit(
        self,
        batch: Batch,
        rejected: list[tuple[int, ErrorCode]],
        take: Callable[[PartitionWindows], list[WindowResult]],
    ) -> Output | None:
        records: list[OutRecord] = []
        positions: list[Position] = []
        for partition, windows in self._windows.items():
            windows.close_due()
            quiet = batch.now - self._seen.setdefault(partition, batch.now)
            windows.close_idle(int(self._clock() * 1000), quiet)
            results = take(windows)
            topic = self._streams[partition[0]].analytics_topic
            topic_id = topic_id_header(batch.topic_ids.get(partition[0], ""))
            records += [_record(topic, partition, result, topic_id) for result in results]
            progress = windows.progress()
            position = Position(*partition, progress.resume, progress.metadata())
            known = windows.read_to or partition in self._without_progress
            if known and self._committed.get(partition) != position:
                self._without_progress.discard(partition)
                self._committed[partition] = position
                positions.append(position)
        if not positions and not batch.records:
            return None
        return Output(
            positions=positions,
            records=records,
            rejected=rejected,
            batch=batch.records,
            runs=batch.runs,
        )

    def _count(
        self,
        windows: PartitionWindows,
        partition: Partition,
        records: Sequence[Record],
        start: int,
    ) -> list[tuple[int, ErrorCode]]:
        """Counts records of a partition; `start` is the index of the first in the batch. Returns which are
        rejected: the validator makes dead letters of them."""
        topic = partition[0]
        found, times = self._streams[topic].read_all(records, with_times=topic in self._with_times)
        offsets = [record.offset() or 0 for record in records]
        stamps = [record.timestamp()[1] for record in records]
        events = [*zip(offsets, times, found, stamps, strict=True)]
        rejected: list[tuple[int, ErrorCode]] = []
        if not _NO_EVENT.isdisjoint(map(type, found)):
            for index, (offset, _, event, _) in enumerate(events, start):
                if isinstance(event, Rejection):
                    rejected.append((index, event.code))
                    if offset < windows.position:
                        self._rejected_again[partition] += 1
            events = [each for each in events if type(each[2]) not in _NO_EVENT]
        windows.count(events)
        return rejected


def _record(topic: str, partition: Partition, result: WindowResult, topic_id: Headers) -> OutRecord:
    key, body = key_and_body(result, partition[1])
    origin = Origin(*partition, result.first_offset)
    return OutRecord(topic, key, orjson.dumps(body), [(ORIGIN_HEADER, origin.encode()), *topic_id])
