"""Data quality: the last result of every Dagster check, its message and its history."""

import time
from collections.abc import Sequence
from typing import Any, Final

import streamlit as st

from streamflow import units
from streamlit_app.measure.dagster import Check, Execution
from streamlit_app.measure.demand import Question
from streamlit_app.measure.readings import Figure, Reading
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import metric, show
from streamlit_app.ui.markup import SIGNS, Html, Tone, banner, chip, code, empty, link, soft, table

_INTERVAL: Final = 10.0  # seconds; checks run every few minutes
_PATIENCE: Final = 3.0  # seconds


def render() -> None:
    """The page."""
    server = serving()
    st.title("Data quality", anchor=False)
    server.demand.wait(_question(server), _PATIENCE)
    _checks()


def _question(server: Serving) -> Question[Sequence[Check]]:
    return Question("checks", "Dagster", _INTERVAL, server.dagster.checks)


@st.fragment(run_every=5)
def _checks() -> None:
    """No I/O: fetched in the background."""
    server = serving()
    reading: Reading[Sequence[Check]] = server.demand.look(_question(server))
    if reading.error is not None:
        show(banner(Tone.BAD, "Dagster does not answer", reading.error))
    if reading.sample is None:
        if reading.error is None:
            show(empty("Asking Dagster …", "The checks appear as soon as it answers."))
        return
    checks = reading.sample
    if not checks:
        show(empty("Dagster has no checks", "Load streamflow_dagster: its checks appear here."))
        return
    _summary(checks, reading)
    ran = [check for check in checks if check.executions]
    with st.container(border=True, key="card-checks"):
        st.subheader("Checks", anchor=False)
        show(_table(server, checks))
    if ran:
        with st.container(border=True, key="card-check"):
            _one(server, ran)


def _summary(checks: Sequence[Check], reading: Reading[Any]) -> None:
    tones = [_state(check)[0] for check in checks]
    never = sum(not check.executions for check in checks)
    columns = st.columns(4)
    figures = (
        ("passed", "Passed", tones.count(Tone.GOOD)),
        ("failed", "Failed", tones.count(Tone.BAD)),
        ("warnings", "Warnings", tones.count(Tone.WARN)),
        ("never-run", "Never run", never),
    )
    for column, (key, title, number) in zip(columns, figures, strict=True):
        figure = Figure(
            number, reading.measured_at, reading.source, reading.interval, reading.error
        )
        with column:
            metric(key, title, figure, units.count)


def _state(check: Check) -> tuple[Tone, str]:
    if not check.executions:
        return Tone.IDLE, "never run"
    return _result(check.executions[0])


def _result(execution: Execution) -> tuple[Tone, str]:
    if execution.status == "SUCCEEDED":
        return Tone.GOOD, "passed"
    if execution.status == "IN_PROGRESS":
        return Tone.IDLE, "running"
    if execution.status == "FAILED":
        return (Tone.WARN, "warns") if execution.severity == "WARN" else (Tone.BAD, "failed")
    if execution.status == "EXECUTION_FAILED":
        return Tone.BAD, "did not run"
    return Tone.IDLE, execution.status.lower().replace("_", " ")


def _table(server: Serving, checks: Sequence[Check]) -> Html:
    order = {Tone.BAD: 0, Tone.WARN: 1, Tone.IDLE: 2, Tone.GOOD: 3}
    rows = []
    for check in sorted(checks, key=lambda each: (order[_state(each)[0]], each.asset, each.name)):
        tone, word = _state(check)
        last = check.executions[0] if check.executions else None
        rows.append(
            (
                Html(f"{code(check.asset)}<br>{check.name}{_blocking(check)}"),
                chip(tone, word),
                _strokes(check.executions),
                (last.description if last else "") or soft(check.description),
                soft(units.when(last.at, time.time()) if last else "—"),
                _run_link(server, last, "run") if last else "",
            )
        )
    return table(("check", "result", "history, newest first", "message", "at (UTC)", ""), rows)


def _run_link(server: Serving, execution: Execution, words: str) -> Html | str:
    """Empty for a result that was reported without a run."""
    return link(server.dagster.run_url(execution.run_id), words) if execution.run_id else ""


def _blocking(check: Check) -> str:
    return f" {soft('· blocking')}" if check.blocking else ""


def _strokes(executions: Sequence[Execution]) -> Html:
    signs = []
    for each in executions[:12]:
        tone, word = _result(each)
        signs.append(
            f'<span class="sf-{tone}" title="{word} {units.when(each.at, time.time())}">{SIGNS[tone]}</span>'
        )
    return Html(f'<span class="sf-strokes">{"".join(signs)}</span>')


def _one(server: Serving, checks: Sequence[Check]) -> None:
    """A check in full, with every execution that Dagster keeps."""
    names = {f"{check.asset} · {check.name}": check for check in checks}
    chosen = st.selectbox("In full", list(names), key="check", bind="query-params")
    check = names.get(chosen or "")
    if check is None:
        return
    if check.description:
        show(soft(check.description))
    last = check.executions[0]
    if last.metadata:
        show(table(("figure", "value"), ((name, value[:400]) for name, value in last.metadata)))
    show(
        table(
            ("at (UTC)", "result", "message", ""),
            (
                (
                    units.when(each.at, time.time()),
                    chip(*_result(each)),
                    each.description,
                    _run_link(server, each, f"run {each.run_id[:8]}"),
                )
                for each in check.executions
            ),
        )
    )
