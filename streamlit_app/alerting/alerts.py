"""Alerts: what is wrong for long enough to tell somebody. Pure; the poller asks every second."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from streamlit_app.ui import units


class State(StrEnum):
    """Of a condition."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Severity(StrEnum):
    """How bad it is."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is not as it should be, at one moment.

    Attributes:
        rule: kind of trouble: lag, rate, dead letters, freshness, or part down.
        subject: what it is about: a group, a topic, a part.
        text: what is wrong, with its figure and the limit.
        action: what to do about it.
    """

    rule: str
    subject: str
    severity: Severity
    text: str
    action: str

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same condition a second later."""
        return self.rule, self.subject


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition over time. Times are seconds since the epoch."""

    condition: Condition
    state: State
    since: float
    fired_at: float | None = None
    resolved_at: float | None = None


_HISTORY: Final = 200


@dataclass(slots=True)
class AlertBook:
    """Which conditions hold for how long. A condition becomes an alert after `hold` seconds, and is
    resolved after being away for as long, so that nothing flaps.

    Attributes:
        hold: seconds.
        active: pending and firing ones.
        history: what fired and was resolved, the newest last.
    """

    hold: float
    active: dict[tuple[str, str], Alert] = field(default_factory=dict)
    history: list[Alert] = field(default_factory=list)
    _gone_since: dict[tuple[str, str], float] = field(default_factory=dict)

    def update(self, conditions: Sequence[Condition], now: float) -> list[Alert]:
        """Takes what holds now; returns the alerts that began to fire or were resolved by that."""
        changed: list[Alert] = []
        present = {condition.key: condition for condition in conditions}
        for key, condition in present.items():
            self._gone_since.pop(key, None)
            known = self.active.get(key)
            alert = (
                Alert(condition, State.PENDING, now)
                if known is None
                else replace(known, condition=condition)
            )
            if alert.state is State.PENDING and now - alert.since >= self.hold:
                alert = replace(alert, state=State.FIRING, fired_at=now)
                changed.append(alert)
            self.active[key] = alert
        for key in [key for key in self.active if key not in present]:
            alert = self.active[key]
            if alert.state is State.PENDING:
                del self.active[key]
                continue
            gone = self._gone_since.setdefault(key, now)
            if now - gone >= self.hold:
                del self.active[key], self._gone_since[key]
                changed.append(replace(alert, state=State.RESOLVED, resolved_at=now))
        self.history += [alert for alert in changed if alert.state is State.RESOLVED]
        del self.history[:-_HISTORY]
        return changed

    def all(self) -> list[Alert]:
        """What was resolved, and what is active, in this order."""
        return [*self.history, *self.active.values()]

    def restore(self, alerts: Sequence[Alert]) -> None:
        """Takes back what `all` gave."""
        self.history = [alert for alert in alerts if alert.state is State.RESOLVED]
        self.active = {
            alert.condition.key: alert for alert in alerts if alert.state is not State.RESOLVED
        }

    def firing(self) -> list[Alert]:
        """What fires now, the worst and oldest first."""
        return sorted(
            (alert for alert in self.active.values() if alert.state is State.FIRING),
            key=lambda each: (each.condition.severity is not Severity.CRITICAL, each.since),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is too much; see the settings ``STREAMFLOW_ALERT_*``."""

    lag_records: float
    lag_seconds: float
    rate_min: float
    dead_letter_ratio: float
    freshness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the rules look at; absent where it is not known now.

    Attributes:
        lag: offsets and seconds by group.
        verdicts: by group, for groups in trouble only.
        rates: events per second by stream topic.
        ratios: share of the records read in the last minutes that were refused, by stream topic.
        waiting: seconds that records of a topic have waited for the loader since it last moved.
        down: reason by part that does not do its work.
    """

    lag: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    verdicts: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    ratios: Mapping[str, float] = field(default_factory=dict)
    waiting: Mapping[str, float] = field(default_factory=dict)
    down: Mapping[str, str] = field(default_factory=dict)


def conditions(facts: Facts, limits: Limits) -> list[Condition]:
    """What is not as it should be."""
    return [
        *_parts(facts),
        *_groups(facts),
        *_lags(facts, limits),
        *_streams(facts, limits),
    ]


def _parts(facts: Facts) -> Iterator[Condition]:
    for part, reason in facts.down.items():
        yield Condition(
            "part down",
            part,
            Severity.CRITICAL,
            f"{part} is down: {reason}",
            "see `streamflow status` and the part's log in .streamflow/logs",
        )


def _groups(facts: Facts) -> Iterator[Condition]:
    for group, verdict in facts.verdicts.items():
        yield Condition(
            "group",
            group,
            Severity.CRITICAL,
            f"{group} is in state {verdict}",
            "look at the group's worker: its /ready says why it does not read",
        )


def _lags(facts: Facts, limits: Limits) -> Iterator[Condition]:
    action = "start more workers of that kind, up to the number of partitions"
    for group, (records, seconds) in facts.lag.items():
        if records is not None and records > limits.lag_records:
            limit = units.count(limits.lag_records)
            text = f"{group} is {units.count(records)} records behind (limit {limit})"
            yield Condition("lag records", group, Severity.WARNING, text, action)
        if seconds is not None and seconds > limits.lag_seconds:
            limit = units.duration(limits.lag_seconds)
            text = f"{group} is {units.duration(seconds)} behind (limit {limit})"
            yield Condition("lag seconds", group, Severity.WARNING, text, action)


def _streams(facts: Facts, limits: Limits) -> Iterator[Condition]:
    for topic, rate in facts.rates.items():
        if rate < limits.rate_min:
            wanted = units.rate(limits.rate_min)
            text = f"{topic} gets {units.rate(rate)} (at least {wanted} wanted)"
            action = "look at the producers of the topic"
            yield Condition("rate", topic, Severity.WARNING, text, action)
    for topic, ratio in facts.ratios.items():
        if ratio > limits.dead_letter_ratio:
            limit = units.percent(limits.dead_letter_ratio)
            text = f"{units.percent(ratio)} of the records of {topic} are refused (limit {limit})"
            action = "open Dead letters: which code is it?"
            yield Condition("dead letters", topic, Severity.WARNING, text, action)
    for topic, seconds in facts.waiting.items():
        if seconds > limits.freshness:
            limit = units.duration(limits.freshness)
            waited = units.duration(seconds)
            text = f"records of {topic} have waited {waited} to be loaded (limit {limit})"
            action = "is the loader running? `streamflow status` tells"
            yield Condition("freshness", topic, Severity.CRITICAL, text, action)
