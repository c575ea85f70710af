"""Sessions of the streams that declare them, as assets: computed by SQL over the loaded events."""

from typing import Any, Final

import dagster as dg

from streamflow.postgres.windows.sessions import SessionTable, compute_sessions, session_tables
from streamflow.windows.durations import duration_text
from streamflow_dagster.catalog import (
    OWNERS,
    ROLLUPS,
    Catalog,
    rollup_key,
    schema_metadata,
    table_key,
)
from streamflow_dagster.failures import as_dagster_failure, retrying
from streamflow_dagster.resources import Platform

JOB: Final = "compute_sessions"


def session_keys(catalog: Catalog) -> list[dg.AssetKey]:
    return [rollup_key(table.name) for table in _tables(catalog)]


def session_assets(catalog: Catalog) -> list[dg.AssetsDefinition]:
    return [_sessions(table) for table in _tables(catalog)]


def _tables(catalog: Catalog) -> list[SessionTable]:
    return [table for stream in catalog.streams for table in session_tables(stream)]


def _sessions(table: SessionTable) -> dg.AssetsDefinition:
    columns = {
        column.name: f"{column.type}{'' if column.nullable else ' not null'}"
        for column in table.columns
    }

    @dg.asset(
        key=rollup_key(table.name),
        deps=[table_key(table.stream.event_table)],
        group_name=ROLLUPS,
        owners=OWNERS,
        kinds={"postgres", "sql"},
        description=f"Sessions by {', '.join(table.spec.by_fields)}, which end where nothing comes for "
        f"{duration_text(table.spec.gap)}: all of them, computed anew, since a late event may join two. "
        "Those of days that retention has dropped stay.",
        metadata={
            "dagster/table_name": table.name,
            **schema_metadata({**columns, "computed_at": "timestamp with time zone not null"}),
        },
        retry_policy=retrying(),
    )
    def sessions(platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[Any]:
        with as_dagster_failure(), platform.database(platform.settings()) as connection:
            number = compute_sessions(connection, table)
        return dg.MaterializeResult(metadata={"sessions": number})

    return sessions
