"""What became of each record of a partition, for the audit (G5)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import starmap
from typing import Any, Final, Literal, get_args

from psycopg import Connection, sql

from streamflow.audit.blocks import LATEST, SIZE, OutcomeBlock
from streamflow.audit.gap_ledger import Range
from streamflow.flow import Partition

Outcome = Literal["stored", "dead_lettered", "duplicate"]
OUTCOMES: Final = get_args(Outcome)
NEAR: Final = (
    10_000  # offsets behind the end of a log in which an audit since the last one looks for rows
)
_PART: Final = SIZE * 16_384  # offsets
_NO_END: Final = 2**63 - 1
Counts = Counter[str]  # records or rows, by outcome

_BLOCKS: Final = """
SELECT "offset" / {size}, outcome, count(*), bit_xor(1::bigint << ("offset" %% {size})::int),
       count(appended),
       sum(least(greatest(appended, 0), {latest}) * (%(weights)s::bigint[])[("offset" %% {size})::int + 1])
FROM ({outcomes}) AS accounted GROUP BY 1, 2 ORDER BY 1
"""
# Each branch reads an index in offset order, so the outer sort only merges.
_SHARED = """
    SELECT record_offset AS "offset", 'stored' AS outcome, NULL::bigint AS appended
    FROM window_rows
    WHERE record_topic = %(topic)s AND record_partition = %(partition)s
      AND record_offset >= %(first)s AND record_offset < %(end)s
  UNION ALL
    SELECT record_offset, 'stored', NULL FROM notifications
    WHERE record_topic = %(topic)s AND record_partition = %(partition)s
      AND record_offset >= %(first)s AND record_offset < %(end)s
  UNION ALL
    SELECT record_offset, 'stored', NULL FROM dead_letters
    WHERE record_topic = %(topic)s AND record_partition = %(partition)s
      AND record_offset >= %(first)s AND record_offset < %(end)s
"""
# A row stored by a replay has the origin of its dead letter: the record that was stored is the
# replay.
_EVENTS = """
    SELECT origin_offset AS "offset", 'stored' AS outcome,
           round(1000 * date_part('epoch', appended_at))::bigint AS appended
    FROM {table} e
    WHERE origin_topic = %(topic)s AND origin_partition = %(partition)s
      AND origin_offset >= %(first)s AND origin_offset < %(end)s
      AND NOT EXISTS (SELECT FROM replayed_events r
                      WHERE (r.origin_topic, r.origin_partition, r.origin_offset)
                          = (e.origin_topic, e.origin_partition, e.origin_offset))
  UNION ALL
    SELECT r."offset", 'stored', NULL FROM replayed_events r
    WHERE r.topic = %(topic)s AND r.partition = %(partition)s
      AND r."offset" >= %(first)s AND r."offset" < %(end)s
      AND EXISTS (SELECT FROM {table} e
                  WHERE (e.origin_topic, e.origin_partition, e.origin_offset)
                      = (r.origin_topic, r.origin_partition, r.origin_offset))
"""
# An event of which no notification could be made is stored, and has a dead letter nevertheless.
_NOT_STORED = """
      AND NOT (stage = 'notify'
               AND EXISTS (SELECT FROM {table} e
                           WHERE (e.origin_topic, e.origin_partition, e.origin_offset)
                               = (d.origin_topic, d.origin_partition, d.origin_offset)))
"""
# A foreign record in a dead-letter topic is a row under its own position: it counts as stored, by the
# branch above, and not as dead-lettered too.
_ALWAYS = """
  UNION ALL
    SELECT "offset", 'stored', NULL FROM ignored_records
    WHERE topic = %(topic)s AND partition = %(partition)s
      AND "offset" >= %(first)s AND "offset" < %(end)s
  UNION ALL
    SELECT "offset", 'duplicate', NULL FROM duplicates
    WHERE topic = %(topic)s AND partition = %(partition)s
      AND "offset" >= %(first)s AND "offset" < %(end)s
  UNION ALL
    SELECT source_offset, 'dead_lettered', NULL FROM dead_letters d
    WHERE source_topic = %(topic)s AND source_partition = %(partition)s
      AND source_offset >= %(first)s AND source_offset < %(end)s
      AND (record_topic, record_partition, record_offset)
          IS DISTINCT FROM (source_topic, source_partition, source_offset)
"""


def accounted_offsets(
    connection: Connection[Any], partition: Partition, within: Range, event_table: str | None
) -> Iterator[tuple[int, Outcome, int | None]]:
    """Offset and outcome of each record, ascending; for an event that was not replayed also its append
    time, in milliseconds since the epoch. A record with two outcomes is yielded twice.

    Args:
        connection: rows are streamed: a transaction stays open on it meanwhile.
        partition: of the records.
        within: their offsets.
        event_table: the stream's table if the topic is a source topic, else None.
    """
    query = sql.SQL('{} ORDER BY "offset"').format(_outcomes(event_table))
    with connection.transaction(), connection.cursor("accounted_offsets") as cursor:
        cursor.itersize = 10_000
        yield from cursor.execute(query, _parameters(partition, within))


def outcome_blocks(
    connection: Connection[Any],
    partition: Partition,
    within: Range,
    event_table: str | None,
    weights: Sequence[int],
) -> Iterator[OutcomeBlock]:
    """The same, summed up by block and outcome, ascending by block; append times by the `weights` of their
    places. A part of the offsets at a time, so that PostgreSQL keeps few groups in memory."""
    query = sql.SQL(_BLOCKS).format(
        size=sql.Literal(SIZE), latest=sql.Literal(LATEST), outcomes=_outcomes(event_table)
    )
    first, end = within
    while first < end:
        stop = min(end, (first // _PART + 1) * _PART)
        with _by_index(connection):
            parameters = _parameters(partition, (first, stop)) | {"weights": weights}
            rows = connection.execute(query, parameters).fetchall()
        yield from starmap(OutcomeBlock, rows)
        first = stop


def count_outcomes(
    connection: Connection[Any], partition: Partition, within: Range, event_table: str | None
) -> Counts:
    """How often `accounted_offsets` would yield each outcome, counted in the database."""
    query = sql.SQL("SELECT outcome, count(*) FROM ({}) AS accounted GROUP BY outcome").format(
        _outcomes(event_table)
    )
    is_empty = within[0] >= within[1]
    return Counter(
        dict(() if is_empty else connection.execute(query, _parameters(partition, within)))
    )


def last_stored(
    connection: Connection[Any],
    partition: Partition,
    start: int,
    event_table: str | None,
    end: int = _NO_END,
) -> int | None:
    """The largest offset, from `start` on and before `end`, of which a row is stored. In the indexes of
    shared tables offsets stand before topics: without an end, rows of other topics are read, too."""
    query = sql.SQL(
        "SELECT max(\"offset\") FROM ({}) AS accounted WHERE outcome = 'stored'"
    ).format(_outcomes(event_table))
    last: int | None
    with _by_index(connection):
        [(last,)] = connection.execute(query, _parameters(partition, (start, end)))
    return last


@contextmanager
def _by_index(connection: Connection[Any]) -> Iterator[None]:
    """For offsets that are a small part of their tables, whatever PostgreSQL's statistics say of new rows.
    Several processes would take more time together."""
    with connection.transaction():
        connection.execute("SET LOCAL enable_seqscan = off")
        connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        yield


def _outcomes(event_table: str | None) -> sql.Composed:
    if event_table is None:
        return sql.SQL(_SHARED) + sql.SQL(_ALWAYS)
    return sql.SQL(_EVENTS + _ALWAYS + _NOT_STORED).format(table=sql.Identifier(event_table))


def _parameters(partition: Partition, within: Range) -> dict[str, object]:
    return dict(zip(("topic", "partition", "first", "end"), (*partition, *within), strict=True))
