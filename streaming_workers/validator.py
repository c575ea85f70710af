"""The validator: each event becomes a notification, everything else a dead letter."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import orjson

from streamflow import dead_letters
from streamflow.contract import format_time
from streamflow.errors import ErrorCode
from streamflow.flow import Batch, Output
from streamflow.privacy import Hasher
from streamflow.records import ORIGIN_HEADER, OutRecord, Rejection, origin_of
from streamflow.settings import Settings
from streamflow.stream import Stream
from streaming_workers.job import PlainJob

STAGE = "validator"


class Validator(PlainJob):
    """Checks the records of all streams against their contracts.

    Args:
        settings: everything configured.
        streams: whose records are checked.
        hasher: hashes the addresses in dead letters.
        clock: says when a record was refused.
    """

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
        self._streams = {stream.topic: stream for stream in streams}
        self._hasher = hasher
        self._clock = clock

    def process(self, batch: Batch) -> Output | None:
        """One notification or one dead letter a record, each with its origin's identity."""
        if not batch.positions:
            return None
        records: list[OutRecord] = []
        rejected: list[tuple[int, ErrorCode]] = []
        for index, record in enumerate(batch.records):
            stream = self._streams[record.topic() or ""]
            event = stream.decoder.decode(record.value())
            if isinstance(event, Rejection):
                rejected.append((index, event.code))
                records.append(
                    dead_letters.build(
                        record,
                        event,
                        stage=STAGE,
                        group=self.group,
                        topic=stream.dead_letter_topic,
                        hasher=self._hasher,
                        now=self._clock(),
                    )
                )
            elif stream.notify is not None:
                told = stream.notify(event)
                body = {
                    "message": told.message,
                    "time": format_time(event.timestamp),
                    "event_id": told.event_id,
                    "user": told.user,
                }
                records.append(
                    OutRecord(
                        stream.notifications_topic,
                        told.user.encode(),
                        orjson.dumps(body),
                        [(ORIGIN_HEADER, origin_of(record).encode())],
                    )
                )
        return Output(positions=batch.positions, records=records, rejected=rejected)
