"""What audits remember of each partition (`audit_ledger`): how far it is proved, and with how many rows.

The numbers are cumulative: of all offsets before the one that is proved through. So an audit can say
that proved rows are gone, also when Kafka holds their records no longer. Whatever removes proved rows
on purpose lowers the numbers in the same transaction.
"""

from collections import Counter
from datetime import datetime
from typing import Final, NamedTuple

from psycopg import sql

from streamflow.audit.outcomes import count_outcomes
from streamflow.flow import Partition
from streamflow.postgres.connections import Connection

Counts = Counter[str]  # rows, by outcome

_COLUMNS: Final = """
    SELECT topic, partition, proved_through, topic_id, stored, dead_lettered, duplicates,
           counted_from_zero, proved_at, windows_proved_through, windows_proved_at
    FROM audit_ledger
"""
# Another audit may have written in between, or retention: then the next audit writes.
_KEEP: Final = """
    INSERT INTO audit_ledger
        (topic, partition, proved_through, records, stored, dead_lettered, duplicates, lost,
         topic_id, counted_from_zero, proved_at)
    VALUES (%(topic)s, %(partition)s, %(through)s, %(records)s, %(stored)s, %(dead_lettered)s,
            %(duplicate)s, %(lost)s, %(topic_id)s, true,
            coalesce(%(at)s::timestamptz, now()))
    ON CONFLICT (topic, partition) DO UPDATE
    SET proved_through = excluded.proved_through, proved_at = excluded.proved_at,
        records = excluded.records,
        stored = excluded.stored, dead_lettered = excluded.dead_lettered,
        duplicates = excluded.duplicates, lost = excluded.lost, topic_id = excluded.topic_id,
        counted_from_zero = true,
        windows_proved_through = least(audit_ledger.windows_proved_through, excluded.proved_through)
    WHERE (audit_ledger.proved_through, audit_ledger.stored, audit_ledger.dead_lettered,
           audit_ledger.duplicates)
        = (%(known_through)s, %(known_stored)s, %(known_dead_lettered)s, %(known_duplicate)s)
"""
_KEEP_WINDOWS: Final = """
    UPDATE audit_ledger
    SET windows_proved_through = greatest(windows_proved_through, %s), windows_proved_at = %s
    WHERE (topic, partition) = (%s, %s)
"""
# An event that was stored from a replay counts where the replay lies.
_LOWER_FOR_DAY: Final = sql.SQL("""
    UPDATE audit_ledger AS kept SET stored = kept.stored - gone.events
    FROM (SELECT ledger.topic, ledger.partition, count(*) AS events
          FROM {table} AS e
          LEFT JOIN replayed_events AS r USING (origin_topic, origin_partition, origin_offset)
          JOIN audit_ledger AS ledger
            ON ledger.topic = coalesce(r.topic, e.origin_topic)
           AND ledger.partition = coalesce(r.partition, e.origin_partition)
           AND coalesce(r."offset", e.origin_offset) < ledger.proved_through
          WHERE e."timestamp" >= %s AND e."timestamp" < %s
          GROUP BY 1, 2) AS gone
    WHERE (kept.topic, kept.partition) = (gone.topic, gone.partition)
""")


class Proof(NamedTuple):
    """What earlier audits remember of a partition.

    Attributes:
        through: the offset behind the last record that was proved.
        topic_id: of the topic that this counts in; None where it was not known.
        stored: how many records before `through` were stored; as are the two that follow.
        counted_from_zero: these numbers are of all offsets; else of some, as older releases kept them.
        at: when the audit that proved it last began.
        windows_through: the events before this offset are counted in their windows.
        windows_at: when the audit that proved that last began.
    """

    through: int = 0
    topic_id: str | None = None
    stored: int = 0
    dead_lettered: int = 0
    duplicate: int = 0
    counted_from_zero: bool = False
    at: datetime | None = None
    windows_through: int = 0
    windows_at: datetime | None = None

    @property
    def counts(self) -> Counts:
        """The three numbers, by outcome."""
        return Counter(
            stored=self.stored, dead_lettered=self.dead_lettered, duplicate=self.duplicate
        )


class Earlier(NamedTuple):
    """The outcomes in the database of offsets that an audit does not read from Kafka.

    Attributes:
        proof: as it was when they were counted.
        proved: of offsets that were proved.
        unproved: of offsets that were removed before they were proved.
        beyond: of offsets that were proved, but lie behind the end of the log.
    """

    proof: Proof
    proved: Counts
    unproved: Counts
    beyond: Counts


def read_proofs(connection: Connection) -> dict[Partition, Proof]:
    """What is remembered of all partitions."""
    rows = connection.execute(_COLUMNS)
    return {(topic, partition): Proof(*proof) for topic, partition, *proof in rows}


def count_earlier(
    connection: Connection,
    partition: Partition,
    proof: Proof,
    within: tuple[int, int],
    *,
    event_table: str | None,
) -> Earlier | None:
    """Counts what an audit does not read from Kafka, in one snapshot with the ledger.

    Args:
        connection: not in a transaction.
        partition: to be counted.
        proof: of it, as the audit knows it.
        within: the first offset that is read from Kafka, and the end.
        event_table: the stream's table if the topic is a stream's own, else None.

    Returns:
        None if the ledger has changed since `proof` was read: another audit is at work.
    """
    start, end = within

    def count(first: int, stop: int) -> Counts:
        return count_outcomes(connection, *partition, first, stop, event_table=event_table)

    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        if event_table is not None:
            # A partition that retention drops would be gone whatever the snapshot is.
            connection.execute(
                sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.Identifier(event_table))
            )
        row = connection.execute(
            _COLUMNS + " WHERE (topic, partition) = (%s, %s)", list(partition)
        ).fetchone()
        present = Proof() if row is None else Proof(*row[2:])
        if present.through != proof.through:
            return None
        return Earlier(
            present,
            proved=count(0, min(start, present.through)),
            unproved=count(present.through, start),
            beyond=count(max(end, start), present.through),
        )


def keep_proof(
    connection: Connection,
    partition: Partition,
    known: Proof,
    proof: Proof,
    lost: int,
) -> None:
    """Remembers that a partition is proved; unless the ledger is not any more what it was.

    Args:
        connection: where to.
        partition: that is proved.
        known: what the ledger had when the audit counted.
        proof: what it shall have: how far, in which topic, and how many.
        lost: offsets in gaps that a person has acknowledged.
    """
    topic, number = partition
    connection.execute(
        _KEEP,
        {
            **proof._asdict(),
            **{f"known_{name}": value for name, value in known._asdict().items()},
            "topic": topic,
            "partition": number,
            "records": proof.counts.total(),
            "lost": lost,
        },
    )


def keep_windows_proof(
    connection: Connection, partition: Partition, through: int, began: datetime
) -> None:
    """Remembers that events before an offset are counted in windows that were compared with them, by
    an audit that began then."""
    connection.execute(_KEEP_WINDOWS, [through, began, *partition])


def lower_for_day(connection: Connection, table: str, start: datetime, end: datetime) -> None:
    """Takes events that are about to be dropped out of the numbers.

    Args:
        connection: in the transaction that drops them.
        table: of the stream.
        start: of the day.
        end: of the day.
    """
    connection.execute(_LOWER_FOR_DAY.format(table=sql.Identifier(table)), [start, end])
