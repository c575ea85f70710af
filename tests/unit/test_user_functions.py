"""What functions of a stream's declaration may do: each costs one record, whatever they raise or return."""

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from ipaddress import IPv4Address
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from confluent_kafka import Message
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    PlainSerializer,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from loads import TRUSTING, FakeRecord
from streamflow import (
    CloudEvents,
    ConfigurationError,
    Count,
    EpochMillis,
    ErrorCode,
    Event,
    Hasher,
    Notification,
    PhoneNumber,
    Rejection,
    Stream,
    Timestamp,
    Tombstone,
    TumblingWindow,
)
from streamflow.declarations import problems as faults_of
from streamflow.flow import Batch, Output
from streamflow.producer.lines import LineReader
from streamflow.records import OutRecord, Position
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS
from streamflow.trial import fails_at_start, problems, samples_of
from streamflow.user_code import import_named
from streaming_workers.analytics import Analytics
from streaming_workers.loader import Loader
from streaming_workers.validator import Validator

ADDRESS = "ann.exit@example.com"
LINE = b'{"k":"a","timestamp":"2026-03-01T12:00:00.000Z"}'


class _Own(BaseException):
    pass


ENDINGS = [
    SystemExit(f"bye {ADDRESS}"), GeneratorExit(ADDRESS), asyncio.CancelledError(ADDRESS),
    KeyboardInterrupt(ADDRESS), _Own(ADDRESS),
]  # fmt: skip


class Keyed(Event):
    k: str
    timestamp: Timestamp


STREAM = Stream(name="keyed", contract=Keyed, table="keyed", key="k")


@pytest.fixture
def worker_signals() -> Iterator[None]:
    """As in a worker, whose handler raises nothing. Dagster, where other tests import it, sets one for
    SIGTERM that does."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    kept = [signal.signal(number, lambda *_: None) for number in numbers]
    yield
    for number, handler in zip(numbers, kept, strict=True):
        signal.signal(number, handler)


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


def validated(stream: Stream, *records: Any) -> list[OutRecord]:
    positions = [Position(stream.topic, 0, len(records))]
    output = Validator(Settings(), [stream], Hasher()).process(Batch(records, positions))
    assert isinstance(output, Output)
    return output.records


def one(stream: Stream, value: bytes = LINE) -> tuple[OutRecord, dict[str, str]]:
    """What becomes of one record, with headers as text."""
    [record] = validated(stream, FakeRecord(0, value, topic=stream.topic))
    return record, {name: (text or b"").decode() for name, text in record.headers}


@pytest.mark.usefixtures("worker_signals")
@pytest.mark.parametrize("error", ENDINGS, ids=lambda error: type(error).__name__)
def test_nothing_that_it_raises_ends_a_worker(error: BaseException) -> None:
    name = type(error).__name__

    class Fragile(Keyed):
        @field_validator("k")
        @classmethod
        def _fail(cls, _: str) -> str:
            raise error

    contract = Stream(name="fragile", contract=Fragile, table="fragile", key="k")
    for stream, what in (
        (replace(STREAM, notify=raising(error)), "notify"),
        (replace(STREAM, decode=raising(error)), "decode"),
        (contract, "a validator of the contract"),
    ):
        record, headers = one(stream)
        assert record.topic == stream.dead_letter_topic
        assert headers["__streamflow.error_code"] == "PROCESSING_FAILED"
        assert headers["__connect.errors.exception.message"] == f"{what} raised {name}"
        assert ADDRESS not in str(record)
    found = LineReader(replace(STREAM, key=raising(error)), Hasher()).read(LINE)
    assert isinstance(found, Rejection)
    assert found.message == f"key raised {name}"
    bad = replace(STREAM, key=raising(error), notify=raising(error))
    parts = {problem.part for problem in problems(bad, samples_of(bad, Hasher()), Hasher())}
    assert parts == {"key", "notify"}


@pytest.mark.usefixtures("worker_signals")
def test_a_signal_still_ends_the_process() -> None:
    # Other tests may have left handlers of theirs in this process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        one(replace(STREAM, notify=lambda _: signal.raise_signal(signal.SIGINT)))

    def stop(*_: object) -> None:
        raise SystemExit

    signal.signal(signal.SIGTERM, stop)
    with pytest.raises(SystemExit):
        one(replace(STREAM, decode=lambda _: signal.raise_signal(signal.SIGTERM)))


@pytest.mark.usefixtures("worker_signals")
def test_a_module_that_raises_anything_is_a_wrong_declaration(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ending_streams.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="line 1: KeyboardInterrupt"):
        import_named("ending_streams")


@pytest.mark.parametrize("code", [ErrorCode.TOO_LARGE, "TOO_LARGE"])
def test_the_code_of_a_rejection_may_be_its_name(code: Any) -> None:
    _, headers = one(replace(STREAM, decode=lambda _: Rejection(code, "E", "too long")))
    assert headers["__streamflow.error_code"] == "TOO_LARGE"
    assert headers["__connect.errors.exception.message"] == "too long"


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (
            Rejection("nothing known", "E", "m"),
            "none of ErrorCode: use one of EMPTY_VALUE, INVALID_UTF8, ",
        ),  # type: ignore[arg-type]
        (Rejection(None, "E", "m"), "none of ErrorCode: use one of EMPTY_VALUE, INVALID_UTF8, "),  # type: ignore[arg-type]
        (Rejection(ErrorCode.TOO_LARGE, "E", 7), "exception and message are not both texts"),  # type: ignore[arg-type]
        (Rejection(ErrorCode.TOO_LARGE, ValueError, "m"), "are not both texts"),  # type: ignore[arg-type]
        (Tombstone("{}"), "a Tombstone whose key is neither bytes nor None"),  # type: ignore[arg-type]
        ("text", "decode raised TypeError"),
    ],
)
def test_what_a_decode_returns_is_checked(found: Any, says: str) -> None:
    _, headers = one(replace(STREAM, decode=lambda _: found))
    assert headers["__streamflow.error_code"] == "PROCESSING_FAILED"
    assert says in headers["__connect.errors.exception.message"]


OWN_CODES = """
import streamflow
from streamflow import ErrorCode, Event, Rejection, Stream, Timestamp

TOO_HOT = Rejection("TOO_HOT", "ValueError", "hotter than a sensor can be")

class Reading(Event):
    timestamp: Timestamp
    sensor: str

def checked(record):
    if record.key() is None:
        return streamflow.Rejection(code=ErrorCode.NO_KEY, exception="ValueError", message="no key")
    if record.value() is None:
        return Rejection(ErrorCode.EMPTY_VALUE, "ValueError", "nothing")
    return TOO_HOT if b"99" in record.value() else Rejection("SCHEMA_VIOLATION", "ValueError", "cold")

def decode(record):
    return checked(record)

READINGS = Stream(name="readings", contract=Reading, table="readings", key="sensor", decode=decode)
"""


def test_unknown_codes_that_are_written_out_are_found_in_the_declaration(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_codes.py").write_text(OWN_CODES)
    monkeypatch.syspath_prepend(tmp_path)
    found = faults_of(import_named("own_codes").READINGS)
    codes = ", ".join(ErrorCode)
    assert [problem.partition("own_codes.py, ")[2] for problem in found] == [
        f"line 5: TOO_HOT is no code of a Rejection: use one of {codes}",
        f"line 13: NO_KEY is no code of a Rejection: use one of {codes}",
    ]


@pytest.mark.parametrize(
    "decode",
    [
        lambda _: Rejection(ErrorCode.TOO_LARGE, "E\ud800" * 9_999, "long \ud800\x00" * 9_999),
        raising(type("E" * 9_999, (Exception,), {})()),
    ],
)
def test_a_dead_letter_holds_whatever_text_it_is_given(decode: Any) -> None:
    _, headers = one(replace(STREAM, decode=decode))
    assert len(headers["__connect.errors.exception.class.name"]) <= 200
    assert len(headers["__connect.errors.exception.message"]) <= 1_000


def test_a_notification_of_a_generator_is_taken_apart_once() -> None:
    def notify(event: Keyed) -> Any:
        yield from (f"hello {event.k}", 7, "u")

    record, _ = one(replace(STREAM, notify=notify))
    assert (record.topic, record.key) == ("notifications", b"u")
    assert json.loads(record.value or b"") == {
        "message": "hello a", "time": "2026-03-01T12:00:00.000Z", "event_id": 7, "user": "u",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Notification("x\ud800", 1, "u"), "a text with a lone surrogate"),
        (Notification("x", 1, "\udfff"), "a text with a lone surrogate"),
        (Notification("x", True, "u"), "notify returned no Notification"),
        (("x", 1), "notify raised TypeError"),
        (None, "notify raised TypeError"),
    ],
)
def test_what_is_no_notification_is_a_dead_letter(found: Any, says: str) -> None:
    record, headers = one(replace(STREAM, notify=lambda _: found))
    assert record.topic == STREAM.dead_letter_topic
    assert headers["__connect.errors.stage"] == "notify"
    assert headers["__streamflow.error_code"] == "PROCESSING_FAILED"
    assert says in headers["__connect.errors.exception.message"]


def overwriting(record: Any) -> None:
    record.set_topic("another")
    record.set_key(b"another")
    record.set_value(b"another")
    record.headers().append(("another", b""))
    record.set_headers([("another", b"")])


@pytest.mark.parametrize("headers", [None, [("one", b"1"), ("one", b"2")]])
@pytest.mark.parametrize("then", ["raises", "notify raises", "returns", "is rejected"])
def test_a_dead_letter_holds_the_record_that_was_consumed(headers: Any, then: str) -> None:
    record = Message(
        topic=STREAM.topic,
        partition=0,
        offset=0,
        key=b"k",
        value=LINE,
        headers=headers and [*headers],
    )

    def decode(record: Any) -> Any:
        overwriting(record) if headers else record.set_value(b"another")
        if then == "raises":
            raise KeyError
        return Rejection("TOO_LARGE", "E", "m") if then == "is rejected" else LINE  # type: ignore[arg-type]

    [made] = validated(replace(STREAM, decode=decode, notify=raising(KeyError())), record)
    assert (made.topic, made.key, made.value) == ("dead-letter-topic", b"k", LINE)
    foreign = [header for header in made.headers if not header[0].startswith("__")]
    assert foreign == (headers or [])
    assert (record.topic(), record.key(), record.value()) == (STREAM.topic, b"k", LINE)


def test_a_decode_may_hand_on_what_it_has_set() -> None:
    def decode(record: Any) -> Any:
        record.set_value(record.value()[1:])
        return CloudEvents()(record)

    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": json.loads(LINE)}
    record = Message(
        topic=STREAM.topic, partition=0, offset=0, value=b"#" + json.dumps(event).encode()
    )
    assert isinstance(replace(STREAM, decode=decode).read(record), Keyed)
    assert (record.value() or b"").startswith(b"#")


@pytest.mark.parametrize("kind", ["odd", "string_too_short", "literal_error", "missing_of_mine"])
def test_the_message_of_a_validator_s_own_error_is_never_told(kind: Any) -> None:
    class Custom(Keyed):
        @field_validator("k")
        @classmethod
        def _fail(cls, _: str) -> str:
            raise PydanticCustomError(kind, "it is {x}", {"x": "Ann Example"})

    _, headers = one(Stream(name="custom", contract=Custom, table="custom", key="k"))
    assert headers["__streamflow.error_code"] == "SCHEMA_VIOLATION"
    refused = "k: is refused by a validator of the contract"
    assert headers["__connect.errors.exception.message"] == refused


def test_no_header_of_a_dead_letter_holds_a_private_value() -> None:
    # What our own message says of it, and the hash of what it cannot know.
    for exception, message in (
        (ADDRESS, "m"),
        ("E", f"it is {ADDRESS}"),
        ("E" * 190 + ADDRESS, "m"),
    ):
        rejection = Rejection(ErrorCode.TOO_LARGE, exception, message)
        record, headers = one(replace(STREAM, decode=lambda _, found=rejection: found))
        assert "@" not in str(record)
        if message != "m":
            said = headers["__connect.errors.exception.message"]
            assert said == ("decode returned a Rejection whose message holds a clear-text address")
    expected = PydanticKnownError("literal_error", {"expected": ADDRESS})

    class Known(Keyed):
        @field_validator("k")
        @classmethod
        def _fail(cls, _: str) -> str:
            raise expected

    record, _ = one(Stream(name="known", contract=Known, table="known", key="k"))
    assert "@" not in str(record)


@pytest.mark.parametrize(
    ("notification", "what"),
    [
        (Notification(f"hello {ADDRESS}", 1, "u"), "address"),
        (Notification("hello", 1, ADDRESS), "address"),
        (Notification("hello ann%40example.com", 1, "u"), "address"),
        (Notification("call +49 30 901820", 1, "u"), "phone number"),
    ],
)
def test_a_notification_holds_nothing_private(notification: Notification, what: str) -> None:
    stream = replace(STREAM, notify=lambda _: notification, private_values=(PhoneNumber("DE"),))
    record, headers = one(stream)
    assert record.topic == STREAM.dead_letter_topic
    assert headers["__connect.errors.stage"] == "notify"
    assert headers["__streamflow.error_code"] == "CLEAR_TEXT_PII"
    said = headers["__connect.errors.exception.message"]
    assert said == f"notify returned a text with a clear-text {what}"
    assert "@" not in str(record)
    # What only looks a little like it.
    harmless = Notification("a@b \\u0040 &amp; 50% = 40;", 1, "@ann")
    record, _ = one(replace(STREAM, notify=lambda _: harmless))
    assert record.topic == "notifications"


def _giving(found: Any) -> Any:
    return AfterValidator(lambda _: found)


class _Hostile(str):
    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        raise SystemExit(ADDRESS)


class _NoEvent(Keyed):
    @model_validator(mode="wrap")
    @classmethod
    def _none(cls, _value: Any, _handler: Any) -> Any:
        return None


def _leave(_: Any) -> Any:
    raise GeneratorExit(ADDRESS)


def contracts() -> Iterator[tuple[str, type[Event], str, str]]:
    """Contracts whose own code gives what can be no row, with code and message."""
    failed, what = "PROCESSING_FAILED", "a validator or serializer of the contract raised "
    for name, found, code, says in (
        ("surrogate", "\ud800", failed, f"{what}UnicodeEncodeError"),
        ("object", object(), failed, f"{what}PydanticSerializationError"),
        ("hostile", _Hostile("a"), failed, f"{what}SystemExit"),
        (
            "address",
            ADDRESS,
            "CLEAR_TEXT_PII",
            "what a validator made of it holds a clear-text address",
        ),
    ):
        yield (
            name,
            create_model(name, __base__=Keyed, k=(Annotated[str, _giving(found)], ...)),
            code,
            says,
        )
    for name, moment, says in (
        (
            "naive",
            datetime(2026, 3, 1, tzinfo=UTC).replace(tzinfo=None),
            "returned an event time without a zone, or beyond the calendar",
        ),
        (
            "early",
            datetime.min.replace(tzinfo=UTC),
            "returned an event time without a zone, or beyond",
        ),
        ("none", None, f"{what}AttributeError"),
    ):
        field = (Annotated[Timestamp, _giving(moment)], ...)
        yield name, create_model(name, __base__=Keyed, timestamp=field), failed, says
    yield "no event", _NoEvent, failed, "returned something else than an event of it"
    fails = PlainSerializer(_leave)
    serialized = (Annotated[dict[str, int], fails], {})
    yield "serializer", create_model("s", __base__=Keyed, more=serialized), failed, f"{what}"
    made = (str, Field(default_factory=lambda: "\ud800"))
    yield "default", create_model("d", __base__=Keyed, more=made), failed, f"{what}"


CONTRACTS = {name: rest for name, *rest in contracts()}


@pytest.mark.usefixtures("worker_signals")
@pytest.mark.parametrize("name", CONTRACTS)
def test_what_a_validator_makes_of_a_field_costs_one_record(name: str) -> None:
    model, code, says = CONTRACTS[name]
    stream = Stream(
        name="keyed", contract=model, table="keyed", key="k", windows=TumblingWindow("10s", by="k"),
        notify=lambda _: Notification("x", 1, "u"),
    )  # fmt: skip
    record, headers = one(stream)
    assert record.topic == stream.dead_letter_topic
    assert headers["__streamflow.error_code"] == code
    assert says in headers["__connect.errors.exception.message"]
    # All workers are of one opinion.
    batch = Batch([FakeRecord(0, LINE, topic="keyed")], [Position("keyed", 0, 1)])
    analytics = Analytics(Settings(), [stream])
    analytics.assign({("keyed", 0): None})
    loader = Loader(Settings(), [stream], Hasher(), lambda: TRUSTING)
    for worker in (analytics, loader):
        output = worker.process(batch)
        assert output is not None
        assert output.rejected == [(0, code)]
        assert not output.tables["keyed"].lines
    # No such stream starts, as far as samples of it can be made.
    assert len(fails_at_start(stream)) == (name not in ("naive", "early", "none", "no event"))


class _Inner(BaseModel):
    number: int = 1
    names: list[str] = []


class _Outer(Keyed):
    x: float = 1.0
    inner: _Inner = _Inner()
    by_name: dict[str, list[int]] = Field(default_factory=lambda: {"a": [1]})

    @cached_property
    def twice(self) -> float:
        return 2 * self.x


CHANGES: dict[str, Callable[[Any], object]] = {
    "a field": lambda event: event.__dict__.update(x=42.0),
    "an equal value of another type": lambda event: event.__dict__.update(x=1),
    "a field that is gone": lambda event: event.__dict__.pop("x"),
    "within a model": lambda event: setattr(event.inner, "number", 2),
    "an item more": lambda event: event.inner.names.append("b"),
    "within a mapping": lambda event: event.by_name["a"].clear(),
    "a key": lambda event: event.by_name.setdefault("b", []),
    "a foreign field": lambda event: event.__pydantic_extra__.update(more=1),
}


def of_condition(where: Callable[[Any], object], contract: type[Event] = _Outer) -> Stream:
    windows = TumblingWindow("10s", by="k", n=Count(where=where), total=Count("k"))  # type: ignore[arg-type]
    return Stream(
        name="keyed", contract=contract, table="keyed", key="k", windows=windows, unknown_fields="keep"
    )  # fmt: skip


def outputs_of(stream: Stream, line: bytes) -> list[Output]:
    """Those of all workers for one record."""
    batch = Batch([FakeRecord(0, line, topic="keyed")], [Position("keyed", 0, 1)])
    analytics = Analytics(Settings(), [stream])
    analytics.assign({("keyed", 0): None})
    loader = Loader(Settings(), [stream], Hasher(), lambda: TRUSTING)
    workers = (Validator(Settings(), [stream], Hasher()), analytics, loader)
    outputs = [worker.process(batch) for worker in workers]
    return [output for output in outputs if output is not None]


@pytest.mark.parametrize("name", CHANGES)
def test_a_condition_that_changes_the_event_is_a_dead_letter_in_every_stage(name: str) -> None:
    """The row would hold what it has made of the event, and the audit, which asks the row, close."""
    change = CHANGES[name]
    stream = of_condition(lambda event: event.k != "a" or change(event) or True)

    read = stream.read(FakeRecord(0, LINE, topic="keyed"))
    assert read == Rejection(
        ErrorCode.PROCESSING_FAILED,
        "ValueError",
        "where of n of the windows keyed_10s changes the event",
    )
    assert [output.rejected for output in outputs_of(stream, LINE)] == [
        [(0, "PROCESSING_FAILED")]
    ] * 3
    other = LINE.replace(b'"a"', b'"b"')
    assert [output.rejected for output in outputs_of(stream, other)] == [[]] * 3
    # No sample has that key.
    assert fails_at_start(stream) == []


def test_a_condition_may_read_whatever_it_wants() -> None:
    stream = of_condition(
        lambda event: (
            event.twice > 1
            and event.inner.names == []
            and event.by_name["a"] == [1]
            and event.model_dump()
            and event.__dict__.update(x=event.x) is None
        )
    )
    event = stream.read(FakeRecord(0, LINE.replace(b'"k"', b'"more":[{}],"k"'), topic="keyed"))
    assert isinstance(event, _Outer)


def test_of_scalars_only_a_change_is_noticed_too() -> None:
    class Flat(Keyed):
        x: float = 1.0

    for change in (lambda event: event.__dict__.update(x=1), lambda event: event.__dict__.clear()):
        stream = of_condition(lambda event, change=change: change(event) or True, Flat)
        stream = replace(stream, unknown_fields="forbid")
        read = stream.read(FakeRecord(0, LINE, topic="keyed"))
        assert isinstance(read, Rejection)
        assert read.code == "PROCESSING_FAILED"


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (lambda event: setattr(event.inner, "number", 5) is None, "changes the event"),
        (lambda event: event.x / 0 > 1, "raised ZeroDivisionError"),
    ],
)
def test_a_condition_that_fails_is_named_when_the_stream_is_tried(where: Any, says: str) -> None:
    class Needs(Keyed):
        x: float
        inner: _Inner

    [problem] = fails_at_start(of_condition(where, Needs))
    assert f"(where of n of the windows keyed_10s {says})" in problem
    assert problem.endswith(
        "let that function return True or False for every valid event, and change none"
    )


def test_key_and_notify_cannot_change_what_is_written() -> None:
    later = datetime(2030, 1, 1, tzinfo=UTC)

    def key(event: Any) -> str:
        event.__dict__["k"] = "changed"
        return "key"

    def notify(event: Any) -> Notification:
        event.__dict__["timestamp"] = later
        return Notification("x", 1, "u")

    stream = Stream(name="keyed", contract=Keyed, table="keyed", key=key, notify=notify)
    event = stream.decoder.decode(LINE)
    assert isinstance(event, Keyed)
    assert stream.encode(event) == (b"key", LINE)
    assert stream.notifications_of is not None
    [made] = stream.notifications_of([event])
    assert not isinstance(made, Rejection)
    assert b"2026-03-01T12:00:00.000Z" in made[1]
    found = problems(stream, samples_of(stream, Hasher()), Hasher())
    assert [(each.part, each.text) for each in found] == [
        ("key", "`key` of the stream changes the Keyed that it is asked of: let it only read it"),
        (
            "notify",
            "`notify` of the stream changes the Keyed that it is asked of: let it only read it",
        ),
    ]


def test_contracts_without_code_of_their_own_pay_nothing() -> None:
    class Rich(Keyed):
        price: Decimal = Decimal(1)
        at: EpochMillis | None = None
        address: IPv4Address | None = None
        names: list[str] = Field(default_factory=list)
        id: UUID = Field(default_factory=uuid4)

    for contract in (Keyed, Rich, USER_EVENTS.contract):
        stream = Stream(name="keyed", contract=contract, table="keyed", key="k")
        assert stream.fault_of is None
    for _, model, *_ in contracts():
        assert Stream(name="keyed", contract=model, table="keyed", key="k").fault_of is not None
