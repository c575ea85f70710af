"""The page of dead letters: which, why, and replaying them with the Dagster job."""

from functools import partial
from typing import Final

import pandas as pd
import streamlit as st

from streamflow import units
from streamflow.dead_letters.select import DeadLetter, Status
from streamflow.dead_letters.selection_parser import parse_id
from streamflow.errors import ErrorCode, UsageError
from streamflow.records import Origin
from streamflow.registry import hasher_for
from streamlit_app.measure.demand import Question
from streamlit_app.measure.readings import Reading
from streamlit_app.pages.event_trace import render_trace
from streamlit_app.pages.replay_form import render_history, render_replay_form
from streamlit_app.records.masking import as_text
from streamlit_app.records.pinned import DeadLetterFilter, PinnedList
from streamlit_app.records.queries import (
    MOST_COUNTED,
    MOST_SHOWN,
    DeadLetterCount,
    dead_letter,
    dead_letters_over_time,
)
from streamlit_app.serving import Serving, serving
from streamlit_app.ui import charts
from streamlit_app.ui.components import show, span_control, trouble
from streamlit_app.ui.markup import Html, Tone, banner, code, empty, mark, soft, table

_PINNED: Final = "pinned_list"
_FIRST_TICKED: Final = "first_ticked"
_VALUE_SHOWN: Final = 160  # characters


def render() -> None:
    """The page."""
    server = serving()
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.title("Dead letters", anchor=False)
    with right, st.container(horizontal=True, horizontal_alignment="right"):
        span = span_control("letter_span", "1 h")
    server.demand.wait(_over_time_question(server, span), 1.5)
    _over_time(span)
    with st.container(border=True, key="card-controls"):
        wanted = _filter(span)
    with st.container(border=True, key="card-letters"):
        pinned = _pinned(server, wanted)
        if pinned is not None:
            _list(server, pinned)
    left, right = st.columns([3, 2])
    with left, st.container(border=True, key="card-letter", height="stretch"):
        _first_ticked(server, pinned)
    with right, st.container(border=True, key="card-replay", height="stretch"):
        render_replay_form(server, pinned)
    with st.container(border=True, key="card-history"):
        st.subheader("Who replayed what", anchor=False)
        render_history()


def _filter(span: float) -> DeadLetterFilter:
    first, second, third, fourth = st.columns([2, 1, 1.4, 1])
    codes = first.multiselect(
        "Codes",
        [str(each) for each in ErrorCode],
        key="codes",
        placeholder="all",
        bind="query-params",
    )
    status = second.selectbox(
        "Status", ["any", *map(str, Status)], index=1, key="status", bind="query-params"
    )
    text = third.text_input(
        "Text in value or message", key="letter_text", placeholder="contains", bind="query-params"
    )
    everything = fourth.selectbox("From", ["the time above", "ever"], index=1, key="letter_since")
    return DeadLetterFilter(
        codes=tuple(codes),
        status=None if status == "any" else status,
        span=span if everything == "the time above" else None,
        text=text or "",
    )


def _pinned(server: Serving, wanted: DeadLetterFilter) -> PinnedList | None:
    """This session's list; a new one if the filter has changed."""
    pinned: PinnedList | None = st.session_state.get(_PINNED)
    if pinned is None or pinned.filter != wanted:
        try:
            pinned = PinnedList.make(wanted, hasher_for(server.settings, server.streams))
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
    hasher = hasher_for(server.settings, server.streams)
    st.session_state[_PINNED] = PinnedList.make(before.filter, hasher, before.ticked)


def _over_time_question(server: Serving, span: float) -> Question[tuple[DeadLetterCount, ...]]:
    ask = partial(dead_letters_over_time, server.settings, span)
    return Question(("letters over time", span), "PostgreSQL", 2.0, ask)


@st.fragment(run_every=2)
def _over_time(span: float) -> None:
    """By code and time. No I/O: fetched in the background."""
    server = serving()
    reading: Reading[tuple[DeadLetterCount, ...]] = server.demand.look(
        _over_time_question(server, span)
    )
    postgres = server.poller.reading("postgres")
    left, right = st.columns([3, 1])
    with left, st.container(border=True, key="card-over-time", height="stretch"):
        st.subheader("By code over time", anchor=False)
        if not reading.sample:
            if reading.error:
                show(banner(Tone.BAD, "The database does not answer", reading.error))
            else:
                show(empty("No dead letters in this period", "Every record met its contract."))
        else:
            step = pd.Timedelta(seconds=max(1.0, span / 60))
            rows = pd.DataFrame(
                [
                    {
                        "time": each.start,
                        "until": each.start + step,
                        "code": each.code,
                        "value": each.number,
                    }
                    for each in reading.sample
                ]
            )
            charts.bars(
                "letters-over-time",
                rows,
                span,
                unit="dead letters",
                colour="code",
                order=sorted({each.code for each in reading.sample}),
                height=250,
            )
    with right, st.container(border=True, key="card-statuses", height="stretch"):
        st.subheader("By status", anchor=False)
        sample = postgres.sample
        counts = {} if sample is None else sample.statuses
        if not counts:
            show(empty("None", "No record was rejected so far."))
        else:
            show(
                table(
                    ("status", "dead letters"),
                    (
                        (
                            _status(name),
                            Html(f'<span data-status="{name}">{units.count(number)}</span>'),
                        )
                        for name, number in sorted(counts.items())
                    ),
                    (1,),
                )
            )


def _status(name: str) -> Html:
    tones = {"open": Tone.WARN, "replayed": Tone.GOOD, "quarantined": Tone.BAD}
    return mark(tones.get(name, Tone.IDLE), name)


def _list(server: Serving, pinned: PinnedList) -> None:
    """The table of dead letters, and what is ticked in it."""
    missing = pinned.load(server.settings, server.demand, 2.0)
    if missing is not None:
        trouble(missing, missing.measured_at or 0.0, "PostgreSQL")
        _await(pinned)
    content = pinned.content
    if content is None:
        return
    total, shown = sum(content.counts.values()), len(pinned.rows)
    more = "More than " if total > MOST_COUNTED else ""
    with st.container(horizontal=True, vertical_alignment="center"):
        most = f", the newest {units.count(shown)} shown" if shown < total else ""
        many = "dead letter" if total == 1 else "dead letters"
        number = units.count(min(total, MOST_COUNTED))
        st.subheader(f"{more}{number} {many}{most}", anchor=False, width="content")
        # Not at the right end: there the table shows its own buttons.
        st.button(
            "Refresh",
            icon=":material/refresh:",
            type="tertiary",
            on_click=_refresh,
            args=(server,),
        )
        since = pinned.selection.since
        begin = "" if since is None else f"from {units.moment(since)}, "
        show(soft(f"{begin}as of {units.moment(content.as_of)}"))
    if not shown:
        show(
            empty(
                "No dead letter matches",
                "Widen the filter, or make some: streamflow produce --count 100 "
                "--invalid-ratio 0.1",
            )
        )
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
            "code": st.column_config.TextColumn("code", width=140),
            "record": st.column_config.TextColumn("record", width=130),
            "attempt": st.column_config.NumberColumn("attempt", width=60),
            "status": st.column_config.TextColumn("status", width=80),
            "message": st.column_config.TextColumn("message", width="medium"),
            "value": st.column_config.TextColumn("value", width="large"),
        },
    )
    pinned.tick(event["selection"]["rows"])


@st.fragment(run_every=1)
def _await(pinned: PinnedList) -> None:
    """Reruns the page once the list is loaded. No I/O: it is fetched in the background."""
    server = serving()
    if server.demand.look(pinned.question(server.settings)).sample is not None:
        st.rerun()


def _frame(pinned: PinnedList) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "failed": [letter.failed_at for letter in pinned.rows],
            "code": [letter.error_code for letter in pinned.rows],
            "record": [str(letter.id) for letter in pinned.rows],
            "attempt": [letter.attempt for letter in pinned.rows],
            "status": [letter.status for letter in pinned.rows],
            "message": [letter.message for letter in pinned.rows],
            "value": [as_text(letter.start or b"")[0][:_VALUE_SHOWN] for letter in pinned.rows],
        }
    )


def _first_ticked(server: Serving, pinned: PinnedList | None) -> None:
    """The first of the ticked dead letters in full."""
    if pinned is None or not pinned.ticked:
        show(empty("No dead letter selected", "Tick rows to read and replay them."))
        return
    id_ = parse_id(pinned.ticked[0])
    reading = server.demand.wait(_dead_letter_question(server, id_), 2.0)
    st.subheader(str(id_), anchor=False)
    letter = reading.sample
    if letter is None:
        why = reading.error or "it no longer exists, or is still loading"
        show(banner(Tone.WARN, "The dead letter cannot be shown", why))
        return
    redacted = " · addresses replaced by their hashes" if letter.redacted else ""
    show(
        Html(
            f'<div class="sf">{code(letter.error_code)} {soft(letter.message)}<br>'
            f"{soft(f'{letter.exception} in the {letter.stage}, attempt {letter.attempt}{redacted}')}"
            "</div>"
        )
    )
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
        show(
            table(
                ("name", "value"),
                ((name, "" if held is None else as_text(held)[0]) for name, held in letter.headers),
            )
        )
    render_trace(server, letter.origin)


def _dead_letter_question(server: Serving, id_: Origin) -> Question[DeadLetter | None]:
    ask = partial(dead_letter, server.settings, id_)
    return Question(("dead letter", id_), "PostgreSQL", 2.0, ask)


@st.fragment(run_every=2)
def _status_now(id_: Origin) -> None:
    """The status, the only part that changes. No I/O: it is fetched in the background."""
    server = serving()
    letter = server.demand.look(_dead_letter_question(server, id_)).sample
    if letter is not None:
        show(Html(f'<div class="sf">{_status(letter.status)} {soft("now")}</div>'))
