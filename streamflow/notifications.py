"""Notifications: what a stream's `notify` makes of an event, and the record of that."""

from collections.abc import Callable
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


def notifier(
    notify: Callable[[Any], Notification], time_of: Callable[[Event], datetime], decoder: Decoder
) -> Callable[[Event], tuple[bytes, bytes] | Rejection]:
    """Makes key and value of the record of an event's notification, or says why there is none. Raises
    nothing, whatever `notify` does; it is on the path of every event."""
    # What orjson returns keeps 1 kB for as long as it lives, and a batch of these lives together.
    encode, private_text = msgspec.json.Encoder().encode, decoder.private_text
    declares_private = decoder.declares_private

    def record_of(event: Event) -> tuple[bytes, bytes] | Rejection:
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
        try:
            value = (encode if is_plain else orjson.dumps)(
                {"message": message, "time": time, "event_id": event_id, "user": user}
            )
        except (UnicodeEncodeError, orjson.JSONEncodeError):
            return Rejection(ErrorCode.PROCESSING_FAILED, "UnicodeEncodeError", _SURROGATE)
        if may_hold(value) or declares_private:
            what = private_text(f"{message}\n{user}".encode())
            if what is not None:
                reason = f"notify returned a text with a clear-text {what}"
                return Rejection(ErrorCode.CLEAR_TEXT_PII, "ValueError", reason)
        return user.encode(), value

    return record_of


def _has_types(message: object, event_id: object, user: object) -> bool:
    return (
        isinstance(message, str)
        and isinstance(user, str)
        and isinstance(event_id, int)
        and type(event_id) is not bool
    )
