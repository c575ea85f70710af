"""Simulated records of any stream, and the mistakes of a careless producer: what ``streamflow produce`` sends
where a stream declares no ``simulate``."""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from streamflow.errors import ConfigurationError, ErrorCode
from streamflow.privacy import Hasher
from streamflow.records import Rejection
from streamflow.samples.containers import Field, put
from streamflow.samples.factory import SampleEvent, SampleFactory
from streamflow.samples.scalars import seeded
from streamflow.stream import Simulated, Stream
from streamflow.user_code import name_of_fault

_ADDRESS: Final = "eve@example.com"
_WRONG: Final[tuple[Any, ...]] = ([{}], "seven", -1, True, 1.5, {"a": 1}, None)

# A mistake makes bytes of a sample, or None where it does not apply. Some break only some contracts.
_Mistake = Callable[[SampleEvent, list[Field], random.Random], bytes | None]


def simulated(
    stream: Stream, hasher: Hasher, *, seed: int | None = None, invalid_ratio: float = 0.0
) -> Iterable[Simulated]:
    """An endless source of records, by the stream's own simulator if it has one.

    Args:
        stream: whose records.
        hasher: makes what private fields hold.
        seed: the same seed gives the same records, but for their times.
        invalid_ratio: share of records that break the contract, each with the code that it will get.

    Raises:
        ConfigurationError: no record can be made.
    """
    if stream.simulate is not None:
        return stream.simulate(hasher, seed=seed, invalid_ratio=invalid_ratio)
    if stream.decode is not None:
        raise ConfigurationError(
            f"stream {stream.name} reads records of another format (`decode`), and samples are JSON: "
            "declare `simulate` of the stream, which makes such records"
        )
    return _records(stream, SampleFactory(stream, hasher, seed=seed), seed, invalid_ratio)


def sources_of(
    streams: Sequence[Stream],
    hasher: Hasher,
    *,
    seed: int | None = None,
    invalid_ratio: float = 0.0,
    not_ours: bool = False,
) -> tuple[list[tuple[Stream, Iterable[Simulated]]], list[str]]:
    """The simulated records of each stream, and why others have none.

    Args:
        not_ours: whether records are also simulated for a topic of another owner, who allows it.
    """
    sources: list[tuple[Stream, Iterable[Simulated]]] = []
    without: list[str] = []
    for stream in streams:
        if not stream.topics.managed and not not_ours:
            without.append(
                f"stream {stream.name} is not simulated, since its topic has another owner: if simulated "
                f"events may go there, run `streamflow produce --stream {stream.name} --not-ours`"
            )
            continue
        try:
            records = simulated(stream, hasher, seed=seed, invalid_ratio=invalid_ratio)
        except ConfigurationError as error:
            without.append(str(error))
        else:
            sources.append((stream, records))
    return sources, without


def _records(
    stream: Stream, factory: SampleFactory, seed: int | None, invalid_ratio: float
) -> Iterator[Simulated]:
    chance = random.Random() if seed is None else seeded(f"mistakes/{seed}")  # noqa: S311 (no secret)
    for sample in factory.plain():
        key = _key(stream, sample)
        if chance.random() >= invalid_ratio:
            yield Simulated(key, sample.value, None)
        else:
            value, code = spoil(stream, sample, factory.fields(sample), chance)
            yield Simulated(key, value, code)


def _key(stream: Stream, sample: SampleEvent) -> bytes | None:
    try:
        return stream.key_of(sample.event)
    except BaseException as error:
        raise ConfigurationError(
            f"stream {stream.name}: its key cannot be made of a valid event "
            f"({name_of_fault(error)}): mend `key` of the stream"
        ) from error


def spoil(
    stream: Stream, sample: SampleEvent, fields: list[Field], chance: random.Random
) -> tuple[bytes, ErrorCode]:
    """A sample with one mistake that breaks its contract, and the code that the decoder gives it."""
    left = dict(_MISTAKES)
    while True:
        mistake = chance.choices(list(left), list(left.values()))[0]
        value = mistake(sample, fields, chance)
        found = None if value is None else stream.decoder.decode(value)
        if value is not None and isinstance(found, Rejection):
            return value, found.code
        del left[mistake]  # this contract allows it; no bytes, for one, are an event of none


def _missing(sample: SampleEvent, fields: list[Field], chance: random.Random) -> bytes | None:
    required = [field for field in fields if field.required]
    if not required:
        return None
    return _without(sample, chance.choice(required))


def _without(sample: SampleEvent, field: Field) -> bytes:
    document = _copy(sample)
    document.pop(str(field.keys[0]), None)
    return _dumped(document)


def _wrong(sample: SampleEvent, fields: list[Field], chance: random.Random) -> bytes | None:
    return _with(sample, chance.choice(fields), chance.choice(_WRONG))


def _unknown_field(sample: SampleEvent, _: list[Field], __: random.Random) -> bytes | None:
    return _dumped({**sample.document, "undeclared_field": 7})


def _unknown_choice(
    sample: SampleEvent, fields: list[Field], chance: random.Random
) -> bytes | None:
    listed = [field for field in fields if field.node.choices]
    return _with(sample, chance.choice(listed), "TELEPORTED") if listed else None


def _clear_text(sample: SampleEvent, fields: list[Field], chance: random.Random) -> bytes | None:
    texts = [field for field in fields if isinstance(sample.document.get(str(field.keys[0])), str)]
    return _with(sample, chance.choice(texts), _ADDRESS) if texts else None


def _nul(sample: SampleEvent, fields: list[Field], chance: random.Random) -> bytes | None:
    texts = [
        (field, found)
        for field in fields
        if len(field.keys) == 1
        and isinstance(found := sample.document.get(str(field.keys[0])), str)
    ]
    if not texts:
        return None
    field, found = chance.choice(texts)
    return _with(sample, field, f"{found}\0")


def _with(sample: SampleEvent, field: Field, value: Any) -> bytes:
    document = _copy(sample)
    document.pop(str(field.keys[0]), None)
    put(document, field.keys, value)
    return _dumped(document)


_MISTAKES: Final[dict[_Mistake, int]] = {
    _missing: 15,
    _wrong: 12,
    _unknown_field: 8,
    _clear_text: 20,
    _unknown_choice: 15,
    lambda sample, _, __: sample.value[:-1]: 12,
    lambda _, __, ___: b"": 8,
    lambda sample, _, __: sample.value[:-1] + b"\xff}": 5,
    _nul: 5,
}


def _copy(sample: SampleEvent) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(sample.value)
    return document


def _dumped(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
