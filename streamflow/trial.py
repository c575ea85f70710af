"""Trying a declaration with sample events, before data flows (G15). Pure: `postgres.trial` takes them on
into the database and back.

Every process that loads the streams tries a few samples (`fails_at_start`); ``streamflow check`` tries the
boundaries of every type.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any, Final, NamedTuple

from streamflow.contract import Event
from streamflow.errors import ConfigurationError
from streamflow.formats.documents import Ignored
from streamflow.privacy import Hasher
from streamflow.records import Rejection
from streamflow.samples.factory import SampleEvent, SampleFactory
from streamflow.samples.record import SampleRecord
from streamflow.stream import Stream
from streamflow.tombstones import Deletion
from streamflow.unchanged import contents_of, is_same
from streamflow.user_code import name_of_fault
from streamflow.windows.faults import condition_faults

_SEED: Final = 1  # the same samples in every process, but for their times
_AT_START: Final = 8  # samples
_PLAIN: Final = 20
_EDGES: Final = 2_000
_SIMULATED: Final = 20
_LONGEST: Final = 60  # characters of a value that is shown
_CLEAR: Final = "Ann Example"


class TrialProblem(NamedTuple):
    """What does not work.

    Attributes:
        part: of the declaration, or the stage at which it shows: ``declaration``, ``sample``, ``json``,
            ``key``, ``windows``, ``notify``, ``simulate``, ``private``, ``row``, ``topic``, ``table``.
        text: a sentence.
        field: that it is about, if it is about one.
        cause: what makes it one problem, however many samples show it; empty for its field.
    """

    part: str
    text: str
    field: str = ""
    cause: str = ""


def fails_at_start(stream: Stream) -> list[str]:
    """What keeps a stream from starting, of a few samples: events that do not come back from JSON as they
    were. A contract of which no sample can be made is not tried."""
    try:
        samples = list(islice(SampleFactory(stream, seed=_SEED).plain(), _AT_START))
    except BaseException as error:  # noqa: BLE001 (that no sample can be made stops no stream that works)
        name_of_fault(error)
        return []
    found = (*_through_json(stream, samples), *_read_twice(stream, samples))
    return [problem.text for problem in first_of_each(found)]


def samples_of(stream: Stream, hasher: Hasher) -> list[SampleEvent]:
    """Ordinary events, then those at the boundaries of each type, of each model. Raises NoSample if none
    can be made."""
    factory = SampleFactory(stream, hasher, seed=_SEED)
    return [*islice(factory.plain(), _PLAIN), *islice(factory.edges(), _EDGES)]


def simulated_of(stream: Stream, hasher: Hasher) -> list[SampleEvent]:
    """Some of the valid records that a stream's own `simulate` makes. Raises ConfigurationError if the
    contract rejects one, or it makes none."""
    if stream.simulate is None:
        return []
    source = stream.simulate(hasher, seed=_SEED, invalid_ratio=0.0)
    samples = []
    for number, record in enumerate(islice(source, _SIMULATED)):
        event = stream.read(SampleRecord(stream.topic, number, record.value, key=record.key))
        if isinstance(event, Rejection):
            raise ConfigurationError(
                f"the contract rejects a record that it makes as valid ({event.message}): mend "
                "`simulate` of the stream"
            )
        if not isinstance(event, Ignored | Deletion):
            samples.append(SampleEvent(record.value, {}, event))
    return samples


def problems(stream: Stream, samples: Sequence[SampleEvent], hasher: Hasher) -> list[TrialProblem]:
    """What fails before an event is stored: one of each kind and field."""
    return first_of_each(
        (
            *_through_json(stream, samples),
            *_read_twice(stream, samples),
            *_through_user_code(stream, samples),
            *_hashed(stream, samples, hasher),
        )
    )


def differences(before: Event, after: Event) -> Iterator[tuple[str, str]]:
    """The fields in which two events differ, and how, in words."""
    if type(before) is not type(after):
        yield "", f"{type(before).__name__} comes back as {type(after).__name__}"
        return
    for name in type(before).model_fields:
        one, two = getattr(before, name), getattr(after, name)
        if not same(one, two):
            yield name, f"{shown(one)} comes back as {shown(two)}"
    if not same(before.__pydantic_extra__, after.__pydantic_extra__):
        yield "", "fields that the contract does not declare come back as others"


def shown(value: Any) -> str:
    """A value of a sample, shortened."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def first_of_each(found: Iterable[TrialProblem]) -> list[TrialProblem]:
    """Of problems that many samples show, each once."""
    first: dict[tuple[str, str], TrialProblem] = {}
    for problem in found:
        first.setdefault((problem.part, problem.cause or problem.field), problem)
    return list(first.values())


def same(one: Any, two: Any) -> bool:
    """Whether two values are equal; JSON does not tell 1e30 from a whole number."""
    if one == two:
        return True
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple) and type(one) is type(two):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, float) and type(two) is int:
        return Decimal(repr(one)) == two
    return False


def _through_json(stream: Stream, samples: Iterable[SampleEvent]) -> Iterator[TrialProblem]:
    """An event is written and read again: by `produce`, by a replay, from a stored row."""
    conditions = condition_faults(stream.decoder, stream.window_tables)
    for sample in samples:
        model = type(sample.event).__name__
        try:
            again = stream.decoder.decode(stream.decoder.encode(sample.event))
        except BaseException as error:  # noqa: BLE001 (serializers and validators of the user's own)
            yield TrialProblem(
                "json",
                f"a sample of {model}{_at(sample)} cannot be written as JSON and read again "
                f"({name_of_fault(error)}): mend the serializers and validators of its fields",
                cause=name_of_fault(error),
            )
            continue
        if isinstance(again, Rejection) and (default := _default_at_fault(stream, sample)):
            yield TrialProblem(
                "json",
                f"the default of `{default}` is rejected when an event with it is read again "
                f"({again.message}): change the default",
                default,
            )
        elif isinstance(again, Rejection):
            yield TrialProblem(
                "json",
                f"a sample of {model}{_at(sample)}, written as JSON, is rejected when it is read again "
                f"({again.message}): give that field a type that reads what it writes",
                cause=again.message,
            )
        elif conditions is not None and (fault := conditions(_copy(sample.event))):
            yield TrialProblem(
                "windows",
                f"a sample of {model}{_at(sample)} cannot be aggregated ({fault.message}): let that function "
                "return True or False for every valid event, and change none",
                cause=fault.message,
            )
        elif stream.fault_of is not None and (fault := stream.fault_of(_copy(sample.event))):
            yield TrialProblem(
                "sample",
                f"a sample of {model}{_at(sample)} is accepted, and cannot be stored ({fault.message}): mend "
                "the validators of its fields",
                cause=fault.message,
            )
        else:
            for field, how in differences(sample.event, again):
                yield TrialProblem(
                    "json",
                    f"{_named(field)}{how} from JSON: let the field's serializer write the whole value",
                    field,
                )


def _default_at_fault(stream: Stream, sample: SampleEvent) -> str | None:
    """The field, if one, whose default breaks its contract: the event is valid without it."""
    written = json.loads(stream.decoder.encode(sample.event))
    for name, field in type(sample.event).model_fields.items():
        json_name = field.serialization_alias or name
        if name not in sample.event.model_fields_set and json_name in written:
            alone = sample.document | {json_name: written[json_name]}
            if isinstance(stream.decoder.decode(json.dumps(alone).encode()), Rejection):
                return name
    return None


def _read_twice(stream: Stream, samples: Iterable[SampleEvent]) -> Iterator[TrialProblem]:
    """Several workers read an event; a validator of the user's own may make another value each time."""
    counted = [(name, "windows") for name in sorted(_counted_fields(stream))]
    for sample in samples:
        again = stream.decoder.decode(sample.value) if sample.document else sample.event
        if isinstance(again, Rejection):
            continue
        differ = [name for name, _ in differences(sample.event, again)]
        for name, part in ((stream.event_time, "declaration"), *counted):
            if name in differ:
                yield TrialProblem(
                    part,
                    f"`{name}` is another value each time that an event is read: let its validators return "
                    "the same for the same record",
                    name,
                )


def _counted_fields(stream: Stream) -> set[str]:
    """The fields that analytics groups by or aggregates."""
    paths = {
        path
        for spec in stream.counted
        for path in (*spec.by_fields, *(each.field for each in spec.aggregates.values()))
        if path is not None
    }
    return {path.partition(".")[0] for path in paths}


def _through_user_code(stream: Stream, samples: Iterable[SampleEvent]) -> Iterator[TrialProblem]:
    """What is made of every event: its key, what it is counted by, its notification."""
    contents = contents_of(stream.decoder)
    for sample in samples:
        model, event = type(sample.event).__name__, _copy(sample.event)
        before = contents(event)
        try:
            stream.key_of(event)
        except BaseException as error:  # noqa: BLE001 (a user's function)
            yield TrialProblem(
                "key",
                f"no key can be made of a valid {model}{_at(sample)} ({name_of_fault(error)}): let `key` "
                "of the stream return a text for every valid event",
            )
        if not is_same(before, contents(event)):
            yield _changes("key", model)
            event = _copy(sample.event)
        try:
            stream.kind_of(sample.event)
        except BaseException as error:  # noqa: BLE001 (a type of the user's own)
            yield TrialProblem(
                "windows",
                f"a valid {model}{_at(sample)} cannot be counted ({name_of_fault(error)}): let the "
                f"windows count by another field than {stream.kind_field}",
            )
        if stream.notifications_of is not None:
            before = contents(event)
            [notification] = stream.notifications_of([event])
            if not is_same(before, contents(event)):
                yield _changes("notify", model)
            if isinstance(notification, Rejection):
                yield TrialProblem(
                    "notify",
                    f"no notification can be made of a valid {model}{_at(sample)}: {notification.message}",
                )


def _changes(part: str, model: str) -> TrialProblem:
    return TrialProblem(
        part, f"`{part}` of the stream changes the {model} that it is asked of: let it only read it"
    )


def _copy(event: Event) -> Event:
    """For a function of the user's own, which may change it; the sample stays as it is."""
    try:
        return event.model_copy(deep=True)
    except BaseException as error:  # noqa: BLE001 (of a type of the user's own)
        name_of_fault(error)
        return event


def _hashed(
    stream: Stream, samples: Sequence[SampleEvent], hasher: Hasher
) -> Iterator[TrialProblem]:
    """In clear a private field breaks the contract; hashed, as the producer does it, it does not."""
    for name in sorted(stream.decoder.private_fields):
        for sample in samples:
            clear = sample.document | {name: _CLEAR}
            if not isinstance(sample.document.get(name), str) or sample.field == name:
                continue
            value = json.dumps(clear).encode()
            if not isinstance(stream.decoder.decode(value), Rejection):
                yield TrialProblem(
                    "private",
                    f"`{name}` is private, and accepted in clear: declare it as Hashed",
                    name,
                )
            elif isinstance(again := stream.decoder.decode(hasher.hash_private(value)), Rejection):
                yield TrialProblem(
                    "private",
                    f"`{name}` is private, and its hash is rejected ({again.message}): declare it as "
                    "Hashed, without limits of its own",
                    name,
                )
            break


def _at(sample: SampleEvent) -> str:
    return f" with `{sample.field}` at a limit of its type" if sample.field else ""


def _named(field: str) -> str:
    return f"`{field}`: " if field else ""
