"""Live: is data flowing, how fast, how late, what is broken. Figures and charts."""

import time
from collections.abc import Callable

import streamlit as st

from streamflow import units
from streamflow.lag.history import GroupLag
from streamlit_app.measure.postgres import PostgresSample
from streamlit_app.measure.readings import Reading
from streamlit_app.measure.ring_buffers import Points
from streamlit_app.pages.live_tables import render_tables
from streamlit_app.serving import Serving, serving
from streamlit_app.ui import charts
from streamlit_app.ui.components import card, choice, heading, metric, show, span_control
from streamlit_app.ui.markup import empty

_SPARK = 60.0  # seconds of a sparkline


def render() -> None:
    with heading("Live"):
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
        loading = server.recorder.rate(f"loaded/{stream.topic}")
        metric(
            "stored",
            "Rows stored",
            postgres.figure(lambda sample: sample.stored(stream.topic)),
            units.count,
            note=f"of {stream.topic} · {units.rate(loading)} loading",
            points=_spark(server, f"loaded/{stream.topic}"),
        )
    with columns[2]:
        _latency(server, postgres, stream.name)
    with columns[3]:
        _furthest_behind(server)
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


def _latency(server: Serving, postgres: Reading[PostgresSample], stream: str) -> None:
    latency = postgres.sample.latency.get(stream) if postgres.sample else None
    note = ""
    if latency is not None:
        append = f" · from broker {units.duration(latency.append[1])}" if latency.append else ""
        note = f"p99, p50 {units.duration(latency.event[0])}{append}"
    metric(
        "latency",
        "Event to row",
        postgres.figure(lambda _: latency.event[1] if latency else None),
        units.duration,
        note=note,
        points=_spark(server, f"latency/{stream}/event/p99"),
    )


def _furthest_behind(server: Serving) -> None:
    def seconds(lag: GroupLag) -> float:
        return lag.time.seconds if lag.time else 0.0

    known = [lag for lag in server.recorder.groups.values() if lag.time is not None]
    worst = max(known, key=seconds, default=None)
    metric(
        "lag",
        "Furthest behind",
        server.poller.reading("kafka").figure(lambda _: seconds(worst) if worst else None),
        _lag_form(worst),
        note=f"{worst.group.name} · {units.count(worst.records)} records" if worst else "",
        points=_spark(server, f"seconds/{worst.group.name}") if worst else None,
    )


def _lag_form(lag: GroupLag | None) -> Callable[[float | None], str]:
    at_least = lag is not None and lag.time is not None and not lag.time.exact
    return lambda value: ("over " if at_least else "") + units.duration(value)


def _probe(server: Serving) -> None:
    if not server.settings.probes:
        off = Reading[float]("the end-to-end probe", 1.0, error="off: read-only")
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
        reading.figure(lambda probed: probed.p99),
        units.duration,
        note=note,
        points=_spark(server, "probe"),
    )


def _letters_note(postgres: Reading[PostgresSample]) -> str:
    if postgres.sample is None:
        return ""
    letters = postgres.sample.dead_letters
    if not letters:
        return "0 in all · none so far"
    return f"{units.count(sum(letters.values()))} in all · most {max(letters, key=letters.__getitem__)}"


@st.fragment(run_every=1)
def _throughput(span: float) -> None:
    """Records arriving per topic. No I/O."""
    server = serving()
    series = _recent(server, {topic: f"appended/{topic}" for topic in server.topics}, span)
    with card("throughput", "Throughput by topic"):
        st.caption("Offsets appended per second; transaction markers of derived topics included.")
        if series:
            charts.lines("throughput", series, span, unit="offsets/s", area=True, height=260)
        else:
            show(empty("Nothing measured yet", "The first points appear within a few seconds."))


def _recent(server: Serving, names: dict[str, str], span: float) -> dict[str, Points]:
    """Series by title, from their names; empty where none has a point."""
    now, most = time.time(), charts.points_for(len(names))
    series = {title: server.store.recent(name, now, span, most) for title, name in names.items()}
    return series if any(points.times for points in series.values()) else {}


@st.fragment(run_every=1)
def _lag_and_latency(span: float) -> None:
    """Lag per group and partition, latency to the row. No I/O."""
    server = serving()
    left, right = st.columns(2)
    with left, card("lag", "Lag", stretch=True):
        with st.container(horizontal=True):
            unit = choice("Lag in", ["seconds", "records"], "lag_unit", "seconds")
            group = st.selectbox(
                "Of",
                ["all groups", *server.recorder.groups],
                key="lag_group",
                label_visibility="collapsed",
                width=240,
            )
        series = _recent(server, _lag_names(server, unit, group), span)
        if series:
            form = ".2~f" if unit == "seconds" else "~s"
            charts.lines("lag", series, span, unit=unit, height=230, form=form)
        else:
            show(empty("No lag measured", "A group appears once its worker has committed."))
    with right, card("latency", "Latency to the row", stretch=True):
        st.caption("Of up to 5,000 rows loaded in the last 3 s; events of the last day.")
        names = {
            f"{title}, {percentile}": f"latency/{server.streams[0].name}/{name}/{percentile}"
            for title, name in (("event time", "event"), ("broker time", "append"))
            for percentile in ("p99", "p50")
        }
        series = _recent(server, names, span)
        if series:
            charts.lines("latency", series, span, unit="seconds", height=230, form=".2~f")
        else:
            show(empty("No row was loaded lately", "Try: streamflow produce --count 1000"))


def _lag_names(server: Serving, unit: str, chosen: str) -> dict[str, str]:
    """The series to show, by their titles: of every group, or of one in more detail."""
    kind = "lag" if unit == "records" else "seconds"
    groups = server.recorder.groups
    if chosen not in groups:
        return {name: f"{kind}/{name}" for name, lag in groups.items() if lag.partitions}
    if kind == "seconds":
        return {chosen: f"seconds/{chosen}"}
    prefix = f"lag/{chosen}/"
    return {name.removeprefix(prefix): name for name in server.store.names(prefix)}
