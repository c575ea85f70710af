"""A stream with windows of several kinds, for the tests of their assets."""

from dataclasses import replace

from streamflow import Count, Max, Min, Sum, TumblingWindow
from streamflow.streams.user_events import USER_EVENTS
from window_parts import ORDERS as WITH_EVERY_AGGREGATE

ORDERS = replace(
    WITH_EVERY_AGGREGATE,
    windows=[
        *WITH_EVERY_AGGREGATE.windows,
        # Without a text in its columns, and with events that come too late.
        TumblingWindow("1h", idle="2s", late_after="1min", weight=Sum("weight"), most=Max("total")),
    ],
)
# A group and a value that are hashes.
LOGINS = replace(
    USER_EVENTS, windows=TumblingWindow("1h", by="user_email", n=Count(), least=Min("user_email"))
)
