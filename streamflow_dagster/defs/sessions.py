"""Sessions of the loaded rows, as assets, and their checks."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import dagster as dg

from streamflow.durations import duration_text
from streamflow.postgres.connections import Connection
from streamflow.postgres.sessions.tables import SessionTable, session_tables
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow.stream import Stream
from streamflow_dagster.catalog import (
    OWNERS,
    ROLLUPS,
    Catalog,
    column_types,
    rollup_key,
    schema_metadata,
    table_key,
)
from streamflow_dagster.checks import define_checks, isolated
from streamflow_dagster.defs.rollups import FRESHNESS
from streamflow_dagster.defs.session_checks_sql import find_overlaps, find_uncounted, judged
from streamflow_dagster.defs.sessions_sql import compute_sessions
from streamflow_dagster.failures import as_dagster_failure, each_stream, retrying
from streamflow_dagster.lineage import lineage_of_step, sessions_job
from streamflow_dagster.resources import Platform
from streamflow_dagster.verdicts import CheckResult

COUNTED: Final = "sessions_equal_events"
APART: Final = "sessions_are_apart"

_DESCRIPTIONS: Final = {
    COUNTED: "Each event is in a session of its key, and each session counts the events in it. "
    "Checks the events loaded, and the sessions computed, since it last passed.",
    APART: "No two sessions of a key overlap. Checks those computed since it last passed.",
}
_JUDGES: Final[dict[str, Callable[..., CheckResult]]] = {
    COUNTED: find_uncounted,
    APART: find_overlaps,
}


class SessionEntry(NamedTuple):
    """A table of sessions in the graph."""

    key: dg.AssetKey
    table: SessionTable


def session_entries(streams: Sequence[Stream]) -> list[SessionEntry]:
    tables = [table for stream in streams for table in session_tables(stream)]
    return [SessionEntry(rollup_key(table.name), table) for table in tables]


def session_assets(catalog: Catalog) -> list[dg.AssetsDefinition]:
    return [_sessions(entry) for entry in session_entries(catalog.streams)]


def session_checks(catalog: Catalog) -> list[dg.AssetChecksDefinition]:
    """One step for all checks of sessions; none without sessions."""
    entries = session_entries(catalog.streams)
    checks = [(entry, name) for entry in entries for name in _DESCRIPTIONS]
    return [define_checks("sessions", checks, _DESCRIPTIONS, _judge)] if checks else []


def _sessions(entry: SessionEntry) -> dg.AssetsDefinition:
    table, stream = entry.table, entry.table.stream

    @dg.asset(
        key=entry.key,
        deps=[table_key(stream.event_table)],
        group_name=ROLLUPS,
        owners=OWNERS,
        kinds={"postgres", "sql"},
        description=f"Sessions of {stream.name} by {', '.join(table.spec.by_fields)}: they end where "
        f"nothing comes for {duration_text(table.spec.gap)}. Computed again around newly loaded rows, from "
        "the rows themselves.",
        metadata={
            "dagster/table_name": table.name,
            **schema_metadata(column_types(table.columns)),
        },
        freshness_policy=FRESHNESS,
        retry_policy=retrying(),
    )
    def sessions(platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[Any]:
        settings = platform.settings()
        with (
            as_dagster_failure(),
            lineage_of_step(settings, [stream], partial(sessions_job, table=table)) as written,
            platform.database(settings) as connection,
        ):
            done, refused = each_stream([stream], lambda _: compute_sessions(connection, table))
            if refused:
                raise dg.Failure(
                    description=f"PostgreSQL refuses the query for {refused[0]}",
                    allow_retries=False,
                )
            written[table.name] = done[0].sessions
        # No key and no value: Dagster keeps what it shows, and cannot forget (G16).
        return dg.MaterializeResult(
            metadata={
                "sessions_computed": done[0].sessions,
                "events_loaded": done[0].events,
                "pieces": done[0].pieces,
                "loaded_through": dg.MetadataValue.timestamp(done[0].loaded_through),
            }
        )

    return sessions


def _judge(
    platform: Platform,
    settings: OrchestrationSettings,
    checks: Sequence[tuple[SessionEntry, str]],
) -> Iterator[CheckResult]:
    with platform.database(settings) as connection:
        for entry, name in checks:
            yield isolated(_judged, connection, entry.table, name)


def _judged(connection: Connection, table: SessionTable, name: str) -> CheckResult:
    return judged(connection, table, name, _JUDGES[name])
