"""Sensors: thin shells that look (`observing`), decide (`decisions`) and ask."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import dagster as dg

from streamflow.errors import StreamFlowError
from streamflow.postgres.connections import Connection
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow.stream import reads
from streamflow_dagster import observing
from streamflow_dagster.alerts import tell
from streamflow_dagster.catalog import Catalog, table_key, topic_key
from streamflow_dagster.decisions import (
    Asked,
    LettersSeen,
    Seen,
    WorkerState,
    dump_seen,
    failures_in_a_row,
    load_letters,
    load_seen,
    new_letters,
    reason_to_wait,
    tables_to_drain,
)
from streamflow_dagster.defs.jobs import DRAIN, TRIAGE
from streamflow_dagster.resources import Platform

LAG: Final = "lag_sensor"
LETTERS: Final = "dead_letter_sensor"
HEARTBEAT: Final = "worker_heartbeat_sensor"
FAILURE: Final = "run_failure_sensor"

# Which runs are whose: by this tag a sensor finds those that it had asked for.
ASKED_BY: Final = "streamflow/asked_by"
REASON: Final = "streamflow/reason"

_T = TypeVar("_T")
_REMEMBERED: Final = 20  # runs
_LOADER: Final = "loader"


def sensors(catalog: Catalog, settings: OrchestrationSettings) -> list[dg.SensorDefinition]:
    """All sensors, running by default."""
    return [
        _lag(catalog, settings.sensor_seconds),
        _letters(catalog, settings.sensor_seconds),
        _heartbeat(catalog, settings.sensor_seconds),
        _failure(settings.sensor_seconds),
    ]


def _lag(catalog: Catalog, seconds: int) -> dg.SensorDefinition:
    @dg.sensor(
        name=LAG,
        job_name=DRAIN,
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts a drain when a lag passes STREAMFLOW_DRAIN_LAG, or when the loader is gone "
        "or stalled and something waits.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
    ) -> dg.SensorResult:
        before = load_seen(context.cursor).get(_LOADER)

        def look(
            settings: OrchestrationSettings, connection: Connection
        ) -> tuple[OrchestrationSettings, dict[str, int], Seen]:
            lags = observing.table_lags(platform, settings, connection, catalog)
            waiting = sum(lags.values())
            seen = observing.loader_seen(platform, settings, connection, before, waiting)
            return settings, lags, seen

        found = _looked(platform, look)
        if isinstance(found, str):
            return dg.SensorResult(skip_reason=found, cursor=context.cursor)
        settings, lags, seen = found
        cursor = dump_seen({_LOADER: seen})
        tables, reason = tables_to_drain(lags, worker=seen.state, threshold=settings.drain_lag)
        wait = _wait(context.instance, LAG, settings) if tables else None
        if wait or not tables:
            return dg.SensorResult(skip_reason=wait or reason, cursor=cursor)
        request = dg.RunRequest(
            asset_selection=[table_key(name) for name in tables],
            tags={ASKED_BY: LAG, REASON: reason},
        )
        return dg.SensorResult(run_requests=[request], cursor=cursor)

    return sensor


def _letters(catalog: Catalog, seconds: int) -> dg.SensorDefinition:
    topics = sorted({stream.dead_letter_topic for stream in catalog.streams})

    @dg.sensor(
        name=LETTERS,
        job_name=TRIAGE,
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Has dead letters counted by cause when new ones were loaded.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
    ) -> dg.SensorResult:
        before = load_letters(context.cursor)

        def look(
            settings: OrchestrationSettings, connection: Connection
        ) -> tuple[OrchestrationSettings, LettersSeen, dict[str, int]]:
            now = LettersSeen(observing.letters_loaded(connection, settings, topics))
            return settings, now, observing.letter_codes(connection, new_letters(before, now))

        found = _looked(platform, look)
        if isinstance(found, str):
            return dg.SensorResult(skip_reason=found, cursor=context.cursor)
        settings, now, codes = found
        failed = failures_in_a_row(_asked(context.instance, LETTERS))
        if not codes and not failed:
            return dg.SensorResult(
                skip_reason="no new dead letters", cursor=json.dumps(now.positions)
            )
        wait = _wait(context.instance, LETTERS, settings)
        if wait:
            # The cursor stays: what has arrived is asked for with the next request.
            return dg.SensorResult(skip_reason=wait, cursor=context.cursor)
        told = ", ".join(f"{number:,} {code}" for code, number in codes.items())
        request = dg.RunRequest(
            tags={ASKED_BY: LETTERS, REASON: f"new dead letters: {told}" if told else "again"}
        )
        return dg.SensorResult(run_requests=[request], cursor=json.dumps(now.positions))

    return sensor


def _heartbeat(catalog: Catalog, seconds: int) -> dg.SensorDefinition:
    first = catalog.streams[0]
    topics = {worker: reads(worker, catalog.streams) for worker in ("validator", "analytics")}
    works_on = {
        "validator": topic_key(first.topics.notifications),
        "analytics": topic_key(first.topics.analytics),
        _LOADER: table_key(first.table),
    }

    @dg.sensor(
        name=HEARTBEAT,
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells when a worker is gone, stalled or back: as an observation of the asset it "
        "works on, and to the webhook.",
    )
    def sensor(
        context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
    ) -> dg.SensorResult:
        before = load_seen(context.cursor)

        def look(
            settings: OrchestrationSettings, connection: Connection
        ) -> tuple[OrchestrationSettings, dict[str, Seen]]:
            lag = sum(observing.table_lags(platform, settings, connection, catalog).values())
            seen = observing.consumers_seen(platform, settings, topics, before)
            known = before.get(_LOADER)
            seen[_LOADER] = observing.loader_seen(platform, settings, connection, known, lag)
            return settings, seen

        found = _looked(platform, look)
        if isinstance(found, str):
            return dg.SensorResult(skip_reason=found, cursor=context.cursor)
        settings, seen = found
        changed = {name: each for name, each in seen.items() if _is_news(before.get(name), each)}
        for name, each in changed.items():
            _tell(context, settings, f"StreamFlow: the {name} is {each.state}", worker=name)
        return dg.SensorResult(
            cursor=dump_seen(seen),
            asset_events=[
                dg.AssetObservation(
                    works_on[name],
                    description=f"the {name} is {each.state}",
                    metadata={"worker": name, "state": str(each.state)},
                )
                for name, each in changed.items()
            ],
            skip_reason=", ".join(f"{name} {each.state or '?'}" for name, each in seen.items()),
        )

    return sensor


def _is_news(before: Seen | None, now: Seen) -> bool:
    told = before.state if before is not None else None
    if now.state is told or now.state is None:
        return False
    # That all is well at first is no news.
    return not (told is None and now.state is WorkerState.UP)


def _failure(seconds: int) -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        name=FAILURE,
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the webhook of STREAMFLOW_WEBHOOK_URL of each run that fails, so of each "
        "failed blocking check, too.",
    )
    def sensor(
        context: dg.RunFailureSensorContext, platform: dg.ResourceParam[Platform]
    ) -> dg.SkipReason | None:
        run = context.dagster_run
        causes = [
            (
                event.step_key,
                event.step_failure_data.error_display_string.split("\n\nStack Trace")[0],
            )
            for event in context.get_step_failure_events()
        ]
        reasons = "; ".join(f"{step}: {' '.join(why.split())}" for step, why in causes)
        told = _tell(
            context,
            platform.settings(),
            f"StreamFlow: run of {run.job_name} failed. {reasons or context.failure_event.message}",
            job=run.job_name,
            run_id=run.run_id,
            failed_checks=_failed_checks(context.instance, run.run_id),
        )
        return None if told else dg.SkipReason("no webhook is set, or it did not take it")

    return sensor


def _failed_checks(instance: dg.DagsterInstance, run_id: str) -> list[dict[str, str]]:
    records = instance.get_records_for_run(
        run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    events = [record.event_log_entry.dagster_event for record in records]
    found = [event.asset_check_evaluation_data for event in events if event is not None]
    return [
        {
            "asset": each.asset_key.to_user_string(),
            "check": each.check_name,
            "says": each.description or "",
        }
        for each in found
        if not each.passed
    ]


def _tell(
    context: dg.SensorEvaluationContext | dg.RunFailureSensorContext,
    settings: OrchestrationSettings,
    text: str,
    **details: object,
) -> bool:
    """Tells the webhook; a deaf one is a line in the sensor's log."""
    try:
        return tell(settings, text, **details)
    except StreamFlowError as error:
        context.log.warning(str(error))
        return False


def _looked(
    platform: Platform, look: Callable[[OrchestrationSettings, Connection], _T]
) -> _T | str:
    """What was seen; or in words why there is nothing to look at."""
    try:
        settings = platform.settings()
        platform.knock(settings)
        seconds = observing.STATEMENT_SECONDS
        with platform.database(settings, statement_seconds=seconds) as connection:
            return look(settings, connection)
    except StreamFlowError as error:
        return str(error)


def _asked(instance: dg.DagsterInstance, sensor: str) -> list[Asked]:
    """The runs that a sensor had asked for, the latest first."""
    records = instance.get_run_records(dg.RunsFilter(tags={ASKED_BY: sensor}), limit=_REMEMBERED)
    return [
        Asked(
            record.dagster_run.run_id,
            record.dagster_run.is_finished,
            record.dagster_run.is_success,
            record.update_timestamp.replace(tzinfo=UTC),
        )
        for record in records
    ]


def _wait(instance: dg.DagsterInstance, sensor: str, settings: OrchestrationSettings) -> str | None:
    return reason_to_wait(
        _asked(instance, sensor),
        datetime.now(UTC),
        attempts=settings.request_attempts,
        pause=timedelta(seconds=settings.sensor_seconds),
        # A run may wait in the queue, then drain for its whole time.
        lost=timedelta(seconds=2 * settings.drain_seconds + 300),
    )
