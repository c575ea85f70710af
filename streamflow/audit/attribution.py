"""Which streams the problems of a topic are about, where several streams share it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from streamflow.audit.problems import Problem, ProblemKind
from streamflow.audit.report import PartitionAudit
from streamflow.kafka.reader import Scanner
from streamflow.postgres.connections import Connection
from streamflow.records import ORIGIN_HEADER, Origin, headers_of, last_header
from streamflow.stream import Stream

# A problem of one of these kinds names records; that of another is about the topic itself.
_OF_RECORDS: Final = frozenset(
    {
        ProblemKind.MISSING,
        ProblemKind.TWICE,
        ProblemKind.NOT_IN_KAFKA,
        ProblemKind.OTHER_RECORD,
        ProblemKind.NO_EVENT,
    }
)
_MOST_READ: Final = 20  # problems of a partition whose records are read again
_ORIGINS: Final = """
    SELECT origin_topic FROM window_rows
    WHERE record_topic = %(topic)s AND record_partition = %(partition)s
      AND record_offset >= %(first)s AND record_offset < %(end)s
  UNION
    SELECT origin_topic FROM notifications
    WHERE record_topic = %(topic)s AND record_partition = %(partition)s
      AND record_offset >= %(first)s AND record_offset < %(end)s
  UNION
    SELECT origin_topic FROM dead_letters
    WHERE record_topic = %(topic)s AND record_partition = %(partition)s
      AND record_offset >= %(first)s AND record_offset < %(end)s
"""

Owners = Mapping[str, tuple[str, ...]]


def owners(streams: Sequence[Stream]) -> Owners:
    """The names of the streams that use a topic, by topic."""
    names: dict[str, list[str]] = defaultdict(list)
    for stream in streams:
        for topic in dict.fromkeys(stream.topic_names):
            names[topic].append(stream.name)
    return {topic: tuple(users) for topic, users in names.items()}


def attribute(
    connection: Connection, scanner: Scanner, ledger: PartitionAudit, owned: Owners
) -> None:
    """Finds out which streams the ledger's problems are about by the origins of the records. What stays
    unknown is about every stream that uses the topic."""
    if len(owned.get(ledger.topic, ())) < 2:  # noqa: PLR2004
        return
    read = 0
    for place, problem in enumerate(ledger.problems):
        if problem.kind not in _OF_RECORDS or problem.offset is None:
            continue
        topics = _origins_in_rows(connection, ledger, problem)
        if not topics and read < _MOST_READ:
            read += 1
            topics = _origins_in_kafka(scanner, ledger, problem)
        names = {name for topic in topics for name in owned.get(topic, ())}
        if names and names <= set(owned[ledger.topic]):
            ledger.problems[place] = replace(problem, streams=tuple(sorted(names)))


def _origins_in_rows(connection: Connection, ledger: PartitionAudit, problem: Problem) -> set[str]:
    first, end = _range(problem)
    parameters = {"topic": ledger.topic, "partition": ledger.partition, "first": first, "end": end}
    return {topic for (topic,) in connection.execute(_ORIGINS, parameters)}


def _origins_in_kafka(scanner: Scanner, ledger: PartitionAudit, problem: Problem) -> set[str]:
    """By the records' headers. Whoever forges one can move a problem to another stream, and not hide it."""
    records = scanner.records(ledger.key, *_range(problem))
    origins = (Origin.parse(last_header(headers_of(record), ORIGIN_HEADER)) for record in records)
    return {origin.topic for origin in origins if origin is not None}


def _range(problem: Problem) -> tuple[int, int]:
    first = problem.offset or 0
    return first, problem.end_offset or first + 1
