"""Deletes what Dagster keeps forever: finished runs with their events, logs and files, events reported
outside of runs, and executions of checks. Dagster deletes old ticks itself (``dagster.yaml``).

`DagsterInstance.delete_run` does not delete the last two, and Dagster has no other interface for them
(https://github.com/dagster-io/dagster/issues/33785), so they are deleted from its tables.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import dagster as dg
from sqlalchemy import DateTime, TextClause, bindparam, text

from streamflow_dagster.resources import Platform

JOB: Final = "prune_dagster"

# Limits of one run of the job, which is hourly: twenty times what accumulates in a day.
RUNS_AT_ONCE: Final = 500
ROWS_AT_ONCE: Final = 50_000

_FINISHED: Final = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]


def _statement(sql: str) -> TextClause:
    return text(sql).bindparams(bindparam("before", type_=DateTime()))


# What the workers report, and the results of checks reported beside their runs.
_REPORTED_EVENTS: Final = _statement("""
    DELETE FROM event_logs
    WHERE id IN (
        SELECT id FROM event_logs
        WHERE run_id = '' AND timestamp < :before
        ORDER BY id LIMIT :most
    )
""")
# The last evaluation of a check stays, however old it is.
_CHECK_EXECUTIONS: Final = _statement("""
    DELETE FROM asset_check_executions
    WHERE id IN (
        SELECT older.id FROM asset_check_executions AS older
        WHERE older.create_timestamp < :before
            AND EXISTS (
                SELECT 1 FROM asset_check_executions AS newer
                WHERE newer.asset_key = older.asset_key
                    AND newer.check_name = older.check_name
                    AND newer.id > older.id
                    AND newer.execution_status <> 'PLANNED'
            )
        ORDER BY older.id LIMIT :most
    )
""")
_EVENT_TAGS: Final = _statement("""
    DELETE FROM asset_event_tags
    WHERE id IN (
        SELECT id FROM asset_event_tags
        WHERE event_timestamp < :before
            AND NOT EXISTS (SELECT 1 FROM event_logs WHERE event_logs.id = event_id)
        ORDER BY id LIMIT :most
    )
""")


def prune(instance: dg.DagsterInstance, before: datetime) -> dict[str, int]:
    """Deletes what is older, at most `RUNS_AT_ONCE` runs and `ROWS_AT_ONCE` rows of a table. Returns the
    number of each kind."""
    filters = dg.RunsFilter(statuses=_FINISHED, updated_before=before)
    runs = instance.get_run_records(filters, limit=RUNS_AT_ONCE, ascending=True)
    for record in runs:
        _delete_run(instance, record.dagster_run.run_id)
    values = {"before": before.astimezone(UTC).replace(tzinfo=None), "most": ROWS_AT_ONCE}
    deleted = {"runs": len(runs)}
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        for name, statement in (
            ("reported_events", _REPORTED_EVENTS),
            ("check_executions", _CHECK_EXECUTIONS),
            ("event_tags", _EVENT_TAGS),
        ):
            deleted[name] = connection.execute(statement, values).rowcount
    if _is_sqlite(storage):
        # It has a copy of reported events in a separate file.
        with storage.run_connection("") as connection:
            connection.execute(_REPORTED_EVENTS, values)
    return deleted


def _delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    # Dagster deletes only the rows of a run's file, not the file.
    storage: Any = instance.event_log_storage
    if _is_sqlite(storage):
        for suffix in ("", "-wal", "-shm"):
            Path(f"{storage.path_for_shard(run_id)}{suffix}").unlink(missing_ok=True)


def _is_sqlite(storage: Any) -> bool:
    """Only in SQLite, the events of each run are in a database file of their own."""
    return hasattr(storage, "path_for_shard")


@dg.op
def prune_instance(context: dg.OpExecutionContext, platform: dg.ResourceParam[Platform]) -> None:
    days = platform.settings().dagster_retention_days
    deleted = prune(context.instance, datetime.now(UTC) - timedelta(days=days))
    context.add_output_metadata({"days": days, **deleted})


@dg.job(
    name=JOB,
    description="Deletes finished runs, reported events and executions of checks that are older than "
    "STREAMFLOW_DAGSTER_RETENTION_DAYS.",
)
def prune_dagster() -> None:
    prune_instance()
