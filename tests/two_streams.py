"""The streams of a stack that has two: logins, and orders, which are counted by another field."""

from dataclasses import replace
from datetime import timedelta

import order_streams
from streamflow import (
    Count,
    Distinct,
    First,
    HoppingWindow,
    Quantiles,
    SessionWindow,
    Sum,
    Topics,
    TumblingWindow,
)

ORDERS = replace(
    order_streams.ORDERS,
    topics=Topics(),
    windows=[
        TumblingWindow(size=timedelta(seconds=10), by="customer", idle=timedelta(seconds=1)),
        TumblingWindow(
            "1min",
            by=("customer", "type"),
            idle="1s",
            spent=Sum("amount_cents"),
            amounts=Quantiles("amount_cents", at=(0.5, 0.99)),
            opened_by=First("customer"),
        ),
        HoppingWindow("5min", every="1min", idle="1s", customers=Distinct("customer")),
        SessionWindow("30min", by="customer", orders=Count()),
    ],
)
STREAMS = "streamflow.streams.user_events:USER_EVENTS,two_streams:ORDERS"
