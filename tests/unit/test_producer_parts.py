"""Simulation and input lines, without a broker."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any
from unittest.mock import MagicMock

import pytest

from loads import FakeRecord
from streamflow.errors import CircuitOpen, ErrorCode, Unavailable
from streamflow.privacy import Hasher
from streamflow.producer.lines import Accepted, LineReader
from streamflow.records import OutRecord, Position, Rejection
from streamflow.settings import Settings
from streamflow.stream import Simulated
from streamflow.streams.user_events import USER_EVENTS, UserEvent
from streamflow.streams.user_events.simulation import Simulation
from streamflow_cli import produce
from streaming_workers.producer import file
from streaming_workers.producer.progress import FileProgress, progress_of
from streaming_workers.runtime.breaker import Breaker

HASHER = Hasher(None, ["user_email"])


def test_every_simulated_mistake_is_rejected_with_its_own_code() -> None:
    records = list(islice(Simulation(HASHER, seed=1, invalid_ratio=0.5), 4_000))
    for record in records:
        found = USER_EVENTS.decoder.decode(record.value)
        assert (found.code if isinstance(found, Rejection) else None) is record.code
    # Records of that size, or of somebody else, are no part of a simulation.
    others = {
        ErrorCode.TOO_LARGE, ErrorCode.UNREADABLE, ErrorCode.FOREIGN_RECORD, ErrorCode.PROCESSING_FAILED
    }  # fmt: skip
    # The stream is plain JSON.
    others |= {ErrorCode.INVALID_FORMAT, ErrorCode.UNKNOWN_SCHEMA}
    assert {record.code for record in records} == {None, *ErrorCode} - others


def test_the_same_seed_gives_the_same_users_and_mistakes() -> None:
    one, other = (
        [
            (each.key, each.code)
            for each in islice(Simulation(HASHER, seed=7, invalid_ratio=0.1), 500)
        ]
        for _ in range(2)
    )
    assert one == other


@pytest.mark.parametrize("choice", ["send", "skip"])
def test_a_line_that_hashing_mends_is_sent_as_valid(
    choice: file.OnInvalid, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = {"id": 1, "type": "USER_LOGIN", "user": "x", "timestamp": "2026-03-01T12:00:00Z"}
    clear = json.dumps(line | {"user": "eve@example.com"}).encode()
    both = json.dumps(line | {"user": "eve@example.com", "id": "one"}).encode()
    reported: dict[int, Rejection] = {}
    reader, source = LineReader(USER_EVENTS, HASHER), MagicMock()
    run = file.FileRun(MagicMock(), USER_EVENTS, reader, source, choice, reported.__setitem__)
    run._client = client = MagicMock()
    sent_otherwise: list[OutRecord] = []
    monkeypatch.setattr(file, "produce", lambda _client, record: sent_otherwise.append(record))
    assert run._produce([clear, both], 1, None, threading.Event()) == (2, None)
    assert [reported[number].code for number in (1, 2)] == (
        [ErrorCode.CLEAR_TEXT_PII, ErrorCode.SCHEMA_VIOLATION]
        if choice == "send"
        else [ErrorCode.CLEAR_TEXT_PII] * 2
    )
    if choice == "skip":
        assert run._sent == file.Sent(skipped=2)
        assert not client.produce.called
        return
    assert "it is sent hashed, and is valid so" in reported[1].message
    assert run._sent == file.Sent(records=2, hashed=1, invalid=Counter({"SCHEMA_VIOLATION": 1}))
    hashed = HASHER.hash("eve@example.com")
    [(_topic, value, key)] = [call.args for call in client.produce.call_args_list]
    assert json.loads(value)["user"] == hashed == key.decode()
    assert [json.loads(record.value or b"")["user"] for record in sent_otherwise] == [hashed]


def test_a_line_is_hashed_once_and_checked() -> None:
    line = {"id": 1, "type": "USER_LOGIN", "user": "ann", "timestamp": "2026-03-01T12:00:00Z"}
    reader = LineReader(USER_EVENTS, HASHER)
    first = reader.read(json.dumps(line | {"user_email": "ann@example.com"}).encode())
    assert isinstance(first, Accepted)
    assert json.loads(first.value)["user_email"] == HASHER.hash("ann@example.com")
    assert reader.read(first.value) == first
    assert isinstance(reader.read(b"nonsense"), Rejection)
    assert isinstance(reader.read(b'"' + b"x" * 2_000_000 + b'"'), Rejection)


def test_a_line_whose_key_makes_it_too_long_is_rejected() -> None:
    class Named(UserEvent):
        user: str

    reader = LineReader(replace(USER_EVENTS, contract=Named), HASHER)
    line = {"id": 1, "type": "USER_LOGIN", "timestamp": "2026-03-01T12:00:00Z"}
    short, long = (
        reader.read(json.dumps(line | {"user": "x" * length}).encode())
        for length in (500_000, 600_000)
    )
    assert isinstance(short, Accepted)
    assert isinstance(long, Rejection)
    assert long.message == "longer than the topic's largest record"


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\x1e", b"\x1e\xef\xbb\xbf" * 2_000])
def test_a_mark_before_a_line_is_taken_off(mark: bytes) -> None:
    line = b'{"id":1,"type":"USER_LOGIN","user":"ann","timestamp":"2026-03-01T12:00:00.000Z"}'
    found = LineReader(USER_EVENTS, HASHER).read(mark + line)
    assert isinstance(found, Accepted)
    assert found.value == line


@pytest.mark.parametrize("times", [("0001-01-02", "9999-12-30"), ("9999-12-30", "0001-01-02")])
def test_the_calendar_s_ends_can_be_waited_for(times: tuple[str, str]) -> None:
    first, second = (
        UserEvent(
            id=1, type="USER_LOGIN", user="ann", timestamp=datetime.fromisoformat(f"{day}T00:00Z")
        )
        for day in times
    )
    pace, stop = produce._pacing(1.0, USER_EVENTS), threading.Event()
    file._wait(pace, first, stop)
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    file._wait(pace, second, stop)
    assert (time.monotonic() - began > 0.2) == (times[1] > times[0])


def test_numbers_keep_their_digits_when_a_line_is_hashed() -> None:
    class Measured(UserEvent):
        more: dict[str, Any]

    stream = replace(USER_EVENTS, contract=Measured)
    line = (
        b'{"id":1,"type":"USER_LOGIN","user":"ann","user_email":"ann@example.com",'
        b'"timestamp":"2026-03-01T12:00:00.000Z","more":{"n":12345678901234567890123,"x":0.1}}'
    )
    found = LineReader(stream, HASHER).read(line)
    assert isinstance(found, Accepted)
    assert found.value == line.replace(b"ann@example.com", HASHER.hash("ann@example.com").encode())


def test_each_of_two_private_values_is_hashed() -> None:
    line = (
        b'{"id":1,"type":"USER_LOGIN","user":"ann","user_email":"ann@example.com",'
        b'"user_email":"bob@example.com","timestamp":"2026-03-01T12:00:00.000Z"}'
    )
    found = LineReader(USER_EVENTS, HASHER).read(line)
    assert isinstance(found, Accepted)
    assert json.loads(found.value)["user_email"] == HASHER.hash("bob@example.com")


def opens(
    breaker: Breaker,
    records: int,
    rejected: list[int],
    topic: str = "one",
    *,
    keys: int = 1_000,
    refused: bool = False,
) -> bool:
    batch = [
        FakeRecord(offset, b"", topic=topic, key=b"%d" % (offset % keys))
        for offset in range(records)
    ]
    indexes = ([], rejected) if refused else (rejected, [])
    try:
        breaker.check(batch, *indexes)
        breaker.check(batch, *indexes)  # The commit is retried.
    except CircuitOpen:
        return True
    breaker.kept()
    return False


@pytest.mark.parametrize("refused", [False, True])
def test_the_breaker_opens_on_a_run_and_on_a_ratio(*, refused: bool) -> None:
    breaker = Breaker(window=1_000, ratio=0.9, consecutive=50)
    assert not opens(breaker, 60, list(range(20, 60)), refused=refused)
    assert opens(breaker, 20, list(range(10)), refused=refused)
    assert not opens(breaker, 20, list(range(1, 10)), refused=refused)
    ratio = Breaker(window=100, ratio=0.9, consecutive=1_000)
    assert not opens(ratio, 50, list(range(5, 50)), refused=refused)
    assert opens(ratio, 50, list(range(5, 50)), refused=refused)


def test_one_broken_producer_does_not_open_the_breaker() -> None:
    """Two signs: few keys, or a release that has accepted enough before."""
    few_keys = Breaker(window=10_000, ratio=0.9, consecutive=5_000)
    assert not opens(few_keys, 6_000, list(range(6_000)), keys=9)
    assert not opens(few_keys, 6_000, list(range(6_000)), keys=9)
    assert opens(few_keys, 6_000, list(range(6_000)), keys=10)

    sound = Breaker(window=10_000, ratio=0.9, consecutive=5_000)
    assert not opens(sound, 1_000, [])
    assert not opens(sound, 20_000, list(range(20_000)))
    # What the database refuses is no producer's fault, whatever was accepted.
    assert opens(sound, 5_000, list(range(5_000)), refused=True)


def test_keys_that_were_accepted_before_are_no_sign_of_a_broken_release() -> None:
    breaker = Breaker(window=10_000, ratio=0.9, consecutive=5_000)
    assert not opens(breaker, 100, [], keys=100)
    assert not opens(breaker, 6_000, list(range(6_000)), keys=109)
    assert opens(breaker, 6_000, list(range(6_000)), keys=110)


def test_the_breaker_counts_each_topic_on_its_own() -> None:
    breaker = Breaker(window=1_000, ratio=0.9, consecutive=50)
    mixed = [
        FakeRecord(each, b"", topic="bad" if each % 2 else "good", key=b"%d" % each)
        for each in range(98)
    ]
    refused = [each for each in range(98) if each % 2]
    breaker.check(mixed, refused)
    breaker.kept()
    assert not opens(breaker, 100, [], "good")
    assert opens(breaker, 1, [0], "bad")


def test_what_is_refused_is_counted_among_what_the_contract_accepts() -> None:
    breaker = Breaker(window=1_000, ratio=0.9, consecutive=50)
    mixed = [
        FakeRecord(at, b"", topic="bad" if at % 2 else "good", key=b"%d" % at) for at in range(196)
    ]
    breaker.check(mixed, rejected=list(range(1, 196, 4)), refused=list(range(3, 196, 4)))
    breaker.kept()
    assert not opens(breaker, 1, [0], "good", refused=True)
    assert opens(breaker, 1, [0], "bad", refused=True)


def test_what_a_later_topic_of_mixed_batches_accepts_is_learned() -> None:
    breaker = Breaker(window=1_000, ratio=0.9, consecutive=50)
    assert not opens(breaker, 200, [], "first")
    mixed = [
        FakeRecord(at, b"", topic="first" if at % 2 == 0 else "later", key=b"%d" % at)
        for at in range(200)
    ]
    for _ in range(3):
        breaker.check(mixed, [])
        breaker.kept()
    assert not opens(breaker, 5_000, list(range(5_000)), "later")


def test_simulated_records_that_are_not_acknowledged_are_not_reported_as_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(file, "_TIMEOUT", 0.2)
    nowhere = Settings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    records = [Simulated(b"key", b"value", None)] * 2
    with pytest.raises(Unavailable, match=r"did not acknowledge 2 of 2 records within 0\.2 s"):
        file.simulate(
            nowhere, [(USER_EVENTS, records)], threading.Event(), rate=1_000_000, count=None
        )


def test_a_simulated_event_is_made_just_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(file, "produce", lambda _, record, **__: calls.append(f"sent {record.key}"))

    def source(name: bytes) -> Iterator[Simulated]:
        while True:
            calls.append(f"made {name!r}")
            yield Simulated(name, b"value", None)

    sent = file.simulate(
        Settings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"),
        [(USER_EVENTS, source(name)) for name in (b"a", b"b", b"c")],
        threading.Event(),
        rate=1_000_000,
        count=2,
    )
    assert sent.records == 6
    assert calls == [
        f"{what} {name!r}" for name in (b"a", b"b", b"c") * 2 for what in ("made", "sent")
    ]


@pytest.mark.parametrize(
    "metadata", ["", "12", ";", "x;" + "0" * 64, "12;" + "0" * 63, "12;noon", f"12;{'0' * 64};"]
)
def test_an_offset_that_was_moved_by_hand_says_nothing_of_a_file(metadata: str) -> None:
    assert progress_of(Position("user-events", 0, 7, metadata)) is None


def test_the_progress_of_a_file_is_what_was_committed() -> None:
    digest = "0f" * 32
    assert progress_of(Position("user-events", 0, 7, f"12;{digest}")) == (7, 12, digest, 0)
    assert progress_of(Position("user-events", 0, 7, f"12;{digest};3")) == (7, 12, digest, 3)
    assert progress_of(Position("user-events", 0, 0)) == FileProgress()
