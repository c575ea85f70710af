"""What each `where` of a declaration says of each event, for SQL: a temporary table.

To read an event back and ask takes long, so the answers are kept (`judged_conditions`), by chunks of offsets
and with a digest of the events in them: only events of chunks that are new, or not as they were, are asked
about. Where windows differ, all are asked about again, so that a function that has changed is no fault.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from psycopg import sql

from streamflow.audit.windows.cells import CellQueries
from streamflow.postgres.connections import Connection
from streamflow.postgres.rows.read_back import event_of
from streamflow.postgres.tables import UNKNOWN_FIELDS
from streamflow.records import Rejection
from streamflow.stream import Stream
from streamflow.windows.plans import guarded

_BATCH: Final = 5_000  # rows
_CHUNK: Final = 1_000  # offsets
# Chunks with their digests, and whether their answers are known.
_CREATE: Final = """
CREATE TEMPORARY TABLE audited_conditions (position bigint NOT NULL, {columns});
CREATE TEMPORARY TABLE audited_chunks (
    chunk bigint NOT NULL, digest bigint NOT NULL, is_known boolean NOT NULL
)
"""
_FIND_CHUNKS: Final = """
INSERT INTO pg_temp.audited_chunks
SELECT position / {chunk}, bit_xor(hashtextextended(found::text, 0)), false FROM ({rows}) AS found GROUP BY 1
"""
_IS_SAME: Final = """
(kept.table_name, kept.topic, kept.partition, kept.chunk, kept.digest)
    = (%(parts)s, %(topic)s, %(partition)s, now.chunk, now.digest) AND length(kept.answers[1]) = {width}
"""
_TAKE_KNOWN: Final = """
INSERT INTO pg_temp.audited_conditions
SELECT now.chunk * {chunk} + answer.position, {values}
  FROM pg_temp.audited_chunks AS now JOIN judged_conditions AS kept ON {is_same},
       unnest(kept.positions, kept.answers) AS answer (position, letters)
"""
_NOTE_KNOWN: Final = """
UPDATE pg_temp.audited_chunks AS now SET is_known = true FROM judged_conditions AS kept WHERE {is_same}
"""
_VALUE: Final = "CASE substr(answer.letters, {place}, 1) WHEN 't' THEN true WHEN 'f' THEN false END"
_UNKNOWN: Final = "SELECT min(chunk) FROM pg_temp.audited_chunks WHERE NOT is_known"
_ROWS: Final = """
SELECT * FROM ({rows}) AS found
 WHERE position / {chunk} IN (SELECT chunk FROM pg_temp.audited_chunks WHERE NOT is_known)
"""
# In one order, so that two audits do not deadlock. A row that cannot be read back now may be later.
_KEEP: Final = """
INSERT INTO judged_conditions
SELECT %(parts)s, %(topic)s, %(partition)s, chunk, digest,
       array_agg((position - chunk * {chunk})::smallint ORDER BY position),
       array_agg({letters} ORDER BY position)
  FROM pg_temp.audited_chunks JOIN pg_temp.audited_conditions ON position / {chunk} = chunk
 WHERE NOT is_known GROUP BY chunk, digest HAVING bool_and({letters} IS NOT NULL) ORDER BY chunk
ON CONFLICT (table_name, topic, partition, chunk) DO UPDATE
   SET digest = excluded.digest, positions = excluded.positions, answers = excluded.answers
"""
_FORGET: Final = """
DELETE FROM judged_conditions
 WHERE (table_name, topic, partition) = (%(parts)s, %(topic)s, %(partition)s)
   AND chunk NOT IN (SELECT chunk FROM pg_temp.audited_chunks)
"""


def judge_conditions(
    connection: Connection,
    queries: CellQueries,
    wheres: Sequence[Callable[[Any], bool]],
    parameters: Mapping[str, Any],
    *,
    anew: bool = False,
) -> bool:
    """Fills the table: with a column for each function, null where a row cannot be read back. Takes what is
    kept of events that are as they were, unless all are to be judged `anew`; returns whether it took any. In
    the connection's transaction, after which `keep_conditions` may be called."""
    drop_conditions(connection)
    connection.execute(queries.lock())
    conditions = list(map(sql.Identifier, queries.conditions))
    columns = sql.SQL(", ").join(sql.SQL("{} boolean").format(name) for name in conditions)
    connection.execute(sql.SQL(_CREATE).format(columns=columns))
    fields = _fields(queries.stream)
    rows = queries.rows(fields)
    names = {"chunk": sql.Literal(_CHUNK), "rows": rows, "width": sql.Literal(len(wheres))}
    connection.execute(sql.SQL(_FIND_CHUNKS).format(**names), parameters)
    taken = 0
    if not anew:
        is_same = sql.SQL(_IS_SAME).format(**names)
        places = range(1, len(wheres) + 1)
        values = sql.SQL(", ").join(
            sql.SQL(_VALUE).format(place=sql.Literal(place)) for place in places
        )
        take = sql.SQL(_TAKE_KNOWN).format(**names, is_same=is_same, values=values)
        taken = connection.execute(take, parameters).rowcount
        connection.execute(sql.SQL(_NOTE_KNOWN).format(is_same=is_same), parameters)
    [(first,)] = connection.execute(_UNKNOWN)
    if first is not None:
        since = max(parameters["since"], first * _CHUNK)
        asked = {**parameters, "since": since}
        query = sql.SQL(_ROWS).format(**names)
        _ask(connection, queries.stream, fields, query, asked, wheres)
    connection.execute("ANALYZE pg_temp.audited_conditions")
    return taken > 0


def keep_conditions(
    connection: Connection, queries: CellQueries, parameters: Mapping[str, Any]
) -> None:
    """Keeps the answers that were not known, in a transaction of its own: another audit may do so, too."""
    letters = sql.SQL(" || ").join(
        sql.SQL("left({}::text, 1)").format(sql.Identifier(name)) for name in queries.conditions
    )
    with connection.transaction():
        keep = sql.SQL(_KEEP).format(chunk=sql.Literal(_CHUNK), letters=letters)
        connection.execute(keep, parameters)
        connection.execute(_FORGET, parameters)


def drop_conditions(connection: Connection) -> None:
    connection.execute("DROP TABLE IF EXISTS pg_temp.audited_conditions, pg_temp.audited_chunks")


def _fields(stream: Stream) -> list[str]:
    """What an event is read back from."""
    names = dict.fromkeys(name for model in stream.decoder.models for name in model.model_fields)
    return [*names, *([UNKNOWN_FIELDS] if stream.unknown_fields == "keep" else [])]


def _ask(
    connection: Connection,
    stream: Stream,
    fields: Sequence[str],
    query: sql.Composed,
    parameters: Mapping[str, Any],
    wheres: Sequence[Callable[[Any], bool]],
) -> None:
    """Asks the functions that are declared now of the events of a query: of their positions and fields."""
    conditions = [guarded(where) for where in wheres]
    with connection.cursor("rows_of_conditions") as rows:
        rows.itersize = _BATCH
        rows.execute(query, parameters)
        while batch := rows.fetchmany(_BATCH):
            with (
                connection.cursor() as writer,
                writer.copy("COPY pg_temp.audited_conditions FROM STDIN") as copy,
            ):
                for position, *values in batch:
                    row = dict(zip(fields, values, strict=True))
                    copy.write_row((position, *_judged(stream, row, conditions)))


def _judged(
    stream: Stream, row: Mapping[str, Any], conditions: Sequence[Callable[[Any], bool]]
) -> Sequence[bool | None]:
    try:
        event = event_of(stream, row)
    except BaseException:  # noqa: BLE001 (types and validators of the user's own)
        return (None,) * len(conditions)
    if isinstance(event, Rejection):
        return (None,) * len(conditions)
    return [is_wanted(event) for is_wanted in conditions]
