"""The windows whose counts differ from their events for good, and which of them were acknowledged (G5).

A release that reads the events of an open window again judges them by its own contract, and counts others
than the release before it. A clean stop prevents that, and a kill does not. What an audit has found of it is
kept cell by cell with its exact number: once acknowledged, that number is no problem any more, and another
one is.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from streamflow.audit.gap_ledger import Range
from streamflow.flow import Partition
from streamflow.postgres.connections import Connection
from streamflow.units import counted
from streamflow.windows.progress import COUNTS

# Start of a window, and the group in it: what its events are counted by.
Cell = tuple[datetime, str]

_ACKNOWLEDGED: Final = """
SELECT window_start, event_type, difference FROM window_differences
 WHERE (topic, partition, table_name) = (%s, %s, %s) AND acknowledged_at IS NOT NULL
"""
# One that was settled must not excuse the next one.
_DROP_SETTLED: Final = """
DELETE FROM window_differences
 WHERE (topic, partition, table_name) = (%(topic)s, %(partition)s, %(table)s)
   AND (window_start, event_type) NOT IN (SELECT * FROM unnest(%(starts)s::timestamptz[], %(types)s::text[]))
"""
_KEEP: Final = """
INSERT INTO window_differences AS known
       (topic, partition, table_name, window_start, event_type, difference, first_offset)
SELECT %(topic)s, %(partition)s, %(table)s, * FROM unnest(%(starts)s::timestamptz[], %(types)s::text[],
                                              %(differences)s::bigint[], %(offsets)s::bigint[])
ON CONFLICT (topic, partition, table_name, window_start, event_type) DO UPDATE
   SET difference = excluded.difference, first_offset = excluded.first_offset, noticed_at = now(),
       acknowledged_at = NULL, acknowledged_by = NULL
 WHERE known.difference <> excluded.difference
"""
_ACKNOWLEDGE: Final = """
UPDATE window_differences SET acknowledged_at = now(), acknowledged_by = %s
 WHERE topic = ANY(%s) AND acknowledged_at IS NULL
RETURNING topic, partition, table_name, window_start, event_type, difference
"""


class CellDifference(NamedTuple):
    """A cell of a closed window that differs.

    Attributes:
        difference: number of its events minus how many were counted, without those in acknowledged gaps.
        span: first and end offset of its events, or of those that were counted.
        acknowledgeable: whether events that no audit has proved can explain it.
    """

    cell: Cell
    difference: int
    span: Range
    acknowledgeable: bool


class Acknowledged(NamedTuple):
    """A difference that was acknowledged just now."""

    topic: str
    partition: int
    table: str
    window_start: datetime
    event_type: str
    difference: int

    def __str__(self) -> str:
        events = counted(abs(self.difference), "event")
        what = f"{events} not counted" if self.difference > 0 else f"{events} counted too many"
        words = ("window", "" if self.table == COUNTS else self.table)
        window = (*words, f"{self.window_start:%Y-%m-%dT%H:%M:%SZ}", self.event_type)
        return f"{self.topic}[{self.partition}] {' '.join(filter(None, window))}, {what}"


def cell_difference(
    cell: Cell,
    difference: int,
    known: int,
    in_gap: int,
    unproved: Sequence[int],
    span: Sequence[int],
) -> CellDifference:
    """What differs beside what is known. Events that were proved, and counts of these, explain nothing:
    whatever changed there was not judged twice.

    Args:
        cell: of a closed window.
        difference: of its events and those that were counted.
        known: the part of it that was acknowledged.
        in_gap: number of its events in acknowledged gaps.
        unproved: number of its events that no audit has proved, and of those that were counted.
        span: first and end offset of both.
    """
    first, end = span
    more = difference - known
    if more > 0:
        explained = more - in_gap <= unproved[0]
        return CellDifference(cell, difference - in_gap, (first, end), explained)
    return CellDifference(cell, difference, (first, end), -more <= unproved[1])


def acknowledged_differences(
    connection: Connection, partition: Partition, table: str = COUNTS
) -> dict[Cell, int]:
    """Those of a source partition, in the windows that are counted into a table."""
    rows = connection.execute(_ACKNOWLEDGED, [*partition, table])
    return {(start, kind): difference for start, kind, difference in rows}


def keep_differences(
    connection: Connection,
    partition: Partition,
    differing: Sequence[CellDifference],
    acknowledged: Iterable[Cell],
    gaps: Sequence[Range],
    table: str = COUNTS,
) -> None:
    """Keeps the differences that can be acknowledged, and forgets those that are none any more.

    Args:
        connection: outside of a transaction.
        partition: of the source topic.
        differing: all cells that differ now.
        acknowledged: cells whose difference was acknowledged and is as it was.
        gaps: offsets in gaps of analytics that are not acknowledged: they may explain what differs there.
        table: that the windows are counted into.
    """
    keep = [
        found
        for found in differing
        if found.acknowledgeable
        and not any(low < found.span[1] and found.span[0] < high for low, high in gaps)
    ]
    present = [*acknowledged, *(found.cell for found in differing)]
    values = {"topic": partition[0], "partition": partition[1], "table": table}
    with connection.transaction():
        connection.execute(_DROP_SETTLED, values | _columns(present))
        connection.execute(
            _KEEP,
            values
            | _columns([found.cell for found in keep])
            | {
                "differences": [found.difference for found in keep],
                "offsets": [found.span[0] for found in keep],
            },
        )


def acknowledge_differences(
    connection: Connection, topics: Sequence[str], who: str
) -> list[Acknowledged]:
    """Marks all differences as acknowledged; returns those that were not before."""
    rows = connection.execute(_ACKNOWLEDGE, [who, list(topics)])
    return sorted(Acknowledged(*row) for row in rows)


def _columns(cells: Sequence[Cell]) -> dict[str, list[object]]:
    return {"starts": [start for start, _ in cells], "types": [kind for _, kind in cells]}
