"""Asking for a replay: the one action of the dashboard. Checked here, whoever calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from streamlit_app.roles import Identity, require_operator
from streamlit_app.sources.dagster import REPLAY_JOB, Dagster

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be replayed, and how.

    Attributes:
        ids: of the letters; empty for all that match `codes` and `text`.
        repairs: functions that mend each letter first, in this order.
        dry_run: only tell what would pass and what would fail.
        canary: letters to send, and to see stored, before any other.
        rate: letters a second, at most.
    """

    ids: Sequence[str] = ()
    codes: Sequence[str] = ()
    text: str = ""
    repairs: Sequence[str] = ()
    dry_run: bool = True
    canary: int = 10
    rate: float = 500.0

    def config(self, requested_by: str) -> dict[str, Any]:
        """The run config of the Dagster job."""
        return {
            "ops": {
                "replay": {
                    "config": {
                        "ids": list(self.ids),
                        "error_codes": list(self.codes),
                        "text": self.text or None,
                        "repairs": list(self.repairs),
                        "dry_run": self.dry_run,
                        "canary": self.canary,
                        "rate": self.rate,
                        "requested_by": requested_by,
                    }
                }
            }
        }


def replay(dagster: Dagster, identity: Identity, order: Order) -> str:
    """Starts a replay, and returns its run's id.

    Raises:
        Forbidden: the role is not operator.
        Unavailable: Dagster does not answer.
        UsageError: Dagster refuses; says why.
    """
    require_operator(identity)
    run_id = dagster.launch(REPLAY_JOB, order.config(identity.name))
    log.info(
        "replay_requested",
        requested_by=identity.name,
        run_id=run_id,
        dry_run=order.dry_run,
        letters=len(order.ids) or "all that match",
    )
    return run_id
