"""Alerts: conditions, how long they hold, and one message per change."""

import pytest

import webhook
from faults import wait_until
from streamlit_app.alerting.alerts import (
    Alert,
    AlertBook,
    Condition,
    Facts,
    Limits,
    Severity,
    State,
    conditions,
)
from streamlit_app.alerting.watch import Watch
from streamlit_app.alerting.webhook import Webhook
from streamlit_app.measure.readings import Reading
from streamlit_app.measure.recording import Recorder
from streamlit_app.measure.series import Store
from streamlit_app.measure.stack import PartStatus
from streamlit_app.measure.workers import WorkerState

LIMITS = Limits(
    lag_records=1000, lag_seconds=60, rate_min=1.0, dead_letter_ratio=0.05, freshness=300
)
DOWN = Condition("part down", "kafka", Severity.CRITICAL, "kafka is down: no answer", "look")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Facts(), []),
        (Facts(down={"kafka": "no answer"}), [("part down", "kafka")]),
        (Facts(verdicts={"db-group": "STALL"}), [("group", "db-group")]),
        (Facts(lag={"db-group": (1000, 60.0)}), []),
        (Facts(lag={"db-group": (1001, 59.0)}), [("lag records", "db-group")]),
        (Facts(lag={"db-group": (None, 61.0)}), [("lag seconds", "db-group")]),
        (Facts(rates={"user-events": 0.5}), [("rate", "user-events")]),
        (Facts(rates={"user-events": 1.5}), []),
        (Facts(ratios={"user-events": 0.06}), [("dead letters", "user-events")]),
        (Facts(waiting={"user-events": 301.0}), [("freshness", "user-events")]),
    ],
)
def test_rules(facts: Facts, expected: list[tuple[str, str]]) -> None:
    found = conditions(facts, LIMITS)
    assert [each.key for each in found] == expected
    assert all(each.text and each.action for each in found)


def test_a_condition_fires_after_it_held_and_ends_after_it_was_away() -> None:
    book = AlertBook(hold=10)
    assert book.update([DOWN], 0) == []
    assert book.update([DOWN], 9) == []
    [fired] = book.update([DOWN], 10)
    assert (fired.state, fired.since, fired.fired_at) == (State.FIRING, 0, 10)
    assert book.update([DOWN], 20) == []
    assert book.firing() == [fired]
    assert book.update([], 21) == []
    assert book.update([], 30) == []
    [resolved] = book.update([], 31)
    assert (resolved.state, resolved.resolved_at) == (State.RESOLVED, 31)
    assert book.firing() == []
    assert book.history == [resolved]


def test_what_does_not_hold_long_enough_is_told_to_nobody() -> None:
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


def test_a_webhook_is_told_once_and_tried_again() -> None:
    with webhook.Webhook(first=[500, 503]) as receiver:
        sender = Webhook(receiver.url)
        sender.start()
        sender.send(Alert(DOWN, State.FIRING, since=0.0, fired_at=10.0))
        wait_until(lambda: sender.deliveries, 15, "the record of it")
        sender.stop()
    assert sender.deliveries[0].delivered
    bodies = [body for _, body in receiver.bodies]
    assert bodies == [bodies[0]] * 3
    assert bodies[0]["text"] == "[StreamFlow] FIRING: kafka is down: no answer"
    assert bodies[0]["severity"] == "critical"


def test_a_webhook_that_fails_says_so_and_keeps_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamlit_app.alerting.webhook._FIRST_PAUSE", 0.01)
    with webhook.Webhook(status=500) as receiver:
        sender = Webhook(f"{receiver.url}/hook/secret")
        sender.start()
        sender.send(Alert(DOWN, State.RESOLVED, since=0.0))
        wait_until(lambda: sender.deliveries, 10, "the record of the failure")
        sender.stop()
    assert not sender.deliveries[0].delivered
    assert receiver.bodies
    assert "secret" not in sender.deliveries[0].detail


def test_without_a_url_nothing_is_sent() -> None:
    sender = Webhook(None)
    sender.send(Alert(DOWN, State.FIRING, since=0.0))
    assert not sender.configured
    assert not sender.deliveries


def test_a_worker_that_answered_once_is_expected_to_go_on_unless_it_is_left_out() -> None:
    watch = Watch((), Recorder(Store()), AlertBook(hold=0), LIMITS)

    def look(now: float, off: str = "", **answers: bool) -> list[str]:
        states = {
            name: WorkerState(name=name, url="", answers=each, ready=each, reason="timed out")
            for name, each in answers.items()
        }
        parts = tuple(PartStatus(off, "off", 0, "", "") for _ in off[:1])
        readings = {
            "kafka": Reading[object]("Kafka", 1.0),
            "postgres": Reading[object]("PostgreSQL", 1.0),
            "workers": Reading[object]("workers", 1.0).succeeded(states, now, 0.01),
            "stack": Reading[object]("stack", 1.0).succeeded(parts, now, 0.01),
        }
        return [alert.condition.text for alert in watch.look(readings, now)]

    assert look(1.0, loader=True, bridge=False) == []
    assert watch.expected == {"loader"}
    assert look(2.0, loader=False, bridge=False) == ["loader is down: timed out"]
    assert watch.expected == {"loader"}
    look(3.0, off="loader", loader=False, bridge=True)
    assert watch.expected == {"bridge"}
