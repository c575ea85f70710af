"""Setting aside the rows of offsets that now mean other records.

An event's identity is (topic, partition, offset), so the records of a recreated topic, or of a log that
was truncated and grew again, would look like duplicates of the old ones. The old rows get another topic
name, one that no topic can have: ``user-events@SceY-kIZ…``.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from psycopg import sql

from streamflow.audit.completeness import outside, unpaired
from streamflow.audit.gap_ledger import Range
from streamflow.audit.outcomes import OUTCOMES, Counts, count_outcomes
from streamflow.audit.proofs import read_proofs
from streamflow.audit.window_ledger import acknowledged_differences
from streamflow.audit.windows.beginning import first_part
from streamflow.audit.windows.counts import reconcile
from streamflow.audit.windows.tables import Compared, count_table
from streamflow.flow import Partition
from streamflow.postgres import gaps
from streamflow.postgres.connections import Connection
from streamflow.postgres.state import EVERYTHING, columns_of, store
from streamflow.postgres.windows.schema import tables_of_windows
from streamflow.postgres.windows.tables import window_tables
from streamflow.records import MAX_OFFSET, Gap, GapCause, set_aside_name
from streamflow.stream import Stream
from streamflow.windows.progress import Progress, WindowProgress

_OWN: Final = ("topic", "partition", "offset")
_ORIGIN: Final = ("origin_topic", "origin_partition", "origin_offset")
_RECORD: Final = ("record_topic", "record_partition", "record_offset")
_COUNTED: Final = (
    "origin_topic",
    "partition",
    "first_offset",
)  # the first event of a window's part
_SOURCE: Final = ("source_topic", "source_partition", "source_offset")

# All columns that hold positions of a topic, besides those of the streams' own tables and of windows.
_POSITIONS: Final = (
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
    ("ignored_records", _OWN),
    ("erased_records", _OWN),
    ("replay_records", _SOURCE),
    ("replay_records", _OWN),
    ("replay_plan_letters", _SOURCE),
    ("gaps", ("topic", "partition", "first_offset")),
    ("window_differences", ("topic", "partition", "first_offset")),
)

# As if analytics had read everything and closed every window, up to the year 5138.
_END_OF_TIME: Final = 10**14
_ALL_CLOSED: Final = Progress.of_counts(MAX_OFFSET, MAX_OFFSET, _END_OF_TIME, ahead=0)

# How far the old log is known to have reached.
_KNOWN_END: Final = """
    SELECT greatest(
        (SELECT max(origin_offset) + 1 FROM notifications
         WHERE origin_topic = %(topic)s AND origin_partition = %(partition)s),
        (SELECT max(last_offset) + 1 FROM window_rows
         WHERE origin_topic = %(topic)s AND partition = %(partition)s),
        (SELECT max(source_offset) + 1 FROM dead_letters
         WHERE source_topic = %(topic)s AND source_partition = %(partition)s),
        (SELECT proved_through FROM audit_ledger
         WHERE topic = %(topic)s AND partition = %(partition)s),
        0)
"""


class Reuse(NamedTuple):
    """Offsets of a topic that now mean other records.

    Attributes:
        aside: the topic name that the old rows get.
        topic_id: of the present topic.
        since: by partition, the first offset that means another record. If the topic was recreated,
            these are its present partitions, and all offsets of others are included too.
        topic_id_before: the former id; empty if the log was only truncated.
    """

    topic: str
    aside: str
    topic_id: str
    cause: GapCause
    since: Mapping[int, int]
    topic_id_before: str = ""


def kept_ids(connection: Connection, group: str, topic: str) -> set[str]:
    """The ids of the topic that the loader has recorded with its positions."""
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
    most: dict[str, int] = {}
    for table, columns in _positions(connection, streams):
        query = sql.SQL("SELECT count(*) FROM {} AS kept WHERE {}").format(
            sql.Identifier(table), _meant(columns, reuse)
        )
        [(number,)] = connection.execute(query, _parameters(reuse))
        most[table] = max(most.get(table, 0), number)
    return {table: count for table, count in most.items() if count}


def set_aside(
    connection: Connection,
    streams: Sequence[Stream],
    reuse: Reuse,
    group: str,
    read_to: Mapping[str, Mapping[Partition, int]],
) -> None:
    """Renames the old rows, records unread old records as gaps, and moves the loader to the start of the
    new records. Call it in a transaction.

    Args:
        connection: in that transaction.
        streams: whose tables hold events.
        reuse: what is set aside.
        group: of the loader.
        read_to: how far each group, including the loader's, had read the old records, if known.
    """
    # A loader that is still storing a batch waits here, and is fenced afterwards.
    connection.execute(
        "SELECT FROM loader_positions WHERE group_name = %s AND topic = %s"
        " ORDER BY topic, partition FOR UPDATE",
        [group, reuse.topic],
    )
    unread = {
        reader: _unread(connection, reuse, positions) for reader, positions in read_to.items()
    }
    if reuse.cause == "truncated":
        connection.execute("SELECT FROM audit_ledger WHERE topic = %s FOR UPDATE", [reuse.topic])
    before = _proved_rows(connection, streams, reuse)
    for table, columns in _positions(connection, streams):
        connection.execute(
            sql.SQL("UPDATE {} AS kept SET {} = %(aside)s WHERE {}").format(
                sql.Identifier(table), sql.Identifier(columns[0]), _meant(columns, reuse)
            ),
            _parameters(reuse),
        )
        if reuse.cause == "recreated":
            # Rows derived from the new records that were loaded before this.
            connection.execute(
                sql.SQL("UPDATE {} SET {topic} = %s WHERE {topic} = %s").format(
                    sql.Identifier(table), topic=sql.Identifier(columns[0])
                ),
                [reuse.topic, set_aside_name(reuse.topic, reuse.topic_id)],
            )
    for stream in streams:
        if stream.mode == "upsert" and stream.topic == reuse.topic:
            # A row that was set aside had displaced earlier changes, which are the latest now.
            connection.execute(store(stream, columns_of(connection, stream), EVERYTHING))
    for reader, lost in unread.items():
        gaps.keep(connection, reader, lost)
    if reuse.cause == "recreated":
        _begin_again(connection, reuse, group)
    else:
        _step_back(connection, reuse, group)
        _lower_proofs(connection, reuse, before, _proved_rows(connection, streams, reuse))


def keep_underived(
    connection: Connection, stream: Stream, reuse: Reuse, validator: str, analytics: str
) -> None:
    """Keeps as gaps the old events that have no notification or are in no window: none will follow.

    Kafka deletes a group's offsets together with its topic, so only the tables can say which these are.
    Call it in the transaction that sets the rows of the stream's own topic aside, before `set_aside`.
    """
    rows = connection.execute(
        sql.SQL(
            "SELECT origin_partition, max(origin_offset) + 1 FROM {} WHERE origin_topic = %s"
            " GROUP BY 1 ORDER BY 1"
        ).format(sql.Identifier(stream.event_table)),
        [reuse.topic],
    ).fetchall()
    for partition, end in rows:
        if stream.notify is not None:
            missing = unpaired(connection, stream, partition, (0, MAX_OFFSET), {})
            alone = outside((row.offset for row in missing if row.what == "event"), ())
            _keep(connection, validator, reuse, partition, alone.ranges if alone else ())
        # Which ones were not counted is unknown, only how many.
        number = _uncounted(connection, stream, partition)
        _keep(connection, analytics, reuse, partition, [(end - number, end)] * (number > 0))


def _uncounted(connection: Connection, stream: Stream, partition: int) -> int:
    """The number of events that were not counted in some windows, as if all were closed. From which offset on
    windows with aggregates count is unknown by now: at most from that of their first part."""
    missing = [0]
    of_partition = (stream.topic, partition)
    if stream.event_counts is not None:
        compared = reconcile(connection, stream, partition, _ALL_CLOSED)
        known = acknowledged_differences(connection, of_partition)
        missing.append(compared.difference - sum(known.values()))
    for table in window_tables(stream):
        since = first_part(connection, table.name, of_partition)
        if since is not None:
            progress = WindowProgress(_END_OF_TIME, ahead=0, since=since)
            compared = count_table(connection, Compared(table, partition, progress, MAX_OFFSET, 0))
            known = acknowledged_differences(connection, of_partition, table.name)
            missing.append(compared.difference - sum(known.values()))
    return max(missing)


def _keep(
    connection: Connection, reader: str, reuse: Reuse, partition: int, lost: Sequence[Range]
) -> None:
    aside = [Gap(reuse.aside, partition, first, end, reuse.cause) for first, end in lost]
    gaps.keep(connection, reader, aside)


def _unread(connection: Connection, reuse: Reuse, read_to: Mapping[Partition, int]) -> list[Gap]:
    """The old records that a group had not read. Where they ended can no longer be looked up, so each
    partition gets a gap, of one offset if nothing more is known."""
    unread = []
    for (topic, partition), position in sorted(read_to.items()):
        since = reuse.since.get(partition)
        if topic != reuse.topic or (since is None and reuse.cause == "truncated"):
            continue
        [(end,)] = connection.execute(_KNOWN_END, {"topic": topic, "partition": partition})
        first = max(position, since or 0)
        unread.append(Gap(reuse.aside, partition, first, max(end, first + 1), reuse.cause))
    return unread


def _begin_again(connection: Connection, reuse: Reuse, group: str) -> None:
    for table in ("loader_positions", "audit_ledger"):
        rename = sql.SQL("UPDATE {} SET topic = %s WHERE topic = %s").format(sql.Identifier(table))
        connection.execute(rename, [reuse.aside, reuse.topic])
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
    """The outcomes of proved records in the database, by truncated partition."""
    if reuse.cause == "recreated":
        return {}
    table = next((stream.event_table for stream in streams if stream.topic == reuse.topic), None)
    return {
        number: count_outcomes(connection, (topic, number), (0, proof.through), table)
        for (topic, number), proof in read_proofs(connection).items()
        if topic == reuse.topic and number in reuse.since
    }


def _lower_proofs(
    connection: Connection, reuse: Reuse, before: Mapping[int, Counts], after: Mapping[int, Counts]
) -> None:
    """Subtracts what was set aside from the proved numbers. Rows that had vanished before are still
    reported: only a backup can bring them back."""
    known = read_proofs(connection)
    for number, kept in after.items():
        if kept == before[number]:
            continue
        counts = kept + (known[reuse.topic, number].counts - before[number])
        connection.execute(
            "UPDATE audit_ledger SET records = %s, stored = %s, dead_lettered = %s, duplicates = %s"
            " WHERE topic = %s AND partition = %s",
            [counts.total(), *(counts[outcome] for outcome in OUTCOMES), reuse.topic, number],
        )


def _positions(
    connection: Connection, streams: Sequence[Stream]
) -> list[tuple[str, tuple[str, str, str]]]:
    own = [(table, _ORIGIN) for stream in streams for table in stream.tables]
    windows = [
        (table, columns)
        for table in tables_of_windows(connection)
        for columns in (_COUNTED, _RECORD)
    ]
    return [*own, *windows, *_POSITIONS]


def _meant(columns: tuple[str, str, str], reuse: Reuse) -> sql.Composable:
    """The condition that a row's position now means another record."""
    topic, partition, offset = (sql.Identifier("kept", name) for name in columns)
    same = sql.SQL("{} = %(topic)s").format(topic)
    if reuse.cause == "recreated":
        return same
    return sql.SQL(
        "{same} AND EXISTS (SELECT FROM unnest(%(partitions)s::int[], %(since)s::bigint[])"
        " AS cut (partition, since) WHERE cut.partition = {partition} AND cut.since <= {offset})"
    ).format(same=same, partition=partition, offset=offset)


def _parameters(reuse: Reuse) -> dict[str, object]:
    return {
        "topic": reuse.topic,
        "aside": reuse.aside,
        "partitions": list(reuse.since),
        "since": list(reuse.since.values()),
    }
