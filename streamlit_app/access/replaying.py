"""Asking for replays: the one action of the dashboard. Rights are checked here, whoever calls.

A plan is asked for by ids or by a filter; a replay only by the id of a plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from streamflow import units
from streamflow.dead_letters.select import Status
from streamlit_app.access.roles import Identity, require_operator
from streamlit_app.measure.dagster import REPLAY_JOB, Dagster
from streamlit_app.records.queries import MOST_COUNTED

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What is to be planned, and how it is to be replayed; equal ones ask for the same.

    Attributes:
        ids: of dead letters; empty for all that match the filter, which is the rest of these.
        since: ISO 8601, as `loaded_until`; both are instants, so that the filter does not move.
        repairs: functions that mend each dead letter first, in this order.
        canary: dead letters to send, and to see stored, before any other.
        rate: dead letters a second, at most.
    """

    ids: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    text: str | None = None
    since: str | None = None
    loaded_until: str | None = None
    repairs: tuple[str, ...] = ()
    canary: int = 10
    rate: float = 500.0

    def config(self) -> dict[str, Any]:
        """The configuration of the job."""
        return {
            "dry_run": True,
            "ids": list(self.ids),
            "error_codes": list(self.codes),
            "text": self.text,
            "since": self.since,
            "loaded_until": self.loaded_until,
            "repairs": list(self.repairs),
            "canary": self.canary,
            "rate": self.rate,
        }


def plan(dagster: Dagster, identity: Identity, request: PlanRequest) -> str:
    """Starts making a plan, and returns the id of the run that makes it.

    Raises:
        Forbidden: the role is not operator.
        Unavailable: Dagster does not answer.
        UsageError: Dagster refuses; says why.
    """
    run_id = _launch(dagster, identity, request.config())
    log.info(
        "plan_requested",
        requested_by=identity.name,
        run_id=run_id,
        letters=len(request.ids) or "all that match",
    )
    return run_id


def apply(dagster: Dagster, identity: Identity, plan_id: int) -> str:
    """Starts the replay of a plan's dead letters, and returns the id of its run.

    Raises:
        Forbidden: the role is not operator.
        Unavailable: Dagster does not answer.
        UsageError: Dagster refuses; says why.
    """
    run_id = _launch(dagster, identity, {"dry_run": False, "plan_id": plan_id})
    log.info("replay_requested", requested_by=identity.name, run_id=run_id, plan_id=plan_id)
    return run_id


def _launch(dagster: Dagster, identity: Identity, config: Mapping[str, Any]) -> str:
    require_operator(identity)
    config = {**config, "requested_by": identity.name}
    return dagster.launch(REPLAY_JOB, {"ops": {"replay": {"config": config}}})


@dataclass(frozen=True, slots=True)
class Scope:
    """What a plan would be about, in words, and whether there is anything to plan."""

    text: str
    possible: bool


def scope(ticked: Sequence[str], counts: Mapping[Status, int], shown: int) -> Scope:
    """What a plan would be about: the selected dead letters, or all that match the filter.

    Args:
        ticked: the statuses of the selected ones.
        counts: how many match, by status; past `MOST_COUNTED` in all they are not complete.
        shown: how many of them the list shows.
    """
    if ticked:
        number, open_ = len(ticked), sum(each == Status.OPEN for each in ticked)
        few = "" if open_ == number else f", of which {units.count(open_)} can be replayed"
        selected = f"{units.count(number)} selected {_letters(number)}"
        return Scope(f"Plans the {selected}{few}", open_ > 0)
    number, open_ = sum(counts.values()), counts.get(Status.OPEN, 0)
    if number > MOST_COUNTED:
        return Scope(
            f"Plans all open ones of the more than {units.count(MOST_COUNTED)} dead letters that "
            f"match the filter above, of which the newest {units.count(shown)} are shown",
            True,
        )
    if not open_:
        return Scope(
            "No open dead letter matches the filter above, and only open ones are replayed", False
        )
    matching = (
        "1 dead letter that matches"
        if number == 1
        else f"{units.count(number)} dead letters that match"
    )
    which = f"all {matching}"
    if number == 1:
        which = f"the {matching}"
    elif open_ < number:
        which = f"the {units.count(open_)} open ones of the {matching}"
    few = f", of which the newest {units.count(shown)} are shown" if shown < number else ""
    return Scope(f"Plans {which} the filter above{few}", True)


def _letters(number: int) -> str:
    return "dead letter" if number == 1 else "dead letters"
