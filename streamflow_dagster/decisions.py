"""What sensors decide: pure, so that they are tested without Dagster.

A sensor that requests a run must neither request the same twice nor forget one that failed. So it does
not rely on run keys (a used one never launches again): the runs that it requested before show whether
one is on its way, has failed, or is done.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from pydantic import TypeAdapter

from streamflow.alerting.book import Alert, AlertBook, AlertState
from streamflow.alerting.rules import GROUP, PART_DOWN, Facts, Thresholds, conditions
from streamflow.lag.history import GroupLag, LagHistory, WorkerHealth
from streamflow.lag.measure import LagSample
from streamflow.lag.verdicts import LagVerdict

# After its last attempt, a sensor requests one run an hour: what stays broken for long must neither be
# given up nor fill the list of runs.
GIVING_UP: Final = timedelta(hours=1)

_ALERTS: Final = TypeAdapter(list[Alert])


class RequestedRun(NamedTuple):
    """A run that a sensor requested.

    Attributes:
        at: of its last change.
    """

    run_id: str
    finished: bool
    succeeded: bool
    at: datetime


def reason_to_wait(
    requested: Sequence[RequestedRun],
    now: datetime,
    *,
    attempts: int,
    pause: timedelta,
    lost: timedelta,
) -> str | None:
    """Why no run may be requested now; None when one may.

    Args:
        requested: runs that were requested before, the latest first.
        now: the time.
        attempts: how many failures in a row are followed by another attempt at once.
        pause: to the second attempt; doubled with each further one.
        lost: a run that has not changed for so long does not count as on its way.
    """
    for run in requested:
        if not run.finished and now - run.at < lost:
            return f"run {run.run_id} is on its way"
    failures = failures_in_a_row(requested)
    if not failures:
        return None
    since = now - requested[0].at
    if failures >= attempts:
        wait = GIVING_UP
        says = f"{failures} runs failed in a row, the last is {requested[0].run_id}: see why"
    else:
        wait = pause * 2 ** (failures - 1)
        says = f"run {requested[0].run_id} failed"
    if since >= wait:
        return None
    return f"{says}; requested again in {(wait - since).total_seconds():.0f} s"


def failures_in_a_row(requested: Iterable[RequestedRun]) -> int:
    """How many of the latest runs failed in a row. A lost run counts as failed."""
    failures = 0
    for run in requested:
        if run.succeeded:
            break
        failures += 1
    return failures


class WorkerWatch:
    """How the workers are, from one look of a sensor to the next; kept in the sensor's cursor.

    A worker joins, leaves and gets other partitions in between, so a condition must hold for a while
    before it counts: that is the `AlertBook`'s work.

    Args:
        hold: seconds that a condition must hold.
        window: seconds that verdicts look back.
    """

    def __init__(self, hold: float, window: float) -> None:
        self._window = window
        self._history = LagHistory(window)
        self._book = AlertBook(hold)
        self._groups: dict[str, GroupLag] = {}

    def load(self, cursor: str | None) -> None:
        """Takes what `dump` gave; begins afresh with a cursor of another release."""
        try:
            content = json.loads(cursor or "")
            alerts = _ALERTS.validate_python(content["alerts"])
            self._history = LagHistory.load(content["samples"], self._window)
        except (ValueError, TypeError, KeyError, IndexError):
            return
        self._book.restore(alerts)

    def dump(self) -> str:
        """As a cursor."""
        alerts = _ALERTS.dump_python(list(self._book.active.values()), mode="json")
        return json.dumps({"alerts": alerts, "samples": self._history.dump()})

    def update(self, sample: LagSample, thresholds: Thresholds, now: float) -> list[Alert]:
        """Takes a sample; returns the alerts that began to fire or were resolved by that."""
        self._groups = {lag.group.worker: lag for lag in self._history.add(sample, now).values()}
        down = {
            worker: f"{lag.group.name} has no member"
            for worker, lag in self._groups.items()
            if lag.health is WorkerHealth.GONE
        }
        groups = {lag.group.name: lag for lag in self._groups.values()}
        return self._book.update(conditions(Facts(groups=groups, down=down), thresholds), now)

    def health(self, worker: str) -> WorkerHealth | None:
        """How a worker is; None while that is in doubt."""
        lag = self._groups[worker]
        down = self._book.active.get(f"{PART_DOWN}/{worker}")
        if down is not None:
            return WorkerHealth.GONE if down.state is AlertState.FIRING else None
        trouble = self._book.active.get(f"{GROUP}/{lag.group.name}")
        if trouble is None or lag.verdict in (LagVerdict.OK, LagVerdict.REWIND):
            return WorkerHealth.UP
        return WorkerHealth.STALLED if trouble.state is AlertState.FIRING else None

    def worker_of(self, subject: str) -> str:
        """The worker that an alert is about, by its name or its group's."""
        by_group = {lag.group.name: worker for worker, lag in self._groups.items()}
        return by_group.get(subject, subject)


def tables_to_drain(
    lags: Mapping[str, int], *, worker: WorkerHealth | None, threshold: int
) -> tuple[list[str], str]:
    """Which tables to drain, and why, or why none.

    Args:
        lags: offsets that wait, by table.
        worker: how the loader is; None while that is in doubt.
        threshold: a lag beyond this is drained although the loader is up.
    """
    waiting = sorted(table for table, lag in lags.items() if lag > 0)
    if worker in (WorkerHealth.GONE, WorkerHealth.STALLED) and waiting:
        total = sum(lags[table] for table in waiting)
        return waiting, f"the loader is {worker} and {total:,} offsets wait"
    beyond = [table for table in waiting if lags[table] > threshold]
    if beyond:
        named = ", ".join(f"{table}: {lags[table]:,}" for table in beyond)
        return beyond, f"lag is above {threshold:,} ({named})"
    total = sum(lags.values())
    return [], f"{total:,} offsets wait, the loader is {worker or 'not judged yet'}"


class DeadLettersSeen(NamedTuple):
    """Up to which offset dead letters were seen, by ``topic/partition``."""

    positions: dict[str, int]


def new_dead_letters(
    before: DeadLettersSeen | None, now: DeadLettersSeen
) -> dict[str, tuple[int, int]]:
    """The offsets appended since, first and next, by ``topic/partition``."""
    known = before.positions if before is not None else {}
    return {
        place: (known.get(place, 0), end)
        for place, end in now.positions.items()
        if end > known.get(place, 0)
    }


def load_dead_letters_seen(cursor: str | None) -> DeadLettersSeen | None:
    """From a cursor; None for none, or one of another release."""
    try:
        positions = json.loads(cursor or "null")
        return DeadLettersSeen({str(place): int(end) for place, end in positions.items()})
    except (ValueError, TypeError, AttributeError):
        return None
