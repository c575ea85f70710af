"""The views of windows, which follow their declaration: replaced where the columns stay, so that privileges
and views of the user's own on them stay too; else made again with the same privileges, unless something uses
them."""

import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from psycopg import sql

from streamflow.errors import ConfigurationError
from streamflow.postgres.connections import Connection
from streamflow.postgres.partitions import quoted
from streamflow.postgres.windows.tables import WindowTable, total_columns, window_tables
from streamflow.postgres.windows.totals import totals_query
from streamflow.stream import Stream

Statement = tuple[str, sql.Composed]  # what it does, in words, and the SQL

_COMMENT: Final = "SELECT obj_description(to_regclass(%s), 'pg_class')"
# A view of another owner does not show our table.
_FOREIGN: Final = """
SELECT FROM pg_class AS taken WHERE oid = to_regclass(%s) AND NOT (relkind = 'v' AND EXISTS (
    SELECT FROM pg_rewrite JOIN pg_depend ON objid = pg_rewrite.oid
     WHERE ev_class = taken.oid AND refobjid = to_regclass(%s)))
"""
_COLUMNS: Final = """
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
 WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
# Views are there by their rules; whatever else uses a view, or its type, by what it is.
_USES: Final = """
SELECT DISTINCT coalesce(ev_class::regclass::text, pg_describe_object(used.classid, objid, objsubid))
  FROM pg_class AS own
  JOIN pg_depend AS used ON (refclassid, refobjid) IN
       (('pg_class'::regclass, own.oid), ('pg_type'::regclass, own.reltype))
  LEFT JOIN pg_rewrite ON used.classid = 'pg_rewrite'::regclass AND pg_rewrite.oid = objid
 WHERE own.oid = to_regclass(%s) AND deptype IN ('n', 'a') AND ev_class IS DISTINCT FROM own.oid
 ORDER BY 1
"""
# Of all but who makes the view, who has them anyway; None is the whole view.
_PRIVILEGES: Final = """
WITH granted AS (
    SELECT NULL::name AS of_column, entry.* FROM pg_class, aclexplode(relacl) AS entry
     WHERE oid = to_regclass(%(view)s)
     UNION ALL
    SELECT attname, entry.* FROM pg_attribute, aclexplode(attacl) AS entry
     WHERE attrelid = to_regclass(%(view)s) AND NOT attisdropped
)
SELECT of_column, privilege_type, is_grantable,
       CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END
  FROM granted WHERE grantee = 0 OR pg_get_userbyid(grantee) <> current_user
"""


class View(NamedTuple):
    """A view; a digest in its comment says which definition it has."""

    name: str
    query: sql.Composed

    @property
    def comment(self) -> str:
        digest = hashlib.sha256(self.query.as_string(None).encode()).hexdigest()
        return f"Made by StreamFlow of definition {digest[:16]}, and again when that changes."

    def is_current(self, connection: Connection) -> bool:
        row = connection.execute(_COMMENT, [quoted(self.name)]).fetchone()
        return row is not None and row[0] == self.comment

    def create(self) -> sql.Composed:
        """Creates it, or replaces one with the same columns."""
        return sql.SQL(
            "CREATE OR REPLACE VIEW {view} AS {query}; COMMENT ON VIEW {view} IS {comment};"
        ).format(
            view=sql.Identifier(self.name), query=self.query, comment=sql.Literal(self.comment)
        )


def totals_view(table: WindowTable) -> View:
    return View(table.view, totals_query(table))


def view_changes(connection: Connection, table: WindowTable) -> Iterator[Statement]:
    """What is to be done to the view of the totals. Raises ConfigurationError if it is another owner's."""
    view = totals_view(table)
    names = [quoted(table.view), quoted(table.name)]
    if connection.execute(_FOREIGN, names).fetchone() is not None:
        raise ConfigurationError(
            f"stream {table.stream.name}: {table.view} exists already, and windows have a view of that name "
            'with their totals: give the windows another name (name="…"), or rename that one'
        )
    if view.is_current(connection):
        return
    if _may_be_replaced(connection, table):
        yield f"view {view.name}", view.create()
    elif not _users_of(connection, view.name):
        yield f"view {view.name}", _again(connection, table, view)


def kept_views(connection: Connection, stream: Stream) -> dict[str, str]:
    """The views of totals that stay as they were, though other columns are declared, and what uses them."""
    return {
        table.view: ", ".join(users)
        for table in window_tables(stream)
        if not totals_view(table).is_current(connection)
        and not _may_be_replaced(connection, table)
        and (users := _users_of(connection, table.view))
    }


def kept_in_words(view: str, users: str) -> str:
    return (
        f"the view {view} stays as it was, since other columns are declared and {users} uses it: its totals "
        "are right; for the new columns drop what uses it, run `streamflow db upgrade`, and create it again"
    )


def _may_be_replaced(connection: Connection, table: WindowTable) -> bool:
    """Whether there is none, or one with the same columns."""
    columns = connection.execute(_COLUMNS, [quoted(table.view)]).fetchall()
    return columns in ([], [(column.name, column.type) for column in total_columns(table)])


def _users_of(connection: Connection, view: str) -> list[str]:
    return [user for (user,) in connection.execute(_USES, [quoted(view)])]


def _again(connection: Connection, table: WindowTable, view: View) -> sql.Composed:
    """Drops it, creates it, and grants what was granted; on columns, if they are still there."""
    name, columns = sql.Identifier(view.name), {column.name for column in total_columns(table)}
    made = sql.SQL("DROP VIEW {};").format(name) + view.create()
    for column, privilege, may_grant, role in connection.execute(
        _PRIVILEGES, {"view": quoted(view.name)}
    ):
        if column is None or column in columns:
            made += sql.SQL("GRANT {}{} ON {} TO {}{};").format(
                sql.SQL(privilege),
                sql.SQL("" if column is None else "({})").format(sql.Identifier(column or "")),
                name,
                sql.SQL("PUBLIC") if role is None else sql.Identifier(role),
                sql.SQL(" WITH GRANT OPTION" if may_grant else ""),
            )
    return made
