"""Selecting dead letters and reading them: for lists, for plans and replays, and one in full.

A `Selection` means the same everywhere: dashboard, command line and Dagster job build it with
`selection_parser.make_selection`, and all queries use the one condition made from it here.
"""

from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeVar

from psycopg import sql

from streamflow.dead_letter_records import Truncated, truncation_of
from streamflow.postgres.connections import Connection
from streamflow.records import OWN_HEADER_PREFIXES, Headers, Origin

T = TypeVar("T")

PAGE: Final = 500  # dead letters
MOST_COUNTED: Final = 100_000  # of those that match: counting stops just past it
BEFORE_ALL: Final = Origin("", -1, -1)  # in the order of the primary key
_PAGE_BYTES: Final = 32 * 1024 * 1024  # of values; a larger one is a page of its own
_START: Final = 200  # bytes of a value that a list shows
_WHOLE: Final = 2**30  # bytes: PostgreSQL stores no larger value
_AMONG_IDS: Final = (
    "(source_topic, source_partition, source_offset) IN (SELECT * FROM"
    " unnest(%(topics)s::text[], %(partitions)s::int[], %(offsets)s::bigint[]))"
)
# Of the stream's own topic or, in a derived one, which streams may share, of records made from its events.
# Behind the "@" is what tells a set-aside topic from its successor.
_OF_STREAM: Final = """(
    split_part(source_topic, '@', 1) = %(stream)s
    OR split_part(source_topic, '@', 1) = ANY(%(derived)s::text[])
       AND split_part(origin_topic, '@', 1) = %(stream)s)"""
# As two indexes have it.
_FAILED: Final = "coalesce(failed_at, appended_at, loaded_at)"


class Status(StrEnum):
    """Of a dead letter; the package's docstring explains them."""

    OPEN = "open"
    REPLAYING = "replaying"
    REPLAYED = "replayed"
    SUPERSEDED = "superseded"
    QUARANTINED = "quarantined"
    ERASED = "erased"


class SourceStream(NamedTuple):
    """The stream that the failed records are of, by its topics."""

    topic: str
    derived: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters; all filters that are set must match.

    Attributes:
        since: failed at or after this time (appended, where a dead letter does not say when it failed).
        until: failed before this time.
        ids: positions of the records that failed.
        stream: the stream that the failed records are of; all when None.
        texts: any of these is contained in the value or in the message, case-sensitive; headers are not
            searched. Values are redacted: an address must be given hashed, under each of the keys.
        loaded_until: loaded at or before this time, by the database's clock: what a list read then
            could show. Rows whose load was not committed yet may count as either.
        statuses: any of these; all when empty.
        limit: at most so many, by partition and offset of the failed record.
    """

    codes: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    ids: tuple[Origin, ...] = ()
    stream: SourceStream | None = None
    texts: tuple[str, ...] = ()
    loaded_until: datetime | None = None
    statuses: tuple[Status, ...] = (Status.OPEN,)
    limit: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; filters that are not set are left out."""
        filters = {
            "codes": list(self.codes),
            "since": self.since.isoformat() if self.since else None,
            "until": self.until.isoformat() if self.until else None,
            "ids": list(map(str, self.ids)),
            "topic": self.stream.topic if self.stream else None,
            "texts": list(self.texts),
            "loaded_until": self.loaded_until.isoformat() if self.loaded_until else None,
            "statuses": [status.value for status in self.statuses],
            "limit": self.limit,
        }
        return {name: value for name, value in filters.items() if value not in (None, [])}


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter in full. Its addresses were hashed before it was written.

    Attributes:
        id: position of the record that failed: the dead letter's own identity.
        origin: the origin that the record claims. Headers are untrusted.
        identity: the origin under which a replay travels: the claimed one if it is that of another
            dead letter, else `id`.
        record: position of the dead letter itself.
        failed_at: None where the dead letter does not say.
        is_read: whether the loader has passed the failed record.
        value: at most as many bytes as were asked for.
        size: of the whole value in bytes; None where there is no value.
    """

    id: Origin
    origin: Origin
    identity: Origin
    record: Origin
    status: Status
    error_code: str
    stage: str
    group_name: str
    exception: str
    message: str
    attempt: int
    redacted: bool
    failed_at: datetime | None
    appended_at: datetime | None
    loaded_at: datetime
    is_read: bool
    key: bytes | None
    value: bytes | None
    size: int | None
    headers: Headers

    @property
    def original_headers(self) -> Headers:
        """Those that the record came with, without StreamFlow's own."""
        return [header for header in self.headers if not header[0].startswith(OWN_HEADER_PREFIXES)]

    @property
    def pieces(self) -> list[bytes | None]:
        """Whatever of it may name a person."""
        headers = [piece for name, value in self.headers for piece in (name.encode(), value)]
        texts = (self.message, self.stage, self.exception, self.group_name)
        return [self.key, self.value, *headers, *map(str.encode, texts)]

    @property
    def truncated(self) -> Truncated | None:
        """What was cut off a record that was too large."""
        return truncation_of(self.headers)


class DeadLetterSummary(NamedTuple):
    """A dead letter as a list shows it; `size` is that of the value, in bytes, and `start` its first
    200 bytes."""

    id: Origin
    origin: Origin
    error_code: str
    status: str
    attempt: int
    stage: str
    message: str
    failed_at: datetime | None
    size: int | None
    start: bytes | None = None


def count(connection: Connection, selection: Selection) -> int:
    """How many dead letters match, whatever the limit; at most one more than `MOST_COUNTED`."""
    return sum(counts(connection, selection, MOST_COUNTED + 1).values())


def counts(connection: Connection, selection: Selection, most: int) -> dict[Status, int]:
    """How many dead letters of each status match, whatever the limit. Counts no more than `most`, to
    bound the cost of a large table."""
    where, values = conditions(selection)
    query = sql.SQL(
        "SELECT status, count(*) FROM (SELECT status FROM dead_letters WHERE {} LIMIT %(most)s)"
        " AS counted GROUP BY status"
    )
    rows = connection.execute(query.format(where), values | {"most": most})
    return {Status(status): number for status, number in rows}


def pages(connection: Connection, selection: Selection) -> Iterator[list[Origin]]:
    """The ids of the dead letters that match, in the order of the primary key, page by page."""
    where, values = conditions(selection)
    query = sql.SQL(
        "SELECT source_topic, source_partition, source_offset, coalesce(octet_length(value), 0)"
        " FROM dead_letters WHERE {} AND (source_partition, source_offset, source_topic)"
        " > (%(partition)s::int, %(offset)s::bigint, %(topic)s::text)"
        " ORDER BY source_partition, source_offset, source_topic LIMIT %(most)s"
    ).format(where)
    after = BEFORE_ALL
    left = selection.limit
    while left is None or left > 0:
        most = PAGE if left is None else min(PAGE, left)
        rows = connection.execute(query, values | after._asdict() | {"most": most})
        page = within_page((Origin(*row[:3]), row[3]) for row in rows)
        if not page:
            return
        yield page
        after = page[-1]
        left = None if left is None else left - len(page)


def within_page(rows: Iterable[tuple[T, int]]) -> list[T]:
    """As many rows as fit into a page by their size in bytes; at least one."""
    page: list[T] = []
    size = 0
    for row, length in rows:
        if page and size + length > _PAGE_BYTES:
            break
        page.append(row)
        size += length
    return page


# Columns as the fields of `DeadLetter` from `status` on. Only the database knows whether a claimed origin
# is one: then a dead letter has it as its id.
_DEAD_LETTERS: Final = """
SELECT letter.source_topic, letter.source_partition, letter.source_offset,
       letter.origin_topic, letter.origin_partition, letter.origin_offset,
       letter.record_topic, letter.record_partition, letter.record_offset,
       EXISTS (SELECT FROM dead_letters AS first
                WHERE (first.source_topic, first.source_partition, first.source_offset)
                    = (letter.origin_topic, letter.origin_partition, letter.origin_offset)),
       letter.status, letter.error_code, letter.stage, letter.group_name, letter.exception,
       letter.message, letter.attempt, letter.redacted, letter.failed_at, letter.appended_at,
       letter.loaded_at,
       EXISTS (SELECT FROM loader_positions AS reached
                WHERE (reached.group_name, reached.topic, reached.partition)
                    = (%(group)s, letter.source_topic, letter.source_partition)
                  AND reached.next_offset > letter.source_offset),
       letter.key, substring(letter.value FOR %(most_bytes)s), octet_length(letter.value),
       letter.headers
  FROM dead_letters AS letter
 WHERE {} AND status = ANY(%(statuses)s)
 ORDER BY source_partition, source_offset, source_topic
"""


def read(
    connection: Connection,
    ids: Sequence[Origin],
    *,
    group: str,
    statuses: Iterable[Status] = Status,
    lock: bool = False,
    most_bytes: int = _WHOLE,
) -> list[DeadLetter]:
    """Dead letters by their ids, those that have one of these statuses.

    Args:
        connection: in a transaction, if `lock`.
        ids: of the dead letters.
        group: of the loader.
        statuses: any of these.
        lock: until the end of the transaction; skips rows that another transaction has locked.
        most_bytes: of a value.
    """
    values = arrays(ids) | {
        "group": group,
        "statuses": [status.value for status in statuses],
        "most_bytes": most_bytes,
    }
    query = sql.SQL(_DEAD_LETTERS).format(sql.SQL(_AMONG_IDS))
    query += sql.SQL(" FOR UPDATE OF letter SKIP LOCKED" if lock else "")
    return [_dead_letter(row) for row in connection.execute(query, values)]


def _dead_letter(row: tuple[Any, ...]) -> DeadLetter:
    id_, origin, record = Origin(*row[:3]), Origin(*row[3:6]), Origin(*row[6:9])
    is_known, status, *fields, encoded = row[9:]
    fields.append([(name, None if value is None else b64decode(value)) for name, value in encoded])
    return DeadLetter(id_, origin, origin if is_known else id_, record, Status(status), *fields)


def statuses_of(connection: Connection, ids: Sequence[Origin]) -> dict[Origin, Status]:
    """Unknown ids are left out."""
    query = sql.SQL(
        "SELECT source_topic, source_partition, source_offset, status FROM dead_letters WHERE {}"
    ).format(sql.SQL(_AMONG_IDS))
    return {Origin(*row[:3]): Status(row[3]) for row in connection.execute(query, arrays(ids))}


def summaries(connection: Connection, selection: Selection) -> list[DeadLetterSummary]:
    """The dead letters that match, newest first, with only the start of each value."""
    where, values = conditions(selection)
    query = sql.SQL(
        "SELECT source_topic, source_partition, source_offset, origin_topic, origin_partition,"
        " origin_offset, error_code, status, attempt, stage, message,"
        " coalesce(failed_at, appended_at), octet_length(value), substring(value FOR %(start)s)"
        " FROM dead_letters WHERE {} ORDER BY {} DESC, source_partition, source_offset DESC"
        " LIMIT %(most)s"
    ).format(where, sql.SQL(_FAILED))
    rows = connection.execute(query, values | {"most": selection.limit, "start": _START})
    return [DeadLetterSummary(Origin(*row[:3]), Origin(*row[3:6]), *row[6:]) for row in rows]


def arrays(ids: Sequence[Origin]) -> dict[str, Any]:
    """Ids as the parameters of an ``unnest``."""
    return {
        "topics": [id_.topic for id_ in ids],
        "partitions": [id_.partition for id_ in ids],
        "offsets": [id_.offset for id_ in ids],
    }


def conditions(selection: Selection) -> tuple[sql.Composed, dict[str, Any]]:
    """The WHERE clause and its parameters."""
    statuses = [status.value for status in selection.statuses]
    filters = {
        # An equation lets the index give the order as well.
        "status = %(status)s": len(statuses) == 1,
        "status = ANY(%(statuses)s)": len(statuses) > 1,
        "error_code = ANY(%(codes)s)": selection.codes,
        f"{_FAILED} >= %(since)s": selection.since,
        f"{_FAILED} < %(until)s": selection.until,
        _AMONG_IDS: selection.ids,
        _OF_STREAM: selection.stream,
        "EXISTS (SELECT FROM unnest(%(texts)s::bytea[]) AS text WHERE position(text IN value) > 0"
        " OR position(text IN convert_to(message, 'UTF8')) > 0)": selection.texts,
        "loaded_at <= %(loaded_until)s": selection.loaded_until,
    }
    values = arrays(selection.ids) | {
        "status": statuses[0] if statuses else None,
        "statuses": statuses,
        "codes": list(selection.codes),
        "since": selection.since,
        "until": selection.until,
        "stream": selection.stream.topic if selection.stream else None,
        "derived": list(selection.stream.derived) if selection.stream else [],
        "texts": [text.encode() for text in selection.texts],
        "loaded_until": selection.loaded_until,
    }
    conditions = ["true", *(condition for condition, is_set in filters.items() if is_set)]
    return sql.SQL(" AND ").join(map(sql.SQL, conditions)), values
