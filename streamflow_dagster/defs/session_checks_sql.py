"""Queries of the checks of sessions, and what they conclude.

Both look only at what is new since they last passed; what failed fails again until it is mended. Positions
and times are shown, and no key, which may name a person.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from psycopg import sql

from streamflow.postgres.connections import Connection
from streamflow.postgres.partitions import table_exists
from streamflow.postgres.sessions.compute import SessionSql, within_spans
from streamflow.postgres.sessions.tables import SessionTable
from streamflow_dagster.defs.quality_sql import begin_scan, note_scan
from streamflow_dagster.defs.sessions_sql import locked
from streamflow_dagster.verdicts import CheckResult

Look = Callable[[Connection, SessionSql, datetime, datetime], CheckResult]

_THROUGH: Final = "SELECT loaded_through FROM rollup_progress WHERE rollup = %s AND stream = %s"
_NOT_IN_ONE: Final = """
SELECT count(*), count(*) FILTER (WHERE "sessions" <> 1),
       min(format('%%s[%%s]@%%s in %%s sessions',
                  "origin topic", "origin partition", "origin offset", "sessions"))
           FILTER (WHERE "sessions" <> 1)
  FROM (SELECT {values}, event.{time} AS "event time", event.origin_topic AS "origin topic",
               event.origin_partition AS "origin partition", event.origin_offset AS "origin offset"
          FROM {events} AS event
         WHERE event.loaded_at >= %(since)s AND event.loaded_at < %(through)s AND {is_counted}) AS value
 CROSS JOIN LATERAL (
    SELECT count(*) AS "sessions" FROM {sessions} AS kept
     WHERE {same_key} AND kept.session_start <= value."event time" AND {last_of_kept} >= value."event time"
 ) AS "found"
"""
_RECENT_DAYS: Final = """
SELECT date_trunc('day', min(kept.session_start)),
       least(date_trunc('day', max({last_of_kept})) + interval '1 day', {calendar})
  FROM {sessions} AS kept WHERE kept.computed_at >= %(since)s AND NOT {is_final} HAVING count(*) > 0
"""
# Rows that were loaded since the last run may be counted already, or not.
_MISCOUNTED: Final = """
WITH "recent" AS MATERIALIZED (
    SELECT *, {last_of_kept} AS "last event" FROM {sessions} AS kept
     WHERE kept.computed_at >= %(since)s AND NOT {is_final}
), "values" AS (
    SELECT {values}, event.{time} AS "event time", event.loaded_at AS "loaded at" FROM {events} AS event
     WHERE {within} AND {is_counted}
)
SELECT count(*), count(*) FILTER (WHERE counted NOT BETWEEN "settled" AND "all"),
       min(format('a session from %%s counts %%s of %%s', session_start, counted, "all"))
           FILTER (WHERE counted NOT BETWEEN "settled" AND "all")
  FROM (SELECT recent.session_start, recent.counted, count("event time") AS "all",
               count("event time") FILTER (WHERE "loaded at" < %(through)s) AS "settled"
          FROM "recent" AS recent
          LEFT JOIN "values" AS value ON {same_key} AND value."event time" >= recent.session_start
                                     AND value."event time" <= recent."last event"
         GROUP BY {recent_by}, recent.session_start, recent.counted, recent.session_end) AS "compared"
"""
# Where a key has a final session, others next to it may be less than a gap away, but not begin before the
# last event of another.
_OVERLAPPING: Final = """
SELECT count(*), count(*) FILTER (WHERE "overlaps"),
       min(format('one that begins at %%s', session_start)) FILTER (WHERE "overlaps")
  FROM (SELECT kept.session_start, EXISTS (
            SELECT FROM {sessions} AS other
             WHERE {same_key} AND other.ctid <> kept.ctid
               AND CASE WHEN other.session_start < kept.session_start
                        THEN CASE WHEN {has_final} THEN {last_of_other} >= kept.session_start
                                  ELSE other.session_end > kept.session_start END
                        ELSE CASE WHEN {has_final} THEN {last_of_kept} >= other.session_start
                                  ELSE kept.session_end > other.session_start END END) AS "overlaps"
          FROM {sessions} AS kept WHERE kept.computed_at >= %(since)s) AS "compared"
"""


def judged(connection: Connection, table: SessionTable, scan: str, look: Look) -> CheckResult:
    """What `look` says of what is new since it last passed; noted if it passes."""
    began, since = begin_scan(connection, scan, table.name)
    row = connection.execute(_THROUGH, [table.name, table.stream.name]).fetchone()
    if row is None or not table_exists(connection, table.name):
        return CheckResult(
            passed=False, severe=False, says=f"not yet: {table.name} was not computed so far"
        )
    parts = SessionSql(table)
    with locked(connection, parts):
        [(through,)] = connection.execute(_THROUGH, [table.name, table.stream.name])
        result = look(connection, parts, since, through)
    if result.passed:
        note_scan(connection, scan, table.name, min(began, through))
    return result


def find_uncounted(
    connection: Connection, parts: SessionSql, since: datetime, through: datetime
) -> CheckResult:
    """Whether each event is in one session, and each session counts its events."""
    values: dict[str, Any] = {"since": since, "through": through}
    names = {**parts.names, "values": parts.values()}
    query = sql.SQL(_NOT_IN_ONE).format(**names, same_key=parts.same_key("kept", "value"))
    [(events, lost, first_lost)] = connection.execute(query, values)
    days = connection.execute(sql.SQL(_RECENT_DAYS).format(**names), values).fetchall()
    miscounted = sql.SQL(_MISCOUNTED).format(
        **names,
        within=within_spans(days, parts),
        same_key=parts.same_key("recent", "value"),
        recent_by=parts.by("recent"),
    )
    [(sessions, wrong, first_wrong)] = connection.execute(miscounted, values)
    table = parts.table.name
    says = (
        f"{events:,} events are in exactly one session each, and {sessions:,} sessions count theirs"
    )
    if lost or wrong:
        says = (
            f"{lost:,} of {events:,} events are not in exactly one session of {table}, and {wrong:,} of "
            f"{sessions:,} sessions count something else than their events: first "
            f"{first_lost or first_wrong}. Drop the table and materialize it: all that is still there is "
            "computed again"
        )
    return CheckResult(
        passed=not (lost or wrong),
        says=says,
        metadata={
            "events": events,
            "events_not_in_one": lost,
            "sessions": sessions,
            "sessions_differing": wrong,
        },
    )


def find_overlaps(
    connection: Connection, parts: SessionSql, since: datetime, _through: datetime
) -> CheckResult:
    """Whether no two sessions of a key overlap."""
    query = sql.SQL(_OVERLAPPING).format(
        **parts.names,
        same_key=parts.same_key("other", "kept"),
        has_final=sql.SQL("EXISTS (SELECT FROM {} AS final WHERE {} AND {})").format(
            parts.names["sessions"], parts.same_key("final", "kept"), parts.is_final("final")
        ),
        last_of_other=parts.last_event("other"),
    )
    [(sessions, overlapping, first)] = connection.execute(query, {"since": since})
    return CheckResult(
        passed=not overlapping,
        says=f"{overlapping:,} of {sessions:,} sessions overlap another one of their key: first {first}"
        if overlapping
        else f"{sessions:,} sessions are apart from the others of their keys",
        metadata={"sessions": sessions, "sessions_overlapping": overlapping},
    )
