"""Lifting stored hashes of older keys to the newest one.

A hash says under which key it is (`streamflow.pii_keys`), so what is done shows in the rows themselves: no
row is hashed twice, wherever an earlier run has ended. Each batch is a transaction.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import sql

from streamflow.errors import ConfigurationError, Unavailable
from streamflow.pii_keys import PiiKeys
from streamflow.postgres.connections import Connection, session
from streamflow.postgres.forgotten import ERASED_HASH
from streamflow.postgres.partitions import leaves, remove_old_versions, table_exists
from streamflow.postgres.sessions.compute import SessionSql, lock
from streamflow.postgres.sessions.schema import forget_progress
from streamflow.postgres.sessions.tables import SessionTable, session_tables
from streamflow.postgres.tables import DEAD_LETTERS, event_columns
from streamflow.postgres.windows.naming import private_columns, private_sketches
from streamflow.postgres.windows.tables import WindowTable, window_tables
from streamflow.privacy import Hasher
from streamflow.registry import hasher_for
from streamflow.settings import Settings
from streamflow.stream import Stream
from streamflow.units import counted, either

BLOCKS: Final = 256  # of a table, in one batch: about 15,000 events

_DOCUMENTS: Final = 100  # that are in memory at a time
_ADVISORY_KEY: Final = 0x5F10_4A54
_BLOCKS_OF: Final = """
SELECT coalesce(pg_relation_size(%s::oid), 0) / current_setting('block_size')::bigint
"""
_OLD: Final = """
SELECT {column}, count(*) FROM {table}
 WHERE ctid >= %(first)s::tid AND ctid < %(end)s::tid AND NOT starts_with({column}, %(newest)s)
   AND {column} <> %(erased)s
 GROUP BY {column}
"""
# A row that another transaction changes in the meantime no longer meets the condition.
_LIFT: Final = """
UPDATE {table} AS kept SET {column} = lifted.new
  FROM unnest(%(old)s::text[], %(new)s::text[]) AS lifted (old, new)
 WHERE kept.ctid >= %(first)s::tid AND kept.ctid < %(end)s::tid AND kept.{column} = lifted.old
"""
# Of a JSON document, which may be large.
_OLD_WITHIN: Final = """
SELECT ctid::text, {column}::text FROM {table}
 WHERE ctid >= %(first)s::tid AND ctid < %(end)s::tid AND {column}::text ~ %(hash)s
"""
_LIFT_WITHIN: Final = """
UPDATE {table} SET {column} = %(new)s::jsonb WHERE ctid = %(row)s::tid AND {column}::text = %(old)s
"""
_WITH_HASHES: Final = """
SELECT source_topic, source_partition, source_offset FROM dead_letters
 WHERE ctid >= %(first)s::tid AND ctid < %(end)s::tid
   AND concat(encode(key, 'escape'), ' ', encode(value, 'escape')) ~ '[0-9a-f]{64}'
"""
_DEAD_LETTER: Final = """
SELECT key, value FROM dead_letters
 WHERE (source_topic, source_partition, source_offset) = (%s, %s, %s)
"""
_LIFT_DEAD_LETTER: Final = """
UPDATE dead_letters SET key = %s, value = %s
 WHERE (source_topic, source_partition, source_offset) = (%s, %s, %s)
   AND (key, value) IS NOT DISTINCT FROM (%s, %s)
"""


# Some older rows, and some that are loaded now: no row twice.
_SOME: Final = """
SELECT {column} FROM (
    (SELECT {column} FROM {table} WHERE {time} <= now() - interval '1 day' LIMIT 1000) UNION ALL
    (SELECT {column} FROM {table} WHERE {time} > now() - interval '1 day' LIMIT 1000)) AS sampled
 WHERE {column} <> %(erased)s
"""
_SOME_WITHIN: Final = """
SELECT {column} FROM (
    (SELECT {column}::text FROM {table} WHERE {time} <= now() - interval '1 day' LIMIT 100) UNION ALL
    (SELECT {column}::text FROM {table} WHERE {time} > now() - interval '1 day' LIMIT 100)) AS sampled
 WHERE {column} IS NOT NULL
"""


@dataclass(slots=True)
class Rehashed:
    """What was done to a column: rows of which hashes were lifted, and how many are under keys that are
    not listed, by what their hashes say; or to a sketch of hashes, which cannot be lifted."""

    table: str
    column: str
    within: bool = False  # a JSON document with private fields in it
    is_sketch: bool = False
    lifted: int = 0
    unknown: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        if not self.is_sketch:
            return []
        why = "counts different hashes, and what it keeps of them cannot be hashed again"
        what = "a window with events under the older and the newest key counts a person twice"
        return [f"{self.table}.{self.column} {why}: {what}"]

    def problems(self) -> list[str]:
        return [
            f"{counted(rows, 'row')} of {self.table}.{self.column} {either(rows, 'is', 'are')} "
            f"under the key {name}, which "
            "STREAMFLOW_PII_KEY does not list: put it back in its place in the list, see docs/privacy.md"
            for name, rows in self.unknown.items()
        ]


def rehash(
    settings: Settings,
    streams: Sequence[Stream],
    on_progress: Callable[[str], None] = lambda _table: None,
) -> list[Rehashed]:
    """Lifts every hash in private columns, private fields at any depth, windows, sessions and dead letters to
    the newest key. Safe to repeat after any end of an earlier run, and while workers run. `on_progress` is
    given the name of each table or partition that is done.

    Raises:
        Unavailable: the database does not answer, or another rehash is running.
        ConfigurationError: no key has an id, or the role must not update the tables.
    """
    hasher = hasher_for(settings, streams)
    if not hasher.keys.named:
        raise ConfigurationError(
            "no key in STREAMFLOW_PII_KEY has an id, so there is none to hash stored rows under: list "
            "the new key and the old one, see docs/privacy.md"
        )
    with session(settings, "rehash") as connection:
        try:
            # Until the connection ends. The server may notice late that an earlier one was killed.
            connection.execute("SELECT pg_advisory_lock(%s)", [_ADVISORY_KEY])
        except psycopg.errors.LockNotAvailable:
            raise Unavailable("another rehash is running: wait until it has ended") from None
        done: list[Rehashed] = []
        for stream in streams:
            own = Hasher(hasher.keys, stream.decoder.private_fields)
            of_events = [
                column
                for table in stream.tables
                for column in _rehash_events(
                    connection, _private_columns(stream, table), own, on_progress
                )
            ]
            anew = any(column.lifted for column in of_events)
            of_sessions = [
                column
                for table in session_tables(stream)
                for column in _rehash_sessions(connection, table, own, on_progress, anew=anew)
            ]
            of_windows = [
                column
                for table in window_tables(stream)
                for column in _rehash_windows(connection, table, own, on_progress, anew=anew)
            ]
            done += [*of_events, *of_sessions, *of_windows]
        return [*done, _rehash_dead_letters(connection, hasher, on_progress)]


def keys_of_some(connection: Connection, streams: Sequence[Stream], keys: PiiKeys) -> Counter[str]:
    """How many of some stored hashes are under which key, by what they say."""
    found: Counter[str] = Counter()
    for stream in streams:
        hasher = Hasher(keys, stream.decoder.private_fields)
        for column in _private_columns(stream, stream.event_table):
            query = sql.SQL(_SOME_WITHIN if column.within else _SOME).format(
                table=sql.Identifier(stream.event_table),
                column=sql.Identifier(column.column),
                time=sql.Identifier(stream.event_time),
            )
            for (text,) in connection.execute(query, {"erased": ERASED_HASH}):
                hashes = hasher.hashes_within(text.encode()) if column.within else (text,)
                found.update(map(keys.name_of, hashes))
    return found


def _private_columns(stream: Stream, table: str) -> list[Rehashed]:
    if not stream.decoder.private_fields:
        return []
    return [
        Rehashed(table, column.name, within=column.type == "jsonb")
        for column in event_columns(stream)
        if column.type == "jsonb"
        or (column.type == "text" and column.name in stream.decoder.private_fields)
    ]


def _rehash_events(
    connection: Connection,
    columns: list[Rehashed],
    hasher: Hasher,
    on_progress: Callable[[str], None],
) -> list[Rehashed]:
    """Of one table."""
    for leaf in leaves(connection, columns[0].table) if columns else ():
        before = sum(column.lifted for column in columns)
        try:
            for column in columns:
                step = _rehash_within if column.within else _rehash_batch
                # Anew for each column: a row that was changed is in another block.
                for batch in _batches(connection, leaf.oid):
                    with connection.transaction():
                        step(connection, leaf.identifier, column, hasher, batch)
            if sum(column.lifted for column in columns) > before:
                remove_old_versions(connection, leaf)
        except psycopg.errors.UndefinedTable:
            continue  # retention has dropped it
        on_progress(leaf.name)
    return columns


def _rehash_sessions(
    connection: Connection,
    table: SessionTable,
    hasher: Hasher,
    on_progress: Callable[[str], None],
    *,
    anew: bool,
) -> list[Rehashed]:
    """Of one table of sessions, at once. Under other names of keys other events belong together, so all
    sessions are computed again; `anew`: even if none has an old hash."""
    names = private_columns(table.stream, table.spec)
    if not names or not table_exists(connection, table.name):
        return []
    columns = [Rehashed(table.name, name) for name in names]
    with connection.transaction():
        lock(connection, SessionSql(table))
        [leaf] = leaves(connection, table.name)
        for column in columns:
            for batch in _batches(connection, leaf.oid):
                _rehash_batch(connection, leaf.identifier, column, hasher, batch)
        if anew or any(column.lifted for column in columns):
            connection.execute(forget_progress(table))
    remove_old_versions(connection, leaf)
    on_progress(table.name)
    return columns


def _rehash_windows(
    connection: Connection,
    table: WindowTable,
    hasher: Hasher,
    on_progress: Callable[[str], None],
    *,
    anew: bool,
) -> list[Rehashed]:
    """Of one table of windows. Parts of one group under two names add up once both are the same. Of sketches
    is told if some hash was lifted, or `anew`."""
    if not table_exists(connection, table.name):
        return []
    columns = [Rehashed(table.name, name) for name in private_columns(table.stream, table.spec)]
    _rehash_events(connection, columns, hasher, on_progress)
    if anew or any(column.lifted for column in columns):
        columns += [Rehashed(table.name, name, is_sketch=True) for name in private_sketches(table)]
    return columns


def _batches(connection: Connection, oid: int) -> Iterator[dict[str, str]]:
    # What is loaded or lifted from now on has the newest hash, and needs no look.
    [(blocks,)] = connection.execute(_BLOCKS_OF, [oid])
    for first in range(0, blocks, BLOCKS):
        yield {"first": f"({first},0)", "end": f"({min(first + BLOCKS, blocks)},0)"}


def _rehash_batch(
    connection: Connection,
    table: sql.Identifier,
    column: Rehashed,
    hasher: Hasher,
    batch: dict[str, str],
) -> None:
    keys, names = hasher.keys, {"table": table, "column": sql.Identifier(column.column)}
    query = sql.SQL(_OLD).format(**names)
    lifts: dict[str, str] = {}
    values: dict[str, Any] = {"newest": keys.named[-1].mark, "erased": ERASED_HASH}
    for old, rows in connection.execute(query, batch | values):
        new = keys.lifted(old)
        if new is None:
            column.unknown[keys.name_of(old)] += rows
        else:
            lifts[old] = new
    if lifts:
        values = {"old": list(lifts), "new": list(lifts.values())}
        done = connection.execute(sql.SQL(_LIFT).format(**names), batch | values)
        column.lifted += done.rowcount


def _rehash_within(
    connection: Connection,
    table: sql.Identifier,
    column: Rehashed,
    hasher: Hasher,
    batch: dict[str, str],
) -> None:
    names = {"table": table, "column": sql.Identifier(column.column)}
    lift = sql.SQL(_LIFT_WITHIN).format(**names)
    pattern = f"(?!{hasher.keys.named[-1].mark})[0-9a-f]{{64}}"
    with connection.cursor(name="rehash") as documents:
        documents.itersize = _DOCUMENTS
        documents.execute(sql.SQL(_OLD_WITHIN).format(**names), batch | {"hash": pattern})
        for row, old in documents:
            new = hasher.lift_within(old.encode()).decode()
            if new != old:
                values = {"row": row, "old": old, "new": new}
                column.lifted += connection.execute(lift, values).rowcount
            unlisted = {
                hasher.keys.name_of(hashed)
                for hashed in hasher.hashes_within(new.encode())
                if hasher.keys.lifted(hashed) is None
            }
            column.unknown.update(unlisted)


def _rehash_dead_letters(
    connection: Connection, hasher: Hasher, on_progress: Callable[[str], None]
) -> Rehashed:
    done = Rehashed(DEAD_LETTERS.name, "value")
    [table] = leaves(connection, DEAD_LETTERS.name)
    for batch in _batches(connection, table.oid):
        for id_ in connection.execute(_WITH_HASHES, batch).fetchall():
            for old in connection.execute(_DEAD_LETTER, id_).fetchall():
                new = [None if part is None else hasher.lift_within(part) for part in old]
                if new != list(old):
                    # On its own, so that a replay never finds the row locked for long.
                    connection.execute(_LIFT_DEAD_LETTER, [*new, *id_, *old])
                    done.lifted += 1
    if done.lifted:
        remove_old_versions(connection, table)
    on_progress(DEAD_LETTERS.name)
    return done
