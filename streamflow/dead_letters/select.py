"""Choosing dead letters, and reading them."""

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
_PAGE_BYTES: Final = 32 * 1024 * 1024  # of payload; a single larger one is a page of its own
_START: Final = 200  # bytes of a payload that a list shows


class Status(StrEnum):
    """Where a dead letter is in its life."""

    OPEN = "open"
    REPLAYING = "replaying"
    REPLAYED = "replayed"
    SUPERSEDED = "superseded"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters; each filter that is set narrows it.

    Attributes:
        codes: error codes.
        since: failed then or later (appended, where a letter does not say when it failed).
        until: failed before then.
        ids: positions of the records that failed.
        text: contained in the payload or in the message, as it is written; not in headers. Payloads
            are redacted: an address must be given hashed.
        loaded_until: loaded then or earlier, by the database's clock: what was there when somebody
            looked. Rows that were being loaded at that moment may count as either.
        statuses: any of these; all when empty.
        limit: the first so many, by partition and offset of the failed record.
    """

    codes: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    ids: tuple[Origin, ...] = ()
    text: str | None = None
    loaded_until: datetime | None = None
    statuses: tuple[Status, ...] = (Status.OPEN,)
    limit: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; filters that are not set are left out."""
        found = {
            "codes": list(self.codes),
            "since": self.since.isoformat() if self.since else None,
            "until": self.until.isoformat() if self.until else None,
            "ids": list(map(str, self.ids)),
            "text": self.text,
            "loaded_until": self.loaded_until.isoformat() if self.loaded_until else None,
            "statuses": [each.value for each in self.statuses],
            "limit": self.limit,
        }
        return {name: value for name, value in found.items() if value not in (None, [])}


class Letter(NamedTuple):
    """A dead letter, as a replay needs it.

    Attributes:
        id: position of the record that failed: the letter's own identity.
        identity: the origin under which a replay travels: the claimed one if it is that of another
            dead letter, else the failed record's own position. Headers are untrusted.
        is_read: whether the loader has passed the failed record.
        headers: those that the record came with, without StreamFlow's own.
        truncated: what was cut of it, if it was too large.
    """

    id: Origin
    identity: Origin
    error_code: str
    attempt: int
    status: Status
    is_read: bool
    key: bytes | None
    value: bytes | None
    headers: Headers
    truncated: Truncated | None = None


class Summary(NamedTuple):
    """A dead letter, as a list shows it; times are aware, `size` is the payload's, in bytes, and
    `start` its first 200 bytes."""

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
    """How many dead letters a selection holds, whatever its limit."""
    return sum(counts(connection, selection).values())


def counts(
    connection: Connection, selection: Selection, most: int | None = None
) -> dict[Status, int]:
    """How many dead letters of each status a selection holds, whatever its limit.

    Args:
        connection: where to look.
        selection: which ones.
        most: counts no further, so that a large table costs no more than that.
    """
    where, values = _conditions(selection)
    query = sql.SQL(
        "SELECT status, count(*) FROM (SELECT status FROM dead_letters WHERE {} LIMIT %(most)s)"
        " AS counted GROUP BY status"
    )
    rows = connection.execute(query.format(where), values | {"most": most})
    return {Status(status): number for status, number in rows}


def pages(connection: Connection, selection: Selection) -> Iterator[list[Origin]]:
    """The ids of a selection, in the order of the primary key, a page at a time."""
    where, values = _conditions(selection)
    after: Origin | None = None
    left = selection.limit
    while left is None or left > 0:
        behind = sql.SQL("")
        if after is not None:
            behind = sql.SQL(
                " AND (source_partition, source_offset, source_topic)"
                " > (%(after_partition)s, %(after_offset)s, %(after_topic)s)"
            )
            values |= {f"after_{name}": each for name, each in after._asdict().items()}
        query = sql.SQL(
            "SELECT source_topic, source_partition, source_offset,"
            " coalesce(octet_length(value), 0) FROM dead_letters WHERE {}{}"
            " ORDER BY source_partition, source_offset, source_topic LIMIT %(most)s"
        ).format(where, behind)
        values["most"] = PAGE if left is None else min(PAGE, left)
        rows = connection.execute(query, values).fetchall()
        page = within_page((Origin(*row[:3]), row[3]) for row in rows)
        if not page:
            return
        yield page
        after = page[-1]
        left = None if left is None else left - len(page)


def within_page(rows: Iterable[tuple[T, int]]) -> list[T]:
    """As many of these as fit into a page, by the bytes of each; at least one."""
    page: list[T] = []
    size = 0
    for each, length in rows:
        if page and size + length > _PAGE_BYTES:
            break
        page.append(each)
        size += length
    return page


# Whether a claimed origin is one is for the database to know: it is that of a letter too.
_LETTERS: Final = """
SELECT letter.source_topic, letter.source_partition, letter.source_offset,
       letter.origin_topic, letter.origin_partition, letter.origin_offset,
       EXISTS (SELECT FROM dead_letters AS first
                WHERE first.source_partition = letter.origin_partition
                  AND first.source_offset = letter.origin_offset
                  AND first.source_topic = letter.origin_topic),
       letter.error_code, letter.attempt, letter.status,
       EXISTS (SELECT FROM loader_positions AS reached
                WHERE reached.group_name = %(group)s AND reached.topic = letter.source_topic
                  AND reached.partition = letter.source_partition
                  AND reached.next_offset > letter.source_offset),
       letter.key, letter.value, letter.headers
  FROM dead_letters AS letter
 WHERE (source_topic, source_partition, source_offset) IN
       (SELECT * FROM unnest(%(topics)s::text[], %(partitions)s::int[], %(offsets)s::bigint[]))
   AND status = ANY(%(statuses)s)
 ORDER BY source_partition, source_offset, source_topic
"""


def read(
    connection: Connection,
    ids: Sequence[Origin],
    *,
    group: str,
    statuses: Sequence[Status],
    lock: bool = False,
) -> list[Letter]:
    """Letters by their ids, as far as they have one of these statuses still.

    Args:
        connection: in a transaction, if `lock`.
        ids: of the letters.
        group: of the loader.
        statuses: others are left out.
        lock: until the end of the transaction; leaves out what another one has locked.
    """
    values = arrays(ids) | {"group": group, "statuses": [each.value for each in statuses]}
    query = sql.SQL(_LETTERS) + sql.SQL(" FOR UPDATE OF letter SKIP LOCKED" if lock else "")
    return [_letter(row) for row in connection.execute(query, values)]


def _letter(row: tuple[Any, ...]) -> Letter:
    source, origin = Origin(*row[:3]), Origin(*row[3:6])
    is_known, code, attempt, status, is_read, key, value = row[6:13]
    headers = decoded(row[13])
    return Letter(
        source,
        origin if is_known else source,
        code,
        attempt,
        Status(status),
        is_read,
        key,
        value,
        [each for each in headers if not each[0].startswith(OWN_HEADER_PREFIXES)],
        truncation_of(headers),
    )


def decoded(headers: Sequence[Sequence[Any]]) -> Headers:
    """Headers from the form in which the table keeps them."""
    return [(str(name), None if value is None else b64decode(value)) for name, value in headers]


def statuses_of(connection: Connection, ids: Sequence[Origin]) -> dict[Origin, Status]:
    """The status of each of these letters; an unknown one is not there."""
    rows = connection.execute(
        "SELECT source_topic, source_partition, source_offset, status FROM dead_letters"
        " WHERE (source_topic, source_partition, source_offset) IN (SELECT * FROM"
        " unnest(%(topics)s::text[], %(partitions)s::int[], %(offsets)s::bigint[]))",
        arrays(ids),
    )
    return {Origin(*row[:3]): Status(row[3]) for row in rows}


def summaries(connection: Connection, selection: Selection) -> list[Summary]:
    """The selected dead letters without their whole payload, the latest first."""
    where, values = _conditions(selection)
    query = sql.SQL(
        "SELECT source_topic, source_partition, source_offset, origin_topic, origin_partition,"
        " origin_offset, error_code, status, attempt, stage, message,"
        " coalesce(failed_at, appended_at), octet_length(value), substring(value FOR %(start)s)"
        " FROM dead_letters WHERE {} ORDER BY {} DESC, source_partition, source_offset DESC"
        " LIMIT %(most)s"
    ).format(where, sql.SQL(_FAILED))
    rows = connection.execute(query, values | {"most": selection.limit, "start": _START})
    return [Summary(Origin(*row[:3]), Origin(*row[3:6]), *row[6:]) for row in rows]


_COLUMNS: Final = (
    "source_topic", "source_partition", "source_offset", "origin_topic", "origin_partition",
    "origin_offset", "record_topic", "record_partition", "record_offset", "error_code", "stage",
    "group_name", "exception", "message", "attempt", "redacted", "failed_at", "appended_at",
    "loaded_at", "status", "key", "value", "headers",
)  # fmt: skip


def full(connection: Connection, id_: Origin) -> dict[str, Any] | None:
    """Every column of a letter, by name; None where there is no such letter."""
    query = sql.SQL(
        "SELECT {} FROM dead_letters WHERE source_topic = %s AND source_partition = %s"
        " AND source_offset = %s"
    ).format(sql.SQL(", ").join(map(sql.Identifier, _COLUMNS)))
    row = connection.execute(query, id_).fetchone()
    return None if row is None else dict(zip(_COLUMNS, row, strict=True))


def arrays(ids: Sequence[Origin]) -> dict[str, Any]:
    """Ids as the parameters of an ``unnest``."""
    return {
        "topics": [each.topic for each in ids],
        "partitions": [each.partition for each in ids],
        "offsets": [each.offset for each in ids],
    }


# As two indexes have it.
_FAILED: Final = "coalesce(failed_at, appended_at, loaded_at)"


def _conditions(selection: Selection) -> tuple[sql.Composed, dict[str, Any]]:
    """The WHERE of a selection, and its parameters."""
    found: list[sql.Composable] = [sql.SQL("true")]
    values: dict[str, Any] = {}
    if len(selection.statuses) == 1:  # an equation lets the index give the order as well
        found.append(sql.SQL("status = %(status)s"))
        values["status"] = selection.statuses[0].value
    elif selection.statuses:
        found.append(sql.SQL("status = ANY(%(statuses)s)"))
        values["statuses"] = [each.value for each in selection.statuses]
    if selection.codes:
        found.append(sql.SQL("error_code = ANY(%(codes)s)"))
        values["codes"] = list(selection.codes)
    if selection.since is not None:
        found.append(sql.SQL(_FAILED) + sql.SQL(" >= %(since)s"))
        values["since"] = selection.since
    if selection.until is not None:
        found.append(sql.SQL(_FAILED) + sql.SQL(" < %(until)s"))
        values["until"] = selection.until
    if selection.ids:
        found.append(
            sql.SQL(
                "(source_topic, source_partition, source_offset) IN (SELECT * FROM"
                " unnest(%(topics)s::text[], %(partitions)s::int[], %(offsets)s::bigint[]))"
            )
        )
        values |= arrays(selection.ids)
    if selection.text is not None:
        found.append(
            sql.SQL(
                "(position(%(text)s IN value) > 0"
                " OR position(%(text)s IN convert_to(message, 'UTF8')) > 0)"
            )
        )
        values["text"] = selection.text.encode()
    if selection.loaded_until is not None:
        found.append(sql.SQL("loaded_at <= %(loaded_until)s"))
        values["loaded_until"] = selection.loaded_until
    return sql.SQL(" AND ").join(found), values
