"""Origins and dead letters: what untrusted headers may and may not do."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loads import FakeRecord
from streamflow import dead_letter_records as dead_letters
from streamflow.errors import ErrorCode
from streamflow.privacy import Hasher
from streamflow.records import (
    ATTEMPT_HEADER,
    ORIGIN_HEADER,
    SOURCE_HEADER,
    TOPIC_ID_HEADER,
    Headers,
    Origin,
    OutRecord,
    Rejection,
    attempt_of,
    claimed_origin,
    derived_headers,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HASHER = Hasher(None, ["user_email"])


@given(
    st.from_regex(r"[A-Za-z0-9._-]{1,249}", fullmatch=True),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
)
def test_an_origin_survives_its_header(topic: str, partition: int, offset: int) -> None:
    origin = Origin(topic, partition, offset)
    assert Origin.parse(origin.encode()) == origin


@pytest.mark.parametrize(
    "raw",
    [None, b"", b"topic", b"topic/1", b"/1/2", b"t/-1/2", b"t/1/x", b"t/1/9223372036854775808",
     b"t/2147483648/0", b"\xff/1/2", b"a\0/1/2", b"t/1/" + b"9" * 500],
)  # fmt: skip
def test_a_header_that_is_no_origin_is_none(raw: bytes | None) -> None:
    assert Origin.parse(raw) is None
    record = FakeRecord(7, b"{}", headers=[(ORIGIN_HEADER, raw)])
    assert claimed_origin(record) is None


@pytest.mark.parametrize(
    ("claimed", "told"),
    [
        (
            b"user-events/1/5",
            {ORIGIN_HEADER: b"user-events/1/5", SOURCE_HEADER: b"user-events/0/7"},
        ),
        (b"user-events/0/7", {ORIGIN_HEADER: b"user-events/0/7"}),
        (b"other-events/1/5", {ORIGIN_HEADER: b"user-events/0/7"}),
        (None, {ORIGIN_HEADER: b"user-events/0/7"}),
    ],
)
def test_what_is_derived_tells_a_claim_from_what_is_known(
    claimed: bytes | None, told: dict[str, bytes]
) -> None:
    headers: Headers = [(ORIGIN_HEADER, claimed), (SOURCE_HEADER, b"user-events/0/9")]
    record = FakeRecord(7, b"{}", headers=headers)
    plain = FakeRecord(8, b"{}")
    for records in ([record, plain], [plain, record]):
        made = derived_headers("user-events", 0, records, "an-id")
        by_record = dict(zip((each.offset() for each in records), made, strict=True))
        assert dict(by_record[7]) == told | {TOPIC_ID_HEADER: b"an-id"}
        assert by_record[8] == [(ORIGIN_HEADER, b"user-events/0/8"), (TOPIC_ID_HEADER, b"an-id")]
    [unknown] = derived_headers("user-events", 0, [record], "")
    assert dict(unknown) == told


@given(st.binary(max_size=20))
def test_any_attempt_header_is_a_number(raw: bytes) -> None:
    assert attempt_of([(ATTEMPT_HEADER, raw)]) >= 0


def letter(record: FakeRecord, message: str = "user: missing") -> OutRecord:
    return dead_letters.build(
        record,
        Rejection(ErrorCode.SCHEMA_VIOLATION, "ValidationError", message),
        stage="validator",
        group="notification-group",
        topic="dead-letter-topic",
        hasher=HASHER,
        now=NOW,
    )


def test_a_dead_letter_keeps_the_record_and_tells_why() -> None:
    came: Headers = [("trace", b"1"), ("trace", None), ("__streamflow.error_code", b"FORGED")]
    made = letter(FakeRecord(9, b'{"id":1}', key=b"k", partition=2, headers=came))
    assert (made.topic, made.key, made.value) == ("dead-letter-topic", b"k", b'{"id":1}')
    assert made.headers[:2] == came[:2]
    told = dict(made.headers[2:])
    assert len(told) == len(made.headers) - 2
    assert told == {
        "__connect.errors.topic": b"user-events",
        "__connect.errors.partition": b"2",
        "__connect.errors.offset": b"9",
        "__connect.errors.stage": b"validator",
        "__connect.errors.class.name": b"streaming_workers.validator",
        "__connect.errors.exception.class.name": b"ValidationError",
        "__connect.errors.exception.message": b"user: missing",
        "__streamflow.error_code": b"SCHEMA_VIOLATION",
        "__streamflow.attempt": b"0",
        "__streamflow.redacted": b"false",
        "__streamflow.failed_at": b"2026-03-01T12:00:00.000Z",
        "__streamflow.group": b"notification-group",
        "__streamflow.origin": b"user-events/2/9",
    }


def test_a_dead_letter_tells_on_what_a_record_of_its_topic_claims() -> None:
    for claimed, told in (
        (b"user-events/1/5", b"user-events/1/5"),
        (b"other/1/5", b"user-events/0/7"),
    ):
        made = letter(FakeRecord(7, b"{}", headers=[(ORIGIN_HEADER, claimed)]))
        assert dict(made.headers)[ORIGIN_HEADER] == told


def test_a_dead_letter_holds_no_clear_text_address() -> None:
    record = FakeRecord(
        1,
        b'{"user_email":"ann@example.com"}',
        key=b"ann@example.com",
        headers=[("from", b"ann@example.com")],
    )
    made = letter(record)
    hashed = HASHER.hash("ann@example.com").encode()
    assert made.key == hashed
    assert made.value == b'{"user_email":"' + hashed + b'"}'
    assert ("from", hashed) in made.headers
    assert ("__streamflow.redacted", b"true") in made.headers


def test_a_header_s_name_holds_no_clear_text_address_either() -> None:
    made = letter(FakeRecord(1, b"{", headers=[("ann@example.com", None), ("by", b"ann")]))
    assert made.headers[:2] == [(HASHER.hash("ann@example.com"), None), ("by", b"ann")]
    assert ("__streamflow.redacted", b"true") in made.headers


def test_a_long_message_is_cut() -> None:
    message = dict(letter(FakeRecord(1, b"x"), "m" * 5_000).headers)[
        "__connect.errors.exception.message"
    ]
    assert message is not None
    assert len(message) <= 1_000
