"""The state of replays in the database: each step is recorded before it is taken.

A dead letter is claimed (status ``replaying``, outcome ``planned``), ``prepared`` once its position in
Kafka is known but not committed, and ``sent`` once it is committed. Then the loader's tables say
``stored``, ``duplicate`` or ``rejected``. `resolve` ends what a killed replay left in the first two.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from psycopg.types.json import Jsonb

from streamflow.dead_letters.plan_store import ReplayPlan
from streamflow.dead_letters.select import DeadLetter, Status, arrays
from streamflow.postgres.connections import Connection
from streamflow.records import Origin, OutRecord

_LOCKS: Final = 0x5F11  # the first half of the advisory locks' keys


class Outcome(StrEnum):
    PASSES = "passes"  # in a plan only
    PLANNED = "planned"
    PREPARED = "prepared"
    SENT = "sent"
    STORED = "stored"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    FAILS = "fails"
    QUARANTINED = "quarantined"
    NOT_SENT = "not_sent"


class RunningReplay(NamedTuple):
    id: int
    transactional_id: str


class PlannedOutcome(NamedTuple):
    """What a replay would do with a dead letter: the record to send, or why there is none. `unrepaired`: it
    is rejected, and none of the chosen repairs changes anything in it."""

    letter: DeadLetter
    outcome: Outcome
    record: OutRecord | None = None
    reason: str = ""
    message: str = ""
    unrepaired: bool = False


class Sample(NamedTuple):
    """A dead letter that does not pass, and why."""

    id: str
    error_code: str
    reason: str
    message: str


class HistoryEntry(NamedTuple):
    replay_id: int
    requested_by: str
    outcome: str
    attempt: int
    code: str
    sent_to: str | None
    updated_at: datetime


def begin(
    connection: Connection, *, transactional_id: str, requested_by: str, plan: ReplayPlan
) -> RunningReplay:
    """Records that a plan is being applied; the replay stays locked until this connection closes."""
    with connection.transaction():
        [(replay_id,)] = connection.execute(
            "INSERT INTO replays (transactional_id, requested_by, selection, options, plan_id)"
            " VALUES (%s, %s, %s, %s, %s) RETURNING id",
            [transactional_id, requested_by, Jsonb(plan.selection), Jsonb(plan.options), plan.id],
        )
        # Before the row is visible: a running replay without its lock counts as killed.
        connection.execute("SELECT pg_advisory_lock(%s, %s)", [_LOCKS, replay_id])
    return RunningReplay(replay_id, transactional_id)


def finish(connection: Connection, replay_id: int, state: str, note: str) -> None:
    """Records how a replay ended, and unlocks it."""
    connection.execute(
        "UPDATE replays SET state = %s, note = %s, finished_at = now() WHERE id = %s",
        [state, note, replay_id],
    )
    unlock(connection, replay_id)


def running(connection: Connection) -> list[RunningReplay]:
    """Replays that run, and those that were killed."""
    rows = connection.execute(
        "SELECT id, transactional_id FROM replays WHERE state = 'running' ORDER BY id"
    )
    return [RunningReplay(*row) for row in rows]


def try_lock(connection: Connection, replay_id: int) -> bool:
    """Locks a replay whose process is gone; False if it still runs or has ended."""
    [(locked,)] = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", [_LOCKS, replay_id])
    if not locked:
        return False
    if any(replay.id == replay_id for replay in running(connection)):
        return True
    unlock(connection, replay_id)
    return False


def unlock(connection: Connection, replay_id: int) -> None:
    connection.execute("SELECT pg_advisory_unlock(%s, %s)", [_LOCKS, replay_id])


def claim(connection: Connection, replay_id: int, planned: Sequence[PlannedOutcome]) -> None:
    """Records what will be done with dead letters that this transaction has locked."""
    rows = []
    for letter, outcome, record, reason, message, _ in planned:
        result = (
            (outcome, letter.attempt) if record is None else (Outcome.PLANNED, letter.attempt + 1)
        )
        rows.append((replay_id, *letter.id, letter.status, *result, reason, message))
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO replay_records (replay_id, source_topic, source_partition, source_offset,"
            " letter_status, outcome, attempt, code, message)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            rows,
        )
    sent = [letter.id for letter, _, record, *_ in planned if record is not None]
    quarantined = [letter.id for letter, outcome, *_ in planned if outcome is Outcome.QUARANTINED]
    for ids, status in ((sent, Status.REPLAYING), (quarantined, Status.QUARANTINED)):
        if ids:
            connection.execute(
                "UPDATE dead_letters SET status = %s WHERE (source_topic, source_partition,"
                " source_offset) IN (SELECT * FROM unnest(%s::text[], %s::int[], %s::bigint[]))",
                [status, *arrays(ids).values()],
            )


def prepare(
    connection: Connection, replay_id: int, ids: Sequence[Origin], positions: Sequence[Origin]
) -> None:
    """Records where dead letters were produced to, before Kafka commits."""
    connection.execute(
        "UPDATE replay_records AS kept SET outcome = 'prepared', topic = at.topic,"
        ' partition = at.partition, "offset" = at.start, updated_at = now()'
        " FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::text[], %s::int[], %s::bigint[])"
        " AS at (source_topic, source_partition, source_offset, topic, partition, start)"
        " WHERE kept.replay_id = %s AND kept.outcome = 'planned'"
        " AND (kept.source_topic, kept.source_partition, kept.source_offset)"
        " = (at.source_topic, at.source_partition, at.source_offset)",
        [*arrays(ids).values(), *arrays(positions).values(), replay_id],
    )


def confirm(connection: Connection, replay_id: int) -> None:
    """Records that Kafka has committed what was prepared."""
    connection.execute(
        "UPDATE replay_records SET outcome = 'sent', updated_at = now()"
        " WHERE replay_id = %s AND outcome = 'prepared'",
        [replay_id],
    )


def unconfirmed(connection: Connection, replay_id: int) -> list[Origin | None]:
    """Positions of the records that Kafka may or may not have committed; None where not produced."""
    rows = connection.execute(
        'SELECT topic, partition, "offset" FROM replay_records'
        " WHERE replay_id = %s AND outcome IN ('planned', 'prepared')",
        [replay_id],
    )
    return [None if row[0] is None else Origin(*row) for row in rows]


def resolve(
    connection: Connection, replay_id: int, committed: Collection[Origin], note: str
) -> None:
    """Ends a killed replay whose lock the connection holds: the records at positions that Kafka has
    `committed` are sent, all other dead letters get their old status back. `note` is why it ended."""
    with connection.transaction():
        connection.execute(
            "UPDATE replay_records SET outcome = 'sent', updated_at = now()"
            " WHERE replay_id = %s AND outcome = 'prepared' AND (topic, partition, \"offset\") IN"
            " (SELECT * FROM unnest(%s::text[], %s::int[], %s::bigint[]))",
            [replay_id, *arrays(list(committed)).values()],
        )
        connection.execute(
            "WITH undone AS (UPDATE replay_records SET outcome = 'not_sent', topic = NULL,"
            ' partition = NULL, "offset" = NULL, updated_at = now()'
            " WHERE replay_id = %s AND outcome IN ('planned', 'prepared')"
            " RETURNING source_topic, source_partition, source_offset, letter_status)"
            " UPDATE dead_letters AS letter SET status = letter_status FROM undone"
            " WHERE (letter.source_topic, letter.source_partition, letter.source_offset)"
            " = (undone.source_topic, undone.source_partition, undone.source_offset)"
            " AND letter.status = 'replaying'",
            [replay_id],
        )
        connection.execute(
            "UPDATE replays SET state = 'interrupted', note = %s, finished_at = now()"
            " WHERE id = %s",
            [note, replay_id],
        )


# What the loader did with each record that was sent, by the record's position.
_SETTLE: Final = """
WITH waiting AS (
    SELECT replay_id, source_topic, source_partition, source_offset, topic, partition,
           "offset" AS at
      FROM replay_records
     WHERE outcome = 'sent'
     ORDER BY replay_id, source_partition, source_offset, source_topic
       FOR UPDATE SKIP LOCKED
), judged AS (
    SELECT waiting.*, letter.error_code, letter.message,
           CASE WHEN EXISTS (SELECT FROM replayed_events AS event
                              WHERE (event.topic, event.partition, event."offset")
                                  = (waiting.topic, waiting.partition, at))
                  OR EXISTS (SELECT FROM window_rows
                              WHERE (record_topic, record_partition, record_offset)
                                  = (waiting.topic, waiting.partition, at))
                  OR EXISTS (SELECT FROM notifications
                              WHERE (record_topic, record_partition, record_offset)
                                  = (waiting.topic, waiting.partition, at))
                THEN 'stored'
                WHEN EXISTS (SELECT FROM duplicates AS again
                              WHERE (again.topic, again.partition, again."offset")
                                  = (waiting.topic, waiting.partition, at))
                THEN 'duplicate'
                WHEN letter.error_code IS NOT NULL THEN 'rejected'
           END AS became
      FROM waiting LEFT JOIN dead_letters AS letter
        ON (letter.source_topic, letter.source_partition, letter.source_offset)
         = (waiting.topic, waiting.partition, at)
), settled AS (
    UPDATE replay_records AS kept
       SET outcome = became, updated_at = now(),
           code = CASE became WHEN 'rejected' THEN error_code ELSE '' END,
           message = CASE became WHEN 'rejected' THEN judged.message ELSE '' END
      FROM judged
     WHERE became IS NOT NULL AND kept.replay_id = judged.replay_id
       AND (kept.source_topic, kept.source_partition, kept.source_offset)
         = (judged.source_topic, judged.source_partition, judged.source_offset)
 RETURNING kept.replay_id, kept.source_topic, kept.source_partition, kept.source_offset,
           kept.topic, kept.partition, kept."offset", kept.outcome
), earlier AS (
    UPDATE dead_letters AS letter
       SET status = CASE outcome WHEN 'rejected' THEN 'superseded' ELSE 'replayed' END
      FROM settled
     WHERE letter.status = 'replaying'
       AND (letter.source_topic, letter.source_partition, letter.source_offset)
         = (settled.source_topic, settled.source_partition, settled.source_offset)
), given_up AS (
    UPDATE dead_letters AS letter SET status = 'quarantined'
      FROM settled JOIN replays ON replays.id = replay_id
     WHERE outcome = 'rejected' AND letter.status = 'open'
       AND letter.attempt >= (options->>'max_attempts')::int
       AND (letter.source_topic, letter.source_partition, letter.source_offset)
         = (settled.topic, settled.partition, settled."offset")
)
SELECT count(*) FROM settled
"""


def settle(connection: Connection) -> int:
    """Updates outcomes of sent records, and statuses of their dead letters, from the loader's tables.
    Returns the number of new outcomes.

    A dead letter whose replay was rejected is superseded by the new dead letter, which has one attempt
    more and is open or, at the limit of attempts, quarantined. Idempotent; safe to run concurrently.
    """
    [(number,)] = connection.execute(_SETTLE)
    return int(number)


def tally(connection: Connection, replay_id: int) -> Counter[tuple[str, Outcome, str]]:
    """A replay's dead letters, counted by error code, outcome and reason."""
    rows = connection.execute(
        "SELECT letter.error_code, kept.outcome, kept.code, count(*) FROM replay_records AS kept"
        " JOIN dead_letters AS letter USING (source_topic, source_partition, source_offset)"
        " WHERE replay_id = %s GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        [replay_id],
    )
    return Counter({(code, Outcome(outcome), why): number for code, outcome, why, number in rows})


def samples(connection: Connection, replay_id: int, most: int) -> list[Sample]:
    """At most so many of each kind."""
    rows = connection.execute(
        "SELECT source_topic, source_partition, source_offset, error_code, code, why FROM"
        " (SELECT source_topic, source_partition, source_offset, letter.error_code, kept.code,"
        " kept.message AS why, row_number() OVER (PARTITION BY letter.error_code, kept.code"
        " ORDER BY source_partition, source_offset) AS rank FROM replay_records AS kept"
        " JOIN dead_letters AS letter USING (source_topic, source_partition, source_offset)"
        " WHERE replay_id = %s AND kept.outcome IN ('fails', 'rejected', 'quarantined')) AS ranked"
        " WHERE rank <= %s ORDER BY error_code, code, rank",
        [replay_id, most],
    )
    return [Sample(str(Origin(*row[:3])), *row[3:]) for row in rows]


def count(connection: Connection, replay_id: int, outcome: Outcome) -> int:
    query = "SELECT count(*) FROM replay_records WHERE replay_id = %s AND outcome = %s"
    [(number,)] = connection.execute(query, [replay_id, outcome])
    return int(number)


def history(connection: Connection, id_: Origin) -> list[HistoryEntry]:
    """What replays did with a dead letter, oldest first."""
    rows = connection.execute(
        "SELECT replay_id, requested_by, outcome, attempt, code,"
        " topic || '/' || partition || '/' || \"offset\", updated_at FROM replay_records"
        " JOIN replays ON id = replay_id WHERE source_topic = %s AND source_partition = %s"
        " AND source_offset = %s ORDER BY replay_id",
        id_,
    )
    return [HistoryEntry(*row) for row in rows]
