"""What the Windows page says and draws of windows with aggregates."""

import threading
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import Field
from streamlit.testing.v1 import AppTest

from streamflow import (
    Count,
    Distinct,
    Event,
    First,
    HoppingWindow,
    Max,
    Mean,
    Min,
    Quantiles,
    SessionWindow,
    Stream,
    Sum,
    Timestamp,
    TumblingWindow,
)
from streamflow.postgres.tables import Column
from streamflow.records import Origin
from streamflow.streams.user_events import USER_EVENTS
from streamflow.units import significant
from streamlit_app.measure.demand import Demand
from streamlit_app.measure.poller import PollJob
from streamlit_app.pages.event_trace import _steps
from streamlit_app.pages.window_tables import corrected_table, too_late_line, totals_table
from streamlit_app.records.traced_windows import TracedWindow
from streamlit_app.records.traces import Trace
from streamlit_app.records.window_choice import aggregates_of, choices_of, step_of
from streamlit_app.records.window_groups import Groups
from streamlit_app.records.window_results import Cell, GroupTotal, WindowTotals, ceiling, floor
from streamlit_app.ui.stream_control import summary
from streamlit_app.ui.values import change_text, chart_number, value_text
from streamlit_app.ui.window_chart import Shape
from streamlit_app.ui.window_rows import chart_rows
from streamlit_app.ui.window_words import captions

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TEN, MINUTE = timedelta(seconds=10), timedelta(minutes=1)


class Order(Event):
    customer: str
    country: str | None
    total: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
    weight: float
    took: timedelta
    at: Timestamp


ORDERS = Stream(
    name="orders", contract=Order, table="orders", key="customer", event_time="at",
    windows=[
        TumblingWindow("1min", by="country"),
        TumblingWindow(
            "10s", by="country", late_after="1h", orders=Count(), revenue=Sum("total"), mean=Mean("total"),
            weight=Mean("weight"), first_at=Min("at"), longest=Max("took"), opened_by=First("customer"),
            customers=Distinct("customer"), value=Quantiles("total", at=(0.5, 0.999)),
        ),
        HoppingWindow("5min", every="1min", orders=Count()),
        SessionWindow("30min", by="customer", spent=Sum("total"), value=Quantiles("total", at=(0.5,))),
    ],
)  # fmt: skip
CHOICES = choices_of(ORDERS)
TUMBLING, HOPPING, SESSIONS = (
    CHOICES[name] for name in ("orders_10s", "orders_5min_by_1min", "orders_sessions_30min")
)
assert TUMBLING is not None
assert HOPPING is not None
assert SESSIONS is not None
CHOSEN = aggregates_of(TUMBLING)


def cell(
    seconds: float, *values: Any, group: str = "DE", late: int = 0, size: timedelta = TEN
) -> Cell:
    start = NOON + timedelta(seconds=seconds)
    return Cell(start, start + size, group, values, 3, late)


def totals(*cells: Cell, groups: tuple[str, ...] = ("DE",), **changes: Any) -> WindowTotals:
    made = tuple(GroupTotal(group, (1,), 1, 0) for group in groups)
    found = WindowTotals(cells=cells, totals=made, step=TEN, since=NOON, end=NOON + MINUTE)
    return found._replace(**changes)


def test_the_windows_of_a_stream_are_chosen_by_their_tables() -> None:
    assert list(CHOICES) == [
        "window_counts", "orders_10s", "orders_5min_by_1min", "orders_sessions_30min",
    ]  # fmt: skip
    assert CHOICES["window_counts"] is None
    assert choices_of(USER_EVENTS) == {"window_counts": None}


def test_what_a_chart_of_an_aggregate_is() -> None:
    assert [name for name, each in CHOSEN.items() if each.adds_up] == [
        "orders",
        "revenue",
        "counted",
    ]
    assert [name for name, each in CHOSEN.items() if not each.is_chartable] == [
        "first_at",
        "opened_by",
    ]
    assert {name: each.unit for name, each in CHOSEN.items() if each.is_chartable} == {
        "orders": "events", "revenue": "total", "mean": "total", "weight": "weight",
        "longest": "took, seconds", "customers": "different values of customer", "value": "total",
        "counted": "events",
    }  # fmt: skip
    assert (CHOSEN["value"].labels, CHOSEN["revenue"].places) == (("p50", "p99.9"), 2)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("orders", 1234, "1,234"),
        ("revenue", Decimal("1234.5"), "1,234.50"),
        ("mean", Decimal("12.3456789"), "12.35"),
        ("weight", 1234.56789, "1,234.57"),
        ("weight", 1.5e-9, "1.50000e-09"),
        ("weight", float("inf"), "inf"),
        ("first_at", NOON, "2026-03-01 12:00:00.000 UTC"),
        ("longest", timedelta(minutes=3), "0:03:00"),
        ("opened_by", "x" * 100, "x" * 80 + "…"),
        ("opened_by", None, "—"),
    ],
)
def test_values_have_their_digits(name: str, value: Any, text: str) -> None:
    assert value_text(value, CHOSEN[name]) == text


def test_numbers_of_an_axis() -> None:
    assert [chart_number(each) for each in (1, Decimal("1.5"), timedelta(minutes=1))] == [
        1,
        1.5,
        60,
    ]
    assert {chart_number(each) for each in (None, True, "1", float("nan"), NOON)} == {None}
    assert [significant(each) for each in (0, 123456.789, -0.00012345678, 2.5)] == [
        "0", "123,457", "-0.000123457", "2.5",
    ]  # fmt: skip


def test_changes() -> None:
    assert change_text((3, 1), (2, 2)) == "+50 % / -50 %"
    assert change_text((-1,), (-2,)) == "+50 %"
    assert change_text((1,), (0,)) == "—"


def test_steps_are_round_and_whole_windows() -> None:
    assert step_of(TEN, timedelta(seconds=3)) == TEN
    assert step_of(TEN, timedelta(seconds=134)) == timedelta(minutes=3)
    assert step_of(timedelta(seconds=7), timedelta(seconds=30)) == timedelta(seconds=35)
    assert step_of(timedelta(days=3), timedelta(hours=1)) == timedelta(days=3)
    for seconds in range(1, 90_000, 61):
        step = step_of(TEN, timedelta(seconds=seconds))
        assert seconds <= step.total_seconds() < 2 * (seconds + 10)
        assert step % TEN == timedelta(0)
    assert floor(NOON + timedelta(seconds=61), MINUTE) == NOON + MINUTE
    assert ceiling(NOON + timedelta(seconds=61), MINUTE) == NOON + 2 * MINUTE
    assert ceiling(NOON, MINUTE) == NOON


def test_groups_are_named_and_the_others_counted() -> None:
    by = (Column("country", "text", True), Column("open", "boolean", True))
    groups = Groups(by, (("DE", True), (None, False), ("", None)), 4)
    assert groups.labels == ("DE · true", "(null) · false", "(empty) · (null)", "4 more groups")
    assert groups.total(3, [1], 2, 1).is_others
    assert not groups.total(2, [1], 2, 1).is_others
    assert Groups((), ((),), 0).labels == ("(all)",)
    values = (UUID(int=1), date(2026, 3, 1), Decimal("1.50"))
    assert Groups(by, (values,), 0).labels == (f"{UUID(int=1)} · 2026-03-01 · 1.5",)


def test_lines_have_gaps_where_no_window_is() -> None:
    found = totals(cell(0, 1.0), cell(10, 2.0), cell(40, 3.0))
    rows = chart_rows(CHOSEN["weight"], Shape.LINES, found, None, None)
    assert [(row["time"] - NOON).total_seconds() for row in rows] == [5, 15, 25, 45]
    assert [row["value"] for row in rows] == [1, 2, None, 3]


def test_quantiles_are_a_line_for_each_share() -> None:
    found = totals(cell(0, 1.0, 9.0), cell(0, 2.0, None, group="FR"), groups=("DE", "FR"))
    rows = chart_rows(CHOSEN["value"], Shape.LINES, found, None, None)
    assert [(row["group"], row["share"], row["value"]) for row in rows] == [
        ("DE", "p50", 1), ("DE", "p99.9", 9), ("FR", "p50", 2), ("FR", "p99.9", None),
    ]  # fmt: skip


def test_windows_that_overlap_are_at_their_ends() -> None:
    found = totals(cell(0, 5, size=timedelta(minutes=5)), step=MINUTE)
    [bar] = chart_rows(CHOSEN["orders"], Shape.BARS, found, None, None)
    assert (bar["time"], bar["until"]) == (NOON + timedelta(minutes=4), NOON + timedelta(minutes=5))
    [point] = chart_rows(CHOSEN["weight"], Shape.LINES, found, None, None)
    assert point["time"] == NOON + timedelta(minutes=5)
    assert point["window"] == "01 Mar 12:00:00 to 12:05:00"


def test_corrections_stand_on_what_they_correct() -> None:
    found = totals(
        cell(0, 5, late=2), cell(0, -1, late=1, group="FR"), cell(10, 4), groups=("DE", "FR")
    )
    *_, late = chart_rows(CHOSEN["revenue"], Shape.BARS, found, None, None)
    assert late == {"time": NOON + TEN / 2, "late": 3, "top": 5}


def test_an_earlier_time_is_moved_to_this_one() -> None:
    now, then = totals(cell(0, 5)), totals(cell(-3600, 4), cell(-3600, 3, group="FR"))
    hour = timedelta(hours=1)
    *_, before = chart_rows(CHOSEN["orders"], Shape.BARS, now, then, hour)
    assert before == {"time": NOON + TEN / 2, "earlier": 7}
    *_, before = chart_rows(CHOSEN["weight"], Shape.LINES, now, then, hour)
    assert (before["earlier"], before["group"]) == (4, "DE")
    many = totals(cell(0, 5), groups=("DE", "FR", "IT", "ES"))
    assert len(chart_rows(CHOSEN["weight"], Shape.LINES, many, then, hour)) == 1


def test_sessions_of_groups_without_a_colour_have_that_of_the_others() -> None:
    found = totals(
        cell(0, 5, group="ann"), cell(0, 6, group="zoe"), groups=("ann", "9 more groups")
    )
    rows = chart_rows(aggregates_of(SESSIONS)["value"], Shape.POINTS, found, None, None)
    assert [(row["group"], row["name"]) for row in rows] == [
        ("ann", "ann"),
        ("9 more groups", "zoe"),
    ]


def words(table: Any, name: str, found: WindowTotals, *, compared: bool = False) -> str:
    now = NOON + timedelta(hours=2)
    return " ".join(captions(table, aggregates_of(table)[name], found, compared=compared, now=now))


def test_the_chart_says_what_it_shows() -> None:
    assert words(TUMBLING, "revenue", totals(cell(0, 1, late=1)), compared=True) == (
        'Sum("total"). Windows of 10 s by event time, up to 2026-03-01 12:01:00 UTC. A diamond marks '
        "corrections by late events. Dashed is the time before."
    )
    coarse = words(TUMBLING, "mean", totals(cell(0, 1), step=MINUTE, is_cut=True, ahead=2))
    assert "6 of them make a point of 1 min, which is of all their events" in coarse
    assert "Only the last 60 s of this time are shown" in coarse
    assert "2 windows ahead of now" in coarse
    hopping = words(HOPPING, "orders", totals(step=3 * MINUTE))
    assert "Windows of 5 min, which overlap: every 3rd window is shown, one every 3 min" in hopping
    others = (GroupTotal("ann", (1,), 1, 0, 1), GroupTotal("9 more groups", (1,), 1, 0, 8, True))
    assert "revenue is that of all their events" in words(
        TUMBLING, "revenue", totals(totals=others)
    )
    sessions = totals(cell(0, 1), totals=others, computed_at=NOON)
    assert "a bar adds up those that began in 10 s" in words(SESSIONS, "spent", sessions)
    points = words(SESSIONS, "value", sessions)
    assert "shown are the newest 1 of 9" in points
    assert "computed 2 h ago, at 2026-03-01 12:00:00 UTC" in points
    assert "taken as one" not in points


def test_tables_of_totals_and_corrections() -> None:
    found = WindowTotals(
        cells=(cell(0, Decimal("1.5"), late=2), cell(10, Decimal(2))),
        totals=(
            GroupTotal("<b>", (Decimal("3.5"),), 6, 2),
            GroupTotal("4 more groups", (Decimal(9),), 8, 0, 0, True),
        ),
    )
    then = WindowTotals(totals=(GroupTotal("<b>", (Decimal(7),), 9, 0),))
    table = totals_table(TUMBLING, CHOSEN["revenue"], found, then)
    for text in ("&lt;b&gt;", ">3.50<", ">7.00<", "-50 %", "4 more groups", ">9.00<"):
        assert text in table
    assert "<b>" not in table
    assert "change" not in totals_table(TUMBLING, CHOSEN["opened_by"], found, then)
    assert "2026-03-01 12:00:00" in corrected_table(found)
    assert "12:00:10" not in corrected_table(found)
    assert (
        "1 event of this time came more than 1 h after its window had closed, and is in no aggregate"
        in (too_late_line(1, timedelta(hours=1)))
    )


def test_a_stream_with_other_windows_has_windows() -> None:
    bare = Stream(
        name="o", contract=Order, table="o", key="customer", event_time="at",
        windows=TumblingWindow("10s", orders=Count()),
    )  # fmt: skip
    told = summary(bare, [bare])
    assert "no windows" not in told
    assert "<code>o_10s</code>" in told


def test_a_trace_names_all_windows_of_an_event() -> None:
    part = TracedWindow(NOON, NOON + TEN, 3, 1, True, "DE")
    event = Trace(
        origin=Origin(ORDERS.topic, 0, 1), stream=ORDERS, row={"appended_at": None, "loaded_at": "now"},
        notification=None, dead_letters=(), windows=(), duplicates=(), replay=None, time="noon",
        parts={"orders_10s": (part,), "orders_sessions_30min": ()},
    )  # fmt: skip
    steps = {title: str(detail) for _, title, detail in _steps(event)}
    assert "not closed yet" in steps["Window"]
    correction = steps["Correction: Window of orders_10s"]
    assert "3 events of DE, and 1 that came too late to be aggregated" in correction
    assert "2026-03-01 12:00:00.000 to 12:00:10.000 UTC" in correction
    assert "cannot be read" in steps["Pane of orders_5min_by_1min"]
    assert "not computed yet" in steps["Session of orders_sessions_30min"]


def choice_page(names: list[str], **address: str) -> AppTest:
    def script(names: list[str]) -> None:
        import streamlit as st

        from streamlit_app.ui.named_choice import named_choice

        shown = names if st.session_state.get("other") is None else ["c", "d"]
        st.text(named_choice(st, "Windows", shown, "windows"))

    made = AppTest.from_function(script, kwargs={"names": names})
    for name, value in address.items():
        made.query_params[name] = value
    made.run(timeout=30)
    assert not made.exception
    return made


def test_names_are_chosen_in_the_address_and_mistakes_named() -> None:
    assert choice_page(["a"]).text[0].value == "a"
    assert len(choice_page(["a"]).selectbox) == 0
    assert choice_page(["a", "b"]).text[0].value == "a"
    made = choice_page(["a", "b"], windows="b")
    assert made.text[0].value == "b"
    # Another list: what was chosen is none of it, and that is no mistake.
    made.session_state["other"] = True
    made.run()
    assert (made.text[0].value, made.get("html")) == ("c", [])
    made = choice_page(["a", "b"], windows="x")
    assert made.text[0].value == "a"
    [banner] = made.get("html")
    assert "No such windows" in banner.proto.body
    made.selectbox(key="windows").select("b").run()
    assert (made.text[0].value, made.get("html")) == ("b", [])


def test_what_takes_long_is_asked_seldom_and_not_called_stale() -> None:
    demand = Demand()
    demand.start()
    try:
        job = PollJob("slow", "PostgreSQL", 0.01, lambda: threading.Event().wait(0.1))
        reading = demand.wait(job, 10)
    finally:
        demand.stop()
    assert reading.measured_at is not None
    assert reading.interval == pytest.approx(5 * reading.seconds)
    assert reading.is_current(reading.measured_at + 0.4)
