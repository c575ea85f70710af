"""Rows of what the workers derive from events: window counts and notifications. Pure.

Each record has a contract of its own; the caller knows whose identity it has.
"""

from typing import Annotated, Final, cast

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from streamflow.contract import Decoder, Event
from streamflow.postgres.rows.events import appended_at, line_of
from streamflow.postgres.tables import NotificationRow, WindowCountRow
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
    count = _WINDOW_COUNTS.decode(record.value())
    if not isinstance(count, WindowCountRecord):
        return cast("Rejection", count)
    return line_of(
        WindowCountRow(
            count.window_start,
            count.window_end,
            count.event_type,
            count.count,
            count.partition,
            count.late,
            count.first_offset,
            count.last_offset,
            stream_topic,
            *position_of(record),
            appended_at(record.timestamp()),
        )
    )


def notification_line(record: Record, origin: Origin | None = None) -> bytes | Rejection:
    """The line of ``notifications`` for a record of a notifications topic.

    Args:
        record: of that topic.
        origin: the event that it is about; where that is unknown, it has an identity of its own.
    """
    note = _NOTIFICATIONS.decode(record.value())
    if not isinstance(note, NotificationRecord):
        return cast("Rejection", note)
    position = position_of(record)
    return line_of(
        NotificationRow(
            note.message,
            note.time,
            note.event_id,
            note.user,
            *(origin or position),
            *position,
            appended_at(record.timestamp()),
        )
    )
