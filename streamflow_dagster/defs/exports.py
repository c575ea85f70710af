"""Exports as assets, where STREAMFLOW_EXPORT_URL says where to: the events of each day as a file."""

from datetime import timedelta
from typing import Any

import dagster as dg

from streamflow.export.days import export_day
from streamflow.export.destination import Destination
from streamflow.names import asset_name
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow.stream import Stream
from streamflow_dagster.catalog import EXPORTS, OWNERS, Catalog, table_key
from streamflow_dagster.failures import as_dagster_failure, retrying
from streamflow_dagster.resources import Platform


def export_assets(catalog: Catalog, settings: OrchestrationSettings) -> list[dg.AssetsDefinition]:
    if settings.export_url is None:
        return []
    return [_export(stream, settings) for stream in catalog.streams]


def _export(stream: Stream, settings: OrchestrationSettings) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey([EXPORTS, asset_name(stream.event_table)]),
        deps=[table_key(stream.event_table)],
        group_name=EXPORTS,
        owners=OWNERS,
        kinds={settings.export_format},
        description=f"The events of each day in {settings.export_url}, in place of what was exported of it "
        "before. `streamflow audit --export` compares file and table.",
        partitions_def=dg.DailyPartitionsDefinition(settings.rollup_start, timezone="UTC"),
        retry_policy=retrying(),
    )
    def exported_events(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult[Any]:
        now = platform.settings()
        start, _ = context.partition_time_window
        url = now.export_url or settings.export_url or ""
        with as_dagster_failure(), platform.database(now, statement_seconds=0) as connection:
            done = export_day(
                connection, now, stream, start.date(), Destination(url), now.export_format
            )
        # A day may be exported before it is over, or before its last event has come.
        age = done.covered.exported_at - (start + timedelta(days=1))
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": done.covered.rows,
                "path": dg.MetadataValue.path(done.path),
                "positions": dg.MetadataValue.json(done.covered.positions),
                "day_was_over": age > timedelta(0),
            }
        )

    return exported_events
