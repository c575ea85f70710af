"""The page of dead letters: which, why, and replaying them with the Dagster job."""

from functools import partial
from typing import Final

import pandas as pd
import streamlit as st

from streamflow import units
from streamflow.dead_letters.select import MOST_COUNTED, DeadLetter, Status
from streamflow.dead_letters.selection_parser import parse_id
from streamflow.errors import ErrorCode, UsageError
from streamflow.records import Origin
from streamflow.stream import Stream
from streamflow.units import counted
from streamlit_app.measure.poller import PollJob
from streamlit_app.pages.event_trace import render_trace
from streamlit_app.pages.replay_form import render_history, render_replay_form
from streamlit_app.records.masking import as_text
from streamlit_app.records.pinned import DeadLetterFilter, PinnedList
from streamlit_app.records.queries import (
    MOST_SHOWN,
    DeadLetterCount,
    dead_letter,
    dead_letters_over_time,
)
from streamlit_app.serving import Serving, serving
from streamlit_app.ui import charts
from streamlit_app.ui.components import card, heading, show, show_error, show_trouble, span_control
from streamlit_app.ui.markup import (
    Html,
    Tone,
    banner,
    code,
    empty,
    line,
    mark,
    soft,
    table,
)
from streamlit_app.ui.stream_control import stream_control

_PINNED: Final = "pinned_list"
_FIRST_TICKED: Final = "first_ticked"
_VALUE_SHOWN: Final = 160  # characters


def render() -> None:
    server = serving()
    controls = heading("Dead letters")
    stream = stream_control(controls, server.streams, all_streams=True)
    with controls:
        span = span_control("letter_span", "1 h")
    # With a single stream no record can be of another one.
    stream = stream if len(server.streams) > 1 else None
    server.demand.wait(_over_time_job(server, span, stream), 1.5)
    _over_time(span, stream)
    with card("controls"):
        wanted = _filter(span, stream)
    with card("letters"):
        pinned = _pinned(server, wanted)
        if pinned is not None:
            _list(server, pinned)
    left, right = st.columns([3, 2])
    with left, card("letter", stretch=True):
        _first_ticked(server, pinned)
    with right, card("replay", "Replay", stretch=True):
        render_replay_form(server, pinned)
    with card("history", "Who replayed what"):
        render_history()


def _filter(span: float, stream: Stream | None) -> DeadLetterFilter:
    first, second, third, fourth = st.columns([2, 1, 1.4, 1])
    codes = first.multiselect(
        "Codes", list(map(str, ErrorCode)), key="codes", placeholder="all", bind="query-params"
    )
    status = second.selectbox(
        "Status", ["any", *map(str, Status)], index=1, key="status", bind="query-params"
    )
    text = third.text_input(
        "Text in value or message", key="letter_text", placeholder="contains", bind="query-params"
    )
    since = fourth.selectbox("From", ["the time above", "ever"], index=1, key="letter_since")
    return DeadLetterFilter(
        codes=tuple(codes),
        status=None if status == "any" else status,
        span=span if since == "the time above" else None,
        text=text,
        stream=stream,
    )


def _pinned(server: Serving, wanted: DeadLetterFilter) -> PinnedList | None:
    """This session's list; a new one if the filter has changed."""
    pinned: PinnedList | None = st.session_state.get(_PINNED)
    if pinned is None or pinned.filter != wanted:
        try:
            pinned = PinnedList.make(wanted, server.hasher)
        except UsageError as error:
            st.session_state.pop(_PINNED, None)
            show(banner(Tone.BAD, "This filter cannot be applied", str(error)))
            return None
        st.session_state[_PINNED] = pinned
    return pinned


def _refresh(server: Serving) -> None:
    """A button's `on_click`: applies the same filter again; what is still shown stays ticked."""
    before: PinnedList = st.session_state[_PINNED]
    if before.content is None:  # clicked twice: it is still loading
        return
    st.session_state[_PINNED] = PinnedList.make(before.filter, server.hasher, before.ticked)


def _over_time_job(
    server: Serving, span: float, stream: Stream | None
) -> PollJob[tuple[DeadLetterCount, ...]]:
    query = partial(dead_letters_over_time, server.settings, span, stream)
    key = ("letters over time", span, None if stream is None else stream.name)
    return PollJob(key, "PostgreSQL", 2.0, query)


@st.fragment(run_every=2)
def _over_time(span: float, stream: Stream | None) -> None:
    """By code and time. No I/O: fetched in the background."""
    server = serving()
    reading = server.demand.latest(_over_time_job(server, span, stream))
    left, right = st.columns([3, 1])
    with left, card("over-time", "By code over time", stretch=True):
        if reading.sample:
            _chart(reading.sample, span)
        elif not show_error(reading):
            show(empty("No dead letters in this period", "Every record met its contract."))
    with right, card("statuses", "By status", stretch=True):
        sample = server.poller.reading("postgres").sample
        topic = None if stream is None else stream.topic
        statuses = sample.statuses(topic) if sample is not None else {}
        if not statuses:
            show(empty("None", "No record was rejected so far."))
            return
        rows = (
            (_status(name), Html(f'<span data-status="{name}">{units.count(number)}</span>'))
            for name, number in sorted(statuses.items())
        )
        show(table(("status", "dead letters"), rows, (1,)))


def _chart(counts: tuple[DeadLetterCount, ...], span: float) -> None:
    rows = pd.DataFrame(counts).rename(columns={"start": "time", "number": "value"})
    rows["until"] = rows["time"] + pd.Timedelta(seconds=max(1.0, span / 60))
    charts.bars(
        "letters-over-time",
        rows,
        span,
        unit="dead letters",
        colour="code",
        order=sorted(set(rows["code"])),
        height=250,
    )


def _status(name: str) -> Html:
    tones = {"open": Tone.WARN, "replayed": Tone.GOOD, "quarantined": Tone.BAD}
    return mark(tones.get(name, Tone.IDLE), name)


def _list(server: Serving, pinned: PinnedList) -> None:
    """The table of dead letters, and what is ticked in it."""
    missing = pinned.load(server.settings, server.demand, 2.0)
    # Always there: without it the table would move, and be shown twice until the run has ended.
    with st.container():
        if missing is not None:
            show_trouble(missing, missing.measured_at or 0.0)
            _await(pinned)
    content = pinned.content
    if content is None:
        return
    total, shown = sum(content.counts.values()), len(pinned.rows)
    with st.container(horizontal=True, vertical_alignment="center"):
        more = "More than " if total > MOST_COUNTED else ""
        number = counted(min(total, MOST_COUNTED), "dead letter")
        newest = f", the newest {units.count(shown)} shown" if shown < total else ""
        st.subheader(f"{more}{number}{newest}", anchor=False, width="content")
        # Not at the right end: there the table shows its own buttons.
        icon = ":material/refresh:"
        st.button("Refresh", icon=icon, type="tertiary", on_click=_refresh, args=(server,))
        since = pinned.selection.since
        begin = "" if since is None else f"from {units.moment(since)}, "
        show(soft(f"{begin}as of {units.moment(content.as_of)}"))
    if not shown:
        hint = "Widen the filter, or make some: streamflow produce --count 100 --invalid-ratio 0.1"
        show(empty("No dead letter matches", hint))
        return
    key = f"letters-{pinned.version}"
    if key not in st.session_state:  # first shown, or shown again after leaving the page
        st.session_state[_FIRST_TICKED] = pinned.positions()
    event = st.dataframe(
        _frame(pinned),
        key=key,
        hide_index=True,
        height=300,
        on_select="rerun",
        selection_mode="multi-row",
        selection_default={"selection": {"rows": st.session_state[_FIRST_TICKED]}},
        column_config={
            "failed": st.column_config.DatetimeColumn(
                "failed (UTC)", format="MM-DD HH:mm:ss", timezone="UTC", width=105
            ),
            "code": st.column_config.Column(width=140),
            "record": st.column_config.Column(width=130),
            "attempt": st.column_config.Column(width=60),
            "status": st.column_config.Column(width=80),
            "message": st.column_config.Column(width="medium"),
            "value": st.column_config.Column(width="large"),
        },
    )
    pinned.tick(event["selection"]["rows"])


@st.fragment(run_every=1)
def _await(pinned: PinnedList) -> None:
    """Reruns the page once the list is loaded. No I/O: fetched in the background."""
    server = serving()
    if server.demand.latest(pinned.job(server.settings)).sample is not None:
        st.rerun()


def _frame(pinned: PinnedList) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "failed": letter.failed_at,
            "code": letter.error_code,
            "record": str(letter.id),
            "attempt": letter.attempt,
            "status": letter.status,
            "message": letter.message,
            "value": as_text(letter.start or b"")[0][:_VALUE_SHOWN],
        }
        for letter in pinned.rows
    )


def _first_ticked(server: Serving, pinned: PinnedList | None) -> None:
    """Shows the first of the ticked dead letters in full."""
    if pinned is None or not pinned.ticked:
        show(empty("No dead letter selected", "Tick rows to read and replay them."))
        return
    id_ = parse_id(pinned.ticked[0])
    reading = server.demand.wait(_dead_letter_job(server, id_), 2.0)
    st.subheader(str(id_), anchor=False)
    letter = reading.sample
    if letter is None:
        why = reading.error or "it no longer exists, or is still loading"
        show(banner(Tone.WARN, "The dead letter cannot be shown", why))
        return
    redacted = " · addresses replaced by their hashes" if letter.redacted else ""
    where = f"{letter.exception} in the {letter.stage}, attempt {letter.attempt}{redacted}"
    show(line(code(letter.error_code), soft(letter.message), Html("<br>"), soft(where)))
    _status_now(id_)
    value = letter.value
    st.code(
        "(no value)" if value is None else as_text(value)[0] or "(empty)",
        language="json",
        wrap_lines=True,
        height=150,
    )
    if letter.size is not None and letter.size > MOST_SHOWN:
        st.caption(f"The first {MOST_SHOWN:,} of {letter.size:,} bytes.")
    if letter.truncated is not None:
        st.caption(f"{letter.truncated}. What was cut cannot be replayed.")
    with st.expander(f"Headers ({len(letter.headers)})"):
        rows = ((name, as_text(content or b"")[0]) for name, content in letter.headers)
        show(table(("name", "value"), rows))
    render_trace(server, letter.origin)


def _dead_letter_job(server: Serving, id_: Origin) -> PollJob[DeadLetter | None]:
    query = partial(dead_letter, server.settings, id_)
    return PollJob(("dead letter", id_), "PostgreSQL", 2.0, query)


@st.fragment(run_every=2)
def _status_now(id_: Origin) -> None:
    """The status, the only part that changes. No I/O: fetched in the background."""
    server = serving()
    letter = server.demand.latest(_dead_letter_job(server, id_)).sample
    if letter is not None:
        show(line(_status(letter.status), soft("now")))
