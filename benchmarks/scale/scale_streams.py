"""The second stream of a large stage: measurements of devices, with windows of two kinds and sessions."""

from streamflow import (
    Count,
    Event,
    HoppingWindow,
    Max,
    SessionWindow,
    Stream,
    Sum,
    Timestamp,
    TumblingWindow,
)


class Measurement(Event):
    device: str
    room: str
    watts: int
    timestamp: Timestamp


MEASUREMENTS = Stream(
    name="measurements",
    contract=Measurement,
    table="measurements",
    key="device",
    windows=[
        TumblingWindow(
            "1min", by="device", measured=Count(), watts=Sum("watts"), most=Max("watts")
        ),
        HoppingWindow("10min", every="1min", by="room", measured=Count(), watts=Sum("watts")),
        SessionWindow("30min", by="device", measured=Count()),
    ],
)
STREAMS = "streamflow.streams.user_events:USER_EVENTS,scale_streams:MEASUREMENTS"
