"""State tables: the latest change of each key of an upsert stream, made from its changes.

``customers_changes`` holds every change, as the table of any stream holds its events, and tombstones too
(``deleted``). ``customers_state`` holds of each key its latest change, from each partition that it came from:
within a partition the larger offset is the later one, whatever the order in which changes are stored, so
that a replay of an older change displaces nothing. A deleted key stays, with nothing else, for the same
reason. ``customers``, a view, shows the living rows: of a key that came from several partitions (some were
added, or producers do not agree) that which the broker appended last. A change that was stored from a
replay has no time there, since the time of the replay says nothing of its age.

What the state is, is said once, in `fold`; the loader, the audit and a table that is made again use it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from psycopg import sql

from streamflow.core_schema import values_of
from streamflow.postgres.connections import Connection
from streamflow.postgres.forgotten import USER
from streamflow.postgres.partitions import quoted
from streamflow.postgres.tables import Column, event_columns
from streamflow.stream import Stream

LONGEST_ENTRY: Final = 2704  # bytes of an entry of a B-tree of PostgreSQL
# Bytes of the key's texts: the entry holds the position, too.
LONGEST_KEY: Final = 2000
KEY_CONSTRAINT: Final = "_key"  # after the table's name: a longer key is refused

_BYTES_OF_CHARACTER: Final = 4  # at most, in UTF-8
_LOG: Final = ("origin_partition", "origin_topic")

_FOLD: Final = """
SELECT DISTINCT ON ({key}) {columns},
       CASE WHEN replay.origin_offset IS NULL THEN change.appended_at END AS appended_at
  FROM {changes} AS change
  LEFT JOIN replayed_events AS replay
    ON replay.origin_partition = change.origin_partition
   AND replay.origin_offset = change.origin_offset AND replay.origin_topic = change.origin_topic
 WHERE {which}
 ORDER BY {key}, change.origin_offset DESC
"""
_NOT_ERASED: Final = """
({which}) AND NOT EXISTS (
    SELECT FROM erased_records AS erased WHERE place = 'events' AND erased.topic = change.origin_topic
       AND erased.partition = change.origin_partition AND erased."offset" = change.origin_offset)
"""
# In the order of the keys, so that two loaders never wait for each other.
_STORE: Final = """
INSERT INTO {state} AS kept ({columns})
{fold}
ON CONFLICT ({key}) DO UPDATE SET {assignments}
 WHERE kept.origin_offset < excluded.origin_offset
"""
# The days and the key of the table of changes: one range of an index.
_OF_RANGE: Final = """
change.origin_topic = %(topic)s AND change.origin_partition = %(partition)s
   AND change.origin_offset >= %(first)s AND change.origin_offset < %(end)s
"""
_WITHIN_DAYS: Final = " AND change.{time} >= %(since)s AND change.{time} < %(until)s"
_OF_REPLAYS: Final = """
replay.topic = %(topic)s AND replay.partition = %(partition)s
   AND replay."offset" >= %(first)s AND replay."offset" < %(end)s
"""
_CREATE: Final = """
CREATE TABLE {state} (LIKE {changes});
ALTER TABLE {state} DROP COLUMN loaded_at, ADD PRIMARY KEY ({key});
{fill}
"""
# Also those that the contract does not know any more: a row must not keep them from an earlier change.
_COLUMNS: Final = """
SELECT attname FROM pg_attribute AS kept
 WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
   AND EXISTS (SELECT FROM pg_attribute AS change
                WHERE change.attrelid = to_regclass(%s) AND change.attnum > 0
                  AND NOT change.attisdropped AND change.attname = kept.attname)
 ORDER BY attnum
"""
_VIEW: Final = """
CREATE OR REPLACE VIEW {view} AS
SELECT {columns} FROM {state} AS kept
 WHERE NOT kept.deleted AND NOT EXISTS (
    SELECT FROM {state} AS later WHERE ({later_key}) = ({kept_key})
       AND (coalesce(later.appended_at, '-infinity'), later.origin_partition, later.origin_topic)
         > (coalesce(kept.appended_at, '-infinity'), kept.origin_partition, kept.origin_topic))
"""

EVERYTHING: Final = sql.SQL("true")
OF_RANGE: Final = sql.SQL(_OF_RANGE)


def state_columns(stream: Stream) -> tuple[Column, ...]:
    """The columns of the state table."""
    return tuple(column for column in event_columns(stream) if column.name != "loaded_at")


def key_of_state(stream: Stream) -> tuple[str, ...]:
    """The primary key of the state table."""
    return (*stream.primary_key, *_LOG)


def names_persons(stream: Stream) -> bool:
    """Whether the primary key is what `streamflow forget --user` empties: the rows of a forgotten person
    are removed from the state then, since nothing is left that tells them apart."""
    return USER in stream.primary_key


def columns_of(connection: Connection, stream: Stream) -> list[str]:
    """The columns of the state table that changes have, too."""
    tables = [quoted(str(stream.state_table)), quoted(stream.event_table)]
    return [name for (name,) in connection.execute(_COLUMNS, tables)]


def fold(stream: Stream, columns: Sequence[str], which: sql.Composable) -> sql.Composed:
    """The state that changes make: SELECT of these columns, `appended_at` last. `which` is a condition on
    ``change`` and on ``replay``, the note that it was stored from a replay."""
    if names_persons(stream):
        which = sql.SQL(_NOT_ERASED).format(which=which)
    return sql.SQL(_FOLD).format(
        key=_of("change", key_of_state(stream)),
        columns=_of("change", [name for name in columns if name != "appended_at"]),
        changes=sql.Identifier(stream.event_table),
        which=which,
    )


def store(stream: Stream, columns: Sequence[str], which: sql.Composable) -> sql.Composed:
    """Brings the state up to date with changes: see `fold`. Safe to repeat, in any order."""
    columns = [*(name for name in columns if name != "appended_at"), "appended_at"]
    key = key_of_state(stream)
    return sql.SQL(_STORE).format(
        state=_state(stream),
        columns=_names(columns),
        fold=fold(stream, columns, which),
        key=_names(key),
        assignments=sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
            for name in columns
            if name not in key
        ),
    )


def bring_up_to_date(
    connection: Connection,
    stream: Stream,
    ranges: Sequence[Mapping[str, Any]],
    days: Collection[date],
    *,
    replays: bool,
) -> None:
    """Stores what a batch has changed: that its transaction has just stored.

    Args:
        connection: in that transaction.
        stream: an upsert stream.
        ranges: of the batch: `topic`, `partition`, `first`, `end` of its offsets.
        days: of the event times in it, in UTC.
        replays: whether some of it was stored from replays, and so has other offsets.
    """
    within = sql.SQL(_WITHIN_DAYS).format(time=sql.Identifier(stream.event_time))
    columns = columns_of(connection, stream)
    statement = store(stream, columns, OF_RANGE + within)
    of_replays = store(stream, columns, sql.SQL(_OF_REPLAYS))
    since = datetime.combine(min(days), time.min, UTC)
    until = datetime.combine(max(days), time.min, UTC) + timedelta(days=1)
    for each in ranges:
        connection.execute(statement, {**each, "since": since, "until": until})
        if replays:
            connection.execute(of_replays, each)


def create_state(stream: Stream, columns: Sequence[str]) -> sql.Composed:
    """DDL of the state table, and what the changes that are there make. `columns` are those of the table
    of changes."""
    return sql.SQL(_CREATE).format(
        state=_state(stream),
        changes=sql.Identifier(stream.event_table),
        key=_names(key_of_state(stream)),
        fill=store(stream, [name for name in columns if name != "loaded_at"], EVERYTHING),
    )


def create_view(stream: Stream, columns: Sequence[str]) -> sql.Composed:
    """DDL of the view of living rows with these columns; as PostgreSQL wants it, new ones come last."""
    return sql.SQL(_VIEW).format(
        view=sql.Identifier(stream.table),
        columns=_of("kept", columns),
        state=_state(stream),
        later_key=_of("later", stream.primary_key),
        kept_key=_of("kept", stream.primary_key),
    )


def key_constraint(stream: Stream) -> sql.Composable:
    """What keeps keys out that no index can hold; empty where all are short. The loader makes dead
    letters of what it refuses."""
    lengths = [
        sql.SQL("octet_length({}::text)").format(sql.Identifier(name))
        for name in _measured_key(stream)
    ]
    if not lengths:
        return sql.SQL("")
    return sql.SQL(", CONSTRAINT {} CHECK ({} <= {})").format(
        sql.Identifier(f"{stream.event_table}{KEY_CONSTRAINT}"),
        sql.SQL(" + ").join(lengths),
        sql.Literal(LONGEST_KEY),
    )


def _measured_key(stream: Stream) -> list[str]:
    types = {column.name: column.type.partition("(")[0] for column in event_columns(stream)}
    return [name for name in stream.primary_key if types[name] in ("text", "numeric")]


def unbounded_key(stream: Stream) -> list[str]:
    """The fields of the primary key by which it may become longer than a key can be: texts, by the contract
    of any length or of a larger one; none if all keys are short enough."""
    longest = {name: _longest(stream, name) for name in _measured_key(stream)}
    if sum(longest.values()) <= LONGEST_KEY:
        return []
    share = LONGEST_KEY / len(longest)
    return [name for name, length in longest.items() if length > share]


def _longest(stream: Stream, name: str) -> float:
    """The largest number of bytes of a field's texts."""
    return max(
        _longest_of(stream.decoder.definitions.unwrapped(stream.decoder.fields_of(model)[name]))
        for model in stream.decoder.models
    )


def _longest_of(schema: Mapping[str, Any]) -> float:
    if schema["type"] == "str":
        return _BYTES_OF_CHARACTER * float(schema.get("max_length", math.inf))
    if schema["type"] == "decimal":
        return float(schema.get("max_digits", math.inf)) + len("-0.")
    texts = values_of(schema)
    return max((len(str(one).encode()) for one in texts), default=math.inf)


def _state(stream: Stream) -> sql.Identifier:
    return sql.Identifier(str(stream.state_table))


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _of(table: str, columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(table, name) for name in columns)
