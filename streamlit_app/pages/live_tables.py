"""Live, the lower half: consumer groups, parts, totals by topic and dead letters by code."""

import time
from collections.abc import Mapping
from typing import Any

import streamlit as st

from streamflow import units
from streamflow.lag.history import WINDOW, GroupLag
from streamflow.lag.measure import LagSample, offsets_behind
from streamflow.lag.verdicts import MEANINGS
from streamlit_app.measure.postgres import PostgresSample
from streamlit_app.measure.readings import Reading
from streamlit_app.measure.stack import PartStatus
from streamlit_app.measure.workers import WorkerState
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import show, trouble
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


@st.fragment(run_every=1)
def render_tables() -> None:
    """Shows them; no I/O."""
    server = serving()
    now = time.time()
    left, right = st.columns(2)
    with left, st.container(border=True, key="card-groups", height="stretch"):
        st.subheader("Consumer groups", anchor=False)
        if not trouble(server.poller.reading("kafka"), now, "Kafka") or server.recorder.groups:
            show(_groups_table(server.recorder.groups))
    with right, st.container(border=True, key="card-parts", height="stretch"):
        st.subheader("Parts", anchor=False)
        show(_parts_table(server, now))
    left, right = st.columns([3, 2])
    with left, st.container(border=True, key="card-totals", height="stretch"):
        st.subheader("Ledger so far", anchor=False)
        st.caption(
            "Records since the topics began, as the loader counts them; `streamflow audit` "
            "proves them one by one."
        )
        postgres = server.poller.reading("postgres")
        if not trouble(postgres, now, "PostgreSQL") or postgres.sample is not None:
            show(_totals_table(server, postgres.sample))
    with right, st.container(border=True, key="card-codes", height="stretch"):
        st.subheader("Dead letters by code", anchor=False)
        postgres = server.poller.reading("postgres")
        show(_codes_table(postgres.sample))


def _groups_table(groups: Mapping[str, GroupLag]) -> Html:
    rows = []
    for name, lag in groups.items():
        seconds = "—"
        if lag.time is not None:
            seconds = ("" if lag.time.exact else "over ") + units.duration(lag.time.seconds)
        verdict = chip(VERDICT_TONES[lag.verdict], str(lag.verdict), MEANINGS[lag.verdict])
        members = f"{lag.group.members} · {lag.group.state}"
        rows.append(
            (
                code(name),
                verdict,
                units.count(lag.records),
                seconds,
                _trend(lag.trend),
                soft(members),
            )
        )
    return table(
        ("group", "verdict", "lag, records", "lag, time", "trend", "members"), rows, (2, 3, 4)
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


def _totals_table(server: Serving, sample: PostgresSample | None) -> Html:
    if sample is None:
        return empty("No figures yet", "They appear once the database answers.")
    broker: LagSample | None = server.poller.reading("kafka").sample
    rows = []
    for topic in server.topics:
        waiting = None
        if broker is not None:
            waiting = sum(
                offsets_behind(sample.position(partition), bounds)
                for partition, bounds in broker.bounds.items()
                if partition[0] == topic
            )
        rows.append(
            (
                code(topic),
                Html(f'<span data-total="{topic}">{units.count(sample.records(topic))}</span>'),
                units.count(sample.stored(topic)),
                units.count(sample.rejected_from.get(topic, 0)),
                units.count(sample.duplicates.get(topic, 0)),
                units.count(waiting),
            )
        )
    return table(
        ("topic", "records", "stored", "dead-lettered", "duplicates", "waiting"),
        rows,
        (1, 2, 3, 4, 5),
    )


def _codes_table(sample: PostgresSample | None) -> Html:
    if sample is None or not sample.dead_letters:
        return empty("No dead letters", "Every record so far was valid.")
    total = sum(sample.dead_letters.values())
    rows = [
        (code(name), units.count(number), units.percent(number / total))
        for name, number in sorted(sample.dead_letters.items(), key=lambda pair: -pair[1])
    ]
    return table(("code", "dead letters", "share"), rows, (1, 2))


def _parts_table(server: Serving, now: float) -> Html:
    stack, workers = server.poller.reading("stack"), server.poller.reading("workers")
    parts = {part.name: part for part in stack.sample or ()} if stack.is_current(now) else {}
    states: Mapping[str, WorkerState] = workers.sample or {}
    rows: list[tuple[object, ...]] = []
    for name, title in (("kafka", "Kafka"), ("postgres", "PostgreSQL")):
        reading = server.poller.reading(name)
        why = reading.trouble(now)
        state = mark(Tone.GOOD, "up") if why is None else mark(Tone.BAD, "no answer", why)
        restarts = str(parts[name].restarts) if name in parts else "—"
        rows.append((title, state, restarts, soft(_service_note(name, reading))))
    for name in dict.fromkeys([*states, *parts]):
        if name in ("kafka", "postgres"):
            continue
        worker, part = states.get(name), parts.get(name)
        if part is None and (worker is None or not worker.answers):
            continue
        restarts = str(part.restarts) if part else "—"
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


def _service_note(name: str, reading: Reading[Any]) -> str:
    if reading.sample is None:
        return ""
    took = f"asked in {units.duration(reading.seconds)}"
    if name == "kafka":
        brokers = reading.sample.brokers
        return f"{brokers} broker{'s' if brokers != 1 else ''} · {took}"
    sample: PostgresSample = reading.sample
    return f"{sample.version} · {units.size(sample.size)} · {sample.connections} connections"


def _worker_note(worker: WorkerState | None, now: float) -> str:
    if worker is None or not worker.answers:
        return ""
    notes = [] if worker.ready else [worker.reason]
    if worker.rate_in is not None and worker.name != "producer":
        notes.append(f"in {units.rate(worker.rate_in)}")
    if worker.rate_out:
        notes.append(f"out {units.rate(sum(worker.rate_out.values()))}")
    if worker.latency is not None:
        notes.append(f"p99 under {units.duration(worker.latency[1])}")
    if worker.memory is not None:
        notes.append(units.size(worker.memory))
    if worker.started_at is not None:
        notes.append(f"up {units.duration(now - worker.started_at)}")
    return " · ".join(notes)
