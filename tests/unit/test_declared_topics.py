"""What streams declare about their topics fits together."""

from dataclasses import replace

from streamflow.kafka.topics import declared_topics
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS


def test_streams_share_derived_topics() -> None:
    other = replace(USER_EVENTS, name="orders")
    names = [spec.name for spec in declared_topics(Settings(), [USER_EVENTS, other])]
    assert sorted(names) == sorted({*USER_EVENTS.topic_names, "orders"})
