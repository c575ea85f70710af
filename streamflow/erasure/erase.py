"""Plans and applies an erasure. Killed at any moment, the next run of the same subject finishes it."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from streamflow import addresses
from streamflow.aggregates.values import shortened
from streamflow.dead_letters import select
from streamflow.dead_letters.plan import redacted
from streamflow.dead_letters.select import DeadLetter, Selection
from streamflow.erasure.certificate import Certificate, read_certificate, with_kafka
from streamflow.errors import ConfigurationError, Unavailable, UsageError
from streamflow.postgres import erasing
from streamflow.postgres.connections import LOCK_TIMEOUT, WHOLE_TABLES_TIMEOUT, Connection, session
from streamflow.postgres.erasing import Erased, Positions
from streamflow.postgres.existing_tables import existing_columns
from streamflow.postgres.forgotten import (
    USER,
    Forgotten,
    Kind,
    assignments,
    event_blanks,
    hashes_of,
    parameters,
    with_lifted,
)
from streamflow.postgres.partitions import leaves, remove_old_versions, table_exists
from streamflow.postgres.sessions.forgetting import erase_sessions
from streamflow.postgres.sessions.tables import session_tables
from streamflow.postgres.tables import NOTIFICATIONS, Column
from streamflow.postgres.windows.forgetting import erase_windows
from streamflow.postgres.windows.given_up import undeclared_tables
from streamflow.postgres.windows.naming import names_person, naming_columns
from streamflow.postgres.windows.tables import window_tables
from streamflow.privacy import Hasher, is_hashed
from streamflow.registry import hasher_for
from streamflow.settings import Settings
from streamflow.stream import Stream

_LOCK: Final = 0x5F10_F063
_SEARCHED: Final = ("text", "character varying", "jsonb")

_ERASE_EVENTS: Final = sql.SQL("""
WITH "their events" AS MATERIALIZED (
    SELECT origin_topic, origin_partition, origin_offset, {time}, appended_at
      FROM {table} WHERE {match}
), "noted events" AS (
    INSERT INTO erased_records (erasure_id, place, topic, partition, "offset", appended_at)
    SELECT %(erasure_id)s, 'events', origin_topic, origin_partition, origin_offset, appended_at
      FROM "their events"
    ON CONFLICT DO NOTHING
)
UPDATE {table} AS kept SET {blanks} FROM "their events" AS theirs
 WHERE (kept.origin_partition, kept.origin_offset, kept.origin_topic, kept.{time})
     = (theirs.origin_partition, theirs.origin_offset, theirs.origin_topic, theirs.{time})
""")
# Notifications that name a subject themselves: retention may have dropped their events.
_NAMING: Final = {
    Kind.USER: sql.SQL("""
SELECT %(erasure_id)s::bigint AS erasure_id, kept.* FROM notifications AS kept
 WHERE "user" = ANY(%(names)s)
"""),
    Kind.ADDRESS: sql.SQL("""
SELECT %(erasure_id)s::bigint AS erasure_id, kept.* FROM notifications AS kept
 WHERE message ~ %(pattern)s OR "user" ~ %(pattern)s
"""),
}


class Subject(NamedTuple):
    """Who is to be forgotten. The name of a user is known only to the process that was given it."""

    kind: Kind
    hashes: tuple[str, ...]
    name: str | None = None


def parse_subject(settings: Settings, streams: Sequence[Stream], kind: Kind, text: str) -> Subject:
    """Raises UsageError for what is neither an address nor a hash, nor a name."""
    if kind is Kind.ADDRESS:
        text = text.strip()
    data = text.encode("utf-8", "replace")
    if not text or "\0" in text or data.decode() != text:
        raise UsageError(
            "the subject is empty, or not valid UTF-8 without NUL: give an address, a hash or --user NAME"
        )
    if kind is Kind.ADDRESS and not is_hashed(text):
        spans = list(addresses.find(data))
        if not spans:
            raise UsageError(
                "this is neither an e-mail address nor a hash of 64 hexadecimal digits: name a user by "
                "--user NAME"
            )
        if spans != [(0, len(data))]:
            # The hash of the whole text is nobody's.
            raise UsageError(
                "this is more than one e-mail address: give the address alone, without a name, angle "
                "brackets, mailto: or a dot at its end"
            )
    hashes = hashes_of(hasher_for(settings, streams), kind, text)
    return Subject(kind, hashes, text if kind is Kind.USER else None)


def certified(file: Path) -> list[Subject]:
    """The subjects of a file of certificates, one after the other. Raises UsageError for anything else."""
    subjects: list[Subject] = []
    try:
        text = file.read_text("utf-8").strip()
        while text or not subjects:
            content, end = json.JSONDecoder().raw_decode(text)
            subjects.append(_subject_of(content))
            text = text[end:].lstrip()
    except (OSError, ValueError, RecursionError):
        # What the file holds is not quoted.
        raise UsageError(
            f"{file} does not hold certificates, as `streamflow forget --apply --json` prints them"
        ) from None
    return subjects


def _subject_of(certificate: Any) -> Subject:
    """Raises ValueError if it is none. Without `finished_at` it only shows what would be erased."""
    match certificate:
        case {"kind": str(kind), "hashes": [_, *_] as hashes, "finished_at": str()}:
            if all(isinstance(hashed, str) and is_hashed(hashed) for hashed in hashes):
                return Subject(Kind(kind), tuple(hashes))
    raise ValueError("not a certificate")


def listed(settings: Settings) -> list[Subject]:
    """All subjects on the list. Raises UsageError if it is empty: it may not have been restored."""
    with session(settings, "forget") as connection:
        rows = connection.execute(
            "SELECT kind, hashes FROM erasures WHERE hashes <> '{}' ORDER BY id"
        ).fetchall()
    if not rows:
        raise UsageError("nobody is on the list of forgotten subjects")
    return [Subject(Kind(kind), tuple(hashes)) for kind, hashes in rows]


def plan(
    settings: Settings, streams: Sequence[Stream], subject: Subject, *, requested_by: str
) -> Certificate:
    """What `apply` would still erase: all of it is done, and rolled back. Raises as `apply`."""
    with _alone(settings) as connection:
        with connection.transaction(force_rollback=True):
            run = _Erasure.begin(connection, settings, streams, subject, requested_by)
            run.count_anew()
            run.erase_events()
            run.erase_derived()
            found = run.read_certificate()
        return with_kafka(settings, connection, streams, found)


def apply(
    settings: Settings, streams: Sequence[Stream], subject: Subject, *, requested_by: str
) -> Certificate:
    """Erases all that is stored of a subject.

    1. put the subject on the list, and wait for loaders that may not have seen it;
    2. in one transaction: empty the events, note their positions, remove rollups that name the subject;
    3. wait for loaders again; in one transaction: empty what was derived from the events, dead letters,
       rows of windows and what else holds the subject;
    4. remove the rows' old versions from the tables' files;
    5. store the certificate: of all that was erased since the last one, by runs that were killed as well.

    Raises:
        ConfigurationError: a stream's windows count by what names the subject, or a column cannot be
            emptied.
        Unavailable: broker or database does not answer, or another erasure runs: run it again.
    """
    with _alone(settings) as connection:
        with connection.transaction():
            run = _Erasure.begin(connection, settings, streams, subject, requested_by)
        _wait_for_loaders(connection)
        with connection.transaction():
            run.erase_events()
        _wait_for_loaders(connection)
        with connection.transaction():
            run.erase_derived()
        found = run.read_certificate()
        tables = {table for stream in streams for table in stream.tables}
        _vacuum(connection, tables | (found.erased.keys() - {"events"}))
        certificate = with_kafka(settings, connection, streams, found)
        return certificate.keep(connection)


@contextmanager
def _alone(settings: Settings) -> Iterator[Connection]:
    with session(settings, "forget", statement_timeout=WHOLE_TABLES_TIMEOUT) as connection:
        try:
            # Until the connection ends. The server may notice late that an earlier one did.
            connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        except psycopg.errors.LockNotAvailable:
            raise Unavailable("another `streamflow forget` is running: wait for it") from None
        try:
            yield connection
        except psycopg.errors.LockNotAvailable:
            raise Unavailable(
                f"others kept a table or rows locked for {LOCK_TIMEOUT} s (a loader with a large batch, a "
                "replay, or Dagster): run it again"
            ) from None


def _wait_for_loaders(connection: Connection) -> None:
    """Waits for the loaders' transactions in progress: each writes to this table before it reads the
    list."""
    with connection.transaction():
        connection.execute("LOCK TABLE loader_positions IN SHARE MODE")


def _vacuum(connection: Connection, tables: Iterable[str]) -> None:
    for table in tables:
        for leaf in leaves(connection, table):
            remove_old_versions(connection, leaf)


def _windows_that_stay(connection: Connection, streams: Sequence[Stream]) -> Iterator[str]:
    """Which windows group by fields that are not taken for names: a customer's number may be one. And those
    that no stream declares any more."""
    groups = [
        f"{table.name} by {', '.join(fields)}"
        for stream in streams
        for table in window_tables(stream)
        if (fields := [path for path in table.spec.by_fields if not names_person(stream, path)])
    ]
    if groups:
        yield (
            f"groups of windows by fields that name nobody by themselves: {'; '.join(groups)} "
            "(docs/privacy.md: forgetting a person)"
        )
    if undeclared := undeclared_tables(connection, streams):
        yield (
            f"tables of windows that are declared no more ({', '.join(undeclared)}): drop them, or declare "
            "the windows again and repeat this"
        )


class _Erasure:
    """One subject's erasure, by its id on the list."""

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        streams: Sequence[Stream],
        subject: Subject,
        erasure_id: int,
    ) -> None:
        self._connection = connection
        self._group = settings.group("loader")
        self._streams = streams
        self._hasher: Hasher = hasher_for(settings, streams)
        self._subject = subject
        self.erasure_id = erasure_id
        self._known = Forgotten(self._hasher, [(erasure_id, subject.kind, subject.hashes)])
        self._names: list[str] | None = None

    @classmethod
    def begin(
        cls,
        connection: Connection,
        settings: Settings,
        streams: Sequence[Stream],
        subject: Subject,
        requested_by: str,
    ) -> "_Erasure":
        """Puts the subject on the list, unless it is there already. Counts go on after a run that was
        killed, and begin at 0 after a certificate."""
        for stream in streams:
            counted = stream.kind_field
            if counted in (USER, *stream.decoder.private_fields):
                raise ConfigurationError(
                    f"the windows of stream {stream.name} count by {counted}, and so name whom they "
                    "count: nothing was erased; count by another field, or remove these windows by hand"
                )
        row = connection.execute(
            "UPDATE erasures SET finished_at = NULL,"
            " others = CASE WHEN finished_at IS NULL THEN others ELSE '{}' END,"
            " hashes = ARRAY(SELECT DISTINCT unnest(hashes || %(hashes)s::text[]))"
            " WHERE id = (SELECT min(id) FROM erasures"
            " WHERE kind = %(kind)s AND hashes && %(hashes)s::text[]) RETURNING id, hashes",
            {"kind": subject.kind, "hashes": list(subject.hashes)},
        ).fetchone()
        if row is None:
            row = connection.execute(
                "INSERT INTO erasures (kind, hashes, requested_by) VALUES (%s, %s, %s)"
                " RETURNING id, hashes",
                [
                    subject.kind,
                    list(subject.hashes),
                    redacted(settings, streams, requested_by),
                ],
            ).fetchone()
        assert row is not None  # noqa: S101 (it was inserted)
        subject = subject._replace(hashes=with_lifted(hasher_for(settings, streams), row[1]))
        return cls(connection, settings, streams, subject, row[0])

    def count_anew(self) -> None:
        self._connection.execute(
            "UPDATE erasures SET others = '{}' WHERE id = %s", [self.erasure_id]
        )

    def read_certificate(self) -> Certificate:
        found = read_certificate(self._connection, self.erasure_id, self._hasher.keys)
        windows = _windows_that_stay(self._connection, self._streams)
        return replace(found, elsewhere=(*found.elsewhere, *windows))

    def erase_events(self) -> None:
        for stream in self._streams:
            self._erase_events_of(stream)

    def erase_derived(self) -> None:
        connection = self._connection
        emptied = erasing.erase_derived(connection, Positions.of_erasure(self.erasure_id))
        emptied += erasing.erase_notifications(
            connection, Positions(_NAMING[self._subject.kind], self._values())
        )
        for ids in select.pages(connection, Selection(statuses=())):
            letters = select.read(connection, ids, group=self._group)
            theirs = [Erased(self.erasure_id, letter.id) for letter in letters if self._has(letter)]
            if theirs:
                emptied += erasing.erase_derived(connection, Positions.listed(theirs))
        self._count(emptied)
        self._erase_windows()
        self._erase_history()

    def _erase_events_of(self, stream: Stream) -> None:
        columns = existing_columns(self._connection, stream.event_table)
        blanks = event_blanks(
            stream, [Column(name, known.type, known.nullable) for name, known in columns.items()]
        )
        conditions: list[sql.Composable] = [
            sql.SQL("{}::text ~ %(pattern)s").format(sql.Identifier(name))
            for name in blanks
            if columns[name].type.partition("(")[0] in _SEARCHED
            and self._subject.kind is Kind.ADDRESS
        ]
        if USER in columns:
            conditions.append(sql.SQL('"user"::text = ANY(%(names)s)'))
        table, time = map(sql.Identifier, (stream.event_table, stream.event_time))
        match = sql.SQL(" OR ").join(conditions)
        self._erase_rollups(stream, match if USER in columns and conditions else None)
        if not conditions:
            return
        self._erase_sessions(stream, match)
        types = {name: known.type for name, known in columns.items()}
        emptied = self._connection.execute(
            _ERASE_EVENTS.format(
                table=table, time=time, match=match, blanks=assignments(blanks, types)
            ),
            self._values() | parameters(blanks),
        ).rowcount
        self._count({"events": emptied})
        self._count(erasing.erase_state(self._connection, stream, match, self._values()))

    def _erase_rollups(self, stream: Stream, match: sql.Composable | None) -> None:
        for rollup in stream.rollups:
            if USER in rollup.columns and table_exists(self._connection, rollup.table):
                self._count(
                    erasing.erase_rollup(
                        self._connection, stream, rollup.table, match, self._values()
                    )
                )

    def _erase_sessions(self, stream: Stream, match: sql.Composable) -> None:
        """Computes the sessions that the subject's events are in without them, while these are still known,
        and removes what is left of the subject in others."""
        for table in session_tables(stream):
            if table_exists(self._connection, table.name):
                is_user = self._subject.kind is Kind.USER
                removed = erase_sessions(
                    self._connection, table, match, self._values(), of_user=is_user
                )
                self._count({table.name: removed})

    def _erase_windows(self) -> None:
        is_user = self._subject.kind is Kind.USER
        for table in itertools.chain.from_iterable(map(window_tables, self._streams)):
            if table_exists(self._connection, table.name):
                changed = erase_windows(self._connection, table, self._values(), of_user=is_user)
                self._count({table.name: changed})

    def _erase_history(self) -> None:
        """Empties texts that dead letters were searched by, and names of those who asked for something."""
        terms = [*self._subject.hashes, *self._values()["names"]]
        self._count(erasing.erase_history(self._connection, terms))

    def _count(self, changed: Mapping[str, int]) -> None:
        """Adds to the numbers of changed rows, by table. They are part of the transaction, so no row is
        counted twice or forgotten, whenever the process is killed."""
        for table, number in changed.items():
            if number:
                self._connection.execute(
                    "UPDATE erasures SET others = others || jsonb_build_object(%(table)s::text,"
                    " coalesce((others->>%(table)s)::bigint, 0) + %(number)s) WHERE id = %(id)s",
                    {"table": table, "number": number, "id": self.erasure_id},
                )

    def _has(self, letter: DeadLetter) -> bool:
        return self._known.of_content(*letter.pieces) is not None

    def _values(self) -> dict[str, Any]:
        if self._names is None:
            self._names = self._find_names()
        return {
            "erasure_id": self.erasure_id,
            "pattern": "|".join(self._subject.hashes),
            "hashes": list(self._subject.hashes),
            "names": self._names,
        }

    def _find_names(self) -> list[str]:
        """The names of a user: given, or the stored ones that have the hash."""
        if self._subject.kind is not Kind.USER:
            return []
        if self._subject.name is not None:
            return list(dict.fromkeys((self._subject.name, shortened(self._subject.name))))
        user = f'"{USER}"'
        columns = {(NOTIFICATIONS.name, user), *((table, name) for table, name, _ in erasing.NAMES)}
        for stream in self._streams:
            columns |= {(rollup.table, user) for rollup in stream.rollups if USER in rollup.columns}
            tables = [t for t in stream.tables if USER in existing_columns(self._connection, t)]
            columns |= {(table, user) for table in tables}
            columns |= {
                (table.name, f'"{column}"')
                for table in session_tables(stream)
                for column in table.columns_of(USER)
            }
            columns |= {
                (table.name, f'"{column}"')
                for table in window_tables(stream)
                for column in naming_columns(table, of_user=True)
            }
        names: set[str] = set()
        for table, column in columns:
            if table_exists(self._connection, table):
                query = sql.SQL("SELECT DISTINCT {0}::text FROM {1} WHERE {0} IS NOT NULL")
                query_of_table = query.format(sql.SQL(column), sql.Identifier(table))
                rows = self._connection.execute(query_of_table)
                names |= {name for (name,) in rows if self._known.of_user(name) is not None}
        return sorted(names)
