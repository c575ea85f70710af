"""The SQL of the rollups. All of it can be run again.

Hours are computed for a range. A day is computed again when rows of it were loaded since the last time,
so that late and replayed events correct it. A day that retention has dropped keeps what was computed
while its rows were there.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from psycopg import sql

from streamflow.daily_rollup import DailyRollup
from streamflow.postgres.connections import Connection
from streamflow.postgres.counted_by import kind_sql
from streamflow.postgres.tables import event_columns
from streamflow.stream import Stream

# Of every stream whose events name a user.
ACTIVE_USERS: Final = DailyRollup(
    table="daily_active_users",
    description="Different users by day of event time. Days with newly loaded rows are counted again.",
    columns={"users": "bigint not null", "events": "bigint not null"},
    query='SELECT count(DISTINCT "user"), count(*) FROM {table}'
    " WHERE {time} >= %(start)s AND {time} < %(end)s HAVING count(*) > 0",
)

# A row's load time is when its transaction began: one that commits later is still found.
_OVERLAP: Final = timedelta(minutes=5)
_LATELY: Final = timedelta(days=2)


def has_users(stream: Stream) -> bool:
    return any(column.name == "user" for column in event_columns(stream))


def rollups_of(stream: Stream) -> tuple[DailyRollup, ...]:
    """The daily rollups of a stream: its own, and the built-in ones that fit its columns."""
    return ((ACTIVE_USERS,) if has_users(stream) else ()) + stream.rollups


def roll_hours(connection: Connection, stream: Stream, start: datetime, end: datetime) -> int:
    """Counts the events of the whole hours from `start` to `end` by type; returns the rows written. Hours
    of days that retention has dropped stay as they are."""
    users = sql.SQL('count(DISTINCT "user")') if has_users(stream) else sql.SQL("NULL::bigint")
    values = {"stream": stream.name, "start": start, "end": end, "table": stream.event_table}
    with connection.transaction():
        connection.execute(
            "DELETE FROM hourly_events"
            " WHERE stream = %(stream)s AND hour >= %(start)s AND hour < %(end)s"
            " AND (hour AT TIME ZONE 'UTC')::date NOT IN"
            " (SELECT day FROM dropped_days WHERE table_name = %(table)s)",
            values,
        )
        return connection.execute(
            sql.SQL(
                "INSERT INTO hourly_events (stream, hour, event_type, events, users)"
                " SELECT %(stream)s, date_bin('1 hour', {time}, 'epoch'), {kind},"
                " count(*), {users} FROM {table}"
                " WHERE {time} >= %(start)s AND {time} < %(end)s"
                " AND ({time} AT TIME ZONE 'UTC')::date NOT IN"
                " (SELECT day FROM dropped_days WHERE table_name = %(table)s) GROUP BY 2, 3"
            ).format(kind=kind_sql(stream), users=users, **_names(stream)),
            values,
        ).rowcount


def stale_hours(
    connection: Connection, stream: Stream, start: datetime, *, most: int
) -> list[datetime]:
    """Whole hours from `start` on whose rollup is missing or older than their events, oldest first. Only
    rows loaded in the last two days count; older hours are backfilled by hand."""
    rows = connection.execute(
        sql.SQL(
            "WITH loaded AS (SELECT date_bin('1 hour', {time}, 'epoch') AS hour,"
            " max(loaded_at) AS at FROM {table} WHERE loaded_at > now() - %(lately)s::interval"
            " AND {time} >= %(start)s"
            " AND {time} < date_trunc('hour', now()) GROUP BY 1),"
            " computed AS (SELECT hour, min(computed_at) AS at FROM hourly_events"
            " WHERE stream = %(stream)s AND hour >= %(start)s GROUP BY 1)"
            " SELECT hour FROM loaded LEFT JOIN computed USING (hour)"
            " WHERE computed.at IS NULL OR computed.at < loaded.at + %(overlap)s"
            " AND computed.at < now() - 2 * %(overlap)s::interval"
            " ORDER BY hour LIMIT %(most)s"
        ).format(**_names(stream)),
        {"stream": stream.name, "start": start, "most": most}
        | {"overlap": _OVERLAP, "lately": _LATELY},
    )
    return [hour for (hour,) in rows]


def roll_days(
    connection: Connection, stream: Stream, rollup: DailyRollup, parameters: Mapping[str, Any]
) -> tuple[int, tuple[date, ...]]:
    """Computes each day of a rollup that has newly loaded rows; creates its table if needed. Returns the
    number of rows written and the days computed. `parameters` are those of the rollup's query."""
    table = sql.Identifier(rollup.table)
    insert = sql.SQL(
        "INSERT INTO {} (stream, day, {}) SELECT %(stream)s, %(day)s, rolled.* FROM ({}) AS rolled"
    ).format(
        table,
        sql.SQL(", ").join(map(sql.Identifier, rollup.columns)),
        sql.SQL(rollup.query).format(**_names(stream)),
    )
    with connection.transaction():
        _create_table(connection, rollup)
        until, days = _newly_loaded_days(connection, stream, rollup.table)
        if rollup.neighbours:
            nearby = {day + timedelta(days=step) for day in days for step in (-1, 0, 1)}
            days = _without_dropped(connection, stream, nearby)
        rows = 0
        for day in days:
            start = datetime.combine(day, time(), UTC)
            values = {"stream": stream.name, "day": day, "start": start}
            values |= {"end": start + timedelta(days=1), **parameters}
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE stream = %(stream)s AND day = %(day)s").format(table),
                values,
            )
            rows += connection.execute(insert, values).rowcount
        connection.execute(
            "INSERT INTO rollup_progress (rollup, stream, loaded_through) VALUES (%s, %s, %s)"
            " ON CONFLICT (rollup, stream) DO UPDATE SET loaded_through = excluded.loaded_through",
            [rollup.table, stream.name, until],
        )
    return rows, days


def _create_table(connection: Connection, rollup: DailyRollup) -> None:
    """The tables of the shipped rollups are created by migrations, those of a user's streams here."""
    known = connection.execute("SELECT to_regclass(%s)", [f'"{rollup.table}"']).fetchone()
    if known != (None,):
        return
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))
        for name, kind in rollup.columns.items()
    ]
    connection.execute(
        sql.SQL(
            "CREATE TABLE {} (stream text NOT NULL, day date NOT NULL, {},"
            " computed_at timestamptz NOT NULL DEFAULT now())"
        ).format(sql.Identifier(rollup.table), sql.SQL(", ").join(columns))
    )
    connection.execute(
        sql.SQL("CREATE INDEX ON {} (day, stream)").format(sql.Identifier(rollup.table))
    )


def roll_causes(connection: Connection) -> int:
    """Counts of dead letters by day, topic, cause and stage; all days, since replays change old ones.
    Returns the rows written."""
    with connection.transaction():
        connection.execute("DELETE FROM dead_letters_by_cause")
        return connection.execute(
            "INSERT INTO dead_letters_by_cause (day, topic, error_code, stage, letters, open,"
            " first_at, last_at)"
            " SELECT day, source_topic, error_code, stage, sum(number),"
            " coalesce(sum(number) FILTER (WHERE status = 'open'), 0), min(first_at), max(last_at)"
            " FROM dead_letter_counts GROUP BY 1, 2, 3, 4 HAVING sum(number) > 0"
        ).rowcount


def _newly_loaded_days(
    connection: Connection, stream: Stream, rollup: str
) -> tuple[datetime, tuple[date, ...]]:
    """The time up to which this covers loaded rows, and the days of the rows loaded since the last time."""
    row = connection.execute(
        "SELECT now(), (SELECT loaded_through FROM rollup_progress"
        " WHERE rollup = %s AND stream = %s)",
        [rollup, stream.name],
    ).fetchone()
    now, since = row if row is not None else (datetime.now(UTC), None)
    days = connection.execute(
        sql.SQL(
            "SELECT DISTINCT ({time} AT TIME ZONE 'UTC')::date FROM {table}"
            " WHERE %s::timestamptz IS NULL OR loaded_at >= %s"
        ).format(**_names(stream)),
        [since, since],
    )
    return now - _OVERLAP, _without_dropped(connection, stream, {day for (day,) in days})


def _without_dropped(
    connection: Connection, stream: Stream, days: Iterable[date]
) -> tuple[date, ...]:
    dropped = connection.execute(
        "SELECT day FROM dropped_days WHERE table_name = %s", [stream.event_table]
    ).fetchall()
    return tuple(sorted(set(days) - {day for (day,) in dropped}))


def _names(stream: Stream) -> dict[str, sql.Identifier]:
    return {"table": sql.Identifier(stream.event_table), "time": sql.Identifier(stream.event_time)}
