"""What travels: records with their position, their origin, and rejections.

A *record* is bytes with a position in a topic, an *event* a validated model, a *row* a line of a table.
Header names are the public interface of dead letters and replays.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from streamflow.errors import ErrorCode
from streamflow.user_code import name_of_fault

Headers = list[tuple[str, bytes | None]]
# As `OutRecord` has it: topic, key, value, headers, partition.
Producible = tuple[str, bytes | None, bytes | None, Headers, int]

# Where a derived or replayed record first entered the log: "topic/partition/offset".
ORIGIN_HEADER = "__streamflow.origin"
# The record that a derived one comes from, where that claims to be a replay of its origin.
SOURCE_HEADER = "__streamflow.source"
# Id (KIP-516) of the topic that a derived record or a dead letter comes from: offsets of a topic that
# was deleted and recreated mean other records.
TOPIC_ID_HEADER = "__streamflow.topic_id"
# Of the dead letter of a derived record: the id of its origin's topic, which is another topic.
ORIGIN_TOPIC_ID_HEADER = "__streamflow.origin_topic_id"
ATTEMPT_HEADER = "__streamflow.attempt"
ERROR_CODE_HEADER = "__streamflow.error_code"
REDACTED_HEADER = "__streamflow.redacted"
FAILED_AT_HEADER = "__streamflow.failed_at"
GROUP_HEADER = "__streamflow.group"
# Stage of the dead letter of an event that is stored and counted, but of which no notification could be
# made.
NOTIFY_STAGE = "notify"
# Keyed hash of a record that a worker has made, its last header: see `streamflow.signing`.
SIGNATURE_HEADER = "__streamflow.signature"
# Of a dead letter that was cut: bytes of key, value and headers before.
TRUNCATED_HEADER = "__streamflow.truncated"

# KIP-298, as Kafka Connect writes them.
ERROR_TOPIC_HEADER = "__connect.errors.topic"
ERROR_PARTITION_HEADER = "__connect.errors.partition"
ERROR_OFFSET_HEADER = "__connect.errors.offset"
ERROR_STAGE_HEADER = "__connect.errors.stage"
ERROR_CLASS_HEADER = "__connect.errors.class.name"
ERROR_EXCEPTION_HEADER = "__connect.errors.exception.class.name"
ERROR_MESSAGE_HEADER = "__connect.errors.exception.message"

OWN_HEADER_PREFIXES = ("__streamflow.", "__connect.errors.")

MAX_OFFSET = 2**63 - 1
_LONGEST_ORIGIN = 300  # bytes; a topic's name has at most 249
_LONGEST_ATTEMPT = 6  # digits
_TOPIC_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")


class Record(Protocol):
    """A record as a consumer hands it over; ``confluent_kafka.Message`` is one."""

    def topic(self) -> str | None: ...

    def partition(self) -> int | None: ...

    def offset(self) -> int | None: ...

    def key(self) -> bytes | None: ...

    def value(self) -> bytes | None: ...

    def headers(self) -> Headers | None:
        """In order; names may repeat."""

    def timestamp(self) -> tuple[int, int]:
        """Kind of time stamp, and milliseconds since the epoch."""


class Origin(NamedTuple):
    """The identity of an event (G3): where it first entered the log."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    def encode(self) -> bytes:
        """As the value of the origin header."""
        return str(self).encode()

    @classmethod
    def parse(cls, raw: bytes | None) -> "Origin | None":
        """Reads an origin header; None if it is malformed (headers are untrusted)."""
        if not raw or len(raw) > _LONGEST_ORIGIN:
            return None
        try:
            topic, partition, offset = raw.decode("ascii").rsplit("/", 2)
        except (UnicodeDecodeError, ValueError):
            return None
        # Names of rows that were set aside are wider than those of topics.
        if not topic or not topic.isprintable() or not (partition.isdigit() and offset.isdigit()):
            return None
        if int(partition) >= 2**31 or int(offset) > MAX_OFFSET:
            return None
        return cls(topic, int(partition), int(offset))


class OutRecord(NamedTuple):
    """A record to be produced."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int = -1


class Rejection(NamedTuple):
    """Why a record was rejected. `message` never holds a piece of the input."""

    code: ErrorCode
    exception: str
    message: str
    faults: tuple[str, ...] = ()  # of which the message is made, where it names several


def processing_failed(what: str, error: BaseException) -> Rejection:
    """Code of a stream's declaration has raised an error, whose message may quote the event."""
    name = name_of_fault(error)
    return Rejection(ErrorCode.PROCESSING_FAILED, name, f"{what} raised {name}")


def changes_event(what: str) -> Rejection:
    """Code of a stream's declaration has changed the event that it was asked of."""
    return Rejection(ErrorCode.PROCESSING_FAILED, "ValueError", f"{what} changes the event")


class Log(NamedTuple):
    """Which log an offset counts in."""

    # KIP-516: a topic that was deleted and recreated has another. Empty if unknown.
    topic_id: str = ""
    # KIP-320, of the last record before the offset: a log that was truncated there has a later one.
    leader_epoch: int | None = None


class Position(NamedTuple):
    """The next offset of a partition to be committed, with the metadata kept beside it."""

    topic: str
    partition: int
    offset: int
    metadata: str = ""
    log: Log = Log()  # that `offset` counts in, as far as that was kept


GapCause = Literal["retention", "recreated", "truncated"]


class Gap(NamedTuple):
    """Offsets from `first` up to before `end` that a reader cannot read any more. Not every offset is a
    record, so it is how many are lost at most."""

    topic: str
    partition: int
    first: int
    end: int
    cause: GapCause


def position_of(record: Record) -> Origin:
    """The record's own position. Raises ValueError if it was never in a log."""
    topic, partition, offset = record.topic(), record.partition(), record.offset()
    if topic is None or partition is None or offset is None:
        raise ValueError("a record that was not consumed has no position")
    return Origin(topic, partition, offset)


def headers_of(record: Record) -> Headers:
    """The record's headers; none where the client cannot decode their names as UTF-8."""
    try:
        return record.headers() or []
    except UnicodeDecodeError:
        return []


def last_header(headers: Sequence[tuple[str, bytes | None]], name: str) -> bytes | None:
    """The value of the last header of that name: what was added last counts."""
    for header, value in reversed(headers):
        if header == name:
            return value
    return None


def claimed_origin(record: Record) -> Origin | None:
    """Another position that the record claims to be a replay of: in its own topic, since nothing is
    replayed into another. Only the database knows whether that is true."""
    origin = Origin.parse(last_header(headers_of(record), ORIGIN_HEADER))
    if origin is None or origin.topic != record.topic() or origin == position_of(record):
        return None
    return origin


def any_headers(records: Iterable[Record]) -> bool:
    """Whether any record has headers, even such as the client cannot decode."""
    try:
        # A list takes half the time that `methodcaller` would.
        return any([record.headers() for record in records])  # noqa: C419
    except UnicodeDecodeError:
        return True


def derived_headers(
    topic: str,
    partition: int,
    records: Sequence[Record],
    topic_id: str,
    passed_on: Callable[[Headers], Headers] = lambda _headers: [],
) -> list[Headers]:
    """The headers of what is derived from each record of a partition: its own identity, the one that it
    claims, if any, those of its headers that are `passed_on`, and the id of its topic, if that is known."""
    more = topic_id_header(topic_id)
    place = f"{topic}/{partition}/".encode()
    own = [b"%b%d" % (place, record.offset() or 0) for record in records]
    if not any_headers(records):
        return [[(ORIGIN_HEADER, each), *more] for each in own]
    return [
        [*_identity(record, each), *passed_on(headers_of(record)), *more]
        for record, each in zip(records, own, strict=True)
    ]


def _identity(record: Record, own: bytes) -> Headers:
    claimed = claimed_origin(record)
    if claimed is None:
        return [(ORIGIN_HEADER, own)]
    return [(ORIGIN_HEADER, claimed.encode()), (SOURCE_HEADER, own)]


def topic_id_header(topic_id: str) -> Headers:
    """Of records derived from a topic; none where the broker knows no ids."""
    return [(TOPIC_ID_HEADER, topic_id.encode())] if topic_id else []


def set_aside_name(topic: str, *topic_ids: str) -> str:
    """The name under which rows of a recreated topic are kept. No topic can have it."""
    return f"{topic}@{'+'.join(sorted(topic_ids))}"


def in_its_topic(position: Origin, topic_id: bytes | None, current: Mapping[str, str]) -> Origin:
    """A position that a derived record or a dead letter names, under the name of the topic that it counts
    in: if that was an earlier topic of the same name, the one that its rows were set aside under.

    Args:
        topic_id: of the topic that the worker had read; None from an older release.
        current: ids of the topics now. Of a topic that does not exist nothing is known.
    """
    now = current.get(position.topic)
    if not topic_id or not now or topic_id == now.encode() or not _TOPIC_ID.fullmatch(topic_id):
        return position
    return position._replace(topic=set_aside_name(position.topic, topic_id.decode()))


def attempt_of(headers: Headers) -> int:
    """How often this record claims to have been replayed; 0 for a first-hand one."""
    raw = last_header(headers, ATTEMPT_HEADER)
    if raw is None or not raw.isdigit() or len(raw) > _LONGEST_ATTEMPT:
        return 0
    return int(raw)
