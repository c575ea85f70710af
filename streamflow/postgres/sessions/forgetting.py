"""Sessions of forgotten subjects (G16). All of it can be run again."""

from typing import Any, Final

from psycopg import sql

from streamflow.postgres.connections import Connection
from streamflow.postgres.forgotten import USER
from streamflow.postgres.sessions.compute import SessionSql, collect_changed, lock, recompute
from streamflow.postgres.sessions.tables import SessionTable

_THEIRS: Final = sql.Identifier("their events")
_CREATE_THEIRS: Final = """
CREATE TEMPORARY TABLE {theirs} ON COMMIT DROP AS
SELECT origin_topic, origin_partition, origin_offset FROM {events} WHERE {match}
"""
_IS_THEIRS: Final = """
EXISTS (SELECT FROM {theirs} AS "their event"
         WHERE ("their event".origin_topic, "their event".origin_partition, "their event".origin_offset)
             = (event.origin_topic, event.origin_partition, event.origin_offset))
"""
# Also sessions that are final; what is still there of their other events makes new ones.
_REMOVE: Final = """
WITH "removed" AS (
    DELETE FROM {sessions} AS kept
     WHERE {names_them} OR EXISTS (
        SELECT FROM {changed} AS changed WHERE {same_key}
           AND changed."first event" >= kept.session_start AND changed."first event" <= {last_of_kept})
    RETURNING {kept_by}, kept.session_start, {last_of_kept} AS "last event"
)
INSERT INTO {changed} SELECT * FROM "removed"
"""


def erase_sessions(
    connection: Connection,
    table: SessionTable,
    match: sql.Composable,
    values: dict[str, Any],
    *,
    of_user: bool,
) -> int:
    """Removes the sessions that events of a subject are in, and those that name the subject though their
    events are gone, and computes what remains of them without these events. Returns how many were removed.

    Args:
        connection: in the transaction that empties the events, before it does.
        table: that of the sessions, which exists.
        match: the condition that an event is of the subject,
        values: and its parameters: names of a user or, as a pattern, hashes of an address.
        of_user: which of the two.
    """
    parts = SessionSql(table)
    names = parts.names
    lock(connection, parts)
    create = sql.SQL(_CREATE_THEIRS).format(theirs=_THEIRS, events=names["events"], match=match)
    connection.execute(create, values)
    is_theirs = sql.SQL(_IS_THEIRS).format(theirs=_THEIRS)
    collect_changed(connection, parts, is_theirs)
    removed = connection.execute(
        sql.SQL(_REMOVE).format(
            **names,
            names_them=_names_them(table, of_user=of_user),
            same_key=parts.same_key("changed", "kept"),
            kept_by=parts.by("kept"),
        ),
        values,
    ).rowcount
    recompute(connection, parts, sql.SQL("NOT ") + is_theirs)
    connection.execute(sql.SQL("DROP TABLE {}").format(_THEIRS))
    return removed


def _names_them(table: SessionTable, *, of_user: bool) -> sql.Composable:
    """Whether a session holds a value that names the subject."""
    test = "kept.{}::text = ANY(%(names)s)" if of_user else "kept.{}::text ~ %(pattern)s"
    columns = table.columns_of(USER if of_user else None)
    tests: list[sql.Composable] = [
        sql.SQL(test).format(sql.Identifier(column)) for column in columns
    ]
    return sql.SQL("({})").format(sql.SQL(" OR ").join([*tests, sql.SQL("false")]))
