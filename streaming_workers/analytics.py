"""Analytics: events counted in tumbling windows, each exactly once (G4)."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import orjson
from confluent_kafka import OFFSET_BEGINNING

from streamflow.contract import PYDANTIC_UTC, format_time
from streamflow.core_schema import FIRST_MOMENT, LAST_MOMENT
from streamflow.errors import ErrorCode
from streamflow.flow import Batch, Output, Partition
from streamflow.formats.documents import Ignored
from streamflow.records import (
    ORIGIN_HEADER,
    Headers,
    Origin,
    OutRecord,
    Position,
    Rejection,
    topic_id_headers,
)
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.tombstones import Deletion
from streamflow.windows import PartitionWindows, Progress, TumblingWindow, WindowCount
from streaming_workers.reporting import topic_asset

# With the zone object of the times that it is subtracted from: half as slow.
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=PYDANTIC_UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
# Of the calendar, in milliseconds since the epoch.
_FIRST: Final = (FIRST_MOMENT - _EPOCH) // _MILLISECOND
_LAST: Final = (LAST_MOMENT - _EPOCH) // _MILLISECOND


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
        self._streams = {
            stream.topic: (stream, stream.event_counts)
            for stream in streams
            if stream.event_counts is not None
        }
        # Looked up once and not for every record.
        self._routes = {
            topic: (stream.read, stream.time_of, stream.kind_of)
            for topic, (stream, _) in self._streams.items()
        }
        self.topics = list(self._streams)
        self.assets: Mapping[str, str] = {
            stream.analytics_topic: topic_asset(stream.analytics_topic, settings.prefix)
            for stream, _ in self._streams.values()
        }
        self._windows: dict[Partition, PartitionWindows] = {}
        self._seen: dict[Partition, float] = {}
        self._committed: dict[Partition, Position] = {}
        # Whose committed offset holds no progress of windows: the group was moved by hand.
        self._without_progress: set[Partition] = set()

    def assign(self, positions: Mapping[Partition, Position | None]) -> dict[Partition, int]:
        """Resumes from the progress in the committed offsets' metadata."""
        starts: dict[Partition, int] = {}
        for partition, position in positions.items():
            spec = self._spec(partition[0])
            progress = position and Progress.parse(position.offset, position.metadata)
            self.revoke([partition])
            self._windows[partition] = PartitionWindows(spec, progress)
            self._without_progress.discard(partition)
            if position is not None and progress is None:
                self._windows[partition].advance(position.offset)
                self._without_progress.add(partition)
            starts[partition] = OFFSET_BEGINNING if position is None else position.offset
        return starts

    def revoke(self, partitions: Sequence[Partition]) -> None:
        """Forgets what is open: the committed offsets hold it."""
        for partition in partitions:
            self._windows.pop(partition, None)
            self._seen.pop(partition, None)
            self._committed.pop(partition, None)

    def _spec(self, topic: str) -> TumblingWindow:
        return self._streams[topic][1]

    def process(self, batch: Batch) -> Output | None:
        rejected = self._count(batch)
        for position in batch.positions:
            partition = (position.topic, position.partition)
            if partition in self._windows:
                windows = self._windows[partition]
                if position.offset > windows.read_to:
                    self._seen[partition] = batch.now
                windows.advance(position.offset)
        return self._emit(batch, rejected, PartitionWindows.take)

    def finish(self, batch: Batch) -> Output | None:
        """Hands over open windows, so that another release need not judge their events again."""
        return self._emit(batch, [], PartitionWindows.hand_over)

    def _emit(
        self,
        batch: Batch,
        rejected: list[tuple[int, ErrorCode]],
        take: Callable[[PartitionWindows], list[WindowCount]],
    ) -> Output | None:
        ids = topic_id_headers(batch.topic_ids)
        records: list[OutRecord] = []
        positions: list[Position] = []
        for partition, windows in self._windows.items():
            windows.close_due()
            if self._is_idle(partition, batch.now):
                windows.close_idle(int(self._clock() * 1000))
            results = take(windows)
            stream = self._streams[partition[0]][0]
            topic_id = ids.get(partition[0], [])
            records += [_record(stream, partition, result, topic_id) for result in results]
            progress = windows.progress()
            position = Position(*partition, progress.resume, progress.metadata())
            known = windows.read_to or partition in self._without_progress
            if known and self._committed.get(partition) != position:
                self._without_progress.discard(partition)
                self._committed[partition] = position
                positions.append(position)
        if not positions and not batch.records:
            return None
        return Output(positions=positions, records=records, rejected=rejected, batch=batch.records)

    def _is_idle(self, partition: Partition, now: float) -> bool:
        idle = self._spec(partition[0]).idle.total_seconds()
        return now - self._seen.setdefault(partition, now) >= idle

    def _count(self, batch: Batch) -> list[tuple[int, ErrorCode]]:
        rejected: list[tuple[int, ErrorCode]] = []
        routes, windows = self._routes, self._windows
        epoch, millisecond = _EPOCH, _MILLISECOND
        for index, record in enumerate(batch.records):
            topic = record.topic() or ""
            read, time_of, group_of = routes[topic]
            event = read(record)
            if isinstance(event, Rejection):
                # The validator makes a dead letter of it.
                rejected.append((index, event.code))
                continue
            if isinstance(event, (Ignored, Deletion)):
                continue
            windows[topic, record.partition() or 0].count(
                record.offset() or 0,
                (time_of(event) - epoch) // millisecond,
                group_of(event),
                record.timestamp()[1],
            )
        return rejected


def _record(
    stream: Stream, partition: Partition, result: WindowCount, topic_id: Headers
) -> OutRecord:
    body = {
        "window_start": _format(result.start),
        "window_end": _format(result.end),
        "event_type": result.group,
        "count": result.count,
        "partition": partition[1],
        "late": result.late,
        "first_offset": result.first_offset,
        "last_offset": result.last_offset,
    }
    return OutRecord(
        stream.analytics_topic,
        result.group.encode(),
        orjson.dumps(body),
        [(ORIGIN_HEADER, Origin(*partition, result.first_offset).encode()), *topic_id],
    )


def _format(milliseconds: int) -> str:
    """A window of an event near the ends of the calendar may reach beyond it."""
    within = max(_FIRST, min(milliseconds, _LAST))
    return format_time(_EPOCH + timedelta(milliseconds=within))
