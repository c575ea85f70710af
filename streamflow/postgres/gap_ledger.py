"""The gaps that readers and audits have noted, and which of them a person has acknowledged (G5).

A gap is a range of offsets that a consumer group could not read, because their records were gone
first. The audit notes gaps of its own: records that were removed before it had proved anything.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from streamflow.flow import Partition
from streamflow.postgres.connections import Connection

AUDIT: Final = "audit"  # as a reader, beside the names of consumer groups
Range = tuple[int, int]


class Gap(NamedTuple):
    """A range of offsets that a reader could not read.

    Attributes:
        reader: a consumer group, or `AUDIT`.
        end: the offset behind the last one.
        cause: ``retention``, ``recreated`` or ``truncated``.
        acknowledged: a person knows of it.
    """

    reader: str
    topic: str
    partition: int
    first: int
    end: int
    cause: str
    acknowledged: bool = False


def known_gaps(connection: Connection, topics: Sequence[str]) -> list[Gap]:
    """All gaps in these topics, by partition and offset."""
    rows = connection.execute(
        """
        SELECT reader, topic, partition, first_offset, end_offset, cause,
               acknowledged_at IS NOT NULL
        FROM gaps WHERE topic = ANY(%s) ORDER BY topic, partition, first_offset, reader
        """,
        [list(topics)],
    )
    return [Gap(*row) for row in rows]


def note_gap(connection: Connection, gap: Gap) -> None:
    """Writes a gap down. One that is known and grows is to be acknowledged again."""
    connection.execute(
        """
        INSERT INTO gaps AS known (reader, topic, partition, first_offset, end_offset, cause)
        VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (reader, topic, partition, first_offset) DO UPDATE
        SET end_offset = excluded.end_offset, noticed_at = now(),
            acknowledged_at = NULL, acknowledged_by = NULL
        WHERE known.end_offset < excluded.end_offset
        """,
        gap[:-1],
    )


def acknowledge_gaps(connection: Connection, topics: Sequence[str], who: str) -> list[Gap]:
    """Marks the gaps that are known now as known to a person; returns those that were not."""
    rows = connection.execute(
        """
        UPDATE gaps SET acknowledged_at = now(), acknowledged_by = %s
        WHERE topic = ANY(%s) AND acknowledged_at IS NULL
        RETURNING reader, topic, partition, first_offset, end_offset, cause, true
        """,
        [who, list(topics)],
    )
    return sorted(Gap(*row) for row in rows)


def ranges(gaps: Iterable[Gap], partition: Partition, readers: Sequence[str]) -> list[Range]:
    """The offsets of a partition that gaps of these readers cover, ascending and disjoint."""
    found = sorted(
        (gap.first, gap.end)
        for gap in gaps
        if (gap.topic, gap.partition) == partition and gap.reader in readers
    )
    merged: list[Range] = []
    for first, end in found:
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((first, end))
    return merged


def uncovered(first: int, end: int, covered: Sequence[Range]) -> list[Range]:
    """What of the offsets from `first` to before `end` these ranges, ascending and disjoint, leave
    out."""
    left: list[Range] = []
    for low, high in covered:
        if low > first and first < end:
            left.append((first, min(low, end)))
        first = max(first, high)
    if first < end:
        left.append((first, end))
    return left
