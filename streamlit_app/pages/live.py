"""Live: is data flowing, how fast, how late, what is broken. Figures and charts."""

import time
from collections.abc import Callable, Sequence

import streamlit as st

from streamflow import units
from streamflow.lag.verdicts import LagTime
from streamflow.stream import Stream
from streamlit_app.measure.postgres import PostgresSample
from streamlit_app.measure.readings import Reading
from streamlit_app.measure.ring_buffers import Points, points_for
from streamlit_app.pages.live_tables import render_tables
from streamlit_app.serving import Serving, serving
from streamlit_app.ui import charts
from streamlit_app.ui.components import card, choice, heading, metric, show, span_control
from streamlit_app.ui.markup import empty
from streamlit_app.ui.stream_control import stream_control, summary, used_topics

_SPARK = 60.0  # seconds of a sparkline


def render() -> None:
    server = serving()
    controls = heading("Live")
    stream = stream_control(controls, server.streams, all_streams=True)
    with controls:
        span = span_control()
    if stream is not None and len(server.streams) > 1:
        show(summary(stream, server.streams))
    shown = server.streams if stream is None else (stream,)
    _figures(shown)
    _throughput(shown, span)
    _lag_and_latency(shown, span)
    render_tables(shown)


def _spark(server: Serving, name: str) -> list[float]:
    return server.store.recent(name, time.time(), _SPARK, 60).means


@st.fragment(run_every=1)
def _figures(streams: Sequence[Stream]) -> None:
    """The cards, of one stream or of all. No I/O."""
    server = serving()
    kafka, postgres = server.poller.reading("kafka"), server.poller.reading("postgres")
    one = streams[0] if len(streams) == 1 else None
    topic = one.topic if one is not None else None
    name = topic or "all streams"
    topics = [stream.topic for stream in streams]
    columns = [*st.columns(3), *st.columns(3)]
    with columns[0]:
        metric(
            "rate",
            f"{name} arriving",
            kafka.figure(lambda _: _sum_of_rates(server, "appended", topics)),
            lambda value: units.rate(value, "events"),
            note=f"appended to the topic{'' if topic else 's'}, last 3 s",
            points=_spark(server, f"appended/{topic}") if topic else None,
        )
    with columns[1]:
        loading = _sum_of_rates(server, "loaded", topics)
        metric(
            "stored",
            "Rows stored",
            postgres.figure(lambda sample: sum(map(sample.stored, topics))),
            units.count,
            note=f"of {name} · {units.rate(loading)} loading",
            points=_spark(server, f"loaded/{topic}") if topic else None,
        )
    with columns[2]:
        _latency(server, postgres, streams)
    with columns[3]:
        _furthest_behind(server, streams)
    with columns[4]:
        _probe(server)
    with columns[5]:
        metric(
            "letters",
            "Dead letters open",
            postgres.figure(lambda sample: sample.statuses(topic)["open"]),
            units.count,
            note=_letters_note(postgres, topic),
            points=_spark(server, f"letters/{topic}" if topic else "letters"),
        )


def _sum_of_rates(server: Serving, what: str, topics: Sequence[str]) -> float | None:
    """None while that of one of them is unknown."""
    rates = [server.recorder.rate(f"{what}/{topic}") for topic in topics]
    known = [rate for rate in rates if rate is not None]
    return sum(known) if len(known) == len(topics) else None


def _latency(server: Serving, postgres: Reading[PostgresSample], streams: Sequence[Stream]) -> None:
    """Of several streams, that of the slowest one."""
    measured = {
        stream.name: postgres.sample.latency[stream.name]
        for stream in streams
        if postgres.sample is not None and stream.name in postgres.sample.latency
    }
    slowest = max(measured, key=lambda name: measured[name].event[1], default=None)
    latency = None if slowest is None else measured[slowest]
    note = ""
    if latency is not None:
        append = f" · from broker {units.duration(latency.append[1])}" if latency.append else ""
        whose = f"{slowest}, " if len(streams) > 1 else ""
        note = f"{whose}p99, p50 {units.duration(latency.event[0])}{append}"
    metric(
        "latency",
        "Event to row",
        postgres.figure(lambda _: latency.event[1] if latency else None),
        units.duration,
        note=note,
        points=_spark(server, f"latency/{slowest}/event/p99") if slowest else None,
    )


def _furthest_behind(server: Serving, streams: Sequence[Stream]) -> None:
    """The group that is furthest behind in any topic of these streams."""
    topics = {topic for stream in streams for topic in stream.topic_names}
    behind: dict[str, tuple[LagTime, int]] = {}
    for name, lag in server.recorder.groups.items():
        own = [part for (topic, _), part in lag.partitions.items() if topic in topics]
        times = [part.time for part in own if part.time is not None]
        if times:
            latest = max(times, key=lambda time: time.seconds)
            behind[name] = latest, sum(part.offsets for part in own)
    worst = max(behind, key=lambda name: behind[name][0].seconds, default=None)
    lag_time, offsets = behind[worst] if worst is not None else (None, None)
    metric(
        "lag",
        "Furthest behind",
        server.poller.reading("kafka").figure(lambda _: lag_time.seconds if lag_time else None),
        _lag_form(lag_time),
        note=f"{worst} · {units.counted(offsets or 0, 'offset')}" if worst else "",
        points=_spark(server, f"seconds/{worst}") if worst else None,
    )


def _lag_form(lag: LagTime | None) -> Callable[[float | None], str]:
    at_least = lag is not None and not lag.exact
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


def _letters_note(postgres: Reading[PostgresSample], topic: str | None) -> str:
    if postgres.sample is None:
        return ""
    codes = postgres.sample.codes(topic)
    if not codes:
        return "0 in all · none so far"
    return f"{units.count(codes.total())} in all · most {codes.most_common(1)[0][0]}"


@st.fragment(run_every=1)
def _throughput(streams: Sequence[Stream], span: float) -> None:
    """Records arriving per topic. No I/O."""
    server = serving()
    used = {topic for stream in streams for topic in used_topics(stream)}
    names = {topic: f"appended/{topic}" for topic in server.topics if topic in used}
    series = _recent(server, names, span)
    with card("throughput", "Throughput by topic"):
        st.caption("Offsets appended per second; transaction markers of derived topics included.")
        if series:
            charts.lines("throughput", series, span, unit="offsets/s", area=True, height=260)
        else:
            show(empty("Nothing measured yet", "The first points appear within a few seconds."))


def _recent(server: Serving, names: dict[str, str], span: float) -> dict[str, Points]:
    """Series by title, from their names; empty where none has a point."""
    now, most = time.time(), points_for(len(names))
    series = {title: server.store.recent(name, now, span, most) for title, name in names.items()}
    return series if any(points.times for points in series.values()) else {}


@st.fragment(run_every=1)
def _lag_and_latency(streams: Sequence[Stream], span: float) -> None:
    """Lag per group and partition, latency to the row. No I/O."""
    server = serving()
    left, right = st.columns(2)
    with left, card("lag", "Lag", stretch=True):
        with st.container(horizontal=True):
            unit = choice("Lag in", ["seconds", "offsets"], "lag_unit", "seconds")
            group = st.selectbox(
                "Of",
                ["all groups", *server.recorder.groups],
                key="lag_group",
                label_visibility="collapsed",
                width=240,
            )
        if len(server.streams) > 1:
            st.caption("Of the groups over all streams; each group reads them all.")
        series = _recent(server, _lag_names(server, unit, group), span)
        if series:
            form = ".2~f" if unit == "seconds" else "~s"
            charts.lines("lag", series, span, unit=unit, height=230, form=form)
        else:
            show(empty("No lag measured", "A group appears once its worker has committed."))
    with right, card("latency", "Latency to the row", stretch=True):
        st.caption("Of up to 5,000 rows loaded in the last 3 s; events of the last day.")
        series = _recent(server, _latency_names(streams), span)
        if series:
            charts.lines("latency", series, span, unit="seconds", height=230, form=".2~f")
        else:
            named = "" if len(streams) > 1 else f"--stream {streams[0].name} "
            show(empty("No row was loaded lately", f"Try: streamflow produce {named}--count 1000"))


def _latency_names(streams: Sequence[Stream]) -> dict[str, str]:
    """The series to show, by their titles: of several streams, one of each."""
    if len(streams) > 1:
        return {
            f"{stream.name}, event time, p99": f"latency/{stream.name}/event/p99"
            for stream in streams
        }
    return {
        f"{title}, {percentile}": f"latency/{streams[0].name}/{name}/{percentile}"
        for title, name in (("event time", "event"), ("broker time", "append"))
        for percentile in ("p99", "p50")
    }


def _lag_names(server: Serving, unit: str, chosen: str) -> dict[str, str]:
    """The series to show, by their titles: of every group, or of one in more detail."""
    kind = "lag" if unit == "offsets" else "seconds"
    groups = server.recorder.groups
    if chosen not in groups:
        return {name: f"{kind}/{name}" for name, lag in groups.items() if lag.partitions}
    if kind == "seconds":
        return {chosen: f"seconds/{chosen}"}
    prefix = f"lag/{chosen}/"
    return {name.removeprefix(prefix): name for name in server.store.names(prefix)}
