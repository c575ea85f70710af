"""A notification's JSON is the same whatever writes it."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamflow.core_schema import LARGEST_BIGINT
from streamflow.errors import ErrorCode
from streamflow.notifications import Notification, notifier
from streamflow.records import Rejection
from streamflow.streams.user_events import USER_EVENTS, UserEvent

EVENT = UserEvent(
    id=1, type="USER_LOGIN", user="ann", timestamp=datetime(2026, 3, 1, 12, microsecond=5000, tzinfo=UTC)
)  # fmt: skip
TEXTS = st.text(st.characters(exclude_characters="@%=&\uff20\ufe6b", exclude_categories=["Cs"]))


class Text(str):
    __slots__ = ()


class Kind(StrEnum):
    ADA = "ada"


def made(message: Any, event_id: Any, user: Any) -> tuple[bytes, bytes] | Rejection:
    [found] = notifier(
        lambda _event: Notification(message, event_id, user),
        USER_EVENTS.time_of,
        USER_EVENTS.decoder,
    )([EVENT])
    return found


@given(TEXTS, st.integers(0, LARGEST_BIGINT), TEXTS)
@example("".join(map(chr, range(32, 37))) + "'\"\\/\x7f\u2028😀", 2**63 - 1, "a\n\t\x80é")
@example("\0\x1f", 0, "")
@example(Text("as"), 7, Text("before"))
@example("as", 7, Kind.ADA)
def test_it_is_what_orjson_writes(message: str, event_id: int, user: str) -> None:
    body = {
        "message": message,
        "time": "2026-03-01T12:00:00.005Z",
        "event_id": event_id,
        "user": user,
    }
    assert made(message, event_id, user) == (user.encode(), orjson.dumps(body))


@pytest.mark.parametrize(
    "wrong",
    [("\ud800", 1, "ann"), (Text("\ud800"), 1, "ann"), ("a" * 2001, 1, "ann"), ("a", 1, "a" * 257),
     ("a", True, "ann"), ("a", -1, "ann"), ("a", 2**63, "ann"), (b"a", 1, "ann"), ("a", 1.0, "ann"),
     ("a", 1, None)],
)  # fmt: skip
def test_what_is_none_is_said(wrong: tuple[Any, Any, Any]) -> None:
    found = made(*wrong)
    assert isinstance(found, Rejection)
    assert found.code is ErrorCode.PROCESSING_FAILED


def test_a_clear_text_address_fails_its_own_notification_only() -> None:
    texts = [
        "ann",
        "20 %",
        "ann@example.com",
        "a \u00e9 & b;",
        "ann%40example.com",
        '"bob" \\u0040',
    ]
    numbers = iter(range(len(texts)))
    notifications = notifier(
        lambda _event: Notification("logged in", number := next(numbers), texts[number]),
        USER_EVENTS.time_of,
        USER_EVENTS.decoder,
    )
    found = notifications([EVENT] * len(texts))
    rejected = [isinstance(each, Rejection) and each.code for each in found]
    clear = ErrorCode.CLEAR_TEXT_PII
    assert rejected == [False, False, clear, False, clear, False]
