"""The validator: each event becomes a notification, everything else a dead letter."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from streamflow import dead_letter_records as dead_letters
from streamflow.errors import ErrorCode
from streamflow.flow import Batch, Output
from streamflow.formats.documents import Ignored
from streamflow.kafka.unreadable import rejection_of
from streamflow.privacy import Hasher
from streamflow.records import (
    NOTIFY_STAGE,
    OutRecord,
    Record,
    Rejection,
    derived_headers,
    topic_id_headers,
)
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.tombstones import Deletion
from streamflow.trace_context import trace_headers
from streaming_workers.reporting import topic_asset
from streaming_workers.runtime.job import PlainJob

STAGE = "validator"
_NO_EVENT: Final = (Ignored, Deletion)


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
        # Looked up once, not for every record.
        self._routes = {
            stream.topic: (
                stream.read,
                stream.notification_of,
                stream.notifications_topic,
            )
            for stream in streams
        }
        self._dead_letter_topics = {stream.topic: stream.dead_letter_topic for stream in streams}
        self._hasher = hasher
        self._trace = partial(trace_headers, redact=hasher.redact)
        self._clock = clock

    def process(self, batch: Batch) -> Output | None:
        """One notification or one dead letter for each record, with its origin's identity."""
        if not batch.positions:
            return None
        records: list[OutRecord] = []
        rejected: list[tuple[int, ErrorCode]] = []
        add, routes, no_id = records.append, self._routes, ()
        ids, trace = topic_id_headers(batch.topic_ids), self._trace
        for index, record in enumerate(batch.records):
            topic = record.topic() or ""
            read, notify, notifications = routes[topic]
            event = read(record)
            if isinstance(event, Rejection):
                event = rejection_of(record, event)
                rejected.append((index, event.code))
                add(self._dead_letter(record, event, batch))
            elif notify is not None and not isinstance(event, _NO_EVENT):
                notification = notify(event)
                if isinstance(notification, Rejection):
                    # The event is stored and counted all the same.
                    add(self._dead_letter(record, notification, batch, NOTIFY_STAGE))
                    continue
                headers = derived_headers(record, trace)
                headers += ids.get(topic, no_id)
                add(OutRecord(notifications, *notification, headers))
        return Output(
            positions=batch.positions, records=records, rejected=rejected, batch=batch.records
        )

    def _dead_letter(
        self, record: Record, rejection: Rejection, batch: Batch, stage: str = STAGE
    ) -> OutRecord:
        topic = record.topic() or ""
        return dead_letters.build(
            record,
            rejection,
            stage=stage,
            group=self.group,
            topic=self._dead_letter_topics[topic],
            hasher=self._hasher,
            now=self._clock(),
            topic_ids=(batch.topic_ids.get(topic, ""), ""),
        )
