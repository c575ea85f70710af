"""Dead letters: which, why, and sending them again by the Dagster job."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import pandas as pd
import streamlit as st

from streamflow.errors import ErrorCode
from streamlit_app import charts, units
from streamlit_app.components import show, span_control, trouble
from streamlit_app.demand import Question
from streamlit_app.errand import Errand, errand
from streamlit_app.markup import (
    Html,
    Tone,
    banner,
    chip,
    code,
    empty,
    link,
    mark,
    soft,
    table,
    text,
)
from streamlit_app.pages.way import render_way
from streamlit_app.queries import (
    MOST_LETTERS,
    MOST_SHOWN,
    Letter,
    LetterCount,
    LetterFilter,
    letters,
    letters_over_time,
    replays,
)
from streamlit_app.readings import Reading
from streamlit_app.replaying import Order, replay
from streamlit_app.serving import Serving, serving
from streamlit_app.sign_in import current_identity
from streamlit_app.sources.dagster import FINISHED, Run

_STATUSES: Final = ("open", "replaying", "replayed", "superseded", "quarantined")
_REPAIRS: Final = {
    "hash_address": "hash clear-text addresses",
    "coerce_numbers": "numbers written as text",
    "add_zone": "times without a zone: UTC",
}
_RUN: Final = "replay_run"
_PLAN, _APPLY = "plan", "apply"


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
    found = server.demand.wait(_letters_question(server, wanted), 2.0)
    chosen = _list(server, found, wanted)
    left, right = st.columns([3, 2])
    with left, st.container(border=True, key="card-letter", height="stretch"):
        _letter(server, chosen)
    with right, st.container(border=True, key="card-replay", height="stretch"):
        _replay_form(server, chosen, wanted)
    with st.container(border=True, key="card-history"):
        st.subheader("Who replayed what", anchor=False)
        _history()


def _filter(span: float) -> LetterFilter:
    first, second, third, fourth = st.columns([2, 1, 1.4, 1])
    codes = first.multiselect(
        "Codes",
        [str(each) for each in ErrorCode],
        key="codes",
        placeholder="all",
        bind="query-params",
    )
    status = second.selectbox(
        "Status", ["any", *_STATUSES], index=1, key="status", bind="query-params"
    )
    text = third.text_input(
        "Text in value or message", key="letter_text", placeholder="contains", bind="query-params"
    )
    everything = fourth.selectbox("From", ["the time above", "ever"], index=1, key="letter_since")
    return LetterFilter(
        codes=tuple(codes),
        status=None if status == "any" else status,
        since=span if everything == "the time above" else None,
        text=text or "",
    )


def _over_time_question(server: Serving, span: float) -> Question[tuple[LetterCount, ...]]:
    ask = partial(letters_over_time, server.settings, span)
    return Question(("letters over time", span), "PostgreSQL", 2.0, ask)


def _letters_question(server: Serving, wanted: LetterFilter) -> Question[tuple[Letter, ...]]:
    ask = partial(letters, server.settings, wanted)
    return Question(("letters", wanted), "PostgreSQL", 2.0, ask)


@st.fragment(run_every=2)
def _over_time(span: float) -> None:
    """By code and time. No I/O: fetched in the background."""
    server = serving()
    reading: Reading[tuple[LetterCount, ...]] = server.demand.look(
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
                show(empty("No dead letter in this time", "Every record kept its contract."))
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
            show(empty("None", "Nothing was refused so far."))
        else:
            show(
                table(
                    ("status", "letters"),
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


def _list(
    server: Serving, reading: Reading[tuple[Letter, ...]], wanted: LetterFilter
) -> list[Letter]:
    """The letters as a table; returns the selected ones."""
    with st.container(border=True, key="card-letters"):
        if trouble(reading, reading.measured_at or 0.0, "PostgreSQL") and not reading.sample:
            return []
        found = reading.sample or ()
        # Not at the right end: there the table shows its own buttons.
        with st.container(horizontal=True, vertical_alignment="center"):
            most = f", the newest {MOST_LETTERS}" if len(found) >= MOST_LETTERS else ""
            many = "letter" if len(found) == 1 else "letters"
            st.subheader(f"{units.count(len(found))} {many}{most}", anchor=False, width="content")
            if st.button("Refresh", icon=":material/refresh:", type="tertiary"):
                server.demand.refresh(_letters_question(server, wanted).key)
                st.rerun()
        if not found:
            show(
                empty(
                    "No dead letter matches",
                    "Widen the filter; or see how one comes about: streamflow produce --count 100 "
                    "--invalid-ratio 0.1",
                )
            )
            return []
        shown = pd.DataFrame(
            {
                "appended": [each.appended_at for each in found],
                "code": [each.code for each in found],
                "record": [each.id for each in found],
                "attempt": [each.attempt for each in found],
                "status": [each.status for each in found],
                "message": [each.message for each in found],
                "value": [(each.value or "")[:160] for each in found],
            }
        )
        event = st.dataframe(
            shown,
            key="letters",
            hide_index=True,
            height=300,
            on_select="rerun",
            selection_mode="multi-row",
            column_config={
                "appended": st.column_config.DatetimeColumn(
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
        rows = event["selection"]["rows"]
        return [found[row] for row in rows if row < len(found)]


def _letter(server: Serving, chosen: list[Letter]) -> None:
    """The first of the selected letters in full."""
    if not chosen:
        show(empty("No letter chosen", "Tick one or more rows to read and to replay them."))
        return
    letter = chosen[0]
    st.subheader(letter.id, anchor=False)
    redacted = " · addresses replaced by their hashes" if letter.redacted else ""
    show(
        Html(
            f'<div class="sf">{code(letter.code)} {_status(letter.status)}<br>'
            f"{soft(letter.message)}<br>"
            f"{soft(f'{letter.exception} in the {letter.stage}, attempt {letter.attempt}{redacted}')}"
            "</div>"
        )
    )
    value = letter.value
    st.code(
        "(no value)" if value is None else value or "(empty)",
        language="json",
        wrap_lines=True,
        height=150,
    )
    if letter.size > MOST_SHOWN:
        st.caption(f"The first {MOST_SHOWN:,} of {letter.size:,} bytes.")
    if letter.truncated is not None:
        st.caption(f"{letter.truncated}. What was cut cannot be replayed.")
    with st.expander(f"Headers ({len(letter.headers)})"):
        show(table(("name", "value"), letter.headers))
    render_way(server, letter.origin)


def _replay_form(server: Serving, chosen: list[Letter], wanted: LetterFilter) -> None:
    """Plan, then apply; hidden from viewers, and checked where it happens."""
    st.subheader("Replay", anchor=False)
    identity = current_identity(server.settings)
    if not identity.is_operator:
        show(
            empty(
                "You may look, not replay",
                "An operator may: sign in as one, or set STREAMFLOW_DASHBOARD_ROLE=operator.",
            )
        )
        return
    what = (
        f"{len(chosen)} selected letter{'s' if len(chosen) != 1 else ''}"
        if chosen
        else "all open letters" + (f" of {', '.join(wanted.codes)}" if wanted.codes else "")
    )
    st.caption(f"Replays **{what}** with today's contract. Plan first: it changes nothing.")
    repairs = st.multiselect(
        "Repairs, in this order",
        list(_REPAIRS),
        key="repairs",
        placeholder="none",
        accept_new_options=True,
        format_func=lambda name: f"{name}: {_REPAIRS[name]}" if name in _REPAIRS else name,
    )
    first, second = st.columns(2)
    canary = first.number_input(
        "Canary, letters",
        0,
        10_000,
        10,
        key="canary",
        help="Sent, and seen stored, before all others.",
    )
    rate = second.number_input("At most, letters/s", 1.0, 100_000.0, 500.0, key="replay_rate")
    task: Errand[str] = errand(_RUN)
    first, second = st.columns(2)
    first.button(
        "Plan (dry run)",
        width="stretch",
        icon=":material/fact_check:",
        on_click=task.ask,
        args=(_PLAN,),
    )
    second.button(
        "Replay",
        type="primary",
        width="stretch",
        icon=":material/replay:",
        on_click=task.ask,
        args=(_APPLY,),
    )
    if task.asked is not None:
        order = Order(
            ids=[letter.id for letter in chosen],
            codes=() if chosen else wanted.codes,
            text="" if chosen else wanted.text,
            repairs=repairs,
            dry_run=task.asked != _APPLY,
            canary=int(canary),
            rate=float(rate),
        )
        with st.spinner("Asking Dagster …"):
            task.do(partial(replay, server.dagster, identity, order))
        server.demand.refresh("replay runs")
    if task.error is not None:
        show(banner(Tone.BAD, "Dagster did not start a run that we know of", task.error))
    if task.result is not None:
        _follow(task.result)


@st.fragment(run_every=1)
def _follow(run_id: str) -> None:
    """The run that was started here, to its end. No I/O."""
    server = serving()
    reading: Reading[Sequence[Run]] = server.demand.look(
        Question("replay runs", "Dagster", 1.0, server.dagster.replay_runs)
    )
    run = next((each for each in reading.sample or () if each.run_id == run_id), None)
    where = link(server.dagster.run_url(run_id), f"run {run_id[:8]} in Dagster")
    if run is None:
        show(Html(f'<div class="sf">{mark(Tone.IDLE, "starting")} {where}</div>'))
        return
    show(
        Html(
            f'<div class="sf" data-run-status="{run.status}">{_run_mark(run)} {where} '
            f"{soft(_took(run))}</div>"
        )
    )
    if run.summary:
        show(Html(f'<div class="sf">{text(run.summary)}</div>'))
        _outcome(run.figures)
    elif run.status in FINISHED:
        show(soft("the run left no figures: see its log in Dagster"))
    key = f"seen {run_id}"
    if run.status in FINISHED and key not in st.session_state:
        # The letters have changed: the page is drawn anew, once.
        st.session_state[key] = True
        st.rerun()


def _outcome(figures: Sequence[tuple[str, str]]) -> None:
    """What a plan or a replay came to: numbers that are not 0, and the job's own tables."""
    numbers = [(name, value) for name, value in figures if "\n" not in value]
    shown = [(name, value) for name, value in numbers if value not in ("0", "", "False")]
    if shown:
        show(table(("figure", "value"), shown, (1,)))
    for _, value in figures:
        if "\n" in value:
            st.markdown(value)


def _run_mark(run: Run) -> Html:
    tones = {"SUCCESS": Tone.GOOD, "FAILURE": Tone.BAD, "CANCELED": Tone.WARN}
    return chip(tones.get(run.status, Tone.IDLE), run.status.lower().replace("_", " "))


def _took(run: Run) -> str:
    if run.started_at is None or run.ended_at is None:
        return ""
    return f"in {units.duration(run.ended_at - run.started_at)}"


@st.fragment(run_every=3)
def _history() -> None:
    """The audit trail of replays. No I/O: fetched in the background."""
    server = serving()
    kept: Reading[tuple[dict[str, Any], ...] | None] = server.demand.look(
        Question("replays", "PostgreSQL", 3.0, partial(replays, server.settings))
    )
    if kept.error is not None:
        show(banner(Tone.BAD, "The database does not answer", kept.error))
        return
    if kept.measured_at is None:
        show(soft("looking …"))
        return
    if kept.sample is None:
        show(empty("Replays are not recorded here yet", "Run: streamflow db upgrade"))
        return
    if not kept.sample:
        show(empty("Nobody has replayed anything", "The first replay will stand here."))
        return
    show(
        table(
            ("started (UTC)", "by", "selection", "state", "outcome"),
            (
                (
                    str(each["started_at"])[:19].replace("T", " "),
                    each["requested_by"],
                    code(_selection(each["selection"])),
                    each["state"],
                    soft(_outcomes(each)),
                )
                for each in kept.sample[:20]
            ),
        )
    )


def _selection(found: dict[str, Any]) -> str:
    parts = [
        f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in found.items()
        if value not in (None, [], "", ())
    ]
    return ("; ".join(parts) or "all open letters")[:160]


def _outcomes(found: dict[str, Any]) -> str:
    counts = found.get("outcomes") or {}
    told = ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items()))
    return " · ".join(filter(None, (told, found.get("note"))))
