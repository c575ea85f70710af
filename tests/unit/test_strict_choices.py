"""JSON's true, 1 and 1.0 are three values: choices take only those that they name."""

import json
from enum import Enum, IntEnum, IntFlag
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, create_model

from streamflow import ErrorCode, Event
from streamflow.decoder import Decoder
from streamflow.records import Rejection

OR_NULL = Literal[1, "a", None]  # noqa: PYI061 (null is one of the choices)


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Size(Enum):
    SMALL = 1
    LARGE = 2


class Mixed(Enum):
    YES = True
    NONE = 0
    TEXT = "x"
    NULL = None


class Ratio(Enum):
    WHOLE = 1.0
    HALF = 0.5


class Rights(IntFlag):
    READ = 1
    WRITE = 2


class Word(Enum):
    A = "a"


class Named(IntEnum):
    """Found by its name, too."""

    ONE = 1
    TWO = 2

    @classmethod
    def _missing_(cls, value: object) -> "Named | None":
        return cls.ONE if value == "one" else cls.TWO if value in (None, 7) else None


class Loose(BaseModel):
    level: Level = Level.LOW
    bit: Literal[0, 1] = 0


def decoded(kind: Any, value: Any) -> Any:
    contract = create_model("Chosen", __base__=Event, chosen=(kind, ...))
    return Decoder(contract).decode(json.dumps({"chosen": value}).encode())


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (Literal[0, 1], True, "chosen: should be 0 or 1"),
        (Literal[0, 1], False, "chosen: should be 0 or 1"),
        (Literal[0, 1], 1.0, "chosen: should be 0 or 1"),
        (Literal[0, 1], "1", "chosen: should be 0 or 1"),
        (Literal[True], 1, "chosen: should be true"),
        (Literal[True], 1.0, "chosen: should be true"),
        (Literal[False, 2], 0, "chosen: should be false or 2"),
        (Literal[False, 2], 2.0, "chosen: should be false or 2"),
        (OR_NULL, True, "chosen: should be 1, 'a' or null"),
        (Literal[1] | None, True, "chosen: should be 1"),
        (Literal[1] | str, True, "chosen: should be 1 or a valid string"),
        (Literal[1] | float, True, "chosen: should be 1 or a valid number"),
        (Level | Literal[7], 1.0, "chosen: should be 1 or 2 or 7"),
        (list[Literal[0, 1]], [0, True], "chosen[1]: should be 0 or 1"),
        (set[Level], [1, 2.0], "chosen[1]: should be 1 or 2"),
        (tuple[Level, Literal[True]], [1, 1], "chosen[1]: should be true"),
        (dict[str, Literal[0, 1]], {"k": True}, "chosen[*]: should be 0 or 1"),
        (Loose, {"level": True}, "chosen.level: should be 1 or 2"),
        (Loose, {"bit": 1.0}, "chosen.bit: should be 0 or 1"),
        (list[Loose | None], [{"bit": False}], "chosen[0].bit: should be 0 or 1"),
        (Level, True, "chosen: should be 1 or 2"),
        (Level, 2.0, "chosen: should be 1 or 2"),
        (Size, True, "chosen: should be 1 or 2"),
        (Size, 1.0, "chosen: should be 1 or 2"),
        (Mixed, 1, "chosen: should be true, 0, 'x' or null"),
        (Mixed, False, "chosen: should be true, 0, 'x' or null"),
        (Mixed, 0.0, "chosen: should be true, 0, 'x' or null"),
        (Ratio, True, "chosen: should be 1.0 or 0.5"),
        (Rights, True, "chosen: should be 1 or 2"),
        (Rights, 1.0, "chosen: should be 1 or 2"),
        (Literal[Level.LOW], True, "chosen: should be 1"),
        (Named, True, "chosen: should be 1 or 2"),
        (Named, "two", "chosen: should be 1 or 2"),
    ],
)  # fmt: skip
def test_a_value_of_another_json_type_is_none_of_the_choices(
    kind: Any, value: Any, message: str
) -> None:
    found = decoded(kind, value)
    assert isinstance(found, Rejection)
    assert (found.code, found.message) == (ErrorCode.SCHEMA_VIOLATION, message)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Literal[0, 1], 1, 1), (Literal[True], True, True), (Literal[True, 0], 0, 0),
        (OR_NULL, "a", "a"), (OR_NULL, None, None), (Literal[1] | bool, True, True),
        (Literal[1] | float, 1.0, 1.0), (int | Literal["x"], "x", "x"),
        (Level, 2, Level.HIGH), (Level | bool, True, True), (Size, 1, Size.SMALL), (Mixed, True, Mixed.YES),
        (Mixed, 0, Mixed.NONE), (Mixed, "x", Mixed.TEXT), (Mixed, None, Mixed.NULL),
        (Ratio, 1.0, Ratio.WHOLE), (Ratio, 1, Ratio.WHOLE), (Rights, 3, Rights.READ | Rights.WRITE),
        (Named, 1, Named.ONE), (Named, "one", Named.ONE), (Named, None, Named.TWO), (Named, 7, Named.TWO),
        (Word, "a", Word.A), (Literal[Level.LOW], 1, Level.LOW),
        (list[Level], [1], [Level.LOW]),
        (dict[Level, int], {"1": 5}, {Level.LOW: 5}), (Loose, {"level": "2"}, Loose(level=Level.HIGH)),
    ],
)  # fmt: skip
def test_each_choice_is_taken_as_what_it_is(kind: Any, value: Any, expected: Any) -> None:
    found = decoded(kind, value)
    assert not isinstance(found, Rejection)
    assert found.chosen == expected
    assert type(found.chosen) is type(expected)


def test_keys_of_objects_are_texts_and_no_numbers() -> None:
    assert isinstance(decoded(dict[Literal[0, 1], int], {"1": 5}), Rejection)


def test_kinds_of_events_by_number() -> None:
    class Opened(Event):
        kind: Literal[0]

    class Closed(Event):
        kind: Literal[1]
        why: str = ""

    decode = Decoder(Annotated[Opened | Closed, Field(discriminator="kind")]).decode
    assert isinstance(decode(b'{"kind": 1}'), Closed)
    assert isinstance(decode(b'{"kind": 0}'), Opened)
    for value in ("true", "1.0", "false", "0.0"):
        found = decode(b'{"kind": %s}' % value.encode())
        assert isinstance(found, Rejection)
        assert found.message.startswith("kind: should be ")
