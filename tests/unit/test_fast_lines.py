"""What the fast path makes of a line is what the slow one makes of it, byte for byte."""

import json
import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drawn import contracts, mutated
from streamflow import Event, Hashed, Stream, Timestamp
from streamflow.privacy import Hasher
from streamflow.producer.lines import Accepted, LineReader
from streamflow.streams.user_events import USER_EVENTS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
FIELDS = (
    "text",
    "short",
    "number",
    "flag",
    "ref",
    "day",
    "colour",
    "kind",
    "stamp",
    "hashed",
    "hashed",
)
READER = LineReader(USER_EVENTS, Hasher(b"key", ("user_email",)))
HASH = "0a" * 32
ORDINARY = {
    "id": 1, "type": "USER_LOGIN", "user": "ann", "user_email": "ann@example.com",
    "timestamp": "2026-03-01T12:00:00.000Z",
}  # fmt: skip


def is_fast(reader: LineReader, line: bytes) -> bool:
    """Compares both paths; returns whether the fast one said yes."""
    [fast] = reader.read_ordinary([line])
    if fast is None:
        return False
    found = reader.read(line.strip(b"\r\n"))
    assert isinstance(found, Accepted), line
    assert (fast.key, fast.value) == (found.key, found.value)
    return True


def with_private(document: dict[str, Any], text: str) -> dict[str, Any]:
    return {
        name: text if name.startswith("hashed") and value else value
        for name, value in document.items()
    }


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=contracts(among=FIELDS, shapes=("required", "optional")), data=st.data())
def test_a_fast_record_is_the_slow_one(
    drawn: tuple[Stream, list[dict[str, Any]]], data: st.DataObject
) -> None:
    stream, documents = drawn
    key = data.draw(st.sampled_from(sorted(stream.contract.model_fields)))
    stream = replace(stream, key=key)
    names = stream.decoder.private_fields if data.draw(st.booleans()) else ()
    reader = LineReader(stream, Hasher(None, names))
    private = st.sampled_from(
        ("ann@example.com", "ann", "", HASH, HASH + "\n", "a%40b.de", "ann@x.de@")
    )
    lines = [
        data.draw(mutated(with_private(document, data.draw(private))))
        + data.draw(st.sampled_from((b"", b"\n", b"\r\n")))
        for document in documents
    ]
    for line in lines:
        is_fast(reader, line)
    together = reader.read_ordinary(lines)
    assert together == [reader.read_ordinary([line])[0] for line in lines]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"user_email": HASH},
        {"user_email": "ann"},
        {"user_email": 'a"\\/\b\f\n\r\t\x7fé😀@example.com'},
        {"user": 'a"\\/\b\f\n\r\t\x7fé😀'},
        {"timestamp": "2026-03-01T12:00:00Z"},
        {"timestamp": "2026-03-01T12:00:00.123456+00:00"},
        {"timestamp": "2026-03-01T23:30:00-01:30"},
        {"timestamp": "0002-01-01T00:00:00.999999Z"},
        {"id": 2**53 - 1},
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b" \t\r\n"])
def test_ordinary_lines_are_fast(changed: dict[str, Any], end: bytes) -> None:
    line = json.dumps(ORDINARY | changed, ensure_ascii=False).encode() + end
    assert is_fast(READER, line)
    assert is_fast(READER, b" " + json.dumps(ORDINARY | changed, indent=0).encode()) == (
        "é" not in changed.get("user", changed.get("user_email", ""))
    )


@pytest.mark.parametrize(
    "line",
    [
        json.dumps(ORDINARY | {"user": "ann@example.com"}),
        json.dumps(ORDINARY | {"user": "ann%40example.com"}),
        json.dumps(ORDINARY | {"user": "ann&#64;example.com"}),
        json.dumps(ORDINARY).replace("ann@", r"ann\u0040"),
        json.dumps(ORDINARY).replace("user_email", r"user\u005femail"),
        json.dumps(ORDINARY)[:-1] + ', "user_email": "bob@example.com"}',
        '{"user": "bob@example.com", ' + json.dumps(ORDINARY)[1:],
        json.dumps(ORDINARY | {"user_email": HASH + "\n"}),
        json.dumps(ORDINARY | {"user_email": ""}),
        json.dumps(ORDINARY | {"user_email": None}),
        json.dumps(ORDINARY | {"timestamp": "2026-02-29T00:00:00.000Z"}),
        json.dumps(ORDINARY | {"timestamp": "2026-03-01T12:00:00.1234567Z"}),
        json.dumps(ORDINARY | {"timestamp": "2026-03-01t12:00:00z"}),
        json.dumps(ORDINARY | {"more": 1}),
        "\ufeff" + json.dumps(ORDINARY),
        "", " ", "null", "[]", "\x0b" + json.dumps(ORDINARY),
    ],
)  # fmt: skip
def test_other_lines_are_not(line: str) -> None:
    odd, plain = line.encode(), json.dumps(ORDINARY).encode()
    assert not is_fast(READER, odd)
    [first, between, last] = READER.read_ordinary([plain, odd, plain])
    assert between is None
    assert first == last is not None


def test_what_no_producer_hashes_is_judged_by_the_slow_path() -> None:
    line = json.dumps(ORDINARY).encode()
    assert LineReader(USER_EVENTS, Hasher()).read_ordinary([line]) == [None]
    assert LineReader(USER_EVENTS, Hasher(None, ("user_email", "user"))).read_ordinary([line]) == [
        None
    ]


def test_a_function_of_the_user_is_given_an_event() -> None:
    stream = replace(USER_EVENTS, key=lambda event: event.model_dump()["user"])
    reader = LineReader(stream, Hasher(None, ("user_email",)))
    line = json.dumps(ORDINARY).encode()
    assert reader.read_ordinary([line]) == [None]
    found = reader.read(line)
    assert isinstance(found, Accepted)
    assert found.key == b"ann"


class Aliased(Event):
    mail: Hashed | None = None
    at: Timestamp
    kind: str = "web"


def test_a_default_is_written() -> None:
    stream = Stream(name="aliased", contract=Aliased, table="aliased", key="kind", event_time="at")
    reader = LineReader(stream, Hasher(None, stream.decoder.private_fields))
    line = b'{"at":"2026-03-01T12:00:00Z"}'
    is_fast(reader, line)
    found = reader.read(line)
    assert isinstance(found, Accepted)
    assert b'"kind":"web"' in found.value
