"""Tables as assets: materializing one drains its topics."""

from typing import Any

import dagster as dg
import structlog

from streamflow_dagster.catalog import (
    OWNERS,
    TABLES,
    Catalog,
    TableEntry,
    schema_metadata,
    table_key,
)
from streamflow_dagster.defs.topics import FRESHNESS
from streamflow_dagster.failures import as_dagster_failure, retrying
from streamflow_dagster.resources import Platform
from streaming_workers.drain import Drained, drain
from streaming_workers.runtime.watchdog import no_endless_call

POOL = "drain"


def table_assets(catalog: Catalog) -> list[dg.AssetsDefinition]:
    return [_table_asset(entry) for entry in catalog.tables]


def state_specs(catalog: Catalog) -> list[dg.AssetSpec]:
    """The views of upsert streams: what the tables of their changes make, without a run of Dagster's."""
    return [
        dg.AssetSpec(
            key=table_key(stream.table),
            deps=[table_key(stream.event_table)],
            group_name=TABLES,
            owners=OWNERS,
            kinds={"postgres", "view"},
            description=f"The latest of each key of {stream.name}, without those that were deleted.",
            metadata={"dagster/table_name": stream.table},
        )
        for stream in catalog.streams
        if stream.state_table is not None
    ]


def _table_asset(entry: TableEntry) -> dg.AssetsDefinition:
    @dg.asset(
        key=entry.key,
        deps=entry.deps,
        group_name=TABLES,
        owners=OWNERS,
        kinds={"postgres", "table"},
        description=f"{entry.description}\n\nMaterializing it drains {', '.join(entry.topics)} to the high "
        "watermark of the moment, exactly once, also while the loader is running.",
        metadata={"dagster/table_name": entry.table.name, **schema_metadata(entry.columns)},
        freshness_policy=FRESHNESS,
        retry_policy=retrying(),
        pool=POOL,
    )
    def table(platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[Any]:
        settings = platform.settings()
        streams = platform.streams(settings)
        bound = structlog.contextvars.bound_contextvars(asset=entry.key.to_user_string())
        hung = no_endless_call(settings.stall_seconds, "drain", "nothing is lost: drain again")
        with as_dagster_failure(), bound, hung:
            done = drain(settings, streams, entry.topics, limit=settings.drain_seconds)
        return dg.MaterializeResult(metadata=_metadata(done))

    return table


def _metadata(done: Drained) -> dict[str, Any]:
    """Plain numbers, so that Dagster plots them over time."""
    return {
        "rows": done.rows,
        "records": done.records,
        "duplicates_avoided": done.duplicates,
        "rejected": done.rejected,
        "refused_by_database": done.refused,
        "records_by_other_loaders": done.by_others,
        "fenced": done.fenced,
        "seconds": round(done.seconds, 3),
        "records_per_second": round(done.rate, 1),
        "remaining_lag": done.lag,
    }
