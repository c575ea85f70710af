"""Two releases of a stream with several windows. The second one has one more."""

from dataclasses import replace

from streamflow import Count, Distinct, HoppingWindow, Max, Quantiles, Sum, TumblingWindow
from window_parts import ORDERS

FIRST = replace(
    ORDERS,
    windows=[
        TumblingWindow("10s", by="kind", idle="2s"),
        TumblingWindow(
            "10s", by="country", idle="2s", orders=Count(), revenue=Sum("total"), weight=Sum("weight"),
            placed=Sum("total", where=lambda order: order.kind == "placed"),
            customers=Distinct("customer"), sizes=Quantiles("weight"),
        ),
    ],
)  # fmt: skip
SECOND = replace(
    FIRST,
    windows=[
        *FIRST.windows,
        HoppingWindow(
            "5min", every="1min", by=("country", "address.city"), idle="2s", heaviest=Max("weight")
        ),
    ],
)
