"""The validator: each event becomes a notification, everything else a dead letter."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import compress
from typing import Final, cast

from streamflow import dead_letter_records as dead_letters
from streamflow.contract import Event
from streamflow.flow import Batch, Output, PartitionRun
from streamflow.formats.documents import Ignored
from streamflow.kafka.unreadable import rejection_of
from streamflow.privacy import Hasher
from streamflow.records import (
    NOTIFY_STAGE,
    OutRecord,
    Record,
    Rejection,
    derived_headers,
)
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.tombstones import Deletion
from streamflow.trace_context import trace_headers
from streaming_workers.reporting import topic_asset
from streaming_workers.runtime.job import PlainJob

STAGE = "validator"
_NO_EVENT: Final = frozenset((Rejection, Ignored, Deletion))
# Records whose events and notifications are still in the processor's cache when they are used.
_AT_ONCE: Final = 256


class Validator(PlainJob):
    """Checks the records of all streams against their contracts. `hasher` hashes the addresses in dead
    letters, `clock` says when a record was rejected."""

    name = STAGE

    def __init__(
        self,
        settings: Settings,
        streams: Sequence[Stream],
        hasher: Hasher,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.group = settings.group(STAGE)
        self.topics = [stream.topic for stream in streams]
        self.assets = {
            topic: topic_asset(topic, settings.prefix)
            for stream in streams
            for topic in (stream.notifications_topic, stream.dead_letter_topic)
        }
        self._streams = {stream.topic: stream for stream in streams}
        self._hasher = hasher
        self._trace = partial(trace_headers, redact=hasher.redact)
        self._clock = clock

    def process(self, batch: Batch) -> Output | None:
        """One notification or one dead letter for each record, with its origin's identity."""
        if not batch.positions:
            return None
        output = Output(positions=batch.positions, batch=batch.records, runs=batch.runs)
        for topic, partition, first, end in batch.runs:
            for start in range(first, end, _AT_ONCE):
                run = PartitionRun(topic, partition, start, min(start + _AT_ONCE, end))
                self._derive(run, batch, output)
        return output

    def _derive(self, run: PartitionRun, batch: Batch, output: Output) -> None:
        stream = self._streams[run.topic]
        records, events = self._events(run, batch, output)
        if stream.notifications_of is None:
            return
        to, add = stream.notifications_topic, output.records.append
        topic_id = batch.topic_ids.get(run.topic, "")
        identities = derived_headers(run.topic, run.partition, records, topic_id, self._trace)
        made = stream.notifications_of(events)
        for record, notification, headers in zip(records, made, identities, strict=True):
            if isinstance(notification, Rejection):
                # The event is stored and counted all the same.
                add(self._dead_letter(record, notification, batch, NOTIFY_STAGE))
            else:
                key, value = notification
                add(OutRecord(to, key, value, headers))

    def _events(
        self, run: PartitionRun, batch: Batch, output: Output
    ) -> tuple[Sequence[Record], Sequence[Event]]:
        """The records that are events, and these; the others are dead letters, or nothing."""
        records = batch.records[run.start : run.end]
        found = self._streams[run.topic].read_events(records)
        if not _NO_EVENT.isdisjoint(map(type, found)):
            for index, (record, each) in enumerate(zip(records, found, strict=True), run.start):
                if isinstance(each, Rejection):
                    rejection = rejection_of(record, each)
                    output.rejected.append((index, rejection.code))
                    output.records.append(self._dead_letter(record, rejection, batch))
            is_event = [type(each) not in _NO_EVENT for each in found]
            records, found = [*compress(records, is_event)], [*compress(found, is_event)]
        return records, cast("Sequence[Event]", found)

    def _dead_letter(
        self, record: Record, rejection: Rejection, batch: Batch, stage: str = STAGE
    ) -> OutRecord:
        topic = record.topic() or ""
        return dead_letters.build(
            record,
            rejection,
            stage=stage,
            group=self.group,
            topic=self._streams[topic].dead_letter_topic,
            hasher=self._hasher,
            now=self._clock(),
            topic_ids=(batch.topic_ids.get(topic, ""), ""),
        )
