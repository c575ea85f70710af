"""Live: is data flowing, how fast, how late, what is broken. Figures and charts."""

import time
from collections.abc import Callable, Mapping

import streamlit as st

from streamflow import units
from streamflow.lag.history import GroupLag
from streamlit_app.measure.postgres import PostgresSample
from streamlit_app.measure.readings import Figure, Reading
from streamlit_app.measure.series import Points
from streamlit_app.pages.live_tables import render_tables
from streamlit_app.serving import Serving, serving
from streamlit_app.ui import charts
from streamlit_app.ui.components import metric, show, span_control
from streamlit_app.ui.markup import (
    empty,
)

_SPARK = 60.0  # seconds of a sparkline


def render() -> None:
    """The page."""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.title("Live", anchor=False)
    with right, st.container(horizontal=True, horizontal_alignment="right"):
        span = span_control()
    _figures()
    _throughput(span)
    _lag_and_latency(span)
    render_tables()


def _spark(server: Serving, name: str) -> list[float]:
    return server.store.recent(name, time.time(), _SPARK, 60).means


@st.fragment(run_every=1)
def _figures() -> None:
    """The cards. No I/O."""
    server = serving()
    kafka, postgres = server.poller.reading("kafka"), server.poller.reading("postgres")
    stream = server.streams[0]
    columns = [*st.columns(3), *st.columns(3)]
    with columns[0]:
        metric(
            "rate",
            f"{stream.topic} arriving",
            kafka.figure(lambda _: server.recorder.rate(f"appended/{stream.topic}")),
            lambda value: units.rate(value, "events"),
            note="appended to the topic, last 3 s",
            points=_spark(server, f"appended/{stream.topic}"),
        )
    with columns[1]:
        metric(
            "stored",
            "Rows stored",
            postgres.figure(lambda sample: sample.stored(stream.topic)),
            units.count,
            note=_loading(server, stream.topic),
            points=_spark(server, f"loaded/{stream.topic}"),
        )
    with columns[2]:
        _latency(server, postgres, stream.name)
    with columns[3]:
        worst = _worst(server.recorder.groups)
        metric(
            "lag",
            "Furthest behind",
            kafka.figure(lambda _: worst.time.seconds if worst and worst.time else None),
            _lag_form(worst),
            note=_lag_note(worst),
            points=_spark(server, f"seconds/{worst.group.name}") if worst else None,
        )
    with columns[4]:
        _probe(server)
    with columns[5]:
        metric(
            "letters",
            "Dead letters open",
            postgres.figure(lambda sample: sample.statuses.get("open", 0)),
            units.count,
            note=_letters_note(postgres),
            points=_spark(server, "letters"),
        )


def _loading(server: Serving, topic: str) -> str:
    rate = server.recorder.rate(f"loaded/{topic}")
    return f"of {topic} · {units.rate(rate)} loading" if rate is not None else f"of {topic}"


def _latency(server: Serving, postgres: Reading[PostgresSample], stream: str) -> None:
    def pick(kind: str, index: int) -> Callable[[PostgresSample], float | None]:
        def value(sample: PostgresSample) -> float | None:
            found = sample.latency.get(stream)
            pair = getattr(found, kind) if found else None
            return None if pair is None else float(pair[index])

        return value

    figure = postgres.figure(pick("event", 1))
    sample = postgres.sample
    found = sample.latency.get(stream) if sample else None
    note = ""
    if found is not None:
        append = f" · from broker {units.duration(found.append[1])}" if found.append else ""
        note = f"p99, p50 {units.duration(found.event[0])}{append}"
    metric(
        "latency",
        "Event to row",
        figure,
        units.duration,
        note=note,
        points=_spark(server, f"latency/{stream}/event/p99"),
    )


def _worst(groups: Mapping[str, GroupLag]) -> GroupLag | None:
    known = [each for each in groups.values() if each.time is not None]
    return max(known, key=lambda each: each.time.seconds if each.time else 0.0, default=None)


def _lag_form(worst: GroupLag | None) -> Callable[[float | None], str]:
    at_least = worst is not None and worst.time is not None and not worst.time.exact
    return lambda value: ("over " if at_least else "") + units.duration(value)


def _lag_note(worst: GroupLag | None) -> str:
    if worst is None:
        return ""
    return f"{worst.group.name} · {units.count(worst.records)} records"


def _probe(server: Serving) -> None:
    if not server.settings.probes:
        off = Figure(None, None, "the end-to-end probe", 1.0, "off: read-only")
        metric("probe", "End-to-end probe", off, units.duration)
        return
    reading = server.poller.reading("probe")
    sample = reading.sample
    note = (
        f"p99 of 60 · ack {units.duration(sample.acknowledged)} · "
        f"{units.count(sample.lost)} of {units.count(sample.sent)} lost"
        if sample
        else ""
    )
    metric(
        "probe",
        "End-to-end probe",
        reading.figure(lambda found: found.p99),
        units.duration,
        note=note,
        points=_spark(server, "probe"),
    )


def _letters_note(postgres: Reading[PostgresSample]) -> str:
    if postgres.sample is None:
        return ""
    letters = postgres.sample.dead_letters
    total = f"{units.count(sum(letters.values()))} in all"
    worst = max(letters.items(), key=lambda pair: pair[1], default=None)
    return f"{total} · most {worst[0]}" if worst else "none so far"


@st.fragment(run_every=1)
def _throughput(span: float) -> None:
    """Records arriving per topic. No I/O."""
    server = serving()
    now = time.time()
    most = charts.points_for(len(server.topics))
    series = {
        topic: server.store.recent(f"appended/{topic}", now, span, most) for topic in server.topics
    }
    with st.container(border=True, key="card-throughput"):
        st.subheader("Throughput by topic", anchor=False)
        st.caption("Offsets appended per second; transaction markers of derived topics included.")
        if not any(each.times for each in series.values()):
            show(empty("Nothing measured yet", "The first points appear within a few seconds."))
            return
        charts.lines("throughput", series, span, unit="offsets/s", area=True, height=260)


@st.fragment(run_every=1)
def _lag_and_latency(span: float) -> None:
    """Lag per group and partition, latency to the row. No I/O after the choice."""
    server = serving()
    now = time.time()
    left, right = st.columns(2)
    with left, st.container(border=True, key="card-lag", height="stretch"):
        st.subheader("Lag", anchor=False)
        with st.container(horizontal=True):
            unit = st.segmented_control(
                "Lag in",
                ["seconds", "records"],
                default="seconds",
                required=True,
                key="lag_unit",
                label_visibility="collapsed",
                bind="query-params",
            )
            chosen = st.selectbox(
                "Of",
                ["all groups", *server.recorder.groups],
                key="lag_group",
                label_visibility="collapsed",
                width=240,
            )
        series = _lag_series(server, unit or "seconds", chosen, now, span)
        if not any(each.times for each in series.values()):
            show(empty("No lag measured", "A group appears once its worker has committed."))
        else:
            form = ".2~f" if unit == "seconds" else "~s"
            charts.lines("lag", series, span, unit=unit or "seconds", height=230, form=form)
    with right, st.container(border=True, key="card-latency", height="stretch"):
        st.subheader("Latency to the row", anchor=False)
        st.caption("Of up to 5,000 rows loaded in the last 3 s; events of the last day.")
        stream = server.streams[0].name
        names = {
            "event time, p99": f"latency/{stream}/event/p99",
            "event time, p50": f"latency/{stream}/event/p50",
            "broker time, p99": f"latency/{stream}/append/p99",
            "broker time, p50": f"latency/{stream}/append/p50",
        }
        found = {title: server.store.recent(name, now, span) for title, name in names.items()}
        if not any(each.times for each in found.values()):
            show(empty("No row was loaded lately", "Try: streamflow produce --count 1000"))
        else:
            charts.lines("latency", found, span, unit="seconds", height=230, form=".2~f")


def _lag_series(
    server: Serving, unit: str, chosen: str | None, now: float, span: float
) -> dict[str, Points]:
    kind = "lag" if unit == "records" else "seconds"
    groups = server.recorder.groups
    if chosen in groups and kind == "lag":
        names = {
            name.removeprefix(f"lag/{chosen}/"): name
            for name in server.store.names(f"lag/{chosen}/")
        }
    elif chosen in groups:
        names = {str(chosen): f"seconds/{chosen}"}
    else:
        names = {name: f"{kind}/{name}" for name, each in groups.items() if each.partitions}
    most = charts.points_for(len(names))
    return {title: server.store.recent(name, now, span, most) for title, name in names.items()}
