"""The recorded gaps, and which of them were acknowledged (G5).

A gap is a range of offsets that a consumer group could not read because the records were gone. The
audit records gaps of its own: records that were removed before it had proved them.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Final, NamedTuple, get_args

from streamflow.flow import Partition
from streamflow.postgres import gaps
from streamflow.postgres.connections import Connection
from streamflow.records import Gap, GapCause

AUDIT: Final = "audit"  # as a reader, beside the names of consumer groups
CAUSES: Final = get_args(GapCause)
REUSED: Final = ("recreated", "truncated")  # the causes by which offsets mean other records
Range = tuple[int, int]


def multirange(ranges: Iterable[Range]) -> str:
    """As PostgreSQL reads an ``int8multirange``."""
    return "{" + ",".join(f"[{first},{end})" for first, end in ranges) + "}"


class KnownGap(NamedTuple):
    """A range of offsets that a reader could not read, as recorded in the table `gaps`.

    Attributes:
        reader: a consumer group, or `AUDIT`.
        end: exclusive.
        noticed_at: when it was noticed, or had grown; None for just now.
    """

    reader: str
    topic: str
    partition: int
    first: int
    end: int
    cause: GapCause
    acknowledged: bool = False
    noticed_at: datetime | None = None


class GapLedger:
    """The gaps known to one audit, in the streams' topics and in what was set aside of them. New ones
    are recorded on the connection."""

    def __init__(self, connection: Connection, topics: Sequence[str], loader: str) -> None:
        self._connection = connection
        self._loader = loader
        self._gaps = known_gaps(connection, topics)
        self.aside = [gap for gap in self._gaps if gap.topic not in topics]

    def of(self, partition: Partition) -> list[KnownGap]:
        """Those of a partition that are not acknowledged."""
        return [
            gap
            for gap in self._gaps
            if (gap.topic, gap.partition) == partition and not gap.acknowledged
        ]

    def covered(self, partition: Partition, *readers: str) -> list[Range]:
        return ranges(self._gaps, partition, readers)

    def acknowledged(
        self, partition: Partition, *readers: str, causes: Collection[str] = CAUSES
    ) -> list[Range]:
        """The offsets in acknowledged gaps of these readers (of any if none is given) and causes."""
        known = [gap for gap in self._gaps if gap.acknowledged and gap.cause in causes]
        return ranges(known, partition, readers or [gap.reader for gap in known])

    def lost_of(self, topic: str, since: datetime | None) -> int:
        """How many offsets of a derived topic were gone before the loader or an audit had read them, as
        far as that was noticed after `since`: they explain what is missing."""
        return sum(
            gap.end - gap.first
            for gap in self._gaps
            if gap.topic.partition("@")[0] == topic
            and gap.reader in (self._loader, AUDIT)
            and (since is None or gap.noticed_at is None or gap.noticed_at > since)
        )

    def note(
        self, reader: str, partition: Partition, removed: Iterable[Range], *known_to: str
    ) -> list[KnownGap]:
        """Records ranges that retention has removed before `reader` read them, except for those already
        recorded for it or for one of `known_to`. Returns the new gaps."""
        known = self.covered(partition, reader, *known_to)
        added = [
            Gap(*partition, low, high, "retention")
            for first, end in union(removed)
            for low, high in uncovered(first, end, known)
        ]
        gaps.keep(self._connection, reader, added)
        noted = [KnownGap(reader, *gap) for gap in added]
        self._gaps += noted
        return noted


def known_gaps(connection: Connection, topics: Sequence[str]) -> list[KnownGap]:
    """All gaps in these topics, and in what was set aside of them, by partition and offset."""
    rows = connection.execute(
        """
        SELECT reader, topic, partition, first_offset, end_offset, cause,
               acknowledged_at IS NOT NULL, noticed_at
        FROM gaps WHERE split_part(topic, '@', 1) = ANY(%s)
        ORDER BY topic, partition, first_offset, reader
        """,
        [list(topics)],
    )
    return [KnownGap(*row) for row in rows]


def acknowledge_gaps(connection: Connection, topics: Sequence[str], who: str) -> list[KnownGap]:
    """Marks all gaps as acknowledged; returns those that were not before."""
    rows = connection.execute(
        """
        UPDATE gaps SET acknowledged_at = now(), acknowledged_by = %s
        WHERE split_part(topic, '@', 1) = ANY(%s) AND acknowledged_at IS NULL
        RETURNING reader, topic, partition, first_offset, end_offset, cause, true
        """,
        [who, list(topics)],
    )
    return sorted(KnownGap(*row) for row in rows)


def ranges(gaps: Iterable[KnownGap], partition: Partition, readers: Sequence[str]) -> list[Range]:
    """The offsets in a partition's gaps of these readers, as ascending disjoint ranges."""
    return union(
        (gap.first, gap.end)
        for gap in gaps
        if (gap.topic, gap.partition) == partition and gap.reader in readers
    )


def union(given: Iterable[Range]) -> list[Range]:
    """The union of ranges, as ascending disjoint ranges without empty ones."""
    merged: list[Range] = []
    for first, end in sorted(given):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        elif first < end:
            merged.append((first, end))
    return merged


def append_offset(ascending: list[Range], offset: int, most: int | None = None) -> None:
    """Adds an offset that is not before the others: to the last range if that ends there, or if there
    are `most` ranges."""
    if ascending and (offset <= ascending[-1][1] or len(ascending) == most):
        ascending[-1] = (ascending[-1][0], offset + 1)
    else:
        ascending.append((offset, offset + 1))


def uncovered(first: int, end: int, covered: Sequence[Range]) -> list[Range]:
    """The part of `first` up to but excluding `end` that none of these ascending disjoint ranges holds."""
    left: list[Range] = []
    for low, high in covered:
        if low > first and first < end:
            left.append((first, min(low, end)))
        first = max(first, high)
    if first < end:
        left.append((first, end))
    return left


def covers(ranges: Sequence[Range], offset: int) -> bool:
    """Whether one of these ranges, ascending and disjoint, holds an offset."""
    place = bisect_right(ranges, offset, key=itemgetter(0))
    return place > 0 and offset < ranges[place - 1][1]
