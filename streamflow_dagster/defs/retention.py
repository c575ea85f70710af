"""Retention as an asset: it reports what it removes, and removes nothing while the audit is red."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import dagster as dg

from streamflow.flow import Partition
from streamflow.kafka.offsets import bounds, partitions_of
from streamflow.postgres.connections import Connection
from streamflow.postgres.windows.tables import window_tables
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow.stream import Stream
from streamflow.units import counted
from streamflow_dagster.catalog import OPERATIONS, OWNERS, Catalog
from streamflow_dagster.defs.retention_sql import Expired, drop_day, expired_days
from streamflow_dagster.defs.window_retention_sql import drop_window_day, expired_window_days
from streamflow_dagster.failures import as_dagster_failure
from streamflow_dagster.resources import Platform

KEY: Final = dg.AssetKey([OPERATIONS, "events_retention"])
_SHOWN: Final = 5

Held = dict[Partition, int]  # the first offset that Kafka still holds


@dataclass(frozen=True, slots=True)
class _Events:
    """The events of a stream, kept for a number of days."""

    stream: Stream
    days: int

    @property
    def table(self) -> str:
        return self.stream.event_table

    @property
    def topic(self) -> str:
        return self.stream.topic

    def expired(self, connection: Connection, before: date, held: Held) -> list[Expired]:
        return expired_days(connection, self.stream, before, held)

    def drop(self, connection: Connection, day: Expired) -> None:
        drop_day(connection, self.stream, day)


@dataclass(frozen=True, slots=True)
class _Windows:
    """The parts of a stream's windows in one table, kept for a number of days."""

    stream: Stream
    table: str
    days: int

    @property
    def topic(self) -> str:
        return self.stream.analytics_topic

    def expired(self, connection: Connection, before: date, held: Held) -> list[Expired]:
        return expired_window_days(connection, self.table, before, held)

    def drop(self, connection: Connection, day: Expired) -> None:
        drop_window_day(connection, self.table, day)


def retention_asset(catalog: Catalog) -> dg.AssetsDefinition:
    @dg.asset(
        key=KEY,
        deps=[entry.key for entry in catalog.tables if entry.owner is not None],
        group_name=OPERATIONS,
        owners=OWNERS,
        kinds={"postgres"},
        description="Drops days of events that are older than STREAMFLOW_EVENTS_RETENTION_DAYS, and of "
        "windows with aggregates that are older than STREAMFLOW_WINDOWS_RETENTION_DAYS (unset: "
        "none). A day of which Kafka still holds a record stays until Kafka has removed it, so that the "
        "audit can compare the two. Fails for a stream whose audit does not close. What it dropped is "
        "listed in `dropped_days`; other windows and rollups of those days stay.",
    )
    def events_retention(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult[Any]:
        settings = platform.settings()
        days = {
            "retention_days": settings.events_retention_days or "unlimited",
            "windows_retention_days": settings.windows_retention_days or "unlimited",
        }
        dropped: list[str] = []
        kept: list[str] = []
        failures: list[str] = []
        rows = 0
        with as_dagster_failure():
            for each in _all_kept(settings, platform.streams(settings)):
                expired = _expired(platform, settings, each)
                kept += [
                    f"{each.table} {day.day}: {day.held:,} of "
                    f"{counted(day.rows, 'record', 'is', 'are')} still in Kafka"
                    for day in expired
                    if day.held
                ]
                ready = [day for day in expired if not day.held]
                reason = _not_closed(platform, settings, each.stream) if ready else None
                if reason is not None:
                    failures.append(f"{each.table}: {reason}")
                    continue
                with platform.database(settings) as connection:
                    for day in ready:
                        each.drop(connection, day)
                        rows += day.rows
                        dropped.append(f"{each.table} {day.day}: {counted(day.rows, 'row')}")
                        context.log.info("dropped %s", dropped[-1])
        metadata: dict[str, Any] = {
            **days,
            "rows": rows,
            "days": len(dropped),
            "days_kept_for_kafka": len(kept),
            "dropped": _lines(dropped),
            "kept": _lines(kept),
        }
        if failures:
            raise dg.Failure(
                description="nothing of a stream is dropped while its audit is red: what is missing might "
                f"be found in what would be removed. {'; '.join(failures)}",
                metadata=metadata,
                allow_retries=False,
            )
        return dg.MaterializeResult(metadata=metadata)

    return events_retention


def _all_kept(
    settings: OrchestrationSettings, streams: Sequence[Stream]
) -> Iterator[_Events | _Windows]:
    for stream in streams:
        if settings.events_retention_days is not None:
            yield _Events(stream, settings.events_retention_days)
        if settings.windows_retention_days is not None:
            for table in window_tables(stream):
                yield _Windows(stream, table.name, settings.windows_retention_days)


def _expired(
    platform: Platform, settings: OrchestrationSettings, kept: _Events | _Windows
) -> list[Expired]:
    client = platform.admin(settings)
    topic_bounds = bounds(client, partitions_of(client, [kept.topic]))
    held_from = {partition: first for partition, (first, _) in topic_bounds.items()}
    first_kept = datetime.now(UTC).date() - timedelta(days=kept.days)
    with platform.database(settings) as connection:
        return kept.expired(connection, first_kept, held_from)


def _not_closed(platform: Platform, settings: OrchestrationSettings, stream: Stream) -> str | None:
    """Why the stream's audit does not close; None if it does."""
    report = platform.audit(settings).of_stream(stream.name)
    if report.closed:
        return None
    if not report.problem_count:
        return f"not yet: {report.waits_for}"
    first = "; ".join(map(str, report.problems[:_SHOWN]))
    return f"{counted(report.problem_count, 'problem')}, first {first}"


def _lines(lines: list[str]) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.md("\n".join(f"- {line}" for line in lines) or "nothing")
