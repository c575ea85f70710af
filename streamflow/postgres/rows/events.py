"""From values to rows for COPY (https://www.postgresql.org/docs/current/sql-copy.html). Pure.

The rows of events are binary (`packing`). Lines of text say the same, for what is rare: replays, and all that
the database has refused or that is looked into; and what has no certain binary form.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from types import NoneType
from typing import Any, Final
from uuid import UUID

import msgspec
from pydantic_core import to_json

from streamflow.contract import Event
from streamflow.core_schema import parts_of, values_of
from streamflow.groups import decimal_text
from streamflow.pii_keys import PiiKeys
from streamflow.postgres.column_types import JSON
from streamflow.postgres.rows.binary import NULL_FIELD, fields_of, format_of, pack_moment
from streamflow.postgres.rows.packing import PackedColumn, PackRows, packer, tail_of
from streamflow.postgres.tables import (
    DELETED,
    UNKNOWN_FIELDS,
    Column,
    IgnoredRecordRow,
    event_columns,
    event_table,
)
from streamflow.privacy import Hasher
from streamflow.records import Origin, Record, position_of
from streamflow.stream import Stream
from streamflow.tombstones import Deletion

NULL: Final = r"\N"
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Core schemas of fields whose values are exactly texts or whole numbers, or None.
_SIMPLE: Final = frozenset(("default", "nullable", "str", "int", "literal"))


def text_of(value: Any) -> str:
    """A value of any kind as COPY text; `%s` is faster for those that never need more."""
    to_text = _TO_TEXT.get(type(value))
    if to_text is not None:
        return to_text(value)
    if isinstance(value, Enum):
        return text_of(value.value)
    for kind, to_text in _TO_TEXT.items():
        if isinstance(value, kind):
            return to_text(value)
    return _escaped(str(value))


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


def time_text(moment: datetime) -> str:
    """A time as COPY text, in UTC: PostgreSQL knows no offsets beyond 15:59."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone is another one on each machine")
    try:
        return moment.astimezone(UTC).isoformat(" ")
    except OverflowError:  # the first or last hours of the calendar
        return moment.isoformat(" ")


_TO_TEXT: Final[dict[type, Callable[[Any], str]]] = {
    str: _escaped,
    int: repr,
    NoneType: lambda _: NULL,
    datetime: time_text,
    bool: lambda value: "true" if value else "false",
    float: repr,
    bytes: lambda value: rf"\\x{value.hex()}",
    Decimal: decimal_text,
    UUID: str,
    date: date.isoformat,
    time: time.isoformat,
    list: lambda value: _escaped(to_json(value).decode()),
    dict: lambda value: _escaped(to_json(value).decode()),
    timedelta: lambda span: f"{span.days} days {span.seconds}.{span.microseconds:06d} seconds",
}


def appended_at(kind_and_time: tuple[int, int]) -> datetime | None:
    """The broker's time stamp of a record, in milliseconds, as a time; None if there is none, or no date
    (a topic with ``CreateTime`` takes any number from its producers)."""
    kind, milliseconds = kind_and_time
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds) if kind else None
    except OverflowError:
        return None


def line_of(values: Sequence[Any]) -> bytes:
    """A whole line, from values of any kind. Lone surrogates become ``?``: PostgreSQL has none."""
    texts = [*map(text_of, values)]
    texts[-1] += "\n"
    line = "\t".join(texts)
    # Of a dead letter they may be tens of megabytes.
    del texts
    return line.encode("utf-8", "replace")


def deletion_time(appended: tuple[int, int]) -> datetime:
    """The event time of a tombstone. The same whenever it is read, since it is part of the row's key."""
    return appended_at(appended) or _EPOCH


def ignored_line(record: Record) -> bytes:
    return line_of(IgnoredRecordRow(*position_of(record), appended_at(record.timestamp())))


class _Documents:
    """The fields of an event, with those of ``jsonb`` columns as JSON text: in the form that the contract
    gives them, with the names that they have in JSON."""

    def __init__(self, model: type[Event], columns: Sequence[Column]) -> None:
        self._names = [column.name for column in columns]
        self._jsons = {
            column.name: (model.model_fields[column.name].serialization_alias or column.name)
            for column in columns
            if column.type == JSON and column.name in model.model_fields
        }
        self._nullable = {column.name for column in columns if column.nullable}
        self._serializer = model.__pydantic_serializer__

    def __call__(self, event: Event) -> tuple[Any, ...]:
        document = self._serializer.to_python(
            event, mode="json", by_alias=True, include=set(self._jsons), warnings=False
        )
        return tuple(self._value(event, name, document) for name in self._names)

    def _value(self, event: Event, name: str, document: Mapping[str, Any]) -> Any:
        if name == UNKNOWN_FIELDS:
            return to_json(event.__pydantic_extra__ or {}).decode()
        value = getattr(event, name)
        if name not in self._jsons or (value is None and name in self._nullable):
            return value
        return to_json(document[self._jsons[name]]).decode()


class EventRows:
    """Makes the rows of one stream's events; with `keys`, hashes of older keys as the newest has them.

    Attributes:
        table: that they go into.
        trace: whether rows keep the trace of their record.
        packers: what makes binary rows of events, by their type.
    """

    def __init__(self, stream: Stream, keys: PiiKeys | None = None) -> None:
        self.table = event_table(stream)
        self._topic = stream.topic
        self.trace = stream.trace
        self._primary_key = stream.primary_key
        columns = {column.name: column for column in event_columns(stream)}
        self._formats = [format_of(columns[name].type) for name in self.table.columns]
        fields = [columns[name] for name in self.table.columns if name in columns]
        self._fields = fields[: self.table.columns.index(stream.event_time)]
        self._time_of = stream.time_of
        private = stream.decoder.private_fields
        hasher = Hasher(keys, private) if keys is not None and private else None
        self._getters = {
            model: _getter_of(model, self._present(model), hasher, private)
            for model in stream.decoder.models
        }
        self.packers = self._packers(stream)

    def _present(self, model: type[Event]) -> list[Column]:
        """The columns of a model's own fields; the others are null in each of its rows."""
        return [
            column
            for column in self._fields
            if column.name in model.model_fields or column.name == UNKNOWN_FIELDS
        ]

    def _packers(self, stream: Stream) -> dict[type, PackRows]:
        width, packers = len(self.table.columns), dict[type, PackRows]()
        for model, get in self._getters.items():
            present = self._present(model)
            schemas = stream.decoder.fields_of(model)
            packed = [
                PackedColumn(column, is_simple=_is_simple(schemas.get(column.name)))
                if column in present
                else PackedColumn(column, constant=_ABSENT.get(column.name, NULL_FIELD))
                for column in self._fields
            ]
            packers[model] = packer(packed, get, width)
            for fields, plain in _types_of_fields(stream, model):
                own_get = get and _of_fields(get, model, present, plain)
                packers[fields] = packer(packed, own_get, width)
        if self._primary_key:
            key = {name: index for index, name in enumerate(self._primary_key)}
            packed = [
                PackedColumn(column)
                if column.name in key
                else PackedColumn(column, constant=_OF_DELETION.get(column.name, NULL_FIELD))
                for column in self._fields
            ]
            order = [key[column.name] for column in self._fields if column.name in key]
            packers[Deletion] = packer(
                packed, lambda deletion: tuple(deletion.key[index] for index in order), width
            )
        return packers

    def pack(
        self,
        events: Sequence[Any],
        times: Sequence[int],
        offsets: Sequence[int],
        tails: Sequence[bytes],
    ) -> list[bytes]:
        """The binary rows of events, or of what `Stream.read_all` makes of them. Raises one of
        `binary.UNPACKABLE` if one of them has no certain binary form."""
        kinds = [*map(type, events)]
        if len(set(kinds)) == 1:
            return self.packers[kinds[0]](events, times, offsets, tails)
        rows = [b""] * len(events)
        for kind in set(kinds):
            chosen = [index for index, each in enumerate(kinds) if each is kind]
            packed = self.packers[kind](
                [events[index] for index in chosen],
                [times[index] for index in chosen],
                [offsets[index] for index in chosen],
                [tails[index] for index in chosen],
            )
            for index, row in zip(chosen, packed, strict=True):
                rows[index] = row
        return rows

    def tails(self, partition: int, stamps: Iterable[tuple[int, int]]) -> list[bytes]:
        """The ends of the rows of a partition's records, by their time stamps; without their traces, which
        `traced` adds."""
        last, tail, tails = (0, -1), self._tail(partition, (0, -1)), []
        for stamp in stamps:
            if stamp != last:
                last, tail = stamp, self._tail(partition, stamp)
            tails.append(tail)
        return tails

    @staticmethod
    def traced(tails: Iterable[bytes], traces: Iterable[bytes | None]) -> list[bytes]:
        """The ends of rows with the traces of their records."""
        return [tail + tail_of([trace]) for tail, trace in zip(tails, traces, strict=True)]

    def _tail(self, partition: int, stamp: tuple[int, int]) -> bytes:
        appended = appended_at(stamp)
        moment = None if appended is None else pack_moment(appended)
        return tail_of([self._topic.encode(), partition.to_bytes(4, "big"), moment])

    def to_line(self, row: bytes) -> bytes:
        """The line that says the same as a binary row."""
        return line_of(
            [
                None if field is None else form.unpack(field)
                for form, field in zip(self._formats, fields_of(row), strict=True)
            ]
        )

    def deletion_line(
        self,
        deletion: Deletion,
        identity: Origin,
        appended: tuple[int, int],
        trace: bytes | None = None,
    ) -> bytes:
        """The line of a tombstone: it happened when the broker appended it."""
        values = dict(zip(self._primary_key, deletion.key, strict=True)) | {DELETED: True}
        fields = [values.get(column.name) for column in self._fields]
        return self._line(fields, deletion_time(appended), identity, appended, trace)

    def line(
        self,
        event: Event,
        identity: Origin,
        appended: tuple[int, int],
        trace: bytes | None = None,
    ) -> bytes:
        """The line of one event. `trace` is kept where rows keep it."""
        model, get = type(event), self._getters[type(event)]
        names = [column.name for column in self._present(model)]
        found = [getattr(event, name) for name in names] if get is None else get(event)
        values = {DELETED: False} | dict(zip(names, found, strict=True))
        fields = [values.get(column.name) for column in self._fields]
        return self._line(fields, self._time_of(event), identity, appended, trace)

    def _line(
        self,
        fields: Sequence[Any],
        moment: datetime,
        identity: Origin,
        appended: tuple[int, int],
        trace: bytes | None,
    ) -> bytes:
        topic, partition, offset = identity
        last = [trace and trace.decode()] if self.trace else []
        return line_of([*fields, moment, offset, topic, partition, appended_at(appended), *last])


# What stands in columns that are none of a model's fields.
_ABSENT: Final = {DELETED: tail_of([b"\x00"])}
_OF_DELETION: Final = {DELETED: tail_of([b"\x01"])}


def _types_of_fields(stream: Stream, model: type[Event]) -> list[tuple[type, set[str]]]:
    """What the fast decoder makes instead of events of a model, and the fields that it does not convert."""
    fast = stream.decoder.fast
    return (
        []
        if fast is None
        else [
            (kind, model.model_fields.keys() - fast.converted(kind))
            for kind, of in fast.types.items()
            if of is model
        ]
    )


def _of_fields(
    get: Callable[[Event], tuple[Any, ...]],
    model: type[Event],
    columns: Sequence[Column],
    plain: Collection[str],
) -> Callable[[Any], tuple[Any, ...]]:
    """As `get`, of the fields of an event alone. `plain` are those whose values msgspec has not converted."""
    names = [column.name for column in columns if column.name in model.model_fields]
    # The serializer knows dicts, but no structs of msgspec.
    documents = [column.name for column in columns if column.type == JSON and column.name in plain]

    def get_of_fields(fields: Any) -> tuple[Any, ...]:
        event = model.__new__(model)
        put = object.__setattr__
        values = {name: getattr(fields, name) for name in names}
        for name in documents:
            values[name] = msgspec.to_builtins(values[name])
        put(event, "__dict__", values)
        put(event, "__pydantic_fields_set__", set(names))
        put(event, "__pydantic_extra__", {})
        put(event, "__pydantic_private__", None)
        return get(event)

    return get_of_fields


def _is_simple(schema: Any) -> bool:
    """Whether the values of a field are exactly texts or whole numbers, or None."""
    return schema is not None and all(
        part["type"] in _SIMPLE
        and "default_factory" not in part
        and {type(value) for value in (part.get("default"), *values_of(part))}
        <= {str, int, NoneType}
        for part in parts_of(schema)
    )


def _getter_of(
    model: type[Event], columns: Sequence[Column], hasher: Hasher | None, private: Collection[str]
) -> Callable[[Event], tuple[Any, ...]] | None:
    """Reads the fields of an event as they are stored; None if they are its attributes."""
    get: Callable[[Event], tuple[Any, ...]] | None = None
    if any(column.type == JSON for column in columns):
        get = _Documents(model, columns)
    if hasher is None:
        return get
    lifts = [_lift_of(column, hasher, is_private=column.name in private) for column in columns]
    if not any(lifts):
        return get
    return _lifting(get or _getter([column.name for column in columns]), lifts)


def _lifting(
    get: Callable[[Event], tuple[Any, ...]], lifts: list[Callable[[Any], Any] | None]
) -> Callable[[Event], tuple[Any, ...]]:
    def get_lifted(event: Event) -> tuple[Any, ...]:
        pairs = zip(get(event), lifts, strict=True)
        return tuple(value if lift is None else lift(value) for value, lift in pairs)

    return get_lifted


def _lift_of(column: Column, hasher: Hasher, *, is_private: bool) -> Callable[[Any], Any] | None:
    lift = hasher.lifted if is_private else None
    if column.type != JSON:
        return lift

    def lift_within(text: str | None) -> str | None:
        return None if text is None else hasher.lift_within(text.encode()).decode()

    return lift_within


def _getter(names: list[str]) -> Callable[[Event], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    if names:
        return lambda event: (getattr(event, names[0]),)
    return lambda _event: ()
