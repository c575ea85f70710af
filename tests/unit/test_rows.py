"""COPY text of every kind of value, and of whole events."""

from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from loads import FakeRecord, event
from payments import PAYMENTS, Refunded
from streamflow.contract import Event, Timestamp
from streamflow.errors import ConfigurationError
from streamflow.flow import Replayed
from streamflow.postgres.rows.dead_letters import claim_of, dead_letter_line
from streamflow.postgres.rows.events import EventRows, appended_at, line_of, text_of
from streamflow.postgres.tables import DEAD_LETTERS, Column, event_columns, event_table
from streamflow.privacy import Hasher
from streamflow.records import Headers, Origin
from streamflow.stream import Stream
from streamflow.streams.user_events import USER_EVENTS

UNESCAPED = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}


def unescape(text: str) -> str:
    """What PostgreSQL reads from COPY text."""
    found, position = [], 0
    while position < len(text):
        pair = text[position : position + 2]
        found.append(UNESCAPED.get(pair, text[position]))
        position += 2 if pair in UNESCAPED else 1
    return "".join(found)


class Colour(Enum):
    RED = "red"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        text_of(datetime(2026, 7, 1, 14))  # noqa: DTZ001 (the fault)


@pytest.mark.parametrize(
    ("given_value", "text"),
    [
        (None, r"\N"),
        (True, "true"),
        (False, "false"),
        (-7, "-7"),
        (1.5, "1.5"),
        ("a\tb\\c\nd\re", r"a\tb\\c\nd\re"),
        (r"\N", r"\\N"),
        (Colour.RED, "red"),
        (b"\x00\xff", r"\\x00ff"),
        (
            datetime(2026, 7, 1, 14, tzinfo=timezone(timedelta(hours=2))),
            "2026-07-01 12:00:00+00:00",
        ),
        (["a\\b", 1, None], r'["a\\\\b",1,null]'),
    ],
)
def test_text_of_each_kind_of_value(given_value: object, text: str) -> None:
    assert text_of(given_value) == text


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_a_line_gives_back_every_text(texts: list[str]) -> None:
    line = line_of(texts).decode()

    assert line.count("\n") == 1
    assert [unescape(text) for text in line[:-1].split("\t")] == texts


def test_a_lone_surrogate_does_not_stop_a_line() -> None:
    assert line_of(["a\ud800b"]) == b"a?b\n"


@pytest.mark.parametrize(
    ("stamp", "text"),
    [
        ((2, 0), "1970-01-01 00:00:00+00:00"),
        ((0, -1), r"\N"),
        ((1, 2**62), r"\N"),
        ((1, -(2**62)), r"\N"),
    ],
)
def test_append_time(stamp: tuple[int, int], text: str) -> None:
    assert text_of(appended_at(stamp)) == text


def test_columns_follow_the_contract() -> None:
    assert event_columns(USER_EVENTS)[:5] == (
        Column("id", "bigint", nullable=False),
        Column("type", "text", nullable=False),
        Column("user", "text", nullable=False),
        Column("user_email", "text", nullable=True),
        Column("timestamp", "timestamp with time zone", nullable=False),
    )
    assert [column.name for column in event_columns(USER_EVENTS)[5:]] == [
        "origin_topic", "origin_partition", "origin_offset", "appended_at", "loaded_at",
    ]  # fmt: skip


def test_a_union_becomes_the_union_of_its_fields() -> None:
    columns = {each.name: (each.type, each.nullable) for each in event_columns(PAYMENTS)}

    assert columns["type"] == ("text", False)
    assert columns["amount"] == ("double precision", True)
    assert columns["tags"] == ("jsonb", True)
    assert columns["final"] == ("boolean", True)


def test_rows_of_a_union() -> None:
    maker = EventRows(PAYMENTS)
    decoded = PAYMENTS.decoder.decode(
        b'{"type":"PAID","timestamp":"2026-07-01T12:00:00.5+02:00","amount":2.5,"tags":["a"]}'
    )
    assert isinstance(decoded, Event)

    line = maker.line(decoded, Origin("payments", 1, 7), (2, 0)).decode()

    assert maker.table.columns == (
        "type", "amount", "colour", "tags", "reason", "final",
        "timestamp", "origin_offset", "origin_topic", "origin_partition", "appended_at",
    )  # fmt: skip
    assert line.split("\t") == [
        "PAID", "2.5", r"\N", '["a"]', r"\N", r"\N",
        "2026-07-01 10:00:00.500000+00:00", "7", "payments", "1", "1970-01-01 00:00:00+00:00\n",
    ]  # fmt: skip


def test_models_that_disagree_about_a_field_are_refused() -> None:
    class Other(Event):
        type: Literal["OTHER"]
        timestamp: Timestamp
        reason: int

    stream = Stream(
        name="mixed",
        contract=Annotated[Refunded | Other, Field(discriminator="type")],
        table="mixed",
        key=lambda each: each.type,
    )

    with pytest.raises(ConfigurationError, match="reason"):
        event_table(stream)


def test_a_field_with_a_name_of_the_loader_is_refused() -> None:
    class Taken(Event):
        type: Literal["TAKEN"]
        timestamp: Timestamp
        loaded_at: str

    stream = Stream(name="taken", contract=Taken, table="taken", key=lambda each: each.type)

    with pytest.raises(ConfigurationError, match="loaded_at"):
        event_table(stream)


HEADERS: Headers = [
    ("__connect.errors.topic", b"user-events"),
    ("__connect.errors.partition", b"2"),
    ("__connect.errors.offset", b"41"),
    ("__connect.errors.stage", b"validator"),
    ("__connect.errors.exception.message", b"mail jo@example.com \x00\xff"),
    ("__streamflow.error_code", b"INVALID_JSON"),
    ("__streamflow.attempt", b"2"),
    ("__streamflow.redacted", b"true"),
    ("__streamflow.failed_at", b"2026-07-01T12:00:00.000Z"),
    ("__streamflow.origin", b"user-events/0/5"),
    ("x-mail", b"jo@example.com"),
]


def letter(headers: Headers | None, value: bytes | None = b"{") -> dict[str, str]:
    record = FakeRecord(
        9, value, topic="dead-letter-topic", partition=1, headers=headers, key=b"jo@example.com"
    )
    claim = claim_of(headers or [], {}, signed=True)
    line = (
        dead_letter_line(record, headers or [], Hasher())
        if claim is None
        else dead_letter_line(record, headers or [], Hasher(), claim.source, claim.identity)
    ).decode()
    assert line.endswith("\n")
    return dict(zip(DEAD_LETTERS.columns, line[:-1].split("\t"), strict=True))


def test_row_of_a_dead_letter() -> None:
    row = letter(HEADERS)

    assert [row[name] for name in DEAD_LETTERS.identity] == ["user-events", "2", "41"]
    assert [row[f"origin_{part}"] for part in ("partition", "offset")] == ["0", "5"]
    assert [row[f"record_{part}"] for part in ("partition", "offset")] == ["1", "9"]
    assert (row["error_code"], row["stage"], row["attempt"]) == ("INVALID_JSON", "validator", "2")
    assert row["redacted"] == "true"
    assert row["failed_at"] == "2026-07-01 12:00:00+00:00"
    assert "\x00" not in row["message"]


@pytest.mark.parametrize(
    ("origin", "attempt", "signed", "otherwise"),
    [
        (b"user-events/2/41", b"0", True, Origin("user-events", 2, 41)),
        # What the failed record itself has claimed: the replay records decide.
        (b"user-events/0/5", b"2", True, Origin("user-events", 2, 41)),
        (b"user-events/2/41", b"2", True, Origin("user-events", 2, 41)),
        # What a worker knows of a derived record; without its signature, anybody could say so.
        (b"other-events/0/5", b"0", True, Origin("other-events", 0, 5)),
        (b"other-events/0/5", b"0", False, Origin("user-events", 2, 41)),
        (b"nonsense", b"x", True, Origin("user-events", 2, 41)),
    ],
)
def test_what_a_dead_letter_says_of_its_identity(
    origin: bytes, attempt: bytes, signed: bool, otherwise: Origin
) -> None:
    told: Headers = [("__streamflow.origin", origin), ("__streamflow.attempt", attempt)]

    claim = claim_of([*HEADERS, *told], {}, signed=signed)

    assert claim is not None
    assert claim.source == Origin("user-events", 2, 41)
    assert claim.otherwise == Replayed(otherwise, 0)
    is_claim = b"2/41" not in origin and b"other" not in origin and origin != b"nonsense"
    assert (claim.identity != claim.otherwise) == (is_claim or attempt == b"2" or not signed)


def test_no_address_in_the_row_of_a_dead_letter() -> None:
    row = letter(HEADERS, b'{"user": "jo@example.com"')

    assert "jo@example.com" not in "".join(row.values())
    assert b"jo@example.com".hex() not in "".join(row.values())
    assert "am9AZXhhbXBsZS5jb20" not in row["headers"]  # base64


@pytest.mark.parametrize(
    "headers",
    [
        None,
        HEADERS[:2],
        [("__connect.errors.topic", b"a\x00b"), *HEADERS[1:]],
        [*HEADERS[:1], ("__connect.errors.partition", b"-1"), *HEADERS[2:]],
        [*HEADERS[:2], ("__connect.errors.offset", b"9" * 40), *HEADERS[3:]],
        [("__connect.errors.topic", None), *HEADERS[1:]],
    ],
)
def test_a_dead_letter_without_sound_headers_is_its_own_source(headers: Headers | None) -> None:
    row = letter(headers)

    assert [row[name] for name in DEAD_LETTERS.identity] == ["dead-letter-topic", "1", "9"]
    assert (row["error_code"], row["stage"]) == ("FOREIGN_RECORD", "foreign")


def test_a_row_of_an_event_escapes_what_copy_would_misread() -> None:
    decoded = USER_EVENTS.decoder.decode(event(1, user="a\tb\\\n\r"))
    assert isinstance(decoded, Event)

    line = EventRows(USER_EVENTS).line(decoded, Origin("t", 0, 0), (0, 0)).decode()

    assert line.split("\t")[2] == r"a\tb\\\n\r".replace("\\t", "\\t")
    assert datetime.fromisoformat(line.split("\t")[4]).tzinfo == UTC
