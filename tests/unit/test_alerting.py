"""Alerts: rules, how long conditions hold, and one message per change."""

import pytest
from pydantic import SecretStr

import webhook
from faults import wait_until
from lags import THRESHOLDS
from streamflow.alerting.book import Alert, AlertBook, AlertState
from streamflow.alerting.rules import Condition, Facts, Severity, conditions
from streamflow.alerting.webhook import body_of, send
from streamflow.errors import Unavailable
from streamflow.lag.history import GroupLag, PartitionLag
from streamflow.lag.measure import ConsumerGroup
from streamflow.lag.verdicts import LagTime, LagVerdict
from streamlit_app.alerting.webhook import Webhook

DOWN = Condition("part down", "kafka", Severity.CRITICAL, "kafka is down: no answer", "look")


def group(
    records: int | None = 0, seconds: float | None = 0.0, verdict: LagVerdict = LagVerdict.OK
) -> Facts:
    time = None if seconds is None else LagTime(seconds, exact=True)
    partition = PartitionLag(0, records or 0, records or 0, time, True, verdict)
    described = ConsumerGroup(name="db-group", worker="loader", members=1)
    lag = GroupLag(described, {("t", 0): partition}, records, verdict, None)
    return Facts(groups={"db-group": lag})


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Facts(), []),
        (Facts(down={"kafka": "no answer"}), ["part down/kafka"]),
        (group(verdict=LagVerdict.STALL), ["group/db-group"]),
        (group(verdict=LagVerdict.REWIND), ["group/db-group"]),
        (group(verdict=LagVerdict.WARN), []),
        (group(1000, 60.0), []),
        (group(1001, 59.0), ["lag records/db-group"]),
        (group(None, 61.0), ["lag seconds/db-group"]),
        (Facts(rates={"user-events": 0.5}), ["rate/user-events"]),
        (Facts(rates={"user-events": 1.5}), []),
        (Facts(ratios={"user-events": 0.06}), ["dead letters/user-events"]),
        (Facts(waiting={"user-events": 301.0}), ["freshness/user-events"]),
    ],
)
def test_rules(facts: Facts, expected: list[str]) -> None:
    found = conditions(facts, THRESHOLDS)
    assert [each.key for each in found] == expected
    assert all(each.text and each.action for each in found)


def test_a_condition_fires_after_it_held_and_ends_after_it_was_away() -> None:
    book = AlertBook(hold=10)
    assert book.update([DOWN], 0) == []
    assert book.update([DOWN], 9) == []
    [fired] = book.update([DOWN], 10)
    assert (fired.state, fired.since, fired.fired_at) == (AlertState.FIRING, 0, 10)
    assert book.update([DOWN], 20) == []
    assert book.firing() == [fired]
    assert book.update([], 21) == []
    assert book.update([], 30) == []
    [resolved] = book.update([], 31)
    assert (resolved.state, resolved.resolved_at) == (AlertState.RESOLVED, 31)
    assert book.firing() == []
    assert book.history == [resolved]


def test_what_does_not_hold_long_enough_changes_nothing() -> None:
    book = AlertBook(hold=10)
    for second in range(0, 100, 10):
        assert book.update([DOWN] if second % 20 else [], second) == []
    assert book.history == []


def test_an_alert_does_not_flap() -> None:
    book = AlertBook(hold=10)
    book.update([DOWN], 0)
    changes = [
        change for second in range(1, 60) for change in book.update([DOWN] * (second % 2), second)
    ]
    assert [change.state for change in changes] == []
    book = AlertBook(hold=10)
    book.update([DOWN], 0)
    assert len(book.update([DOWN], 10)) == 1
    flapping = [
        change for second in range(11, 60) for change in book.update([DOWN] * (second % 2), second)
    ]
    assert flapping == []


def test_the_text_of_a_firing_alert_stays_current() -> None:
    book = AlertBook(hold=0)
    book.update([DOWN], 0)
    worse = Condition("part down", "kafka", Severity.CRITICAL, "worse", "look")
    assert book.update([worse], 1) == []
    assert book.firing()[0].condition.text == "worse"


def test_an_alert_is_sent_until_the_webhook_takes_it() -> None:
    with webhook.Webhook(first=[500, 503]) as receiver:
        sender = Webhook(SecretStr(receiver.url))
        sender.start()
        sender.send(Alert(DOWN, AlertState.FIRING, since=0.0, fired_at=10.0))
        wait_until(lambda: sender.sent, 15, "the record of it")
        sender.stop()
    assert sender.sent[0].delivered
    bodies = [body for _, body in receiver.bodies]
    assert bodies == [bodies[0]] * 3
    assert bodies[0]["text"] == "[StreamFlow] FIRING: kafka is down: no answer"
    assert bodies[0]["severity"] == "critical"
    assert bodies[0]["key"] == "part down/kafka"


def test_a_webhook_that_fails_says_so_and_keeps_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamflow.alerting.webhook._FIRST_PAUSE", 0.01)
    with webhook.Webhook(status=500) as receiver:
        sender = Webhook(SecretStr(f"{receiver.url}/hook/secret"))
        sender.start()
        sender.send(Alert(DOWN, AlertState.RESOLVED, since=0.0))
        wait_until(lambda: sender.sent, 10, "the record of the failure")
        sender.stop()
    assert not sender.sent[0].delivered
    assert receiver.bodies
    assert "secret" not in sender.sent[0].detail


def test_without_a_url_nothing_is_sent() -> None:
    sender = Webhook(None)
    sender.send(Alert(DOWN, AlertState.FIRING, since=0.0))
    assert not sender.configured
    assert not sender.sent


def test_the_key_of_a_body_stays_the_same_as_long_as_the_condition_is() -> None:
    worse = Condition("part down", "kafka", Severity.WARNING, "worse", "look")
    bodies = [
        body_of(Alert(DOWN, AlertState.FIRING, since=0.0), worker="loader"),
        body_of(Alert(worse, AlertState.RESOLVED, since=9.0)),
    ]
    assert bodies[0]["worker"] == "loader"
    assert {body["key"] for body in bodies} == {"part down/kafka"}


@pytest.mark.parametrize("status", [302, 404, 500])
def test_only_success_counts_and_no_redirect_is_followed(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamflow.alerting.webhook._FIRST_PAUSE", 0.01)
    body = body_of(Alert(DOWN, AlertState.FIRING, since=0.0))
    with (
        webhook.Webhook(status, location="/elsewhere") as receiver,
        pytest.raises(Unavailable, match=f"status {status}") as failure,
    ):
        send(SecretStr(f"{receiver.url}/secret"), body, attempts=2)
    assert [path for path, _ in receiver.bodies] == ["/secret"] * 2
    assert "/secret" not in str(failure.value)


def test_a_webhook_that_nobody_listens_at_is_said_without_its_address() -> None:
    with webhook.Webhook() as receiver:
        url = receiver.url
    with pytest.raises(Unavailable, match="Connection refused") as failure:
        send(SecretStr(f"{url}/secret"), {}, attempts=1)
    assert "127.0.0.1" not in str(failure.value)
