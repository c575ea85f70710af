"""What audits remember of each partition (`audit_ledger`): how far it is proved, and with how many rows.

The numbers are cumulative, of all offsets that are proved. So an audit notices when proved rows are gone
even if Kafka no longer has their records. Whatever removes proved rows on purpose lowers the numbers in
the same transaction.
"""

from collections import Counter
from datetime import datetime
from typing import Final, NamedTuple

from psycopg import sql

from streamflow.audit.gap_ledger import Range
from streamflow.audit.outcomes import OUTCOMES, Counts, count_outcomes
from streamflow.flow import Partition
from streamflow.postgres.connections import Connection
from streamflow.stream import Stream

_COLUMNS: Final = """
    SELECT topic, partition, proved_through, topic_id, stored, dead_lettered, duplicates,
           counted_from_zero, proved_at, windows_proved_through, windows_proved_at
    FROM audit_ledger
"""
# If another audit or retention has written in between, the next audit will record the proof.
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
# An event that was stored by a replay counts at the replay's offset.
_LOWER_FOR_DAY: Final = sql.SQL("""
    UPDATE audit_ledger AS kept SET stored = kept.stored - gone.events
    FROM (SELECT ledger.topic, ledger.partition, count(*) AS events
          FROM {table} AS e
          LEFT JOIN replayed_events AS r USING (origin_topic, origin_partition, origin_offset)
          JOIN audit_ledger AS ledger
            ON ledger.topic = coalesce(r.topic, e.origin_topic)
           AND ledger.partition = coalesce(r.partition, e.origin_partition)
           AND coalesce(r."offset", e.origin_offset) < ledger.proved_through
          WHERE e.{time} >= %s AND e.{time} < %s
          GROUP BY 1, 2) AS gone
    WHERE (kept.topic, kept.partition) = (gone.topic, gone.partition)
""")


class Proof(NamedTuple):
    """What earlier audits have proved of a partition.

    Attributes:
        through: end of the offsets that are proved, exclusive.
        stored: number of records before `through` that were stored; the next two likewise.
        counted_from_zero: whether the numbers are of all offsets; older releases counted only some.
        at: when the last audit that proved it began.
        windows_through: events before this offset are counted in their windows.
        windows_at: when the last audit that proved this began.
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
        return Counter({outcome: getattr(self, outcome) for outcome in OUTCOMES})


class Earlier(NamedTuple):
    """The outcomes in the database of offsets that an audit does not read from Kafka.

    Attributes:
        proof: of the partition when they were counted.
        proved: of offsets that were proved.
        unproved: of offsets that were removed before they were proved.
        beyond: of offsets that were proved, but are past the end of the log.
    """

    proof: Proof
    proved: Counts
    unproved: Counts
    beyond: Counts


def read_proofs(connection: Connection) -> dict[Partition, Proof]:
    rows = connection.execute(_COLUMNS)
    return {(topic, partition): Proof(*proof) for topic, partition, *proof in rows}


def count_earlier(
    connection: Connection,
    partition: Partition,
    proof: Proof,
    within: Range,
    event_table: str | None,
    *,
    trusted: bool = False,
) -> Earlier | None:
    """Counts the outcomes of offsets that an audit does not read from Kafka, those not `within`, in one
    snapshot with the ledger: in a transaction of its own. Those that were proved are not counted if the proof
    is `trusted`. Returns None if the ledger has changed since `proof` was read: another audit is running."""
    start, end = within

    def count(first: int, stop: int) -> Counts:
        return count_outcomes(connection, partition, (first, stop), event_table)

    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        if event_table is not None:
            # Dropping a partition of the table ignores snapshots: keep retention waiting.
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
            proved=present.counts if trusted else count(0, min(start, present.through)),
            unproved=count(present.through, start),
            beyond=count(max(end, start), present.through),
        )


def keep_proof(
    connection: Connection, partition: Partition, known: Proof, proof: Proof, lost: int
) -> None:
    """Records a new proof, and the number of offsets in acknowledged gaps, unless the ledger has changed
    since the audit counted: it knew the proof `known` then."""
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
    """Records that an audit that began then has proved the windows of all events before an offset."""
    connection.execute(_KEEP_WINDOWS, [through, began, *partition])


def lower_for_day(connection: Connection, stream: Stream, start: datetime, end: datetime) -> None:
    """Subtracts the events of a stream's table that the connection's transaction is about to drop."""
    query = _LOWER_FOR_DAY.format(
        table=sql.Identifier(stream.event_table), time=sql.Identifier(stream.event_time)
    )
    connection.execute(query, [start, end])
