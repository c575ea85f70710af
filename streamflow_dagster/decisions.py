"""What sensors conclude from what they saw: pure, so that they are tested without Dagster.

A sensor that asks for a run must neither ask twice for the same nor forget one that failed. So it
does not rely on run keys (a used one never launches again): what became of the runs that it had asked
for tells whether one is on its way, has failed, or is done.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

# After its last attempt, a sensor asks once an hour: what is broken for long shall not stay so for
# ever, nor fill the list of runs.
GIVING_UP: Final = timedelta(hours=1)
# A worker joins, leaves and changes partitions in between: one look is no proof.
PROOF: Final = 2


class Asked(NamedTuple):
    """A run that a sensor had asked for.

    Attributes:
        run_id: names it.
        finished: it has ended.
        succeeded: and well.
        at: of its last change.
    """

    run_id: str
    finished: bool
    succeeded: bool
    at: datetime


def reason_to_wait(
    asked: Sequence[Asked], now: datetime, *, attempts: int, pause: timedelta, lost: timedelta
) -> str | None:
    """Why no run may be asked for now; None when one may.

    Args:
        asked: runs that were asked for before, the latest first.
        now: the time.
        attempts: how many failures in a row are followed by another attempt at once.
        pause: to the second attempt; doubled with each further one.
        lost: a run that has not changed for so long does not count as on its way.
    """
    for run in asked:
        if not run.finished and now - run.at < lost:
            return f"run {run.run_id} is on its way"
    failures = failures_in_a_row(asked)
    if not failures:
        return None
    since = now - asked[0].at
    if failures >= attempts:
        wait = GIVING_UP
        says = f"{failures} runs failed in a row, the last is {asked[0].run_id}: see why"
    else:
        wait = pause * 2 ** (failures - 1)
        says = f"run {asked[0].run_id} failed"
    if since >= wait:
        return None
    return f"{says}; asked again in {(wait - since).total_seconds():.0f} s"


def failures_in_a_row(asked: Iterable[Asked]) -> int:
    """How many of the latest runs failed, back to the last that did not. A run that was lost counts."""
    failures = 0
    for run in asked:
        if run.succeeded:
            break
        failures += 1
    return failures


class WorkerState(StrEnum):
    """How a worker is, as seen from outside."""

    UP = "up"
    GONE = "gone"
    STALLED = "stalled"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a worker.

    Attributes:
        state: as it was told to everybody; changes only with proof.
        position: sum of its positions.
        doubt: looks in a row that contradict `state`, and what they say.
        looks: how many those are.
    """

    state: WorkerState | None
    position: int
    doubt: WorkerState | None = None
    looks: int = 0


def look_at(before: Seen | None, *, members: int, position: int, lag: int) -> Seen:
    """What is known of a worker after another look."""
    if members == 0:
        now = WorkerState.GONE
    elif before is not None and lag > 0 and position == before.position:
        now = WorkerState.STALLED
    else:
        now = WorkerState.UP
    told = before.state if before is not None else None
    if now is told:
        return Seen(told, position)
    looks = before.looks + 1 if before is not None and before.doubt is now else 1
    # Nobody waits to hear that all is well at first.
    if looks >= PROOF or (told is None and now is WorkerState.UP):
        return Seen(now, position)
    return Seen(told, position, now, looks)


def tables_to_drain(
    lags: Mapping[str, int], *, worker: WorkerState | None, threshold: int
) -> tuple[list[str], str]:
    """Which tables are to be drained, and why, or why none.

    Args:
        lags: offsets that wait, by table.
        worker: how the loader is.
        threshold: a lag beyond this is drained although the loader is there.
    """
    waiting = sorted(table for table, lag in lags.items() if lag > 0)
    if worker in (WorkerState.GONE, WorkerState.STALLED) and waiting:
        total = sum(lags[table] for table in waiting)
        return waiting, f"the loader is {worker} and {total:,} offsets wait"
    beyond = [table for table in waiting if lags[table] > threshold]
    if beyond:
        told = ", ".join(f"{table}: {lags[table]:,}" for table in beyond)
        return beyond, f"lag is above {threshold:,} ({told})"
    total = sum(lags.values())
    return [], f"{total:,} offsets wait, the loader is {worker or 'not judged yet'}"


class LettersSeen(NamedTuple):
    """How far dead letters were seen: next offset, by ``topic/partition``."""

    positions: dict[str, int]


def new_letters(before: LettersSeen | None, now: LettersSeen) -> dict[str, tuple[int, int]]:
    """The offsets that came since, first and the one after the last, by ``topic/partition``."""
    known = before.positions if before is not None else {}
    return {
        place: (known.get(place, 0), end)
        for place, end in now.positions.items()
        if end > known.get(place, 0)
    }


def dump_seen(seen: Mapping[str, Seen]) -> str:
    """As a cursor."""
    return json.dumps(
        {name: [each.state, each.position, each.doubt, each.looks] for name, each in seen.items()}
    )


def load_seen(cursor: str | None) -> dict[str, Seen]:
    """From a cursor; nothing where it is of another release."""
    try:
        found = json.loads(cursor or "{}")
        return {
            name: Seen(
                WorkerState(state) if state else None,
                int(position),
                WorkerState(doubt) if doubt else None,
                int(looks),
            )
            for name, (state, position, doubt, looks) in found.items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}


def load_letters(cursor: str | None) -> LettersSeen | None:
    """From a cursor; None for none, or one of another release."""
    try:
        found = json.loads(cursor or "null")
        return LettersSeen({str(place): int(end) for place, end in found.items()})
    except (ValueError, TypeError, AttributeError):
        return None
