"""``user-events``: the example stream. Everything that knows its events is in this package."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from streamflow.contract import Event, HashedAddress, NotNull, Timestamp
from streamflow.notifications import Notification
from streamflow.stream import Stream
from streamflow.stream_topics import Topics
from streamflow.streams.user_events.rollups import LOGIN_FAILURE_BURSTS
from streamflow.streams.user_events.simulation import Simulation
from streamflow.windows.specs import TumblingWindow

EventType = Literal["USER_LOGIN", "USER_LOGIN_FAILED", "USER_LOGOUT", "USER_SIGNUP"]

_DONE: dict[str, str] = {
    "USER_LOGIN": "logged in",
    "USER_LOGIN_FAILED": "failed to log in",
    "USER_LOGOUT": "logged out",
    "USER_SIGNUP": "signed up",
}


class UserEvent(Event):
    """An action of a user: the contract of ``user-events``."""

    # The largest integer that JavaScript holds exactly is 2^53 - 1.
    id: Annotated[int, Field(ge=0, lt=2**53)]
    type: EventType
    user: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    user_email: Annotated[HashedAddress | None, NotNull] = None
    timestamp: Timestamp


def notify(event: UserEvent) -> Notification:
    return Notification(f"User {event.user} {_DONE[event.type]}", event.id, event.user)


USER_EVENTS = Stream(
    name="user-events",
    contract=UserEvent,
    private_fields=("user_email",),
    key="user",
    windows=TumblingWindow("10s", by="type", grace="5s"),
    topics=Topics(partitions=3, retention=timedelta(hours=168)),
    table="events",
    notify=notify,
    simulate=Simulation,
    rollups=(LOGIN_FAILURE_BURSTS,),
)
