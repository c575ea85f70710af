"""Faults of single parts of windows, which no sum of a cell shows: parts that nothing can have counted."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import sql

from streamflow.audit.problems import MOST_LISTED
from streamflow.core_schema import LAST_MOMENT
from streamflow.postgres.connections import Connection
from streamflow.postgres.windows.tables import WindowTable

# A window near the ends of the calendar may reach beyond them. Only a correction can tell of events that came
# too late, and of each event there is at most one part.
_CHECKS: Final = (
    (
        """
        part.window_end <> least(date_bin(%(pane)s * interval '1 ms', part.window_start, 'epoch')
                                 + %(pane)s * interval '1 ms', %(last moment)s)
        """,
        "window_end is {end}, which is not where that window ends",
    ),
    (
        "part.too_late > 0 AND (NOT part.late OR never_late.is_true)",
        "too_late is {too_late:,}, and {late}",
    ),
    (
        """
        least(part.counted, part.too_late) < 0 OR part.first_offset NOT BETWEEN 0 AND part.last_offset
        OR part.counted + part.too_late NOT BETWEEN 1 AND part.last_offset - part.first_offset + 1
        """,
        "{counted:,} counted and {too_late:,} too late, first_offset {first}, last_offset {last}: none is so",
    ),
)
_FAULTY: Final = """
SELECT part.window_start, part.window_end, part.counted, part.too_late, part.late, part.first_offset,
       part.last_offset, {checks}
  FROM {parts} AS part,
       (SELECT NOT %(late after)s AND coalesce(
                   (SELECT NOT known.late_after FROM window_tables AS known
                     WHERE known.table_name = %(parts)s), false) AS is_true) AS never_late
 WHERE part.origin_topic = %(topic)s AND part.partition = %(partition)s AND ({any})
 LIMIT {most}
"""
# Rows of a recreated topic are set aside under a name with an @. The topics of a stream may have had other
# names: what the loader has read is known to it, and another stream's topic is none of them.
_ELSEWHERE: Final = """
SELECT found.origin_topic, found.partition, found.record_topic, found.record_partition, found.number,
       found.is_of_origin
  FROM (SELECT part.origin_topic, part.partition, part.record_topic, part.record_partition,
               count(*) AS number,
               {origin} AS is_of_origin, {record} AS is_of_record
          FROM {parts} AS part GROUP BY 1, 2, 3, 4) AS found
 WHERE NOT found.is_of_origin OR NOT found.is_of_record
 ORDER BY 1, 2, 3, 4
 LIMIT {most}
"""
_IS_KNOWN: Final = """
CASE WHEN part.{topic} = %(own {topic})s
     THEN part.{partition} >= 0 AND part.{partition} < %(number of {partition})s
     ELSE part.{topic} ^@ (%(own {topic})s || '@')
          OR (part.{topic} <> ALL(%(others)s)
              AND EXISTS (SELECT FROM loader_positions AS known
                           WHERE (known.topic, known.partition) = (part.{topic}, part.{partition}))) END
"""
_NEVER: Final = "these windows were never declared with late_after"
_NO_CORRECTION: Final = "that is no correction, in which alone events can come too late"


class TopicsOfParts(NamedTuple):
    """What parts can be of.

    Attributes:
        partitions: the number of those of the stream's topic.
        record_partitions: as `partitions`, of its analytics topic.
        others: the topics that other streams use.
    """

    partitions: int
    record_partitions: int
    others: Sequence[str] = ()


class FaultyPart(NamedTuple):
    """A part of a window, and what is wrong with it."""

    start: datetime
    first: int
    last: int
    events: int
    what: str


def faulty_parts(
    connection: Connection, table: WindowTable, parameters: Mapping[str, Any]
) -> Iterator[FaultyPart]:
    """Of one source partition; `parameters` are those of its comparison."""
    conditions = [sql.SQL("({})").format(sql.SQL(condition)) for condition, _ in _CHECKS]
    query = sql.SQL(_FAULTY).format(
        parts=sql.Identifier(table.name),
        checks=sql.SQL(", ").join(conditions),
        any=sql.SQL(" OR ").join(conditions),
        most=sql.Literal(MOST_LISTED),
    )
    declared = {"late after": table.spec.late_after is not None, "last moment": LAST_MOMENT}
    for start, end, counted, too_late, late, first, last, *wrong in connection.execute(
        query, {**parameters, **declared}
    ):
        for is_wrong, (_, words) in zip(wrong, _CHECKS, strict=True):
            if is_wrong:
                what = words.format(
                    end=f"{end:%Y-%m-%dT%H:%M:%S.%fZ}",
                    counted=counted,
                    too_late=too_late,
                    late=_NEVER if late else _NO_CORRECTION,
                    first=first,
                    last=last,
                )
                yield FaultyPart(start, first, max(first, last), max(1, counted + too_late), what)


def parts_from_elsewhere(
    connection: Connection, table: WindowTable, topics: TopicsOfParts
) -> Iterator[tuple[int, str]]:
    """How many parts are of no partition of the stream's topics, and what they say; they are in the totals
    all the same."""
    stream = table.stream
    origin, record = (
        sql.SQL(_IS_KNOWN.format(topic=topic, partition=partition))
        for topic, partition in (
            ("origin_topic", "partition"),
            ("record_topic", "record_partition"),
        )
    )
    query = sql.SQL(_ELSEWHERE).format(
        parts=sql.Identifier(table.name),
        origin=origin,
        record=record,
        most=sql.Literal(MOST_LISTED),
    )
    own = {stream.topic, stream.analytics_topic}
    parameters = {
        "own origin_topic": stream.topic,
        "own record_topic": stream.analytics_topic,
        "others": [topic for topic in topics.others if topic not in own],
        "number of partition": topics.partitions,
        "number of record_partition": topics.record_partitions,
    }
    for (
        topic,
        partition,
        record_topic,
        record_partition,
        number,
        is_of_origin,
    ) in connection.execute(query, parameters):
        if is_of_origin:
            yield number, f"from {record_topic}[{record_partition}]"
        else:
            yield number, f"of {topic}[{partition}]"
