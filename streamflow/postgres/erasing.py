"""Emptying what is stored of forgotten subjects (G16). All of it can be run again."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from psycopg import sql

from streamflow.postgres.connections import Connection
from streamflow.postgres.existing_tables import existing_columns
from streamflow.postgres.forgotten import (
    DEAD_LETTER_BLANKS,
    ERASED,
    NOTIFICATION_BLANKS,
    assignments,
    differences,
    event_blanks,
    parameters,
)
from streamflow.postgres.state import names_persons
from streamflow.postgres.tables import SHARED_COLUMNS, Column
from streamflow.records import Origin
from streamflow.stream import Stream


class Erased(NamedTuple):
    """The position of an event or a dead letter that belongs to an erasure."""

    erasure_id: int
    position: Origin
    appended_at: str | None = None  # as PostgreSQL writes it


class Positions(NamedTuple):
    """A query of positions, `erasure_id`, `topic`, `partition` and `offset`, and its parameters."""

    query: sql.Composable
    values: dict[str, Any]

    @classmethod
    def listed(cls, erased: Iterable[Erased]) -> "Positions":
        rows = [(number, *position) for number, position, _ in erased]
        return cls(
            sql.SQL(
                "SELECT * FROM unnest(%(ids)s::bigint[], %(topics)s::text[], %(partitions)s::int[],"
                ' %(offsets)s::bigint[]) AS listed (erasure_id, topic, partition, "offset")'
            ),
            dict(zip(("ids", "topics", "partitions", "offsets"), _columns(rows, 4), strict=True)),
        )

    @classmethod
    def of_erasure(cls, erasure_id: int) -> "Positions":
        """Those of all its events."""
        query = (
            'SELECT erasure_id, topic, partition, "offset" FROM erased_records'
            " WHERE erasure_id = %(erasure_id)s AND place = 'events'"
        )
        return cls(sql.SQL(query), {"erasure_id": erasure_id})


_NOTE: Final = """
INSERT INTO erased_records (place, erasure_id, topic, partition, "offset", appended_at)
SELECT %s, * FROM unnest(%s::bigint[], %s::text[], %s::int[], %s::bigint[], %s::timestamptz[])
ON CONFLICT DO NOTHING
"""
_ERASED_AMONG: Final = """
SELECT erased.topic, erased.partition, erased."offset", erasure_id
  FROM unnest(%s::text[], %s::int[], %s::bigint[]) AS asked (topic, partition, at)
  JOIN erased_records AS erased
    ON (erased.topic, erased.partition, erased."offset") = (asked.topic, asked.partition, at)
 WHERE place = ANY(%s)
"""
_THEIR_NOTIFICATIONS: Final = sql.SQL("""
    SELECT event.erasure_id, kept.* FROM ({of}) AS event
      JOIN notifications AS kept ON (origin_topic, origin_partition, origin_offset)
                                  = (event.topic, event.partition, event."offset")
""")
_NOTIFICATIONS: Final = sql.SQL("""
WITH theirs AS ({theirs}), noted AS (
    INSERT INTO erased_records (erasure_id, place, topic, partition, "offset", appended_at)
    SELECT erasure_id, 'notifications', record_topic, record_partition, record_offset, appended_at
      FROM theirs
    ON CONFLICT DO NOTHING
)
UPDATE notifications AS kept SET {blanks} FROM theirs
 WHERE (kept.origin_topic, kept.origin_partition, kept.origin_offset)
     = (theirs.origin_topic, theirs.origin_partition, theirs.origin_offset)
   AND {differ}
""")
# The positions may be those of dead letters as well as of events that they come from. When a rejected
# record was appended is not stored: before its dead letter was.
_DEAD_LETTERS: Final = sql.SQL("""
WITH events AS MATERIALIZED ({of}), theirs AS (
    SELECT erasure_id, source_topic, source_partition, source_offset,
           record_topic, record_partition, record_offset, appended_at, loaded_at
      FROM events JOIN dead_letters ON (source_topic, source_partition, source_offset)
                                     = (topic, partition, "offset")
     UNION
    SELECT erasure_id, source_topic, source_partition, source_offset,
           record_topic, record_partition, record_offset, appended_at, loaded_at
      FROM events JOIN dead_letters ON (origin_topic, origin_partition, origin_offset)
                                     = (topic, partition, "offset")
), noted AS (
    INSERT INTO erased_records (erasure_id, place, topic, partition, "offset", appended_at)
    SELECT erasure_id, 'dead_letters', record_topic, record_partition, record_offset, appended_at
      FROM theirs
     UNION ALL
    SELECT erasure_id, 'rejected', source_topic, source_partition, source_offset,
           coalesce(appended_at, loaded_at)
      FROM theirs
    ON CONFLICT DO NOTHING
)
UPDATE dead_letters AS kept SET status = 'erased', {blanks} FROM theirs
 WHERE (kept.source_topic, kept.source_partition, kept.source_offset)
     = (theirs.source_topic, theirs.source_partition, theirs.source_offset)
   AND (kept.status <> 'erased' OR {differ})
""")
# Nor when these were: before they were loaded.
_OTHER_RECORDS: Final = sql.SQL("""
WITH events AS MATERIALIZED ({of})
INSERT INTO erased_records (erasure_id, place, topic, partition, "offset", appended_at)
SELECT erasure_id, 'replayed', again.topic, again.partition, again."offset", again.loaded_at
  FROM events JOIN replayed_events AS again
    ON (origin_topic, origin_partition, origin_offset)
     = (events.topic, events.partition, events."offset")
 UNION ALL
SELECT erasure_id, 'duplicates', again.topic, again.partition, again."offset", again.loaded_at
  FROM events JOIN duplicates AS again
    ON (origin_topic, origin_partition, origin_offset)
     = (events.topic, events.partition, events."offset")
ON CONFLICT DO NOTHING
""")

# Where names of people stand that no record is behind: table, the name in SQL, what empties it.
NAMES: Final = (
    ("replay_plans", "requested_by", "requested_by = %(erased)s"),
    ("replays", "requested_by", "requested_by = %(erased)s"),
    ("gaps", "acknowledged_by", "acknowledged_by = %(erased)s"),
    ("window_differences", "acknowledged_by", "acknowledged_by = %(erased)s"),
    (
        "erasures",
        "coalesce(certificate->>'requested_by', requested_by)",
        """requested_by = %(erased)s,
           certificate = certificate || jsonb_build_object('requested_by', %(erased)s::text)""",
    ),
)
# What a plan or a replay was searched by. Older ones have one `text` instead of `texts`.
_SEARCHED_BY: Final = sql.SQL(
    "jsonb_array_elements_text(coalesce(selection->'texts', '[]') || coalesce(selection->'text', '[]'))"
    " AS text"
)
_ERASE_SEARCHES: Final = sql.SQL("""
UPDATE {table} SET selection = selection - '{{text,texts}}'::text[]
 WHERE EXISTS (SELECT FROM unnest(%(terms)s::text[]) AS term, {texts} WHERE position(term IN text) > 0)
""")
_ERASE_NAMES: Final = sql.SQL("""
UPDATE {table} SET {emptied}
 WHERE EXISTS (SELECT FROM unnest(%(terms)s::text[]) AS term
                WHERE {name} = term OR (length(term) = 64 AND position(term IN {name}) > 0))
""")


def note(connection: Connection, place: str, erased: Sequence[Erased]) -> None:
    """Notes the positions of records; what is derived from `events` is emptied from now on, too."""
    rows = [(number, *position, at) for number, position, at in erased]
    connection.execute(_NOTE, [place, *_columns(rows, 5)])


def erased_among(
    connection: Connection, positions: Iterable[Origin], places: Sequence[str] = ("events",)
) -> dict[Origin, int]:
    """Those of the positions that are of erased events, or of records in other places, with their
    erasures."""
    rows = connection.execute(_ERASED_AMONG, [*_columns(list(positions), 3), list(places)])
    return {Origin(*row[:3]): row[3] for row in rows}


def erased_rows(connection: Connection, topics: Sequence[str]) -> int:
    """How many rows of records in these topics, or set aside of them, are erased."""
    [(number,)] = connection.execute(
        "SELECT count(*) FROM erased_records WHERE split_part(topic, '@', 1) = ANY(%s)"
        " AND place IN ('events', 'notifications', 'dead_letters')",
        [list(topics)],
    )
    return int(number)


def erase_derived(connection: Connection, events: Positions) -> Counter[str]:
    """Empties notifications and dead letters of events, and dead letters at the positions themselves.
    Returns the numbers of rows that were not empty yet, by table."""
    emptied = erase_notifications(
        connection, Positions(_THEIR_NOTIFICATIONS.format(of=events.query), events.values)
    )
    types = SHARED_COLUMNS["dead_letters"]
    emptied["dead_letters"] += connection.execute(
        _DEAD_LETTERS.format(
            of=events.query,
            blanks=assignments(DEAD_LETTER_BLANKS, types),
            differ=differences(DEAD_LETTER_BLANKS, types),
        ),
        events.values | parameters(DEAD_LETTER_BLANKS),
    ).rowcount
    connection.execute(_OTHER_RECORDS.format(of=events.query), events.values)
    return emptied


def erase_notifications(connection: Connection, theirs: Positions) -> Counter[str]:
    """As `erase_derived`; the query is of whole notifications, with `erasure_id`."""
    types = SHARED_COLUMNS["notifications"]
    done = connection.execute(
        _NOTIFICATIONS.format(
            theirs=theirs.query,
            blanks=assignments(NOTIFICATION_BLANKS, types),
            differ=differences(NOTIFICATION_BLANKS, types),
        ),
        theirs.values | parameters(NOTIFICATION_BLANKS),
    )
    return Counter({"notifications": done.rowcount})


def erase_history(connection: Connection, terms: Sequence[str]) -> Counter[str]:
    """Removes texts that dead letters were searched by, and names of those who asked for something, where
    they are or hold one of some terms. Returns the numbers of changed rows, by table."""
    values = {"terms": list(terms), "erased": ERASED}
    changed: Counter[str] = Counter()
    for table in ("replay_plans", "replays"):
        query = _ERASE_SEARCHES.format(table=sql.Identifier(table), texts=_SEARCHED_BY)
        changed[table] += connection.execute(query, values).rowcount
    for table, name, emptied in NAMES:
        query = _ERASE_NAMES.format(
            table=sql.Identifier(table), name=sql.SQL(name), emptied=sql.SQL(emptied)
        )
        changed[table] += connection.execute(query, values).rowcount
    return changed


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows as the arrays that ``unnest`` takes."""
    return [[row[index] for row in rows] for index in range(width)]


def erase_state(
    connection: Connection, stream: Stream, match: sql.Composable, values: dict[str, Any]
) -> dict[str, int]:
    """Empties the rows of an upsert stream's state that a condition matches; where their key is the name,
    removes them. Returns their number by table."""
    table = stream.state_table
    if table is None:
        return {}
    if names_persons(stream):
        delete = sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(table), match)
        return {table: connection.execute(delete, values).rowcount}
    existing = existing_columns(connection, table)
    blanks = event_blanks(
        stream, [Column(name, known.type, known.nullable) for name, known in existing.items()]
    )
    types = {name: known.type for name, known in existing.items()}
    update = sql.SQL("UPDATE {} SET {} WHERE {}").format(
        sql.Identifier(table), assignments(blanks, types), match
    )
    return {table: connection.execute(update, values | parameters(blanks)).rowcount}


def erase_rollup(
    connection: Connection,
    stream: Stream,
    table: str,
    match: sql.Composable | None,
    values: dict[str, Any],
) -> dict[str, int]:
    """Removes what was computed of the subject by name: of a user on all days, and of the users whose events
    a condition matches on the days of these events. Without a condition their names are not known; of the
    same days are everybody's rows. What Dagster is computing now is waited for, and what it computes next
    sees erased events. Returns the number of rows by table."""
    theirs: sql.Composable = sql.SQL('"user" = ANY(%(names)s)')
    if match is not None:
        days = sql.SQL(
            '("user", day) IN (SELECT event."user"::text, (event.{} AT TIME ZONE \'UTC\')::date'
            " FROM {} AS event WHERE {})"
        ).format(sql.Identifier(stream.event_time), sql.Identifier(stream.event_table), match)
        theirs = sql.SQL("{} OR {}").format(theirs, days)
    name = sql.Identifier(table)
    connection.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(name))
    delete = sql.SQL("DELETE FROM {} WHERE stream = %(stream)s AND ({})").format(name, theirs)
    return {table: connection.execute(delete, values | {"stream": stream.name}).rowcount}
