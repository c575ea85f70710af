"""Rows of what the workers derive from events: window counts and notifications. Pure.

Each record has a contract of its own; whose identity it has is for the caller to know.
"""

from typing import Annotated, Any, Final, cast

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from streamflow.contract import Decoder, Event
from streamflow.postgres.rows.events import appended_text, line_of, text_of
from streamflow.records import (
    MAX_OFFSET,
    Origin,
    Record,
    Rejection,
    position_of,
)

_Offset = Annotated[int, Field(ge=0, le=MAX_OFFSET)]
_MAX_TEXT: Final = 2000  # characters; an index entry of PostgreSQL holds 2,704 bytes


class WindowCountRecord(Event):
    """A record of an analytics topic: so many events of one type in one window."""

    window_start: AwareDatetime
    window_end: AwareDatetime
    event_type: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    count: Annotated[int, Field(ge=1, le=MAX_OFFSET)]
    partition: Annotated[int, Field(ge=0, lt=2**31)]
    late: bool
    first_offset: _Offset
    last_offset: _Offset

    @model_validator(mode="after")
    def _is_possible(self) -> "WindowCountRecord":
        if self.window_start >= self.window_end:
            raise ValueError("the window ends before it starts")
        if self.count > self.last_offset - self.first_offset + 1:
            raise ValueError("more events are counted than there are offsets")
        return self


class NotificationRecord(Event):
    """A record of a notifications topic."""

    message: Annotated[str, StringConstraints(max_length=_MAX_TEXT)]
    time: AwareDatetime
    event_id: Annotated[int, Field(ge=0, lt=2**63)]
    user: Annotated[str, StringConstraints(max_length=256)]


_WINDOW_COUNTS = Decoder(WindowCountRecord)
_NOTIFICATIONS = Decoder(NotificationRecord)


def window_count_line(record: Record, stream_topic: str) -> bytes | Rejection:
    """The line of ``window_counts`` for a record of an analytics topic.

    Args:
        record: of that topic.
        stream_topic: whose events it counts.
    """
    found = _WINDOW_COUNTS.decode(record.value())
    if not isinstance(found, WindowCountRecord):
        return cast("Rejection", found)
    return _line(
        record,
        (
            found.window_start, found.window_end, found.event_type, found.count, found.partition,
            found.late, found.first_offset, found.last_offset, stream_topic,
        ),
    )  # fmt: skip


def notification_line(record: Record, origin: Origin | None = None) -> bytes | Rejection:
    """The line of ``notifications`` for a record of a notifications topic.

    Args:
        record: of that topic.
        origin: the event that it tells of; where nobody knows, it has an identity of its own.
    """
    found = _NOTIFICATIONS.decode(record.value())
    if not isinstance(found, NotificationRecord):
        return cast("Rejection", found)
    identity = origin or position_of(record)
    return _line(record, (found.message, found.time, found.event_id, found.user, *identity))


def _line(record: Record, values: tuple[Any, ...]) -> bytes:
    position = "\t".join(map(text_of, position_of(record)))
    appended = appended_text(record.timestamp())
    return line_of(values)[:-1] + f"\t{position}\t{appended}\n".encode()
