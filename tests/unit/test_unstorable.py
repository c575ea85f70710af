"""What no column can hold, made by validators and decoders where the JSON of a record does not show it."""

import json
from base64 import b64encode
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import pytest
from pydantic import (
    AfterValidator,
    Base64Bytes,
    Base64Str,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    create_model,
)
from typing_extensions import TypedDict

from loads import TRUSTING, FakeRecord
from streamflow.contract import Event, Timestamp
from streamflow.errors import ErrorCode
from streamflow.flow import Batch, Position
from streamflow.privacy import Hasher
from streamflow.records import Rejection
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.windows.specs import TumblingWindow
from streaming_workers.analytics import Analytics
from streaming_workers.loader import Loader
from streaming_workers.validator import Validator


def with_nul(text: str) -> str:
    return text.replace("~", "\x00")


@dataclass
class Reading:
    v: Any


class Pair(NamedTuple):
    v: Any


class Document(TypedDict):
    v: Any


class Nested(BaseModel):
    code: Base64Str


ENCODED = b64encode(b"a\x00b").decode()
Odd = Annotated[str, PlainSerializer(lambda text: text + "\x00")]
MADE = {
    "after": (Annotated[str, AfterValidator(with_nul)], "a~b"),
    "before": (Annotated[str, BeforeValidator(with_nul)], "a~b"),
    "decoded": (Base64Str, ENCODED),
    "decoded within": (list[Base64Str], [ENCODED]),
    "decoded in a model": (Nested, {"code": ENCODED}),
    "key": (dict[Annotated[str, AfterValidator(with_nul)], int], {"a~": 1}),
    "serialized": (list[Odd], ["a"]),
}


def stream_of(kind: Any) -> Stream:
    model = create_model("Made", __base__=Event, timestamp=(Timestamp, ...), x=(kind, Field()))
    windows = TumblingWindow("10s")
    return Stream(name="made", contract=model, table="made", key=lambda _: "k", windows=windows)


def record_of(x: str) -> FakeRecord:
    value = f'{{"timestamp": "2026-03-01T12:00:00Z", "x": {x}}}'.encode()
    return FakeRecord(0, value, topic="made")


@pytest.mark.parametrize("made", MADE)
def test_nul_that_a_validator_makes_is_the_fault_of_its_record_in_every_stage(made: str) -> None:
    kind, x = MADE[made]
    stream = stream_of(kind)
    record = record_of(json.dumps(x))

    read = stream.read(record)

    assert isinstance(read, Rejection)
    assert read.code is ErrorCode.UNSTORABLE_VALUE
    assert read.message in ("x: holds NUL", "what a serializer made of it holds NUL")
    batch = Batch([record], [Position("made", 0, 1)])
    analytics = Analytics(Settings(), [stream])
    analytics.assign({("made", 0): None})
    for worker in (
        Validator(Settings(), [stream], Hasher()),
        analytics,
        Loader(Settings(), [stream], Hasher(), lambda: TRUSTING),
    ):
        output = worker.process(batch)
        assert output is not None
        assert output.rejected == [(0, ErrorCode.UNSTORABLE_VALUE)]


def test_bytes_may_hold_nul() -> None:
    """Their column is ``bytea``."""
    for kind in (Base64Bytes, Annotated[Base64Bytes, AfterValidator(lambda data: data)]):
        assert isinstance(stream_of(kind).read(record_of(json.dumps(ENCODED))), Event)


@pytest.mark.parametrize("kind", [Any, Reading, Pair, Document, list[Reading], dict[str, Any]])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("1e999", "holds a number beyond the range of double precision"),
        ('"\\u0000"', "holds NUL"),
        ('[{"deep": [1e999]}]', "holds a number beyond the range of double precision"),
    ],
)
def test_values_of_any_type_are_looked_into(kind: Any, value: str, why: str) -> None:
    document = f'{{"v": {value}}}'
    x = f"[{document}]" if kind == list[Reading] else document

    read = stream_of(kind).read(record_of(x))

    assert isinstance(read, Rejection)
    assert read.message == f"x: {why}"
