"""Alerts: what fires, what was resolved, the rules, and what was sent to the webhook."""

import time

import streamlit as st

from streamflow import units
from streamflow.alerting.book import Alert, AlertState
from streamflow.alerting.rules import GROUP, PART_DOWN, Severity
from streamflow.lag.verdicts import TROUBLE
from streamflow.settings.fields import variable
from streamlit_app.serving import Serving, serving
from streamlit_app.ui.components import card, show
from streamlit_app.ui.markup import Html, Tone, chip, code, empty, mark, soft, table

_SHOWN = 20  # of the resolved ones, and of those sent


def render() -> None:
    st.title("Alerts", anchor=False)
    _now()
    with card("rules", "Rules"):
        _rules(serving())


@st.fragment(run_every=1)
def _now() -> None:
    """No I/O: the poller evaluates the rules."""
    server = serving()
    now = time.time()
    with card("active", "Now"):
        show(_active(list(server.watch.book.active.values()), now))
    left, right = st.columns(2)
    with left, card("history", "Resolved", stretch=True):
        show(_resolved(server.watch.book.history[::-1][:_SHOWN], now))
    with right, card("webhook", "Sent to the webhook", stretch=True):
        show(_deliveries(server, now))


def _active(alerts: list[Alert], now: float) -> Html:
    if not alerts:
        nothing = mark(Tone.GOOD, "Nothing is wrong")
        return empty(nothing, "The rules below are evaluated every second.")
    alerts.sort(key=lambda alert: (alert.state is AlertState.PENDING, alert.since))
    rows = (
        (
            _state(alert),
            alert.condition.rule,
            alert.condition.text,
            f"{units.when(alert.since, now)}, {units.duration(now - alert.since)}",
            soft(alert.condition.action),
        )
        for alert in alerts
    )
    return table(("state", "rule", "what", "since (UTC)", "what to do"), rows)


def _state(alert: Alert) -> Html:
    if alert.state is AlertState.PENDING:
        return chip(Tone.IDLE, "pending", "holds, but not for long enough yet")
    severe = alert.condition.severity is Severity.CRITICAL
    return chip(Tone.BAD if severe else Tone.WARN, "firing")


def _resolved(alerts: list[Alert], now: float) -> Html:
    if not alerts:
        return empty("No alert was resolved", "Since the dashboard was started.")
    rows = (
        (
            units.when(alert.since, now),
            units.duration((alert.resolved_at or now) - alert.since),
            alert.condition.text,
        )
        for alert in alerts
    )
    return table(("from (UTC)", "for", "what"), rows)


def _deliveries(server: Serving, now: float) -> Html:
    if not server.webhook.configured:
        return empty("No webhook is configured", "Set STREAMFLOW_WEBHOOK_URL to send alerts there.")
    sent = list(server.webhook.sent)[::-1][:_SHOWN]
    if not sent:
        return empty(
            "Nothing was sent yet", "Each alert is sent when it fires and when it is resolved."
        )
    rows = (
        (
            units.when(message.at, now),
            mark(Tone.GOOD if message.delivered else Tone.BAD, message.detail),
            message.text,
        )
        for message in sent
    )
    return table(("at (UTC)", "delivered", "message"), rows)


def _rules(server: Serving) -> None:
    """The settings of the rules, as they describe themselves."""
    settings = server.settings
    hold = units.duration(settings.alert_for)
    st.caption(
        f"“{PART_DOWN}” fires for a broker, database, worker or supervised part that does not do its "
        f"work, “{GROUP}” for a consumer group in state {', '.join(TROUBLE)}; the others beyond these "
        f"limits. Each must hold for {hold} to fire, and be away as long to be resolved."
    )
    rows = (
        (field.description, f"{getattr(settings, name):,g}", code(variable(name)))
        for name, field in type(settings).model_fields.items()
        if name.startswith("alert_")
    )
    show(table(("limit", "value", "setting"), rows, (1,)))
