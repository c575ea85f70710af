"""From a record to the Socket.IO event `kafka-event`, with the body `{topic, payload, timestamp}`.

A frame is encoded when the first client wants it, once for all of them.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import NoneType
from typing import Any, Final

import orjson
from engineio.packet import MESSAGE, Packet

from streamflow.contract import Event, format_time
from streamflow.errors import Unavailable
from streamflow.field_names import paths_of
from streamflow.groups import group_text
from streamflow.privacy import Hasher
from streamflow.records import Record
from streamflow.stream import Stream
from streamflow.windows.progress import COUNTS

EVENT = "kafka-event"
DROPPED_EVENT = "kafka-event-dropped"
ERROR_EVENT = "kafka-error"

# Of the Socket.IO protocol (revision 5): an event in the default namespace without attachments.
_EVENT_TYPE = "2"
# What a record costs in memory beside its bytes.
_OVERHEAD_BYTES = 1_000
_UNREAD = object()
# Of parsed values; integers of more than 64 bits are parsed as float.
_EXACT: Final = frozenset((str, int, bool, NoneType))
_SCALARS: Final = (str, int, float, NoneType)
_LONG: Final = 19  # digits
_LONG_NUMBER: Final = re.compile(rb"[0-9]{%d}" % _LONG)


class Encoder:
    """Turns record values into payloads. `hasher` replaces the addresses in what is not a valid event
    of one of the streams, by topic (G7)."""

    def __init__(self, streams: Mapping[str, Stream], hasher: Hasher) -> None:
        self._streams = streams
        self._hasher = hasher
        self._kind_fields = kind_fields(streams.values())
        self._analytics = {stream.analytics_topic for stream in streams.values()}

    def kind_fields(self, record: Record) -> tuple[str, ...]:
        return self._kind_fields.get(record.topic() or "", ())

    def is_of_windows(self, record: Record) -> bool:
        return record.topic() in self._analytics

    def payload(self, record: Record) -> Any:
        """The parsed JSON of a value, to be written by orjson; its text if it is not JSON."""
        shown = self._shown(record)
        if shown is None:
            return None
        try:
            parsed = orjson.loads(shown)
            if isinstance(parsed, dict) and _EXACT.issuperset(map(type, parsed.values())):
                return parsed
            return _with_all_digits(shown) if _LONG_NUMBER.search(shown) else parsed
        except (orjson.JSONDecodeError, RecursionError):
            return _text(shown)

    def text(self, record: Record) -> str:
        return _text(self._shown(record) or b"")

    def _shown(self, record: Record) -> bytes | None:
        """A valid event holds no address, by its contract; one in another format than JSON is shown as its
        contract has it. Everything else is redacted."""
        stream, value = self._streams.get(record.topic() or ""), record.value()
        event = None if stream is None else _event(stream, record)
        if stream is not None and event is not None:
            return value if stream.decode is None else stream.decoder.encode(event)
        return None if value is None else self._hasher.redact(value)


def _event(stream: Stream, record: Record) -> Event | None:
    try:
        event = stream.read(record)
    except Unavailable:
        return None  # what a schema registry says cannot be waited for here
    return event if isinstance(event, Event) else None


def kind_fields(streams: Iterable[Stream]) -> dict[str, tuple[str, ...]]:
    """The fields, as JSON has them, that say what kind of event a record is or is about, by topic."""
    fields: dict[str, dict[str, None]] = defaultdict(dict)
    for stream in streams:
        kind = stream.kind_field
        if kind is not None:
            for model in stream.decoder.models:
                for path in paths_of(kind, model.model_fields[kind]):
                    name = str(path[0])
                    fields[stream.topic][name] = fields[stream.dead_letter_topic][name] = None
        fields[stream.analytics_topic]["event_type"] = None
    return {topic: tuple(names) for topic, names in fields.items()}


def windows_of(streams: Iterable[Stream]) -> set[str]:
    """The tables whose windows have records: those of sessions have none."""
    return {
        spec.table_of(stream.table) if spec.aggregates else COUNTS
        for stream in streams
        for spec in stream.counted
    }


class Frame:
    __slots__ = (
        "_encoder", "_is_of_windows", "_kind_fields", "_kinds", "_packet", "_payload", "_record",
        "appended", "size", "topic",
    )  # fmt: skip

    def __init__(self, topic: str, record: Record, encoder: Encoder) -> None:
        self.topic = topic  # without ``STREAMFLOW_PREFIX``
        self.appended = record.timestamp()[1]  # milliseconds since the epoch, by the broker's clock
        self.size = len(record.value() or b"") + _OVERHEAD_BYTES  # in memory
        self._record: Record | None = record
        self._encoder = encoder
        self._kind_fields = encoder.kind_fields(record)
        self._is_of_windows = encoder.is_of_windows(record)
        self._kinds: frozenset[str] | None = None
        self._payload: Any = _UNREAD
        self._packet: Packet | None = None

    @property
    def payload(self) -> Any:
        if self._payload is _UNREAD and self._record is not None:
            self._payload = self._encoder.payload(self._record)
        return self._payload

    @property
    def packet(self) -> Packet:
        """The Engine.IO packet, the same for every client."""
        if self._packet is None:
            self._packet = Packet(MESSAGE, self._text())
            self._packet.encode()
            self._record = None
        return self._packet

    @property
    def kinds(self) -> frozenset[str]:
        """What the event is counted by, as text; none where the record does not say it. Of windows with
        aggregates the values that they group by."""
        if self._kinds is None:
            payload = self.payload
            values: list[Any] = []
            if isinstance(payload, dict):
                values = [payload[name] for name in self._kind_fields if name in payload]
                if self._is_of_windows and isinstance(by := payload.get("by"), dict):
                    values += by.values()
            self._kinds = frozenset(
                group_text(value) for value in values if isinstance(value, _SCALARS)
            )
        return self._kinds

    @property
    def windows(self) -> str | None:
        """The table that a record of the analytics topic is for; None of another record."""
        if not self._is_of_windows or not isinstance(payload := self.payload, dict):
            return None
        name = payload.get("window")
        if isinstance(name, str):
            return name
        return COUNTS if "event_type" in payload else None

    def field(self, name: str) -> Any:
        payload = self.payload
        return payload.get(name) if isinstance(payload, dict) else None

    def _text(self) -> str:
        time = append_time(self.appended)
        body = {"topic": self.topic, "payload": self.payload, "timestamp": time}
        try:
            return event_text(EVENT, body)
        except TypeError:
            # orjson reads deeper nesting than it writes: such a value is sent as its text.
            record = self._record
            if record is None:
                raise
            self._payload = self._encoder.text(record)
            return event_text(EVENT, {**body, "payload": self._payload})


def event_text(name: str, body: Mapping[str, Any]) -> str:
    """A Socket.IO event as text. Raises TypeError for what cannot be JSON."""
    return _EVENT_TYPE + orjson.dumps([name, body]).decode()


def _with_all_digits(value: bytes) -> Any:
    # Slower, so only for the few values that need it. Not the value as it is: of a field that stands there
    # twice, the contract has checked the last one only.
    return json.loads(value, parse_int=_with_digits)


def _with_digits(number: str) -> Any:
    return orjson.Fragment(number) if len(number) >= _LONG else int(number)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


@lru_cache(maxsize=1024)  # many records are appended in one millisecond
def append_time(milliseconds: int) -> str | None:
    """The broker's time stamp as text; None for one that is no date."""
    try:
        moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None
    return format_time(moment.replace(microsecond=milliseconds % 1000 * 1000))
