"""Data quality: the last result of every Dagster check, its message and its history."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from streamflow import units
from streamlit_app.measure.dagster import Check, Execution
from streamlit_app.measure.poller import PollJob
from streamlit_app.measure.readings import Reading
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import card, metric, show, show_error
from streamlit_app.ui.markup import SIGNS, Html, Tone, chip, code, empty, link, soft, table


def render() -> None:
    server = serving()
    st.title("Data quality", anchor=False)
    server.demand.wait(_job(server), 3.0)
    _checks()


def _job(server: Serving) -> PollJob[Sequence[Check]]:
    # Checks run every few minutes.
    return PollJob("checks", "Dagster", 10.0, server.dagster.checks)


@st.fragment(run_every=5)
def _checks() -> None:
    """No I/O: fetched in the background."""
    server = serving()
    reading = server.demand.latest(_job(server))
    show_error(reading)
    checks = reading.sample
    if checks is None:
        if reading.error is None:
            show(empty("Asking Dagster …", "The checks appear as soon as it answers."))
        return
    if not checks:
        show(empty("Dagster has no checks", "Load streamflow_dagster: its checks appear here."))
        return
    _summary(checks, reading)
    with card("checks", "Checks"):
        show(_table(server, checks))
    ran = [check for check in checks if check.executions]
    if ran:
        with card("check"):
            _in_full(server, ran)


def _summary(checks: Sequence[Check], reading: Reading[Any]) -> None:
    tones = [_state(check)[0] for check in checks]
    figures = (
        ("passed", "Passed", tones.count(Tone.GOOD)),
        ("failed", "Failed", tones.count(Tone.BAD)),
        ("warnings", "Warnings", tones.count(Tone.WARN)),
        ("never-run", "Never run", sum(check.latest is None for check in checks)),
    )
    for column, (key, title, number) in zip(st.columns(4), figures, strict=True):
        with column:
            metric(key, title, replace(reading, sample=number), units.count)


def _state(check: Check) -> tuple[Tone, str]:
    return (Tone.IDLE, "never run") if check.latest is None else _result(check.latest)


def _result(execution: Execution) -> tuple[Tone, str]:
    if execution.status == "FAILED":
        return (Tone.WARN, "warns") if execution.severity == "WARN" else (Tone.BAD, "failed")
    results = {
        "SUCCEEDED": (Tone.GOOD, "passed"),
        "IN_PROGRESS": (Tone.IDLE, "running"),
        "EXECUTION_FAILED": (Tone.BAD, "did not run"),
    }
    other = (Tone.IDLE, execution.status.lower().replace("_", " "))
    return results.get(execution.status, other)


def _table(server: Serving, checks: Sequence[Check]) -> Html:
    order = (Tone.BAD, Tone.WARN, Tone.IDLE, Tone.GOOD)
    rows = []
    for check in sorted(
        checks, key=lambda check: (order.index(_state(check)[0]), check.asset, check.name)
    ):
        blocking = f" {soft('· blocking')}" if check.blocking else ""
        last = check.latest
        rows.append(
            (
                Html(f"{code(check.asset)}<br>{check.name}{blocking}"),
                _state_of_now(check),
                _history(check.executions),
                (last.description if last else "") or soft(check.description),
                soft(units.when(last.at, time.time()) if last else "—"),
                _run_link(server, last, "run") if last else "",
            )
        )
    return table(("check", "result", "history, newest first", "message", "at (UTC)", ""), rows)


def _state_of_now(check: Check) -> Html:
    since = check.running_since
    running = (
        "" if since is None else f"<br>{soft(f'running since {units.when(since, time.time())}')}"
    )
    return Html(chip(*_state(check)) + running)


def _run_link(server: Serving, execution: Execution, words: str) -> Html | str:
    """Empty for a result that was reported without a run."""
    return link(server.dagster.run_url(execution.run_id), words) if execution.run_id else ""


def _history(executions: Sequence[Execution]) -> Html:
    signs = []
    for execution in executions[:12]:
        tone, word = _result(execution)
        title = f"{word} {units.when(execution.at, time.time())}"
        signs.append(f'<span class="sf-{tone}" title="{title}">{SIGNS[tone]}</span>')
    return Html(f'<span class="sf-history">{"".join(signs)}</span>')


def _in_full(server: Serving, checks: Sequence[Check]) -> None:
    """One check, with every execution that Dagster keeps."""
    names = {f"{check.asset} · {check.name}": check for check in checks}
    chosen = st.selectbox("In full", list(names), key="check", bind="query-params")
    check = names.get(chosen or "")
    if check is None:
        return
    if check.description:
        show(soft(check.description))
    last = check.latest
    if last is not None and last.metadata:
        show(table(("figure", "value"), ((name, value[:400]) for name, value in last.metadata)))
    rows = (
        (
            units.when(execution.at, time.time()),
            chip(*_result(execution)),
            execution.description,
            _run_link(server, execution, f"run {execution.run_id[:8]}"),
        )
        for execution in check.executions
    )
    show(table(("at (UTC)", "result", "message", ""), rows))
