"""The frame around every page: navigation, status strip, alerts."""

import time
from pathlib import Path
from typing import Final

import streamlit as st

from streamflow import units
from streamlit_app.access.sign_in import current_identity, require_sign_in, sign_out_control
from streamlit_app.pages import (
    alerts,
    dead_letters,
    inspector,
    live,
    pipeline,
    quality,
    windows,
)
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import show, stamp
from streamlit_app.ui.markup import Html, Tone, banner, mark, soft
from streamlit_app.ui.style import CSS, LOGO

# In a folder of its own: beside a folder named "pages", Streamlit would serve each file of that as a
# page by itself, past this frame and its sign-in.
SCRIPT: Final = str(Path(__file__).parent / "session" / "main.py")

_SHOWN_ALERTS: Final = 3


def run() -> None:
    """One run of a session's script."""
    st.set_page_config(
        page_title="StreamFlow", page_icon="🌊", layout="wide", initial_sidebar_state="collapsed"
    )
    st.html(CSS)
    st.logo(LOGO, size="large")
    server = serving()
    signed_in = current_identity(server.settings).role is not None
    # Also before sign-in, so that the requested page is kept.
    page = st.navigation(
        [
            st.Page(live.render, title="Live", icon=":material/monitoring:", default=True),
            st.Page(
                inspector.render,
                title="Inspector",
                icon=":material/search:",
                url_path="inspector",
            ),
            st.Page(
                windows.render, title="Windows", icon=":material/bar_chart:", url_path="windows"
            ),
            st.Page(
                dead_letters.render,
                title="Dead letters",
                icon=":material/mark_email_unread:",
                url_path="dead-letters",
            ),
            st.Page(
                quality.render, title="Quality", icon=":material/verified:", url_path="quality"
            ),
            st.Page(
                pipeline.render,
                title="Pipeline",
                icon=":material/account_tree:",
                url_path="pipeline",
            ),
            st.Page(
                alerts.render,
                title="Alerts",
                icon=":material/notifications:",
                url_path="alerts",
            ),
        ],
        position="top" if signed_in else "hidden",
    )
    require_sign_in(server.settings)
    _strip()
    page.run()
    sign_out_control(server.settings)


@st.fragment(run_every=1)
def _strip() -> None:
    """The status strip. No I/O: it reads what the poller has."""
    server = serving()
    now = time.time()
    parts = [
        _source(server, "kafka", "Kafka", now),
        _source(server, "postgres", "PostgreSQL", now),
        _workers(server, now),
        _alerts(server),
    ]
    kafka = server.poller.reading("kafka")
    role = current_identity(server.settings)
    who = soft(
        f"{role.name}, {role.role}"
        if server.settings.dashboard_sign_in != "none"
        else f"{role.role}"
    )
    body = (
        "".join(parts)
        + f'<span class="sf-push">{who} · {stamp(int(now), kafka.measured_at)}</span>'
    )
    with st.container(key="strip", gap="xsmall"):
        show(Html(f'<div class="sf sf-strip">{body}</div>'))
        firing = server.watch.book.firing()
        for alert in firing[:_SHOWN_ALERTS]:
            tone = Tone.BAD if alert.condition.severity == "critical" else Tone.WARN
            since = f"since {units.when(alert.since, now)} UTC"
            show(banner(tone, alert.condition.text, f"{since} · {alert.condition.action}"))
        if len(firing) > _SHOWN_ALERTS:
            show(soft(f"and {len(firing) - _SHOWN_ALERTS} more: see Alerts"))


def _source(server: Serving, name: str, title: str, now: float) -> Html:
    reading = server.poller.reading(name)
    why = reading.trouble(now)
    if why is None:
        return mark(Tone.GOOD, f"{title} up", f"answered in {units.duration(reading.seconds)}")
    if reading.measured_at is None and reading.error is None:
        return mark(Tone.IDLE, f"{title}: asking")
    age = None if reading.measured_at is None else now - reading.measured_at
    return mark(Tone.BAD, f"{title} does not answer, last seen {units.ago(age)}", why)


def _workers(server: Serving, now: float) -> Html:
    reading = server.poller.reading("workers")
    states = reading.current(now)
    if states is None:
        return mark(Tone.IDLE, "workers: asking")
    expected = server.watch.expected
    ready = sum(each.answers and each.ready for name, each in states.items() if name in expected)
    if not expected:
        return mark(Tone.IDLE, "no worker answers", "see STREAMFLOW_WORKER_URLS")
    tone = Tone.GOOD if ready == len(expected) else Tone.WARN
    return mark(tone, f"{ready} of {len(expected)} workers ready")


def _alerts(server: Serving) -> Html:
    firing = server.watch.book.firing()
    if not firing:
        return mark(Tone.GOOD, "no alerts")
    return mark(Tone.BAD, f"{len(firing)} alert{'s' if len(firing) > 1 else ''}")
