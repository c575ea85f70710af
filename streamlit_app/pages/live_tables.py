"""Live, the lower half: consumer groups, parts, totals by topic and dead letters by code."""

import time
from collections.abc import Mapping, Sequence

import streamlit as st

from streamflow import units
from streamflow.lag.history import WINDOW, GroupLag
from streamflow.lag.measure import LagSample
from streamflow.lag.verdicts import MEANINGS
from streamflow.stream import Stream
from streamflow.units import counted
from streamlit_app.measure.postgres import PostgresSample
from streamlit_app.measure.readings import Reading
from streamlit_app.measure.stack import PartStatus
from streamlit_app.measure.workers import WorkerState
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import card, show, show_trouble
from streamlit_app.ui.markup import (
    VERDICT_TONES,
    Html,
    Tone,
    chip,
    code,
    empty,
    mark,
    soft,
    table,
    text,
)
from streamlit_app.ui.stream_control import used_topics


@st.fragment(run_every=1)
def render_tables(streams: Sequence[Stream]) -> None:
    """Of one stream or of all. No I/O."""
    server = serving()
    now = time.time()
    postgres = server.poller.reading("postgres")
    left, right = st.columns(2)
    with left, card("groups", "Consumer groups", stretch=True):
        if not show_trouble(server.poller.reading("kafka"), now) or server.recorder.groups:
            show(_groups_table(server.recorder.groups))
    with right, card("parts", "Parts", stretch=True):
        show(_parts_table(server, now))
    left, right = st.columns([3, 2])
    with left, card("totals", "Ledger so far", stretch=True):
        st.caption(
            "Records since the topics began, as the loader counts them; `streamflow audit` "
            "proves them one by one."
        )
        if not show_trouble(postgres, now) or postgres.sample is not None:
            show(_totals_table(server, streams, postgres.sample))
    with right, card("codes", "Dead letters by code", stretch=True):
        topic = streams[0].topic if len(streams) == 1 else None
        show(_codes_table(postgres.sample, topic))


def _groups_table(groups: Mapping[str, GroupLag]) -> Html:
    rows = []
    for name, lag in groups.items():
        seconds = "—"
        if lag.time is not None:
            seconds = ("" if lag.time.exact else "over ") + units.duration(lag.time.seconds)
        verdict = chip(VERDICT_TONES[lag.verdict], lag.verdict, MEANINGS[lag.verdict])
        members = soft(f"{lag.group.members} · {lag.group.state}")
        offsets = units.count(lag.offsets)
        rows.append((code(name), verdict, offsets, seconds, _trend(lag.trend), members))
    return table(
        ("group", "verdict", "lag, offsets", "lag, time", "trend", "members"), rows, (2, 3, 4)
    )


def _trend(growth: float | None) -> Html:
    if growth is None:
        return soft(units.UNKNOWN)
    if round(growth, 1) == 0:
        return soft("steady")
    sign, words = ("▲", "grows by") if growth > 0 else ("▼", "shrinks by")
    return Html(
        f'<span title="{words} this many offsets a second, over the last {WINDOW:.0f} s">'
        f"{sign} {text(units.rate(abs(growth)))}</span>"
    )


def _totals_table(
    server: Serving, streams: Sequence[Stream], sample: PostgresSample | None
) -> Html:
    if sample is None:
        return empty("No figures yet", "They appear once the database answers.")
    used = {topic for stream in streams for topic in used_topics(stream)}
    broker: LagSample | None = server.poller.reading("kafka").sample
    rows = (
        (
            code(topic),
            Html(f'<span data-total="{topic}">{units.count(sample.records(topic))}</span>'),
            units.count(sample.stored(topic)),
            units.count(sample.rejected_from.get(topic, 0)),
            units.count(sample.duplicates.get(topic, 0)),
            units.count(sample.waiting(topic, broker.bounds)) if broker else units.UNKNOWN,
        )
        for topic in server.topics
        if topic in used
    )
    columns = ("topic", "records", "stored", "dead-lettered", "duplicates", "waiting")
    return table(columns, rows, (1, 2, 3, 4, 5))


def _codes_table(sample: PostgresSample | None, topic: str | None) -> Html:
    codes = sample.codes(topic) if sample is not None else None
    if not codes:
        return empty("No dead letters", "Every record so far was valid.")
    rows = [
        (code(name), units.count(number), units.percent(number / codes.total()))
        for name, number in sorted(codes.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    return table(("code", "dead letters", "share"), rows, (1, 2))


def _parts_table(server: Serving, now: float) -> Html:
    stack: Sequence[PartStatus] = server.poller.reading("stack").current(now) or ()
    parts = {part.name: part for part in stack if part.state != "off"}
    states: Mapping[str, WorkerState] = server.poller.reading("workers").sample or {}
    rows: list[tuple[object, ...]] = []
    for name in dict.fromkeys(["kafka", "postgres", *states, *parts]):
        worker, part = states.get(name), parts.get(name)
        restarts = str(part.restarts) if part else "—"
        if name in ("kafka", "postgres"):
            reading = server.poller.reading(name)
            why = reading.trouble(now)
            state = mark(Tone.GOOD, "up") if why is None else mark(Tone.BAD, "no answer", why)
            rows.append((reading.source, state, restarts, soft(_service_note(reading))))
        elif part is not None or (worker is not None and worker.answers):
            note = _worker_note(worker, now) or (part.detail if part else "")
            rows.append((name, _part_state(worker, part), restarts, soft(note)))
    return table(("part", "state", "restarts", "now"), rows, (2,))


def _part_state(worker: WorkerState | None, part: PartStatus | None) -> Html:
    if worker is not None and worker.answers:
        if worker.ready:
            return mark(Tone.GOOD, "ready")
        return mark(Tone.WARN, "not ready", worker.reason)
    if part is not None:
        tone = Tone.GOOD if part.state == "up" else Tone.BAD
        return mark(tone, part.state, part.detail)
    return mark(Tone.BAD, "no answer", worker.reason if worker else "")


def _service_note(reading: Reading[LagSample | PostgresSample]) -> str:
    sample = reading.sample
    if sample is None:
        return ""
    if isinstance(sample, LagSample):
        took = units.duration(reading.seconds)
        return f"{counted(sample.brokers, 'broker')} · answered in {took}"
    return f"{sample.version} · {units.size(sample.size)} · {counted(sample.connections, 'connection')}"


def _worker_note(worker: WorkerState | None, now: float) -> str:
    if worker is None or not worker.answers:
        return ""
    notes = [] if worker.ready else [worker.reason]
    if worker.rate_in is not None and worker.name != "producer":
        notes.append(f"in {units.rate(worker.rate_in)}")
    if worker.rate_out:
        notes.append(f"out {units.rate(sum(worker.rate_out.values()))}")
    if worker.latency is not None:
        notes.append(f"p99 under {units.duration(worker.latency)}")
    if worker.memory is not None:
        notes.append(units.size(worker.memory))
    if worker.started_at is not None:
        notes.append(f"up {units.duration(now - worker.started_at)}")
    return " · ".join(notes)
