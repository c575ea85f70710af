"""Notifications: what a stream's `notify` makes of an event, and the record of that."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from streamflow.addresses import may_hold
from streamflow.contract import Event, format_time
from streamflow.core_schema import LARGEST_BIGINT
from streamflow.decoder import Decoder
from streamflow.errors import ErrorCode
from streamflow.records import Rejection, processing_failed

MAX_MESSAGE: Final = 2000  # characters; an index entry of PostgreSQL holds 2,704 bytes
MAX_USER: Final = 256  # characters

_NONE: Final = (
    "notify returned no Notification: message and user must be texts of at most 2,000 and 256 characters, "
    "event_id a number from 0 to 2^63 - 1"
)
_SURROGATE: Final = "notify returned a text with a lone surrogate, which UTF-8 does not have"


class Notification(NamedTuple):
    """The notification of an event; ``time`` is added from the event.

    Attributes:
        message: at most 2,000 characters.
        event_id: from 0 to 2^63 - 1.
        user: at most 256 characters.
    """

    message: str
    event_id: int
    user: str


class _Body(msgspec.Struct, gc=False):
    """The value of a record: msgspec writes it faster than a dictionary."""

    message: str
    time: str
    event_id: int
    user: str


# Key and value of a record, or why there is none.
Made = tuple[bytes, bytes] | Rejection
NotificationsOf = Callable[[Iterable[Event]], list[Made]]


def notifier(
    notify: Callable[[Any], Notification], time_of: Callable[[Event], datetime], decoder: Decoder
) -> NotificationsOf:
    """Makes the records of the notifications of events. Raises nothing, whatever `notify` does."""
    # What orjson returns keeps 1 kB for as long as it lives, and a batch of these lives together.
    encode = msgspec.json.Encoder().encode

    def made(event: Event) -> Made:
        time = format_time(time_of(event))  # before `notify` may change it
        try:
            notification = notify(event)
            if type(notification) is not Notification:
                # Taken apart once: it may be a generator.
                notification = Notification(*notification)
            message, event_id, user = notification
            is_plain = type(message) is type(user) is str and type(event_id) is int
            fits = (
                (is_plain or _has_types(message, event_id, user))
                and len(message) <= MAX_MESSAGE
                and len(user) <= MAX_USER
                and 0 <= event_id <= LARGEST_BIGINT
            )
        except BaseException as error:  # noqa: BLE001 (a user's function; fails only this notification)
            return processing_failed("notify", error)
        if not fits:
            return Rejection(ErrorCode.PROCESSING_FAILED, "ValueError", _NONE)
        body = _Body(message, time, event_id, user)
        try:
            value = encode(body) if is_plain else orjson.dumps(msgspec.structs.asdict(body))
        except (UnicodeEncodeError, orjson.JSONEncodeError):
            return Rejection(ErrorCode.PROCESSING_FAILED, "UnicodeEncodeError", _SURROGATE)
        return user.encode(), value

    def all_made(events: Iterable[Event]) -> list[Made]:
        found = [*map(made, events)]
        # Signs of addresses are looked for in all of them together.
        values = [each[1] for each in found if not isinstance(each, Rejection)]
        if decoder.declares_private or may_hold(b"\n".join(values)):
            found = [_without_private(each, decoder) for each in found]
        return found

    return all_made


def _without_private(made: Made, decoder: Decoder) -> Made:
    if isinstance(made, Rejection):
        return made
    body = msgspec.json.decode(made[1], type=_Body)
    what = decoder.private_text(f"{body.message}\n{body.user}".encode())
    if what is None:
        return made
    reason = f"notify returned a text with a clear-text {what}"
    return Rejection(ErrorCode.CLEAR_TEXT_PII, "ValueError", reason)


def _has_types(message: object, event_id: object, user: object) -> bool:
    return (
        isinstance(message, str)
        and isinstance(user, str)
        and isinstance(event_id, int)
        and type(event_id) is not bool
    )
