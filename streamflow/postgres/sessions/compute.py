"""Computing sessions again where rows of their keys have changed.

Sessions of a key lie at least a gap apart. So what new rows of a key (or rows that are gone) can change lies
in a range of time: these rows, and the whole of each session that is less than a gap away from one. Nothing
else is less than a gap away from that range. Its sessions are deleted and computed from all rows of the key
in it, so it does not matter in which order rows come, how often this is repeated, or whether it meets rows
that will be noticed as new only later.

A day that retention has dropped has no rows any more. A session that reaches into one is final: it stays as
it is, and the key's rows up to its last event are taken as counted there. Rows after that make another
session, even if they come within the gap.
"""

from datetime import datetime, timedelta
from typing import Final

from psycopg import sql

from streamflow.core_schema import LAST_MOMENT
from streamflow.postgres.connections import Connection
from streamflow.postgres.sessions.tables import EVENT_TIME, SessionTable, event_values
from streamflow.windows.specs import SessionWindow

# Tables and columns of users may have any name without a space.
CHANGED: Final = sql.Identifier("changed sessions")
_RANGES: Final = sql.Identifier("ranges of sessions")
_FINAL: Final = sql.Identifier("final sessions")
_TEMPORARY: Final = (CHANGED, _RANGES, _FINAL)

# No event lies outside of the calendar (`core_schema`), so a longer gap is no longer one.
_LONGEST_GAP: Final = timedelta(days=3_652_059)
_RANGES_APART: Final = timedelta(hours=1)
_MOST_SPANS: Final = 64
EVERYTHING: Final = sql.SQL("true")

# Beyond the end of the calendar, a session's end does not say when its last event was.
_LAST_EVENT: Final = """
CASE WHEN {kept}.session_end < {calendar} THEN {kept}.session_end - {gap} ELSE {kept}.session_end END
"""
_IS_FINAL: Final = """
EXISTS (SELECT FROM dropped_days WHERE table_name = {events}
           AND day >= ({kept}.session_start AT TIME ZONE 'UTC')::date
           AND day <= ({last} AT TIME ZONE 'UTC')::date)
"""
# An event that is in a session: one that is not erased, not on a dropped day, and no tombstone.
_IS_COUNTED: Final = """
(event.{time} AT TIME ZONE 'UTC')::date NOT IN (SELECT day FROM dropped_days WHERE table_name = {events_name})
AND NOT EXISTS (SELECT FROM erased_records AS erased
                 WHERE erased.place = 'events' AND erased.topic = event.origin_topic
                   AND erased.partition = event.origin_partition AND erased."offset" = event.origin_offset)
"""
_CREATE_CHANGED: Final = """
CREATE TEMPORARY TABLE {changed} ON COMMIT DROP AS
SELECT {by}, event.{time} AS "first event", event.{time} AS "last event" FROM {events} AS event
 WHERE {which} AND {is_counted}
"""
# What is a gap or more away from all else, then with the sessions that it touches; at last with what lies
# between two such ranges of an hour, so that a key has few of them in a day.
_CREATE_RANGES: Final = """
CREATE TEMPORARY TABLE {ranges} ON COMMIT DROP AS
WITH "islands" AS (
    SELECT {by}, lower("an island") AS "first event", upper("an island") - {gap} AS "last event"
      FROM (SELECT {by}, unnest(range_agg(tstzrange("first event", "last event" + {gap}))) AS "an island"
              FROM {changed} GROUP BY {by}) AS "merged"
), "extended" AS (
    SELECT {island_by}, least(island."first event", min(kept.session_start)) AS "first event",
           greatest(island."last event", max({last_of_kept})) AS "last event"
      FROM "islands" AS island
      LEFT JOIN {sessions} AS kept ON {same_key} AND kept.session_start < island."last event" + {gap}
            AND kept.session_end > island."first event" AND NOT {is_final}
     GROUP BY {island_by}, island."first event", island."last event"
)
SELECT {by}, lower("a range") AS "first event", upper("a range") - {apart} AS "last event"
  FROM (SELECT {by}, unnest(range_agg(tstzrange("first event", "last event" + {apart}))) AS "a range"
          FROM "extended" GROUP BY {by}) AS "merged"
"""
_CREATE_FINAL: Final = """
CREATE TEMPORARY TABLE {final} ON COMMIT DROP AS
SELECT DISTINCT {kept_by}, kept.session_start, {last_of_kept} AS "last event"
  FROM {ranges} AS range
  JOIN {sessions} AS kept ON {same_key} AND kept.session_end > range."first event"
        AND kept.session_start <= range."last event"
 WHERE {is_final};
CREATE INDEX ON {final} (hash_record_extended(ROW({by}), 0), session_start);
ANALYZE {ranges}, {final}
"""
_DELETE: Final = """
DELETE FROM {sessions} AS kept USING {ranges} AS range
 WHERE {same_key} AND kept.session_end > range."first event"
   AND kept.session_start >= range."first event" AND kept.session_start <= range."last event"
   AND NOT {is_final}
"""
# A final session in between parts what comes before it from what comes after it.
_INSERT: Final = """
WITH "values" AS (
    SELECT {values} FROM {events} AS event
     WHERE {within} AND {is_counted} AND {which}
), "in ranges" AS (
    SELECT value.*, "passed finals" FROM "values" AS value
      JOIN (SELECT *, generate_series(date_trunc('day', "first event"), "last event",
                                      interval '1 day') AS "one day"
              FROM {ranges}) AS range
        ON {same_key} AND range."one day" = date_trunc('day', value.{event_time})
       AND value.{event_time} >= range."first event" AND value.{event_time} <= range."last event"
     CROSS JOIN LATERAL (
        SELECT count(*) AS "passed finals",
               coalesce(max(final."last event") >= value.{event_time}, false) AS "is covered"
          FROM {final} AS final WHERE {same_key_as_final} AND final.session_start <= value.{event_time}
     ) AS "before"
     WHERE NOT "is covered"
), "begun" AS (
    SELECT *, CASE WHEN {event_time} - lag({event_time}) OVER "in order" < {gap} THEN 0 ELSE 1
              END AS "begins one"
      FROM "in ranges" WINDOW "in order" AS (PARTITION BY {by}, "passed finals" ORDER BY {event_time})
), "numbered" AS (
    SELECT *, sum("begins one") OVER "in order" AS "number of session"
      FROM "begun" WINDOW "in order" AS (PARTITION BY {by}, "passed finals" ORDER BY {event_time})
)
INSERT INTO {sessions} (session_start, session_end, {columns}, counted)
SELECT min({event_time}), least(max({event_time}) + {gap}, {calendar}), {by}, {results}, count(*)
  FROM "numbered" GROUP BY {by}, "passed finals", "number of session"
"""
_SPANS: Final = """
SELECT lower(span), upper(span)
  FROM (SELECT unnest(range_agg(tstzrange(date_trunc('day', "first event"),
                                          least(date_trunc('day', "last event") + interval '1 day',
                                                {calendar})))) AS span
          FROM {ranges}) AS "merged"
 ORDER BY 1
"""


class SessionSql:
    """The SQL of one table of sessions; `kept` is the alias of a session, `event` that of an event."""

    def __init__(self, table: SessionTable) -> None:
        self.table = table
        self.names: dict[str, sql.Composable] = {
            "sessions": sql.Identifier(table.name),
            "events": sql.Identifier(table.stream.event_table),
            "time": sql.Identifier(table.stream.event_time),
            "gap": sql.Literal(_gap(table.spec)),
            "apart": sql.Literal(max(_gap(table.spec), _RANGES_APART)),
            "calendar": sql.Literal(LAST_MOMENT),
            "event_time": EVENT_TIME,
            "by": self.by(),
            "changed": CHANGED,
            "ranges": _RANGES,
            "final": _FINAL,
            "is_counted": self.is_counted(),
            "is_final": self.is_final("kept"),
            "last_of_kept": self.last_event("kept"),
        }

    def by(self, alias: str | None = None) -> sql.Composed:
        own = () if alias is None else (alias,)
        return sql.SQL(", ").join(sql.Identifier(*own, column.name) for column in self.table.by)

    def same_key(self, one: str, other: str) -> sql.Composed:
        """Whether two rows have the same key, of which nulls are one; by its hash, a value of any length is
        found by an index."""
        return sql.SQL(
            "hash_record_extended(ROW({one}), 0) = hash_record_extended(ROW({other}), 0)"
            " AND ROW({one}) IS NOT DISTINCT FROM ROW({other})"
        ).format(one=self.by(one), other=self.by(other))

    def is_counted(self) -> sql.Composed:
        """Whether an event is in a session, once that is computed."""
        stream = self.table.stream
        counted = sql.SQL(_IS_COUNTED).format(
            time=sql.Identifier(stream.event_time), events_name=sql.Literal(stream.event_table)
        )
        return counted + sql.SQL("AND NOT event.deleted" if stream.mode == "upsert" else "")

    def last_event(self, alias: str) -> sql.Composed:
        """When the last event of a session was."""
        return sql.SQL(_LAST_EVENT).format(
            kept=sql.Identifier(alias),
            gap=sql.Literal(_gap(self.table.spec)),
            calendar=sql.Literal(LAST_MOMENT),
        )

    def is_final(self, alias: str) -> sql.Composed:
        """Whether a session reaches into a day that retention has dropped."""
        return sql.SQL(_IS_FINAL).format(
            kept=sql.Identifier(alias),
            last=self.last_event(alias),
            events=sql.Literal(self.table.stream.event_table),
        )

    def values(self) -> sql.Composed:
        """SELECT list of the key of an event."""
        return sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(value, sql.Identifier(column.name))
            for value, column in zip(self.table.by_values, self.table.by, strict=True)
        )


def _gap(spec: SessionWindow) -> timedelta:
    return min(spec.gap, _LONGEST_GAP)


def lock(connection: Connection, parts: SessionSql) -> None:
    """Until the transaction ends, nobody else changes the sessions, and no day of the events is dropped."""
    statement = (
        "LOCK TABLE {sessions} IN SHARE ROW EXCLUSIVE MODE; LOCK TABLE {events} IN ACCESS SHARE MODE;"
        "LOCK TABLE dropped_days IN SHARE MODE"
    )
    connection.execute(
        sql.SQL(statement).format(
            sessions=sql.Identifier(parts.table.name),
            events=sql.Identifier(parts.table.stream.event_table),
        )
    )


def collect_changed(connection: Connection, parts: SessionSql, which: sql.Composable) -> int:
    """Notes the events that a condition on ``event`` chooses as those whose sessions may have changed;
    returns their number. In the transaction that calls `recompute`."""
    query = sql.SQL(_CREATE_CHANGED).format(**{**parts.names, "by": parts.values()}, which=which)
    return connection.execute(query).rowcount


def recompute(connection: Connection, parts: SessionSql, which: sql.Composable = EVERYTHING) -> int:
    """Computes the sessions around what `collect_changed` has noted; returns how many there are now.

    Args:
        connection: in a transaction that has locked the table of sessions.
        parts: of that table.
        which: a condition on ``event``: others are left out.
    """
    names = parts.names
    kept_range = parts.same_key("kept", "range")
    connection.execute(
        sql.SQL(_CREATE_RANGES).format(
            **names, island_by=parts.by("island"), same_key=parts.same_key("kept", "island")
        )
    )
    connection.execute(
        sql.SQL(_CREATE_FINAL).format(**names, kept_by=parts.by("kept"), same_key=kept_range)
    )
    connection.execute(sql.SQL(_DELETE).format(**names, same_key=kept_range))
    results = parts.table.results
    computed = connection.execute(
        sql.SQL(_INSERT).format(
            **names,
            values=event_values(parts.table),
            within=_within(connection, parts),
            which=which,
            same_key=parts.same_key("value", "range"),
            same_key_as_final=parts.same_key("value", "final"),
            columns=sql.SQL(", ").join(
                sql.Identifier(column.name)
                for column in (*parts.table.by, *(result.column for result in results))
            ),
            results=sql.SQL(", ").join(result.value for result in results),
        )
    ).rowcount
    for temporary in _TEMPORARY:
        connection.execute(sql.SQL("DROP TABLE {}").format(temporary))
    return computed


def _within(connection: Connection, parts: SessionSql) -> sql.Composable:
    """The condition that an event lies on one of the days of the ranges: others are not even looked at."""
    spans = connection.execute(sql.SQL(_SPANS).format(**parts.names)).fetchall()
    return within_spans(spans, parts)


def within_spans(spans: list[tuple[datetime, datetime]], parts: SessionSql) -> sql.Composable:
    if not spans:
        return sql.SQL("false")
    if len(spans) > _MOST_SPANS:
        spans = [(spans[0][0], spans[-1][1])]
    return sql.SQL("({})").format(
        sql.SQL(" OR ").join(
            sql.SQL("event.{time} >= {first} AND event.{time} < {end}").format(
                time=parts.names["time"], first=sql.Literal(first), end=sql.Literal(end)
            )
            for first, end in spans
        )
    )
