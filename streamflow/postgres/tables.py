"""What the tables look like. Pure: nothing here talks to a database.

Those of the streams follow from their contracts; the shared ones are declared here, once: their rows,
COPY and the test of the schema derive from the declaration.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    NamedTuple,
    get_args,
    get_origin,
    get_type_hints,
)

from streamflow.errors import ConfigurationError
from streamflow.postgres.column_types import JSON, column_type
from streamflow.stream import Stream
from streamflow.trace_context import TRACEPARENT

# What the loader adds to the contract's fields.
_ORIGIN: Final = ("origin_topic", "origin_partition", "origin_offset")
ORIGIN_COLUMNS: Final = dict(zip(_ORIGIN, ("text", "integer", "bigint"), strict=True))
UNKNOWN_FIELDS: Final = "unknown_fields"  # what the contract does not declare, if that is kept
DELETED: Final = "deleted"  # whether a change of an upsert stream deletes the row of its key
# What each table of PostgreSQL has besides its columns.
_SYSTEM_COLUMNS: Final = frozenset(("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"))
_LONGEST_NAME: Final = 63  # bytes; PostgreSQL cuts the rest off
# PostgreSQL's tables have 1,600; the loader's temporary ones have up to four besides (`sink.replayed`).
_MOST_COLUMNS: Final = 1_596
TIME_COLUMNS: Final = dict.fromkeys(("appended_at", "loaded_at"), "timestamp with time zone")

_SCALARS: Final[dict[Any, str]] = {
    int: "bigint",
    str: "text",
    bool: "boolean",
    bytes: "bytea",
    datetime: "timestamp with time zone",
}
RECORD_COLUMNS: Final = ("record_topic", "record_partition", "record_offset")


class SqlType(str):
    """The type of a column if it does not follow from that of its values."""

    __slots__ = ()


_Integer = Annotated[int, SqlType("integer")]
_Json = Annotated[list[Any], SqlType("jsonb")]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an event table; `type` as PostgreSQL's ``format_type`` spells it."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """How rows are loaded into a table."""

    name: str
    columns: tuple[str, ...]  # of a row, in that order
    position: tuple[str, str, str]  # columns with the position of the record behind a row
    identity: tuple[str, str, str]  # columns with what the row is about: topic, partition, offset
    event_type: str | None = None  # column of what the event is counted by
    event_time: str | None = None  # column of the event time
    deletes: bool = False  # whether a row may be a tombstone, which is no event
    by_day: bool = False  # whether its rows, which are no events, are in partitions by day
    types: tuple[
        str, ...
    ] = ()  # of the columns, without precision; of tables that take binary rows

    @property
    def holds_events(self) -> bool:
        """Whether a row is about its own record, and not about another one."""
        return self.position == self.identity


class WindowCountRow(NamedTuple):
    window_start: datetime
    window_end: datetime
    event_type: str
    count: int  # type: ignore[assignment]  # no row is searched for values
    partition: _Integer
    late: bool
    first_offset: int
    last_offset: int
    origin_topic: str
    record_topic: str
    record_partition: _Integer
    record_offset: int
    appended_at: datetime | None


class NotificationRow(NamedTuple):
    message: str
    time: datetime
    event_id: int
    user: str
    origin_topic: str
    origin_partition: _Integer
    origin_offset: int
    record_topic: str
    record_partition: _Integer
    record_offset: int
    appended_at: datetime | None


class DeadLetterRow(NamedTuple):
    """Source is the record that failed, record the dead letter itself."""

    source_topic: str
    source_partition: _Integer
    source_offset: int
    origin_topic: str
    origin_partition: _Integer
    origin_offset: int
    record_topic: str
    record_partition: _Integer
    record_offset: int
    error_code: str
    stage: str
    group_name: str
    exception: str
    message: str
    attempt: _Integer
    redacted: bool
    failed_at: datetime | None
    key: bytes | None
    value: bytes | None
    headers: _Json
    appended_at: datetime | None


class IgnoredRecordRow(NamedTuple):
    topic: str
    partition: _Integer
    offset: int
    appended_at: datetime | None


class RefusedEventRow(NamedTuple):
    """What the windows count of an event that is in no table."""

    topic: str
    partition: _Integer
    offset: int
    event_type: str | None
    event_time: datetime | None
    appended_at: datetime | None


WINDOW_COUNTS: Final = Table(
    name="window_counts",
    columns=WindowCountRow._fields,
    position=RECORD_COLUMNS,
    identity=("origin_topic", "partition", "first_offset"),
    event_type="event_type",
    event_time="window_start",
)
NOTIFICATIONS: Final = Table(
    name="notifications",
    columns=NotificationRow._fields,
    position=RECORD_COLUMNS,
    identity=_ORIGIN,
    event_time="time",
)
DEAD_LETTERS: Final = Table(
    name="dead_letters",
    columns=DeadLetterRow._fields,
    position=RECORD_COLUMNS,
    identity=("source_topic", "source_partition", "source_offset"),
)
# Only the sink writes it, and only the audit reads it.
REFUSED_EVENTS: Final = Table(
    name="refused_events",
    columns=RefusedEventRow._fields,
    position=("topic", "partition", "offset"),
    identity=("topic", "partition", "offset"),
)

# Only the audit reads it.
IGNORED_RECORDS: Final = Table(
    name="ignored_records",
    columns=IgnoredRecordRow._fields,
    position=("topic", "partition", "offset"),
    identity=("topic", "partition", "offset"),
)

SHARED: Final = (WINDOW_COUNTS, NOTIFICATIONS, DEAD_LETTERS)
# What they hold, for those who read them.
SHARED_DESCRIPTIONS: Final = {
    WINDOW_COUNTS.name: "Events counted in windows; a window's total is the sum of its rows.",
    NOTIFICATIONS.name: "One notification for each valid event.",
    DEAD_LETTERS.name: "Records that broke their contract, with the cause; addresses are hashed.",
}


class ColumnFaults(ConfigurationError):
    """Some fields of a stream cannot have columns; a sentence for each."""

    def __init__(self, stream: str, faults: Sequence[str]) -> None:
        super().__init__(f"stream {stream}: {'; '.join(faults)}")
        self.faults = tuple(faults)


def event_columns(stream: Stream) -> tuple[Column, ...]:
    """The columns of the table with a stream's events: the contract's fields, then what the loader knows.
    Of an upsert stream all may be null that a tombstone does not have. Raises ColumnFaults if models of
    the contract disagree about a field, no column can hold it or have its name, or a table cannot have so
    many."""
    upserts = stream.mode == "upsert"
    columns: dict[str, Column] = {}
    faults: list[str] = []
    models, decoder = stream.decoder.models, stream.decoder
    for model in models:
        for name, schema in decoder.fields_of(model).items():
            if fault := _name_fault(name, stream):
                faults.append(
                    f"the field name {name[:80]} {fault}; rename it, and keep the name in JSON "
                    "with Field(alias=…)"
                )
                continue
            kind = column_type(schema, decoder.definitions)
            if kind is None:
                faults.append(
                    f"no column can hold {model.__name__}.{name}: give it a type that has a JSON form, "
                    "like str, Decimal, UUID, datetime, a model or a list"
                )
                continue
            known = columns.get(name)
            if known is not None and known.type != kind:
                faults.append(
                    f"the field {name} is {known.type} in one model and {kind} in another; give one of "
                    "them another name"
                )
                continue
            absent = any(name not in other.model_fields for other in models)
            nullable = decoder.definitions.is_nullable(schema) or absent
            columns[name] = Column(name, kind, nullable or (known is not None and known.nullable))
    if faults:
        raise ColumnFaults(stream.name, list(dict.fromkeys(faults)))
    columns |= _columns_by_choice(stream)
    if upserts:
        kept = {stream.event_time, *stream.primary_key}
        columns = {
            name: column if name in kept else replace(column, nullable=True)
            for name, column in columns.items()
        }
        columns[DELETED] = Column(DELETED, "boolean", nullable=False)
    own = [Column(name, kind, nullable=False) for name, kind in ORIGIN_COLUMNS.items()]
    times = [Column(name, kind, name == "appended_at") for name, kind in TIME_COLUMNS.items()]
    if (count := len(columns) + len(own) + len(times)) > _MOST_COLUMNS:
        fault = (
            f"its table would have {count:,} columns, and PostgreSQL has room for {_MOST_COLUMNS:,}: put "
            "fields into a nested model or a dict, which is one column"
        )
        raise ColumnFaults(stream.name, [fault])
    return (*columns.values(), *own, *times)


def _columns_by_choice(stream: Stream) -> dict[str, Column]:
    """The columns besides those of fields that a declaration asks for."""
    columns = {}
    if stream.unknown_fields == "keep":
        columns[UNKNOWN_FIELDS] = Column(UNKNOWN_FIELDS, JSON, nullable=True)
    if stream.trace:
        columns[TRACEPARENT] = Column(TRACEPARENT, "text", nullable=True)
    return columns


def _name_fault(name: str, stream: Stream) -> str | None:
    """Why a column cannot have the name of a field; None if it can."""
    reserved = {UNKNOWN_FIELDS, *ORIGIN_COLUMNS, *TIME_COLUMNS}
    reserved |= {DELETED} if stream.mode == "upsert" else set()
    reserved |= {TRACEPARENT} if stream.trace else set()
    if name in reserved:
        return "is taken by the loader"
    if name in _SYSTEM_COLUMNS:
        return "is that of a system column of PostgreSQL"
    if len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME:
        return f"is longer than {_LONGEST_NAME} bytes, and PostgreSQL cuts it off"
    return None


def event_table(stream: Stream) -> Table:
    """How the rows of a stream's events are loaded. The event time and what follows it come last in a
    line: that part is made in one step."""
    types = {column.name: column.type.partition("(")[0] for column in event_columns(stream)}
    last = (TRACEPARENT,) if stream.trace else ()
    taken = {stream.event_time, *ORIGIN_COLUMNS, *TIME_COLUMNS, *last}
    columns = (
        *(name for name in types if name not in taken),
        stream.event_time, "origin_offset", "origin_topic", "origin_partition", "appended_at", *last,
    )  # fmt: skip
    return Table(
        name=stream.event_table,
        columns=columns,
        types=tuple(map(types.__getitem__, columns)),
        position=_ORIGIN,
        identity=_ORIGIN,
        event_type=stream.kind_field,
        event_time=stream.event_time,
        deletes=stream.mode == "upsert",
    )


def tables_of_topics(streams: Sequence[Stream]) -> dict[str, Table]:
    """The table that the records of each topic are loaded into."""
    tables: dict[str, Table] = {}
    for stream in streams:
        tables[stream.topic] = event_table(stream)
        tables[stream.analytics_topic] = WINDOW_COUNTS
        tables[stream.notifications_topic] = NOTIFICATIONS
        tables[stream.dead_letter_topic] = DEAD_LETTERS
    return tables


def _column_type(annotation: Any) -> str:
    """The PostgreSQL type of a field of a row declared here."""
    outer = get_origin(annotation)
    if outer is Annotated:
        kind, *notes = get_args(annotation)
        declared = next((str(note) for note in notes if isinstance(note, SqlType)), None)
        return declared or _column_type(kind)
    if outer is UnionType:
        return next(_column_type(kind) for kind in get_args(annotation) if kind is not NoneType)
    return _SCALARS[annotation]


def _types(row: type[tuple[Any, ...]], **filled: str) -> dict[str, str]:
    hints = get_type_hints(row, include_extras=True)
    return {name: _column_type(hint) for name, hint in hints.items()} | filled


_LOADED_AT: Final = TIME_COLUMNS["loaded_at"]
# Of each shared table; those that the database fills in come last.
SHARED_COLUMNS: Final[dict[str, dict[str, str]]] = {
    WINDOW_COUNTS.name: _types(WindowCountRow, loaded_at=_LOADED_AT),
    NOTIFICATIONS.name: _types(NotificationRow, loaded_at=_LOADED_AT),
    DEAD_LETTERS.name: _types(DeadLetterRow, status="text", loaded_at=_LOADED_AT),
}
