"""What the loader makes of a batch."""

import json
from dataclasses import replace
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field, create_model
from structlog.testing import capture_logs

from loads import TOPIC, TRUSTING, FakeRecord, batch, event, events
from streamflow.contract import Event, Timestamp
from streamflow.errors import ConfigurationError, ErrorCode
from streamflow.flow import Output, Replayed
from streamflow.postgres.rows.events import EventRows, text_of
from streamflow.postgres.rows.windows import window_of
from streamflow.privacy import Hasher
from streamflow.records import (
    ORIGIN_HEADER,
    ORIGIN_TOPIC_ID_HEADER,
    SOURCE_HEADER,
    TOPIC_ID_HEADER,
    Headers,
    Origin,
    OutRecord,
    Position,
    Rejection,
    last_header,
)
from streamflow.settings import Settings
from streamflow.signing import Signer
from streamflow.stream import Stream
from streamflow.streams.user_events import USER_EVENTS
from streamflow.windows.progress import Progress
from streaming_workers.analytics import Analytics
from streaming_workers.loader import Loader
from streaming_workers.validator import Validator
from window_parts import HOPPING, ORDERS, TUMBLING, orders, parts_of, record

SIGNER = Signer(b"a secret of the workers")

COUNT = {
    "window_start": "2026-07-01T12:00:00.000Z",
    "window_end": "2026-07-01T12:00:10.000Z",
    "event_type": "USER_LOGIN",
    "count": 3,
    "partition": 1,
    "late": False,
    "first_offset": 5,
    "last_offset": 9,
}
NOTE = {
    "message": "User a logged in",
    "time": "2026-07-01T12:00:00.000Z",
    "event_id": 1,
    "user": "a",
}


@pytest.fixture
def loader() -> Loader:
    return Loader(Settings(), [USER_EVENTS], Hasher(), lambda: TRUSTING)


@pytest.fixture
def strict() -> Loader:
    """One that trusts signatures only."""
    return Loader(Settings(), [USER_EVENTS], Hasher(), lambda: SIGNER)


def process(loader: Loader, *records: FakeRecord) -> Output:
    return loader.process(batch(records))


def test_it_reads_all_topics(loader: Loader) -> None:
    assert loader.group == "db-group"
    assert loader.topics == ["user-events", "analytics", "notifications", "dead-letter-topic"]


def test_a_row_per_event_in_order(loader: Loader) -> None:
    records = [*events([3, 4]), *events([7], partition=2), *events([5])]

    output = process(loader, *records)

    assert [line.split(b"\t")[0] for line in output.tables["events"].lines] == [
        b"3",
        b"4",
        b"7",
        b"5",
    ]
    assert output.tables["events"].sources == records
    assert output.tables["events"].days == {date(2026, 7, 1)}
    assert {key: tuple(count) for key, count in output.counts.items()} == {
        (TOPIC, 0): (3, 0),
        (TOPIC, 2): (1, 0),
    }


def test_a_binary_row_says_what_its_line_says(loader: Loader) -> None:
    values = [
        event(1),
        event(2, user="None"),
        event(3, user='tab\tbackslash\\newline\nquote"'),
        event(4, user_email="a" * 64),
        event(5, time="2026-07-01T00:30:00+02:00"),
        event(6, time="0001-01-02T00:00:00Z"),
        event(7, time="9999-12-30T00:00:00Z"),
        event(8, time="2026-07-01T12:00:00.123456-23:59"),
        event(9, user="é\u2028😀"),
    ]
    records = [FakeRecord(index, each) for index, each in enumerate(values)]
    handler = loader._handlers[TOPIC]

    output = process(loader, *records)

    assert output.tables["events"].is_binary
    assert output.tables["events"].lines == [
        handler.rows.line(  # type: ignore[attr-defined]
            USER_EVENTS.decoder.decode(record.value()),
            Origin(TOPIC, 0, record.offset()),
            record.timestamp(),
        )
        for record in records
    ]
    assert output.tables["events"].lines[4].split(b"\t")[4] == b"2026-06-30 22:30:00+00:00"


class Odd(Event):
    """What its validator makes is no text, but PostgreSQL reads it as one."""

    timestamp: Timestamp
    text: Annotated[str, AfterValidator(lambda text: 7 if text == "seven" else text)]


def test_what_has_no_certain_binary_form_is_a_line_of_text() -> None:
    stream = Stream(name="odd", contract=Odd, table="odd", key=lambda _: "k")
    loader = Loader(Settings(), [stream], Hasher(), lambda: TRUSTING)
    texts = ["one", "two", "seven", "eight"]
    records = [
        FakeRecord(
            offset, json.dumps({"timestamp": NOTE["time"], "text": text}).encode(),
            topic="odd", partition=offset // 2,
        )
        for offset, text in enumerate(texts)
    ]  # fmt: skip

    # The first two alone are binary; all are text once there is text among them.
    assert loader.process(batch(records[:2])).tables["odd"].is_binary
    for order in (records, records[::-1]):
        found = loader.process(batch(order)).tables["odd"]
        assert not found.is_binary
        words = [line.split(b"\t")[0].decode() for line in found.lines]
        assert words == [texts[each.offset()].replace("seven", "7") for each in order]
        assert found.sources == order


class Line(BaseModel):
    sku: str
    number: int = 1


class Basket(Event):
    timestamp: Timestamp
    first: Line
    lines: list[Line] = Field(default_factory=list)
    note: str | None = None
    total: float = 0


def test_documents_and_plain_defaults_have_a_binary_form() -> None:
    stream = Stream(name="odd", contract=Basket, table="odd", key=lambda _: "k")
    loader = Loader(Settings(), [stream], Hasher(), lambda: TRUSTING)
    documents = [
        {"timestamp": NOTE["time"], "first": {"sku": "a"}},
        {
            "timestamp": NOTE["time"],
            "first": {"sku": "b\t", "number": 2},
            "lines": [{"sku": "é"}],
            "total": 5,
        },
    ]
    records = [
        FakeRecord(offset, json.dumps(document).encode(), topic="odd")
        for offset, document in enumerate(documents)
    ]
    found = loader.process(batch(records)).tables["odd"]
    assert found.is_binary
    rows = EventRows(stream)
    # The default is a whole number, and the column's value is a double.
    lines = [line.replace(b"\t0.0\t", b"\t0\t") for line in found.lines]
    assert lines == [
        rows.line(stream.read(record), Origin("odd", 0, record.offset()), record.timestamp())  # type: ignore[arg-type]
        for record in records
    ]


def test_texts_of_any_length_are_packed(loader: Loader) -> None:
    records = [
        FakeRecord(each, event(each, user="\u00e4" * (each % 250 + 1), id=each), partition=each % 3)
        for each in range(600)
    ]
    found = process(loader, *records).tables["events"]
    assert found.is_binary
    users = [line.split(b"\t")[2].decode() for line in found.lines]
    assert users == [json.loads(each.value() or b"")["user"] for each in records]


def test_a_rejection_is_noted_and_left_to_the_validator(loader: Loader) -> None:
    output = process(loader, *events([0]), FakeRecord(1, b"{"), *events([2]))

    assert output.rejected == [(1, ErrorCode.INVALID_JSON)]
    assert output.records == []
    assert len(output.tables["events"].lines) == 2
    assert tuple(output.counts[TOPIC, 0]) == (3, 1)


def test_a_record_that_claims_to_be_replayed_goes_apart(loader: Loader) -> None:
    headers: Headers = [(ORIGIN_HEADER, b"user-events/1/5")]
    record = FakeRecord(8, event(1), headers=headers)

    output = process(loader, record)

    [replay] = output.tables["events"].claims
    assert output.tables["events"].lines == []
    assert replay.sent == Origin(TOPIC, 0, 8)
    # Whatever it claims: what it is will be known from the replay records.
    line = replay.line(Replayed(Origin(TOPIC, 2, 6), 1))
    assert isinstance(line, bytes)
    assert line.split(b"\t")[5:8] == [b"6", b"user-events", b"2"]
    assert isinstance(replay.otherwise, bytes)
    assert replay.otherwise.split(b"\t")[5:8] == [b"8", b"user-events", b"0"]
    assert output.tables["events"].days == {date(2026, 7, 1)}


@pytest.mark.parametrize("origin", [b"", b"other/1/5", b"user-events/x/5", b"user-events/0/8"])
def test_an_unsound_origin_is_no_replay(loader: Loader, origin: bytes) -> None:
    output = process(loader, FakeRecord(8, event(1), headers=[(ORIGIN_HEADER, origin)]))

    assert output.tables["events"].claims == []
    assert len(output.tables["events"].lines) == 1


def test_window_counts(loader: Loader) -> None:
    plain = FakeRecord(0, json.dumps(COUNT).encode(), topic="analytics")
    headers: Headers = [(ORIGIN_HEADER, b"other-stream/1/5")]
    told = FakeRecord(1, json.dumps(COUNT).encode(), topic="analytics", headers=headers)

    output = process(loader, plain, told)

    lines = [line.decode().split("\t") for line in output.tables["window_counts"].lines]
    assert [line[8] for line in lines] == [TOPIC, "other-stream"]
    assert lines[0][2:8] == ["USER_LOGIN", "3", "1", "false", "5", "9"]


def test_notifications(loader: Loader) -> None:
    headers: Headers = [(ORIGIN_HEADER, b"user-events/1/5")]
    value = json.dumps(NOTE).encode()

    output = process(
        loader,
        FakeRecord(0, value, topic="notifications", headers=headers),
        FakeRecord(1, value, topic="notifications"),
    )

    lines = [line.decode().split("\t") for line in output.tables["notifications"].lines]
    assert [line[4:7] for line in lines] == [["user-events", "1", "5"], ["notifications", "0", "1"]]


def test_a_notification_of_what_claims_to_be_replayed_goes_apart(loader: Loader) -> None:
    headers: Headers = [(ORIGIN_HEADER, b"user-events/1/5"), (SOURCE_HEADER, b"user-events/0/8")]
    value = json.dumps(NOTE).encode()

    output = process(loader, FakeRecord(0, value, topic="notifications", headers=headers))

    [claim] = output.tables["notifications"].claims
    assert output.tables["notifications"].lines == []
    assert claim.sent == Origin(TOPIC, 0, 8)
    line = claim.line(Replayed(Origin(TOPIC, 2, 6), 1))
    assert isinstance(line, bytes)
    assert line.split(b"\t")[4:7] == [b"user-events", b"2", b"6"]
    assert isinstance(claim.otherwise, bytes)
    assert claim.otherwise.split(b"\t")[4:7] == [b"user-events", b"0", b"8"]


def signed(
    offset: int, topic: str, value: bytes, headers: Headers, *, earlier: bool = False
) -> FakeRecord:
    """A record of a worker of this release, or of an earlier one, which wrote the topic's id in its own
    header."""
    *others, (name, signature) = SIGNER.sign(OutRecord(topic, b"k", value, headers)).headers
    if earlier:
        others, signature = headers, (signature or b"")[:16]
    return FakeRecord(offset, value, topic=topic, headers=[*others, (name, signature)], key=b"k")


either_release = pytest.mark.parametrize("earlier", [False, True])


def test_a_signed_record_is_what_it_says(strict: Loader) -> None:
    headers: Headers = [(ORIGIN_HEADER, b"user-events/1/5")]
    output = process(
        strict,
        signed(0, "notifications", json.dumps(NOTE).encode(), headers),
        signed(0, "analytics", json.dumps(COUNT).encode(), headers),
    )

    assert [rows.claims for rows in output.tables.values()] == [[], []]
    [note] = output.tables["notifications"].lines
    assert note.split(b"\t")[4:7] == [b"user-events", b"1", b"5"]
    [count] = output.tables["window_counts"].lines
    assert count.split(b"\t")[8] == b"user-events"


@pytest.mark.parametrize("topic", ["notifications", "analytics"])
def test_a_foreign_derived_record_is_a_row_only_if_a_replay_has_sent_it(
    strict: Loader, topic: str
) -> None:
    value = json.dumps(NOTE if topic == "notifications" else COUNT).encode()
    headers: Headers = [(ORIGIN_HEADER, b"user-events/1/5"), (SOURCE_HEADER, b"user-events/0/8")]
    table = "notifications" if topic == "notifications" else "window_counts"

    output = process(strict, FakeRecord(4, value, topic=topic, headers=headers))

    [claim] = output.tables[table].claims
    assert claim.sent == Origin(topic, 0, 4)
    assert isinstance(claim.line(Replayed(Origin(TOPIC, 0, 3), 1)), bytes)
    assert isinstance(claim.otherwise, Rejection)
    assert claim.otherwise.code is ErrorCode.FOREIGN_RECORD
    # For the circuit breaker they are no rejections: anybody could stop the loader with them.
    assert (output.rejected, output.records, output.tables[table].lines) == ([], [], [])
    made = strict.refuse(claim.record, claim.otherwise)
    assert last_header(made.headers, ORIGIN_HEADER) == f"{topic}/0/4".encode()


def test_a_rejected_derived_record_keeps_the_event_that_it_comes_from(strict: Loader) -> None:
    headers: Headers = [(ORIGIN_HEADER, b"user-events/1/5")]
    output = process(strict, signed(0, "notifications", b"{", headers))

    [letter] = output.records
    assert last_header(letter.headers, ORIGIN_HEADER) == b"user-events/1/5"


OLD, NEW = "oLd-kIZQk2x_pXMhE1N7wQ", "nEw-kIZQk2x_pXMhE1N7wQ"
ASIDE = f"user-events@{OLD}".encode()
IDS = {"user-events": NEW, "notifications": "n" * 22, "dead-letter-topic": "d" * 22}


def process_of(loader: Loader, *records: FakeRecord) -> Output:
    return loader.process(replace(batch(records), topic_ids=IDS))


@pytest.mark.parametrize(
    ("topic_id", "topic"),
    [
        (OLD.encode(), ASIDE),
        (NEW.encode(), b"user-events"),
        (None, b"user-events"),
        (b"no id\x00", b"user-events"),
    ],
)
@either_release
def test_what_was_derived_from_a_topic_that_was_recreated_is_set_aside(
    strict: Loader, topic_id: bytes | None, topic: bytes, earlier: bool
) -> None:
    headers: Headers = [(ORIGIN_HEADER, b"user-events/1/5")]
    if topic_id is not None:
        headers.append((TOPIC_ID_HEADER, topic_id))
    note, count = json.dumps(NOTE).encode(), json.dumps(COUNT).encode()
    output = process_of(
        strict,
        signed(0, "notifications", note, headers, earlier=earlier),
        signed(1, "notifications", note, [*headers, (SOURCE_HEADER, b"user-events/0/8")]),
        signed(0, "analytics", count, headers, earlier=earlier),
    )

    [line] = output.tables["notifications"].lines
    assert line.split(b"\t")[4:10] == [topic, b"1", b"5", b"notifications", b"0", b"0"]
    [count] = output.tables["window_counts"].lines
    assert count.split(b"\t")[8] == topic
    # The replay's own position was set aside with the topic, so it is looked up there.
    [claim] = output.tables["notifications"].claims
    assert claim.sent == Origin(topic.decode(), 0, 8)
    assert isinstance(claim.otherwise, bytes)
    assert claim.otherwise.split(b"\t")[4:7] == [topic, b"0", b"8"]


def test_where_no_id_is_known_nothing_is_set_aside(strict: Loader) -> None:
    headers: Headers = [(ORIGIN_HEADER, b"user-events/1/5"), (TOPIC_ID_HEADER, OLD.encode())]
    record = signed(0, "notifications", json.dumps(NOTE).encode(), headers)

    output = process(strict, record)

    [line] = output.tables["notifications"].lines
    assert line.split(b"\t")[4] == b"user-events"


@either_release
def test_the_dead_letter_of_a_derived_record_tells_both_topics_ids(
    strict: Loader, earlier: bool
) -> None:
    headers: Headers = [(ORIGIN_HEADER, b"user-events/1/5"), (TOPIC_ID_HEADER, OLD.encode())]
    output = process_of(strict, signed(3, "notifications", b"{", headers, earlier=earlier))

    [letter] = output.records
    told = dict(letter.headers)
    assert told[ORIGIN_HEADER] == b"user-events/1/5"
    assert told[TOPIC_ID_HEADER] == IDS["notifications"].encode()
    assert told[ORIGIN_TOPIC_ID_HEADER] == OLD.encode()

    made = SIGNER.sign(letter)
    back = FakeRecord(0, made.value, topic=made.topic, key=made.key, headers=made.headers)
    [line] = process_of(strict, back).tables["dead_letters"].lines
    assert line.split(b"\t")[:6] == [b"notifications", b"0", b"3", ASIDE, b"1", b"5"]


def test_the_dead_letter_of_an_event_of_a_topic_that_was_recreated_is_set_aside(
    strict: Loader,
) -> None:
    record = FakeRecord(5, b"{", headers=[(ORIGIN_HEADER, b"user-events/0/2")])
    event_ids = {"user-events": OLD}
    old = Validator(Settings(), [USER_EVENTS], Hasher())
    made = old.process(replace(batch([record]), topic_ids=event_ids))
    assert made is not None
    [letter] = [SIGNER.sign(each) for each in made.records]
    back = FakeRecord(0, letter.value, topic=letter.topic, key=letter.key, headers=letter.headers)

    [claim] = process_of(strict, back).tables["dead_letters"].claims

    assert claim.sent == Origin(ASIDE.decode(), 0, 5)
    line = claim.line(Replayed(Origin(ASIDE.decode(), 0, 2), 1))
    assert isinstance(line, bytes)
    assert line.split(b"\t")[:6] == [ASIDE, b"0", b"5", ASIDE, b"0", b"2"]


def test_what_a_validator_derives_tells_the_id_of_its_topic() -> None:
    validator = Validator(Settings(), [USER_EVENTS], Hasher())
    records = [*events([0]), FakeRecord(1, b"{")]

    told = validator.process(replace(batch(records), topic_ids={TOPIC: NEW}))
    untold = validator.process(replace(batch(records), topic_ids={TOPIC: ""}))

    assert told is not None
    assert untold is not None
    letter, notification = sorted(told.records)
    assert notification.headers == [
        (ORIGIN_HEADER, b"user-events/0/0"),
        (TOPIC_ID_HEADER, NEW.encode()),
    ]
    assert last_header(letter.headers, TOPIC_ID_HEADER) == NEW.encode()
    assert [last_header(each.headers, TOPIC_ID_HEADER) for each in untold.records] == [None, None]


def test_what_analytics_derives_tells_the_id_of_its_topic() -> None:
    analytics = Analytics(Settings(), [USER_EVENTS])
    analytics.assign({(TOPIC, 0): None})
    far_ahead = FakeRecord(0, event(0, time="2199-01-01T00:00:00Z"))

    output = analytics.process(replace(batch([far_ahead]), topic_ids={TOPIC: NEW}))

    assert output is not None
    [made] = output.records
    assert made.headers == [(ORIGIN_HEADER, b"user-events/0/0"), (TOPIC_ID_HEADER, NEW.encode())]


@pytest.mark.parametrize("read_before", [0, 2])
def test_analytics_says_once_that_it_rejects_what_was_read_before(read_before: int) -> None:
    """As the next release after a kill: an earlier one may have taken these records as events."""
    analytics = Analytics(Settings(), [USER_EVENTS])
    progress = Progress.of_counts(0, read_before, None, 300_000)
    analytics.assign({(TOPIC, 0): Position(TOPIC, 0, 0, progress.metadata())})
    with capture_logs() as said:
        for offset in range(4):
            analytics.process(batch([FakeRecord(offset, b"{")]))
    warned = [line for line in said if line["log_level"] == "warning"]
    assert [(line["partition"], line["records"]) for line in warned] == [(0, 2)] * bool(read_before)


def test_analytics_says_where_windows_begin_anew() -> None:
    analytics = Analytics(Settings(), [ORDERS])
    analytics.windows_with_parts = {HOPPING}
    progress = Progress.of_counts(5, 7, None, 300_000)
    positions = {
        (ORDERS.topic, 0): None,
        (ORDERS.topic, 1): Position(ORDERS.topic, 1, 0),
        (ORDERS.topic, 2): Position(ORDERS.topic, 2, 9),
        (ORDERS.topic, 3): Position(ORDERS.topic, 3, 5, progress.metadata()),
    }
    with capture_logs() as said:
        analytics.assign(positions)
    assert [
        (line["event"], line["log_level"], line["partition"], line.get("windows"), line["offset"])
        for line in said
    ] == [
        ("windows count from where the group was moved", "warning", 2, None, 9),
        ("windows begin", "info", 3, TUMBLING, 7),
        ("windows begin anew", "warning", 3, HOPPING, 7),
    ]


def test_a_foreign_dead_letter_is_one_under_its_own_position(strict: Loader) -> None:
    headers: Headers = [
        ("__connect.errors.topic", b"user-events"),
        ("__connect.errors.partition", b"0"),
        ("__connect.errors.offset", b"5"),
        ("__streamflow.error_code", b"INVALID_JSON"),
        (ORIGIN_HEADER, b"user-events/0/5"),
    ]
    output = process(
        strict,
        FakeRecord(8, b"{", topic="dead-letter-topic", headers=headers),
        signed(9, "dead-letter-topic", b"{", headers),
    )

    lines = [line.split(b"\t") for line in output.tables["dead_letters"].lines]
    assert [line[:3] for line in lines] == [
        [b"dead-letter-topic", b"0", b"8"],
        [b"user-events", b"0", b"5"],
    ]
    assert [line[9] for line in lines] == [b"FOREIGN_RECORD", b"INVALID_JSON"]
    assert output.foreign == {"dead-letter-topic": 1}
    assert output.rejected == []


@pytest.mark.parametrize(
    ("topic", "value", "code"),
    [
        ("analytics", None, ErrorCode.EMPTY_VALUE),
        ("analytics", b"{", ErrorCode.INVALID_JSON),
        ("analytics", json.dumps(COUNT | {"count": 6}).encode(), ErrorCode.SCHEMA_VIOLATION),
        ("analytics", json.dumps(COUNT | {"more": 1}).encode(), ErrorCode.SCHEMA_VIOLATION),
        (
            "analytics",
            json.dumps(COUNT | {"event_type": "\0"}).encode(),
            ErrorCode.UNSTORABLE_VALUE,
        ),
        ("notifications", b"\xff", ErrorCode.INVALID_UTF8),
        ("notifications", json.dumps(NOTE | {"user": "a@b.co"}).encode(), ErrorCode.CLEAR_TEXT_PII),
    ],
)
def test_a_broken_derived_record_becomes_a_dead_letter(
    loader: Loader, topic: str, value: bytes | None, code: ErrorCode
) -> None:
    output = process(loader, FakeRecord(4, value, topic=topic, partition=2))

    [dead_letter] = output.records
    assert dead_letter.topic == "dead-letter-topic"
    assert last_header(dead_letter.headers, "__streamflow.error_code") == code.encode()
    assert last_header(dead_letter.headers, "__connect.errors.stage") == b"loader"
    assert output.rejected == [(0, code)]
    assert tuple(output.counts[topic, 2]) == (1, 1)


def test_any_dead_letter_is_a_row(loader: Loader) -> None:
    output = process(loader, FakeRecord(0, None, topic="dead-letter-topic"))

    assert len(output.tables["dead_letters"].lines) == 1
    assert output.records == []


def test_a_dead_letter_of_a_dead_letter_is_refused(loader: Loader) -> None:
    record = FakeRecord(0, None, topic="dead-letter-topic")

    with pytest.raises(ConfigurationError, match="dead letter"):
        loader.refuse(record, Rejection(ErrorCode.UNSTORABLE_VALUE, "E", "why"))


def test_parts_of_windows_go_into_the_tables_of_their_windows() -> None:
    loader = Loader(Settings(), [USER_EVENTS, ORDERS], Hasher(), lambda: TRUSTING)
    placed = orders(20)
    parts = [*parts_of(placed, TUMBLING), *parts_of(placed, HOPPING)]
    records = [record(offset, part) for offset, part in enumerate(parts)]

    output = loader.process(
        batch([*records, FakeRecord(99, json.dumps(COUNT).encode(), topic="analytics")])
    )

    counts = {name: len(rows.lines) for name, rows in output.tables.items()}
    tumbling = sum(part["window"] == TUMBLING for part in parts)
    assert counts == {TUMBLING: tumbling, HOPPING: len(parts) - tumbling, "window_counts": 1}
    assert output.tables[TUMBLING].days == {date(2026, 3, 1)}
    assert not output.tables[TUMBLING].holds_events
    assert output.tables["window_counts"].days == set()
    line = output.tables[TUMBLING].lines[0].decode().rstrip("\n").split("\t")
    assert len(line) == len(loader.tables[TUMBLING].columns)
    assert line[-5:-1] == ["orders", "o-analytics", "0", "0"]
    assert loader.assets[HOPPING] == "postgres/orders_5min_by_1min"


def test_windows_of_any_spacing_and_order_of_fields() -> None:
    """A repair may write JSON as it likes."""
    assert window_of(b'{ "late": true, "window" : "orders_10s"}') == "orders_10s"
    assert window_of(b'{"window":"orders_10s","by":{}}') == "orders_10s"
    assert window_of(json.dumps(COUNT).encode()) is None
    assert window_of(b'{"by": {"window": "other"}}') is None
    for value in (
        None,
        b"",
        b'"window"',
        b'{"window"',
        b'["window"]',
        b'{"window":1}',
        b'{"window":null}',
    ):
        assert window_of(value) is None


class Kind(StrEnum):
    TABBED = "a\tb"


@pytest.mark.parametrize("text", ["a\tb", "a\nb", "a\rb", r"C:\temp\new", r"\N", "None"])
@pytest.mark.parametrize("how", ["default", "factory", "literal", "format"])
def test_a_text_that_is_in_no_json_is_escaped_as_any_other(text: str, how: str) -> None:
    """Of a default, a Literal, or a record that is no JSON."""
    x: Any = {
        "default": (str, text),
        "factory": (str, Field(default_factory=lambda: text)),
        "literal": (Literal[text], text),  # type: ignore[valid-type]
        "format": (str, ...),
    }[how]
    model = create_model("Tabbed", __base__=Event, timestamp=(Timestamp, ...), x=x)
    document = {"timestamp": "2026-03-01T12:00:00Z"} | ({"x": text} if how == "format" else {})
    decode = (lambda _: json.dumps(document).encode()) if how == "format" else None
    stream = Stream(name="tabbed", contract=model, table="tabbed", key="x", decode=decode)
    loader = Loader(Settings(), [stream], Hasher(), lambda: TRUSTING)
    value = b"of a format" if how == "format" else json.dumps(document).encode()

    [line] = loader.process(batch([FakeRecord(0, value, topic="tabbed")])).tables["tabbed"].lines

    fields = line.decode().removesuffix("\n").split("\t")
    assert len(fields) == len(loader.tables["tabbed"].columns)
    assert fields[0] == text_of(text)


def test_members_of_an_enum_are_escaped() -> None:
    model = create_model(
        "Tabbed", __base__=Event, timestamp=(Timestamp, ...), x=(Kind, Kind.TABBED)
    )
    stream = Stream(name="tabbed", contract=model, table="tabbed", key="x")
    loader = Loader(Settings(), [stream], Hasher(), lambda: TRUSTING)
    value = b'{"timestamp": "2026-03-01T12:00:00Z"}'

    [line] = loader.process(batch([FakeRecord(0, value, topic="tabbed")])).tables["tabbed"].lines

    assert line.startswith(rb"a\tb\t".replace(rb"b\t", b"b\t"))
