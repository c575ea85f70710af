"""What streams declare about their topics fits together."""

from dataclasses import replace

import pytest

from streamflow.kafka.topic_plans import declared_plan
from streamflow.kafka.topics import declared_topics
from streamflow.planned import PlannedAction
from streamflow.settings import Settings
from streamflow.stream_topics import Topics
from streamflow.streams.user_events import USER_EVENTS


def test_streams_share_derived_topics() -> None:
    other = replace(USER_EVENTS, name="orders")
    names = [spec.name for spec in declared_topics(Settings(), [USER_EVENTS, other])]
    assert sorted(names) == sorted({*USER_EVENTS.topic_names, "orders"})


@pytest.mark.parametrize(("replays", "note"), [(None, "are not replayed"), (True, "append to it")])
def test_a_check_says_whether_replays_append_to_another_owner_s_topic(
    replays: bool | None, note: str
) -> None:
    theirs = replace(USER_EVENTS, topics=Topics(managed=False, replays=replays))
    read = declared_plan(Settings(), theirs)[0]
    assert (read.action, read.topic) == (PlannedAction.READ, theirs.topic)
    assert note in read.notes[0]
    assert not declared_plan(Settings(), USER_EVENTS)[0].notes
