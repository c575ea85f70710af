"""Rows of what the workers derive from events: window counts and notifications. Pure.

Each record has a contract of its own; the caller knows whose identity it has.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from streamflow import groups
from streamflow.contract import Event
from streamflow.core_schema import FIRST_MOMENT, LAST_MOMENT
from streamflow.decoder import Decoder
from streamflow.notifications import MAX_MESSAGE, MAX_USER
from streamflow.postgres.rows.events import appended_at, line_of
from streamflow.postgres.tables import NotificationRow, WindowCountRow
from streamflow.records import MAX_OFFSET, Origin, Record, Rejection, position_of

# Windows reach a little further than the times of events.
_Bound = Annotated[AwareDatetime, Field(ge=FIRST_MOMENT, le=LAST_MOMENT)]
_Offset = Annotated[int, Field(ge=0, le=MAX_OFFSET)]


class WindowCountRecord(Event):
    """A record of an analytics topic: so many events of one type in one window."""

    window_start: _Bound
    window_end: _Bound
    event_type: Annotated[str, StringConstraints(min_length=1, max_length=groups.LONGEST)]
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
    message: Annotated[str, StringConstraints(max_length=MAX_MESSAGE)]
    time: AwareDatetime
    event_id: _Offset
    user: Annotated[str, StringConstraints(max_length=MAX_USER)]


_WINDOW_COUNTS = Decoder(WindowCountRecord)
_NOTIFICATIONS = Decoder(NotificationRecord)


def window_count_line(record: Record, stream_topic: str) -> bytes | Rejection:
    """The line of ``window_counts`` for a record of an analytics topic, which counts events of a stream's
    topic."""
    return _line(record, _WINDOW_COUNTS, WindowCountRow, stream_topic)


def notification_line(record: Record, origin: Origin | None = None) -> bytes | Rejection:
    """The line of ``notifications`` for a record of a notifications topic, about the event at `origin`;
    where that is unknown, it has an identity of its own."""
    return _line(record, _NOTIFICATIONS, NotificationRow, *(origin or position_of(record)))


def _line(
    record: Record, decoder: Decoder, row: Callable[..., Sequence[Any]], *identity: Any
) -> bytes | Rejection:
    event = decoder.decode(record.value())
    if isinstance(event, Rejection):
        return event
    # A record's fields are the first columns of its row, in that order.
    fields = dict(event).values()
    return line_of(row(*fields, *identity, *position_of(record), appended_at(record.timestamp())))
