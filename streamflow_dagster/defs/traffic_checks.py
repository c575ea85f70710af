"""Checks of traffic: freshness, volume, and the share of dead letters. They warn."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import dagster as dg

from streamflow.alerting.rules import Thresholds
from streamflow.lag.measure import loader_lags
from streamflow.postgres.connections import Connection
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow.stream import Stream
from streamflow_dagster.catalog import Catalog, TableEntry
from streamflow_dagster.checks import TableChecks, define_checks, isolated
from streamflow_dagster.defs import quality_sql as quality
from streamflow_dagster.defs.volume_sql import counted_by_hour, has_hours
from streamflow_dagster.resources import Platform
from streamflow_dagster.verdicts import (
    CheckResult,
    judge_event_age,
    judge_load_age,
    judge_rate,
    judge_volume,
)

LOAD_AGE: Final = "fresh_by_load_time"
EVENT_AGE: Final = "fresh_by_event_time"
VOLUME: Final = "volume_as_usual"
RATE: Final = "few_dead_letters"

_DESCRIPTIONS: Final = {
    LOAD_AGE: "Rows were loaded recently, or there is nothing to load (STREAMFLOW_ALERT_FRESHNESS_SECONDS).",
    EVENT_AGE: "The latest event is recent (STREAMFLOW_FRESH_EVENT_SECONDS).",
    VOLUME: "The last whole hour had about as many events as the hours of the day before "
    "(STREAMFLOW_VOLUME_FACTOR), of which enough must have events (STREAMFLOW_VOLUME_HOURS).",
    RATE: "The share of dead letters among the stream's records is below its limit "
    "(STREAMFLOW_ALERT_DEAD_LETTER_RATIO), or there are too few records to judge it "
    "(STREAMFLOW_ALERT_DEAD_LETTER_RECORDS).",
}
_HISTORY: Final = 25  # hours
_AHEAD: Final = timedelta(minutes=5)


def traffic_checks(catalog: Catalog) -> dg.AssetChecksDefinition:
    def judge(
        platform: Platform, settings: OrchestrationSettings, checks: TableChecks
    ) -> Iterator[CheckResult]:
        with platform.database(settings) as connection:
            for entry, name in checks:
                if name == LOAD_AGE or entry.stream is None:
                    yield _load_age(platform, settings, connection, entry)
                else:
                    yield isolated(_JUDGES[name], settings, connection, entry.stream)

    checks = [(entry, name) for entry in catalog.tables for name in _names(entry)]
    return define_checks("traffic", checks, _DESCRIPTIONS, judge, blocking=False)


def _names(entry: TableEntry) -> Iterator[str]:
    yield LOAD_AGE
    if entry.stream is not None:
        yield EVENT_AGE
        yield RATE
        if has_hours(entry.stream):
            yield VOLUME


def _event_age(
    settings: OrchestrationSettings, connection: Connection, stream: Stream
) -> CheckResult:
    return judge_event_age(
        quality.last_event(connection, stream, _AHEAD),
        quality.database_time(connection),
        timedelta(seconds=settings.fresh_event_seconds),
    )


def _volume(settings: OrchestrationSettings, connection: Connection, stream: Stream) -> CheckResult:
    hours = counted_by_hour(connection, stream, _HISTORY)
    return judge_volume(hours, settings.volume_factor, settings.volume_hours)


def _rate(settings: OrchestrationSettings, connection: Connection, stream: Stream) -> CheckResult:
    thresholds = Thresholds.of(settings)
    rate = quality.dead_letter_rate(connection, stream, thresholds.dead_letter_minutes)
    return judge_rate(rate, thresholds)


_JUDGES: Final = {EVENT_AGE: _event_age, VOLUME: _volume, RATE: _rate}


def _load_age(
    platform: Platform, settings: OrchestrationSettings, connection: Connection, entry: TableEntry
) -> CheckResult:
    group = settings.group("loader")
    lags = loader_lags(platform.admin(settings), connection, group, entry.topics)
    return judge_load_age(
        quality.last_loaded(connection, group, entry.topics),
        quality.database_time(connection),
        sum(lags.values()),
        timedelta(seconds=settings.alert_freshness_seconds),
    )
