"""The topics of a stream: what its declaration says of them, and what they should look like on the broker."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

from streamflow.argument_types import FLAG, TEXT, duration, keeps_misnamed, optional, whole_number

# Kafka's own default (`message.max.bytes`): 1 MiB and the overhead of one record batch.
MAX_RECORD_BYTES = 1_048_588
# A dead letter is the original with headers added and each address replaced by a longer hash: in
# the worst case every five bytes ("a@b.c" and a delimiter) become 65.
MAX_DEAD_LETTER_BYTES = 16 * MAX_RECORD_BYTES
# Kafka's controller makes at most 10,000 changes at once, those of the topic's settings included.
MOST_PARTITIONS = 9_000
_MOST_BYTES = 2**31 - 1
_RETENTION = duration(timedelta(milliseconds=1), timedelta(days=999_999_999))


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What a topic should look like on the broker."""

    name: str
    partitions: int
    config: dict[str, str]
    derived: bool = False  # whether StreamFlow writes to it, rather than producers


@keeps_misnamed
@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """The topics of a stream. Streams may share the derived ones. Durations are texts like ``12h`` or
    ``7d``, or a ``timedelta``.

    Args:
        managed: whether StreamFlow creates and alters the stream's own topic. False for another owner's
            topic: it must exist, and is only read.
        replays: whether replays of dead letters may append to the stream's own topic. None: if it is
            managed. True for another owner's topic says that its owner allows it.
        partitions: of the stream's own topic; they can only be increased.
        derived_partitions: of each of the others.
        retention: of the stream's own topic.
        derived_retention: of analytics and notifications.
        dead_letter_retention: of the dead letters.
        max_record_bytes: the largest record that the stream's own topic accepts.
    """

    managed: Annotated[bool, FLAG] = True
    replays: Annotated[bool | None, optional(FLAG)] = None
    partitions: Annotated[int, whole_number(1, MOST_PARTITIONS)] = 3
    derived_partitions: Annotated[int, whole_number(1, MOST_PARTITIONS)] = 3
    retention: Annotated[timedelta | str, _RETENTION] = timedelta(hours=168)
    derived_retention: Annotated[timedelta | str, _RETENTION] = timedelta(hours=168)
    dead_letter_retention: Annotated[timedelta | str, _RETENTION] = timedelta(days=30)
    max_record_bytes: Annotated[int, whole_number(1, _MOST_BYTES)] = MAX_RECORD_BYTES
    analytics: Annotated[str, TEXT] = "analytics"
    notifications: Annotated[str, TEXT] = "notifications"
    dead_letters: Annotated[str, TEXT] = "dead-letter-topic"
    misnamed: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def takes_replays(self) -> bool:
        return self.managed if self.replays is None else self.replays
