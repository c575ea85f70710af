"""Pathway: tumbling windows by type, over all partitions."""

from datetime import timedelta

import pathway as pw
from login_events import GRACE, KAFKA, OUTPUT, WINDOW
from pathway_source import TIME, valid_events


class Event(pw.Schema):
    type: str
    timestamp: str


events = valid_events(Event)
timed = events.select(events.type, at=events.timestamp.dt.strptime(TIME).dt.to_utc("UTC"))
counts = timed.windowby(
    timed.at,
    window=pw.temporal.tumbling(duration=timedelta(seconds=WINDOW)),
    instance=timed.type,
    behavior=pw.temporal.exactly_once_behavior(shift=timedelta(seconds=GRACE)),
).reduce(
    event_type=pw.this._pw_instance,
    window_start=pw.this._pw_window_start,
    count=pw.reducers.count(),
)
pw.io.kafka.write(
    counts, {key: str(value) for key, value in KAFKA.items()}, topic_name=OUTPUT, format="json"
)
pw.run(monitoring_level=pw.MonitoringLevel.NONE)
