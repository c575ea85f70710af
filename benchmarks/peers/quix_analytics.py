"""Quix Streams: tumbling windows by type. Grouping by type takes a topic between."""

from datetime import timedelta
from typing import Any

from login_events import GRACE, OUTPUT, TOPIC, WINDOW, LoginEvent, read
from quix_application import application
from quixstreams.models.serializers import Deserializer


class EventDeserializer(Deserializer):
    def __call__(self, value: bytes, ctx: Any) -> LoginEvent | None:  # noqa: ARG002 (its name)
        try:
            return read(value)
        except ValueError:
            return None


def event_time(value: Any, _headers: Any, timestamp: float, _type: Any) -> int:
    return int(value.timestamp.timestamp() * 1000) if value is not None else int(timestamp)


app = application(exactly_once=True)
events = app.dataframe(
    app.topic(
        TOPIC,
        value_deserializer=EventDeserializer(),
        key_deserializer="bytes",
        timestamp_extractor=event_time,
    )
)
kinds = events.filter(lambda event: event is not None).apply(lambda event: {"type": event.type})
counts = (
    kinds.group_by("type")
    .tumbling_window(timedelta(seconds=WINDOW), grace_ms=timedelta(seconds=GRACE))
    .count()
    .final(closing_strategy="partition")
)
counts.to_topic(app.topic(OUTPUT, value_serializer="json"))
app.run()
