"""The example stream, with windows that close soon after traffic stops: most tests wait for that. How
long it takes by default is for the tests of whole stacks."""

from dataclasses import replace
from datetime import timedelta

from streamflow.streams import user_events

assert user_events.USER_EVENTS.event_counts is not None
USER_EVENTS = replace(
    user_events.USER_EVENTS,
    windows=replace(user_events.USER_EVENTS.event_counts, idle=timedelta(seconds=2)),
)
