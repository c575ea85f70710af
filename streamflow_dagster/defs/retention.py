"""Retention as an asset: it reports what it removes, and removes nothing while the audit is red."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg

from streamflow.kafka.offsets import bounds, partitions_of
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow.stream import Stream
from streamflow.units import counted
from streamflow_dagster.catalog import OPERATIONS, OWNERS, Catalog, table_key
from streamflow_dagster.defs.retention_sql import Expired, drop_day, expired_days
from streamflow_dagster.failures import as_dagster_failure
from streamflow_dagster.resources import Platform

KEY: Final = dg.AssetKey([OPERATIONS, "events_retention"])
_SHOWN: Final = 5


def retention_asset(catalog: Catalog) -> dg.AssetsDefinition:
    @dg.asset(
        key=KEY,
        deps=[table_key(stream.event_table) for stream in catalog.streams],
        group_name=OPERATIONS,
        owners=OWNERS,
        kinds={"postgres"},
        description="Drops days of events that are older than STREAMFLOW_EVENTS_RETENTION_DAYS (unset: "
        "none). A day of which Kafka still holds a record stays until Kafka has removed it, so that the "
        "audit can compare the two. Fails for a stream whose audit does not close. What it dropped is "
        "listed in `dropped_days`; windows and rollups of those days stay.",
    )
    def events_retention(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult[Any]:
        settings = platform.settings()
        days = settings.events_retention_days
        if days is None:
            context.log.info("nothing to do: STREAMFLOW_EVENTS_RETENTION_DAYS is not set")
            return dg.MaterializeResult(metadata={"retention_days": "unlimited", "rows": 0})
        dropped: list[str] = []
        kept: list[str] = []
        failures: list[str] = []
        rows = 0
        with as_dagster_failure():
            for stream in platform.streams(settings):
                expired = _expired(platform, settings, stream, days)
                kept += [
                    f"{stream.event_table} {day.day}: {day.held:,} of "
                    f"{counted(day.rows, 'record', 'is', 'are')} still in Kafka"
                    for day in expired
                    if day.held
                ]
                ready = [day for day in expired if not day.held]
                reason = _not_closed(platform, settings, stream) if ready else None
                if reason is not None:
                    failures.append(f"{stream.event_table}: {reason}")
                    continue
                with platform.database(settings) as connection:
                    for day in ready:
                        drop_day(connection, stream, day)
                        rows += day.rows
                        dropped.append(
                            f"{stream.event_table} {day.day}: {counted(day.rows, 'row')}"
                        )
                        context.log.info("dropped %s", dropped[-1])
        metadata: dict[str, Any] = {
            "retention_days": days,
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


def _expired(
    platform: Platform, settings: OrchestrationSettings, stream: Stream, days: int
) -> list[Expired]:
    client = platform.admin(settings)
    topic_bounds = bounds(client, partitions_of(client, [stream.topic]))
    held_from = {partition: first for partition, (first, _) in topic_bounds.items()}
    first_kept = datetime.now(UTC).date() - timedelta(days=days)
    with platform.database(settings) as connection:
        return expired_days(connection, stream, first_kept, held_from)


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
