"""Since when the proved records of a partition have been looked at (`audit_ledger`).

An audit since the last one takes it for granted that rows of proved records are as they were. It looks at
some of them again, in turn, so that after a number of audits each was compared once more. A full audit looks
at all.
"""

from datetime import datetime
from typing import Final, NamedTuple

from streamflow.audit.gap_ledger import Range
from streamflow.audit.proofs import Proof
from streamflow.audit.report import PartitionAudit
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


class Looks:
    """What one audit looks at again, and what it records of that.

    Attributes:
        again: the proved offsets that are looked at again, of partitions that are compared from the proof on.
    """

    def __init__(self, connection: Connection, began: datetime) -> None:
        """`began`: when the audit did."""
        self._connection = connection
        self._began = began
        self._known = read_looks(connection)
        self.again: dict[Partition, Range] = {}

    def _of(self, partition: Partition) -> Look:
        return self._known.get(partition, Look())

    def has_full(self, partition: Partition) -> bool:
        """Whether a full audit has proved the partition, and nothing was wrong with it since."""
        return self._of(partition).full_at is not None

    def take(self, ledger: PartitionAudit, first: int, proof: Proof) -> PartitionAudit:
        """A ledger of what is to be looked at again, beside the ledger of what is new. `first`: as in
        `Look.next_range`."""
        new = ledger.end - ledger.first
        low, high = self._of(ledger.key).next_range(first, proof.through, new)
        self.again[ledger.key] = low, high
        return PartitionAudit(
            topic=ledger.topic,
            partition=ledger.partition,
            first=low,
            end=high,
            judged=ledger.judged,
        )

    def note(self, ledger: PartitionAudit, again: PartitionAudit, first: int, proof: Proof) -> None:
        """Notes what was found again, and what the ledger leaves out."""
        look = self._of(ledger.key)
        ledger.take_problems(again)
        ledger.skipped = max(0, proof.counts.total() - again.records)
        # What Kafka no longer holds only a full audit counts.
        ledger.looked_at, ledger.full_at = look.full_at if first else look.at, look.full_at

    def keep(self, ledger: PartitionAudit, first: int, proved: int, *, full: bool) -> None:
        """Records that the proved records of a partition were compared: all of them, or some. `full`: whether
        the audit has compared rows of upsert streams, too, of which Kafka holds no record any more."""
        again = self.again.get(ledger.key)
        if again is not None:
            look = self._of(ledger.key).after(again, first, proved, self._began)
        elif full and ledger.first == first:
            look = Look(full_at=self._began, at=self._began)
        else:
            return
        keep_look(self._connection, ledger.key, look)

    def distrust(self, partition: Partition) -> None:
        """Records that something is wrong: nothing is taken for granted until everything was compared."""
        keep_look(self._connection, partition, Look())


def read_looks(connection: Connection) -> dict[Partition, Look]:
    rows = connection.execute(_READ)
    return {(topic, number): Look(*look) for topic, number, *look in rows}


def keep_look(connection: Connection, partition: Partition, look: Look) -> None:
    topic, number = partition
    connection.execute(_KEEP, look._asdict() | {"topic": topic, "number": number})
