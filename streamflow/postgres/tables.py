"""What the tables look like: those of the streams from their contracts, the shared ones as fixed.

Pure: nothing here talks to a database.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from streamflow.errors import ConfigurationError
from streamflow.stream import Stream

# What the loader adds to the contract's fields.
ORIGIN_COLUMNS: Final = {
    "origin_topic": "text",
    "origin_partition": "integer",
    "origin_offset": "bigint",
}
TIME_COLUMNS: Final = {
    "appended_at": "timestamp with time zone",
    "loaded_at": "timestamp with time zone",
}

_SCALARS: Final[dict[Any, str]] = {
    int: "bigint",
    str: "text",
    bool: "boolean",
    float: "double precision",
    datetime: "timestamp with time zone",
}
_RECORD: Final = ("record_topic", "record_partition", "record_offset")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an event table; `type` as PostgreSQL's ``format_type`` spells it."""

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What the sink must know of a table that rows are loaded into.

    Attributes:
        columns: of a line of COPY text, in that order.
        position: the columns that hold the position of the record behind a row.
        identity: the columns that hold what the row is about: topic, partition, offset.
        event_type: the column, if any, that tells what the event is counted by.
        event_time: the column, if any, that tells the event time.
    """

    name: str
    columns: tuple[str, ...]
    position: tuple[str, str, str]
    identity: tuple[str, str, str]
    event_type: str | None = None
    event_time: str | None = None

    @property
    def holds_events(self) -> bool:
        """Whether a row is about the record that told it, and not about another one."""
        return self.position == self.identity


WINDOW_COUNTS: Final = Table(
    name="window_counts",
    columns=(
        "window_start", "window_end", "event_type", "count", "partition", "late", "first_offset",
        "last_offset", "origin_topic", *_RECORD, "appended_at",
    ),
    position=_RECORD,
    identity=("origin_topic", "partition", "first_offset"),
    event_type="event_type",
    event_time="window_start",
)  # fmt: skip

NOTIFICATIONS: Final = Table(
    name="notifications",
    columns=(
        "message", "time", "event_id", "user", "origin_topic", "origin_partition", "origin_offset",
        *_RECORD, "appended_at",
    ),
    position=_RECORD,
    identity=("origin_topic", "origin_partition", "origin_offset"),
    event_time="time",
)  # fmt: skip

DEAD_LETTERS: Final = Table(
    name="dead_letters",
    columns=(
        "source_topic", "source_partition", "source_offset", "origin_topic", "origin_partition",
        "origin_offset", *_RECORD, "error_code", "stage", "group_name", "exception", "message",
        "attempt", "redacted", "failed_at", "key", "value", "headers", "appended_at",
    ),
    position=_RECORD,
    identity=("source_topic", "source_partition", "source_offset"),
)  # fmt: skip

SHARED: Final = (WINDOW_COUNTS, NOTIFICATIONS, DEAD_LETTERS)


def event_columns(stream: Stream) -> tuple[Column, ...]:
    """The columns of a stream's table: the contract's fields, then what the loader knows.

    Raises:
        ConfigurationError: two models of the contract disagree about a field, or a field has the
            name of one of the loader's columns.
    """
    columns: dict[str, Column] = {}
    models = stream.decoder.models
    for model in models:
        for name, field in model.model_fields.items():
            if name in ORIGIN_COLUMNS or name in TIME_COLUMNS:
                raise ConfigurationError(
                    f"stream {stream.name}: the field name {name} is taken by the loader; rename it"
                )
            kind, nullable = column_type(field.annotation)
            known = columns.get(name)
            if known is not None and known.type != kind:
                raise ConfigurationError(
                    f"stream {stream.name}: the field {name} is {known.type} in one model and "
                    f"{kind} in another; give one of them another name"
                )
            absent = any(name not in other.model_fields for other in models)
            nullable = nullable or absent or (known is not None and known.nullable)
            columns[name] = Column(name, kind, nullable)
    own = [Column(name, kind, nullable=False) for name, kind in ORIGIN_COLUMNS.items()]
    times = [Column(name, kind, name == "appended_at") for name, kind in TIME_COLUMNS.items()]
    return (*columns.values(), *own, *times)


def event_table(stream: Stream) -> Table:
    """How the rows of a stream's events are loaded. The time stamp and what follows it stand last
    in a line: that part is made in one go."""
    fields = [column.name for column in event_columns(stream)]
    taken = {"timestamp", *ORIGIN_COLUMNS, *TIME_COLUMNS}
    return Table(
        name=stream.table,
        columns=(
            *(name for name in fields if name not in taken),
            "timestamp", "origin_offset", "origin_topic", "origin_partition", "appended_at",
        ),
        position=("origin_topic", "origin_partition", "origin_offset"),
        identity=("origin_topic", "origin_partition", "origin_offset"),
        event_type=stream.windows.group_by if stream.windows is not None else "type",
        event_time="timestamp",
    )  # fmt: skip


def tables_of_topics(streams: Sequence[Stream]) -> dict[str, Table]:
    """The table that the records of each topic are loaded into."""
    tables: dict[str, Table] = {}
    for stream in streams:
        tables[stream.topic] = event_table(stream)
        tables[stream.analytics_topic] = WINDOW_COUNTS
        tables[stream.notifications_topic] = NOTIFICATIONS
        tables[stream.dead_letter_topic] = DEAD_LETTERS
    return tables


def column_type(annotation: Any) -> tuple[str, bool]:
    """The PostgreSQL type that holds a field, and whether it may be null."""
    outer = get_origin(annotation)
    if outer is Annotated:
        return column_type(get_args(annotation)[0])
    if outer is Literal:
        kinds = {type(value) for value in get_args(annotation)}
        return (_SCALARS.get(kinds.pop(), "jsonb") if len(kinds) == 1 else "jsonb"), False
    if outer in (Union, UnionType):
        members = get_args(annotation)
        found = {column_type(member)[0] for member in members if member is not NoneType}
        return (found.pop() if len(found) == 1 else "jsonb"), NoneType in members
    return _SCALARS.get(annotation, "jsonb"), False
