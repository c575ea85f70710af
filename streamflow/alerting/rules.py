"""Alert rules: what is wrong at one moment, by facts and thresholds. Pure.

The dashboard and Dagster's sensors apply the same rules, each to the facts that it knows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from streamflow import units
from streamflow.lag.history import GroupLag
from streamflow.lag.verdicts import TROUBLE
from streamflow.settings.alerting import AlertSettings

PART_DOWN = "part down"
GROUP = "group"
RUN_FAILED = "run failed"


class Severity(StrEnum):
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Condition:
    """A broken rule, at one moment.

    Attributes:
        subject: what it is about: a group, a topic, a part, a job.
        text: what is wrong, with its figure and the limit.
    """

    rule: str
    subject: str
    severity: Severity
    text: str
    action: str

    @property
    def key(self) -> str:
        """Identifies the condition over time, in the dashboard and in Dagster alike."""
        return f"{self.rule}/{self.subject}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What is too much; see the settings ``STREAMFLOW_ALERT_*``."""

    lag_offsets: float
    lag_seconds: float
    rate_min: float
    dead_letter_ratio: float
    dead_letter_minutes: int
    dead_letter_records: int
    freshness: float

    @classmethod
    def of(cls, settings: AlertSettings) -> Self:
        return cls(
            lag_offsets=settings.alert_lag_records,
            lag_seconds=settings.alert_lag_seconds,
            rate_min=settings.alert_rate_min,
            dead_letter_ratio=settings.alert_dead_letter_ratio,
            dead_letter_minutes=settings.alert_dead_letter_minutes,
            dead_letter_records=settings.alert_dead_letter_records,
            freshness=settings.alert_freshness_seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the rules look at; absent where it is not known now.

    Attributes:
        groups: lag by consumer group.
        rates: events per second by stream topic.
        ratios: share of the records read in the last minutes that were rejected, by stream topic.
        waiting: seconds that records of a topic have waited for the loader since it last moved.
        down: reason by part that is down.
    """

    groups: Mapping[str, GroupLag] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    ratios: Mapping[str, float] = field(default_factory=dict)
    waiting: Mapping[str, float] = field(default_factory=dict)
    down: Mapping[str, str] = field(default_factory=dict)


def conditions(facts: Facts, thresholds: Thresholds) -> list[Condition]:
    """Every rule that the facts break."""
    return [*_parts(facts), *_groups(facts, thresholds), *_streams(facts, thresholds)]


def _parts(facts: Facts) -> Iterator[Condition]:
    for part, reason in facts.down.items():
        yield Condition(
            PART_DOWN,
            part,
            Severity.CRITICAL,
            f"{part} is down: {reason}",
            "see `streamflow status` and the part's log in .streamflow/logs",
        )


def _groups(facts: Facts, thresholds: Thresholds) -> Iterator[Condition]:
    action = "start more workers of that kind, up to the number of partitions"
    for name, group in facts.groups.items():
        if group.verdict in TROUBLE:
            yield Condition(
                GROUP,
                name,
                Severity.CRITICAL,
                f"{name} is in state {group.verdict}",
                "look at the group's worker: its /ready says why it does not read",
            )
        offsets, lag = group.offsets, group.time
        if offsets is not None and offsets > thresholds.lag_offsets:
            limit = units.count(thresholds.lag_offsets)
            text = f"{name} is {units.counted(offsets, 'offset')} behind (limit {limit})"
            yield Condition("lag records", name, Severity.WARNING, text, action)
        if lag is not None and lag.seconds > thresholds.lag_seconds:
            limit = units.duration(thresholds.lag_seconds)
            text = f"{name} is {units.duration(lag.seconds)} behind (limit {limit})"
            yield Condition("lag seconds", name, Severity.WARNING, text, action)


def _streams(facts: Facts, thresholds: Thresholds) -> Iterator[Condition]:
    for topic, rate in facts.rates.items():
        if rate < thresholds.rate_min:
            minimum = units.rate(thresholds.rate_min)
            text = f"{topic} gets {units.rate(rate)} (at least {minimum} expected)"
            action = "look at the producers of the topic"
            yield Condition("rate", topic, Severity.WARNING, text, action)
    for topic, ratio in facts.ratios.items():
        if ratio > thresholds.dead_letter_ratio:
            limit = units.percent(thresholds.dead_letter_ratio)
            text = f"{units.percent(ratio)} of the records of {topic} are rejected (limit {limit})"
            action = "open Dead letters: which code is it?"
            yield Condition("dead letters", topic, Severity.WARNING, text, action)
    for topic, seconds in facts.waiting.items():
        if seconds > thresholds.freshness:
            limit = units.duration(thresholds.freshness)
            waited = units.duration(seconds)
            text = f"records of {topic} have waited {waited} to be loaded (limit {limit})"
            action = "is the loader running? See `streamflow status`"
            yield Condition("freshness", topic, Severity.CRITICAL, text, action)
