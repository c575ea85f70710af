"""What sensors decide: pure, so that it is tested without Dagster.

A sensor must neither request the same run twice nor forget one that failed. So it does not rely on run
keys (a used one never launches again): the runs that it requested before show whether one is in
progress, has failed, or is done.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Final, NamedTuple

from pydantic import TypeAdapter

from streamflow.alerting.book import Alert, AlertBook, AlertState
from streamflow.alerting.rules import GROUP, PART_DOWN, Facts, Thresholds, conditions
from streamflow.lag.history import GroupLag, LagHistory, WorkerHealth
from streamflow.lag.measure import LagSample
from streamflow.lag.verdicts import LagVerdict
from streamflow.units import counted

# After its last attempt, a sensor requests one run an hour: what stays broken must neither be given up
# nor fill the list of runs.
GIVING_UP: Final = timedelta(hours=1)

_ALERTS: Final = TypeAdapter(list[Alert])


class RequestedRun(NamedTuple):
    """A run that a sensor requested."""

    run_id: str
    finished: bool
    succeeded: bool
    updated_at: datetime


def reason_to_wait(
    requested: Sequence[RequestedRun],
    now: datetime,
    *,
    attempts: int,
    pause: timedelta,
    lost: timedelta,
) -> str | None:
    """Why no run may be requested now; None if one may.

    Args:
        requested: the runs that were requested before, the latest first.
        now: the time.
        attempts: after so many failures in a row, only one run per `GIVING_UP` is requested.
        pause: before the second attempt; doubled with each further one.
        lost: a run that has not changed for so long does not count as in progress.
    """
    for run in requested:
        if not run.finished and now - run.updated_at < lost:
            return f"run {run.run_id} is in progress"
    failures = failures_in_a_row(requested)
    if not failures:
        return None
    since = now - requested[0].updated_at
    if failures >= attempts:
        wait = GIVING_UP
        says = f"{counted(failures, 'run')} failed in a row, the last is {requested[0].run_id}: see why"
    else:
        wait = pause * 2 ** (failures - 1)
        says = f"run {requested[0].run_id} failed"
    if since >= wait:
        return None
    return f"{says}; requested again in {(wait - since).total_seconds():.0f} s"


def failures_in_a_row(requested: Iterable[RequestedRun]) -> int:
    """How many of the latest runs failed in a row. A lost run counts as failed."""
    return sum(1 for _ in takewhile(lambda run: not run.succeeded, requested))


class WorkerWatch:
    """The workers' health from one evaluation of a sensor to the next; kept in the sensor's cursor.

    Workers join, leave and are given other partitions, so a condition counts only once it has held for
    a while (`AlertBook`). `hold` is in seconds, and so is `window`, the history that verdicts use.
    """

    def __init__(self, hold: float, window: float) -> None:
        self._window = window
        self._history = LagHistory(window)
        self._book = AlertBook(hold)
        self._groups: dict[str, GroupLag] = {}

    def load(self, cursor: str | None) -> None:
        """Restores what `dump` returned; starts empty if the cursor was written by another release."""
        try:
            content = json.loads(cursor or "")
            alerts = _ALERTS.validate_python(content["alerts"])
            self._history = LagHistory.load(content["samples"], self._window)
        except (ValueError, TypeError, KeyError, IndexError):
            return
        self._book.restore(alerts)

    def dump(self) -> str:
        alerts = _ALERTS.dump_python(list(self._book.active.values()), mode="json")
        return json.dumps({"alerts": alerts, "samples": self._history.dump()})

    def update(self, sample: LagSample, thresholds: Thresholds, now: float) -> list[Alert]:
        """Adds a sample; returns the alerts that it made fire or resolved."""
        self._groups = {lag.group.worker: lag for lag in self._history.add(sample, now).values()}
        down = {
            worker: f"{lag.group.name} has no member"
            for worker, lag in self._groups.items()
            if lag.health is WorkerHealth.GONE
        }
        groups = {lag.group.name: lag for lag in self._groups.values()}
        return self._book.update(conditions(Facts(groups=groups, down=down), thresholds), now)

    def health(self, worker: str) -> WorkerHealth | None:
        """None while it is in doubt."""
        lag = self._groups[worker]
        down = self._book.active.get(f"{PART_DOWN}/{worker}")
        if down is not None:
            return WorkerHealth.GONE if down.state is AlertState.FIRING else None
        trouble = self._book.active.get(f"{GROUP}/{lag.group.name}")
        if trouble is None or lag.verdict in (LagVerdict.OK, LagVerdict.REWIND):
            return WorkerHealth.UP
        return WorkerHealth.STALLED if trouble.state is AlertState.FIRING else None

    def worker_of(self, subject: str) -> str:
        """The worker that an alert is about; `subject` is its name or its group's."""
        by_group = {lag.group.name: worker for worker, lag in self._groups.items()}
        return by_group.get(subject, subject)


def tables_to_drain(
    lags: Mapping[str, int], *, worker: WorkerHealth | None, threshold: int
) -> tuple[list[str], str]:
    """Which tables to drain, and why, or why none. A lag above `threshold` is drained although the loader
    is up; `worker` is the loader's health, None while it is in doubt."""
    waiting = sorted(table for table, lag in lags.items() if lag > 0)
    if worker in (WorkerHealth.GONE, WorkerHealth.STALLED) and waiting:
        total = sum(lags[table] for table in waiting)
        return waiting, f"the loader is {worker} and {counted(total, 'offset', 'waits', 'wait')}"
    above = [table for table in waiting if lags[table] > threshold]
    if above:
        named = ", ".join(f"{table}: {lags[table]:,}" for table in above)
        return above, f"lag is above {threshold:,} ({named})"
    total = sum(lags.values())
    return (
        [],
        f"{counted(total, 'offset', 'waits', 'wait')}, the loader is {worker or 'not judged yet'}",
    )


def new_dead_letters(
    before: Mapping[str, int] | None, now: Mapping[str, int]
) -> dict[str, tuple[int, int]]:
    """The offsets between two positions of the loader, first and end, by ``topic/partition``."""
    known = before or {}
    return {
        place: (known.get(place, 0), end) for place, end in now.items() if end > known.get(place, 0)
    }


def load_positions(cursor: str | None) -> dict[str, int] | None:
    """From a cursor; None if it is empty or was written by another release."""
    try:
        positions = json.loads(cursor or "null")
        return {str(place): int(end) for place, end in positions.items()}
    except (ValueError, TypeError, AttributeError):
        return None
