"""The replay form on the page of dead letters: make a plan, then apply it; and the history of replays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import streamlit as st

from streamflow import units
from streamflow.dead_letters.repairs import Repair
from streamflow.units import counted
from streamlit_app.access.replaying import PlanRequest, apply, plan, scope
from streamlit_app.access.sign_in import current_identity
from streamlit_app.measure.dagster import FINISHED, ReplayRun
from streamlit_app.measure.poller import PollJob
from streamlit_app.records.pinned import PinnedList
from streamlit_app.records.queries import recent_replays
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import show, show_error
from streamlit_app.ui.markup import (
    Html,
    Tone,
    banner,
    chip,
    code,
    empty,
    line,
    link,
    mark,
    soft,
    table,
)
from streamlit_app.ui.pending_action import PendingAction, pending_action

# Figures of a run that the page shows elsewhere.
_UNSHOWN: Final = ("dry_run", "state")


@dataclass(slots=True)
class _Started:
    """A run that this session has launched, to make the plan of `request` or to apply plan `plan_id`;
    `ended` is the run once it has ended."""

    run_id: str
    request: PlanRequest | None = None
    plan_id: int | None = None
    ended: ReplayRun | None = None


def render_replay_form(server: Serving, pinned: PinnedList | None) -> None:
    """The form; hidden from viewers, whose requests `replaying` rejects anyway."""
    identity = current_identity(server)
    if not identity.is_operator:
        show(empty("Only operators can replay", identity.advice))
        return
    if pinned is None or pinned.content is None:
        show(empty("Nothing to replay", "The list of dead letters is not loaded."))
        return
    included = scope(pinned.ticked_statuses(), pinned.content.counts, len(pinned.rows))
    st.caption(f"**{included.text}**, with today's contract. A plan changes nothing.")
    if server.repairs_fault:
        show(banner(Tone.WARN, "No repair can be offered", server.repairs_fault))
    request = _request(pinned, server.repairs)
    planning: PendingAction[_Started] = pending_action("replay_plan")
    applying: PendingAction[_Started] = pending_action("replay_apply")
    first, second = st.columns(2)
    first.button(
        "Plan (dry run)",
        width="stretch",
        icon=":material/fact_check:",
        disabled=not included.possible,
        on_click=planning.press,
        args=("plan",),
    )
    if planning.pressed is not None:
        with st.spinner("Asking Dagster …"):
            planning.run(lambda: _Started(plan(server.dagster, identity, request), request=request))
        applying.result = applying.error = None
    if applying.pressed is not None:
        plan_id = int(applying.pressed)
        with st.spinner("Asking Dagster …"):
            applying.run(
                lambda: _Started(apply(server.dagster, identity, plan_id), plan_id=plan_id)
            )
    with second:
        _replay_button(planning, applying, request)
    for task in (planning, applying):
        if task.error is not None:
            show(banner(Tone.BAD, "No run was started in Dagster as far as we know", task.error))
    started = applying.result or planning.result
    if started is None:
        return
    if started.ended is None:
        _watch(started)
    else:
        _show_run(started, started.ended)


def _request(pinned: PinnedList, known: Mapping[str, Repair]) -> PlanRequest:
    repairs = st.multiselect(
        "Repairs, in this order",
        list(known),
        key="repairs",
        placeholder="none",
        format_func=lambda name: f"{name}: {known[name].help}",
    )
    first, second = st.columns(2)
    canary = first.number_input(
        "Canary, dead letters",
        0,
        10_000,
        10,
        key="canary",
        help="Sent first; the rest is sent once these are stored.",
    )
    rate = second.number_input(
        "Rate limit, dead letters/s", 1.0, 100_000.0, 500.0, key="replay_rate"
    )
    return pinned.request(repairs=repairs, canary=int(canary), rate=float(rate))


def _replay_button(
    planning: PendingAction[_Started], applying: PendingAction[_Started], request: PlanRequest
) -> None:
    """Shown only for a finished plan of the present request that was not applied yet."""
    planned = planning.result
    if planned is None or planned.ended is None:
        return
    plan_id, number = planned.ended.number("plan_id"), planned.ended.number("passed")
    if plan_id is None or not number or planned.ended.status != "SUCCESS":
        return
    if applying.result is not None and applying.result.plan_id == plan_id:
        return
    if planned.request != request:
        show(soft(f"Plan {plan_id} has another selection, filter or options: plan again."))
        return
    st.button(
        f"Replay plan {plan_id}: {counted(number, 'dead letter')}",
        key="replay-plan",
        type="primary",
        width="stretch",
        icon=":material/replay:",
        on_click=applying.press,
        args=(str(plan_id),),
    )


@st.fragment(run_every=1)
def _watch(started: _Started) -> None:
    """Shows the run until it ends. No I/O: fetched in the background."""
    server = serving()
    query = partial(server.dagster.run, started.run_id)
    job: PollJob[ReplayRun | None] = PollJob(("replay run", started.run_id), "Dagster", 1.0, query)
    reading = server.demand.latest(job)
    run = reading.sample
    _show_run(started, run)
    show_error(reading)
    if run is not None and run.status in FINISHED:
        started.ended = run
        server.demand.forget(job.key)
        st.rerun()


def _show_run(started: _Started, run: ReplayRun | None) -> None:
    what = "makes a plan" if started.plan_id is None else f"applies plan {started.plan_id}"
    where = link(serving().dagster.run_url(started.run_id), f"run {started.run_id[:8]} in Dagster")
    if run is None:
        show(line(mark(Tone.IDLE, "starting"), where, soft(what)))
        return
    if run.started_at is not None and run.ended_at is not None:
        what += f" in {units.duration(run.ended_at - run.started_at)}"
    status = f'data-run-status="{run.status}"'
    show(line(_run_chip(run), where, soft(what), data=status))
    if run.summary:
        show(line(run.summary))
        _outcome(run.figures)
    elif run.status in FINISHED:
        show(soft("the run reported no figures: see its log in Dagster"))


def _outcome(figures: Sequence[tuple[str, str]]) -> None:
    """The result of a plan or a replay: figures that are not 0, and the job's own tables."""
    shown = [
        (name, value)
        for name, value in figures
        if "\n" not in value and name not in _UNSHOWN and value not in ("0", "", "None.")
    ]
    if shown:
        show(table(("figure", "value"), shown, (1,)))
    for _, value in figures:
        if "\n" in value:
            st.markdown(value)


def _run_chip(run: ReplayRun) -> Html:
    tones = {"SUCCESS": Tone.GOOD, "FAILURE": Tone.BAD, "CANCELED": Tone.WARN}
    return chip(tones.get(run.status, Tone.IDLE), run.status.lower().replace("_", " "))


@st.fragment(run_every=3)
def render_history() -> None:
    """The history of replays. No I/O: fetched in the background."""
    server = serving()
    reading = server.demand.latest(
        PollJob("replays", "PostgreSQL", 3.0, partial(recent_replays, server.settings))
    )
    if show_error(reading):
        return
    replays = reading.sample
    if reading.is_pending:
        show(soft("loading …"))
    elif replays is None:
        show(empty("Replays are not recorded here yet", "Run: streamflow db upgrade"))
    elif not replays:
        show(empty("No replays yet", "Replays are listed here."))
    else:
        rows = (
            (
                str(replay["started_at"])[:19].replace("T", " "),
                replay["requested_by"],
                "—" if replay.get("plan_id") is None else f"plan {replay['plan_id']}",
                code(_selection(replay["selection"])),
                replay["state"],
                soft(_outcomes(replay)),
            )
            for replay in replays
        )
        columns = ("started (UTC)", "by", "plan", "selection", "state", "outcome")
        show(table(columns, rows))


def _selection(filters: dict[str, Any]) -> str:
    parts = [
        f"{name}: {_short(value) if isinstance(value, list) else value}"
        for name, value in filters.items()
        if value not in (None, [], "", ())
    ]
    return ("; ".join(parts) or "all open dead letters")[:160]


def _short(values: list[Any]) -> str:
    return f"{values[0]} and {len(values) - 1} more" if len(values) > 1 else str(values[0])


def _outcomes(replay: dict[str, Any]) -> str:
    counts = replay.get("outcomes") or {}
    outcomes = ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items()))
    return " · ".join(filter(None, (outcomes, replay.get("note"))))
