"""Rows of windows of forgotten subjects (G16). All of it can be run again."""

from typing import Any, Final

from psycopg import sql

from streamflow.aggregates.distinct import hash_of
from streamflow.postgres.connections import Connection
from streamflow.postgres.windows.naming import (
    end_columns,
    erased_place,
    naming_columns,
    naming_sketches,
)
from streamflow.postgres.windows.tables import WindowTable

_ERASE: Final = """
WITH emptied AS (
    UPDATE {table} AS kept SET {emptied} WHERE {theirs}
    RETURNING record_topic, record_partition, record_offset, appended_at
), noted AS (
    INSERT INTO erased_records (erasure_id, place, topic, partition, "offset", appended_at)
    SELECT %(erasure_id)s, {place}, record_topic, record_partition, record_offset, appended_at
      FROM emptied
    ON CONFLICT DO NOTHING
)
SELECT count(*) FROM emptied
"""
_IS_USER: Final = "coalesce(kept.{column}::text = ANY(%(names)s), false)"
_HOLDS_HASH: Final = "coalesce(kept.{column} ~ %(pattern)s, false)"
# The value of an event that was erased, whoever's it was.
_IS_OF_ERASED: Final = """
(kept.{column} IS NOT NULL AND EXISTS (
    SELECT FROM erased_records AS erased WHERE place IN ('events', 'replayed')
       AND (erased.partition, erased."offset", erased.topic)
         = (kept.partition, kept.{offset}, kept.origin_topic)))
"""
_IS_COUNTED: Final = "kept.{column} && %(sketched)s::bigint[]"
_WITHOUT: Final = """
ARRAY(SELECT hash FROM unnest(kept.{column}) WITH ORDINALITY AS each (hash, place)
       WHERE hash <> ALL(%(sketched)s::bigint[]) ORDER BY place)
"""


def erase_windows(
    connection: Connection, table: WindowTable, values: dict[str, Any], *, of_user: bool
) -> int:
    """Empties what names a subject in the rows of a table of windows, which exists, and the first and last
    values that are of erased events. Numbers of events, sums and the like stay. Returns the number of changed
    rows.

    Args:
        connection: in a transaction after the one that has noted the events.
        values: names of a user or, as a pattern and one by one, hashes of an address.
        of_user: which of the two.
    """
    conditions = _conditions(table, of_user=of_user)
    changes = {
        name: sql.SQL("CASE WHEN {} THEN {} ELSE kept.{} END").format(
            condition, blank, sql.Identifier(name)
        )
        for name, (condition, blank) in conditions.items()
    }
    if not changes:
        return 0
    erase = sql.SQL(_ERASE).format(
        table=sql.Identifier(table.name),
        place=sql.Literal(erased_place(table.name)),
        emptied=sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), change)
            for name, change in changes.items()
        ),
        theirs=sql.SQL(" OR ").join(condition for condition, _ in conditions.values()),
    )
    sketched = [hash_of(text) for text in values["names" if of_user else "hashes"]]
    [(rows,)] = connection.execute(erase, values | {"sketched": sketched})
    return int(rows)


def _conditions(
    table: WindowTable, *, of_user: bool
) -> dict[str, tuple[sql.Composable, sql.Composable]]:
    """By column: when it is emptied, and what is left in it."""
    found: dict[str, tuple[sql.Composable, sql.Composable]] = {}
    ends = end_columns(table)
    for name, offset in ends.items():
        pair = {"column": sql.Identifier(name), "offset": sql.Identifier(offset)}
        found[name] = (sql.SQL(_IS_OF_ERASED).format(**pair), sql.SQL("NULL"))
    test = sql.SQL(_IS_USER if of_user else _HOLDS_HASH)
    for name, blank in naming_columns(table, of_user=of_user).items():
        condition = test.format(column=sql.Identifier(name))
        if name in found:
            condition = sql.SQL("({} OR {})").format(condition, found[name][0])
        found[name] = (condition, sql.Literal(blank))
    for name in naming_sketches(table, of_user=of_user):
        column = sql.Identifier(name)
        found[name] = (
            sql.SQL(_IS_COUNTED).format(column=column),
            sql.SQL(_WITHOUT).format(column=column),
        )
    return found
