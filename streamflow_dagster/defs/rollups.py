"""Rollups as assets: what people ask of the loaded rows."""

import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from streamflow.postgres.tables import DEAD_LETTERS
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow.stream import Stream
from streamflow_dagster.catalog import OWNERS, ROLLUPS, Catalog, schema_metadata, table_key
from streamflow_dagster.defs.rollups_sql import (
    FAILED,
    Bursts,
    Computed,
    has_users,
    roll_active_users,
    roll_bursts,
    roll_causes,
    roll_hours,
)
from streamflow_dagster.failures import as_dagster_failure, retrying
from streamflow_dagster.resources import Platform

HOURLY: Final = dg.AssetKey([ROLLUPS, "hourly_events"])
ACTIVE_USERS: Final = dg.AssetKey([ROLLUPS, "daily_active_users"])
BURSTS: Final = dg.AssetKey([ROLLUPS, "login_failure_bursts"])
CAUSES: Final = dg.AssetKey([ROLLUPS, "dead_letters_by_cause"])

_SHOWN: Final = 20
_TIME: Final = "timestamp with time zone"
_FRESHNESS: Final = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=2), fail_window=timedelta(hours=6)
)
_COLUMNS: Final = {
    HOURLY: {
        "stream": "text not null", "hour": f"{_TIME} not null", "event_type": "text not null",
        "events": "bigint not null", "users": "bigint", "computed_at": f"{_TIME} not null",
    },
    ACTIVE_USERS: {
        "stream": "text not null", "day": "date not null", "users": "bigint not null",
        "events": "bigint not null", "computed_at": f"{_TIME} not null",
    },
    BURSTS: {
        "stream": "text not null", "day": "date not null", "scope": "text not null",
        "user": "text not null", "started_at": f"{_TIME} not null",
        "ended_at": f"{_TIME} not null", "failures": "bigint not null", "users": "bigint not null",
        "peak": "bigint not null", "succeeded": "boolean not null",
        "computed_at": f"{_TIME} not null",
    },
    CAUSES: {
        "day": "date not null", "topic": "text not null", "error_code": "text not null",
        "stage": "text not null", "letters": "bigint not null", "open": "bigint not null",
        "first_at": _TIME, "last_at": _TIME, "computed_at": f"{_TIME} not null",
    },
}  # fmt: skip


def partitions(settings: OrchestrationSettings) -> dg.HourlyPartitionsDefinition:
    """The hours that are rolled up: whole ones, from the configured start on."""
    return dg.HourlyPartitionsDefinition(start_date=settings.rollup_start, timezone="UTC")


def rollup_assets(catalog: Catalog, settings: OrchestrationSettings) -> list[dg.AssetsDefinition]:
    """All rollups that the streams allow."""
    with_users = [stream for stream in catalog.streams if has_users(stream)]
    with_logins = [stream for stream in with_users if tells_of_logins(stream)]
    found = [_hourly(catalog.streams, settings), _causes()]
    if with_users:
        found.append(_active_users(with_users))
    if with_logins:
        found.append(_bursts(with_logins))
    return found


def tells_of_logins(stream: Stream) -> bool:
    """Whether failed logins are among the events of a stream."""
    return any(
        FAILED in str(model.model_fields["type"].annotation) for model in stream.decoder.models
    )


def _rollup(
    key: dg.AssetKey, upstream: list[dg.AssetKey], tells: str, **more: Any
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """What all rollups have in common."""
    with warnings.catch_warnings():
        # Backfill policies are called beta since years; what they do here has tests.
        warnings.simplefilter("ignore", dg.BetaWarning)
        made: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
            key=key,
            deps=upstream,
            group_name=ROLLUPS,
            owners=OWNERS,
            kinds={"postgres", "sql"},
            description=tells,
            metadata={"dagster/table_name": key.path[-1], **schema_metadata(_COLUMNS[key])},
            retry_policy=retrying(),
            **more,
        )
    return made


def _tables(streams: Any) -> list[dg.AssetKey]:
    return [table_key(stream.table) for stream in streams]


def _hourly(streams: tuple[Stream, ...], settings: OrchestrationSettings) -> dg.AssetsDefinition:
    @_rollup(
        HOURLY,
        _tables(streams),
        "Events by type and hour of event time, with the number of different users. A backfill "
        "over any range is one run.",
        partitions_def=partitions(settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def hourly_events(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult[Any]:
        start, end = context.partition_time_window
        now = platform.settings()
        with as_dagster_failure(), platform.database(now) as connection:
            rows = sum(
                roll_hours(connection, stream, start, end).rows for stream in platform.streams(now)
            )
        hours = round((end - start) / timedelta(hours=1))
        return dg.MaterializeResult(metadata={"rows": rows, "hours": hours})

    return hourly_events


def _active_users(streams: list[Stream]) -> dg.AssetsDefinition:
    @_rollup(
        ACTIVE_USERS,
        _tables(streams),
        "Different users by day of event time. Days with newly loaded rows are counted anew.",
        freshness_policy=_FRESHNESS,
    )
    def daily_active_users(platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[Any]:
        settings = platform.settings()
        with as_dagster_failure(), platform.database(settings) as connection:
            done = [
                roll_active_users(connection, stream)
                for stream in platform.streams(settings)
                if has_users(stream)
            ]
            latest = connection.execute(
                "SELECT stream, day::text, users, events FROM daily_active_users"
                " ORDER BY day DESC, stream LIMIT %s",
                [_SHOWN],
            ).fetchall()
        columns = {"stream": "text", "day": "text", "users": "int", "events": "int"}
        return dg.MaterializeResult(
            metadata={**_computed(done), "latest": _shown(latest, columns)},
        )

    return daily_active_users


def _bursts(streams: list[Stream]) -> dg.AssetsDefinition:
    @_rollup(
        BURSTS,
        _tables(streams),
        "Bursts of failed logins, of one user and of all together: runs of failures, neighbours "
        "at most M minutes apart, each of which lies in some span of M minutes with at least N "
        "failures (STREAMFLOW_BURST_MINUTES, STREAMFLOW_BURST_FAILURES of one user, "
        "STREAMFLOW_BURST_FAILURES_OVERALL of all). Midnight (UTC) ends a burst. `succeeded`: one "
        "of these users logged in meanwhile, or within M minutes after.",
        freshness_policy=_FRESHNESS,
    )
    def login_failure_bursts(platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[Any]:
        settings = platform.settings()
        wanted = Bursts(
            settings.burst_failures,
            settings.burst_failures_overall,
            timedelta(minutes=settings.burst_minutes),
        )
        with as_dagster_failure(), platform.database(settings) as connection:
            done = [
                roll_bursts(connection, stream, wanted)
                for stream in platform.streams(settings)
                if has_users(stream) and tells_of_logins(stream)
            ]
            worst = connection.execute(
                'SELECT scope, "user", started_at::text, ended_at::text, failures, users, peak,'
                " succeeded FROM login_failure_bursts ORDER BY failures DESC, started_at LIMIT %s",
                [_SHOWN],
            ).fetchall()
        columns = {
            "scope": "text", "user": "text", "started_at": "text", "ended_at": "text",
            "failures": "int", "users": "int", "peak": "int", "succeeded": "bool",
        }  # fmt: skip
        return dg.MaterializeResult(metadata={**_computed(done), "worst": _shown(worst, columns)})

    return login_failure_bursts


def _causes() -> dg.AssetsDefinition:
    @_rollup(
        CAUSES,
        [table_key(DEAD_LETTERS.name)],
        "Dead letters by day, topic, cause and stage, and how many of them are still open.",
        freshness_policy=_FRESHNESS,
    )
    def dead_letters_by_cause(platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[Any]:
        settings = platform.settings()
        with as_dagster_failure(), platform.database(settings) as connection:
            done = roll_causes(connection)
            causes = connection.execute(
                "SELECT topic, error_code, stage, sum(letters)::bigint, sum(open)::bigint"
                " FROM dead_letters_by_cause GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT %s",
                [_SHOWN],
            ).fetchall()
        columns = {
            "topic": "text", "error_code": "text", "stage": "text", "letters": "int", "open": "int",
        }  # fmt: skip
        return dg.MaterializeResult(
            metadata={
                **_computed([done]),
                "letters": sum(row[3] for row in causes),
                "open": sum(row[4] for row in causes),
                "causes": _shown(causes, columns),
            }
        )

    return dead_letters_by_cause


def _computed(done: list[Computed]) -> dict[str, Any]:
    return {
        "rows": sum(each.rows for each in done),
        "days_computed": len({day for each in done for day in each.days}),
    }


def _shown(rows: list[tuple[Any, ...]], columns: dict[str, str]) -> dg.TableMetadataValue:
    return dg.TableMetadataValue(
        records=[dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows],
        schema=dg.TableSchema(columns=[dg.TableColumn(*each) for each in columns.items()]),
    )
