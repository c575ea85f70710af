"""Requests with an idempotency key: what became of each, known even after a kill.

An ingest worker claims its requests before it sends them, all of a Kafka transaction in one batch. Before
Kafka commits, the batch gets the positions of its records. Whoever settles a batch that was left open has
fenced its worker, so that nobody can commit it any more, and asks Kafka whether a record is at the first of
these positions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import psycopg
from psycopg.types.json import Jsonb

from streamflow.errors import Fenced
from streamflow.postgres.connections import Connection, connect, is_contention, translate
from streamflow.records import Origin
from streamflow.settings import Settings

_T = TypeVar("_T")

_STATEMENT_SECONDS: Final = 10
_ATTEMPTS: Final = 3
_EXPIRED_AT_ONCE: Final = 20  # batches: nothing waits for long

_BEGIN: Final = "INSERT INTO ingest_batches (instance) VALUES (%s) RETURNING batch"
# In the order of the keys: two workers with the same keys wait for each other in one direction only.
_CLAIM: Final = """
INSERT INTO ingest_requests (stream, key, fingerprint, batch, number)
SELECT stream, key, fingerprint, %s, number
FROM unnest(%s::text[], %s::bytea[], %s::bytea[], %s::integer[]) AS asked (stream, key, fingerprint, number)
ORDER BY stream, key
ON CONFLICT DO NOTHING
RETURNING number
"""
_KNOWN: Final = """
SELECT asked.number, known.fingerprint, batch.stored, batch.positions -> known.number::text
FROM unnest(%s::text[], %s::bytea[], %s::integer[]) AS asked (stream, key, number)
JOIN ingest_requests AS known USING (stream, key)
JOIN ingest_batches AS batch USING (batch)
"""
_PREPARE: Final = "UPDATE ingest_batches SET positions = %s WHERE batch = %s AND NOT stored"
_CONFIRM: Final = "UPDATE ingest_batches SET stored = true WHERE batch = ANY(%s)"
_DROP: Final = "DELETE FROM ingest_batches WHERE batch = ANY(%s) AND NOT stored"
# Not if the positions were noted after they were read: then the worker may have committed since.
_DISCARD: Final = """
DELETE FROM ingest_batches WHERE batch = %s AND NOT stored AND (positions IS NULL) = %s
"""
_OPEN: Final = "SELECT batch, positions FROM ingest_batches WHERE instance = %s AND NOT stored"
_STALE: Final = """
SELECT DISTINCT instance FROM ingest_batches
WHERE NOT stored AND instance <> %s AND began_at < now() - make_interval(secs => %s)
"""
_EXPIRE: Final = """
DELETE FROM ingest_batches WHERE batch IN (
    SELECT batch FROM ingest_batches WHERE stored AND began_at < now() - make_interval(secs => %s)
    ORDER BY began_at LIMIT %s
)
"""

Place = tuple[int, int]  # partition and offset


class Keyed(NamedTuple):
    """A request with a key, as it is claimed."""

    stream: str
    key: bytes
    fingerprint: bytes


class Earlier(NamedTuple):
    """What is known of an earlier request with the same key. Without places it is still being sent."""

    fingerprint: bytes
    places: list[Place] | None


class Claim(NamedTuple):
    """What became of requests that were to be claimed, each by its place among them."""

    batch: int
    claimed: list[int]
    earlier: dict[int, Earlier]


class IngestRequests:
    """The requests of one ingest worker; for one thread. All raise Unavailable where the database does not
    answer, and ConfigurationError where it refuses; the next call connects again."""

    def __init__(self, settings: Settings, instance: str) -> None:
        self._settings = settings
        self._instance = instance
        self._connection: Connection | None = None

    def claim(self, requests: Sequence[Keyed], stored: Sequence[int]) -> Claim:
        """Claims requests of which nothing is known, in a new batch; confirms batches, as `confirm` does."""

        def claim(connection: Connection) -> Claim:
            with connection.transaction():
                if stored:
                    connection.execute(_CONFIRM, [list(stored)])
                return self._claim(connection, requests)

        return self._run(claim)

    def _claim(self, connection: Connection, requests: Sequence[Keyed]) -> Claim:
        streams, keys, fingerprints = map(list, zip(*requests, strict=True))
        numbers = list(range(len(requests)))
        [(batch,)] = connection.execute(_BEGIN, [self._instance])
        claimed = connection.execute(_CLAIM, [batch, streams, keys, fingerprints, numbers])
        mine = sorted(number for (number,) in claimed)
        if not mine:
            connection.execute(_DROP, [[batch]])
        earlier: dict[int, Earlier] = {}
        if len(mine) < len(requests):
            known = connection.execute(_KNOWN, [streams, keys, numbers])
            others = set(numbers).difference(mine)
            earlier = {
                number: Earlier(fingerprint, _places(places) if is_stored else None)
                for number, fingerprint, is_stored, places in known
                if number in others
            }
        return Claim(batch, mine, earlier)

    def prepare(self, batch: int, places: Mapping[int, Sequence[Place]]) -> None:
        """Notes where the records of a batch are, by the number of their request, before Kafka commits.
        Raises Fenced if another worker has settled the batch."""

        def prepare(connection: Connection) -> int:
            positions = {str(number): list(found) for number, found in places.items()}
            return connection.execute(_PREPARE, [Jsonb(positions), batch]).rowcount

        if self._run(prepare) != 1:
            raise Fenced("another worker has settled this batch")

    def confirm(self, batches: Sequence[int]) -> None:
        """Notes that Kafka has committed batches."""
        self._run(lambda connection: connection.execute(_CONFIRM, [list(batches)]))

    def drop(self, batches: Sequence[int]) -> None:
        """Forgets requests of which nothing was sent."""
        self._run(lambda connection: connection.execute(_DROP, [list(batches)]))

    def settle(self, instance: str, committed: Callable[[str, Place], bool]) -> None:
        """Settles what a worker has left open, after it was fenced; `committed` says whether Kafka holds a
        committed record at a place of a stream's topic."""

        def open_batches(connection: Connection) -> list[tuple[int, dict[str, list[Place]] | None]]:
            return connection.execute(_OPEN, [instance]).fetchall()

        for batch, positions in self._run(open_batches):
            first = self._first_place(batch, positions or {})
            if first is not None and committed(*first):
                self.confirm([batch])
            else:
                self._discard(batch, is_unsent=positions is None)

    def _discard(self, batch: int, *, is_unsent: bool) -> None:
        self._run(lambda connection: connection.execute(_DISCARD, [batch, is_unsent]))

    def _first_place(
        self, batch: int, positions: Mapping[str, Sequence[Place]]
    ) -> tuple[str, Place] | None:
        """A place of a batch, whose records are committed together, and the stream of its topic."""
        query = "SELECT number, stream FROM ingest_requests WHERE batch = %s"
        for number, stream in self._run(lambda one: one.execute(query, [batch]).fetchall()):
            for partition, offset in positions.get(str(number), ()):
                return stream, (partition, offset)
        return None

    def stale(self, seconds: float) -> list[str]:
        """The other instances that have left something open for longer."""
        found = self._run(lambda one: one.execute(_STALE, [self._instance, seconds]).fetchall())
        return [instance for (instance,) in found]

    def expire(self, seconds: float) -> bool:
        """Forgets some of the requests that were stored longer ago; returns whether there may be more."""
        gone = self._run(lambda one: one.execute(_EXPIRE, [seconds, _EXPIRED_AT_ONCE]).rowcount)
        return gone == _EXPIRED_AT_ONCE

    def _run(self, work: Callable[[Connection], _T]) -> _T:
        for attempt in range(_ATTEMPTS):
            if self._connection is None:
                self._connection = connect(
                    self._settings, "ingest", statement_timeout=_STATEMENT_SECONDS
                )
            try:
                return work(self._connection)
            except psycopg.Error as error:
                if is_contention(error) and attempt < _ATTEMPTS - 1:
                    continue
                self.close()
                raise translate(error) from error
        raise AssertionError("unreachable")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def places_of(positions: Sequence[Origin]) -> list[Place]:
    return [(position.partition, position.offset) for position in positions]


def _places(stored: Sequence[Sequence[int]]) -> list[Place]:
    return [(partition, offset) for partition, offset in stored]
