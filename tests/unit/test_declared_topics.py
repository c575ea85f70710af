"""What streams declare about their topics fits together."""

from dataclasses import replace

import pytest

from streamflow import ConfigurationError, Topics
from streamflow.kafka.topics import declared_topics
from streamflow.settings import Settings
from streamflow.streams.user_events import USER_EVENTS


def test_streams_share_derived_topics() -> None:
    other = replace(USER_EVENTS, name="orders")
    names = [spec.name for spec in declared_topics(Settings(), [USER_EVENTS, other])]
    assert sorted(names) == sorted({*USER_EVENTS.topic_names, "orders"})


@pytest.mark.parametrize("derived", ["analytics", "notifications", "dead_letters"])
@pytest.mark.parametrize("managed", [True, False])
def test_events_and_derived_records_do_not_share_a_topic(derived: str, *, managed: bool) -> None:
    topics = Topics(managed=managed, **{derived: USER_EVENTS.name})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=f"topic {USER_EVENTS.name} is "):
        declared_topics(Settings(), [replace(USER_EVENTS, topics=topics)])
