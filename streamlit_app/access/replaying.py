"""Requesting replays, the only action of the dashboard. Permissions are checked here.

A plan is requested by ids or by a filter, a replay only by the id of a plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from streamflow import units
from streamflow.dead_letters.select import MOST_COUNTED, Status
from streamflow.units import counted
from streamlit_app.access.roles import Identity, require_operator
from streamlit_app.measure.dagster import REPLAY_JOB, Dagster

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """Which dead letters to plan a replay of, and with which options.

    Attributes:
        ids: of dead letters; empty for all that match the filter (codes, texts, stream, times).
        since: ISO 8601, as `loaded_until`; absolute, so that the filter matches the same later.
        repairs: applied to each dead letter first, in this order.
        canary: dead letters to send first; the rest is sent once these are stored.
        rate: dead letters per second, at most.
    """

    ids: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    stream: str | None = None
    since: str | None = None
    loaded_until: str | None = None
    repairs: tuple[str, ...] = ()
    canary: int = 10
    rate: float = 500.0

    def config(self) -> dict[str, Any]:
        """The configuration of the Dagster job."""
        return {
            "dry_run": True,
            "ids": list(self.ids),
            "error_codes": list(self.codes),
            "texts": list(self.texts),
            "stream": self.stream,
            "since": self.since,
            "loaded_until": self.loaded_until,
            "repairs": list(self.repairs),
            "canary": self.canary,
            "rate": self.rate,
        }


def plan(dagster: Dagster, identity: Identity, request: PlanRequest) -> str:
    """Launches a run that makes a plan, and returns its id.

    Raises:
        Forbidden: the role is not operator.
        Unavailable: Dagster does not answer.
        UsageError: Dagster rejects the run; says why.
    """
    run_id = _launch(dagster, identity, request.config())
    log.info(
        "plan_requested",
        requested_by=identity.name,
        run_id=run_id,
        dead_letters=len(request.ids) or "all that match",
    )
    return run_id


def apply(dagster: Dagster, identity: Identity, plan_id: int) -> str:
    """Launches a run that applies a plan, and returns its id. Raises as `plan` does."""
    run_id = _launch(dagster, identity, {"dry_run": False, "plan_id": plan_id})
    log.info("replay_requested", requested_by=identity.name, run_id=run_id, plan_id=plan_id)
    return run_id


def _launch(dagster: Dagster, identity: Identity, config: dict[str, Any]) -> str:
    require_operator(identity)
    config |= {"requested_by": identity.name}
    return dagster.launch(REPLAY_JOB, {"ops": {"replay": {"config": config}}})


@dataclass(frozen=True, slots=True)
class PlanScope:
    """Which dead letters a plan would include, in words, and whether there are any."""

    text: str
    possible: bool


def scope(ticked: Sequence[str], counts: Mapping[Status, int], shown: int) -> PlanScope:
    """Which dead letters a plan would include: the selected ones, or all that match the filter.

    Args:
        ticked: the statuses of the selected ones.
        counts: how many match, by status; incomplete past `MOST_COUNTED` in all.
        shown: how many of them the list shows.
    """
    newest = f", of which the newest {units.count(shown)} are shown"
    if ticked:
        number, open_ = len(ticked), sum(status == Status.OPEN for status in ticked)
        few = "" if open_ == number else f", of which {units.count(open_)} can be replayed"
        return PlanScope(f"Plans the {counted(number, 'selected dead letter')}{few}", open_ > 0)
    number, open_ = sum(counts.values()), counts.get(Status.OPEN, 0)
    if number > MOST_COUNTED:
        return PlanScope(
            f"Plans all open ones of the more than {units.count(MOST_COUNTED)} dead letters that "
            f"match the filter above{newest}",
            True,
        )
    if not open_:
        return PlanScope(
            "No open dead letter matches the filter above, and only open ones are replayed", False
        )
    which = "all"
    if number == 1:
        which = "the"
    elif open_ < number:
        which = f"the {counted(open_, 'open one')} of the"
    matching = f"{counted(number, 'dead letter')} that {'matches' if number == 1 else 'match'}"
    few = newest if shown < number else ""
    return PlanScope(f"Plans {which} {matching} the filter above{few}", True)
