"""Pipeline: the flow with live rates and health, topics against their specification, configuration."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import streamlit as st
from pydantic import SecretStr

from streamflow import units
from streamflow.kafka.ownership import Drift
from streamflow.kafka.topics import declared_topics, drifts, unmanaged_topics
from streamflow.lag.history import GroupLag
from streamflow.lag.verdicts import LagVerdict
from streamflow.stream import Stream
from streamlit_app.measure.poller import PollJob
from streamlit_app.measure.workers import WorkerState
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import card, heading, show, show_error, stamp
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
from streamlit_app.ui.stream_control import stream_control, summary, used_topics

_SIZE: Final = (1190, 392)
_COLUMNS: Final = (4, 258, 512, 766, 1020)
_BADNESS: Final = (Tone.GOOD, Tone.IDLE, Tone.WARN, Tone.BAD)
_FINE: Final = (LagVerdict.OK, LagVerdict.UNKNOWN)


def render() -> None:
    server = serving()
    stream = stream_control(heading("Pipeline"), server.streams) or server.streams[0]
    if len(server.streams) > 1:
        show(summary(stream, server.streams))
    for failed in server.streams.failed:
        show(banner(Tone.BAD, failed.name or failed.path, f"Does not start: {failed.why}"))
    with card("flow"):
        _flow(stream)
    _topics()
    with card("configuration", "Configuration"):
        st.caption("As this server reads it. Of secrets, only that they are set.")
        changed = _configuration(server, changed=True)
        show(
            changed
            or empty("All settings have their defaults", "docs/settings.md lists what can be set.")
        )
        with st.expander("All settings"):
            show(_configuration(server, changed=False) or soft("none"))


@st.fragment(run_every=1)
def _flow(stream: Stream) -> None:
    """The picture. No I/O."""
    server = serving()
    now = time.time()
    flow = _Flow(server, stream, now)
    draw(svg(flow.boxes(), flow.edges(), *_SIZE, f"The flow of {stream.name}"), "flow")
    kafka = server.poller.reading("kafka")
    legend = "rounded: worker · square: topic or table · moving line: records flow now · "
    show(Html(f'<span class="sf sf-stamp">{legend}{stamp(now, kafka.measured_at)}</span>'))


class _Flow:
    """Boxes and edges of a stream's picture at one moment."""

    def __init__(self, server: Serving, stream: Stream, now: float) -> None:
        self._server = server
        self._stream = stream
        self._kafka = server.poller.reading("kafka")
        self._postgres = server.poller.reading("postgres")
        self._is_kafka_up = self._kafka.is_current(now)
        self._is_postgres_up = self._postgres.is_current(now)
        self._workers: dict[str, WorkerState] = server.poller.reading("workers").current(now) or {}

    def boxes(self) -> dict[str, Box]:
        stream = self._stream
        boxes = {
            "events": self._topic(stream.topic, _COLUMNS[0], 163),
            "validator": self._worker("validator", _COLUMNS[1], 304),
            "letters": self._topic(stream.dead_letter_topic, _COLUMNS[2], 304),
            "loader": self._worker("loader", _COLUMNS[3], 163),
            "postgres": self._database(_COLUMNS[4], 163),
        }
        if stream.counted:
            boxes["analytics"] = self._worker("analytics", _COLUMNS[1], 22)
            boxes["counts"] = self._topic(stream.analytics_topic, _COLUMNS[2], 22)
        if stream.notify is not None:
            boxes["notifications"] = self._topic(stream.notifications_topic, _COLUMNS[2], 210)
        if self._has_bridge():
            box = self._worker("bridge", _COLUMNS[3], 304)
            state, lag = box.lines
            boxes["bridge"] = replace(box, lines=(f"{state} · reads all topics", lag))
            boxes["clients"] = self._clients(_COLUMNS[4], 304)
        return boxes

    def edges(self) -> list[Edge]:
        stream = self._stream
        loaded = {topic: self._rate(f"loaded/{topic}") for topic in used_topics(stream)}
        known = [rate for rate in loaded.values() if rate is not None]
        derived = [("validator", "letters", stream.dead_letter_topic, 0.42, 0.35)]
        if stream.counted:
            derived.append(("analytics", "counts", stream.analytics_topic, 0.5, 0.4))
        if stream.notify is not None:
            derived.append(("validator", "notifications", stream.notifications_topic, 0.4, 0.45))
        readers = ("validator",) if not stream.counted else ("validator", "analytics")
        edges = [
            *(self._edge("events", name, self._rate_in(name), name) for name in readers),
            self._edge("events", "loader", loaded[stream.topic], "loader"),
            self._edge("loader", "postgres", sum(known) if known else None),
        ]
        for worker, box, topic, at_worker, at_loader in derived:
            edges += [
                self._edge(worker, box, self._rate_out(worker, topic), at=at_worker),
                self._edge(box, "loader", loaded[topic], at=at_loader),
            ]
        if self._has_bridge():
            bridge = self._workers.get("bridge")
            rate = bridge.rate_in if bridge and bridge.clients else 0.0
            edges.append(self._edge("bridge", "clients", rate, "bridge"))
        return edges

    def _topic(self, name: str, x: int, y: int) -> Box:
        sample = self._kafka.sample
        tone = Tone.GOOD if self._is_kafka_up else Tone.BAD
        if sample is not None and name in sample.missing:
            lines = ("does not exist", "streamflow topics --apply")
            return Box(name, "topic", x, y, Tone.BAD, lines)
        rate = self._rate(f"appended/{name}") if self._is_kafka_up else None
        ends = None if sample is None else sample.end_sum(name)
        lines = (f"{units.rate(rate)} appended", f"{units.short_count(ends)} offsets")
        return Box(name, "topic", x, y, tone, lines)

    def _worker(self, name: str, x: int, y: int) -> Box:
        state, group = self._workers.get(name), self._group(name)
        lag = "never committed"
        if group is not None and group.offsets is not None:
            lag = f"lag {units.short_count(group.offsets)} · {group.verdict}"
        if state is None or not state.answers:
            tone = Tone.BAD if group and group.offsets else Tone.IDLE
            return Box(name, "worker", x, y, tone, ("does not answer", lag))
        tone = Tone.GOOD if state.ready else Tone.WARN
        if group is not None and VERDICT_TONES[group.verdict] is not Tone.GOOD:
            tone = max(tone, VERDICT_TONES[group.verdict], key=_BADNESS.index)
        return Box(name, "worker", x, y, tone, ("ready" if state.ready else "not ready", lag))

    def _database(self, x: int, y: int) -> Box:
        sample, stream = self._postgres.sample, self._stream
        rows = None if sample is None else sample.stored(stream.topic)
        latency = sample.latency.get(stream.name) if sample is not None else None
        p99 = (
            f"event to row p99 {units.duration(latency.event[1])}" if latency else "no row just now"
        )
        tone = Tone.GOOD if self._is_postgres_up else Tone.BAD
        lines = (f"{units.short_count(rows)} {stream.event_table}", p99)
        return Box("PostgreSQL", "store", x, y, tone, lines)

    def _clients(self, x: int, y: int) -> Box:
        bridge = self._workers.get("bridge")
        connected, missed = (bridge.clients, bridge.missed) if bridge else (None, None)
        tone = Tone.GOOD if connected else Tone.IDLE
        lines = (
            f"{units.count(connected)} connected",
            f"{units.count(missed)} {units.either(missed or 0, 'record', 'records')} missed",
        )
        return Box("Socket.IO", "store", x, y, tone, lines)

    def _has_bridge(self) -> bool:
        state, group = self._workers.get("bridge"), self._group("bridge")
        return (state is not None and state.answers) or bool(group and group.partitions)

    def _edge(
        self, start: str, end: str, rate: float | None, worker: str = "", at: float = 0.5
    ) -> Edge:
        """With the verdict on the group of `worker`, if one is given."""
        group = self._group(worker) if worker else None
        tone = Tone.IDLE if group is None else VERDICT_TONES[group.verdict]
        trouble = f" · {group.verdict}" if group and group.verdict not in _FINE else ""
        return Edge(start, end, units.rate(rate) + trouble, tone, bool(rate), at)

    def _group(self, worker: str) -> GroupLag | None:
        return self._server.recorder.groups.get(self._server.settings.group(worker))

    def _rate(self, name: str) -> float | None:
        return self._server.recorder.rate(name)

    def _rate_in(self, worker: str) -> float | None:
        """Unknown for one of several streams: workers count what they read of all together."""
        if len(self._server.streams) > 1:
            return None
        return self._workers[worker].rate_in if worker in self._workers else None

    def _rate_out(self, worker: str, topic: str) -> float | None:
        state = self._workers.get(worker)
        return state.rate_out.get(topic, 0.0) if state is not None and state.answers else None


def _drift_job(server: Serving) -> PollJob[list[Drift]]:
    specs = declared_topics(server.settings, server.streams)
    return PollJob("drift", "Kafka", 10.0, partial(drifts, server.settings, specs))


@st.fragment(run_every=2)
def _topics() -> None:
    """Topics against their specification, and their partitions. No I/O."""
    server = serving()
    reading = server.demand.latest(_drift_job(server))
    sample = server.poller.reading("kafka").sample
    left, right = st.columns([3, 2])
    with left, card("topics", "Topics", stretch=True):
        show_error(reading)
        show(_specification(server, reading.sample))
    with right, card("partitions", "Partitions", stretch=True):
        if sample is None or not sample.bounds:
            show(empty("No partition is known", "They appear once Kafka answers."))
            return
        rows = (
            (code(f"{topic}[{number}]"), units.count(first), units.count(end))
            for (topic, number), (first, end) in sorted(sample.bounds.items())
        )
        show(table(("partition", "first offset", "end"), rows, (1, 2)))


def _specification(server: Serving, found: Sequence[Drift] | None) -> Html:
    rows = [
        (
            code(spec.name),
            str(spec.partitions),
            f"{int(spec.config['retention.ms']) / 3_600_000:g} h",
            units.size(float(spec.config["max.message.bytes"])),
            spec.config["message.timestamp.type"],
            _drift_mark(spec.name, found),
        )
        for spec in declared_topics(server.settings, server.streams)
    ]
    rows += [
        (code(name), "—", "—", "—", "—", mark(Tone.IDLE, "unmanaged: read as it is"))
        for name in unmanaged_topics(server.streams)
    ]
    columns = ("topic", "partitions", "retention", "largest record", "time stamps", "on the broker")
    return table(columns, rows, (1, 2, 3))


def _drift_mark(topic: str, found: Sequence[Drift] | None) -> Html:
    if found is None:
        return mark(Tone.IDLE, "asking")
    own = [drift for drift in found if drift.topic == topic]
    if not own:
        return mark(Tone.GOOD, "as declared")
    differences = (
        f"{drift.what}: {drift.found or 'missing'}, not {drift.declared}" for drift in own
    )
    return mark(Tone.WARN, "; ".join(differences), "streamflow topics --apply")


def _configuration(server: Serving, *, changed: bool) -> Html | None:
    """The settings that were changed, or all others."""
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
