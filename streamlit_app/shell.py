"""The frame around every page: navigation, status strip, alerts.

Only sessions import it, and with it the pages and pandas: without these a dashboard that nobody looks at
takes 80 MB less, and the first session of a server waits half a second longer.
"""

import time
from typing import Any, Final

import streamlit as st
from streamlit.delta_generator_singletons import get_dg_singleton_instance

from streamflow import units
from streamflow.units import counted
from streamlit_app.access.sign_in import current_identity, require_sign_in, sign_out_control
from streamlit_app.measure.readings import Reading
from streamlit_app.pages import alerts, dead_letters, inspector, live, pipeline, quality, windows
from streamlit_app.serving import Serving, freeze_modules, serving
from streamlit_app.ui.components import show, stamp
from streamlit_app.ui.markup import Html, Tone, banner, mark, soft
from streamlit_app.ui.style import CSS, LOGO

_SHOWN_ALERTS: Final = 3
_PAGES: Final = (
    (live, "Live", "monitoring"),
    (inspector, "Inspector", "search"),
    (windows, "Windows", "bar_chart"),
    (dead_letters, "Dead letters", "mark_email_unread"),
    (quality, "Quality", "verified"),
    (pipeline, "Pipeline", "account_tree"),
    (alerts, "Alerts", "notifications"),
)


def run() -> None:
    st.set_page_config(
        page_title="StreamFlow", page_icon="🌊", layout="wide", initial_sidebar_state="collapsed"
    )
    # Streamlit 1.67 goes on to write into the container of a fragment after a run of that: a run of the
    # whole script that follows in the same thread, as without `fastReruns`, would draw the page in there.
    with get_dg_singleton_instance().main_dg:
        _frame()


def _frame() -> None:
    st.html(CSS)
    st.logo(LOGO, size="large")
    server = serving()
    signed_in = current_identity(server).role is not None
    # Also before sign-in, so that the requested page is kept.
    pages = [
        st.Page(
            module.render,
            title=title,
            icon=f":material/{icon}:",
            url_path=title.lower().replace(" ", "-"),
            default=module is live,
        )
        for module, title, icon in _PAGES
    ]
    page = st.navigation(pages, position="top" if signed_in else "hidden")
    require_sign_in(server)
    _strip()
    page.run()
    sign_out_control(server.settings)


@st.fragment(run_every=1)
def _strip() -> None:
    """The status strip. No I/O: it reads what the poller has."""
    server = serving()
    now = time.time()
    kafka, postgres = server.poller.reading("kafka"), server.poller.reading("postgres")
    marks = _source(kafka, now) + _source(postgres, now) + _workers(server, now) + _alerts(server)
    user = current_identity(server)
    named = server.settings.dashboard_sign_in != "none"
    who = soft(user.label if named else f"{user.role}")
    body = f'{marks}<span class="sf-push">{who} · {stamp(now, kafka.measured_at)}</span>'
    with st.container(key="strip", gap="xsmall"):
        show(Html(f'<div class="sf sf-strip">{body}</div>'))
        firing = server.watch.book.firing()
        for alert in firing[:_SHOWN_ALERTS]:
            tone = Tone.BAD if alert.condition.severity == "critical" else Tone.WARN
            since = f"since {units.when(alert.since, now)} UTC"
            show(banner(tone, alert.condition.text, f"{since} · {alert.condition.action}"))
        if len(firing) > _SHOWN_ALERTS:
            show(soft(f"and {len(firing) - _SHOWN_ALERTS} more: see Alerts"))


def _source(reading: Reading[Any], now: float) -> Html:
    name, why = reading.source, reading.trouble(now)
    if why is None:
        return mark(Tone.GOOD, f"{name} up", f"answered in {units.duration(reading.seconds)}")
    if reading.is_pending:
        return mark(Tone.IDLE, f"{name}: asking")
    last_seen = units.ago(reading.age(now))
    return mark(Tone.BAD, f"{name} does not answer, last seen {last_seen}", why)


def _workers(server: Serving, now: float) -> Html:
    states = server.poller.reading("workers").current(now)
    if states is None:
        return mark(Tone.IDLE, "workers: asking")
    expected = server.watch.expected
    ready = sum(state.answers and state.ready for name, state in states.items() if name in expected)
    if not expected:
        return mark(Tone.IDLE, "no worker answers", "see STREAMFLOW_WORKER_URLS")
    tone = Tone.GOOD if ready == len(expected) else Tone.WARN
    return mark(tone, f"{ready} of {counted(len(expected), 'worker')} ready")


def _alerts(server: Serving) -> Html:
    firing = server.watch.book.firing()
    if not firing:
        return mark(Tone.GOOD, "no alerts")
    return mark(Tone.BAD, counted(len(firing), "alert"))


freeze_modules()
