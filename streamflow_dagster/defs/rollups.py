"""Rollups of the loaded rows, as assets."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar

import dagster as dg
from psycopg import Cursor, sql

from streamflow.daily_rollup import DailyRollup
from streamflow.errors import ConfigurationError
from streamflow.postgres.forgotten import USER
from streamflow.postgres.tables import DEAD_LETTERS
from streamflow.settings.orchestration import OrchestrationSettings
from streamflow.stream import Stream
from streamflow_dagster.catalog import (
    OWNERS,
    ROLLUPS,
    Catalog,
    rollup_key,
    schema_metadata,
    table_key,
)
from streamflow_dagster.defs.rollups_sql import roll_causes, roll_days, roll_hours, rollups_of
from streamflow_dagster.failures import as_dagster_failure, each_stream, retrying
from streamflow_dagster.lineage import causes_job, daily_job, hourly_job, lineage_of_step
from streamflow_dagster.resources import Platform

_T = TypeVar("_T")

HOURLY: Final = rollup_key("hourly_events")
CAUSES: Final = rollup_key("dead_letters_by_cause")

_SHOWN: Final = 20
_TIME: Final = "timestamp with time zone"
FRESHNESS: Final = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=2), fail_window=timedelta(hours=6)
)
_HOURLY_COLUMNS: Final = {
    "stream": "text not null", "hour": f"{_TIME} not null", "event_type": "text not null",
    "events": "bigint not null", "users": "bigint", "computed_at": f"{_TIME} not null",
}  # fmt: skip
_CAUSES_COLUMNS: Final = {
    "day": "date not null", "topic": "text not null", "error_code": "text not null",
    "stage": "text not null", "letters": "bigint not null", "open": "bigint not null",
    "first_at": _TIME, "last_at": _TIME, "computed_at": f"{_TIME} not null",
}  # fmt: skip
# How Dagster shows columns, by PostgreSQL's type: bool, int8, int2, int4; else as text.
_SHOWN_TYPES: Final = {16: "bool", 20: "int", 21: "int", 23: "int"}


def rollup_assets(catalog: Catalog, settings: OrchestrationSettings) -> list[dg.AssetsDefinition]:
    daily = daily_rollups(catalog.streams)
    return [
        _hourly(catalog.streams, settings),
        _causes(),
        *(_daily(rollup, streams) for rollup, streams in daily),
    ]


def daily_rollups(streams: Sequence[Stream]) -> list[tuple[DailyRollup, list[Stream]]]:
    """The daily rollups, each with the streams that declare it. Raises ConfigurationError if two different
    rollups have the same table."""
    by_table: dict[str, tuple[DailyRollup, list[Stream]]] = {}
    for stream in streams:
        for rollup in rollups_of(stream):
            known, sharing = by_table.setdefault(rollup.table, (rollup, []))
            if known != rollup:
                raise ConfigurationError(
                    f"stream {stream.name}: its rollup {rollup.table} differs from that of stream "
                    f"{sharing[0].name}; rename one of them"
                )
            sharing.append(stream)
    return list(by_table.values())


def _rollup(
    key: dg.AssetKey,
    upstream: list[dg.AssetKey],
    description: str,
    columns: Mapping[str, str],
    **more: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    with warnings.catch_warnings():
        # Dagster calls backfill policies beta; what we use of them is tested.
        warnings.simplefilter("ignore", dg.BetaWarning)
        decorator: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
            key=key,
            deps=upstream,
            group_name=ROLLUPS,
            owners=OWNERS,
            kinds={"postgres", "sql"},
            description=description,
            metadata={"dagster/table_name": key.path[-1], **schema_metadata(columns)},
            retry_policy=retrying(),
            **more,
        )
    return decorator


def _hourly(streams: tuple[Stream, ...], settings: OrchestrationSettings) -> dg.AssetsDefinition:
    @_rollup(
        HOURLY,
        [table_key(stream.event_table) for stream in streams],
        "Events by type and hour of event time, with the number of different users. A backfill "
        "over any range is one run.",
        _HOURLY_COLUMNS,
        partitions_def=dg.HourlyPartitionsDefinition(settings.rollup_start, timezone="UTC"),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def hourly_events(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult[Any]:
        start, end = context.partition_time_window
        now = platform.settings()
        known, title = platform.streams(now), HOURLY.path[-1]
        with (
            as_dagster_failure(),
            lineage_of_step(now, known, partial(hourly_job, columns=_HOURLY_COLUMNS)) as written,
            platform.database(now) as connection,
        ):
            rows = sum(_each(known, lambda stream: roll_hours(connection, stream, start, end)))
            written[title] = rows
        hours = round((end - start) / timedelta(hours=1))
        return dg.MaterializeResult(metadata={"rows": rows, "hours": hours})

    return hourly_events


def _daily(rollup: DailyRollup, streams: Sequence[Stream]) -> dg.AssetsDefinition:
    columns = {
        "stream": "text not null",
        "day": "date not null",
        **rollup.columns,
        "computed_at": f"{_TIME} not null",
    }

    @_rollup(
        rollup_key(rollup.table),
        [table_key(stream.event_table) for stream in streams],
        rollup.description,
        columns,
        freshness_policy=FRESHNESS,
    )
    def daily_rollup(platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[Any]:
        settings = platform.settings()
        sharing = [
            stream
            for stream in platform.streams(settings)
            if rollup.table in {own.table for own in rollups_of(stream)}
        ]
        job = partial(daily_job, rollup=rollup, columns=columns)
        with (
            as_dagster_failure(),
            lineage_of_step(settings, sharing, job) as written,
            platform.database(settings) as connection,
        ):
            done = _each(
                sharing,
                lambda stream: roll_days(connection, stream, rollup, rollup.parameters(settings)),
            )
            # Dagster keeps what it shows, and cannot forget (G16).
            shown = [name for name in rollup.columns if name != USER]
            query = sql.SQL("SELECT stream, day, {} FROM {} ORDER BY {} LIMIT {}").format(
                sql.SQL(", ").join(map(sql.Identifier, shown)),
                sql.Identifier(rollup.table),
                sql.SQL(rollup.order),
                _SHOWN,
            )
            top = _table(connection.execute(query))
            rows = written[rollup.table] = sum(number for number, _ in done)
        days = {day for _, computed in done for day in computed}
        return dg.MaterializeResult(metadata={"rows": rows, "days_computed": len(days), "top": top})

    return daily_rollup


def _each(streams: Iterable[Stream], roll: Callable[[Stream], _T]) -> list[_T]:
    """Rolls up each stream. Those whose query PostgreSQL refuses fail the step once the others are done."""
    done, refused = each_stream(streams, roll)
    if refused:
        raise dg.Failure(
            description=f"PostgreSQL refuses the query for {'; '.join(refused)}. The other streams are "
            "rolled up",
            allow_retries=False,
        )
    return done


def _causes() -> dg.AssetsDefinition:
    @_rollup(
        CAUSES,
        [table_key(DEAD_LETTERS.name)],
        "Dead letters by day, topic, cause and stage, and how many of them are still open.",
        _CAUSES_COLUMNS,
        freshness_policy=FRESHNESS,
    )
    def dead_letters_by_cause(platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[Any]:
        settings = platform.settings()
        job = partial(causes_job, columns=_CAUSES_COLUMNS)
        with (
            as_dagster_failure(),
            lineage_of_step(settings, platform.streams(settings), job) as written,
            platform.database(settings) as connection,
        ):
            rows = written[CAUSES.path[-1]] = roll_causes(connection)
            causes = _table(
                connection.execute(
                    "SELECT topic, error_code, stage, sum(letters)::bigint AS letters,"
                    " sum(open)::bigint AS open FROM dead_letters_by_cause GROUP BY 1, 2, 3"
                    " ORDER BY 4 DESC LIMIT %s",
                    [_SHOWN],
                )
            )
            # The table shows only the most frequent causes.
            totals = connection.execute(
                "SELECT coalesce(sum(letters), 0)::bigint, coalesce(sum(open), 0)::bigint"
                " FROM dead_letters_by_cause"
            ).fetchone()
        letters, still_open = totals or (0, 0)
        return dg.MaterializeResult(
            metadata={"rows": rows, "letters": letters, "open": still_open, "causes": causes}
        )

    return dead_letters_by_cause


def _table(cursor: Cursor[Any]) -> dg.TableMetadataValue:
    """The rows of a query, as Dagster shows them."""
    columns = {
        column.name: _SHOWN_TYPES.get(column.type_code, "text")
        for column in cursor.description or ()
    }
    return dg.TableMetadataValue(
        records=[
            dg.TableRecord(
                {
                    name: value if kind != "text" or value is None else str(value)
                    for (name, kind), value in zip(columns.items(), row, strict=True)
                }
            )
            for row in cursor
        ],
        schema=dg.TableSchema(columns=[dg.TableColumn(*column) for column in columns.items()]),
    )
