"""Setting aside what is stored of offsets that mean other records now.

An event's identity is (topic, partition, offset), so the records of a recreated topic, or of a log
that was truncated and grew again, would be taken for duplicates of the old ones. The old rows keep
their identity under another topic name, which no topic can have: ``user-events@SceY-kIZ…``.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from psycopg import sql

from streamflow.audit.outcomes import count_outcomes
from streamflow.audit.proofs import Counts, read_proofs
from streamflow.flow import Partition
from streamflow.postgres import gaps
from streamflow.postgres.connections import Connection
from streamflow.records import Gap, GapCause, set_aside_name
from streamflow.stream import Stream

_OWN: Final = ("topic", "partition", "offset")
_ORIGIN: Final = ("origin_topic", "origin_partition", "origin_offset")
_RECORD: Final = ("record_topic", "record_partition", "record_offset")
_SOURCE: Final = ("source_topic", "source_partition", "source_offset")

# Wherever a position of a topic is kept, besides the streams' own tables.
_POSITIONS: Final = (
    ("window_counts", ("origin_topic", "partition", "first_offset")),
    ("window_counts", _RECORD),
    ("notifications", _ORIGIN),
    ("notifications", _RECORD),
    ("dead_letters", _SOURCE),
    ("dead_letters", _ORIGIN),
    ("dead_letters", _RECORD),
    ("replayed_events", _ORIGIN),
    ("replayed_events", _OWN),
    ("duplicates", _OWN),
    ("duplicates", _ORIGIN),
    ("refused_events", _OWN),
    ("replay_records", _SOURCE),
    ("replay_records", _OWN),
    ("replay_plan_letters", _SOURCE),
    ("gaps", ("topic", "partition", "first_offset")),
)

# How far the old log is known to have reached.
_KNOWN_END: Final = """
    SELECT greatest(
        (SELECT max(origin_offset) + 1 FROM notifications
         WHERE origin_topic = %(topic)s AND origin_partition = %(partition)s),
        (SELECT max(last_offset) + 1 FROM window_counts
         WHERE origin_topic = %(topic)s AND partition = %(partition)s),
        (SELECT max(source_offset) + 1 FROM dead_letters
         WHERE source_topic = %(topic)s AND source_partition = %(partition)s),
        (SELECT proved_through FROM audit_ledger
         WHERE topic = %(topic)s AND partition = %(partition)s),
        0)
"""


class Reuse(NamedTuple):
    """Offsets of a topic that mean other records now.

    Attributes:
        topic: its name.
        aside: the name that the old rows get.
        topic_id: of the topic that is there now.
        cause: recreated or truncated.
        since: by partition, the first offset that means another record; for a recreated topic of the
            partitions that it has now, and all offsets of others are meant, too.
        topic_id_before: that it had; empty where only the log was truncated.
    """

    topic: str
    aside: str
    topic_id: str
    cause: GapCause
    since: Mapping[int, int]
    topic_id_before: str = ""


def kept_ids(connection: Connection, group: str, topic: str) -> set[str]:
    """The ids of the topic that the loader's positions were kept with; empty where none was."""
    rows = connection.execute(
        "SELECT DISTINCT topic_id FROM loader_positions"
        " WHERE group_name = %s AND topic = %s AND topic_id IS NOT NULL",
        [group, topic],
    )
    return {topic_id for (topic_id,) in rows}


def affected_rows(
    connection: Connection, streams: Sequence[Stream], reuse: Reuse
) -> dict[str, int]:
    """How many rows `set_aside` would change, by table."""
    found: dict[str, int] = {}
    for table, columns in _positions(streams):
        query = sql.SQL("SELECT count(*) FROM {} AS kept WHERE {}").format(
            sql.Identifier(table), _meant(columns, reuse)
        )
        row = connection.execute(query, _parameters(reuse)).fetchone()
        found[table] = max(found.get(table, 0), row[0] if row else 0)
    return {table: count for table, count in found.items() if count}


def set_aside(
    connection: Connection,
    streams: Sequence[Stream],
    reuse: Reuse,
    group: str,
    read_to: Mapping[str, Mapping[Partition, int]],
) -> None:
    """Renames the old rows, keeps what was not read of the old records as gaps, and lets the loader
    begin where the new ones do.

    Args:
        connection: in a transaction: all of it, or nothing.
        streams: whose tables hold events.
        reuse: what is set aside.
        group: of the loader.
        read_to: how far each group, the loader's too, had read the old records, as far as is known.
    """
    # A loader that still has a batch in hand waits here, and is fenced then.
    connection.execute(
        "SELECT FROM loader_positions WHERE group_name = %s AND topic = %s"
        " ORDER BY topic, partition FOR UPDATE",
        [group, reuse.topic],
    )
    unread = {reader: _unread(connection, reuse, found) for reader, found in read_to.items()}
    if reuse.cause == "truncated":
        connection.execute("SELECT FROM audit_ledger WHERE topic = %s FOR UPDATE", [reuse.topic])
    before = _proved_rows(connection, streams, reuse)
    for table, columns in _positions(streams):
        connection.execute(
            sql.SQL("UPDATE {} AS kept SET {} = %(aside)s WHERE {}").format(
                sql.Identifier(table), sql.Identifier(columns[0]), _meant(columns, reuse)
            ),
            _parameters(reuse),
        )
        if reuse.cause == "recreated":
            # What was derived from the new records and loaded while the old name was still taken.
            connection.execute(
                sql.SQL("UPDATE {} SET {topic} = %s WHERE {topic} = %s").format(
                    sql.Identifier(table), topic=sql.Identifier(columns[0])
                ),
                [reuse.topic, set_aside_name(reuse.topic, reuse.topic_id)],
            )
    for reader, lost in unread.items():
        gaps.keep(connection, reader, lost)
    if reuse.cause == "recreated":
        _begin_again(connection, reuse, group)
    else:
        _step_back(connection, reuse, group)
        _lower_proofs(connection, reuse, before, _proved_rows(connection, streams, reuse))


# Events that were loaded and never notified, as ranges of neighbours.
_UNNOTIFIED: Final = """
SELECT origin_partition, min(origin_offset), max(origin_offset) + 1
  FROM (SELECT origin_partition, origin_offset, origin_offset - row_number() OVER
               (PARTITION BY origin_partition ORDER BY origin_offset) AS island
          FROM {table} AS event
         WHERE origin_topic = %(topic)s
           AND NOT EXISTS (SELECT FROM notifications AS note
                            WHERE note.origin_partition = event.origin_partition
                              AND note.origin_offset = event.origin_offset
                              AND note.origin_topic = event.origin_topic)) AS alone
 GROUP BY origin_partition, island ORDER BY 1, 2
"""
# How many events of a partition no window counts, and where the partition ended.
_UNCOUNTED: Final = """
SELECT origin_partition, count(*) - coalesce((SELECT sum(count) FROM window_counts
          WHERE origin_topic = %(topic)s AND partition = origin_partition), 0)::bigint,
       max(origin_offset) + 1
  FROM {table} AS event WHERE origin_topic = %(topic)s GROUP BY origin_partition ORDER BY 1
"""


def keep_underived(
    connection: Connection, stream: Stream, reuse: Reuse, validator: str, analytics: str
) -> None:
    """Keeps as gaps what validator and analytics had not made of the old events: nobody will any more.
    Kafka deletes a group's offsets together with the topic, so the tables are what tells.

    Args:
        connection: in the transaction that sets the old rows aside, before it does.
        stream: whose own topic was recreated.
        reuse: what is set aside.
        validator: group of the validator.
        analytics: group of the workers that count windows.
    """
    table = sql.Identifier(stream.table)
    parameters = {"topic": reuse.topic}
    if stream.notify is not None:
        rows = connection.execute(sql.SQL(_UNNOTIFIED).format(table=table), parameters)
        lost = [
            Gap(reuse.aside, partition, first, end, reuse.cause) for partition, first, end in rows
        ]
        gaps.keep(connection, validator, lost)
    if stream.windows is not None:
        rows = connection.execute(sql.SQL(_UNCOUNTED).format(table=table), parameters)
        # Which of them were not counted is not known, only how many.
        lost = [
            Gap(reuse.aside, partition, end - missing, end, reuse.cause)
            for partition, missing, end in rows
            if missing > 0
        ]
        gaps.keep(connection, analytics, lost)


def _unread(connection: Connection, reuse: Reuse, read_to: Mapping[Partition, int]) -> list[Gap]:
    """What a group had not read of the old records. Nobody can ask any more where they ended, so
    there is a gap for each partition, of one offset where no more is known."""
    found = []
    for (topic, partition), position in sorted(read_to.items()):
        since = reuse.since.get(partition)
        if topic != reuse.topic or (since is None and reuse.cause == "truncated"):
            continue
        row = connection.execute(_KNOWN_END, {"topic": topic, "partition": partition}).fetchone()
        first = max(position, since or 0)
        end = max(row[0] if row else 0, first + 1)
        found.append(Gap(reuse.aside, partition, first, end, reuse.cause))
    return found


def _begin_again(connection: Connection, reuse: Reuse, group: str) -> None:
    for table in ("loader_positions", "audit_ledger"):
        connection.execute(
            sql.SQL("UPDATE {} SET topic = %s WHERE topic = %s").format(sql.Identifier(table)),
            [reuse.aside, reuse.topic],
        )
    connection.execute(
        "INSERT INTO loader_positions (group_name, topic, partition, topic_id)"
        " SELECT %s, %s, unnest(%s::int[]), %s",
        [group, reuse.topic, sorted(reuse.since), reuse.topic_id],
    )


def _step_back(connection: Connection, reuse: Reuse, group: str) -> None:
    parameters = _parameters(reuse) | {"group": group, "topic_id": reuse.topic_id}
    connection.execute(
        "UPDATE loader_positions AS kept SET next_offset = cut.since, leader_epoch = NULL,"
        " topic_id = %(topic_id)s"
        " FROM unnest(%(partitions)s::int[], %(since)s::bigint[]) AS cut (partition, since)"
        " WHERE group_name = %(group)s AND kept.topic = %(topic)s"
        " AND kept.partition = cut.partition AND kept.next_offset > cut.since",
        parameters,
    )
    connection.execute(
        "UPDATE audit_ledger AS kept SET proved_through = cut.since,"
        " windows_proved_through = least(kept.windows_proved_through, cut.since)"
        " FROM unnest(%(partitions)s::int[], %(since)s::bigint[]) AS cut (partition, since)"
        " WHERE kept.topic = %(topic)s AND kept.partition = cut.partition"
        " AND kept.proved_through > cut.since",
        parameters,
    )


def _proved_rows(
    connection: Connection, streams: Sequence[Stream], reuse: Reuse
) -> dict[int, Counts]:
    """The outcomes that the database has of what is proved, by partition that was truncated."""
    if reuse.cause == "recreated":
        return {}
    table = next((stream.table for stream in streams if stream.topic == reuse.topic), None)
    found = read_proofs(connection)
    return {
        number: count_outcomes(connection, topic, number, 0, proof.through, event_table=table)
        for (topic, number), proof in found.items()
        if topic == reuse.topic and number in reuse.since
    }


def _lower_proofs(
    connection: Connection, reuse: Reuse, before: Mapping[int, Counts], after: Mapping[int, Counts]
) -> None:
    """Takes what was set aside out of the numbers of what is proved. Rows that had vanished before
    are still missed, for nothing but a backup brings them back."""
    known = read_proofs(connection)
    for number, kept in after.items():
        if kept == before[number]:
            continue
        counts = kept + (known[reuse.topic, number].counts - before[number])
        connection.execute(
            "UPDATE audit_ledger SET records = %s, stored = %s, dead_lettered = %s, duplicates = %s"
            " WHERE topic = %s AND partition = %s",
            [
                counts.total(),
                counts["stored"],
                counts["dead_lettered"],
                counts["duplicate"],
                reuse.topic,
                number,
            ],
        )


def _positions(streams: Sequence[Stream]) -> list[tuple[str, tuple[str, str, str]]]:
    return [*((stream.table, _ORIGIN) for stream in streams), *_POSITIONS]


def _meant(columns: tuple[str, str, str], reuse: Reuse) -> sql.Composable:
    """Whether a row's position is one of those that mean other records now."""
    topic, partition, offset = (sql.Identifier("kept", name) for name in columns)
    same = sql.SQL("{} = %(topic)s").format(topic)
    if reuse.cause == "recreated":
        return same
    return sql.SQL(
        "{same} AND EXISTS (SELECT FROM unnest(%(partitions)s::int[], %(since)s::bigint[])"
        " AS cut (partition, since) WHERE cut.partition = {partition} AND cut.since <= {offset})"
    ).format(same=same, partition=partition, offset=offset)


def _parameters(reuse: Reuse) -> dict[str, object]:
    partitions = sorted(reuse.since)
    return {
        "topic": reuse.topic,
        "aside": reuse.aside,
        "partitions": partitions,
        "since": [reuse.since[partition] for partition in partitions],
    }
