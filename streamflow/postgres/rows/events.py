"""From values to lines of COPY text (https://www.postgresql.org/docs/current/sql-copy.html). Pure.

The line of an event is made for every record, so what can be decided once is decided here: templates for
each model, texts of days and minutes, and which values could need more than ``%s``.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from types import NoneType
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic_core import to_json

from streamflow.contract import MINUTES, PYDANTIC_UTC, SECONDS, Event
from streamflow.core_schema import parts_of, values_of
from streamflow.groups import decimal_text
from streamflow.pii_keys import PiiKeys
from streamflow.postgres.column_types import JSON
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

# Core schemas of fields whose text needs no escaping, if the JSON of the record holds no backslash.
_PLAIN: Final = frozenset(("default", "nullable", "str", "int", "literal"))

# What follows the fields: day, minute, second, microsecond, offset, and the text of `tail`.
TIME_AND_POSITION: Final = "%s%s%s%s%06d+00\t%d%s"


class DayTexts(dict[int, str]):
    """The texts of days, by their ordinal, made on first use. Its keys are the days of a batch, so it
    lives as long as a batch."""

    def __missing__(self, ordinal: int) -> str:
        text = self[ordinal] = date.fromordinal(ordinal).isoformat() + " "
        return text

    def days(self) -> set[date]:
        return {date.fromordinal(ordinal) for ordinal in self}


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


def tail(topic: str, partition: int, appended: tuple[int, int]) -> str:
    """The end of an event's line, equal for the records that the broker appended together."""
    return f"\t{topic}\t{partition}\t{text_of(appended_at(appended))}\n"


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


class RowTemplate(NamedTuple):
    """How the fields of one model become the beginning of a line."""

    get: Callable[[Event], tuple[Any, ...]]  # the fields of an event
    template: str  # ``template % get(event)`` is the text, if nothing in it needs escaping
    needs_escaping: bool  # whether values may need escaping whatever the record looks like

    def to_text(self) -> "ToText":
        """Makes that beginning, of an event and the bytes of its record, None if they are not known."""
        get, template, needs_escaping = self

        def to_text(event: Event, value: bytes | None) -> str:
            values = get(event)
            if not needs_escaping and value is not None and b"\\" not in value:
                text = template % values
                if "None" not in text:
                    return text
            return template % tuple(map(text_of, values))

        return to_text


ToText = Callable[[Event, bytes | None], str]


class EventRows:
    """Makes the rows of one stream's events; with `keys`, hashes of older keys as the newest has them."""

    def __init__(self, stream: Stream, keys: PiiKeys | None = None) -> None:
        self.table = event_table(stream)
        self._primary_key = stream.primary_key
        columns = {column.name: column for column in event_columns(stream)}
        fields = [columns[name] for name in self.table.columns if name in columns]
        fields = fields[: self.table.columns.index(stream.event_time)]
        self._fields = [column.name for column in fields]
        self._time_of = stream.time_of
        # A format's records hold tabs as they are, and validators and default factories make any text.
        escapes = stream.decode is not None or stream.fault_of is not None
        self.templates: dict[type[Event], RowTemplate] = {
            model: _template(model, stream.decoder.fields_of(model), fields, escapes=escapes)
            for model in stream.decoder.models
        }
        if keys is not None and stream.decoder.private_fields:
            hasher = Hasher(keys, stream.decoder.private_fields)
            for model, template in self.templates.items():
                lifts = [
                    _lift_of(
                        column, hasher, is_private=column.name in stream.decoder.private_fields
                    )
                    for column in fields
                    if column.name in model.model_fields
                ]
                self.templates[model] = template._replace(get=_lifting(template.get, lifts))
        self.to_text: dict[type[Event], ToText] = {
            model: template.to_text() for model, template in self.templates.items()
        }

    def deletion_line(
        self, deletion: Deletion, identity: Origin, appended: tuple[int, int]
    ) -> bytes:
        """The line of a tombstone: it happened when the broker appended it."""
        values = dict(zip(self._primary_key, deletion.key, strict=True)) | {DELETED: True}
        fields = "".join(f"{text_of(values.get(name))}\t" for name in self._fields)
        moment = time_text(deletion_time(appended))
        ending = tail(identity.topic, identity.partition, appended)
        return f"{fields}{moment}\t{identity.offset}{ending}".encode()

    def line(
        self,
        event: Event,
        identity: Origin,
        appended: tuple[int, int],
        value: bytes | None = None,
    ) -> bytes:
        """The line of one event, which was read from the bytes `value`; the loop over many has this
        inlined."""
        moment = in_utc(self._time_of(event))
        text = TIME_AND_POSITION % (
            self.to_text[type(event)](event, value),
            f"{date(moment.year, moment.month, moment.day).isoformat()} ",
            MINUTES[moment.hour * 60 + moment.minute],
            SECONDS[moment.second],
            moment.microsecond,
            identity.offset,
            tail(identity.topic, identity.partition, appended),
        )
        return text.encode()


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC. The contract leaves room for every offset (``contract.EARLIEST``)."""
    return moment if moment.tzinfo is PYDANTIC_UTC else moment.astimezone(UTC)


def _template(
    model: type[Event], schemas: Mapping[str, Any], fields: Sequence[Column], *, escapes: bool
) -> RowTemplate:
    present = [
        column
        for column in fields
        if column.name in model.model_fields or column.name == UNKNOWN_FIELDS
    ]
    # A field that this model lacks is null in each of its rows.
    absent = {DELETED: "f\t"}
    template = "".join(
        "%s\t" if column in present else absent.get(column.name, f"{NULL}\t") for column in fields
    )
    simple = {"bigint", "text"}
    # JSON without a backslash holds nothing that COPY escapes.
    plain = all(column.type in simple and _is_plain(schemas[column.name]) for column in present)
    documents = any(column.type == JSON for column in present)
    get = _Documents(model, present) if documents else _getter([column.name for column in present])
    return RowTemplate(get, template, escapes or not plain)


def _is_plain(schema: Any) -> bool:
    return all(
        part["type"] in _PLAIN
        and "default_factory" not in part
        and all(map(_is_plain_value, (part.get("default"), *values_of(part))))
        for part in parts_of(schema)
    )


def _is_plain_value(value: Any) -> bool:
    """Whether a value of the declaration, which stands in no record, is the same in COPY text."""
    if type(value) is str:
        return _escaped(value) == value
    return value is None or type(value) is int


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
