"""Jobs: selections of assets and checks that are run together."""

from typing import Any, Final

import dagster as dg

from streamflow_dagster.catalog import Catalog, rollup_key
from streamflow_dagster.defs.retention import KEY as EVENTS_RETENTION
from streamflow_dagster.defs.rollups import CAUSES, HOURLY, daily_rollups
from streamflow_dagster.defs.sessions import session_entries

# Dagster does not export the type of a job that is a selection.
Job = Any

QUALITY: Final = "data_quality"
DRAIN: Final = "drain_tables"
TRIAGE: Final = "triage_dead_letters"
DAILY: Final = "roll_days"
HOURS: Final = "roll_hours"
RETENTION: Final = "drop_expired_days"
SESSIONS: Final = "compute_sessions"


def jobs(catalog: Catalog) -> list[Job]:
    tables = [entry.key for entry in catalog.tables]
    daily = [rollup_key(rollup.table) for rollup, _ in daily_rollups(catalog.streams)]
    sessions = [entry.key for entry in session_entries(catalog.streams)]
    return [
        dg.define_asset_job(
            QUALITY,
            dg.AssetSelection.all_asset_checks(),
            description="All checks, nothing is materialized.",
        ),
        _of(DRAIN, tables, "Loads tables up to where their topics end now."),
        _of(TRIAGE, [CAUSES], "Counts dead letters by cause."),
        _of(DAILY, [*daily, CAUSES], "Rollups of days with newly loaded rows."),
        _of(HOURS, [HOURLY], "Rollup of one hour, or of a range of them."),
        _of(RETENTION, [EVENTS_RETENTION], "Drops days of events past their age."),
        *([_of(SESSIONS, sessions, "Sessions of newly loaded rows.")] if sessions else []),
    ]


def _of(name: str, keys: list[dg.AssetKey], description: str) -> Job:
    # Checks have a schedule of their own.
    selection = dg.AssetSelection.assets(*keys).without_checks()
    return dg.define_asset_job(name, selection, description=description)
