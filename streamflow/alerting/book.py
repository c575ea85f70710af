"""Alerts: conditions over time. Pure; each process that evaluates the rules keeps one `AlertBook`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from streamflow.alerting.rules import Condition, Severity

_HISTORY: Final = 200


class AlertState(StrEnum):
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition over time. Times are seconds since the epoch.

    Attributes:
        cleared_at: since when a firing condition no longer holds; resolved after the hold time.
    """

    condition: Condition
    state: AlertState
    since: float
    fired_at: float | None = None
    resolved_at: float | None = None
    cleared_at: float | None = None


@dataclass(slots=True)
class AlertBook:
    """Which conditions hold for how long. A condition becomes an alert after `hold` seconds, and is
    resolved after being away for as long, so that nothing flaps.

    Attributes:
        active: pending and firing ones, by key.
        history: what fired and was resolved, the newest last.
    """

    hold: float
    active: dict[str, Alert] = field(default_factory=dict)
    history: list[Alert] = field(default_factory=list)

    def update(self, conditions: Sequence[Condition], now: float) -> list[Alert]:
        """Updates the alerts from what holds now; returns those that began to fire or were resolved."""
        changed: list[Alert] = []
        present = {condition.key: condition for condition in conditions}
        for key, condition in present.items():
            known = self.active.get(key)
            alert = (
                Alert(condition, AlertState.PENDING, now)
                if known is None
                else replace(known, condition=condition, cleared_at=None)
            )
            if alert.state is AlertState.PENDING and now - alert.since >= self.hold:
                alert = replace(alert, state=AlertState.FIRING, fired_at=now)
                changed.append(alert)
            self.active[key] = alert
        for key, alert in list(self.active.items()):
            if key in present:
                continue
            cleared_at = now if alert.cleared_at is None else alert.cleared_at
            if alert.state is AlertState.PENDING:
                del self.active[key]
            elif now - cleared_at >= self.hold:
                del self.active[key]
                changed.append(replace(alert, state=AlertState.RESOLVED, resolved_at=now))
            else:
                self.active[key] = replace(alert, cleared_at=cleared_at)
        self.history += [alert for alert in changed if alert.state is AlertState.RESOLVED]
        del self.history[:-_HISTORY]
        return changed

    def all(self) -> list[Alert]:
        """Resolved alerts, then active ones."""
        return [*self.history, *self.active.values()]

    def restore(self, alerts: Sequence[Alert]) -> None:
        """The inverse of `all`."""
        self.history = [alert for alert in alerts if alert.state is AlertState.RESOLVED]
        self.active = {
            alert.condition.key: alert for alert in alerts if alert.state is not AlertState.RESOLVED
        }

    def firing(self) -> list[Alert]:
        """Critical and older ones first."""
        return sorted(
            (alert for alert in self.active.values() if alert.state is AlertState.FIRING),
            key=lambda alert: (alert.condition.severity is not Severity.CRITICAL, alert.since),
        )
