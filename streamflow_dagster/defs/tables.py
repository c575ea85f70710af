"""Tables as assets: materializing one drains its topics."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import dagster as dg
import structlog
from psycopg import sql

from streamflow.errors import Unavailable
from streamflow.postgres import row_counts
from streamflow.postgres.connections import Connection
from streamflow.postgres.windows.tables import WindowTable, total_columns, windows_in_words
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow_dagster.catalog import (
    OWNERS,
    TABLES,
    Catalog,
    TableEntry,
    column_types,
    schema_metadata,
    table_key,
)
from streamflow_dagster.defs.topics import FRESHNESS
from streamflow_dagster.failures import as_dagster_failure, retrying
from streamflow_dagster.lineage import lineage_of_step, load_job
from streamflow_dagster.resources import Platform
from streaming_workers.drain import Drained, drain
from streaming_workers.runtime.watchdog import no_endless_call

POOL = "drain"

_FIGURES_SECONDS: Final = 20
_NEWEST: Final = "SELECT max(window_start) FROM {table}"
# Of one day, so that it takes no longer the more days there are.
_LAST_DAY: Final = """
SELECT count(*) FILTER (WHERE late), coalesce(sum(too_late), 0)::bigint
  FROM {table} WHERE window_start >= %s
"""
_DAY: Final = timedelta(days=1)


def table_assets(catalog: Catalog) -> list[dg.AssetsDefinition]:
    return [_table_asset(entry) for entry in catalog.tables]


def view_specs(catalog: Catalog) -> list[dg.AssetSpec]:
    """The views of tables: what is in them needs no run of Dagster's."""
    states = (
        _view(
            stream.table,
            stream.event_table,
            f"The latest of each key of {stream.name}, without those that were deleted.",
        )
        for stream in catalog.streams
        if stream.state_table is not None
    )
    totals = (
        _view(
            table.view,
            table.name,
            f"Totals of windows of {table.stream.name}, {windows_in_words(table.spec)}: a row for each "
            "window and group.",
            schema_metadata(column_types(total_columns(table))),
        )
        for table in (entry.windows for entry in catalog.tables)
        if table is not None
    )
    return [*states, *totals]


def _view(
    name: str, table: str, description: str, metadata: Mapping[str, Any] | None = None
) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=table_key(name),
        deps=[table_key(table)],
        group_name=TABLES,
        owners=OWNERS,
        kinds={"postgres", "view"},
        description=description,
        metadata={"dagster/table_name": name, **(metadata or {})},
    )


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
        job = partial(load_job, key=entry.key, table=entry.table.name)
        lineage = lineage_of_step(settings, streams, job)
        with as_dagster_failure(), bound, hung, lineage as written:
            done = drain(settings, streams, entry.topics, limit=settings.drain_seconds)
            written[entry.table.name] = done.rows
        metadata = _metadata(done)
        if entry.windows is not None:
            metadata |= _figures(platform, settings, entry.windows)
        return dg.MaterializeResult(metadata=metadata)

    return table


def _figures(
    platform: Platform, settings: OrchestrationSettings, table: WindowTable
) -> dict[str, Any]:
    """What the table of some windows holds; unknown if reading that takes too long."""
    try:
        with platform.database(settings, statement_seconds=_FIGURES_SECONDS) as connection:
            return window_figures(connection, table)
    except Unavailable as error:
        return {"rows_unknown": str(error)}


def window_figures(connection: Connection, table: WindowTable) -> dict[str, Any]:
    name = sql.Identifier(table.name)
    rows = row_counts.read(connection, [table.name]).get(table.name)
    [(newest,)] = connection.execute(sql.SQL(_NEWEST).format(table=name))
    now = datetime.now(UTC)
    [(corrections, too_late)] = connection.execute(
        sql.SQL(_LAST_DAY).format(table=name), [min(newest or now, now) - _DAY]
    )
    return {
        **({} if rows is None else {"dagster/row_count": rows}),
        "newest_window": "none" if newest is None else dg.MetadataValue.timestamp(newest),
        "corrections_of_last_day": corrections,
        "too_late_of_last_day": too_late,
    }


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
