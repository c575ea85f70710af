"""What every peer shares: the contract of login events, and where to read and write.

A peer imports nothing of StreamFlow. Its place comes from the environment, set by `streamflow bench`.
"""

import json
import os
import signal
import sys
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

# Properties with which librdkafka connects, as JSON.
KAFKA: Final[dict[str, Any]] = json.loads(os.environ["PEER_KAFKA"])
TOPIC: Final = os.environ["PEER_TOPIC"]  # of the events
GROUP: Final = os.environ["PEER_GROUP"]
OUTPUT: Final = os.environ["PEER_OUTPUT"]  # topic of windows or notifications
DEAD_LETTERS: Final = os.environ["PEER_DEAD_LETTERS"]
TABLE: Final = "events"
DATABASE: Final = os.environ.get("DATABASE_URL", "")

COLUMNS: Final = (
    *("id", "type", "user", "user_email", "timestamp"),
    *("origin_topic", "origin_partition", "origin_offset"),
)
COPY: Final = f"""COPY {TABLE} ({", ".join(f'"{column}"' for column in COLUMNS)}) FROM STDIN"""

# As StreamFlow's clients: the same buffers, the same compression, only committed records.
CONSUMER: Final[dict[str, Any]] = KAFKA | {
    "group.id": GROUP,
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "queued.max.messages.kbytes": 32_768,
    "fetch.wait.max.ms": 50,
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 2_000,
}
PRODUCER: Final[dict[str, Any]] = KAFKA | {
    "enable.idempotence": True,
    "acks": "all",
    "compression.type": "lz4",
    "linger.ms": 5,
    "batch.size": 1_000_000,
    "batch.num.messages": 100_000,
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 262_144,
    "partitioner": "murmur2_random",
}

WINDOW: Final = 10  # seconds
GRACE: Final = 5  # seconds
TYPES: Final = ("USER_LOGIN", "USER_LOGIN_FAILED", "USER_LOGOUT", "USER_SIGNUP")
DONE: Final = {
    "USER_LOGIN": "logged in",
    "USER_LOGIN_FAILED": "failed to log in",
    "USER_LOGOUT": "logged out",
    "USER_SIGNUP": "signed up",
}


class LoginEvent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[int, Field(ge=0, lt=2**53, strict=True)]
    type: Literal["USER_LOGIN", "USER_LOGIN_FAILED", "USER_LOGOUT", "USER_SIGNUP"]
    user: Annotated[str, StringConstraints(min_length=1, max_length=256, strict=True)]
    user_email: Annotated[str | None, Field(pattern="^[0-9a-f]{64}$")] = None
    timestamp: AwareDatetime


# Raises pydantic's ValidationError, which is a ValueError.
read: Final = LoginEvent.__pydantic_validator__.validate_json


def line(event: LoginEvent, partition: int, offset: int) -> str:
    """Of COPY's text format."""
    user = event.user.replace("\\", "\\\\") if "\\" in event.user else event.user
    email = event.user_email or r"\N"
    time = event.timestamp.isoformat()
    return f"{event.id}\t{event.type}\t{user}\t{email}\t{time}\t{TOPIC}\t{partition}\t{offset}\n"


def notification(event: LoginEvent) -> dict[str, Any]:
    return {
        "message": f"User {event.user} {DONE[event.type]}",
        "time": event.timestamp.isoformat(),
        "event_id": event.id,
        "user": event.user,
    }


def window_start(time: datetime) -> int:
    """In seconds since the epoch."""
    seconds = int(time.timestamp())
    return seconds - seconds % WINDOW


def stop_on_sigterm() -> None:
    """So that a consumer leaves its group."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
