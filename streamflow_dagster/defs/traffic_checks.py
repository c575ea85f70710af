"""Checks of traffic: freshness, volume, and the share of dead letters. They warn."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

import dagster as dg

from streamflow.alerting.rules import Thresholds
from streamflow.lag.measure import loader_lags
from streamflow.postgres.connections import Connection
from streamflow.postgres.tables import DEAD_LETTERS
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow.stream import Stream
from streamflow_dagster.catalog import Catalog, TableEntry
from streamflow_dagster.defs import quality_sql as quality
from streamflow_dagster.failures import as_dagster_failure
from streamflow_dagster.resources import Platform
from streamflow_dagster.runless import report_runless
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
    VOLUME: "The last whole hour brought about as many events as the day before it "
    "(STREAMFLOW_VOLUME_FACTOR, STREAMFLOW_VOLUME_HOURS).",
    RATE: "The share of dead letters is below its limit (STREAMFLOW_ALERT_DEAD_LETTER_RATIO).",
}
_HISTORY: Final = 25  # hours
_AHEAD: Final = timedelta(minutes=5)

# Takes what a check needs; `_judge` picks by name.
_Judge = Callable[[], CheckResult]


def traffic_checks(catalog: Catalog) -> list[dg.AssetChecksDefinition]:
    """Freshness, volume and rate."""
    specs = [
        dg.AssetCheckSpec(name, asset=entry.key, description=_DESCRIPTIONS[name])
        for entry in catalog.tables
        for name in _names(entry)
    ]

    @dg.multi_asset_check(specs=specs, can_subset=True, name="traffic")
    def check(
        context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.AssetCheckResult]:
        settings = platform.settings()
        with as_dagster_failure(), platform.database(settings) as connection:
            for entry in catalog.tables:
                judges = _judges(platform, settings, connection, entry, catalog)
                yield from report_runless(
                    context,
                    [
                        judges[name]().as_dagster(entry.key, name)
                        for name in _names(entry)
                        if dg.AssetCheckKey(entry.key, name) in context.selected_asset_check_keys
                    ],
                )

    return [check]


def _names(entry: TableEntry) -> tuple[str, ...]:
    names: tuple[str, ...] = (LOAD_AGE,)
    if entry.stream is not None:
        names += (EVENT_AGE, VOLUME) if entry.stream.windows is not None else (EVENT_AGE,)
    return (*names, RATE) if entry.table == DEAD_LETTERS else names


def _judges(
    platform: Platform,
    settings: OrchestrationSettings,
    connection: Connection,
    entry: TableEntry,
    catalog: Catalog,
) -> dict[str, _Judge]:
    def load_age() -> CheckResult:
        group = settings.group("loader")
        lags = loader_lags(platform.admin(settings), connection, group, entry.topics)
        return judge_load_age(
            quality.last_loaded(connection, group, entry.topics),
            quality.database_time(connection),
            sum(lags.values()),
            timedelta(seconds=settings.alert_freshness_seconds),
        )

    def event_age() -> CheckResult:
        return judge_event_age(
            quality.last_event(connection, _stream(entry), _AHEAD),
            quality.database_time(connection),
            timedelta(seconds=settings.fresh_event_seconds),
        )

    def volume() -> CheckResult:
        now = quality.database_time(connection)
        whole = now.replace(minute=0, second=0, microsecond=0)
        hours = quality.counted_by_hour(connection, _stream(entry), whole, _HISTORY)
        return judge_volume(hours, settings.volume_factor, settings.volume_hours)

    def rate() -> CheckResult:
        tables = [each.table for each in catalog.streams]
        thresholds = Thresholds.of(settings)
        rate = quality.letter_rate(connection, tables, thresholds.dead_letter_minutes)
        return judge_rate(rate, thresholds)

    return {LOAD_AGE: load_age, EVENT_AGE: event_age, VOLUME: volume, RATE: rate}


def _stream(entry: TableEntry) -> Stream:
    if entry.stream is None:
        raise LookupError(f"{entry.table.name} belongs to no stream")
    return entry.stream
