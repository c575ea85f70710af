"""What is wrong with the declarations of streams, found before anything starts. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from itertools import combinations, product
from typing import Any, Final

from streamflow.argument_types import argument_faults
from streamflow.contract import Event
from streamflow.core_schema import fields_in, values_of
from streamflow.errors import ConfigurationError
from streamflow.exact_keys import inexact_keys
from streamflow.formats.user_functions import is_format, unknown_codes
from streamflow.names import POSITIONS_TOPIC, asset_name, collide, derives, table_fault, topic_fault
from streamflow.postgres.tables import ColumnFaults, event_columns
from streamflow.private_fields import clear_defaults, in_json_texts
from streamflow.stream import Stream
from streamflow.stream_topics import TopicSpec
from streamflow.window_names import window_name_clashes, window_name_faults
from streamflow.windows.declared import window_faults

# Types of columns that a primary key may have: equal values have one text, as the key of a record.
_KEY_TYPES: Final = frozenset(("text", "bigint", "numeric", "boolean", "uuid", "date"))
# Core schemas of fields that events can be counted by.
_COUNTABLE: Final = frozenset(("str", "int", "decimal", "bool", "uuid", "date", "literal", "enum"))
_ROLES_OF_FIELDS: Final = {
    "key": "the key",
    "event_time": "the event time",
    "by of its windows": "what events are counted by",
}
_SETTINGS: Final = {
    "retention.ms": "retention",
    "max.message.bytes": "largest record",
    "cleanup.policy": "cleanup policy",
}


def problems(stream: Stream, earlier: Sequence[Stream] = ()) -> list[str]:
    """Why a stream cannot work beside those that are declared before it, in a sentence each."""
    if wrong := [*argument_faults(stream)]:
        return wrong
    return [
        *_topics(stream),
        *_tables(stream),
        *_fields(stream),
        *_keys_of_dicts(stream),
        *_columns(stream),
        *window_faults(stream),
        *window_name_faults(stream),
        *_state(stream),
        *_format(stream),
        *(problem for other in earlier for problem in _clashes(stream, other)),
    ]


def _roles(stream: Stream) -> dict[str, str]:
    """A stream's topics, by what they hold."""
    return {
        "events": stream.topic,
        "window counts": stream.analytics_topic,
        "notifications": stream.notifications_topic,
        "dead letters": stream.dead_letter_topic,
    }


def _rename(role: str) -> str:
    if role == "events":
        return "rename the stream"
    return f'give it another one with Topics({_argument(role)}="…")'


def _argument(role: str) -> str:
    return "analytics" if role == "window counts" else role.replace(" ", "_")


def _topics(stream: Stream) -> Iterator[str]:
    roles = _roles(stream)
    positions = stream.prefix + POSITIONS_TOPIC
    for role, topic in roles.items():
        if fault := topic_fault(topic):
            yield f"the topic of its {role}, {topic[:80]}, {fault}: {_rename(role)}"
        elif topic == positions or collide(topic, positions):
            yield (
                f"the topic of its {role}, {topic}, is where StreamFlow keeps the workers' positions: "
                f"{_rename(role)}"
            )
    for (role, topic), (other_role, other) in combinations(roles.items(), 2):
        if topic == other:
            yield f"its {role} and its {other_role} would go into one topic, {topic}: {_rename(role)}"
        else:
            yield from _collision(role, topic, other)


def _collision(role: str, topic: str, other: str) -> Iterator[str]:
    if collide(topic, other):
        yield (
            f"the topics {topic} and {other} differ only in dots and _, which Kafka does not allow: "
            f"{_rename(role)}"
        )
    elif topic != other and asset_name(topic) == asset_name(other):
        yield (
            f"the topics {topic} and {other} are one asset in Dagster, {asset_name(topic)}: "
            f"{_rename(role)}"
        )


def _tables_of(stream: Stream) -> list[str]:
    """Its tables and views; the name of the declaration first."""
    return list(
        dict.fromkeys((stream.table, stream.event_table, stream.state_table or stream.table))
    )


def _tables(stream: Stream) -> Iterator[str]:
    for table in _tables_of(stream):
        if fault := table_fault(table):
            yield f"its table {table[:80]} {fault}: give it another name"
            break
    for rollup in stream.rollups:
        if fault := table_fault(rollup.table):
            yield f"the table {rollup.table[:80]} of its rollup {fault}: give it another name"
        elif any(
            rollup.table == table or derives(table, rollup.table) for table in _tables_of(stream)
        ):
            yield (
                f"the table {rollup.table} of its rollup has the name of its own table, or of a "
                "part of that: give one another name"
            )


def _fields(stream: Stream) -> Iterator[str]:
    """Fields that are named and do not exist, or cannot be what they are named for."""
    wanted = {
        "key": stream.key if isinstance(stream.key, str) else None,
        "event_time": stream.event_time,
        "by of its windows": stream.kind_field if stream.event_counts is not None else None,
    }
    for model in stream.decoder.models:
        for argument, name in wanted.items():
            if name is not None and name not in model.model_fields:
                yield _no_field(argument, name, model.__name__, list(model.model_fields))
        if stream.event_time in model.model_fields:
            yield from _event_time(stream, model)
        if (by := wanted["by of its windows"]) in model.model_fields:
            yield from _counted_by(stream, model, str(by))
        if wanted["key"] in model.model_fields:
            yield from _key(stream, model, str(wanted["key"]))
        yield from _differing_defaults(stream, model, wanted)
    yield from _bounds_without_a_zone(stream)
    for name in stream.private_fields:
        if name not in stream.decoder.names:
            yield _no_field("private_fields", name, "the contract", sorted(stream.decoder.names))
    for name in sorted(stream.decoder.private_not_of_texts):
        yield (
            f"{name} is a private field, so it must be a text, or a list of texts, which are hashed: declare "
            "it as Hashed or str; if it is a model, name the fields of that in private_fields instead"
        )
    yield from _private_fields(stream)


def _private_fields(stream: Stream) -> Iterator[str]:
    schema, private = stream.decoder.schema, stream.decoder.private_fields
    for name in sorted(clear_defaults(schema, private)):
        yield (
            f"the default of {name} is stored as it is, and holds a private field's text in clear: give it a "
            "hash, None, or no default"
        )
    texts_of_json = in_json_texts(schema, private) if private else set()
    for name in sorted(texts_of_json - stream.decoder.private_not_of_texts):
        yield (
            f"{name} is a text that holds JSON, and private fields cannot be hashed in there: declare what "
            "it holds as the field's own type instead of Json, or without private fields"
        )


def _keys_of_dicts(stream: Stream) -> Iterator[str]:
    for name, kind in dict.fromkeys(inexact_keys(stream.decoder.schema)):
        yield (
            f"{name} has a dict whose keys are of the type {kind}, which has several texts for one key, and "
            "then one value would replace another: let its keys be str, int, UUID or date"
        )


def _event_time(stream: Stream, model: type[Event]) -> Iterator[str]:
    definitions = stream.decoder.definitions
    schema = stream.decoder.fields_of(model)[stream.event_time]
    field = f"{model.__name__}.{stream.event_time}"
    if definitions.unwrapped(schema)["type"] != "datetime":
        yield (
            f"{field} is the event time, so it must be a Timestamp, a datetime, or a number as EpochMillis "
            "or EpochSeconds; or name another field with event_time="
        )
    elif definitions.is_nullable(schema):
        yield f"{field} is the event time, so it must not be optional"


def _counted_by(stream: Stream, model: type[Event], by: str) -> Iterator[str]:
    schema = stream.decoder.definitions.unwrapped(stream.decoder.fields_of(model)[by])
    types = {type(value) for value in values_of(schema)}
    # Values of several types make a column of JSON, whose texts have quotes.
    if schema["type"] not in _COUNTABLE or not types <= {str, int, bool} or len(types) > 1:
        yield (
            f"its windows cannot count by {by}: it must be a text, a whole number, a Decimal, a bool, an "
            "Enum, a UUID or a date"
        )


def _key(stream: Stream, model: type[Event], name: str) -> Iterator[str]:
    if not stream.decoder.definitions.is_scalar(stream.decoder.fields_of(model)[name]):
        yield (
            f"{model.__name__}.{name} is the key, so it must be a text, a number, a bool, an Enum, a UUID, a "
            "date or a time: name another field, or let key= be a function that returns a text"
        )


def _differing_defaults(
    stream: Stream, model: type[Event], wanted: Mapping[str, str | None]
) -> Iterator[str]:
    """An event is read by several workers, each of which would make another value."""
    definitions, fields = stream.decoder.definitions, stream.decoder.fields_of(model)
    for argument, name in wanted.items():
        if name is not None and name in fields and definitions.holds(fields[name], _has_factory):
            yield (
                f"{model.__name__}.{name} is {_ROLES_OF_FIELDS[argument]}, so it must not have a "
                "default_factory, with which each worker that reads an event makes another value: give it a "
                "plain default, or none"
            )


def _has_factory(part: Mapping[str, Any]) -> bool:
    return "default_factory" in part


def _bounds_without_a_zone(stream: Stream) -> Iterator[str]:
    """Every event would fail, since Python compares no time that has a zone with one that has none."""
    for name in dict.fromkeys(
        name
        for name, field in fields_in(stream.decoder.schema)
        if stream.decoder.definitions.holds(field["schema"], _has_bound_without_a_zone)
    ):
        yield (
            f"{name} has a bound without a zone, and times of events have one: write the bound as "
            "datetime(2020, 1, 1, tzinfo=UTC)"
        )


def _has_bound_without_a_zone(part: Mapping[str, Any]) -> bool:
    """Of a type that pydantic does not know as a time, whose bound it checks by a function of its own."""
    function = part["function"].get("function") if part["type"] == "function-after" else None
    return (
        isinstance(function, partial)
        and function.func.__module__.startswith("pydantic.")
        and any(
            isinstance(bound, datetime) and bound.tzinfo is None
            for bound in function.keywords.values()
        )
    )


def _no_field(argument: str, name: str, model: str, fields: Sequence[str]) -> str:
    near = get_close_matches(name, fields, 1)
    hint = f"did you mean {near[0]}?" if near else f"its fields are {', '.join(fields)}"
    return f"{argument} names the field {name}, which {model} does not have: {hint}"


def _columns(stream: Stream) -> Iterator[str]:
    try:
        event_columns(stream)
    except ColumnFaults as error:
        yield from error.faults


def _state(stream: Stream) -> Iterator[str]:
    """Whether the latest event of each key can be kept, and only where that is declared."""
    if stream.mode == "append" and stream.primary_key:
        yield 'primary_key is for upsert streams: add mode="upsert", or leave it out'
    elif stream.mode == "upsert":
        yield from _primary_key(stream)


def _primary_key(stream: Stream) -> Iterator[str]:
    key = stream.primary_key
    if not key or len({*key}) < len(key):
        yield 'an upsert stream needs the fields of its primary key, each once: primary_key=("id",)'
        return
    if isinstance(stream.key, str) and stream.key not in key:
        yield (
            f"key is {stream.key}, which is no field of the primary key: all changes of a row must have "
            f"the same key of a record, or they are not in order: declare key={key[0]!r}"
        )
    types: dict[str, str] = {}
    with suppress(ConfigurationError):  # of which `_columns` speaks
        types = {column.name: column.type for column in event_columns(stream)}
    for model, name in product(stream.decoder.models, key):
        if name not in model.model_fields:
            yield _no_field("primary_key", name, model.__name__, list(model.model_fields))
            continue
        yield from _key_field(stream, model, name, types)


def _key_field(
    stream: Stream, model: type[Event], name: str, types: Mapping[str, str]
) -> Iterator[str]:
    field, schema = f"{model.__name__}.{name}", stream.decoder.fields_of(model)[name]
    if stream.decoder.definitions.is_nullable(schema) or schema["type"] == "default":
        yield f"{field} is in the primary key, so it must not be optional"
    elif types.get(name, "text").partition("(")[0] not in _KEY_TYPES:
        yield (
            f"{field} is in the primary key, so it must be a text, a whole number, a Decimal, a bool, an "
            "Enum, a UUID or a date"
        )
    elif name in stream.decoder.private_fields:
        yield (
            f"{field} is in the primary key, and a private field: its hashes change with "
            "STREAMFLOW_PII_KEY, so they identify no row: choose another field"
        )


def _format(stream: Stream) -> Iterator[str]:
    prepare = getattr(stream.decode, "prepare", None)
    if prepare is not None:
        try:
            prepare()
        except ConfigurationError as error:
            yield f"decode: {error}"
    if stream.decode is not None and not is_format(stream.decode):
        yield from (f"decode: {fault}" for fault in unknown_codes(stream.decode))


def _clashes(stream: Stream, other: Stream) -> Iterator[str]:
    """What two streams cannot both have. They may share what is derived, if it is declared alike."""
    if stream.topic == other.topic:
        yield "another stream has the same name: rename one"
        return
    named = f"stream {other.name}"
    others = _roles(other)
    for role, topic in _roles(stream).items():
        for other_role, other_topic in others.items():
            if topic == other_topic and role != other_role:
                yield (
                    f"the topic of its {role}, {topic}, holds the {other_role} of {named}: "
                    f"{_rename(role)}"
                )
            else:
                yield from _collision(role, topic, other_topic)
    yield from _differing_topics(stream, other)
    yield from _clashing_tables(stream, other)
    yield from window_name_clashes(stream, other)


def _clashing_tables(stream: Stream, other: Stream) -> Iterator[str]:
    named = f"stream {other.name}"
    own, theirs = _tables_of(stream), _tables_of(other)
    if shared := [table for table in own if table in theirs]:
        yield f"{named} has the same table, {shared[0]}: give one of them another"
    else:
        yield from _derived_tables(named, own, theirs)
    for rollup in stream.rollups:
        if any(rollup.table == table or derives(table, rollup.table) for table in theirs):
            yield f"the table {rollup.table} of its rollup is the table of {named}, or a part of it"
        if any(rollup.table == known.table and rollup != known for known in other.rollups):
            yield (
                f"{named} declares the rollup {rollup.table} differently: share one declaration, or "
                "give the table another name"
            )
    if any(rollup.table in own for rollup in other.rollups):
        yield f"its table {stream.table} is a rollup of {named}: give one of them another name"


def _derived_tables(named: str, own: Sequence[str], theirs: Sequence[str]) -> Iterator[str]:
    for table, their in product(own, theirs):
        if derives(their, table) or derives(table, their):
            longer, shorter = sorted((table, their), key=len, reverse=True)
            yield (
                f"{named} has the table {their}, and {longer} is a name that StreamFlow gives to a "
                f"part of {shorter}: give one of them another"
            )


def _differing_topics(stream: Stream, other: Stream) -> Iterator[str]:
    roles = {topic: role for role, topic in _roles(stream).items()}
    theirs = {spec.name: spec for spec in other.topic_specs() if spec.derived}
    differing: dict[str, list[str]] = {}
    for spec in stream.topic_specs():
        known = theirs.get(spec.name)
        if spec.derived and known is not None and spec != known:
            differing.setdefault(_difference(spec, known), []).append(spec.name)
    for difference, topics in differing.items():
        arguments = ", ".join(f'{_argument(roles[topic])}="…"' for topic in topics)
        yield (
            f"it shares {', '.join(topics)} with stream {other.name}, but declares another "
            f"{difference}: declare the same, or give it topics of its own with Topics({arguments})"
        )


def _difference(spec: TopicSpec, known: TopicSpec) -> str:
    """Such as "number of partitions (6, there 3)"."""
    found = []
    if spec.partitions != known.partitions:
        found.append(f"number of partitions ({spec.partitions}, there {known.partitions})")
    for setting in sorted(spec.config.keys() | known.config.keys()):
        one, two = spec.config.get(setting), known.config.get(setting)
        if one != two:
            name = _SETTINGS.get(setting, setting)
            found.append(f"{name} ({_readable(setting, one)}, there {_readable(setting, two)})")
    return " and ".join(found)


def _readable(setting: str, value: str | None) -> str:
    if setting == "retention.ms" and value is not None:
        return f"{int(value) / 3_600_000:g} h"
    return str(value)
