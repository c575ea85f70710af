"""``user-events`` with more partitions, and with events of any size. Workers load them by name."""

from dataclasses import replace
from typing import Final

from streamflow.stream import Stream
from streamflow.streams.user_events import USER_EVENTS, UserEvent
from streamflow_bench.growth.dimensions import Dimension
from streamflow_bench.sandbox import STREAM


class NotedEvent(UserEvent):
    note: str


def _with_partitions(number: int) -> Stream:
    topics = replace(USER_EVENTS.topics, partitions=number, derived_partitions=number)
    return replace(USER_EVENTS, topics=topics)


PARTITIONS_3: Final = _with_partitions(3)
PARTITIONS_12: Final = _with_partitions(12)
PARTITIONS_48: Final = _with_partitions(48)
# Its columns are others than those of ``events``, which every database has.
NOTED: Final = replace(
    USER_EVENTS, contract=NotedEvent, table="noted_events", simulate=None, rollups=()
)


def stream_of(dimension: Dimension, step: int) -> str:
    """As ``STREAMFLOW_STREAMS`` names it."""
    if dimension is Dimension.PARTITIONS:
        return f"{__name__}:PARTITIONS_{step}"
    return f"{__name__}:NOTED" if dimension is Dimension.SIZE else STREAM
