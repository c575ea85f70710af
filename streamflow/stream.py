"""A stream, declared once: everything else is derived from its declaration."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from operator import attrgetter
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from streamflow.argument_types import (
    FLAG,
    TEXT,
    described,
    either,
    function,
    instance_of,
    keeps_misnamed,
    one_of,
    optional,
    tuple_of,
)
from streamflow.contract import Event, choices_in, is_event_model
from streamflow.core_schema import UnknownFields, values_of
from streamflow.daily_rollup import DailyRollup
from streamflow.decoder import Decoder
from streamflow.durations import parse_duration
from streamflow.errors import ErrorCode, StreamUnavailable, Unavailable
from streamflow.fast_decoder import Decoded
from streamflow.formats.documents import Decode, Ignored, Tombstone, read_document
from streamflow.formats.user_functions import guarded, is_format
from streamflow.groups import ALL, LONGEST, group_text, scalar_text
from streamflow.notifications import Notification, NotificationsOf, notifier
from streamflow.own_code import decoding_fault, fault_finder, has_decoders, has_own_code
from streamflow.privacy import Hasher
from streamflow.private_values import PrivateValue
from streamflow.records import Record, Rejection, processing_failed
from streamflow.stream_topics import MAX_DEAD_LETTER_BYTES, MAX_RECORD_BYTES, Topics, TopicSpec
from streamflow.tombstones import Deletion, KeyReader
from streamflow.windows.faults import aggregation_faults
from streamflow.windows.specs import (
    CountedWindows,
    SessionWindow,
    TumblingWindow,
    Windows,
    WindowsField,
    all_windows,
)

# The topic's limit is for compressed records, and JSON rarely shrinks to less than an eighth.
_MAX_COMPRESSION = 8

Mode = Literal["append", "upsert"]


class Simulated(NamedTuple):
    """A simulated record, and the code it will be rejected with; None for a valid one."""

    key: bytes | None
    value: bytes
    code: ErrorCode | None


class Simulator(Protocol):
    """Makes an endless source of records for ``streamflow produce``."""

    def __call__(
        self, hasher: Hasher, *, seed: int | None, invalid_ratio: float
    ) -> Iterable[Simulated]:
        """The same `seed` gives the same records, but for their times; `invalid_ratio` is the share that
        breaks the contract."""


def _contract(value: Any) -> str | None:
    for choice in choices_in(value):
        if not is_event_model(choice):
            return f"must be a subclass of Event, or a union of them, not {described(choice)}"
    return None


_NAMES = "names of fields"
_KEY = either(
    "the name of a field, or a function of the event that returns a text",
    TEXT,
    function("a function of the event that returns a text", "event"),
)
_SIMULATE = function(
    "a function that takes a hasher, seed= and invalid_ratio=",
    "hasher",
    keywords={"seed": None, "invalid_ratio": None},
    may_yield=True,
)


@keeps_misnamed
@dataclass(frozen=True, kw_only=True)
class Stream:
    """One stream of events. Wrong arguments raise nothing: `load_streams` and ``streamflow check`` name them.

    Args:
        name: the name of its topic.
        contract: pydantic model of its events, or a discriminated union of them.
        table: the PostgreSQL table that its events are loaded into; of an upsert stream, the view of its
            living rows.
        key: the field that is the key of an event's record, or what makes the key of an event; events with
            the same key keep their order.
        event_time: the field that says when the event happened.
        private_fields: names of fields, at any depth, that may only hold hashes (G7), besides those that
            are declared `Hashed`.
        private_values: what else may not be in clear anywhere, as e-mail addresses never may.
        unknown_fields: what becomes of an event's fields that the contract does not declare: ``forbid``
            rejects the event, ``ignore`` drops them, ``keep`` stores them in the column `UNKNOWN_FIELDS`.
        windows: how its events are counted and aggregated by event time: one declaration, or several; None
            if they are not.
        notify: makes the notification of an event; None for no notifications.
        simulate: makes simulated records for ``streamflow produce``; None if there are none.
        rollups: tables that Dagster computes from the stream's rows.
        decode: turns a record into the document that the contract judges; None for records of JSON.
        mode: ``append`` keeps every event; ``upsert`` also the latest of each key, until a tombstone
            deletes it.
        primary_key: the fields that an upsert stream's key consists of.
        trace: whether a row keeps the ``traceparent`` of its record, in a column of that name.
        topics: partitions, retention and names of the topics.
        prefix: put before every topic's name, to share a cluster.
    """

    name: Annotated[str, TEXT]
    contract: Annotated[Any, _contract]
    table: Annotated[str, TEXT]
    key: Annotated[str | Callable[[Any], str], _KEY]
    event_time: Annotated[str, TEXT] = "timestamp"
    private_fields: Annotated[
        tuple[str, ...], tuple_of(TEXT, _NAMES, 'private_fields=("email",)')
    ] = ()
    private_values: Annotated[
        tuple[PrivateValue, ...],
        tuple_of(
            instance_of(PrivateValue, what='PhoneNumber("DE"), CardNumber() or the like'),
            "kinds of private values",
            "private_values=(CardNumber(),)",
        ),
    ] = ()
    unknown_fields: Annotated[UnknownFields, one_of(UnknownFields)] = "forbid"
    windows: Annotated[WindowsField, all_windows] = WindowsField()  # noqa: RUF009 (a descriptor)
    notify: Annotated[
        Callable[[Any], Notification] | None,
        optional(
            function("a function of the event that returns a Notification", "event", may_yield=True)
        ),
    ] = None
    simulate: Annotated[Simulator | None, optional(_SIMULATE)] = None
    rollups: Annotated[
        tuple[DailyRollup, ...],
        tuple_of(
            instance_of(DailyRollup, what="a DailyRollup"), "rollups", "rollups=(DailyRollup(…),)"
        ),
    ] = ()
    decode: Annotated[
        Decode | None,
        optional(function("a function of the record, or a format like CloudEvents()", "record")),
    ] = None
    mode: Annotated[Mode, one_of(Mode)] = "append"
    primary_key: Annotated[tuple[str, ...], tuple_of(TEXT, _NAMES, 'primary_key=("id",)')] = ()
    trace: Annotated[bool, FLAG] = False
    topics: Annotated[
        Topics, instance_of(Topics, what="Topics, as in topics=Topics(partitions=6)")
    ] = field(default_factory=Topics)
    prefix: Annotated[str, TEXT] = ""
    misnamed: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("private_fields", "private_values", "rollups", "primary_key"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)

    @cached_property
    def decoder(self) -> Decoder:
        return Decoder(
            self.contract,
            self.private_fields,
            _MAX_COMPRESSION * self.topics.max_record_bytes,
            self.private_values,
            self.unknown_fields,
        )

    @property
    def event_table(self) -> str:
        """The name of the table with every event."""
        return self.table if self.mode == "append" else f"{self.table}_changes"

    @property
    def state_table(self) -> str | None:
        """The name of the table with the latest event of each key."""
        return None if self.mode == "append" else f"{self.table}_state"

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that hold its events."""
        return (
            (self.event_table,)
            if self.state_table is None
            else (self.event_table, self.state_table)
        )

    @cached_property
    def time_of(self) -> Callable[[Event], datetime]:
        """When an event happened."""
        return attrgetter(self.event_time)

    @cached_property
    def key_of(self) -> Callable[[Event], bytes | None]:
        """The key of an event's record; None for a field that is null."""
        key = self.key
        if isinstance(key, str):
            get = attrgetter(key)
            return lambda event: (
                None if (value := get(event)) is None else scalar_text(value).encode()
            )
        return lambda event: key(event).encode()

    @cached_property
    def notifications_of(self) -> NotificationsOf | None:
        """Makes the notifications of events; None for a stream without `notify`."""
        return self.notify and notifier(self.notify, self.time_of, self.decoder)

    @cached_property
    def event_counts(self) -> TumblingWindow | None:
        """The windows without aggregates, which count events into ``window_counts``."""
        return next(
            (
                each
                for each in self.windows
                if isinstance(each, TumblingWindow) and not each.aggregates
            ),
            None,
        )

    @cached_property
    def counted(self) -> tuple[CountedWindows, ...]:
        """The windows that analytics counts, in the order of the declaration."""
        return tuple(each for each in self.windows if isinstance(each, CountedWindows))

    @cached_property
    def sessions(self) -> tuple[SessionWindow, ...]:
        return tuple(each for each in self.windows if isinstance(each, SessionWindow))

    @cached_property
    def window_tables(self) -> dict[str, Windows]:
        """The windows with aggregates, by the names of their tables."""
        return {each.table_of(self.table): each for each in self.windows if each.aggregates}

    @cached_property
    def kind_field(self) -> str | None:
        """The field whose value events are counted and shown by: that of the windows, else the one that
        tells the contract's models apart, or is called ``type``."""
        if self.event_counts is not None:
            return self.event_counts.by_fields[0] if self.event_counts.by_fields else None
        kinds = [
            name
            for model in self.decoder.models
            for name, field in model.model_fields.items()
            if self.decoder.kind_field in (name, field.alias)
        ]
        return kinds[0] if len(kinds) == len(self.decoder.models) and len({*kinds}) == 1 else None

    @cached_property
    def kind_of(self) -> Callable[[Event], str]:
        """What an event is counted and shown by, as text."""
        if self.kind_field is None:
            return lambda _event: ALL
        get = attrgetter(self.kind_field)
        fields = [self.decoder.fields_of(model)[self.kind_field] for model in self.decoder.models]
        kinds = [
            value if field["type"] == "literal" else None
            for field in fields
            for value in values_of(field) or [None]
        ]
        if all(type(kind) is str and 0 < len(kind) <= LONGEST for kind in kinds):
            return get  # such texts stay as they are

        def kind_of(event: Event) -> str:
            value = get(event)
            # On the path of every event: nearly always a text, and short.
            if type(value) is str and 0 < len(value) <= LONGEST:
                return value
            return group_text(value)

        return kind_of

    @property
    def topic(self) -> str:
        return self.prefix + self.name

    @property
    def analytics_topic(self) -> str:
        return self.prefix + self.topics.analytics

    @property
    def notifications_topic(self) -> str:
        return self.prefix + self.topics.notifications

    @property
    def dead_letter_topic(self) -> str:
        return self.prefix + self.topics.dead_letters

    @property
    def topic_names(self) -> tuple[str, ...]:
        return self.topic, self.analytics_topic, self.notifications_topic, self.dead_letter_topic

    def prefixed(self, prefix: str) -> "Stream":
        """The same stream with `prefix` before every topic's name."""
        return replace(self, prefix=prefix)

    def encode(self, event: Event) -> tuple[bytes | None, bytes]:
        """Key and value of an event's record."""
        value = self.decoder.encode(event)
        # Last, as `key` may be a user's function, which may change the event.
        return self.key_of(event), value

    @cached_property
    def read(self) -> Callable[[Record], Event | Rejection | Ignored | Deletion]:
        """The event of a record of the stream's topic, or why it is none. Raises nothing, whatever the
        record, but StreamUnavailable where `decode` asks a schema registry that does not answer."""
        decode, read = self.decoder.decode, self._read
        fault = self.fault_of
        if self._reads_values:
            return lambda record: decode(record.value())
        if fault is None:
            return read

        def read_and_judge(record: Record) -> Event | Rejection | Ignored | Deletion:
            event = read(record)
            if isinstance(event, Rejection | Ignored | Deletion):
                return event
            return fault(event) or event

        return read_and_judge

    def read_events(
        self, records: Sequence[Record]
    ) -> Sequence[Event | Rejection | Ignored | Deletion]:
        """As `read`, of many records."""
        if self._reads_values:
            return self.decoder.events([record.value() for record in records])
        return [*map(self.read, records)]

    @cached_property
    def _reads_values(self) -> bool:
        """Whether the decoder alone says what a record is, by its value."""
        return self.decode is None and self.mode == "append" and self.fault_of is None

    def read_all(self, records: Sequence[Record], *, with_times: bool = False) -> Decoded:
        """As `read`, of many records, with the event times; of ordinary events only the fields, where that
        is possible: an object with the same attributes, but for the event time, which is a ``datetime`` only
        `with_times`."""
        if self.slow_because is not None:
            return Decoded.of([*map(self.read, records)], self.event_time)
        values = [record.value() for record in records]
        return self.decoder.decode_all(values, self.event_time, with_times=with_times)

    @cached_property
    def slow_because(self) -> str | None:
        """Why loader and analytics need whole events, which pydantic makes; None where they do not."""
        if self.decode is not None:
            return "its records have a format (decode)"
        if self.mode != "append":
            return "tombstones are among its records (mode='upsert')"
        if self.fault_of is not None:
            return "code of its own, of the contract or of windows (where), is asked for each event"
        return self.decoder.untranslatable

    @cached_property
    def fault_of(self) -> Callable[[Event], Rejection | None] | None:
        """Why an event that the contract has accepted is none after all; None for a stream without code of
        the user's own in its contract and its aggregates, and without decoders, which need not be asked."""
        schema = self.decoder.schema
        own_code = has_own_code(schema)
        faults = [
            fault_finder(self.decoder, self.event_time, self.kind_of) if own_code else None,
            decoding_fault(self.decoder) if has_decoders(schema) else None,
            aggregation_faults(self.decoder, self.window_tables, has_own_code=own_code),
        ]
        asked = [fault for fault in faults if fault is not None]
        if len(asked) <= 1:
            return asked[0] if asked else None

        def first_fault(event: Event) -> Rejection | None:
            return next((found for fault in asked if (found := fault(event))), None)

        return first_fault

    @cached_property
    def _key_reader(self) -> KeyReader:
        return KeyReader(self.decoder, self.primary_key, self.key)

    @cached_property
    def _decode(self) -> Decode | None:
        if self.decode is None or is_format(self.decode):
            return self.decode
        return guarded(self.decode, self.decoder.private_text)

    def _read(self, record: Record) -> Event | Rejection | Ignored | Deletion:
        try:
            document = read_document(self._decode, record)
        except Unavailable as error:
            raise StreamUnavailable(f"stream {self.name}: {error}", self.topic) from error
        except BaseException as error:  # noqa: BLE001 (a user's function; fails only this record)
            return processing_failed("decode", error)
        if isinstance(document, Tombstone):
            if self.mode == "append":
                return self.decoder.decode(None)
            return self._key_reader.read(document.key, record.key())
        return self.decoder.decode(document) if isinstance(document, bytes) else document

    def topic_specs(self, min_isr: int = 1) -> tuple[TopicSpec, ...]:
        """The topics that StreamFlow creates for this stream. They use the broker's append time, so that
        no producer's wrong clock decides what retention removes."""
        topics = self.topics

        def spec(
            name: str, retention: timedelta | str, max_bytes: int, *, derived: bool = True
        ) -> TopicSpec:
            config = {
                "cleanup.policy": "delete",
                "retention.ms": str(parse_duration(retention) // timedelta(milliseconds=1)),
                "message.timestamp.type": "LogAppendTime",
                "max.message.bytes": str(max_bytes),
                "min.insync.replicas": str(min_isr),
            }
            partitions = topics.derived_partitions if derived else topics.partitions
            return TopicSpec(name, partitions, config, derived)

        own = spec(self.topic, topics.retention, topics.max_record_bytes, derived=False)
        return (
            *((own,) if topics.managed else ()),
            spec(self.analytics_topic, topics.derived_retention, MAX_RECORD_BYTES),
            spec(self.notifications_topic, topics.derived_retention, MAX_RECORD_BYTES),
            spec(self.dead_letter_topic, topics.dead_letter_retention, MAX_DEAD_LETTER_BYTES),
        )


def reads(worker: str, streams: Sequence[Stream]) -> list[str]:
    """The topics that a worker's group reads, each once; `worker` is a key of `settings.GROUPS`."""
    if worker == "validator":
        topics = [stream.topic for stream in streams]
    elif worker == "analytics":
        topics = [stream.topic for stream in streams if stream.counted]
    else:
        topics = [topic for stream in streams for topic in stream.topic_names]
    return list(dict.fromkeys(topics))


def writes(worker: str, stream: Stream) -> tuple[str, ...]:
    """The topics that a worker writes to for a stream."""
    match worker:
        case "validator":
            return stream.notifications_topic, stream.dead_letter_topic
        case "analytics" if not stream.counted:
            return (stream.dead_letter_topic,)
        case "analytics":
            return stream.analytics_topic, stream.dead_letter_topic
        case "loader":
            return (stream.dead_letter_topic,)
    return ()


def needs(worker: str, stream: Stream) -> tuple[str, ...]:
    """The topics that a worker reads or writes for a stream."""
    return tuple(dict.fromkeys((*reads(worker, [stream]), *writes(worker, stream))))
