"""Alerts: what fires, what was resolved, the rules, and what was sent to the webhook."""

import time

import streamlit as st

from streamflow import units
from streamflow.alerting.book import Alert, AlertState
from streamflow.alerting.rules import Severity
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import show
from streamlit_app.ui.markup import Html, Tone, chip, code, empty, mark, soft, table


def render() -> None:
    """The page."""
    st.title("Alerts", anchor=False)
    _now()
    with st.container(border=True, key="card-rules"):
        st.subheader("Rules", anchor=False)
        _rules(serving())


@st.fragment(run_every=1)
def _now() -> None:
    """No I/O: the poller evaluates the rules."""
    server = serving()
    book = server.watch.book
    now = time.time()
    with st.container(border=True, key="card-active"):
        st.subheader("Now", anchor=False)
        active = sorted(
            book.active.values(), key=lambda each: (each.state is AlertState.PENDING, each.since)
        )
        if not active:
            show(
                Html(
                    f'<div class="sf sf-empty"><b>{mark(Tone.GOOD, "Nothing is wrong")}</b>'
                    "The rules below are evaluated every second.</div>"
                )
            )
        else:
            show(
                table(
                    ("state", "rule", "what", "since (UTC)", "what to do"),
                    (
                        (
                            _state(alert),
                            alert.condition.rule,
                            alert.condition.text,
                            f"{units.when(alert.since, now)}, {units.duration(now - alert.since)}",
                            soft(alert.condition.action),
                        )
                        for alert in active
                    ),
                )
            )
    left, right = st.columns(2)
    with left, st.container(border=True, key="card-history", height="stretch"):
        st.subheader("Resolved", anchor=False)
        history = book.history[::-1][:20]
        if not history:
            show(empty("No alert was resolved", "Since the dashboard was started."))
        else:
            show(
                table(
                    ("from (UTC)", "for", "what"),
                    (
                        (
                            units.when(each.since, now),
                            units.duration((each.resolved_at or now) - each.since),
                            each.condition.text,
                        )
                        for each in history
                    ),
                )
            )
    with right, st.container(border=True, key="card-webhook", height="stretch"):
        st.subheader("Sent to the webhook", anchor=False)
        _deliveries(server)


def _state(alert: Alert) -> Html:
    if alert.state is AlertState.PENDING:
        return chip(Tone.IDLE, "pending", "holds, but not for long enough yet")
    severe = alert.condition.severity is Severity.CRITICAL
    return chip(Tone.BAD if severe else Tone.WARN, "firing")


def _deliveries(server: Serving) -> None:
    if not server.webhook.configured:
        show(empty("No webhook is configured", "Set STREAMFLOW_WEBHOOK_URL to send alerts there."))
        return
    now = time.time()
    sent = list(server.webhook.sent)[::-1][:20]
    if not sent:
        show(
            empty(
                "Nothing was sent yet", "Each alert is sent when it fires and when it is resolved."
            )
        )
        return
    show(
        table(
            ("at (UTC)", "delivered", "message"),
            (
                (
                    units.when(each.at, now),
                    mark(Tone.GOOD if each.delivered else Tone.BAD, each.detail),
                    each.text,
                )
                for each in sent
            ),
        )
    )


def _rules(server: Serving) -> None:
    thresholds = server.watch.thresholds
    hold = units.duration(server.watch.book.hold)
    rows = (
        ("part down", "broker, database, worker or supervised part does not do its work", "—", ""),
        ("group", "verdict STALL, STOP, REWIND or ERR", "—", ""),
        (
            "lag records",
            "a group is further behind than",
            units.count(thresholds.lag_records),
            "STREAMFLOW_ALERT_LAG_RECORDS",
        ),
        (
            "lag seconds",
            "a group is longer behind than",
            units.duration(thresholds.lag_seconds),
            "STREAMFLOW_ALERT_LAG_SECONDS",
        ),
        (
            "rate",
            "a stream gets less than",
            units.rate(thresholds.rate_min) if thresholds.rate_min else "off",
            "STREAMFLOW_ALERT_RATE_MIN",
        ),
        (
            "dead letters",
            f"share of records rejected in {thresholds.dead_letter_minutes} min is above",
            units.percent(thresholds.dead_letter_ratio),
            "STREAMFLOW_ALERT_DEAD_LETTER_RATIO",
        ),
        (
            "freshness",
            "records wait and nothing is loaded for longer than",
            units.duration(thresholds.freshness),
            "STREAMFLOW_ALERT_FRESHNESS_SECONDS",
        ),
    )
    st.caption(
        f"Each must hold for {hold} (STREAMFLOW_ALERT_FOR) to fire, and be away as long to end."
    )
    show(
        table(
            ("rule", "fires when", "limit", "setting"),
            ((rule, when, limit, code(name) if name else "") for rule, when, limit, name in rows),
            (2,),
        )
    )
