"""Pipeline: the flow with live rates and health, topics against their specification, configuration."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import streamlit as st
from pydantic import SecretStr

from streamflow import units
from streamflow.kafka.ownership import Drift
from streamflow.kafka.topics import declared_topics, drifts, unmanaged_topics
from streamflow.lag.verdicts import LagVerdict
from streamflow.stream import Stream
from streamlit_app.measure.demand import Question
from streamlit_app.measure.readings import Reading
from streamlit_app.measure.workers import WorkerState
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import show, stamp
from streamlit_app.ui.markup import (
    VERDICT_TONES,
    Html,
    Tone,
    banner,
    code,
    empty,
    mark,
    soft,
    table,
)
from streamlit_app.ui.picture import Box, Edge, draw, svg

_SIZE: Final = (1190, 392)
_COLUMNS: Final = (4, 258, 512, 766, 1020)


def render() -> None:
    """The page."""
    server = serving()
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.title("Pipeline", anchor=False)
    stream = server.streams[0]
    if len(server.streams) > 1:
        name = right.selectbox(
            "Stream", [each.name for each in server.streams], key="stream", bind="query-params"
        )
        stream = next(each for each in server.streams if each.name == name)
    with st.container(border=True, key="card-flow"):
        _flow(stream.name)
    _topics()
    with st.container(border=True, key="card-configuration"):
        st.subheader("Configuration", anchor=False)
        st.caption("As this server reads it. Of secrets, only that they are set.")
        changed = _configuration(server, changed=True)
        show(changed or empty("Everything is as it comes", "See the README for what can be set."))
        with st.expander("All settings"):
            show(_configuration(server, changed=False) or soft("none"))


@st.fragment(run_every=1)
def _flow(name: str) -> None:
    """The picture. No I/O."""
    server = serving()
    stream = next(each for each in server.streams if each.name == name)
    now = time.time()
    boxes = _boxes(server, stream, now)
    picture = svg(boxes, _edges(server, stream, boxes, now), *_SIZE, f"The flow of {stream.name}")
    draw(picture, "flow")
    kafka = server.poller.reading("kafka")
    legend = "rounded: worker · square: topic or table · moving line: records flow now · "
    show(Html(f'<span class="sf sf-stamp">{legend}{stamp(int(now), kafka.measured_at)}</span>'))


def _boxes(server: Serving, stream: Stream, now: float) -> dict[str, Box]:
    kafka, postgres = server.poller.reading("kafka"), server.poller.reading("postgres")
    workers: Reading[dict[str, WorkerState]] = server.poller.reading("workers")
    states = workers.sample or {} if workers.is_current(now) else {}

    def topic(name: str, x: int, y: int) -> Box:
        tone = Tone.GOOD if kafka.is_current(now) else Tone.BAD
        if kafka.sample is not None and name in kafka.sample.missing:
            return Box(
                name, "topic", x, y, Tone.BAD, ("does not exist", "streamflow topics --apply")
            )
        rate = server.recorder.rate(f"appended/{name}") if tone is Tone.GOOD else None
        ends = None if kafka.sample is None else kafka.sample.end_sum(name)
        return Box(
            name,
            "topic",
            x,
            y,
            tone,
            (f"{units.rate(rate)} appended", f"{units.short_count(ends)} offsets"),
        )

    def worker(name: str, x: int, y: int) -> Box:
        state = states.get(name)
        group = server.recorder.groups.get(server.settings.group(name))
        lag = (
            "never committed"
            if group is None or group.records is None
            else (f"lag {units.short_count(group.records)} · {group.verdict}")
        )
        if state is None or not state.answers:
            return Box(
                name,
                "worker",
                x,
                y,
                Tone.BAD if group and group.records else Tone.IDLE,
                ("does not answer", lag),
            )
        tone = Tone.GOOD if state.ready else Tone.WARN
        if group is not None and VERDICT_TONES[group.verdict] is not Tone.GOOD:
            tone = max(tone, VERDICT_TONES[group.verdict], key=_badness)
        ready = "ready" if state.ready else "not ready"
        return Box(name, "worker", x, y, tone, (ready, lag))

    rows = None if postgres.sample is None else postgres.sample.stored(stream.topic)
    store = Box(
        "PostgreSQL",
        "store",
        _COLUMNS[4],
        163,
        Tone.GOOD if postgres.is_current(now) else Tone.BAD,
        (f"{units.short_count(rows)} {stream.table}", _latency(server, stream)),
    )
    bridge = server.recorder.groups.get(server.settings.group("bridge"))
    found = {
        "events": topic(stream.topic, _COLUMNS[0], 163),
        "analytics": worker("analytics", _COLUMNS[1], 22),
        "validator": worker("validator", _COLUMNS[1], 304),
        "counts": topic(stream.analytics_topic, _COLUMNS[2], 22),
        "notifications": topic(stream.notifications_topic, _COLUMNS[2], 210),
        "letters": topic(stream.dead_letter_topic, _COLUMNS[2], 304),
        "loader": worker("loader", _COLUMNS[3], 163),
        "postgres": store,
    }
    bridge_state = states.get("bridge")
    if (bridge_state is not None and bridge_state.answers) or (bridge and bridge.partitions):
        box = worker("bridge", _COLUMNS[3], 304)
        state, lag = box.lines
        found["bridge"] = replace(box, lines=(f"{state} · reads all topics", lag))
        found["clients"] = _clients(bridge_state)
    return found


def _clients(bridge: WorkerState | None) -> Box:
    """Who listens to the bridge."""
    connected = None if bridge is None else bridge.clients
    missed = None if bridge is None else bridge.missed
    return Box(
        "Socket.IO",
        "store",
        _COLUMNS[4],
        304,
        Tone.GOOD if connected else Tone.IDLE,
        (f"{units.count(connected)} connected", f"{units.count(missed)} records missed"),
    )


def _badness(tone: Tone) -> int:
    return (Tone.GOOD, Tone.IDLE, Tone.WARN, Tone.BAD).index(tone)


def _latency(server: Serving, stream: Stream) -> str:
    sample = server.poller.reading("postgres").sample
    found = sample.latency.get(stream.name) if sample is not None else None
    return f"event to row p99 {units.duration(found.event[1])}" if found else "no row just now"


def _edges(server: Serving, stream: Stream, boxes: Mapping[str, Box], now: float) -> list[Edge]:
    workers: Reading[dict[str, WorkerState]] = server.poller.reading("workers")
    states = workers.sample or {} if workers.is_current(now) else {}

    def edge(start: str, end: str, rate: float | None, worker: str = "", at: float = 0.5) -> Edge:
        group = server.recorder.groups.get(server.settings.group(worker)) if worker else None
        tone = Tone.IDLE if group is None else VERDICT_TONES[group.verdict]
        trouble = f" · {group.verdict}" if group and group.verdict not in _FINE else ""
        return Edge(start, end, units.rate(rate) + trouble, tone, bool(rate), at)

    def rate_in(name: str) -> float | None:
        return states[name].rate_in if name in states else None

    def rate_out(name: str, to: str) -> float | None:
        return (
            states[name].rate_out.get(to, 0.0) if name in states and states[name].answers else None
        )

    loaded = [server.recorder.rate(f"loaded/{topic}") for topic in stream.topic_names]
    known = [rate for rate in loaded if rate is not None]
    to_clients = rate_in("bridge") if states.get("bridge") and states["bridge"].clients else 0.0
    found = [
        edge("events", "analytics", rate_in("analytics"), "analytics"),
        edge("events", "validator", rate_in("validator"), "validator"),
        edge("events", "loader", server.recorder.rate(f"loaded/{stream.topic}"), "loader", 0.5),
        edge("analytics", "counts", rate_out("analytics", stream.analytics_topic)),
        edge(
            "validator", "notifications", rate_out("validator", stream.notifications_topic), at=0.4
        ),
        edge("validator", "letters", rate_out("validator", stream.dead_letter_topic), at=0.42),
        edge("counts", "loader", server.recorder.rate(f"loaded/{stream.analytics_topic}"), at=0.4),
        edge(
            "notifications",
            "loader",
            server.recorder.rate(f"loaded/{stream.notifications_topic}"),
            at=0.45,
        ),
        edge(
            "letters", "loader", server.recorder.rate(f"loaded/{stream.dead_letter_topic}"), at=0.35
        ),
        edge("loader", "postgres", sum(known) if known else None),
        edge("bridge", "clients", to_clients, "bridge"),
    ]
    return [each for each in found if each.start in boxes]


_FINE: Final = (LagVerdict.OK, LagVerdict.UNKNOWN)


def _drift_question(server: Serving) -> Question[list[Drift]]:
    specs = declared_topics(server.settings, server.streams)
    return Question("drift", "Kafka", 10.0, partial(drifts, server.settings, specs))


@st.fragment(run_every=2)
def _topics() -> None:
    """Topics against their specification, and their partitions. No I/O."""
    server = serving()
    reading: Reading[list[Drift]] = server.demand.look(_drift_question(server))
    sample = server.poller.reading("kafka").sample
    left, right = st.columns([3, 2])
    with left, st.container(border=True, key="card-topics", height="stretch"):
        st.subheader("Topics", anchor=False)
        if reading.error is not None:
            show(banner(Tone.BAD, "Kafka does not answer", reading.error))
        show(_specification(server, reading.sample))
    with right, st.container(border=True, key="card-partitions", height="stretch"):
        st.subheader("Partitions", anchor=False)
        if sample is None or not sample.bounds:
            show(empty("No partition is known", "They appear once Kafka answers."))
            return
        show(
            table(
                ("partition", "first offset", "end"),
                (
                    (code(f"{topic}[{number}]"), units.count(first), units.count(end))
                    for (topic, number), (first, end) in sorted(sample.bounds.items())
                ),
                (1, 2),
            )
        )


def _specification(server: Serving, found: Sequence[Drift] | None) -> Html:
    rows = []
    for spec in declared_topics(server.settings, server.streams):
        own = [drift for drift in found or () if drift.topic == spec.name]
        if found is None:
            state = mark(Tone.IDLE, "asking")
        elif own:
            differences = "; ".join(
                f"{d.what}: {d.found or 'missing'}, not {d.declared}" for d in own
            )
            state = mark(Tone.WARN, differences, "streamflow topics --apply")
        else:
            state = mark(Tone.GOOD, "as declared")
        hours = int(spec.config["retention.ms"]) / 3_600_000
        rows.append(
            (
                code(spec.name),
                str(spec.partitions),
                f"{hours:g} h",
                units.size(float(spec.config["max.message.bytes"])),
                spec.config["message.timestamp.type"],
                state,
            )
        )
    rows += [
        (code(name), "—", "—", "—", "—", mark(Tone.IDLE, "unmanaged: read as it is"))
        for name in unmanaged_topics(server.streams)
    ]
    return table(
        ("topic", "partitions", "retention", "largest record", "time stamps", "on the broker"),
        rows,
        (1, 2, 3),
    )


def _configuration(server: Serving, *, changed: bool) -> Html | None:
    """The settings that were changed, or all the others."""
    rows = []
    for name, field in type(server.settings).model_fields.items():
        value = getattr(server.settings, name)
        if changed != (value != field.get_default(call_default_factory=True)):
            continue
        if isinstance(value, SecretStr):
            shown = mark(Tone.GOOD, "set")
        elif value in (None, (), {}, ""):
            shown = soft("not set")
        else:
            shown = code(", ".join(map(str, value)) if isinstance(value, tuple) else str(value))
        rows.append((code(str(field.alias)), shown))
    return table(("setting", "value"), rows) if rows else None
