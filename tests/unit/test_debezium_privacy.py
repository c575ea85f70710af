"""What docs/formats.md says of addresses in Debezium's change events."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from loads import FakeRecord
from streamflow import Debezium, EpochMillis, ErrorCode, Event, Hashed, Hasher, Stream, Topics
from streamflow.dead_letter_records import build
from streamflow.declarations import problems
from streamflow.records import Rejection
from streamflow.tombstones import Deletion

CLEAR = {"id": 1, "email": "ann@example.com"}
NAMED = {"id": 1, "email": "Ann Smith"}
MASKED = {"id": 1, "email": "a" * 64}  # as Debezium's column.mask.hash.v2.SHA-256 writes it
CUT = {"id": 1, "email": "a" * 32}


def change(op: str, **rows: Any) -> FakeRecord:
    source = {"ts_ms": 1_772_366_400_000}
    envelope = {"before": None, "after": None, "op": op, "source": source} | rows
    return FakeRecord(0, json.dumps(envelope).encode(), key=b'{"id":1}')


class Declared(Event):
    id: int
    email: Hashed | None = None
    changed_at: EpochMillis


class Undeclared(Event):
    id: int
    changed_at: EpochMillis


def stream_of(
    contract: type[Event],
    unknown: Literal["forbid", "ignore", "keep"] = "forbid",
    deletes: Literal["tombstone", "document"] = "tombstone",
) -> Stream:
    return Stream(
        name="subscribers", contract=contract, table="subscribers", key=lambda row: str(row.id),
        event_time="changed_at", mode="upsert", primary_key=("id",), unknown_fields=unknown,
        decode=Debezium(source={"ts_ms": "changed_at"}, deletes=deletes), topics=Topics(managed=False),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stream", "record"),
    [
        (stream_of(Declared), change("c", after=CLEAR)),
        (stream_of(Declared), change("u", before=CLEAR, after=NAMED)),
        (stream_of(Declared), change("r", after=CUT)),
        (stream_of(Undeclared, "ignore"), change("c", after=CLEAR)),
        (stream_of(Undeclared, "keep"), change("c", after=CLEAR)),
        (stream_of(Declared, deletes="document"), change("d", before=CLEAR)),
    ],
)
def test_what_is_in_clear_is_a_dead_letter_that_is_not(stream: Stream, record: FakeRecord) -> None:
    assert problems(stream) == []
    rejection = stream.read(record)
    assert isinstance(rejection, Rejection)
    assert rejection.code is ErrorCode.CLEAR_TEXT_PII
    hasher = Hasher(b"key", stream.decoder.private_fields)
    dead = build(
        record, rejection, stage="loader", group="g", topic="dead", hasher=hasher, now=datetime.now(UTC)
    )  # fmt: skip
    assert dead.value is not None
    whole = dead.value + b"".join(content or b"" for _, content in dead.headers)
    assert b"example.com" not in whole
    assert b"Ann" not in whole
    assert json.loads(dead.value)["op"] == json.loads(record.value() or b"")["op"]


@pytest.mark.parametrize("after", [MASKED, {"id": 1, "email": None}, {"id": 1}])
def test_the_row_that_is_not_the_document_is_not_looked_at(after: dict[str, Any]) -> None:
    found = stream_of(Declared).read(change("u", before=CLEAR, after=after))
    assert isinstance(found, Declared)
    assert found.email == after.get("email")
    assert stream_of(Declared).read(change("d", before=CLEAR)) == Deletion((1,))


def test_the_decode_function_of_the_page_hashes_as_our_producer_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = (Path(__file__).parents[2] / "docs/formats.md").read_text()
    [block] = re.findall(r"```python\n([^`]*hash_private.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"__name__": "my_streams"}
    exec(block, names)  # noqa: S102
    stream = names["SUBSCRIBERS"]
    assert problems(stream) == []
    monkeypatch.setenv("STREAMFLOW_PII_KEY", "a key")
    for row in (CLEAR, NAMED):
        found = stream.read(change("u", before=CLEAR, after=row))
        assert found.email == Hasher(b"a key").hash(row["email"])
    assert stream.read(change("u", after={"id": 1, "email": None})).email is None
    assert stream.read(change("d", before=CLEAR)) == Deletion((1,))
    assert stream.read(change("t")).code is ErrorCode.UNKNOWN_TYPE
