"""Keys of dicts: two of a document are two of its event."""

from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, create_model

from streamflow.contract import Event, Timestamp
from streamflow.declarations import problems
from streamflow.decoder import Decoder
from streamflow.errors import ErrorCode
from streamflow.records import Rejection
from streamflow.stream import Stream

ID = "0b0f2c5e-1111-4222-8333-abcdefabcdef"


class Nested(BaseModel):
    held: dict[int, str]


def model_of(kind: Any) -> type[Event]:
    return create_model("Keyed", __base__=Event, timestamp=(Timestamp, ...), x=(kind, ...))


def read(kind: Any, x: str) -> Event | Rejection:
    value = f'{{"timestamp": "2026-03-01T12:00:00Z", "x": {x}}}'
    return Decoder(model_of(kind)).decode(value.encode())


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (dict[int, str], '{"1": "a", "-20": "b", "0": "c"}', '{"1": "a", "01": "b"}'),
        (dict[int, str], "{}", '{"1": "a", "1.0": "b"}'),
        (dict[int, str], "{}", '{" 1": "a"}'),
        (dict[int, str], "{}", '{"+1": "a"}'),
        (list[Nested], '[{"held": {"1": "a"}}]', '[{"held": {"1": "a", "01": "b"}}]'),
        (dict[bool, int], '{"true": 1, "false": 2}', '{"true": 1, "1": 2}'),
        (dict[UUID, int], f'{{"{ID}": 1}}', f'{{"{ID}": 1, "{ID.upper()}": 2}}'),
    ],
)
def test_a_key_has_one_form(kind: Any, good: str, bad: str) -> None:
    assert isinstance(read(kind, good), Event)
    found = read(kind, bad)
    assert isinstance(found, Rejection)
    assert found.code is ErrorCode.SCHEMA_VIOLATION


@pytest.mark.parametrize("key", [float, Decimal, datetime, time, timedelta])
def test_types_of_many_forms_are_no_keys(key: Any) -> None:
    stream = Stream(name="keyed", contract=model_of(list[dict[key, int]]), table="keyed", key="x")

    assert any("x has a dict whose keys are" in problem for problem in problems(stream))
    sound = Stream(name="keyed", contract=model_of(dict[int, int]), table="keyed", key="x")
    assert not any("has a dict whose" in problem for problem in problems(sound))
