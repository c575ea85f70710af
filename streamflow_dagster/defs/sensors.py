"""Sensors: thin shells that measure (`observing`), decide (`decisions`) and request runs."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg

from streamflow.alerting.book import Alert, AlertState
from streamflow.alerting.rules import RUN_FAILED, Condition, Severity, Thresholds
from streamflow.alerting.webhook import body_of, send
from streamflow.errors import StreamFlowError
from streamflow.lag.history import WINDOW
from streamflow.lag.measure import LagSample
from streamflow.postgres.connections import Connection
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow_dagster import observing
from streamflow_dagster.catalog import Catalog, table_key, topic_key
from streamflow_dagster.decisions import (
    RequestedRun,
    WorkerWatch,
    failures_in_a_row,
    load_positions,
    new_dead_letters,
    reason_to_wait,
    tables_to_drain,
)
from streamflow_dagster.defs.jobs import DRAIN, TRIAGE
from streamflow_dagster.kept_instance import kept_instance
from streamflow_dagster.resources import Platform

LAG: Final = "lag_sensor"
DEAD_LETTERS: Final = "dead_letter_sensor"

# Tag: the sensor that requested the run.
ASKED_BY: Final = "streamflow/asked_by"
REASON: Final = "streamflow/reason"

_REMEMBERED: Final = 20  # runs
_LOADER: Final = "loader"
_ATTEMPTS: Final = 3  # to reach the webhook: an evaluation must be short
_TRACE: Final = "\n\nStack Trace"  # what follows the message of a failed step
_LOOKS: Final = 3  # samples that a window holds, however far apart


def sensors(catalog: Catalog, settings: OrchestrationSettings) -> list[dg.SensorDefinition]:
    common: dict[str, Any] = {
        "minimum_interval_seconds": settings.sensor_seconds,
        "default_status": dg.DefaultSensorStatus.RUNNING,
    }
    return [
        _lag(catalog, common),
        _dead_letters(catalog, common),
        _heartbeat(catalog, common),
        _failure(common),
    ]


def _lag(catalog: Catalog, common: dict[str, Any]) -> dg.SensorDefinition:
    @dg.sensor(
        name=LAG,
        job_name=DRAIN,
        description="Starts a drain when a lag passes STREAMFLOW_DRAIN_LAG, or when the loader is gone "
        "or stalled and something waits.",
        **common,
    )
    def sensor(
        context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
    ) -> dg.SensorResult:
        try:
            settings, sample, watch, _ = _watched(platform, context.cursor)
        except StreamFlowError as error:
            return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
        lags = observing.table_lags(catalog, sample, settings.group(_LOADER))
        tables, reason = tables_to_drain(
            lags, worker=watch.health(_LOADER), threshold=settings.drain_lag
        )
        wait = _wait(kept_instance(context), LAG, settings) if tables else None
        if wait or not tables:
            return dg.SensorResult(skip_reason=wait or reason, cursor=watch.dump())
        request = dg.RunRequest(
            asset_selection=[key for name in tables for key in catalog.drained_with(name)],
            tags={ASKED_BY: LAG, REASON: reason},
        )
        return dg.SensorResult(run_requests=[request], cursor=watch.dump())

    return sensor


def _dead_letters(catalog: Catalog, common: dict[str, Any]) -> dg.SensorDefinition:
    topics = sorted({stream.dead_letter_topic for stream in catalog.streams})

    @dg.sensor(
        name=DEAD_LETTERS,
        job_name=TRIAGE,
        description="Counts dead letters by cause when new ones were loaded.",
        **common,
    )
    def sensor(
        context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
    ) -> dg.SensorResult:
        before = load_positions(context.cursor)
        try:
            with _measuring(platform) as (settings, connection):
                now = observing.dead_letters_loaded(connection, settings, topics)
                codes = observing.dead_letter_codes(connection, new_dead_letters(before, now))
        except StreamFlowError as error:
            return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
        failed = failures_in_a_row(_requested(kept_instance(context), DEAD_LETTERS))
        if not codes and not failed:
            return dg.SensorResult(skip_reason="no new dead letters", cursor=json.dumps(now))
        wait = _wait(kept_instance(context), DEAD_LETTERS, settings)
        if wait:
            # The cursor stays: what has arrived is part of the next request.
            return dg.SensorResult(skip_reason=wait, cursor=context.cursor)
        counted = ", ".join(f"{number:,} {code}" for code, number in codes.items())
        reason = f"new dead letters: {counted}" if counted else "again"
        request = dg.RunRequest(tags={ASKED_BY: DEAD_LETTERS, REASON: reason})
        return dg.SensorResult(run_requests=[request], cursor=json.dumps(now))

    return sensor


def _heartbeat(catalog: Catalog, common: dict[str, Any]) -> dg.SensorDefinition:
    first = catalog.streams[0]
    works_on = {
        "validator": topic_key(first.topics.notifications),
        "analytics": topic_key(first.topics.analytics),
        _LOADER: table_key(first.event_table),
    }

    @dg.sensor(
        name="worker_heartbeat_sensor",
        description="Alerts when a worker is gone, stalled or behind, and when it is back: as an "
        "observation of the asset it works on, and to the webhook.",
        **common,
    )
    def sensor(
        context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
    ) -> dg.SensorResult:
        try:
            settings, _, watch, changed = _watched(platform, context.cursor)
        except StreamFlowError as error:
            return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
        events = []
        for alert in changed:
            worker = watch.worker_of(alert.condition.subject)
            body = body_of(alert, worker=worker)
            _notify(context, settings, body)
            if worker not in works_on:  # a group of earlier settings
                continue
            state = str(watch.health(worker) or "unknown")
            events.append(
                dg.AssetObservation(
                    works_on[worker],
                    description=body["text"],
                    metadata={"worker": worker, "state": state, "alert": alert.condition.key},
                )
            )
        return dg.SensorResult(
            cursor=watch.dump(),
            asset_events=events,
            skip_reason=", ".join(f"{name} {watch.health(name) or '?'}" for name in works_on),
        )

    return sensor


def _failure(common: dict[str, Any]) -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        name="run_failure_sensor",
        description="Sends each failed run, and so each failed blocking check, to the webhook of "
        "STREAMFLOW_WEBHOOK_URL.",
        **common,
    )
    def sensor(
        context: dg.RunFailureSensorContext, platform: dg.ResourceParam[Platform]
    ) -> dg.SkipReason | None:
        run = context.dagster_run
        reasons = "; ".join(
            f"{event.step_key}: "
            + " ".join(event.step_failure_data.error_display_string.partition(_TRACE)[0].split())
            for event in context.get_step_failure_events()
        )
        condition = Condition(
            RUN_FAILED,
            run.job_name,
            Severity.CRITICAL,
            f"run of {run.job_name} failed. {reasons or context.failure_event.message}",
            "open the run in Dagster",
        )
        # An event, not a state: no "resolved" follows.
        now = time.time()
        alert = Alert(condition, AlertState.FIRING, now, fired_at=now)
        body = body_of(
            alert,
            job=run.job_name,
            run_id=run.run_id,
            failed_checks=_failed_checks(context.instance, run.run_id),
        )
        if _notify(context, platform.settings(), body):
            return None
        return dg.SkipReason("no webhook is configured, or it did not accept the alert")

    return sensor


def _failed_checks(instance: dg.DagsterInstance, run_id: str) -> list[dict[str, str]]:
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    records = instance.get_records_for_run(run_id, of_type=kind).records
    events = [record.event_log_entry.dagster_event for record in records]
    evaluations = [event.asset_check_evaluation_data for event in events if event is not None]
    return [
        {
            "asset": evaluation.asset_key.to_user_string(),
            "check": evaluation.check_name,
            "says": evaluation.description or "",
        }
        for evaluation in evaluations
        if not evaluation.passed
    ]


def _notify(
    context: dg.SensorEvaluationContext | dg.RunFailureSensorContext,
    settings: OrchestrationSettings,
    body: dict[str, Any],
) -> bool:
    """Posts to the webhook, if one is configured. A failure is a line in the sensor's log."""
    if settings.webhook_url is None:
        return False
    try:
        send(settings.webhook_url, body, attempts=_ATTEMPTS)
    except StreamFlowError as error:
        context.log.warning(str(error))
        return False
    return True


def _watched(
    platform: Platform, cursor: str | None
) -> tuple[OrchestrationSettings, LagSample, WorkerWatch, list[Alert]]:
    """The settings, the lag measured now, the cursor's watch after that sample, and the alerts that
    changed. Raises as `_measuring`."""
    with _measuring(platform) as (settings, connection):
        sample = observing.measure_lag(platform, settings, connection)
    watch = WorkerWatch(settings.alert_for, max(WINDOW, _LOOKS * settings.sensor_seconds))
    watch.load(cursor)
    changed = watch.update(sample, Thresholds.of(settings), time.time())
    return settings, sample, watch, changed


@contextmanager
def _measuring(platform: Platform) -> Iterator[tuple[OrchestrationSettings, Connection]]:
    """Raises a StreamFlowError if nothing can be measured now."""
    settings = platform.settings()
    platform.require_reachable(settings)
    with platform.database(settings, statement_seconds=5) as connection:
        yield settings, connection


def _requested(instance: dg.DagsterInstance, sensor: str) -> list[RequestedRun]:
    """The latest run first."""
    records = instance.get_run_records(dg.RunsFilter(tags={ASKED_BY: sensor}), limit=_REMEMBERED)
    return [
        RequestedRun(
            record.dagster_run.run_id,
            record.dagster_run.is_finished,
            record.dagster_run.is_success,
            record.update_timestamp.replace(tzinfo=UTC),
        )
        for record in records
    ]


def _wait(instance: dg.DagsterInstance, sensor: str, settings: OrchestrationSettings) -> str | None:
    return reason_to_wait(
        _requested(instance, sensor),
        datetime.now(UTC),
        attempts=settings.request_attempts,
        pause=timedelta(seconds=settings.sensor_seconds),
        # A run may wait in the queue, then drain for its whole time.
        lost=timedelta(seconds=2 * settings.drain_seconds + 300),
    )
