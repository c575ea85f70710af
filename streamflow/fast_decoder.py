"""The fast path of decoding. All of it that a reader must know is here.

pydantic judges every record that is not an event (codes and words of dead letters are its own), and every
event that is unusual. But nearly all records are ordinary events, and of these msgspec
(https://jcristharif.com/msgspec/) finds out the same five times as fast. So `fast_types` makes types of
msgspec from a contract, and what is here **only ever says yes**: whatever it does not accept, for whatever
reason, pydantic judges as if nothing had happened. What it accepts pydantic would have accepted, with equal
values; `tests/unit/test_fast_decoder.py` shows that, for contracts and records drawn at random.

What is taken care of besides the types:

- Unknown fields are never accepted here, whatever the stream makes of them.
- Times are read by `utc_texts`: msgspec takes more forms than RFC 3339, and rounds where pydantic cuts off.
- `Decoder` looks for signs of addresses, NUL and what else is private before, in all records of a batch at
  once, and asks here only if there are none.

What comes out are `Fields`: objects with the attributes of an event, whose values are equal to the event's,
but without its methods. To make an event of them would take as long as pydantic takes for all; so this is for
the loader and analytics, which need no more, and code of users gets events of pydantic.
"""

import json
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, cast

import msgspec

from streamflow.contract import Event
from streamflow.core_schema import Definitions
from streamflow.fast_types import (
    NO,
    KnownHashes,
    Model,
    UntranslatableError,
    decoder_of,
    time_of_text,
    translated,
)
from streamflow.records import Rejection
from streamflow.utc_texts import micros_of, micros_of_texts

Fields = msgspec.Struct

_Decode = Callable[[Any], Any]
_Judge = Callable[[bytes | None], Event | Rejection]


class Decoded(NamedTuple):
    """What became of the values of records, one by one."""

    found: list[Any]  # Fields, Event or Rejection
    times: list[int]  # event times, in microseconds since 1970; 0 where there is no event

    @classmethod
    def of(cls, found: list[Any], event_time: str) -> "Decoded":
        """Of events, and what is none."""
        time_of = attrgetter(event_time)
        return cls(
            found, [micros_of(time_of(each)) if isinstance(each, Event) else 0 for each in found]
        )


class FastDecoder:
    """Decodes the fields of ordinary events of one contract.

    Args:
        schema: the contract as `Decoder` has it.
        definitions: that it refers to.

    Raises:
        UntranslatableError: something in the contract only pydantic can judge.

    Attributes:
        types: the model of each type of `Fields`.
    """

    def __init__(self, schema: Any, definitions: Definitions) -> None:
        kind_field, models = _models(schema, definitions)
        structs = {kind: model.struct() for kind, model in models.items()}
        decoders = {kind: decoder_of(struct) for kind, struct in structs.items()}
        self.types: dict[type, type] = {
            struct: models[kind].cls for kind, struct in structs.items()
        }
        self._text_fields = {
            name
            for name in next(iter(models.values())).fields
            if all(_is_time_text(model, name) for model in models.values())
        }
        self._converts = [
            _Conversion(
                structs[kind],
                name,
                field.part.convert,
                field.default,
                json.dumps(field.alias, ensure_ascii=False).encode()
                if field.part.type is msgspec.Raw
                else None,
            )
            for kind, model in models.items()
            for name, field in model.fields.items()
            if field.part.convert is not None
        ]
        self._decode: _Decode = next(iter(decoders.values()))
        if kind_field is not None:
            kind_of = _kind_reader(kind_field)
            self._decode = lambda value: decoders[kind_of(value)](value)

    def converted(self, kind: type) -> set[str]:
        """The fields of a type whose values msgspec does not make as they are."""
        return {name for struct, name, *_ in self._converts if struct is kind}

    def accepts(self, value: bytes) -> bool:
        """Whether this is an ordinary event."""

        def refuse(_value: object) -> Any:
            return NO

        found = self._decoded([value], refuse, None)
        for each in self._converts:
            _convert(found, each, [value], refuse)
        return found[0] is not NO

    def read(
        self,
        values: Sequence[bytes | None],
        event_time: str,
        judge: _Judge,
        must_look: Callable[[bytes], bool] | None = None,
        *,
        with_times: bool = False,
    ) -> Decoded:
        """The fields of each value, or what `judge` makes of it.

        Args:
            values: of the records.
            event_time: the name of that field.
            judge: what pydantic makes of a value.
            must_look: of which values it is to be asked in any case.
            with_times: whether the event time becomes a ``datetime``, which takes longer; else it may stay
                the text that it is in JSON.
        """
        found = self._decoded(values, judge, must_look)
        stays_text = not with_times and event_time in self._text_fields
        for each in self._converts:
            if not (stays_text and each.name == event_time):
                _convert(found, each, values, judge)
        return Decoded(found, self._times(found, values, event_time, judge))

    def _decoded(
        self,
        values: Sequence[bytes | None],
        judge: _Judge,
        must_look: Callable[[bytes], bool] | None,
    ) -> list[Any]:
        found: list[Any] = []
        add, decode = found.append, self._decode
        if must_look is not None:
            look = must_look

            def decode(value: Any) -> Any:
                return judge(value) if look(value) else self._decode(value)

        decoded = map(decode, values)
        while len(found) < len(values):
            try:
                for fields in decoded:
                    add(fields)
            except Exception:  # noqa: BLE001 (whatever it is: pydantic says what is wrong)
                add(judge(values[len(found)]))  # and the loop goes on behind it
        return found

    def _times(
        self, found: list[Any], values: Sequence[bytes | None], event_time: str, judge: _Judge
    ) -> list[int]:
        types, time_of = self.types, attrgetter(event_time)
        given = [time_of(each) for each in found if type(each) in types]
        is_text = bool(given) and type(given[0]) is str
        micros = micros_of_texts(given) if is_text else [*map(micros_of, given)]
        if len(micros) == len(found) and None not in micros:
            return cast("list[int]", micros)
        left, times = iter(micros), [0] * len(found)
        for index, each in enumerate(found):
            if type(each) in types:
                if (time := next(left)) is not None:
                    times[index] = time
                    continue
                found[index] = judge(values[index])
            if isinstance(found[index], Event):
                times[index] = micros_of(time_of(found[index]))
        return times


class _Conversion(NamedTuple):
    """How the values of a field become those of an event."""

    struct: type
    name: str
    convert: Callable[[Any], Any]
    default: Any
    # The name in JSON of a field whose values msgspec passes over: of several it has read the last one.
    key: bytes | None


def _convert(
    found: list[Any], conversion: _Conversion, values: Sequence[bytes | None], judge: _Judge
) -> None:
    """Converts the values of one field, of all that was found."""
    struct, name, convert, default, key = conversion
    get = attrgetter(name)
    if isinstance(convert, KnownHashes):
        own = [fields for fields in found if type(fields) is struct]
        if convert.issuperset(map(get, own)):
            return
    for index, fields in enumerate(found):
        if type(fields) is not struct or (given := get(fields)) is default:
            continue
        is_repeated = key is not None and (values[index] or b"").count(key) > 1
        new = NO if is_repeated else convert(given)
        if new is NO:
            found[index] = judge(values[index])
        elif new is not given:
            setattr(fields, name, new)


def _is_time_text(model: Model, name: str) -> bool:
    return name in model.fields and model.fields[name].part.convert is time_of_text


def _models(schema: Any, definitions: Definitions) -> tuple[str | None, dict[Any, Model]]:
    """The field that tells a contract's models apart, if there are several, and each by its values."""
    union = definitions.unwrapped(schema)
    if union["type"] != "tagged-union":
        return None, {None: translated(union, definitions)}
    name = union["discriminator"]
    if not isinstance(name, str) or not all(isinstance(tag, str) for tag in union["choices"]):
        raise UntranslatableError("its models are told apart by something else than a text")
    return name, {tag: translated(each, definitions) for tag, each in union["choices"].items()}


def _kind_reader(name: str) -> Callable[[bytes], str]:
    kind = msgspec.defstruct("Kind", [("kind", str)], rename={"kind": name}, gc=False)
    decode = decoder_of(kind)
    return lambda value: decode(value).kind
