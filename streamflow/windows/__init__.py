"""Windows by event time: their declarations, and how events are counted in them."""

from streamflow.windows.partition import PartitionWindows, Progress, WindowCount
from streamflow.windows.specs import (
    CountedWindows,
    HoppingWindow,
    SessionWindow,
    TumblingWindow,
    Windows,
)

__all__ = [
    "CountedWindows",
    "HoppingWindow",
    "PartitionWindows",
    "Progress",
    "SessionWindow",
    "TumblingWindow",
    "WindowCount",
    "Windows",
]
