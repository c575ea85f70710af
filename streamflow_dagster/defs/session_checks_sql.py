"""Queries of the checks of sessions, and what they conclude.

Both look only at what is new since they last passed; what failed fails again until it is mended. Positions
and times are shown, and no key, which may name a person.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

from psycopg import sql

from streamflow.core_schema import LAST_MOMENT
from streamflow.postgres.connections import Connection
from streamflow.postgres.partitions import table_exists
from streamflow.postgres.sessions.compute import SessionSql, within_spans
from streamflow.postgres.sessions.tables import SessionTable
from streamflow_dagster.defs.quality_sql import begin_scan, note_sound
from streamflow_dagster.defs.sessions_sql import ROWS_AT_ONCE, inner_ends
from streamflow_dagster.verdicts import CheckResult

Look = Callable[[Connection, SessionSql, "Scope"], CheckResult]

_THROUGH: Final = "SELECT loaded_through FROM rollup_progress WHERE rollup = %s AND stream = %s"
# Of the sessions of a key, which are apart, the one that an event is in is the first that ends after it.
_NOT_IN_ONE: Final = """
SELECT count(*), count(*) FILTER (WHERE "is lost"),
       min(format('%%s[%%s]@%%s is in none', "origin topic", "origin partition", "origin offset"))
           FILTER (WHERE "is lost")
  FROM (SELECT value.*, coalesce("found".session_start > value."event time", true) AS "is lost"
          FROM (SELECT {values}, event.{time} AS "event time", event.origin_topic AS "origin topic",
                       event.origin_partition AS "origin partition", event.origin_offset AS "origin offset"
                  FROM {events} AS event
                 WHERE event.loaded_at >= %(since)s AND event.loaded_at < %(until)s
                   AND {is_counted}) AS value
          LEFT JOIN LATERAL (
             SELECT kept.session_start FROM {sessions} AS kept
              WHERE {same_key} AND kept.session_end > value."event time"
                AND {last_of_kept} >= value."event time"
              ORDER BY kept.session_end LIMIT 1
          ) AS "found" ON true) AS "compared"
"""
_RECENT_DAYS: Final = """
SELECT lower(span), upper(span)
  FROM (SELECT unnest(range_agg(tstzrange(date_trunc('day', kept.session_start),
                                          least(date_trunc('day', {last_of_kept}) + interval '1 day',
                                                {calendar})))) AS span
          FROM {sessions} AS kept
         WHERE kept.computed_at >= %(since)s AND kept.computed_at < %(computed_until)s
           AND NOT {is_final}) AS "merged"
 ORDER BY 1
"""
# Rows that were loaded since the last run may be counted already, or not.
_MISCOUNTED: Final = """
WITH "recent" AS MATERIALIZED (
    SELECT kept.ctid AS "row of session", {kept_by}, kept.session_start, counted FROM {sessions} AS kept
     WHERE kept.computed_at >= %(since)s AND kept.computed_at < %(computed_until)s AND NOT {is_final}
), "values" AS (
    SELECT {values}, event.{time} AS "event time", event.loaded_at AS "loaded at" FROM {events} AS event
     WHERE {within} AND {is_counted} AND hash_record_extended(ROW({key}), 0) IN (
        SELECT hash_record_extended(ROW({by}), 0) FROM "recent")
), "there" AS (
    SELECT "found"."row of session", count(*) AS "all there",
           count(*) FILTER (WHERE "loaded at" < %(through)s) AS "settled there"
      FROM "values" AS value
     CROSS JOIN LATERAL (
         SELECT kept.ctid AS "row of session", kept.session_start FROM {sessions} AS kept
          WHERE {same_key} AND kept.session_end > value."event time"
            AND {last_of_kept} >= value."event time"
          ORDER BY kept.session_end LIMIT 1
     ) AS "found"
     WHERE "found".session_start <= value."event time" GROUP BY "found"."row of session"
)
SELECT count(*), count(*) FILTER (WHERE "counts other"),
       min(format('a session from %%s counts %%s of %%s', session_start, counted, "all there"))
           FILTER (WHERE "counts other")
  FROM (SELECT session_start, counted, coalesce("all there", 0) AS "all there",
               counted NOT BETWEEN coalesce("settled there", 0) AND coalesce("all there", 0) AS "counts other"
          FROM "recent" LEFT JOIN "there" USING ("row of session")) AS "compared"
"""
# Where a key has a final session, others next to it may be less than a gap away, but not begin before the
# last event of another.
_OVERLAPPING: Final = """
SELECT count(*), count(*) FILTER (WHERE "overlaps next"),
       min(format('the one that begins at %%s', session_start)) FILTER (WHERE "overlaps next")
  FROM (SELECT session_start,
               CASE WHEN "next start" IS NULL THEN false
                    WHEN bool_or("is final") OVER (PARTITION BY {by}) THEN "last event" >= "next start"
                    ELSE session_end > "next start" END AS "overlaps next"
          FROM (SELECT {kept_by}, kept.session_start, kept.session_end, {last_of_kept} AS "last event",
                       {is_final} AS "is final",
                       lead(kept.session_start)
                           OVER (PARTITION BY {kept_by} ORDER BY kept.session_start) AS "next start"
                  FROM {sessions} AS kept
                 WHERE hash_record_extended(ROW({kept_by}), 0) IN (
                    SELECT hash_record_extended(ROW({by}), 0) FROM {sessions}
                     WHERE computed_at >= %(since)s
                       AND computed_at < %(computed_until)s)) AS "in order") AS "compared"
"""


class Scope(NamedTuple):
    """What is looked at.

    Attributes:
        since: rows loaded and sessions computed from then on,
        until: before then,
        computed_until: and before then.
        through: rows that were loaded before are in sessions; of later ones, some may be.
    """

    since: datetime
    until: datetime
    computed_until: datetime
    through: datetime


def judged(
    connection: Connection, table: SessionTable, scan: str, look: Look, *, most: int = ROWS_AT_ONCE
) -> CheckResult:
    """What `look` says of what is new since it last passed, or of the next `most` rows or sessions of that;
    noted if it passes."""
    _, since = begin_scan(connection, scan, table.name)
    row = connection.execute(_THROUGH, [table.name, table.stream.name]).fetchone()
    if row is None or not table_exists(connection, table.name):
        return CheckResult(
            passed=False, severe=False, says=f"not yet: {table.name} was not computed so far"
        )
    parts = SessionSql(table)
    with connection.transaction():
        _hold(connection, parts)
        scope = _scope(connection, parts, since, most)
        result = look(connection, parts, scope)
    if not result.passed:
        return result
    note_sound(connection, scan, table.name, max(since, scope.until))
    if scope.until < scope.through:
        says = f"{result.says}; looked at up to {scope.until:%Y-%m-%d %H:%M:%S}, next time at more"
        return replace(result, says=says)
    return result


def _hold(connection: Connection, parts: SessionSql) -> None:
    """Of the transaction: one snapshot, and no day of it is dropped."""
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    statement = sql.SQL("LOCK TABLE {sessions}, {events} IN ACCESS SHARE MODE")
    connection.execute(
        statement.format(sessions=parts.names["sessions"], events=parts.names["events"])
    )


def _scope(connection: Connection, parts: SessionSql, since: datetime, most: int) -> Scope:
    table = parts.table
    [(through,)] = connection.execute(_THROUGH, [table.name, table.stream.name])
    ends = [
        *inner_ends(connection, table.stream.event_table, "loaded_at", since, most)[:1],
        *inner_ends(connection, table.name, "computed_at", since, most)[:1],
    ]
    if ends and min(ends) < through:
        return Scope(since, min(ends), min(ends), through)
    return Scope(since, through, LAST_MOMENT, through)


def find_uncounted(connection: Connection, parts: SessionSql, scope: Scope) -> CheckResult:
    """Whether each event is in a session, and each session counts its events."""
    values = scope._asdict()
    names = {**parts.names, "values": parts.values()}
    query = sql.SQL(_NOT_IN_ONE).format(**names, same_key=parts.same_key("kept", "value"))
    [(events, lost, first_lost)] = connection.execute(query, values)
    days = connection.execute(sql.SQL(_RECENT_DAYS).format(**names), values).fetchall()
    miscounted = sql.SQL(_MISCOUNTED).format(
        **names,
        within=within_spans(days, parts),
        same_key=parts.same_key("kept", "value"),
        kept_by=parts.by("kept"),
        key=sql.SQL(", ").join(parts.table.by_values),
    )
    [(sessions, wrong, first_wrong)] = connection.execute(miscounted, values)
    table = parts.table.name
    says = f"{events:,} events are in a session each, and {sessions:,} sessions count theirs"
    if lost or wrong:
        says = (
            f"{lost:,} of {events:,} events are in no session of {table}, and {wrong:,} of "
            f"{sessions:,} sessions count something else than their events: first "
            f"{first_lost or first_wrong}. Drop the table and materialize it: all that is still there is "
            "computed again"
        )
    return CheckResult(
        passed=not (lost or wrong),
        says=says,
        metadata={
            "events": events,
            "events_in_none": lost,
            "sessions": sessions,
            "sessions_differing": wrong,
        },
    )


def find_overlaps(connection: Connection, parts: SessionSql, scope: Scope) -> CheckResult:
    """Whether no two sessions of a key overlap."""
    query = sql.SQL(_OVERLAPPING).format(**parts.names, kept_by=parts.by("kept"))
    [(sessions, overlapping, first)] = connection.execute(query, scope._asdict())
    return CheckResult(
        passed=not overlapping,
        says=f"{overlapping:,} of {sessions:,} sessions overlap the next one of their key: first {first}"
        if overlapping
        else f"{sessions:,} sessions are apart from the others of their keys",
        metadata={"sessions": sessions, "sessions_overlapping": overlapping},
    )
