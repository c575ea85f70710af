from datetime import UTC
from typing import Final

import dagster as dg

from streamflow.errors import StreamFlowError
from streamflow.settings.orchestration import HOUR_FORMAT, OrchestrationSettings
from streamflow_dagster.catalog import Catalog
from streamflow_dagster.defs.jobs import DAILY, HOURS, QUALITY, RETENTION, SESSIONS
from streamflow_dagster.defs.pruning import JOB as PRUNE
from streamflow_dagster.defs.rollups_sql import stale_hours
from streamflow_dagster.failures import each_stream
from streamflow_dagster.kept_instance import kept_instance
from streamflow_dagster.resources import Platform

_HOURS_AT_ONCE: Final = 24
_RUNNING: Final = dg.DefaultScheduleStatus.RUNNING
_UNFINISHED: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def schedules(settings: OrchestrationSettings, catalog: Catalog) -> list[dg.ScheduleDefinition]:
    has_sessions = any(stream.sessions for stream in catalog.streams)
    sessions = ("sessions_schedule", SESSIONS, "*/15 * * * *", "Sessions of newly loaded rows.")
    return [
        _simple("data_quality_schedule", QUALITY, settings.quality_cron, "All checks."),
        _simple("daily_rollup_schedule", DAILY, "*/15 * * * *", "Days with newly loaded rows."),
        _simple("retention_schedule", RETENTION, "30 3 * * *", "Drops days past their age."),
        _simple("prune_schedule", PRUNE, "37 * * * *", "Deletes Dagster's old runs and events."),
        _hours(settings),
        *([_simple(*sessions)] if has_sessions else []),
    ]


def _simple(name: str, job: str, cron: str, description: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=name,
        job_name=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=_RUNNING,
        description=f"{description} Skipped while the previous run is not done.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        filters = dg.RunsFilter(job_name=job, statuses=_UNFINISHED)
        running = kept_instance(context).get_run_records(filters, limit=1)
        if running:
            return dg.SkipReason(f"run {running[0].dagster_run.run_id} is not done yet")
        return dg.RunRequest()

    return schedule


def _hours(settings: OrchestrationSettings) -> dg.ScheduleDefinition:
    start = settings.rollup_start

    @dg.schedule(
        name="hourly_rollup_schedule",
        job_name=HOURS,
        cron_schedule="7 * * * *",
        execution_timezone="UTC",
        default_status=_RUNNING,
        description="The last whole hour, and earlier ones that late events have changed since.",
    )
    def schedule(
        context: dg.ScheduleEvaluationContext, platform: dg.ResourceParam[Platform]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        try:
            now = platform.settings()
            platform.require_reachable(now)
            with platform.database(now, statement_seconds=45) as connection:
                # A stream whose query fails shows it in the rollup's run.
                stale, refused = each_stream(
                    platform.streams(now),
                    lambda stream: stale_hours(connection, stream, start, most=_HOURS_AT_ONCE),
                )
            hours = {hour for hours in stale for hour in hours}
        except StreamFlowError as error:
            return dg.SkipReason(str(error))
        if not hours:
            broken = f"; PostgreSQL refuses the query for {'; '.join(refused)}" if refused else ""
            return dg.SkipReason(f"no hour has newly loaded rows{broken}")
        return [
            # With the scheduled time in the key, an hour that changes again is rolled up again.
            dg.RunRequest(
                run_key=f"{context.scheduled_execution_time:{HOUR_FORMAT}}/{hour:{HOUR_FORMAT}}",
                partition_key=hour.astimezone(UTC).strftime(HOUR_FORMAT),
            )
            for hour in sorted(hours)
        ]

    return schedule
