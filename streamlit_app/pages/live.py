"""Live: is data flowing, how fast, how late, what is broken."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from streamflow.lag.verdicts import MEANINGS
from streamlit_app.measure.postgres import PostgresSample
from streamlit_app.measure.readings import Figure, Reading
from streamlit_app.measure.recording import WINDOW, GroupLag
from streamlit_app.measure.series import Points
from streamlit_app.measure.workers import WorkerState
from streamlit_app.serving import Serving, serving
from streamlit_app.ui import charts, units
from streamlit_app.ui.components import metric, show, span_control, trouble
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
    _tables()


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
    letters = postgres.sample.letters
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


@st.fragment(run_every=1)
def _tables() -> None:
    """Groups, totals and parts. No I/O."""
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
            "Records since the topics began, as the loader accounts for them; `streamflow audit` "
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
    for name, each in groups.items():
        seconds = "—"
        if each.time is not None:
            seconds = ("" if each.time.exact else "over ") + units.duration(each.time.seconds)
        verdict = chip(VERDICT_TONES[each.verdict], str(each.verdict), MEANINGS[each.verdict])
        members = f"{each.group.members} · {each.group.state}"
        rows.append(
            (
                code(name),
                verdict,
                units.count(each.records),
                seconds,
                _trend(each.trend),
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
        f'<span title="{words} so many offsets a second, over the last {WINDOW:.0f} s">'
        f"{sign} {text(units.rate(abs(growth)))}</span>"
    )


def _totals_table(server: Serving, sample: PostgresSample | None) -> Html:
    if sample is None:
        return empty("No figures yet", "They appear once the database answers.")
    bounds = server.poller.reading("kafka").sample
    rows = []
    for topic in server.topics:
        waiting = None
        if bounds is not None:
            waiting = sum(
                max(0, end - (found.next_offset if found else first))
                for partition, (first, end) in bounds.bounds.items()
                if partition[0] == topic
                for found in [sample.loaded.get(partition)]
            )
        rows.append(
            (
                code(topic),
                Html(f'<span data-total="{topic}">{units.count(sample.records(topic))}</span>'),
                units.count(sample.stored(topic)),
                units.count(sample.refused.get(topic, 0)),
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
    if sample is None or not sample.letters:
        return empty("No dead letters", "Every record so far kept its contract.")
    total = sum(sample.letters.values())
    rows = [
        (code(name), units.count(number), units.percent(number / total))
        for name, number in sorted(sample.letters.items(), key=lambda pair: -pair[1])
    ]
    return table(("code", "letters", "share"), rows, (1, 2))


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
        found, part = states.get(name), parts.get(name)
        if part is None and (found is None or not found.answers):
            continue
        restarts = str(part.restarts) if part else "—"
        note = _worker_note(found, now) or (part.detail if part else "")
        rows.append((name, _part_state(found, part), restarts, soft(note)))
    return table(("part", "state", "restarts", "now"), rows, (2,))


def _part_state(found: WorkerState | None, part: Any) -> Html:
    if found is not None and found.answers:
        if found.ready:
            return mark(Tone.GOOD, "ready")
        return mark(Tone.WARN, "not ready", found.reason)
    if part is not None:
        tone = Tone.GOOD if part.state == "up" else Tone.BAD
        return mark(tone, part.state, part.detail)
    return mark(Tone.BAD, "no answer", found.reason if found else "")


def _service_note(name: str, reading: Reading[Any]) -> str:
    if reading.sample is None:
        return ""
    took = f"asked in {units.duration(reading.seconds)}"
    if name == "kafka":
        brokers = reading.sample.brokers
        return f"{brokers} broker{'s' if brokers != 1 else ''} · {took}"
    sample: PostgresSample = reading.sample
    return f"{sample.version} · {units.size(sample.size)} · {sample.connections} connections"


def _worker_note(found: WorkerState | None, now: float) -> str:
    if found is None or not found.answers:
        return ""
    notes = [] if found.ready else [found.reason]
    if found.rate_in is not None and found.name != "producer":
        notes.append(f"in {units.rate(found.rate_in)}")
    if found.rate_out:
        notes.append(f"out {units.rate(sum(found.rate_out.values()))}")
    if found.latency is not None:
        notes.append(f"p99 under {units.duration(found.latency[1])}")
    if found.memory is not None:
        notes.append(units.size(found.memory))
    if found.started_at is not None:
        notes.append(f"up {units.duration(now - found.started_at)}")
    return " · ".join(notes)
