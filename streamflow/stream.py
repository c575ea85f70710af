"""A stream, declared once: everything else is derived from its declaration."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, LiteralString, NamedTuple, Protocol

from streamflow.contract import Event
from streamflow.core_schema import UnknownFields
from streamflow.decoder import Decoder
from streamflow.errors import ConfigurationError, ErrorCode, StreamUnavailable, Unavailable
from streamflow.formats.documents import Decode, Ignored, Tombstone, read_document
from streamflow.formats.user_functions import guarded, is_format
from streamflow.groups import ALL, group_text, scalar_text
from streamflow.notifications import Notification, notifier
from streamflow.own_code import fault_finder, has_own_code
from streamflow.privacy import Hasher
from streamflow.private_values import PrivateValue
from streamflow.records import Record, Rejection, processing_failed
from streamflow.tombstones import Deletion, KeyReader
from streamflow.windows.faults import aggregation_faults
from streamflow.windows.specs import (
    CountedWindows,
    SessionWindow,
    TumblingWindow,
    Windows,
    WindowsField,
)

if TYPE_CHECKING:
    from streamflow.settings import OrchestrationSettings

# Kafka's own default (`message.max.bytes`): 1 MiB and the overhead of one record batch.
MAX_RECORD_BYTES = 1_048_588
# A dead letter is the original with headers added and each address replaced by a longer hash: in
# the worst case every five bytes ("a@b.c" and a delimiter) become 65.
MAX_DEAD_LETTER_BYTES = 16 * MAX_RECORD_BYTES
# The topic's limit is for compressed records, and JSON rarely shrinks to less than an eighth.
_MAX_COMPRESSION = 8

Mode = Literal["append", "upsert"]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What a topic should look like on the broker."""

    name: str
    partitions: int
    config: dict[str, str]
    derived: bool = False  # whether StreamFlow writes to it, rather than producers


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """The topics of a stream. Streams may share the derived ones.

    Args:
        managed: whether StreamFlow creates and alters the stream's own topic. False for another owner's
            topic: it must exist, and is only read.
        replays: whether replays of dead letters may append to the stream's own topic. None: if it is
            managed. True for another owner's topic says that its owner allows it.
        partitions: of the stream's own topic; they can only be increased.
        derived_partitions: of each of the others.
        retention: of the stream's own topic.
        derived_retention: of analytics and notifications.
        dead_letter_retention: of the dead letters.
        max_record_bytes: the largest record that the stream's own topic accepts.
    """

    managed: bool = True
    replays: bool | None = None
    partitions: int = 3
    derived_partitions: int = 3
    retention: timedelta = timedelta(hours=168)
    derived_retention: timedelta = timedelta(hours=168)
    dead_letter_retention: timedelta = timedelta(days=30)
    max_record_bytes: int = MAX_RECORD_BYTES
    analytics: str = "analytics"
    notifications: str = "notifications"
    dead_letters: str = "dead-letter-topic"

    @property
    def takes_replays(self) -> bool:
        return self.managed if self.replays is None else self.replays


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


@dataclass(frozen=True, kw_only=True)
class DailyRollup:
    """A table that Dagster computes from the rows of a stream, day by day.

    A day is computed again when rows of it were loaded since the last time. Each row gets the columns
    ``stream``, ``day`` and ``computed_at`` besides its own. The table is created if it does not exist;
    streams may share it by declaring the same rollup.

    Args:
        table: name of the table and of the asset.
        description: of the asset.
        columns: PostgreSQL types by name, in the order of the query.
        query: SELECT of one day's rows. ``{table}`` stands for the stream's table, ``{time}`` for the
            column of its event time; its parameters are
            ``%(start)s`` and ``%(end)s`` of the day (UTC), and those that `parameters` returns.
        parameters: further parameters of the query, from Dagster's settings.
        neighbours: whether rows of a day change what is computed for the days before and after it.
        order: ORDER BY of the rows that the asset shows.
    """

    table: str
    description: str
    columns: Mapping[str, LiteralString]
    query: LiteralString
    parameters: Callable[["OrchestrationSettings"], Mapping[str, Any]] = lambda _settings: {}
    neighbours: bool = False
    order: LiteralString = "day DESC, stream"


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One stream of events.

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
        topics: partitions, retention and names of the topics.
        prefix: put before every topic's name, to share a cluster.
    """

    name: str
    contract: Any
    table: str
    key: str | Callable[[Any], str]
    event_time: str = "timestamp"
    private_fields: tuple[str, ...] = ()
    private_values: tuple[PrivateValue, ...] = ()
    unknown_fields: UnknownFields = "forbid"
    windows: WindowsField = WindowsField()  # noqa: RUF009 (a descriptor)
    notify: Callable[[Any], Notification] | None = None
    simulate: Simulator | None = None
    rollups: tuple[DailyRollup, ...] = ()
    decode: Decode | None = None
    mode: Mode = "append"
    primary_key: tuple[str, ...] = ()
    topics: Topics = field(default_factory=Topics)
    prefix: str = ""

    def __post_init__(self) -> None:
        if not all(isinstance(each, Windows) for each in self.windows):
            raise ConfigurationError(
                f'stream {self.name}: windows must be a TumblingWindow("10s"), a HoppingWindow, a '
                "SessionWindow, or a list of such"
            )
        if not self.decoder.models:
            raise ConfigurationError(
                f"stream {self.name}: contract must be a subclass of Event, or a union of them"
            )

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
    def notification_of(self) -> Callable[[Event], tuple[bytes, bytes] | Rejection] | None:
        """Key and value of the record of an event's notification, or why there is none. None for a stream
        without `notify`."""
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
        return lambda event: group_text(get(event))

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
        return self.key_of(event), self.decoder.encode(event)

    @cached_property
    def read(self) -> Callable[[Record], Event | Rejection | Ignored | Deletion]:
        """The event of a record of the stream's topic, or why it is none. Raises nothing, whatever the
        record, but StreamUnavailable where `decode` asks a schema registry that does not answer."""
        decode, read = self.decoder.decode, self._read
        fault = self.fault_of
        if fault is None:
            if self.decode is None and self.mode == "append":
                return lambda record: decode(record.value())
            return read

        def read_and_judge(record: Record) -> Event | Rejection | Ignored | Deletion:
            event = read(record)
            if isinstance(event, Rejection | Ignored | Deletion):
                return event
            return fault(event) or event

        return read_and_judge

    @cached_property
    def fault_of(self) -> Callable[[Event], Rejection | None] | None:
        """Why an event that the contract has accepted is none after all; None for a stream without code of
        the user's own in its contract and its aggregates, which need not be asked."""
        own_code = has_own_code(self.decoder.schema)
        of_windows = aggregation_faults(self.decoder, self.window_tables, has_own_code=own_code)
        if not own_code:
            return of_windows
        of_contract = fault_finder(self.decoder, self.event_time, self.kind_of)
        if of_windows is None:
            return of_contract
        return lambda event: of_contract(event) or of_windows(event)

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
            name: str, retention: timedelta, max_bytes: int, *, derived: bool = True
        ) -> TopicSpec:
            config = {
                "cleanup.policy": "delete",
                "retention.ms": str(round(retention.total_seconds() * 1000)),
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


def needs(worker: str, stream: Stream) -> tuple[str, ...]:
    """The topics that a worker reads or writes for a stream."""
    if worker == "validator":
        return stream.topic, stream.notifications_topic, stream.dead_letter_topic
    if worker == "analytics":
        return stream.topic, stream.analytics_topic, stream.dead_letter_topic
    return stream.topic_names
