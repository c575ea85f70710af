"""What a stream takes by HTTP: the records of events, or why they have none."""

from collections.abc import Callable, Mapping, Sequence

from streamflow.contract import Event
from streamflow.formats.cloudevents import CloudEvents
from streamflow.formats.documents import violation
from streamflow.pii_keys import is_hashed
from streamflow.producer.judge import Judge
from streamflow.producer.lines import too_long
from streamflow.records import Headers, OutRecord, Rejection, processing_failed
from streamflow.registry import hasher_for
from streamflow.samples.record import SampleRecord
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.trace_context import TRACEPARENT, TRACESTATE, trace_headers
from streaming_workers.ingest.bodies import Incoming

Judged = OutRecord | Rejection


class Intake:
    """Judges the events of one stream, and hashes what is private, in their attributes, too."""

    def __init__(self, stream: Stream, settings: Settings) -> None:
        self.stream = stream
        # Of this stream only: another one's private field may be a plain one here.
        self._hasher = hasher_for(settings, [stream])
        self._judge_all: Callable[[Sequence[Incoming]], Sequence[Judged]]
        if stream.decode is None:
            self._judge = Judge(stream, settings)
            self._judge_all = self._of_documents
        else:
            self._judge_all = self._of_cloud_events

    def records(self, events: Sequence[Incoming | Rejection]) -> list[Judged]:
        """The record of each event, or why it has none."""
        sound = [event for event in events if isinstance(event, Incoming)]
        judged = iter(self._judge_all(sound))
        return [
            event if isinstance(event, Rejection) else self._sized(next(judged)) for event in events
        ]

    def _sized(self, judged: Judged) -> Judged:
        """With its attributes it may be longer than its event."""
        return judged if isinstance(judged, Rejection) else too_long(self.stream, judged) or judged

    def traced(self, records: list[OutRecord], headers: Mapping[str, str]) -> list[OutRecord]:
        """The records with the trace that their request belongs to, if its headers name one."""
        given: Headers = [
            (name, headers[name].encode("latin-1"))
            for name in (TRACEPARENT, TRACESTATE)
            if name in headers
        ]
        trace = trace_headers(given, self._hasher.redact)
        if not trace:
            return records
        return [record._replace(headers=[*record.headers, *trace]) for record in records]

    def _of_documents(self, events: Sequence[Incoming]) -> Sequence[Judged]:
        judged = self._judge.judged(event.document for event in events)
        return [
            self._with_attributes(one, event.attributes) if event.attributes else one
            for event, one in zip(events, judged, strict=True)
        ]

    def _with_attributes(self, judged: Judged, attributes: Headers) -> Judged:
        if isinstance(judged, Rejection):
            return judged
        return judged._replace(headers=self._hashed(attributes))

    def _of_cloud_events(self, events: Sequence[Incoming]) -> Sequence[Judged]:
        return [self._of_cloud_event(event) for event in events]

    def _of_cloud_event(self, event: Incoming) -> Judged:
        """Of a stream whose records are CloudEvents. As what the stream's workers will read."""
        if not event.attributes:
            return violation("no CloudEvent, and this stream's records are CloudEvents")
        stream = self.stream
        value = self._hasher.hash_private(event.document)
        headers = self._hashed(event.attributes)
        found = stream.read(SampleRecord(stream.topic, 0, value, headers=headers))
        if isinstance(found, Rejection):
            return found
        if not isinstance(found, Event):
            return violation("the CloudEvent means nothing to this stream")
        try:
            return OutRecord(stream.topic, stream.key_of(found), value, headers)
        except BaseException as error:  # noqa: BLE001 (`key` may be a user's function)
            return processing_failed("key", error)

    def _hashed(self, attributes: Headers) -> Headers:
        """Attributes without anything private in clear."""
        fields = (
            self.stream.decode.attributes if isinstance(self.stream.decode, CloudEvents) else {}
        )
        private = self._hasher.private_names
        return [
            (
                name,
                self._whole(raw)
                if fields.get(name.removeprefix("ce_")) in private
                else self._redacted(raw),
            )
            for name, raw in attributes
        ]

    def _whole(self, raw: bytes | None) -> bytes:
        text = (raw or b"").decode("utf-8", "surrogateescape")
        return (text if is_hashed(text) else self._hasher.hash(text)).encode()

    def _redacted(self, raw: bytes | None) -> bytes:
        return self._hasher.redact(raw or b"")


def takes(stream: Stream) -> bool:
    """Whether a stream's events can come by HTTP: those of JSON, and CloudEvents."""
    return stream.topics.managed and (
        stream.decode is None or isinstance(stream.decode, CloudEvents)
    )
