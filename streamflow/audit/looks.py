"""Since when the proved records of a partition have been looked at (`audit_ledger`).

An audit since the last one takes it for granted that rows of proved records are as they were. It looks at
some of them again, in turn, so that after a number of audits each was compared once more. A full audit looks
at all.
"""

from datetime import datetime
from typing import Final, NamedTuple

from streamflow.audit.gap_ledger import Range
from streamflow.flow import Partition
from streamflow.postgres.connections import Connection

_LEAST: Final = (
    10_000  # offsets of a partition that are looked at again, if there are fewer new ones
)
_READ: Final = """
SELECT topic, partition, full_at, looked_at, looked_through, look_began FROM audit_ledger
"""
_KEEP: Final = """
UPDATE audit_ledger
   SET full_at = %(full_at)s, looked_at = %(at)s, looked_through = %(through)s, look_began = %(began)s
 WHERE (topic, partition) = (%(topic)s, %(number)s)
"""


class Look(NamedTuple):
    """When proved records were compared.

    Attributes:
        full_at: when the last full audit began that has proved the partition: all windows were compared then,
            and rows of records that Kafka no longer holds. None if something was wrong since.
        at: each record that Kafka holds was compared at this time or later.
        through: those before this offset were compared again since `began`.
        began: when the turn began that is not over yet.
    """

    full_at: datetime | None = None
    at: datetime | None = None
    through: int = 0
    began: datetime | None = None

    def next_range(self, first: int, proved: int, new: int) -> Range:
        """The proved offsets to look at again: as many as there are `new` ones, or a few more. `first` is the
        first offset that Kafka holds."""
        low = max(first, self.through)
        if self.began is None or low >= proved:
            low = min(first, proved)
        return low, min(proved, low + max(new, _LEAST))

    def after(self, looked: Range, first: int, proved: int, now: datetime) -> "Look":
        """Once an audit that began `now` has looked at the next range, and found nothing wrong."""
        low, high = looked
        began = now if low <= first or self.began is None else self.began
        if high >= proved:
            return self._replace(at=began, through=0, began=None)
        return self._replace(through=high, began=began)


def full_look(now: datetime) -> Look:
    """Once an audit that began `now` has compared everything."""
    return Look(full_at=now, at=now)


def read_looks(connection: Connection) -> dict[Partition, Look]:
    rows = connection.execute(_READ)
    return {(topic, number): Look(*look) for topic, number, *look in rows}


def keep_look(connection: Connection, partition: Partition, look: Look) -> None:
    topic, number = partition
    connection.execute(_KEEP, look._asdict() | {"topic": topic, "number": number})
