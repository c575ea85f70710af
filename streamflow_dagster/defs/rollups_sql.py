"""Rollups: SQL from loaded rows to tables that answer questions at once. Each can be run again.

Hours are computed for a range. Days are computed anew when rows of them were loaded since the last
time, so late and replayed events correct what was told before. A day that retention has removed
keeps what was computed while its rows were there.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, NamedTuple

from psycopg import sql

from streamflow.postgres.connections import Connection
from streamflow.postgres.tables import event_columns
from streamflow.stream import Stream

FAILED: Final = "USER_LOGIN_FAILED"
SUCCEEDED: Final = "USER_LOGIN"
USER: Final = "user"

DAILY_ACTIVE_USERS: Final = "daily_active_users"
LOGIN_FAILURE_BURSTS: Final = "login_failure_bursts"

# A row's load time is when its transaction began: one that commits later is still found.
_OVERLAP: Final = timedelta(minutes=5)
_LATELY: Final = timedelta(days=2)


class Bursts(NamedTuple):
    """What counts as a burst of failed logins.

    Attributes:
        failures: of one user, within the span.
        overall: of all users together, within the span.
        span: length of the sliding window.
    """

    failures: int
    overall: int
    span: timedelta


class Computed(NamedTuple):
    """What a rollup wrote."""

    rows: int
    days: tuple[date, ...] = ()


def has_users(stream: Stream) -> bool:
    """Whether the stream's events name a user."""
    return any(column.name == USER for column in event_columns(stream))


def roll_hours(connection: Connection, stream: Stream, start: datetime, end: datetime) -> Computed:
    """Counts the events of whole hours, `start` up to before `end`, by type. Hours of days that
    retention has removed stay as they are."""
    users = sql.SQL('count(DISTINCT "user")') if has_users(stream) else sql.SQL("NULL::bigint")
    with connection.transaction():
        connection.execute(
            "DELETE FROM hourly_events WHERE stream = %s AND hour >= %s AND hour < %s"
            " AND (hour AT TIME ZONE 'UTC')::date NOT IN"
            " (SELECT day FROM dropped_days WHERE table_name = %s)",
            [stream.name, start, end, stream.table],
        )
        rows = connection.execute(
            sql.SQL(
                "INSERT INTO hourly_events (stream, hour, event_type, events, users)"
                " SELECT %(stream)s, date_bin('1 hour', \"timestamp\", 'epoch'), {kind}::text,"
                " count(*), {users} FROM {table}"
                ' WHERE "timestamp" >= %(start)s AND "timestamp" < %(end)s'
                " AND (\"timestamp\" AT TIME ZONE 'UTC')::date NOT IN"
                " (SELECT day FROM dropped_days WHERE table_name = %(table)s) GROUP BY 2, 3"
            ).format(kind=_kind(stream), users=users, table=sql.Identifier(stream.table)),
            {"stream": stream.name, "start": start, "end": end, "table": stream.table},
        ).rowcount
    return Computed(rows)


def stale_hours(
    connection: Connection, stream: Stream, start: datetime, *, most: int
) -> list[datetime]:
    """Whole hours from `start` on whose rollup is missing or older than its events, oldest first; of
    rows that were loaded within two days. What was missed for longer is backfilled by hand."""
    rows = connection.execute(
        sql.SQL(
            "WITH loaded AS (SELECT date_bin('1 hour', \"timestamp\", 'epoch') AS hour,"
            " max(loaded_at) AS at FROM {table} WHERE loaded_at > now() - %(lately)s::interval"
            ' AND "timestamp" >= %(start)s'
            " AND \"timestamp\" < date_trunc('hour', now()) GROUP BY 1),"
            " computed AS (SELECT hour, min(computed_at) AS at FROM hourly_events"
            " WHERE stream = %(stream)s AND hour >= %(start)s GROUP BY 1)"
            " SELECT hour FROM loaded LEFT JOIN computed USING (hour)"
            " WHERE computed.at IS NULL OR computed.at < loaded.at + %(overlap)s"
            " AND computed.at < now() - 2 * %(overlap)s::interval"
            " ORDER BY hour LIMIT %(most)s"
        ).format(table=sql.Identifier(stream.table)),
        {
            "stream": stream.name,
            "start": start,
            "overlap": _OVERLAP,
            "lately": _LATELY,
            "most": most,
        },
    )
    return [hour for (hour,) in rows]


def roll_active_users(connection: Connection, stream: Stream) -> Computed:
    """Counts the different users of each day that has news."""
    with connection.transaction():
        until, days = _days_with_news(connection, stream, DAILY_ACTIVE_USERS)
        rows = 0
        for day in days:
            start, end = _bounds(day)
            rows += connection.execute(
                sql.SQL(
                    "INSERT INTO daily_active_users (stream, day, users, events)"
                    ' SELECT %s, %s, count(DISTINCT "user"), count(*) FROM {}'
                    ' WHERE "timestamp" >= %s AND "timestamp" < %s HAVING count(*) > 0'
                    " ON CONFLICT (stream, day) DO UPDATE SET users = excluded.users,"
                    " events = excluded.events, computed_at = now()"
                ).format(sql.Identifier(stream.table)),
                [stream.name, day, start, end],
            ).rowcount
        _remember(connection, stream, DAILY_ACTIVE_USERS, until)
    return Computed(rows, days)


# A failure belongs to a burst if some span holds it together with enough others. Neighbours at most
# a span apart are one burst; midnight (UTC) ends it, so that each day can be computed on its own.
_BURSTS: Final = """
WITH failures AS (
    SELECT "user", "timestamp" AS at FROM {table}
     WHERE "timestamp" >= %(start)s - %(span)s AND "timestamp" < %(end)s + %(span)s
       AND {kind} = %(failed)s
), scoped AS (
    SELECT 'user' AS scope, "user" AS who, "user", at, %(failures)s AS enough FROM failures
     UNION ALL
    SELECT 'all', '', "user", at, %(overall)s FROM failures
), counted AS (
    SELECT *, count(*) OVER (PARTITION BY scope, who ORDER BY at
                             RANGE BETWEEN %(span)s PRECEDING AND CURRENT ROW) AS recent
      FROM scoped
), judged AS (
    SELECT *, bool_or(recent >= enough) OVER (PARTITION BY scope, who ORDER BY at
                             RANGE BETWEEN CURRENT ROW AND %(span)s FOLLOWING) AS member
      FROM counted
), members AS (
    SELECT *, at - lag(at) OVER (PARTITION BY scope, who ORDER BY at) > %(span)s AS opens
      FROM judged WHERE member AND at >= %(start)s AND at < %(end)s
), numbered AS (
    SELECT *, count(*) FILTER (WHERE opens) OVER (PARTITION BY scope, who ORDER BY at) AS number
      FROM members
), bursts AS (
    SELECT scope, who, min(at) AS started_at, max(at) AS ended_at, count(*) AS failures,
           array_agg(DISTINCT "user") AS names, max(recent) AS peak
      FROM numbered GROUP BY scope, who, number
)
INSERT INTO login_failure_bursts (stream, day, scope, "user", started_at, ended_at, failures, users,
                                  peak, succeeded)
SELECT %(stream)s, %(day)s, scope, who, started_at, ended_at, failures, cardinality(names), peak,
       EXISTS (SELECT FROM {table} AS login
                WHERE login."timestamp" >= started_at
                  AND login."timestamp" <= ended_at + %(span)s
                  AND login.{kind} = %(succeeded)s AND login."user" = ANY (names))
  FROM bursts
"""


def roll_bursts(connection: Connection, stream: Stream, bursts: Bursts) -> Computed:
    """Finds the bursts of failed logins of each day that has news, and of the days beside it."""
    statement = sql.SQL(_BURSTS).format(table=sql.Identifier(stream.table), kind=_kind(stream))
    with connection.transaction():
        until, news = _days_with_news(connection, stream, LOGIN_FAILURE_BURSTS)
        days = _without_dropped(connection, stream, {each for day in news for each in _beside(day)})
        rows = 0
        for day in days:
            start, end = _bounds(day)
            connection.execute(
                "DELETE FROM login_failure_bursts WHERE stream = %s AND day = %s",
                [stream.name, day],
            )
            rows += connection.execute(
                statement,
                {
                    "stream": stream.name,
                    "day": day,
                    "start": start,
                    "end": end,
                    "span": bursts.span,
                    "failures": bursts.failures,
                    "overall": bursts.overall,
                    "failed": FAILED,
                    "succeeded": SUCCEEDED,
                },
            ).rowcount
        _remember(connection, stream, LOGIN_FAILURE_BURSTS, until)
    return Computed(rows, days)


def roll_causes(connection: Connection) -> Computed:
    """Counts all dead letters by day, topic, cause and stage: what is open changes with replays."""
    with connection.transaction():
        connection.execute("DELETE FROM dead_letters_by_cause")
        rows = connection.execute(
            "INSERT INTO dead_letters_by_cause (day, topic, error_code, stage, letters, open,"
            " first_at, last_at)"
            " SELECT (coalesce(appended_at, loaded_at) AT TIME ZONE 'UTC')::date, source_topic,"
            " error_code, stage, count(*), count(*) FILTER (WHERE status = 'open'),"
            " min(appended_at), max(appended_at) FROM dead_letters GROUP BY 1, 2, 3, 4"
        ).rowcount
    return Computed(rows)


def _days_with_news(
    connection: Connection, stream: Stream, rollup: str
) -> tuple[datetime, tuple[date, ...]]:
    """The days of rows loaded since the last time, and the time up to which that is so."""
    row = connection.execute(
        "SELECT now(), (SELECT loaded_through FROM rollup_progress"
        " WHERE rollup = %s AND stream = %s)",
        [rollup, stream.name],
    ).fetchone()
    now, since = row if row is not None else (datetime.now(UTC), None)
    days = connection.execute(
        sql.SQL(
            "SELECT DISTINCT (\"timestamp\" AT TIME ZONE 'UTC')::date FROM {}"
            " WHERE %s::timestamptz IS NULL OR loaded_at >= %s"
        ).format(sql.Identifier(stream.table)),
        [since, since],
    )
    return now - _OVERLAP, _without_dropped(connection, stream, {day for (day,) in days})


def _without_dropped(
    connection: Connection, stream: Stream, days: Iterable[date]
) -> tuple[date, ...]:
    dropped = connection.execute(
        "SELECT day FROM dropped_days WHERE table_name = %s", [stream.table]
    ).fetchall()
    return tuple(sorted(set(days) - {day for (day,) in dropped}))


def _remember(connection: Connection, stream: Stream, rollup: str, until: datetime) -> None:
    connection.execute(
        "INSERT INTO rollup_progress (rollup, stream, loaded_through) VALUES (%s, %s, %s)"
        " ON CONFLICT (rollup, stream) DO UPDATE SET loaded_through = excluded.loaded_through",
        [rollup, stream.name, until],
    )


def _beside(day: date) -> tuple[date, date, date]:
    """A day and its neighbours; the contract leaves room for them."""
    return day - timedelta(days=1), day, day + timedelta(days=1)


def _bounds(day: date) -> tuple[datetime, datetime]:
    start = datetime.combine(day, time(), UTC)
    return start, start + timedelta(days=1)


def _kind(stream: Stream) -> sql.Identifier:
    return sql.Identifier(stream.windows.group_by if stream.windows is not None else "type")
