"""The streams of a stack that has two: logins, and orders, which are counted by another field."""

from dataclasses import replace
from datetime import timedelta

import order_streams
from streamflow import Topics, TumblingWindow

ORDERS = replace(
    order_streams.ORDERS,
    topics=Topics(),
    windows=TumblingWindow(size=timedelta(seconds=10), by="customer", idle=timedelta(seconds=1)),
)
STREAMS = "streamflow.streams.user_events:USER_EVENTS,two_streams:ORDERS"
