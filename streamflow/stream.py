"""A stream, declared once: everything else is derived from its declaration."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple, Protocol

from streamflow.contract import Decoder, Event
from streamflow.errors import ConfigurationError, ErrorCode
from streamflow.privacy import Hasher
from streamflow.private_values import PrivateValue
from streamflow.records import Record, Rejection
from streamflow.windows import TumblingWindow

if TYPE_CHECKING:
    from streamflow.settings import OrchestrationSettings

# Kafka's own default (`message.max.bytes`): 1 MiB and the overhead of one record batch.
MAX_RECORD_BYTES = 1_048_588
# A dead letter is the original with headers added and each address replaced by a longer hash: in
# the worst case every five bytes ("a@b.c" and a delimiter) become 65.
MAX_DEAD_LETTER_BYTES = 16 * MAX_RECORD_BYTES
# The topic's limit is for compressed records, and JSON rarely shrinks to less than an eighth.
_MAX_COMPRESSION = 8


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
        partitions: of each managed topic; they can only be increased.
        retention: of the stream's own topic.
        derived_retention: of analytics and notifications.
        dead_letter_retention: of the dead letters.
        max_record_bytes: the largest record that the stream's own topic accepts.
    """

    managed: bool = True
    partitions: int = 3
    retention: timedelta = timedelta(hours=168)
    derived_retention: timedelta = timedelta(hours=168)
    dead_letter_retention: timedelta = timedelta(days=30)
    max_record_bytes: int = MAX_RECORD_BYTES
    analytics: str = "analytics"
    notifications: str = "notifications"
    dead_letters: str = "dead-letter-topic"


class Notification(NamedTuple):
    """The notification of an event; ``time`` is added from the event."""

    message: str
    event_id: int
    user: str


class Simulated(NamedTuple):
    """A simulated record, and the code it will be rejected with; None for a valid one."""

    key: bytes
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
        query: SELECT of one day's rows. ``{table}`` stands for the stream's table; its parameters are
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
        table: the PostgreSQL table that its events are loaded into.
        key: the record key of an event; events with the same key keep their order.
        private_fields: fields that may only hold hashes (G7).
        private_values: what else may not be in clear anywhere, as e-mail addresses never may.
        windows: how its events are counted; None if they are not.
        notify: makes the notification of an event; None for no notifications.
        simulate: makes simulated records for ``streamflow produce``; None if there are none.
        rollups: tables that Dagster computes from the stream's rows.
        topics: partitions, retention and names of the topics.
        prefix: put before every topic's name, to share a cluster.
    """

    name: str
    contract: Any
    table: str
    key: Callable[[Any], str]
    event_time: str = "timestamp"
    private_fields: tuple[str, ...] = ()
    private_values: tuple[PrivateValue, ...] = ()
    windows: TumblingWindow | None = None
    notify: Callable[[Any], Notification] | None = None
    simulate: Simulator | None = None
    rollups: tuple[DailyRollup, ...] = ()
    topics: Topics = field(default_factory=Topics)
    prefix: str = ""

    def __post_init__(self) -> None:
        for model in self.decoder.models:
            missing = {"timestamp", "type", *self.private_fields} - model.model_fields.keys()
            if missing:
                names = ", ".join(sorted(missing))
                raise ConfigurationError(
                    f"stream {self.name}: {model.__name__} must declare {names}"
                )
        if not self.decoder.models:
            raise ConfigurationError(
                f"stream {self.name}: contract must be a subclass of Event, or a union of them"
            )

    @cached_property
    def decoder(self) -> Decoder:
        max_bytes = _MAX_COMPRESSION * self.topics.max_record_bytes
        return Decoder(self.contract, self.private_fields, max_bytes, self.private_values)

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

    @cached_property
    def kind_field(self) -> str | None:
        """The field whose value events are counted and shown by."""
        if self.windows is not None:
            return self.windows.group_by
        return "type" if all("type" in m.model_fields for m in self.decoder.models) else None

    def read(self, record: Record) -> Event | Rejection:
        """The event of a record of the stream's topic, or why it is none. Never raises."""
        return self.decoder.decode(record.value())

    def encode(self, event: Event) -> tuple[bytes, bytes]:
        """Key and value of an event's record."""
        return self.key(event).encode(), event.encode()

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
            return TopicSpec(name, topics.partitions, config, derived)

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
        topics = [stream.topic for stream in streams if stream.windows is not None]
    else:
        topics = [topic for stream in streams for topic in stream.topic_names]
    return list(dict.fromkeys(topics))
